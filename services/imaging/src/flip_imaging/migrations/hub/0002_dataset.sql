-- The ready data set that stands in for the Trust's studies, as the Trust told it; null where images come from its PACS.
ALTER TABLE trust_imaging ADD COLUMN dataset jsonb;

-- What each Trust's cases count for where the run says so.
ALTER TABLE run ADD COLUMN aggregation_weights jsonb NOT NULL DEFAULT '{}';

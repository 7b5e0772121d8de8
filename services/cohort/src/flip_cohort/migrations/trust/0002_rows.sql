-- What the query says of each member beside their ids: its rows, without the columns that are identifiers. Training reads
-- them; they never leave the Trust.
ALTER TABLE frozen_member ADD COLUMN rows jsonb NOT NULL DEFAULT '[]';
CREATE OR REPLACE VIEW frozen.cohort_member AS
    SELECT m.project_id, m.person_id, m.accession_id, c.digest AS query_digest, m.rows
    FROM frozen_member m
    JOIN frozen_cohort c USING (project_id)
    WHERE NOT EXISTS (SELECT FROM opt_out o WHERE o.person_id = m.person_id);

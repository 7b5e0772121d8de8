-- Filled by projections of what `files` and `cohort` say: what a run of a researcher's own app needs.
CREATE TABLE model_file (
    model_id       uuid NOT NULL,
    path           text NOT NULL,
    status         text NOT NULL CHECK (status IN ('scanning', 'accepted', 'refused')),
    digest         text NOT NULL,
    reason         text,
    configuration  jsonb,
    PRIMARY KEY (model_id, path)
);
CREATE TABLE frozen_query (
    project_id  uuid NOT NULL,
    trust       text NOT NULL,
    digest      text NOT NULL,
    PRIMARY KEY (project_id, trust)
);

-- Every file that the run is started with, by its digest.
ALTER TABLE run ADD COLUMN files jsonb NOT NULL DEFAULT '{}';

-- An app may give several values of a metric in a round, each at a place on an axis.
ALTER TABLE run_metric
    ADD COLUMN axis text NOT NULL DEFAULT 'round',
    ADD COLUMN x    double precision;
UPDATE run_metric SET x = round;
ALTER TABLE run_metric
    ALTER COLUMN axis DROP DEFAULT,
    DROP CONSTRAINT run_metric_pkey,
    ADD PRIMARY KEY (run_id, trust, name, round, axis, x);

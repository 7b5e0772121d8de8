-- Filled by projections of this Trust's own events: the ready data set that stands in for a project's studies.
CREATE TABLE dataset (
    project_id       uuid PRIMARY KEY,
    name             text NOT NULL,
    cases            integer NOT NULL,
    channels         jsonb NOT NULL,
    labels           jsonb NOT NULL,
    dataset_sha256   text NOT NULL,
    manifest_sha256  text NOT NULL
);

-- Filled by projections of what `projects` says: the models that may have files.
CREATE TABLE known_model (
    model_id    uuid PRIMARY KEY,
    project_id  uuid NOT NULL,
    framework   text NOT NULL,
    job         text NOT NULL,
    deleted     boolean NOT NULL DEFAULT false
);
-- Filled by projections of this service's own events: the files of models as they stand.
CREATE TABLE model_file (
    model_id    uuid NOT NULL,
    path        text NOT NULL,
    status      text NOT NULL CHECK (status IN ('scanning', 'accepted', 'refused')),
    digest      text NOT NULL,
    size_bytes  bigint NOT NULL,
    reason      text,
    detail      text NOT NULL DEFAULT '',
    findings    jsonb NOT NULL DEFAULT '[]',
    at          timestamptz NOT NULL,
    PRIMARY KEY (model_id, path)
);

-- What waits for its scan: results and files alike, each as it was said, `type` the name of the message.
ALTER TABLE scan RENAME TO scan_of_results;
CREATE TABLE scan (
    subject     text PRIMARY KEY,
    type        text NOT NULL,
    asked       jsonb NOT NULL,
    attempts    integer NOT NULL DEFAULT 0,
    not_before  timestamptz NOT NULL DEFAULT now(),
    done        boolean NOT NULL DEFAULT false
);
CREATE INDEX scan_to_do ON scan (not_before) WHERE NOT done;
INSERT INTO scan (subject, type, asked, attempts, not_before, done)
    SELECT 'run/' || run_id, 'flip.trainer-node.ResultsCollected.v1', collected, attempts, not_before, done
    FROM scan_of_results;
DROP TABLE scan_of_results;

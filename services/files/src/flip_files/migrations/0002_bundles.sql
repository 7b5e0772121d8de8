-- Filled by projections of what nets say: where each run's bundles are.
CREATE TABLE bundle (
    run_id  uuid NOT NULL,
    digest  text NOT NULL,
    object  text NOT NULL,
    PRIMARY KEY (run_id, digest)
);
INSERT INTO bundle SELECT run_id, collected ->> 'digest', collected ->> 'object' FROM scan;

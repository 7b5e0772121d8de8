-- Filled by projections of what nets and `files` say: the completed rounds of a run whose weights are kept.
CREATE TABLE run_round (
    run_id      uuid NOT NULL,
    round       integer NOT NULL,
    attempt     integer NOT NULL,
    checkpoint  jsonb NOT NULL,
    PRIMARY KEY (run_id, round)
);
-- Of earlier runs the last one is known. A rebuilt projection has them all.
INSERT INTO run_round SELECT run_id, (checkpoint ->> 'round')::int, attempt, checkpoint
FROM run WHERE checkpoint IS NOT NULL;

-- The run that a run goes on from, and the round with which it began.
ALTER TABLE run
    ADD COLUMN continues   uuid,
    ADD COLUMN first_round integer NOT NULL DEFAULT 0;

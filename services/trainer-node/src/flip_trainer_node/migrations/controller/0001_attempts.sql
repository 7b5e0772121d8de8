-- Filled by projections of the controller's own events: the attempts of this net. `told` is the sequence number of the
-- last event of the run's folder that was told; `forget` says that the run has ended for good and its folder may go.
CREATE TABLE attempt (
    attempt_id  text PRIMARY KEY,
    run_id      uuid NOT NULL,
    attempt     integer NOT NULL,
    fencing     bigint NOT NULL UNIQUE,
    status      text NOT NULL,
    told        bigint NOT NULL DEFAULT 0,
    forget      boolean NOT NULL DEFAULT false,
    forgotten   boolean NOT NULL DEFAULT false
);
CREATE INDEX attempt_open ON attempt (fencing) WHERE status <> 'closed';
CREATE INDEX attempt_of_run ON attempt (run_id);

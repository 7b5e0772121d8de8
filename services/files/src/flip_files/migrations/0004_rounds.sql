-- Filled by projections of what nets say: the weights after each round, as each attempt stored them.
CREATE TABLE round (
    run_id       uuid NOT NULL,
    attempt      integer NOT NULL,
    round        integer NOT NULL,
    project_id   uuid NOT NULL,
    object       text NOT NULL,
    digest       text NOT NULL,
    file_digest  text,
    size_bytes   bigint,
    score        double precision,
    best_object  text,
    at           timestamptz NOT NULL,
    deleted      boolean NOT NULL DEFAULT false,
    PRIMARY KEY (run_id, attempt, round)
);
-- Filled by projections of what `scheduler` says: with which round each attempt began, and when the run ended.
CREATE TABLE run_attempt (
    run_id       uuid NOT NULL,
    attempt      integer NOT NULL,
    first_round  integer NOT NULL,
    PRIMARY KEY (run_id, attempt)
);
CREATE TABLE run_end (
    run_id    uuid PRIMARY KEY,
    ended_at  timestamptz NOT NULL
);

-- Ended runs whose rounds are to be thinned. A round that is told of late has the run thinned again.
CREATE TABLE thinning (
    run_id      uuid PRIMARY KEY,
    asked       integer NOT NULL DEFAULT 1,
    done        integer NOT NULL DEFAULT 0,
    not_before  timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX thinning_to_do ON thinning (not_before) WHERE done < asked;

-- The order in which things took effect here, said and heard alike: what a replay goes by.
ALTER TABLE inbox
    ADD COLUMN pos bigint NOT NULL DEFAULT nextval('event_log_pos_seq'),
    ADD COLUMN xid xid8 NOT NULL DEFAULT pg_current_xact_id();

ALTER TABLE parked
    ADD COLUMN event_id uuid,
    ADD COLUMN type text;
CREATE INDEX parked_by_event ON parked (event_id);
CREATE VIEW parked_in_line AS
    SELECT p.*,
        NOT EXISTS (SELECT FROM parked q WHERE (q.topic, q.key) = (p.topic, p.key) AND q.id < p.id) AS first,
        (SELECT count(*) FROM parked q WHERE (q.topic, q.key) = (p.topic, p.key) AND q.id > p.id) AS behind
    FROM parked p;
-- What an operator took out of the way, kept whole.
CREATE TABLE discarded (
    id          bigint PRIMARY KEY,
    topic       text NOT NULL,
    key         text NOT NULL,
    partition   integer NOT NULL,
    "offset"    bigint NOT NULL,
    headers     jsonb NOT NULL,
    value       bytea,
    event_id    uuid,
    type        text,
    reason      text NOT NULL,
    attempts    integer NOT NULL,
    parked_at   timestamptz NOT NULL,
    actor       text NOT NULL,
    because     text NOT NULL,
    at          timestamptz NOT NULL
);
CREATE INDEX discarded_by_event ON discarded (event_id);

-- Rebuilds of this service's projections, each compared with what stood there.
CREATE TABLE rebuild (
    rebuild_id  uuid PRIMARY KEY,
    actor       text NOT NULL,
    swap        boolean NOT NULL,
    state       text NOT NULL CHECK (state IN ('asked', 'running', 'done', 'failed')),
    asked_at    timestamptz NOT NULL,
    ended_at    timestamptz,
    events      bigint NOT NULL DEFAULT 0,
    missing     bigint NOT NULL DEFAULT 0,
    tables      jsonb NOT NULL DEFAULT '[]',
    reason      text
);
CREATE UNIQUE INDEX one_rebuild_at_a_time ON rebuild ((true)) WHERE state IN ('asked', 'running');

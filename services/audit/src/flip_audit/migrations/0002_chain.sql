-- Everything said, in the order in which it was heard: a chain of lines, each with the hash of the one before in it
-- (flip_contracts.ledger). `line` is the record; the columns behind it repeat what a search needs.
CREATE TEMPORARY TABLE before_the_chain ON COMMIT DROP AS SELECT * FROM ledger;
DROP TABLE ledger;
CREATE TABLE ledger (
    position    bigint PRIMARY KEY CHECK (position > 0),
    hash        bytea NOT NULL,
    line        text NOT NULL,
    event_id    uuid NOT NULL UNIQUE,
    type        text NOT NULL,
    time        timestamptz NOT NULL,
    actor       text NOT NULL,
    project_id  uuid,
    heard_at    timestamptz NOT NULL
);
CREATE INDEX ledger_by_project ON ledger (project_id, time, position);
CREATE INDEX ledger_by_actor ON ledger (actor, time, position);
CREATE INDEX ledger_by_type ON ledger (type, time, position);
CREATE INDEX ledger_by_time ON ledger (time, position);

DO $$
DECLARE
    old   record;
    prev  bytea := decode(repeat('00', 32), 'hex');
    at    bigint := 0;
    line  text;
BEGIN
    PERFORM set_config('timezone', 'UTC', true);
    FOR old IN SELECT * FROM before_the_chain ORDER BY number LOOP
        at := at + 1;
        SELECT format('{"position":%s,"prev":"%s",', at, encode(prev, 'hex')) || substr(row_to_json(facts)::text, 2)
        INTO line FROM (
            SELECT old.actor, old.body, old.causation_id, old.correlation_id, old.event_id, old.heard_at, old.key,
                   old.project_id, old.source, old.stream_version, old.time, old.topic, old.type
        ) AS facts;
        prev := sha256('\x00'::bytea || convert_to(line, 'UTF8'));
        INSERT INTO ledger
        VALUES (at, prev, line, old.event_id, old.type, old.time, old.actor, old.project_id, old.heard_at);
    END LOOP;
END $$;

-- Be the only one to append until the transaction ends: the end of the chain, and which of these events it has.
CREATE FUNCTION lock_ledger(ids uuid[], OUT "position" bigint, OUT hash bytea, OUT known uuid[]) LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_advisory_xact_lock(hashtextextended('flip.ledger', 0));
    -- Statements of their own, so that they see what the one who held the lock before has committed.
    SELECT l.position, l.hash INTO "position", hash FROM ledger l ORDER BY l.position DESC LIMIT 1;
    known := ARRAY(SELECT l.event_id FROM ledger l WHERE l.event_id = ANY (ids));
END $$;

-- Signed statements over the chain, and when each was seen in the object store.
CREATE TABLE checkpoint (
    number          bigint PRIMARY KEY,
    first_position  bigint NOT NULL UNIQUE,
    last_position   bigint NOT NULL UNIQUE CHECK (last_position >= first_position),
    statement       text NOT NULL,
    signature       bytea NOT NULL
);
CREATE TABLE stored_checkpoint (
    number  bigint PRIMARY KEY,
    object  text NOT NULL,
    at      timestamptz NOT NULL
);
-- The public half of every key that ever signed.
CREATE TABLE ledger_key (
    id          text PRIMARY KEY,
    public_key  bytea NOT NULL,
    since       timestamptz NOT NULL DEFAULT now()
);

CREATE TRIGGER ledger_is_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON ledger
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER checkpoint_is_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON checkpoint
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER ledger_key_is_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON ledger_key
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

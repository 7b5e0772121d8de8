-- What was said: state and outbox in one. Rows are appended, never changed.
CREATE TABLE event_log (
    pos             bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    xid             xid8 NOT NULL DEFAULT pg_current_xact_id(),
    id              uuid NOT NULL UNIQUE,
    topic           text NOT NULL,
    key             text NOT NULL,
    stream_version  bigint NOT NULL,
    type            text NOT NULL,
    time            timestamptz NOT NULL,
    actor           text NOT NULL,
    correlation_id  uuid NOT NULL,
    causation_id    uuid,
    traceparent     text,
    payload         bytea NOT NULL,
    local           boolean NOT NULL,
    UNIQUE (topic, key, stream_version)
);
CREATE INDEX event_log_by_transaction ON event_log (xid, pos);

CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'the event log is append-only';
END $$;
CREATE TRIGGER event_log_is_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON event_log
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- How far the relay has come: it publishes the window of transactions [low, high) by position, up to `last`.
CREATE TABLE relay_cursor (
    one    boolean PRIMARY KEY DEFAULT true CHECK (one),
    epoch  bigint NOT NULL DEFAULT 0,
    low    xid8 NOT NULL DEFAULT '0',
    high   xid8 NOT NULL DEFAULT '0',
    pos    bigint NOT NULL DEFAULT 0,
    last   bigint NOT NULL DEFAULT 0
);
INSERT INTO relay_cursor DEFAULT VALUES;

-- What has taken effect here, by the event's own id.
CREATE TABLE inbox (
    event_id uuid PRIMARY KEY,
    at       timestamptz NOT NULL DEFAULT now()
);
-- How far each stream has been heard, by who says it: answers "have you heard of this yet?".
CREATE TABLE inbox_stream (
    topic    text NOT NULL,
    key      text NOT NULL,
    source   text NOT NULL,
    version  bigint NOT NULL,
    PRIMARY KEY (topic, key, source)
);
CREATE TABLE inbox_offset (
    topic        text NOT NULL,
    partition    integer NOT NULL,
    next_offset  bigint NOT NULL,
    PRIMARY KEY (topic, partition)
);
-- Records whose key failed, in order: a head that is tried again or waits for an operator, and what waits behind it.
CREATE TABLE parked (
    id            bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    topic         text NOT NULL,
    key           text NOT NULL,
    partition     integer NOT NULL,
    "offset"      bigint NOT NULL,
    headers       jsonb NOT NULL,
    value         bytea,
    kind          text NOT NULL CHECK (kind IN ('transient', 'poison', 'behind')),
    reason        text NOT NULL,
    attempts      integer NOT NULL,
    next_attempt  timestamptz,
    at            timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX parked_by_key ON parked (topic, key, id);

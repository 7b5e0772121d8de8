-- Everything said, in the order in which it was heard. Filled from all topics; never changed.
CREATE TABLE ledger (
    number          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    event_id        uuid NOT NULL UNIQUE,
    type            text NOT NULL,
    topic           text NOT NULL,
    key             text NOT NULL,
    source          text NOT NULL,
    stream_version  bigint NOT NULL,
    time            timestamptz NOT NULL,
    actor           text NOT NULL,
    correlation_id  uuid NOT NULL,
    causation_id    uuid,
    project_id      uuid,
    body            jsonb NOT NULL,
    heard_at        timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX ledger_by_project ON ledger (project_id, time, number);
CREATE INDEX ledger_by_actor ON ledger (actor, time, number);
CREATE INDEX ledger_by_time ON ledger (time, number);

CREATE TRIGGER ledger_is_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON ledger
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

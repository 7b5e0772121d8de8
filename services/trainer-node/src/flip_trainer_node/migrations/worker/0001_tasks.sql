-- What the controller asked of this worker, in the order in which it is done.
CREATE TABLE task (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    kind        text NOT NULL CHECK (kind IN ('prepare', 'end')),
    run_id      uuid NOT NULL,
    attempt     integer NOT NULL,
    command     jsonb NOT NULL,
    done        boolean NOT NULL DEFAULT false
);
CREATE INDEX task_to_do ON task (id) WHERE NOT done;

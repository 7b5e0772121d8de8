-- What took effect here, in the order in which it did.
CREATE TABLE effect (
    place    bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    event_id uuid NOT NULL,
    source   text NOT NULL,
    topic    text NOT NULL,
    key      text NOT NULL,
    version  bigint NOT NULL
);

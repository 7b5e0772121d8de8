-- Addresses and credentials live here only, written in the transaction that says the user's event; never projected.
CREATE TABLE account (
    user_id              uuid PRIMARY KEY,
    email                text NOT NULL,
    email_digest         text NOT NULL UNIQUE,
    password_hash        text,
    one_time_hash        text,
    one_time_expires_at  timestamptz,
    CHECK ((one_time_hash IS NULL) = (one_time_expires_at IS NULL))
);
CREATE TABLE session (
    session_id  uuid PRIMARY KEY,
    user_id     uuid NOT NULL REFERENCES account,
    expires_at  timestamptz NOT NULL
);
-- Every refresh token of an open session, by its hash: the unused one is the newest.
CREATE TABLE refresh_token (
    token_hash  bytea PRIMARY KEY,
    session_id  uuid NOT NULL REFERENCES session ON DELETE CASCADE,
    used        boolean NOT NULL DEFAULT false
);
CREATE INDEX refresh_token_by_session ON refresh_token (session_id);

-- Tries to log in, by a hash of who tries from where; forgotten after a while.
CREATE TABLE login_try (
    who         bytea PRIMARY KEY,
    tries       integer NOT NULL,
    at          timestamptz NOT NULL,
    not_before  timestamptz NOT NULL
);
CREATE INDEX login_try_by_age ON login_try (at);

-- Invitations on their way. The body holds the one-time password and is wiped when the mail has left or is given up.
CREATE TABLE mail (
    mail_id     uuid PRIMARY KEY,
    user_id     uuid NOT NULL REFERENCES account,
    subject     text NOT NULL,
    body        text,
    state       text NOT NULL DEFAULT 'waiting' CHECK (state IN ('waiting', 'sent', 'undeliverable')),
    attempts    integer NOT NULL DEFAULT 0,
    not_before  timestamptz NOT NULL DEFAULT now(),
    give_up_at  timestamptz NOT NULL,
    CHECK ((body IS NOT NULL) = (state = 'waiting'))
);
CREATE INDEX mail_waiting ON mail (not_before) WHERE state = 'waiting';
CREATE INDEX mail_by_user ON mail (user_id, mail_id);

-- Filled by projections of this service's own events.
CREATE TABLE person (
    user_id        uuid PRIMARY KEY,
    role           text NOT NULL,
    status         text NOT NULL,
    activated      boolean NOT NULL DEFAULT false,
    invited_at     timestamptz NOT NULL,
    last_login_at  timestamptz
);

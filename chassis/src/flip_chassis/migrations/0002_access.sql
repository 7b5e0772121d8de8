-- Filled by projections of what `auth` says: who may act, as far as this service knows.
CREATE TABLE known_user (
    user_id       uuid PRIMARY KEY,
    role          text NOT NULL,
    email_digest  text NOT NULL,
    active        boolean NOT NULL,
    version       bigint NOT NULL
);
CREATE INDEX known_user_by_address ON known_user (email_digest);
CREATE TABLE ended_session (
    session_id  uuid PRIMARY KEY,
    at          timestamptz NOT NULL
);
-- Filled by projections of what `projects` says: who belongs to which project, and what state it is in.
CREATE TABLE known_project (
    project_id  uuid PRIMARY KEY,
    owner       uuid NOT NULL,
    members     uuid[] NOT NULL,
    status      text NOT NULL,
    approved    text[] NOT NULL DEFAULT '{}'
);

-- Filled by projections of what `projects` and `imaging` say: what training needs.
CREATE TABLE known_model (
    model_id    uuid PRIMARY KEY,
    project_id  uuid NOT NULL,
    framework   text NOT NULL,
    job         text NOT NULL,
    deleted     boolean NOT NULL DEFAULT false
);
CREATE TABLE enrichment (
    project_id  uuid PRIMARY KEY
);
CREATE TABLE images (
    project_id  uuid NOT NULL,
    trust       text NOT NULL,
    ready       boolean NOT NULL,
    labels      jsonb,
    PRIMARY KEY (project_id, trust)
);

-- Filled by projections of this service's own events and of what nets say of their attempts.
CREATE TABLE run (
    run_id      uuid PRIMARY KEY,
    project_id  uuid NOT NULL,
    model_id    uuid NOT NULL,
    framework   text NOT NULL,
    job         text NOT NULL,
    trusts      text[] NOT NULL,
    payload     jsonb NOT NULL,
    queued_at   timestamptz NOT NULL,
    status      text NOT NULL,
    stage       text NOT NULL,
    net         text,
    attempt     integer NOT NULL DEFAULT 0,
    fencing     bigint NOT NULL DEFAULT 0,
    rounds      integer,
    rounds_done integer NOT NULL DEFAULT 0,
    checkpoint  jsonb,
    results     text,
    reason      text,
    detail      text NOT NULL DEFAULT '',
    ended_at    timestamptz,
    last_news   bigint NOT NULL DEFAULT 0
);
CREATE INDEX run_by_project ON run (project_id, queued_at DESC);
CREATE INDEX run_waiting ON run (queued_at) WHERE status = 'queued';
CREATE INDEX run_by_fencing ON run (fencing);
-- What the timeline and the live feed show, numbered without gaps within each run.
CREATE TABLE run_news (
    run_id   uuid NOT NULL,
    number   bigint NOT NULL,
    at       timestamptz NOT NULL,
    kind     text NOT NULL,
    attempt  integer NOT NULL,
    facts    jsonb NOT NULL,
    PRIMARY KEY (run_id, number)
);
CREATE TABLE run_metric (
    run_id   uuid NOT NULL,
    trust    text NOT NULL,
    name     text NOT NULL,
    round    integer NOT NULL,
    attempt  integer NOT NULL,
    value    double precision NOT NULL,
    at       timestamptz NOT NULL,
    PRIMARY KEY (run_id, trust, name, round)
);

-- The catalogue of nets. `run_id` is the run that a net holds; the lease says until when silence is borne.
CREATE TABLE net (
    net          text PRIMARY KEY,
    framework    text NOT NULL,
    trusts       text[] NOT NULL,
    state        text NOT NULL CHECK (state IN ('free', 'held', 'released', 'lost')),
    run_id       uuid,
    fencing      bigint NOT NULL DEFAULT 0,
    lease_until  timestamptz NOT NULL,
    heard_at     timestamptz NOT NULL
);

-- Filled by projections of this service's own events: what the routes show.
CREATE TABLE project (
    project_id     uuid PRIMARY KEY,
    owner          uuid NOT NULL,
    name           text NOT NULL,
    description    text NOT NULL,
    members        uuid[] NOT NULL,
    status         text NOT NULL,
    query_version  integer,
    decisions      jsonb NOT NULL DEFAULT '{}',
    enrichment     jsonb,
    created_at     timestamptz NOT NULL,
    changed_at     timestamptz NOT NULL
);
CREATE INDEX project_by_owner ON project (owner);
CREATE TABLE model (
    model_id     uuid PRIMARY KEY,
    project_id   uuid NOT NULL,
    name         text NOT NULL,
    description  text NOT NULL,
    framework    text NOT NULL,
    job          text NOT NULL,
    created_by   text NOT NULL,
    created_at   timestamptz NOT NULL,
    changed_at   timestamptz NOT NULL,
    deleted      boolean NOT NULL DEFAULT false
);
CREATE INDEX model_by_project ON model (project_id);

-- Filled by projections of what `cohort` says.
CREATE TABLE saved_query (
    project_id     uuid PRIMARY KEY,
    query_version  integer NOT NULL
);
CREATE TABLE query_answer (
    project_id     uuid NOT NULL,
    query_version  integer NOT NULL,
    trust          text NOT NULL,
    outcome        text NOT NULL,
    PRIMARY KEY (project_id, query_version, trust)
);
-- Filled by projections of what `imaging` says.
CREATE TABLE trust_images (
    project_id    uuid NOT NULL,
    trust         text NOT NULL,
    images_ready  boolean NOT NULL DEFAULT false,
    labelled      boolean NOT NULL DEFAULT false,
    PRIMARY KEY (project_id, trust)
);
-- Filled by projections of what `scheduler` says.
CREATE TABLE trained_model (
    model_id  uuid PRIMARY KEY
);

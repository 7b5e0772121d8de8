-- Filled by projections: which Trusts were asked for a project's images, and how far each has come by its own account.
CREATE TABLE trust_imaging (
    project_id  uuid NOT NULL,
    trust       text NOT NULL,
    state       text NOT NULL CHECK (state IN ('asked', 'importing', 'ready', 'deleted')),
    counts      jsonb NOT NULL DEFAULT '{}',
    failures    jsonb NOT NULL DEFAULT '{}',
    labelled    jsonb,
    labels      jsonb NOT NULL DEFAULT '{}',
    changed_at  timestamptz NOT NULL,
    PRIMARY KEY (project_id, trust)
);

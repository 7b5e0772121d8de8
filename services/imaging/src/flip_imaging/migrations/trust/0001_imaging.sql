-- Filled by projections of what the hub asks: the projects whose images this Trust holds.
CREATE TABLE imaging_project (
    project_id  uuid PRIMARY KEY,
    state       text NOT NULL CHECK (state IN ('active', 'deleting', 'deleted')),
    training    boolean NOT NULL DEFAULT false,
    asked_at    timestamptz NOT NULL
);
-- Filled by projections of this Trust's own study events. `due_at` is when an attempt may begin; names are pseudonyms.
CREATE TABLE study (
    study_id                uuid PRIMARY KEY,
    project_id              uuid NOT NULL,
    case_name               text NOT NULL,
    state                   text NOT NULL,
    attempts                integer NOT NULL DEFAULT 0,
    reason                  text,
    due_at                  timestamptz NOT NULL,
    modality                text,
    patient                 text,
    study_instance_uid      text,
    frame_of_reference_uid  text,
    image_sha256            text,
    report                  jsonb,
    label_sha256            text,
    labels                  jsonb NOT NULL DEFAULT '{}',
    changed_at              timestamptz NOT NULL
);
CREATE INDEX study_by_project ON study (project_id, case_name);
CREATE INDEX study_waiting ON study (due_at) WHERE state IN ('queued', 'importing', 'failed');
-- Which study is which in the PACS. This stands in no event, and goes when the project's images go.
CREATE TABLE study_accession (
    study_id          uuid PRIMARY KEY,
    project_id        uuid NOT NULL,
    accession_number  text NOT NULL
);
-- Who works on a study, and until when that is believed.
CREATE TABLE study_lease (
    study_id  uuid PRIMARY KEY,
    holder    uuid NOT NULL,
    until     timestamptz NOT NULL
);
-- What the hub was told last of a project, by kind of report.
CREATE TABLE told (
    project_id  uuid NOT NULL,
    kind        text NOT NULL,
    said        jsonb NOT NULL,
    PRIMARY KEY (project_id, kind)
);
-- The stop switch of this Trust's operator.
CREATE TABLE pulling (
    one      boolean PRIMARY KEY DEFAULT true CHECK (one),
    allowed  boolean NOT NULL DEFAULT true
);
INSERT INTO pulling DEFAULT VALUES;

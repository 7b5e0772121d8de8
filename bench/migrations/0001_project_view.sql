-- What the contenders fill: one row a project, as its last edit left it.
CREATE TABLE project_view (
    project_id  uuid PRIMARY KEY,
    name        text NOT NULL,
    edits       bigint NOT NULL
);

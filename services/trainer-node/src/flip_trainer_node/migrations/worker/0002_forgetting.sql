-- Projects whose images were deleted: nothing of them is prepared any more.
CREATE TABLE forgotten_project (
    project_id  uuid PRIMARY KEY
);
ALTER TABLE task ALTER COLUMN run_id DROP NOT NULL, ALTER COLUMN attempt DROP NOT NULL;
ALTER TABLE task DROP CONSTRAINT task_kind_check;
ALTER TABLE task ADD CONSTRAINT task_kind_check CHECK (kind IN ('prepare', 'end', 'forget'));

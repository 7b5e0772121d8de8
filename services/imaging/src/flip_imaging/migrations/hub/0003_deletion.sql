-- A project is deleted at a Trust when its images are gone and each net that was given a run of it there has forgotten it.
-- Both are filled by projections.
ALTER TABLE trust_imaging ADD COLUMN images_gone boolean NOT NULL DEFAULT false;
UPDATE trust_imaging SET images_gone = true WHERE state = 'deleted';
CREATE TABLE net_at_trust (
    project_id  uuid NOT NULL,
    trust       text NOT NULL,
    net         text NOT NULL,
    forgot      boolean NOT NULL DEFAULT false,
    PRIMARY KEY (project_id, trust, net)
);

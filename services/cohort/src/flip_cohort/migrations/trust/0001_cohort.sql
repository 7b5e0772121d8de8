-- Every query that the hub sent, with what this Trust said of it: none while it is at work.
CREATE TABLE query (
    project_id  uuid NOT NULL,
    version     integer NOT NULL,
    digest      text NOT NULL,
    sql         text NOT NULL,
    imaging     boolean NOT NULL,
    outcome     text,
    PRIMARY KEY (project_id, version)
);

-- Work to be done outside of any transaction of the inbox, claimed by lease.
CREATE TABLE job (
    id              bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    kind            text NOT NULL CHECK (kind IN ('answer', 'freeze')),
    project_id      uuid NOT NULL,
    version         integer NOT NULL,
    digest          text NOT NULL,
    deadline        timestamptz,
    correlation_id  uuid NOT NULL,
    causation_id    uuid NOT NULL,
    attempts        integer NOT NULL DEFAULT 0,
    not_before      timestamptz NOT NULL DEFAULT now(),
    done            boolean NOT NULL DEFAULT false,
    UNIQUE (kind, project_id, version)
);
CREATE INDEX job_open ON job (not_before) WHERE NOT done;

-- The persons behind each number that was told: a later query may not differ from them by a few.
CREATE TABLE told_persons (
    project_id  uuid NOT NULL,
    version     integer NOT NULL,
    persons     bigint[] NOT NULL,
    PRIMARY KEY (project_id, version)
);

-- Decides which category is left unnamed beside too small ones; see disclosure.py. It never changes.
CREATE TABLE disclosure_secret (
    one     boolean PRIMARY KEY DEFAULT true CHECK (one),
    secret  bytea NOT NULL
);
INSERT INTO disclosure_secret (secret)
VALUES (decode(replace(gen_random_uuid()::text || gen_random_uuid()::text, '-', ''), 'hex'));

-- Persons whose records may not be used for research: in no answer, and in no cohort from the moment they stand here.
CREATE TABLE opt_out (
    person_id  bigint PRIMARY KEY,
    at         timestamptz NOT NULL DEFAULT now()
);

-- The frozen cohorts. The members are written first; once the cohort stands, none can be added or changed.
CREATE TABLE frozen_cohort (
    project_id  uuid PRIMARY KEY,
    version     integer NOT NULL,
    digest      text NOT NULL,
    persons     integer NOT NULL,
    studies     integer NOT NULL,
    frozen_at   timestamptz NOT NULL DEFAULT now()
);
CREATE TABLE frozen_member (
    project_id    uuid NOT NULL,
    person_id     bigint NOT NULL,
    accession_id  text,
    UNIQUE NULLS NOT DISTINCT (project_id, person_id, accession_id)
);

CREATE FUNCTION refuse_growth() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'UPDATE' OR EXISTS (SELECT FROM frozen_cohort WHERE project_id = NEW.project_id) THEN
        RAISE EXCEPTION 'a frozen cohort never grows';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER frozen_cohort_never_grows BEFORE INSERT OR UPDATE ON frozen_member
    FOR EACH ROW EXECUTE FUNCTION refuse_growth();

CREATE FUNCTION refuse_thaw() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'a frozen cohort stays frozen';
END $$;
CREATE TRIGGER frozen_cohort_stays BEFORE UPDATE OR DELETE ON frozen_cohort
    FOR EACH ROW EXECUTE FUNCTION refuse_thaw();

-- What imaging and training at this Trust may know of the cohorts.
CREATE SCHEMA frozen;
CREATE VIEW frozen.cohort_member AS
    SELECT m.project_id, m.person_id, m.accession_id
    FROM frozen_member m
    JOIN frozen_cohort USING (project_id)
    WHERE NOT EXISTS (SELECT FROM opt_out o WHERE o.person_id = m.person_id);
DO $$
BEGIN
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'cohort_frozen_reader') THEN
        GRANT USAGE ON SCHEMA frozen TO cohort_frozen_reader;
        GRANT SELECT ON frozen.cohort_member TO cohort_frozen_reader;
    END IF;
END $$;

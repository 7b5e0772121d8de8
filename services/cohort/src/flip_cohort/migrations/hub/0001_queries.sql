-- Every version of a project's query. Filled by projections of CohortQuerySaved and, for the text, RunCohortQuery.
CREATE TABLE query_version (
    project_id  uuid NOT NULL,
    version     integer NOT NULL,
    digest      text NOT NULL,
    imaging     boolean NOT NULL,
    saved_at    timestamptz NOT NULL,
    saved_by    text NOT NULL,
    sql         text,
    deadline    timestamptz,
    PRIMARY KEY (project_id, version)
);

-- Where each Trust is with each version. Filled by projections of the same, of CohortAnswered and of the Trusts' reports.
CREATE TABLE query_answer (
    project_id     uuid NOT NULL,
    version        integer NOT NULL,
    trust          text NOT NULL,
    state          text NOT NULL,
    persons        jsonb,
    reason         text,
    distributions  jsonb,
    at             timestamptz NOT NULL,
    PRIMARY KEY (project_id, version, trust)
);

-- The version that a project was last staged with. Filled by a projection of ProjectStaged.
CREATE TABLE staged_query (
    project_id  uuid PRIMARY KEY,
    version     integer NOT NULL
);

-- The cohort of a project at each Trust. Filled by projections of FreezeCohort, CohortFrozen and CohortFreezeRefused.
CREATE TABLE cohort (
    project_id  uuid NOT NULL,
    trust       text NOT NULL,
    version     integer NOT NULL,
    state       text NOT NULL CHECK (state IN ('asked', 'frozen', 'refused')),
    persons     jsonb,
    studies     jsonb,
    reason      text,
    at          timestamptz NOT NULL,
    PRIMARY KEY (project_id, trust)
);

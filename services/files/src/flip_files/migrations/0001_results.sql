-- Result bundles that a net collected, each waiting for its scan. A scan is claimed with a lease, so that a crash resumes it.
CREATE TABLE scan (
    run_id        uuid PRIMARY KEY,
    collected     jsonb NOT NULL,
    attempts      integer NOT NULL DEFAULT 0,
    not_before    timestamptz NOT NULL DEFAULT now(),
    done          boolean NOT NULL DEFAULT false
);
-- Filled by projections of this service's own events: what can be downloaded.
CREATE TABLE result (
    run_id      uuid PRIMARY KEY,
    project_id  uuid NOT NULL,
    status      text NOT NULL,
    name        text NOT NULL,
    object      text NOT NULL,
    digest      text NOT NULL,
    size_bytes  bigint NOT NULL,
    at          timestamptz NOT NULL
);

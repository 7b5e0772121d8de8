-- What a run asks for, its priority, and the virtual times of its queueing and its last assignment.
ALTER TABLE run
    ADD COLUMN minimum_trusts integer,
    ADD COLUMN resources      jsonb NOT NULL DEFAULT '{"gpus": 0, "gpu_memory_mib": 0, "memory_mib": 0}',
    ADD COLUMN priority       integer NOT NULL DEFAULT 4,
    ADD COLUMN taking_part    text[],
    ADD COLUMN assigned_at    timestamptz,
    ADD COLUMN virtual_time   bigint NOT NULL DEFAULT 0,
    ADD COLUMN virtual_start  bigint NOT NULL DEFAULT 0,
    ADD COLUMN virtual_finish bigint NOT NULL DEFAULT 0;
CREATE INDEX run_finished ON run (ended_at) WHERE status = 'finished' AND attempt = 1;
UPDATE run SET taking_part = trusts,
    assigned_at = (SELECT max(n.at) FROM run_news n WHERE n.run_id = run.run_id AND n.kind = 'assigned')
WHERE fencing > 0;
UPDATE run_news n SET facts = n.facts || jsonb_build_object('trusts', to_jsonb(r.trusts))
FROM run r WHERE r.run_id = n.run_id AND n.kind = 'assigned';

-- Filled by projections of what an admin decided.
CREATE TABLE project_weight (
    project_id  uuid PRIMARY KEY,
    weight      integer NOT NULL
);
CREATE TABLE draining_net (
    net     text PRIMARY KEY,
    reason  text NOT NULL,
    since   timestamptz NOT NULL
);

-- What a net has for a run at each Trust, where its operator said so.
ALTER TABLE net ADD COLUMN resources jsonb NOT NULL DEFAULT '{}';

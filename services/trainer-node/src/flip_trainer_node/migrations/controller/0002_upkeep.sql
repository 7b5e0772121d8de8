-- What follows from no event stands apart from the projection: how far a run's folder was told, and whether it may go.
CREATE TABLE telling (
    attempt_id  text PRIMARY KEY,
    told        bigint NOT NULL
);
CREATE TABLE ended_run (
    run_id     uuid PRIMARY KEY,
    forgotten  boolean NOT NULL DEFAULT false
);
INSERT INTO telling SELECT attempt_id, told FROM attempt;
INSERT INTO ended_run SELECT run_id, bool_and(forgotten) FROM attempt WHERE forget GROUP BY run_id;
ALTER TABLE attempt DROP COLUMN told, DROP COLUMN forget, DROP COLUMN forgotten;

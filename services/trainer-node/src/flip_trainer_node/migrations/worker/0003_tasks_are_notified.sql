-- The worker waits for its tasks instead of looking for them.
CREATE FUNCTION notify_task() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('task', '');
    RETURN NULL;
END
$$;
CREATE TRIGGER task_is_notified AFTER INSERT ON task FOR EACH STATEMENT EXECUTE FUNCTION notify_task();

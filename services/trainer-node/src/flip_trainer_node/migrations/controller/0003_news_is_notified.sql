-- The controller waits for what happens to its attempts instead of looking for it.
CREATE FUNCTION notify_attempt() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('attempt', '');
    RETURN NULL;
END
$$;
CREATE TRIGGER attempt_is_notified AFTER INSERT ON event_log FOR EACH ROW
    WHEN (NEW.topic = 'flip.trainer-node.attempt') EXECUTE FUNCTION notify_attempt();
CREATE TRIGGER end_of_run_is_notified AFTER INSERT ON ended_run FOR EACH ROW EXECUTE FUNCTION notify_attempt();

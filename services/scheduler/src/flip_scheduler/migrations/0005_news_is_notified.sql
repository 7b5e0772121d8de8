-- Whoever follows a run live waits for its news instead of looking for them.
CREATE FUNCTION notify_run_news() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('run_news', NEW.run_id::text);
    RETURN NULL;
END
$$;
CREATE TRIGGER news_is_notified AFTER INSERT ON run_news FOR EACH ROW EXECUTE FUNCTION notify_run_news();

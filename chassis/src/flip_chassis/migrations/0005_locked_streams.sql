-- To lock a stream and to read it is one round trip. Each statement of such a function has a snapshot of its own, so what
-- is read after the lock is what its last holder has committed; in one statement it could be older.
CREATE FUNCTION locked_stream(of_topic text, of_key text) RETURNS TABLE (type text, payload bytea) LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_advisory_xact_lock(hashtextextended(of_topic || '/' || of_key, 0));
    RETURN QUERY
        SELECT e.type, e.payload FROM event_log e WHERE e.topic = of_topic AND e.key = of_key ORDER BY e.stream_version;
END $$;

CREATE FUNCTION locked_version(of_topic text, of_key text) RETURNS bigint LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_advisory_xact_lock(hashtextextended(of_topic || '/' || of_key, 0));
    RETURN (SELECT coalesce(max(e.stream_version), 0) FROM event_log e WHERE e.topic = of_topic AND e.key = of_key);
END $$;

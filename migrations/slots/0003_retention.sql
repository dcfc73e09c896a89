-- Slots that are no longer kept. Forward only.

-- As values_kept of masq.policy, which another database has not: how long slots are kept at least; NULL: for ever.
CREATE TABLE masq_slots.policy (
  single      boolean  PRIMARY KEY DEFAULT true CHECK (single),
  values_kept interval
);
INSERT INTO masq_slots.policy DEFAULT VALUES;

-- Drops the slots of whole months that ended before this day, and those of these epochs, if they are of a month that began
-- before it. Answers how many went, by epoch, and whether there may be more.
--
-- Whoever has stolen a worker's login must not be able to empty this database, so no day counts that is younger than the
-- policy says. One that is so by a day only was said by a server whose clock is ahead, and is no reason to refuse.
CREATE FUNCTION masq_slots.keep_slots(day date, epochs uuid[], most integer, OUT gone jsonb, OUT more boolean)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '500ms' AS $$
DECLARE
  oldest date := (now() AT TIME ZONE 'UTC' - (SELECT greatest(values_kept, interval '1 day') FROM masq_slots.policy
                                              WHERE values_kept IS NOT NULL))::date;
  last   date := least(day, oldest);
  p      record;
  counts jsonb;
BEGIN
  IF oldest IS NULL OR day > oldest + 1 THEN
    RAISE EXCEPTION 'masq_slots.policy keeps it longer' USING ERRCODE = 'MQ015';
  END IF;
  PERFORM pg_advisory_xact_lock(hashtext('masq_slots.slots'));  -- see masq_slots.keep_months
  gone := '{}';
  more := false;
  IF epochs <> '{}' THEN
    WITH old AS (DELETE FROM masq_slots.slots s WHERE s.epoch = ANY (epochs) AND s.month <= last RETURNING s.epoch)
    SELECT coalesce(jsonb_object_agg(epoch, n), '{}') INTO gone
    FROM (SELECT epoch, count(*) AS n FROM old GROUP BY epoch) AS s;
  END IF;
  IF (SELECT relkind FROM pg_class WHERE oid = 'masq_slots.slots'::regclass) = 'r' THEN
    WITH old AS (
      DELETE FROM masq_slots.slots WHERE ctid = ANY (ARRAY(
        SELECT o.ctid FROM masq_slots.slots o WHERE o.month + interval '1 month' <= last LIMIT most)) RETURNING epoch
    )
    SELECT masq_slots.add_counts(gone, coalesce(jsonb_object_agg(epoch, n), '{}')), coalesce(sum(n), 0) >= most
    INTO gone, more FROM (SELECT epoch, count(*) AS n FROM old GROUP BY epoch) AS s;
  END IF;
  FOR p IN
    SELECT i.inhrelid::regclass AS part FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
    WHERE i.inhparent = 'masq_slots.slots'::regclass AND right(c.relname, 6) < to_char(last, 'YYYYMM')
    ORDER BY c.relname
  LOOP
    BEGIN
      EXECUTE format('LOCK TABLE %s IN ACCESS EXCLUSIVE MODE', p.part);
      EXECUTE format('SELECT coalesce(jsonb_object_agg(epoch, n), ''{}'')
                      FROM (SELECT epoch, count(*) AS n FROM %s GROUP BY epoch) AS s', p.part) INTO counts;
      EXECUTE format('DROP TABLE %s', p.part);
      gone := masq_slots.add_counts(gone, counts);
    EXCEPTION WHEN lock_not_available THEN
      more := true;
    END;
  END LOOP;
END
$$;

REVOKE ALL ON FUNCTION masq_slots.keep_slots(date, uuid[], integer) FROM PUBLIC;

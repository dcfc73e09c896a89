-- What is no longer kept: the keys of old epochs at once, what was sealed under them with its whole month, and old dead
-- letters. Forward only.

-- When the key of an epoch was thrown away, or, as long as a dead letter still needs it, the values sealed under it.
ALTER TABLE masq.epochs ADD COLUMN expired_at timestamptz;
CREATE INDEX dead_letters_epoch ON masq.dead_letters (epoch);

-- The months of a partitioned table that end before this day, as partitions and 202402; of a plain one there are none.
CREATE FUNCTION masq.months_before(parent regclass, day date) RETURNS TABLE (part regclass, month text)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT c.oid::regclass, right(c.relname, 6) FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
  WHERE i.inhparent = months_before.parent AND right(c.relname, 6) < to_char(months_before.day, 'YYYYMM')
  ORDER BY c.relname
$$;

-- Marks the epochs that began longer ago than `retention`, at most so many, and throws their keys away. Of those that a
-- dead letter needs the key stays; they are answered.
CREATE FUNCTION masq.expire_epochs(until timestamptz, most integer, OUT expired bigint, OUT needed uuid[])
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  WITH old AS (
    UPDATE masq.epochs o SET expired_at = now() WHERE o.id IN (
      SELECT i.id FROM masq.epochs i WHERE i.expired_at IS NULL AND i.recorded_at < until ORDER BY i.recorded_at LIMIT most
    ) RETURNING o.id
  )
  SELECT count(*), coalesce(array_agg(old.id) FILTER (WHERE EXISTS (
           SELECT FROM masq.dead_letters d WHERE d.epoch = old.id)), '{}')
  INTO expired, needed FROM old;
  -- Also of those whose last letter has gone since.
  DELETE FROM masq.epoch_wraps w USING masq.epochs o
  WHERE o.id = w.epoch AND o.expired_at IS NOT NULL AND NOT EXISTS (SELECT FROM masq.dead_letters d WHERE d.epoch = o.id);
END
$$;

-- Drops the entries of whole months that ended before this day, unless an epoch of theirs has not expired. A lock that
-- cannot be had soon is tried next time, since writers queue behind it. Answers how many entries went, by epoch.
CREATE FUNCTION masq.drop_entries(day date, most integer, OUT gone jsonb, OUT more boolean)
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET lock_timeout = '500ms' AS $$
DECLARE
  p      record;
  counts jsonb;
BEGIN
  gone := '{}';
  more := false;
  FOR p IN SELECT * FROM masq.months_before('masq.entries', day) LOOP
    CONTINUE WHEN EXISTS (
      SELECT FROM masq.epochs o WHERE o.expired_at IS NULL
        AND to_char(o.started_at AT TIME ZONE 'UTC', 'YYYYMM') = p.month);
    BEGIN
      EXECUTE format('LOCK TABLE %s IN ACCESS EXCLUSIVE MODE', p.part);
      EXECUTE format('SELECT coalesce(jsonb_object_agg(epoch, n), ''{}'')
                      FROM (SELECT epoch, count(*) AS n FROM %s GROUP BY epoch) AS counts', p.part) INTO counts;
      EXECUTE format('DROP TABLE %s', p.part);
      gone := masq.add_counts(gone, counts);
    EXCEPTION WHEN lock_not_available THEN
      more := true;
    END;
  END LOOP;
  IF (SELECT relkind FROM pg_class WHERE oid = 'masq.entries'::regclass) = 'r' THEN
    WITH old AS (
      DELETE FROM masq.entries WHERE ctid = ANY (ARRAY(
        SELECT e.ctid FROM masq.entries e WHERE e.month + interval '1 month' <= day AND NOT EXISTS (
          SELECT FROM masq.epochs o WHERE o.id = e.epoch AND o.expired_at IS NULL) LIMIT most)) RETURNING epoch
    )
    SELECT coalesce(jsonb_object_agg(epoch, n), '{}'), coalesce(sum(n), 0) >= most INTO gone, more
    FROM (SELECT epoch, count(*) AS n FROM old GROUP BY epoch) AS counts;
  END IF;
END
$$;

-- Keeps the vault for `retention` and dead letters for `letters`, at least a day each; NULL is for ever. At most so much at a
-- time: `more` says whether there may be more. Called by workers; one at a time is enough. `slots_of`: epochs whose slots
-- must go now, and `day`, before which whole months of slots go, for whoever keeps slots in another database.
--
-- Age is counted from the newest message: a clock that jumps must not throw away what is young.
CREATE FUNCTION masq.keep_vault(retention interval, letters interval, most integer, OUT more boolean, OUT slots_of uuid[],
                                OUT day date)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  newest  timestamptz := masq.newest_moment();
  until   timestamptz := newest - retention;
  expired bigint := 0;
  gone    jsonb := '{}';
  slots   jsonb := '{}';
  old     jsonb := '{}';
  part    jsonb;
  rest    boolean;
BEGIN
  IF least(retention, letters) < interval '1 day' OR most < 1 THEN
    RAISE EXCEPTION 'nothing is kept for less than a day' USING ERRCODE = '22023';
  END IF;
  -- Whoever has stolen a worker's login must not be able to empty the vault.
  IF EXISTS (
    SELECT FROM masq.policy p WHERE retention < p.values_kept OR letters < p.letters_kept
      OR retention IS NOT NULL AND p.values_kept IS NULL OR letters IS NOT NULL AND p.letters_kept IS NULL
  ) THEN
    RAISE EXCEPTION 'masq.policy keeps it longer' USING ERRCODE = 'MQ015';
  END IF;
  more := false;
  slots_of := '{}';
  IF newest IS NULL OR NOT pg_try_advisory_xact_lock(hashtext('masq.entries')) THEN  -- see masq.keep_months
    RETURN;
  END IF;
  day := (until AT TIME ZONE 'UTC')::date;
  old := masq.delete_old_letters(newest - letters, most);
  more := masq.sum_counts(old) >= most;
  IF retention IS NOT NULL THEN
    SELECT e.expired, e.needed INTO expired, slots_of FROM masq.expire_epochs(until, most) e;
    more := more OR expired >= most;
    IF slots_of <> '{}' THEN
      WITH needed AS (
        DELETE FROM masq.entries e WHERE e.epoch = ANY (slots_of) AND e.month IN (
          SELECT date_trunc('month', o.started_at AT TIME ZONE 'UTC')::date FROM masq.epochs o WHERE o.id = ANY (slots_of))
        RETURNING e.epoch
      )
      SELECT coalesce(jsonb_object_agg(epoch, n), '{}') INTO gone
      FROM (SELECT epoch, count(*) AS n FROM needed GROUP BY epoch) AS counts;
    END IF;
    SELECT d.gone, d.more INTO part, rest FROM masq.drop_entries(day, most) d;
    gone := masq.add_counts(gone, part);
    more := more OR rest;
    IF to_regclass('masq_slots.slots') IS NOT NULL THEN
      SELECT k.gone, k.more INTO slots, rest FROM masq_slots.keep_slots(day, slots_of, most) k;
      more := more OR rest;
    END IF;
    -- What nothing is left of.
    DELETE FROM masq.epochs o WHERE o.expired_at IS NOT NULL AND NOT more
      AND date_trunc('month', o.started_at AT TIME ZONE 'UTC') + interval '1 month' <= day
      AND NOT EXISTS (SELECT FROM masq.dead_letters d WHERE d.epoch = o.id);
  END IF;
  IF expired > 0 OR gone || slots || old <> '{}' THEN
    PERFORM masq.append('retention', 'masq', NULL, NULL, NULL, NULL, NULL,
                        jsonb_build_object('epochs', expired, 'deleted', masq.deleted(gone, slots, old))::text);
  END IF;
END
$$;

-- Deletes the dead letters that were recorded before this moment, replayed or not, the first of them first.
CREATE FUNCTION masq.delete_old_letters(until timestamptz, most integer) RETURNS jsonb
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  gone jsonb;
BEGIN
  SELECT masq.delete_letters(array_agg(d.sent_at), array_agg(d.message_id)) INTO gone FROM (
    SELECT sent_at, message_id FROM masq.dead_letters WHERE recorded_at < until
    ORDER BY sent_at, message_id LIMIT most FOR UPDATE SKIP LOCKED
  ) AS d;
  IF gone <> '{}' THEN
    INSERT INTO masq.purges (claimed, condition, letters)
    VALUES ('masq', format('[dead_letters] retention: recorded before %s', until), masq.sum_counts(gone));
  END IF;
  RETURN gone;
END
$$;

-- Puts on the record that slots were deleted in another database.
CREATE FUNCTION masq.kept_slots(gone jsonb) RETURNS bigint
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
  SELECT masq.append('retention', 'masq', NULL, NULL, NULL, NULL, NULL,
                     jsonb_build_object('deleted', masq.deleted('{}', gone, '{}'))::text)
  WHERE gone <> '{}'
$$;

REVOKE ALL ON FUNCTION masq.months_before(regclass, date), masq.expire_epochs(timestamptz, integer),
  masq.drop_entries(date, integer), masq.keep_vault(interval, interval, integer),
  masq.delete_old_letters(timestamptz, integer), masq.kept_slots(jsonb) FROM PUBLIC;

-- The salts without which a person's sealed values stay shut. In the database of the rows, or in one of their own whose
-- backups are kept for a short time only: what was deleted here is erased when the last backup of it is.
-- Runs in one transaction, after CREATE SCHEMA masq_slots. Forward only.

-- PostgreSQL 10 has no unique keys on partitioned tables: there it is one plain table.
DO $$
BEGIN
  EXECUTE 'CREATE TABLE masq_slots.slots (
    month       date  NOT NULL,  -- the first day of the month in which the epoch began, UTC
    subject_tag bytea NOT NULL,
    epoch       uuid  NOT NULL,
    salt        bytea NOT NULL,  -- 32 bytes
    PRIMARY KEY (subject_tag, epoch, month)
  )' || CASE WHEN current_setting('server_version_num')::int < 110000 THEN '' ELSE ' PARTITION BY RANGE (month)' END;
END
$$;

-- As masq.keep_months, which another database has not.
CREATE FUNCTION masq_slots.keep_months() RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  this  date := date_trunc('month', now() AT TIME ZONE 'UTC')::date;
  part  text;
  month date;
BEGIN
  IF (SELECT relkind FROM pg_class WHERE oid = 'masq_slots.slots'::regclass) <> 'p' THEN
    RETURN;
  END IF;
  PERFORM pg_advisory_xact_lock(hashtext('masq_slots.slots'));
  FOR month IN SELECT (this + make_interval(months => n))::date FROM generate_series(-1, 1) AS n LOOP
    part := 'slots_' || to_char(month, 'YYYYMM');
    CONTINUE WHEN to_regclass('masq_slots.' || part) IS NOT NULL;
    EXECUTE format('CREATE TABLE masq_slots.%I (LIKE masq_slots.slots INCLUDING ALL)', part);
    EXECUTE format('ALTER TABLE masq_slots.slots ATTACH PARTITION masq_slots.%I FOR VALUES FROM (%L) TO (%L)', part,
                   month, (month + interval '1 month')::date);
  END LOOP;
END
$$;
SELECT masq_slots.keep_months();

-- As masq.identity and masq.home: this database may be restored by itself.
CREATE FUNCTION masq_slots.identity() RETURNS text
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
  SELECT format('%s/%s/%s/%s', (SELECT system_identifier FROM pg_control_system()),
                substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8),
                (SELECT oid FROM pg_database WHERE datname = current_database()), 'masq_slots.slots'::regclass::oid)
$$;
CREATE TABLE masq_slots.home (
  single   boolean PRIMARY KEY DEFAULT true CHECK (single),
  identity text    NOT NULL
);
INSERT INTO masq_slots.home (identity) VALUES (masq_slots.identity());

-- The salts of these persons in these epochs. Nothing is opened with them alone; who asked for the entries and why is on
-- the record where those are.
CREATE FUNCTION masq_slots.fetch_slots(subject_tags bytea[], epochs uuid[])
RETURNS TABLE (subject_tag bytea, epoch uuid, salt bytea)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF (SELECT identity FROM masq_slots.home) IS DISTINCT FROM masq_slots.identity() THEN
    RAISE EXCEPTION 'the slots were restored or moved, and erasures have not been replayed since' USING ERRCODE = 'MQ007';
  END IF;
  RETURN QUERY SELECT DISTINCT s.subject_tag, s.epoch, s.salt
  FROM unnest(fetch_slots.subject_tags, fetch_slots.epochs) AS asked (subject_tag, epoch)
  JOIN masq_slots.slots s ON s.subject_tag = asked.subject_tag AND s.epoch = asked.epoch;
END
$$;

REVOKE ALL ON FUNCTION masq_slots.keep_months(), masq_slots.identity(), masq_slots.fetch_slots(bytea[], uuid[]) FROM PUBLIC;

-- What is needed to survive what may happen to a message, a producer, a clock or an operator. Forward only.

-- Outcomes: 1 row, 2 dead letter, 3 dead letter replayed into a row, 4 duplicate event (dedupe), 5 dead letter purged.
-- A partition keeps the constraint that it was made with, so each has to let go of the old one itself.
ALTER TABLE masq.ledger DROP CONSTRAINT ledger_outcome_check;
DO $$
DECLARE
  part regclass;
BEGIN
  FOR part IN SELECT inhrelid FROM pg_inherits WHERE inhparent = 'masq.ledger'::regclass LOOP
    EXECUTE format('ALTER TABLE %s DROP CONSTRAINT IF EXISTS ledger_outcome_check', part);
  END LOOP;
END
$$;
ALTER TABLE masq.ledger ADD CONSTRAINT ledger_outcome_check CHECK (outcome BETWEEN 1 AND 5);

-- When a dead letter was replayed into a row.
ALTER TABLE masq.dead_letters ADD COLUMN resolved_at timestamptz;

-- Messages that are being read although reading them may be what ends the process. Whoever finds one here that it did not
-- put here itself knows that the readers before did not live to take it out.
CREATE TABLE masq.suspects (
  sent_at    timestamptz NOT NULL,
  message_id uuid        NOT NULL,
  since      timestamptz NOT NULL DEFAULT now(),
  readers    integer     NOT NULL DEFAULT 1,
  PRIMARY KEY (sent_at, message_id)
);

-- Which events are rows, by their producers' own ids: the first 128 bits of SHA-256(queue ARN, 0, id). Such keys fall
-- all over an index, so there are four smaller ones; PostgreSQL 10 has no unique keys on partitioned tables.
DO $$
DECLARE
  by_key boolean := current_setting('server_version_num')::int >= 110000;
BEGIN
  EXECUTE 'CREATE TABLE masq.dedupe (
    key     uuid NOT NULL PRIMARY KEY,
    seen_on date NOT NULL DEFAULT (now() AT TIME ZONE ''UTC'')::date
  )' || CASE WHEN by_key THEN ' PARTITION BY HASH (key)' ELSE '' END;
  FOR part IN 0..3 LOOP
    IF by_key THEN
      EXECUTE format('CREATE TABLE masq.dedupe_%s PARTITION OF masq.dedupe FOR VALUES WITH (MODULUS 4, REMAINDER %s)',
                     part, part);
    END IF;
  END LOOP;
END
$$;
CREATE INDEX dedupe_seen_on ON masq.dedupe (seen_on);

-- The first moment that the ledger remembers, in one row, as long as the ledger remembers anything. It only grows: what
-- was once forgotten is never taken for new, whatever a clock or a retention says later.
CREATE TABLE masq.horizon (
  single boolean     PRIMARY KEY DEFAULT true CHECK (single),
  oldest timestamptz NOT NULL
);
INSERT INTO masq.horizon (oldest) SELECT oldest FROM masq.ledger_oldest() AS oldest WHERE oldest IS NOT NULL;

-- NULL: nobody has looked after the ledger yet.
CREATE OR REPLACE FUNCTION masq.ledger_oldest() RETURNS timestamptz
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
  SELECT oldest FROM masq.horizon
$$;

CREATE FUNCTION masq.ledger_is_by_day() RETURNS boolean
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT relkind = 'p' FROM pg_class WHERE oid = 'masq.ledger'::regclass
$$;

-- The server's clock, unless it is ahead of all messages: a clock that jumps must not make the ledger forget what can
-- still come. NULL: there are no messages, and so nothing to forget.
CREATE FUNCTION masq.newest_moment() RETURNS timestamptz
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT least(newest, now()) FROM (SELECT max(sent_at) AS newest FROM masq.ledger) AS ledger WHERE newest IS NOT NULL
$$;

-- Makes the partition of one UTC day, unless it is there or the ledger's memory begins later: a day that was dropped
-- must not come back empty. Made apart and attached, which locks less than CREATE TABLE … PARTITION OF.
CREATE OR REPLACE FUNCTION masq.make_partition(day date) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  part text := 'ledger_' || to_char(day, 'YYYYMMDD');
BEGIN
  PERFORM pg_advisory_xact_lock(hashtext('masq.ledger'));
  IF NOT masq.ledger_is_by_day() OR to_regclass('masq.' || part) IS NOT NULL
     OR day < (masq.ledger_oldest() AT TIME ZONE 'UTC')::date THEN
    RETURN;
  END IF;
  EXECUTE format('CREATE TABLE masq.%I (LIKE masq.ledger INCLUDING ALL)', part);
  EXECUTE format('ALTER TABLE masq.ledger ATTACH PARTITION masq.%I FOR VALUES FROM (%L) TO (%L)', part,
                 day::timestamp AT TIME ZONE 'UTC', (day + 1)::timestamp AT TIME ZONE 'UTC');
END
$$;

-- Forgets the days before this one, or as many of them as can be locked without making writers queue for long; the
-- others next time. Answers the first day that is still remembered, or NULL if nothing could be forgotten.
CREATE FUNCTION masq.forget_before(day date) RETURNS date
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET lock_timeout = '500ms' AS $$
DECLARE
  part record;
BEGIN
  FOR part IN
    SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
    WHERE i.inhparent = 'masq.ledger'::regclass AND c.relname < 'ledger_' || to_char(day, 'YYYYMMDD')
    ORDER BY c.relname
  LOOP
    BEGIN
      EXECUTE format('DROP TABLE masq.%I', part.relname);
    EXCEPTION WHEN lock_not_available THEN
      RETURN to_date(substr(part.relname, 8), 'YYYYMMDD');
    END;
  END LOOP;
  IF NOT masq.ledger_is_by_day() THEN
    -- From now on a plain table refuses them as a partitioned one does; masq.prune deletes what is there.
    EXECUTE format('ALTER TABLE masq.ledger DROP CONSTRAINT IF EXISTS ledger_horizon, '
                   'ADD CONSTRAINT ledger_horizon CHECK (sent_at >= %L) NOT VALID', day::timestamp AT TIME ZONE 'UTC');
  END IF;
  RETURN day;
EXCEPTION WHEN lock_not_available THEN
  RETURN NULL;
END
$$;

-- Makes partitions up to three days ahead, forgets what is older than `retention`, and answers the first moment that the
-- ledger remembers. SECURITY DEFINER: whoever writes the ledger needs no right to create or drop tables.
CREATE OR REPLACE FUNCTION masq.keep_partitions(retention interval) RETURNS timestamptz
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  today  date := (now() AT TIME ZONE 'UTC')::date;
  wanted date := (now() AT TIME ZONE 'UTC' - retention)::date;
  first  date;
BEGIN
  -- What a worker's login may ask for must not forget messages that can still come.
  IF (retention >= interval '1 day') IS NOT TRUE THEN
    RAISE EXCEPTION 'nothing is kept for less than a day' USING ERRCODE = '22023';
  END IF;
  PERFORM pg_advisory_xact_lock(hashtext('masq.ledger'));
  INSERT INTO masq.horizon (oldest) VALUES (wanted::timestamp AT TIME ZONE 'UTC') ON CONFLICT DO NOTHING;
  first := (masq.ledger_oldest() AT TIME ZONE 'UTC')::date;
  PERFORM masq.make_partition(day::date)
  FROM generate_series(greatest(first, wanted), today + 3, interval '1 day') AS day;
  wanted := (masq.newest_moment() AT TIME ZONE 'UTC' - retention)::date;
  IF wanted > first THEN
    wanted := masq.forget_before(wanted);
    UPDATE masq.horizon SET oldest = greatest(oldest, wanted::timestamp AT TIME ZONE 'UTC');
  END IF;
  RETURN masq.ledger_oldest();
END
$$;

-- Deletes what is no longer wanted, at most so many of each kind: the keys that a plain ledger has forgotten, the claims
-- of events seen longer ago than `claims`, and suspects of whom nobody spoke since. Answers whether there may be more.
-- One at a time is enough: whoever comes second finds nothing to do.
CREATE FUNCTION masq.prune(claims interval, most integer) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  first   timestamptz := masq.ledger_oldest();
  seen    date        := (masq.newest_moment() AT TIME ZONE 'UTC' - claims)::date;
  deleted integer     := 0;
  more    boolean     := false;
BEGIN
  IF (claims >= interval '1 day' AND most >= 1) IS NOT TRUE THEN
    RAISE EXCEPTION 'nothing is kept for less than a day' USING ERRCODE = '22023';
  END IF;
  IF NOT pg_try_advisory_xact_lock(hashtext('masq.prune')) THEN
    RETURN false;
  END IF;
  IF NOT masq.ledger_is_by_day() THEN
    DELETE FROM masq.ledger WHERE ctid = ANY (ARRAY(SELECT ctid FROM masq.ledger WHERE sent_at < first LIMIT most));
    GET DIAGNOSTICS deleted = ROW_COUNT;
    more := deleted = most;
  END IF;
  DELETE FROM masq.dedupe WHERE key IN (SELECT key FROM masq.dedupe WHERE seen_on < seen LIMIT most);
  GET DIAGNOSTICS deleted = ROW_COUNT;
  more := more OR deleted = most;
  DELETE FROM masq.suspects WHERE since < first;
  RETURN more;
END
$$;

REVOKE ALL ON FUNCTION masq.prune(interval, integer) FROM PUBLIC;

-- What runs with the rights of the ledger's owner needs them here too, whoever it is that migrates.
DO $$
DECLARE
  owner text := (SELECT pg_get_userbyid(relowner) FROM pg_class WHERE oid = 'masq.ledger'::regclass);
BEGIN
  EXECUTE format('ALTER TABLE masq.suspects OWNER TO %I', owner);
  EXECUTE format('ALTER TABLE masq.dedupe OWNER TO %I', owner);
  EXECUTE format('ALTER TABLE masq.horizon OWNER TO %I', owner);
  EXECUTE format('ALTER FUNCTION masq.prune(interval, integer) OWNER TO %I', owner);
END
$$;

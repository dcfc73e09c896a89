-- What makes each message count once, and where those lie that could not become a row.
-- Runs in one transaction, after CREATE SCHEMA masq. Forward only.

-- One row for each message that has an outcome. The unique key admits one transaction per message, so a message is a row
-- or a dead letter, never both and never twice. sent_at comes first because it keeps the index growing at its right edge.
-- PostgreSQL 10 has no unique keys on partitioned tables: there it is one plain table.
DO $$
DECLARE
  by_day text := 'PARTITION BY RANGE (sent_at)';  -- a UTC day; no DEFAULT, so that what is too old or too new is noticed
BEGIN
  IF current_setting('server_version_num')::int < 110000 THEN
    by_day := '';
  END IF;
  EXECUTE 'CREATE TABLE masq.ledger (
    sent_at    timestamptz NOT NULL,  -- SentTimestamp: the same in every delivery
    message_id uuid        NOT NULL,
    outcome    smallint    NOT NULL CHECK (outcome IN (1, 2)),  -- 1 row, 2 dead letter
    PRIMARY KEY (sent_at, message_id)
  ) ' || by_day;
END
$$;

-- The epochs under whose keys bodies are sealed; each key itself is sealed to the recovery key.
CREATE TABLE masq.epochs (
  id         uuid        PRIMARY KEY,
  started_at timestamptz NOT NULL,
  recipient  bytea       NOT NULL,  -- SHA-256 of the recovery public key
  wrapped    bytea       NOT NULL   -- HPKE: encapsulation and ciphertext
);

CREATE TABLE masq.dead_letters (
  sent_at       timestamptz NOT NULL,
  message_id    uuid        NOT NULL,
  reason        text        NOT NULL,
  queue         text        NOT NULL,  -- its name
  recorded_at   timestamptz NOT NULL DEFAULT now(),
  receive_count integer     NOT NULL,
  body_bytes    integer     NOT NULL,
  epoch         uuid        NOT NULL REFERENCES masq.epochs,
  sealed        bytea       NOT NULL,  -- the body, for the holder of the recovery key
  subject_tag   bytea,                 -- whom it concerns, for the holder of the subject key
  PRIMARY KEY (sent_at, message_id)
);

-- A message that is older than the ledger remembers has no ledger key to make it unique.
CREATE UNIQUE INDEX dead_letters_late ON masq.dead_letters (message_id) WHERE reason = 'older_than_ledger';

-- Stops a worker with other keys than those that the table's tokens were made with.
CREATE TABLE masq.key_checks (
  name       text        PRIMARY KEY,
  value      bytea       NOT NULL,
  created_at timestamptz NOT NULL DEFAULT now()
);

-- Who opened what and why. Written and committed before anything is opened.
CREATE TABLE masq.openings (
  id         bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  at         timestamptz NOT NULL DEFAULT now(),
  login      text        NOT NULL DEFAULT session_user,
  claimed    text        NOT NULL,  -- the name of the user at the terminal, as that machine says
  sent_at    timestamptz NOT NULL,
  message_id uuid        NOT NULL,
  reason     text        NOT NULL CHECK (btrim(reason) <> '')
);

-- The first moment that the ledger remembers. NULL: it has no partitions yet.
CREATE FUNCTION masq.ledger_oldest() RETURNS timestamptz
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT min(to_date(substr(c.relname, 8), 'YYYYMMDD'))::timestamp AT TIME ZONE 'UTC'
  FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
  WHERE i.inhparent = 'masq.ledger'::regclass
$$;

-- Makes the partition of one UTC day, unless it is there or the ledger's memory begins later: a day that was dropped
-- must not come back empty. Made apart and attached, which locks less than CREATE TABLE … PARTITION OF.
CREATE FUNCTION masq.make_partition(day date) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  part text := 'ledger_' || to_char(day, 'YYYYMMDD');
BEGIN
  PERFORM pg_advisory_xact_lock(hashtext('masq.ledger'));
  IF to_regclass('masq.' || part) IS NOT NULL OR day < (masq.ledger_oldest() AT TIME ZONE 'UTC')::date THEN
    RETURN;
  END IF;
  EXECUTE format('CREATE TABLE masq.%I (LIKE masq.ledger INCLUDING ALL)', part);
  EXECUTE format('ALTER TABLE masq.ledger ATTACH PARTITION masq.%I FOR VALUES FROM (%L) TO (%L)', part,
                 day::timestamp AT TIME ZONE 'UTC', (day + 1)::timestamp AT TIME ZONE 'UTC');
END
$$;

-- Makes partitions up to three days ahead, drops those that are older than `retention`, and answers the first moment
-- that the ledger remembers. SECURITY DEFINER: whoever writes the ledger needs no right to create or drop tables.
CREATE FUNCTION masq.keep_partitions(retention interval) RETURNS timestamptz
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  today date := (now() AT TIME ZONE 'UTC')::date;
  first date := (now() AT TIME ZONE 'UTC' - retention)::date;
  part  record;
BEGIN
  PERFORM pg_advisory_xact_lock(hashtext('masq.ledger'));
  PERFORM masq.make_partition(day::date)
  FROM generate_series(
    coalesce(greatest((masq.ledger_oldest() AT TIME ZONE 'UTC')::date, first), first), today + 3, interval '1 day'
  ) AS day;
  FOR part IN
    SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
    WHERE i.inhparent = 'masq.ledger'::regclass AND to_date(substr(c.relname, 8), 'YYYYMMDD') < first
    ORDER BY c.relname
  LOOP
    -- DROP takes a lock that makes writers queue behind it: not for long, and again next time.
    BEGIN
      SET LOCAL lock_timeout = '500ms';
      EXECUTE format('DROP TABLE masq.%I', part.relname);
    EXCEPTION WHEN lock_not_available THEN
      EXIT;
    END;
  END LOOP;
  RETURN masq.ledger_oldest();
END
$$;

REVOKE ALL ON FUNCTION masq.make_partition(date), masq.keep_partitions(interval) FROM PUBLIC;

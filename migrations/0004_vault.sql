-- The way back: what a worker seals and cannot open, for the holder of a recovery key. Forward only.
--
-- entries   the sealed values      (subject, token, month), each under a key of its subject and epoch
-- slots     the salts of those keys: migrations/slots/, in this database or in one of their own
-- epochs    the epochs' own keys, sealed to every recovery key
-- Without a slot even the holder of a recovery key opens nothing: deleting a person's slots erases that person.

-- recorded_at is this server's clock, whatever a worker says: an epoch from before an erasure must be known as such.
ALTER TABLE masq.epochs ADD COLUMN recorded_at timestamptz NOT NULL DEFAULT now();

-- An epoch's key, sealed once to each recipient.
CREATE TABLE masq.epoch_wraps (
  epoch     uuid  NOT NULL REFERENCES masq.epochs ON DELETE CASCADE,
  recipient bytea NOT NULL,  -- SHA-256 of the recovery public key, or of the name of a key in AWS KMS
  wrapped   bytea NOT NULL,
  PRIMARY KEY (epoch, recipient)
);
INSERT INTO masq.epoch_wraps SELECT id, recipient, wrapped FROM masq.epochs;
ALTER TABLE masq.epochs DROP COLUMN recipient, DROP COLUMN wrapped;

-- The sealed values, one for each person, token and month in which it was seen: so dropping a month never orphans a value
-- that is still being seen. PostgreSQL 10 has no unique keys on partitioned tables: there it is one plain table.
DO $$
BEGIN
  EXECUTE 'CREATE TABLE masq.entries (
    month       date  NOT NULL,  -- the first day of the month in which the epoch began, UTC
    token       bytea NOT NULL,  -- 32 bytes, as it stands in the target table
    subject_tag bytea NOT NULL,  -- whose value it is, for the holder of the subject key
    field       text  NOT NULL,  -- the domain of the token
    epoch       uuid  NOT NULL,
    sealed      bytea NOT NULL,
    PRIMARY KEY (token, subject_tag, month)
  )' || CASE WHEN current_setting('server_version_num')::int < 110000 THEN '' ELSE ' PARTITION BY RANGE (month)' END;
END
$$;
CREATE INDEX entries_subject ON masq.entries (subject_tag);  -- erasing asks by person

-- Makes the partitions of last month (a batch may be late), this one and the next. Called by workers when a session begins
-- and every hour. SECURITY DEFINER: they need no right to create tables.
CREATE FUNCTION masq.keep_months() RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  this  date := date_trunc('month', now() AT TIME ZONE 'UTC')::date;
  part  text;
  month date;
BEGIN
  IF (SELECT relkind FROM pg_class WHERE oid = 'masq.entries'::regclass) <> 'p' THEN
    RETURN;
  END IF;
  PERFORM pg_advisory_xact_lock(hashtext('masq.entries'));
  FOR month IN SELECT (this + make_interval(months => n))::date FROM generate_series(-1, 1) AS n LOOP
    part := 'entries_' || to_char(month, 'YYYYMM');
    CONTINUE WHEN to_regclass('masq.' || part) IS NOT NULL;
    EXECUTE format('CREATE TABLE masq.%I (LIKE masq.entries INCLUDING ALL)', part);
    EXECUTE format('ALTER TABLE masq.entries ATTACH PARTITION masq.%I FOR VALUES FROM (%L) TO (%L)', part,
                   month, (month + interval '1 month')::date);
  END LOOP;
END
$$;
SELECT masq.keep_months();

-- Which keys make the tokens that stand in the table. One is active; tokens of a read-only one are still found and
-- revealed, and none are written; a retired one has no tokens any more.
CREATE TABLE masq.token_keys (
  kid         smallint    PRIMARY KEY CHECK (kid BETWEEN 1 AND 255),
  check_value bytea       NOT NULL,
  state       text        NOT NULL CHECK (state IN ('pending', 'active', 'read-only', 'retired')),
  since       timestamptz NOT NULL DEFAULT now()
);
CREATE UNIQUE INDEX token_keys_active ON masq.token_keys ((true)) WHERE state = 'active';

-- To whom epochs are sealed.
CREATE TABLE masq.recipients (
  fingerprint bytea       PRIMARY KEY,
  state       text        NOT NULL CHECK (state IN ('active', 'retired')),
  since       timestamptz NOT NULL DEFAULT now()
);

-- 'subject' stays where it was: that key is never rotated. The check value of a token key does not tell its key id; until
-- now there was only key id 1.
INSERT INTO masq.token_keys (kid, check_value, state)
  SELECT 1, value, 'active' FROM masq.key_checks WHERE name = 'token';
INSERT INTO masq.recipients (fingerprint, state) SELECT value, 'active' FROM masq.key_checks WHERE name = 'recovery';
DELETE FROM masq.key_checks WHERE name IN ('token', 'recovery');

-- Notes the keys in a database that has never seen any; afterwards only these write there. Answers whether it did.
CREATE FUNCTION masq.claim_keys(kid smallint, token bytea, subject bytea, recipients bytea[]) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  PERFORM pg_advisory_xact_lock(hashtext('masq.keys'));
  IF EXISTS (SELECT FROM masq.key_checks) OR EXISTS (SELECT FROM masq.token_keys)
     OR EXISTS (SELECT FROM masq.recipients) THEN
    RETURN false;
  END IF;
  INSERT INTO masq.key_checks (name, value) VALUES ('subject', claim_keys.subject);
  INSERT INTO masq.token_keys (kid, check_value, state) VALUES (claim_keys.kid, claim_keys.token, 'active');
  INSERT INTO masq.recipients (fingerprint, state) SELECT unnest(claim_keys.recipients), 'active';
  RETURN true;
END
$$;

-- Every transaction that writes tokens asks first, and holds the key until it ends: a rotation that has taken the key
-- away under the same lock knows that no more tokens of it can be committed.
CREATE FUNCTION masq.hold_key(kid smallint) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  PERFORM pg_advisory_xact_lock_shared(hashtext('masq.token_keys'), hold_key.kid);
  IF NOT EXISTS (SELECT FROM masq.token_keys k WHERE k.kid = hold_key.kid AND k.state = 'active') THEN
    RAISE EXCEPTION 'key id % makes no tokens any more', hold_key.kid USING ERRCODE = 'MQ010';
  END IF;
END
$$;

-- Who was erased. The subject's name is nowhere; its tag finds it for the holder of the subject key.
CREATE TABLE masq.erasures (
  id          bigint      PRIMARY KEY,  -- counts up without gaps, in this database and in the file beside it
  subject_tag bytea       NOT NULL,
  erased_at   timestamptz NOT NULL,     -- by this server's clock, under the lock that kept writers out
  request     bigint                    -- the entry of the audit log that asked for it; NULL after a replay
);
CREATE INDEX erasures_subject ON masq.erasures (subject_tag);

-- Where this database was at home when it was last known to have all erasures. Restored elsewhere, or to an earlier
-- moment, it is another one, and the vault stays shut until the erasures since then have been replayed.
CREATE FUNCTION masq.identity() RETURNS text
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
  SELECT format('%s/%s/%s/%s', (SELECT system_identifier FROM pg_control_system()),
                substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8),
                (SELECT oid FROM pg_database WHERE datname = current_database()), 'masq.entries'::regclass::oid)
$$;
CREATE TABLE masq.home (
  single   boolean PRIMARY KEY DEFAULT true CHECK (single),
  identity text    NOT NULL
);
INSERT INTO masq.home (identity) VALUES (masq.identity());

-- What is masked in a target table, and which column names a person: what an erasure may change. Set by who migrates.
ALTER TABLE masq.targets
  ADD COLUMN subject text,                            -- the column, if there is one
  ADD COLUMN masked  jsonb NOT NULL DEFAULT '[]';     -- [{"column": "masked_ip", "field": "ip"}, …], those with mask = "hmac"

CREATE FUNCTION masq.describe_target(schema text, name text, subject text, masked jsonb) RETURNS void
LANGUAGE sql SET search_path = pg_catalog, pg_temp AS $$
  INSERT INTO masq.targets AS t (schema, name, created, subject, masked)
  VALUES (describe_target.schema, describe_target.name, false, describe_target.subject, describe_target.masked)
  ON CONFLICT (schema, name) DO UPDATE SET subject = excluded.subject, masked = excluded.masked
  WHERE (t.subject, t.masked) IS DISTINCT FROM (excluded.subject, excluded.masked)
$$;

REVOKE ALL ON FUNCTION masq.keep_months(), masq.hold_key(smallint), masq.identity(),
  masq.claim_keys(smallint, bytea, bytea, bytea[]), masq.describe_target(text, text, text, jsonb) FROM PUBLIC;

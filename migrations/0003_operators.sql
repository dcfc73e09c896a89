-- What operators do to what is there, on the record, and what tells whether the numbers add up. Forward only.

-- Each transaction that made rows of dead letters. `keyless` are those of its rows whose messages the ledger does not
-- remember, so that nothing else accounts for them.
CREATE TABLE masq.replays (
  id      bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  at      timestamptz NOT NULL DEFAULT now(),
  login   text        NOT NULL DEFAULT session_user,
  claimed text        NOT NULL,  -- the name of the user at the terminal, as that machine says
  reason  text        NOT NULL CHECK (btrim(reason) <> ''),
  letters integer     NOT NULL,
  keyless integer     NOT NULL
);

-- Each transaction that deleted dead letters.
CREATE TABLE masq.purges (
  id        bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  at        timestamptz NOT NULL DEFAULT now(),
  login     text        NOT NULL DEFAULT session_user,
  claimed   text        NOT NULL,
  condition text        NOT NULL,  -- as it was asked for
  letters   integer     NOT NULL
);

-- The tables that rows go into. Those that masq created were empty when they were noted.
CREATE TABLE masq.targets (
  schema   text        NOT NULL,
  name     text        NOT NULL,
  noted_at timestamptz NOT NULL DEFAULT now(),
  created  boolean     NOT NULL,
  PRIMARY KEY (schema, name)
);

-- What was there at a moment, for later moments to be compared with.
CREATE TABLE masq.baselines (
  id      bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  at      timestamptz NOT NULL DEFAULT now(),
  login   text        NOT NULL DEFAULT session_user,
  claimed text        NOT NULL,
  rows    jsonb       NOT NULL,  -- of each table: {"\"public\".\"user_logins\"": 12}
  ledger  jsonb       NOT NULL,  -- of each UTC day, the messages that are rows: {"2024-02-29": 12}
  keyless bigint      NOT NULL   -- rows in masq.replays that the ledger does not account for
);

-- Notes a table that was just created, which counts as a baseline of zero where nothing else is there yet. With its
-- caller's rights and the owner's alone: a worker that noted a table of its own would leave nothing that adds up.
CREATE FUNCTION masq.note_target(schema text, name text) RETURNS void
LANGUAGE sql SET search_path = pg_catalog, pg_temp AS $$
  INSERT INTO masq.targets (schema, name, created)
  VALUES (note_target.schema, note_target.name, true) ON CONFLICT DO NOTHING;
  INSERT INTO masq.baselines (claimed, rows, ledger, keyless)
  SELECT 'masq', '{}', '{}', 0
  WHERE NOT EXISTS (SELECT FROM masq.ledger) AND NOT EXISTS (SELECT FROM masq.baselines);
$$;
REVOKE ALL ON FUNCTION masq.note_target(text, text) FROM PUBLIC;

-- They are the ledger's owner's, whoever it is that migrates.
DO $$
DECLARE
  owner text := (SELECT pg_get_userbyid(relowner) FROM pg_class WHERE oid = 'masq.ledger'::regclass);
BEGIN
  EXECUTE format('ALTER TABLE masq.targets OWNER TO %I', owner);
  EXECUTE format('ALTER TABLE masq.baselines OWNER TO %I', owner);
  EXECUTE format('ALTER FUNCTION masq.note_target(text, text) OWNER TO %I', owner);
END
$$;

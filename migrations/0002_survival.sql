-- What is needed to survive what may happen to a message, a producer or an operator. Forward only.

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

-- Messages that are being read alone, since reading them may be what ends the process. Whoever finds one here that it
-- did not put here itself knows that the reader before did not live to take it out.
CREATE TABLE masq.suspects (
  sent_at    timestamptz NOT NULL,
  message_id uuid        NOT NULL,
  since      timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (sent_at, message_id)
);

-- Which events are rows, by their producers' own ids: the first 128 bits of SHA-256(queue ARN, 0, id).
CREATE TABLE masq.dedupe (
  key     uuid NOT NULL PRIMARY KEY,
  seen_on date NOT NULL DEFAULT (now() AT TIME ZONE 'UTC')::date
) PARTITION BY HASH (key);
CREATE TABLE masq.dedupe_0 PARTITION OF masq.dedupe FOR VALUES WITH (MODULUS 4, REMAINDER 0);
CREATE TABLE masq.dedupe_1 PARTITION OF masq.dedupe FOR VALUES WITH (MODULUS 4, REMAINDER 1);
CREATE TABLE masq.dedupe_2 PARTITION OF masq.dedupe FOR VALUES WITH (MODULUS 4, REMAINDER 2);
CREATE TABLE masq.dedupe_3 PARTITION OF masq.dedupe FOR VALUES WITH (MODULUS 4, REMAINDER 3);

-- Deleting slots: of a person who is erased, and those that came back since. Forward only.
--
-- How old an epoch is only the database with the rows knows. So it says which slots are stale, and this one deletes none
-- that is not of an erased person, whoever asks.

-- Whose slots were deleted. What was deleted is kept, so that an erasure that was cut off here can still be accounted for.
CREATE TABLE masq_slots.erasures (
  key         uuid        PRIMARY KEY,  -- as in the database of the rows
  subject_tag bytea       NOT NULL,
  erased_at   timestamptz NOT NULL DEFAULT now(),
  deleted     jsonb       NOT NULL      -- {"<epoch>": slots}
);
CREATE INDEX erasures_subject ON masq_slots.erasures (subject_tag);

-- Counts by epoch, added up, as masq.add_counts does it.
CREATE FUNCTION masq_slots.add_counts(a jsonb, b jsonb) RETURNS jsonb
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT coalesce(jsonb_object_agg(epoch, n), '{}')
  FROM (SELECT key AS epoch, sum(value::bigint) AS n
        FROM (SELECT * FROM jsonb_each_text(a) UNION ALL SELECT * FROM jsonb_each_text(b)) AS counts GROUP BY key) AS sums
$$;

-- Deletes the slots of a person. Answers all that were deleted under this key.
CREATE FUNCTION masq_slots.erase(erasure uuid, subject_tag bytea) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  gone  jsonb;
  total jsonb;
BEGIN
  WITH gone AS (DELETE FROM masq_slots.slots s WHERE s.subject_tag = erase.subject_tag RETURNING s.epoch)
  SELECT coalesce(jsonb_object_agg(epoch, n), '{}') INTO gone FROM (SELECT epoch, count(*) AS n FROM gone GROUP BY epoch) AS g;
  INSERT INTO masq_slots.erasures AS x (key, subject_tag, deleted) VALUES (erasure, erase.subject_tag, gone)
  ON CONFLICT (key) DO UPDATE SET erased_at = now(), deleted = masq_slots.add_counts(x.deleted, excluded.deleted)
  RETURNING x.deleted INTO total;
  RETURN total;
END
$$;

-- Erasures that this database does not know, after it was restored.
CREATE FUNCTION masq_slots.note_erasures(keys uuid[], subject_tags bytea[]) RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
  INSERT INTO masq_slots.erasures (key, subject_tag, deleted)
  SELECT k, t, '{}' FROM unnest(keys, note_erasures.subject_tags) AS x (k, t) ON CONFLICT DO NOTHING
$$;

-- The slots there are of persons who were erased not longer ago than this.
CREATE FUNCTION masq_slots.of_erased(since interval) RETURNS TABLE (subject_tag bytea, epoch uuid)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
  SELECT s.subject_tag, s.epoch
  FROM (SELECT DISTINCT x.subject_tag FROM masq_slots.erasures x WHERE x.erased_at > now() - since) AS who
  JOIN masq_slots.slots s ON s.subject_tag = who.subject_tag
$$;

-- Deletes slots of erased persons. Answers how many, by epoch.
CREATE FUNCTION masq_slots.sweep(subject_tags bytea[], epochs uuid[]) RETURNS jsonb
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
  WITH gone AS (
    DELETE FROM masq_slots.slots s USING unnest(sweep.subject_tags, sweep.epochs) AS x (tag, epoch)
    WHERE s.subject_tag = x.tag AND s.epoch = x.epoch
      AND EXISTS (SELECT FROM masq_slots.erasures e WHERE e.subject_tag = x.tag)
    RETURNING s.epoch
  )
  SELECT coalesce(jsonb_object_agg(epoch, n), '{}') FROM (SELECT epoch, count(*) AS n FROM gone GROUP BY epoch) AS counts
$$;

-- How many slots a person has.
CREATE FUNCTION masq_slots.count(subject_tag bytea) RETURNS bigint
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
  SELECT count(*) FROM masq_slots.slots s WHERE s.subject_tag = count.subject_tag
$$;

CREATE FUNCTION masq_slots.is_home() RETURNS boolean
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
  SELECT (SELECT identity FROM masq_slots.home) IS NOT DISTINCT FROM masq_slots.identity()
$$;
CREATE FUNCTION masq_slots.come_home() RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
  UPDATE masq_slots.home SET identity = masq_slots.identity()
$$;

REVOKE ALL ON FUNCTION masq_slots.add_counts(jsonb, jsonb), masq_slots.erase(uuid, bytea), masq_slots.note_erasures(uuid[], bytea[]),
  masq_slots.of_erased(interval), masq_slots.sweep(bytea[], uuid[]), masq_slots.count(bytea), masq_slots.is_home(),
  masq_slots.come_home() FROM PUBLIC;

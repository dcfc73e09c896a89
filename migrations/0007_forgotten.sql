-- Who was forgotten stays so: what a worker wrote with an epoch from before the erasure is swept away, and what a restore
-- brought back is erased again. Forward only.

-- Those of these slots that are from before an erasure of their person: of an older epoch, or of one that is gone.
CREATE FUNCTION masq.stale(subject_tags bytea[], epochs uuid[]) RETURNS TABLE (subject_tag bytea, epoch uuid)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
  SELECT s.tag, s.epoch FROM unnest(stale.subject_tags, stale.epochs) AS s (tag, epoch)
  LEFT JOIN masq.epochs o ON o.id = s.epoch
  WHERE EXISTS (SELECT FROM masq.erasures x
                WHERE x.subject_tag = s.tag AND coalesce(o.recorded_at, '-infinity') <= x.erased_at)
$$;

-- The erasures that this database knows, in their order.
CREATE FUNCTION masq.known_erasures()
RETURNS TABLE (id bigint, key uuid, subject_tag bytea, erased_at timestamptz, delete_rows boolean)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
  SELECT x.id, x.key, x.subject_tag, x.erased_at, x.delete_rows FROM masq.erasures x ORDER BY x.id
$$;

-- Refuses unless a restore was noticed: only then there is something to replay, and a reason to see names.
CREATE FUNCTION masq.permit_replay(request bigint) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  PERFORM masq.permitted(permit_replay.request, 'restore');
  IF masq.is_home() THEN
    RAISE EXCEPTION 'this database was neither restored nor moved, so no erasure is replayed here' USING ERRCODE = 'MQ008';
  END IF;
END
$$;

-- Everybody who has a row, to whoever replays erasures: only the holder of the subject key knows which of them are meant.
CREATE FUNCTION masq.subjects(request bigint) RETURNS SETOF text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  t record;
BEGIN
  PERFORM masq.permit_replay(subjects.request);
  FOR t IN SELECT * FROM masq.tables_of_persons() p WHERE p.is_token IS NOT TRUE LOOP
    RETURN QUERY EXECUTE format('SELECT DISTINCT %s FROM %s AS t WHERE t.%I IS NOT NULL', t.as_text, t.target, t.subject);
  END LOOP;
END
$$;

-- As masq.erase, of an erasure that the file knows and this database does not: under the number that it had.
CREATE FUNCTION masq.replay_erasure(request bigint, claimed text, erasure uuid, number bigint, subject_tag bytea,
                                    subjects text[], delete_rows boolean, elsewhere jsonb) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  next bigint;
BEGIN
  PERFORM masq.permit_replay(replay_erasure.request);
  LOCK TABLE masq.erasures IN EXCLUSIVE MODE;
  next := (SELECT coalesce(max(x.id), 0) + 1 FROM masq.erasures x);
  IF masq.outcome_of(erasure) IS NULL AND coalesce(number, next) <> next THEN
    RAISE EXCEPTION 'erasure % cannot come next, since % does', number, next USING ERRCODE = 'MQ006';
  END IF;
  RETURN coalesce(masq.outcome_of(erasure), masq.erase_person(
    erasure, next, replay_erasure.request, replay_erasure.claimed, replay_erasure.subject_tag, subjects, '{}',
    replay_erasure.delete_rows, elsewhere));
END
$$;

-- All erasures are known here again: the vault opens.
CREATE FUNCTION masq.come_home(request bigint, claimed text, replayed bigint) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  PERFORM masq.permitted(come_home.request, 'restore');
  UPDATE masq.home SET identity = masq.identity();
  IF to_regclass('masq_slots.home') IS NOT NULL THEN
    PERFORM masq_slots.come_home();
  END IF;
  PERFORM masq.append('restored', come_home.claimed, NULL, NULL, NULL, NULL, come_home.request,
                      format('{"erasures": %s}', replayed));
END
$$;

-- Deletes what came back of erased persons: entries, slots and letters that a worker wrote after an erasure with what it
-- had from before. Called by workers with every new epoch, for the erasures of the last two days: SQS hides a message for
-- twelve hours at most, so no batch is older. `elsewhere`: slots deleted in another database, by epoch. Answers how many.
CREATE FUNCTION masq.sweep(elsewhere jsonb DEFAULT '{}', since interval DEFAULT '2 days') RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  tags    bytea[];
  moments timestamptz[];
  slots   jsonb := elsewhere;
  entries jsonb;
  letters jsonb;
  gone    bigint;
BEGIN
  SELECT array_agg(x.subject_tag), array_agg(x.erased_at) INTO tags, moments FROM masq.erasures x
  WHERE x.erased_at > now() - since;
  -- Who comes second finds nothing to do; what was deleted elsewhere must go on the record all the same.
  IF tags IS NULL OR slots = '{}' AND NOT pg_try_advisory_xact_lock(hashtext('masq.sweep')) THEN
    RETURN 0;
  END IF;
  letters := masq.delete_letters_of(tags, moments);
  IF to_regclass('masq_slots.slots') IS NOT NULL THEN
    SELECT masq.add_counts(slots, masq_slots.sweep(array_agg(s.subject_tag), array_agg(s.epoch))) INTO slots
    FROM (SELECT array_agg(o.subject_tag) AS tags, array_agg(o.epoch) AS epochs FROM masq_slots.of_erased(since) o) AS all_of
    CROSS JOIN LATERAL masq.stale(all_of.tags, all_of.epochs) AS s;
  END IF;
  entries := masq.delete_entries(tags, moments);
  gone := masq.sum_counts(entries) + masq.sum_counts(slots) + masq.sum_counts(letters);
  IF gone > 0 THEN
    PERFORM masq.append('sweep', 'masq', NULL, NULL, NULL, NULL, NULL,
                        jsonb_build_object('deleted', masq.deleted(entries, slots, letters))::text);
  END IF;
  RETURN gone;
END
$$;

REVOKE ALL ON FUNCTION masq.stale(bytea[], uuid[]), masq.known_erasures(), masq.permit_replay(bigint), masq.subjects(bigint),
  masq.replay_erasure(bigint, text, uuid, bigint, bytea, text[], boolean, jsonb), masq.come_home(bigint, text, bigint),
  masq.sweep(jsonb, interval) FROM PUBLIC;

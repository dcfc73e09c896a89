-- Other keys in the place of those that there are: recovery recipients, and the states of the root that tokens are made of.
-- What needs a key is done by the program; what is here gives out pages of sealed bytes on the record and takes back what
-- was made of them. Forward only.
--
-- SQLSTATEs, beside those of the audit log: MQ011 epochs have no other recipient, MQ012 an epoch sealed to a retired one,
-- MQ013 the keys are not in the state that this step begins with, MQ014 workers seal to the recipient still.

-- A key that somebody else may have. Which of two rotations is going on depends on it.
ALTER TABLE masq.token_keys ADD COLUMN leaked boolean NOT NULL DEFAULT false;

-- Puts on record who rotates what and why. What follows is done for this entry.
CREATE FUNCTION masq.request_rotate(reason text, ticket text, claimed text, detail text) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF length(btrim(coalesce(reason, ''))) < 10 THEN
    RAISE EXCEPTION 'a reason of at least ten characters is needed' USING ERRCODE = 'MQ001';
  END IF;
  RETURN masq.append('rotate', request_rotate.claimed, 'OPERATIONS', request_rotate.ticket, request_rotate.reason, NULL,
                     NULL, request_rotate.detail::jsonb::text);
END
$$;

-- Notes what came of it: numbers and key ids.
CREATE FUNCTION masq.rotated(request bigint, claimed text, detail text) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  PERFORM masq.permitted(rotated.request, 'rotate');
  RETURN masq.append('rotated', rotated.claimed, NULL, NULL, NULL, NULL, rotated.request, rotated.detail::jsonb::text);
END
$$;

-- ── Recovery recipients ──────────────────────────────────────────────────────────────────────────────────────────────

-- From now on workers may seal to this key. Answers whether it is new here.
CREATE FUNCTION masq.add_recipient(request bigint, fingerprint bytea) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  PERFORM masq.permitted(add_recipient.request, 'rotate');
  IF octet_length(add_recipient.fingerprint) IS DISTINCT FROM 32 THEN
    RAISE EXCEPTION 'a fingerprint has 32 bytes' USING ERRCODE = 'MQ001';
  END IF;
  PERFORM pg_advisory_xact_lock(hashtext('masq.keys'));
  INSERT INTO masq.recipients AS r (fingerprint, state) VALUES (add_recipient.fingerprint, 'active')
    ON CONFLICT ON CONSTRAINT recipients_pkey DO UPDATE SET state = 'active', since = now() WHERE r.state = 'retired';
  RETURN FOUND;
END
$$;

-- How many epochs one of these recipients cannot open.
CREATE FUNCTION masq.count_unwrapped(recipients bytea[]) RETURNS bigint
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
  SELECT count(*) FROM masq.epochs e WHERE (
    SELECT count(*) FROM masq.epoch_wraps w WHERE w.epoch = e.id AND w.recipient = ANY (count_unwrapped.recipients)
  ) < cardinality(recipients) AND EXISTS (SELECT FROM masq.epoch_wraps w WHERE w.epoch = e.id)
$$;

-- The next of those epochs, by id.
CREATE FUNCTION masq.fetch_unwrapped(request bigint, recipients bytea[], after uuid, page integer)
RETURNS TABLE (epoch uuid, started_at timestamptz, held_by bytea[], wrapped bytea[])
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  PERFORM masq.permitted(fetch_unwrapped.request, 'rotate');
  RETURN QUERY
  SELECT e.id, e.started_at, array_agg(w.recipient ORDER BY w.recipient), array_agg(w.wrapped ORDER BY w.recipient)
  FROM masq.epochs e JOIN masq.epoch_wraps w ON w.epoch = e.id
  WHERE fetch_unwrapped.after IS NULL OR e.id > fetch_unwrapped.after
  GROUP BY e.id
  HAVING count(*) FILTER (WHERE w.recipient = ANY (fetch_unwrapped.recipients)) < cardinality(fetch_unwrapped.recipients)
  ORDER BY e.id LIMIT fetch_unwrapped.page;
END
$$;

-- Takes wraps for active recipients, of epochs that are still there. Answers how many were new.
CREATE FUNCTION masq.add_wraps(request bigint, epochs uuid[], recipients bytea[], wrapped bytea[]) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  added bigint;
BEGIN
  PERFORM masq.permitted(add_wraps.request, 'rotate');
  INSERT INTO masq.epoch_wraps (epoch, recipient, wrapped)
    SELECT w.epoch, w.recipient, w.wrapped
    FROM unnest(add_wraps.epochs, add_wraps.recipients, add_wraps.wrapped) AS w (epoch, recipient, wrapped)
    JOIN masq.epochs e ON e.id = w.epoch
    JOIN masq.recipients r ON r.fingerprint = w.recipient AND r.state = 'active'
    ORDER BY 1, 2 ON CONFLICT DO NOTHING;
  GET DIAGNOSTICS added = ROW_COUNT;
  RETURN added;
END
$$;

-- Nothing is sealed to this key any more, and what was sealed to it is no longer: it opens what was copied before, nothing
-- here. Refused where an epoch has no other way in, or a worker has sealed to it within the last two minutes, for that
-- worker still has it in recovery.pub. Answers how many wraps went.
CREATE FUNCTION masq.retire_recipient(request bigint, fingerprint bytea) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  gone bigint;
BEGIN
  PERFORM masq.permitted(retire_recipient.request, 'rotate');
  LOCK TABLE masq.epoch_wraps IN SHARE ROW EXCLUSIVE MODE;
  UPDATE masq.recipients r SET state = 'retired', since = now()
  WHERE r.fingerprint = retire_recipient.fingerprint AND r.state = 'active';
  IF NOT FOUND AND NOT EXISTS (
    SELECT FROM masq.recipients r WHERE r.fingerprint = retire_recipient.fingerprint
  ) THEN
    RAISE EXCEPTION 'there is no such recipient' USING ERRCODE = 'MQ013';
  END IF;
  IF EXISTS (
    SELECT FROM masq.epoch_wraps w WHERE w.recipient = retire_recipient.fingerprint AND NOT EXISTS (
      SELECT FROM masq.epoch_wraps o JOIN masq.recipients r ON r.fingerprint = o.recipient AND r.state = 'active'
      WHERE o.epoch = w.epoch
    )
  ) OR NOT EXISTS (SELECT FROM masq.recipients r WHERE r.state = 'active') THEN
    RAISE EXCEPTION 'epochs are sealed to no other active recipient' USING ERRCODE = 'MQ011';
  END IF;
  IF EXISTS (
    SELECT FROM masq.epoch_wraps w JOIN masq.epochs e ON e.id = w.epoch
    WHERE w.recipient = retire_recipient.fingerprint AND e.recorded_at > now() - interval '2 minutes'
  ) THEN
    RAISE EXCEPTION 'a worker seals to this recipient still' USING ERRCODE = 'MQ014';
  END IF;
  DELETE FROM masq.epoch_wraps w WHERE w.recipient = retire_recipient.fingerprint;
  GET DIAGNOSTICS gone = ROW_COUNT;
  RETURN gone;
END
$$;

-- A worker that never learned of it must not go on sealing to a key that somebody took out of use.
CREATE FUNCTION masq.refuse_retired() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF EXISTS (SELECT FROM masq.recipients r WHERE r.fingerprint = NEW.recipient AND r.state = 'retired') THEN
    RAISE EXCEPTION 'the recipient is retired' USING ERRCODE = 'MQ012';
  END IF;
  RETURN NEW;
END
$$;
CREATE TRIGGER refuse_retired BEFORE INSERT ON masq.epoch_wraps FOR EACH ROW EXECUTE PROCEDURE masq.refuse_retired();

-- ── The token key ────────────────────────────────────────────────────────────────────────────────────────────────────

-- Takes up the next key: pending, until every worker has its file. With `leaked` there is no time for that: it is active at
-- once, and all others are in somebody else's hands.
CREATE FUNCTION masq.add_token_key(request bigint, kid smallint, check_value bytea, leaked boolean) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  PERFORM masq.permitted(add_token_key.request, 'rotate');
  PERFORM pg_advisory_xact_lock(hashtext('masq.keys'));
  IF add_token_key.kid <= (SELECT max(k.kid) FROM masq.token_keys k) OR NOT add_token_key.leaked
     AND EXISTS (SELECT FROM masq.token_keys k WHERE k.state IN ('pending', 'read-only')) THEN
    RAISE EXCEPTION 'another rotation is not over, or the key id is taken' USING ERRCODE = 'MQ013';
  END IF;
  IF add_token_key.leaked THEN
    PERFORM pg_advisory_xact_lock(hashtext('masq.token_keys'), k.kid) FROM masq.token_keys k WHERE k.state = 'active';
    UPDATE masq.token_keys k SET leaked = true, since = now(),
      state = CASE k.state WHEN 'active' THEN 'read-only' WHEN 'pending' THEN 'retired' ELSE k.state END
    WHERE k.state <> 'retired';
  END IF;
  INSERT INTO masq.token_keys (kid, check_value, state) VALUES (add_token_key.kid, add_token_key.check_value,
    CASE WHEN add_token_key.leaked THEN 'active' ELSE 'pending' END);
END
$$;

-- The pending key makes the tokens from now on. It waits for the transactions that hold the old key (masq.hold_key), so
-- when this has committed no token of the old key can be written any more.
CREATE FUNCTION masq.activate_token_key(request bigint, kid smallint) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  PERFORM masq.permitted(activate_token_key.request, 'rotate');
  PERFORM pg_advisory_xact_lock(hashtext('masq.keys'));
  IF NOT EXISTS (SELECT FROM masq.token_keys k WHERE k.kid = activate_token_key.kid AND k.state = 'pending') THEN
    RAISE EXCEPTION 'the key is not pending' USING ERRCODE = 'MQ013';
  END IF;
  PERFORM pg_advisory_xact_lock(hashtext('masq.token_keys'), k.kid) FROM masq.token_keys k WHERE k.state = 'active';
  UPDATE masq.token_keys k SET state = 'read-only', since = now() WHERE k.state = 'active';
  UPDATE masq.token_keys k SET state = 'active', since = now() WHERE k.kid = activate_token_key.kid;
END
$$;

DO $$
DECLARE
  f regprocedure;
BEGIN
  FOR f IN SELECT p.oid FROM pg_proc p WHERE p.pronamespace = 'masq'::regnamespace AND p.proname IN (
    'request_rotate', 'rotated', 'add_recipient', 'count_unwrapped', 'fetch_unwrapped', 'add_wraps',
    'retire_recipient', 'refuse_retired', 'add_token_key', 'activate_token_key'
  ) LOOP
    EXECUTE format('REVOKE ALL ON FUNCTION %s FROM PUBLIC', f);
  END LOOP;
END
$$;

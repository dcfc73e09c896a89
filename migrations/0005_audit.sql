-- The audit log, and what may be asked for only on the record. Forward only.
--
-- An entry is never changed. Each hashes the one before it, and all of them are the leaves of a Merkle tree (RFC 6962),
-- whose root a signed checkpoint takes out of this database. docs/formats.md says how the bytes come about.
-- The errors raised here have SQLSTATEs of class MQ; src/vault/refusal.rs says what helps against each.

-- PostgreSQL 10 has no sha256(): there it is FIPS 180-4 written out, slow and rarely called.
DO $do$
BEGIN
  IF current_setting('server_version_num')::int >= 110000 THEN
    CREATE FUNCTION masq.sha256(bytes bytea) RETURNS bytea LANGUAGE sql IMMUTABLE
    SET search_path = pg_catalog, pg_temp AS 'SELECT sha256(bytes)';
    RETURN;
  END IF;
  CREATE FUNCTION masq.sha256(bytes bytea) RETURNS bytea LANGUAGE plpgsql IMMUTABLE
  SET search_path = pg_catalog, pg_temp AS $$
  DECLARE
    k CONSTANT bigint[] := ARRAY[
      1116352408,1899447441,3049323471,3921009573,961987163,1508970993,2453635748,2870763221,3624381080,310598401,
      607225278,1426881987,1925078388,2162078206,2614888103,3248222580,3835390401,4022224774,264347078,604807628,
      770255983,1249150122,1555081692,1996064986,2554220882,2821834349,2952996808,3210313671,3336571891,3584528711,
      113926993,338241895,666307205,773529912,1294757372,1396182291,1695183700,1986661051,2177026350,2456956037,
      2730485921,2820302411,3259730800,3345764771,3516065817,3600352804,4094571909,275423344,430227734,506948616,
      659060556,883997877,958139571,1322822218,1537002063,1747873779,1955562222,2024104815,2227730452,2361852424,
      2428436474,2756734187,3204031479,3329325298];
    m CONSTANT bigint := 4294967295;
    h bigint[] := ARRAY[1779033703,3144134277,1013904242,2773480762,1359893119,2600822924,528734635,1541459225];
    v bigint[]; w bigint[]; x bigint; y bigint; s bigint; t bigint; message bytea; answer bytea := '';
  BEGIN
    message := bytes || '\x80'::bytea
      || decode(repeat('00', ((119 - octet_length(bytes) % 64) % 64)), 'hex') || int8send(octet_length(bytes)::bigint * 8);
    FOR block IN 0 .. octet_length(message) / 64 - 1 LOOP
      FOR i IN 1..16 LOOP
        s := block * 64 + i * 4 - 4;
        w[i] := (get_byte(message, s::int)::bigint << 24) | (get_byte(message, s::int + 1) << 16)
              | (get_byte(message, s::int + 2) << 8) | get_byte(message, s::int + 3);
      END LOOP;
      FOR i IN 17..64 LOOP
        x := w[i - 15]; y := w[i - 2];
        s := (((x >> 7) | (x << 25)) # ((x >> 18) | (x << 14)) # (x >> 3)) & m;
        t := (((y >> 17) | (y << 15)) # ((y >> 19) | (y << 13)) # (y >> 10)) & m;
        w[i] := (w[i - 16] + s + w[i - 7] + t) & m;
      END LOOP;
      v := h;
      FOR i IN 1..64 LOOP
        x := v[5]; y := v[1];
        s := v[8] + ((((x >> 6) | (x << 26)) # ((x >> 11) | (x << 21)) # ((x >> 25) | (x << 7))) & m)
           + ((x & v[6]) # ((m # x) & v[7])) + k[i] + w[i];
        t := ((((y >> 2) | (y << 30)) # ((y >> 13) | (y << 19)) # ((y >> 22) | (y << 10))) & m)
           + ((y & v[2]) # (y & v[3]) # (v[2] & v[3]));
        v := ARRAY[(s + t) & m, v[1], v[2], v[3], (v[4] + s) & m, v[5], v[6], v[7]];
      END LOOP;
      FOR i IN 1..8 LOOP
        h[i] := (h[i] + v[i]) & m;
      END LOOP;
    END LOOP;
    FOR i IN 1..8 LOOP
      answer := answer || substr(int8send(h[i]), 5);
    END LOOP;
    RETURN answer;
  END
  $$;
END
$do$;

CREATE TABLE masq.audit (
  seq     bigint      PRIMARY KEY,  -- from 1, without gaps
  at      timestamptz NOT NULL,
  action  text        NOT NULL,     -- reveal, approve, open, find, forget, rotate, epoch, …
  login   text        NOT NULL,     -- session_user: the person, as far as the database knows
  claimed text        NOT NULL,     -- the name of the user at the terminal, as that machine says
  purpose text,
  ticket  text,
  reason  text,
  items   bytea[]     NOT NULL,     -- what was asked for: tokens, message keys, subject tags, an epoch; never a value
  request bigint,                   -- the entry that this one answers
  detail  text        NOT NULL,     -- the outcome, as JSON
  prev    bytea       NOT NULL,     -- the hash of the entry before; of the first, 32 zero bytes
  hash    bytea       NOT NULL,     -- of the leaf
  xid     bigint      NOT NULL      -- the transaction; not part of the leaf, and meaningless in a restored database
);
CREATE INDEX audit_request ON masq.audit (request) WHERE request IS NOT NULL;
CREATE INDEX audit_login ON masq.audit (login, at) WHERE action = 'reveal';
CREATE UNIQUE INDEX audit_epoch ON masq.audit ((items[1])) WHERE action = 'epoch';

-- How far the log goes: the last hash, and the roots of the perfect subtrees that it is made of, the largest first.
CREATE TABLE masq.audit_head (
  single boolean PRIMARY KEY DEFAULT true CHECK (single),
  size   bigint  NOT NULL,
  hash   bytea   NOT NULL,
  peaks  bytea[] NOT NULL
);
INSERT INTO masq.audit_head (size, hash, peaks) VALUES (0, decode(repeat('00', 32), 'hex'), '{}');

-- How much may be asked for; `masq migrate` sets the numbers.
CREATE TABLE masq.policy (
  single        boolean  PRIMARY KEY DEFAULT true CHECK (single),
  approve_above integer  NOT NULL DEFAULT 10,    -- more tokens a login and UTC day need a second person
  daily_quota   integer  NOT NULL DEFAULT 1000,  -- tokens a login and UTC day
  request_lives interval NOT NULL DEFAULT '1 hour',
  values_kept   interval,                        -- how long sealed values are kept at least; NULL: for ever
  letters_kept  interval                         -- the same of dead letters
);
INSERT INTO masq.policy DEFAULT VALUES;
CREATE TABLE masq.purposes (
  purpose text PRIMARY KEY,
  meaning text NOT NULL
);
INSERT INTO masq.purposes VALUES
  ('SAR', 'a person asks what is known of them'),
  ('ERASURE', 'a person asks to be forgotten'),
  ('FRAUD', 'fraud is investigated'),
  ('SECURITY', 'an attack or incident is investigated'),
  ('LEGAL', 'a court or authority demands it'),
  ('SUPPORT', 'a person asked for help with their own account'),
  ('OPERATIONS', 'keys are rotated or a restore is completed'),
  ('TEST', 'no real person is concerned');

-- A field of a leaf: its length in four bytes, then it; four bytes 0xff for NULL.
CREATE FUNCTION masq.framed(field bytea) RETURNS bytea
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT coalesce(int4send(octet_length(field)) || field, '\xffffffff'::bytea)
$$;
CREATE FUNCTION masq.framed(field text) RETURNS bytea
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT masq.framed(convert_to(field, 'UTF8'))
$$;

-- The bytes of an entry that are hashed.
CREATE FUNCTION masq.leaf(e masq.audit) RETURNS bytea
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT convert_to('masq/audit/v1', 'UTF8') || int8send(e.seq) || timestamptz_send(e.at) || e.prev
    || masq.framed(e.action) || masq.framed(e.login) || masq.framed(e.claimed) || masq.framed(e.purpose)
    || masq.framed(e.ticket) || masq.framed(e.reason) || int8send(coalesce(e.request, 0)) || masq.framed(e.detail)
    || int4send(cardinality(e.items))
    || coalesce((SELECT string_agg(masq.framed(item), '' ORDER BY at) FROM unnest(e.items) WITH ORDINALITY AS i (item, at)), '')
$$;

-- Appends an entry and answers its number. One at a time: the head's row is the lock, until the transaction ends.
CREATE FUNCTION masq.append(action text, claimed text, purpose text, ticket text, reason text, items bytea[],
                            request bigint, detail text) RETURNS bigint
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  head masq.audit_head;
  e    masq.audit;
  node bytea;
  bits bigint;
BEGIN
  SELECT * INTO STRICT head FROM masq.audit_head FOR UPDATE;
  e.seq := head.size + 1;
  e.at := clock_timestamp();
  e.action := append.action;
  e.login := session_user;
  e.claimed := append.claimed;
  e.purpose := append.purpose;
  e.ticket := append.ticket;
  e.reason := append.reason;
  e.items := coalesce(append.items, '{}');
  e.request := append.request;
  e.detail := coalesce(append.detail, '{}');
  PERFORM e.detail::jsonb;  -- a NULL among a caller's numbers must not leave what no verifier can read
  e.prev := head.hash;
  e.hash := masq.sha256('\x00'::bytea || masq.leaf(e));
  e.xid := txid_current();
  INSERT INTO masq.audit SELECT (e).*;
  node := e.hash;
  bits := head.size;
  WHILE bits & 1 = 1 LOOP
    node := masq.sha256('\x01'::bytea || head.peaks[cardinality(head.peaks)] || node);
    head.peaks := head.peaks[1 : cardinality(head.peaks) - 1];
    bits := bits >> 1;
  END LOOP;
  UPDATE masq.audit_head SET size = e.seq, hash = e.hash, peaks = head.peaks || node;
  RETURN e.seq;
END
$$;

-- Whether somebody said why, as a reveal or an erasure asks for it.
CREATE FUNCTION masq.check_why(purpose text, ticket text, reason text) RETURNS void
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF NOT EXISTS (SELECT FROM masq.purposes p WHERE p.purpose = check_why.purpose) THEN
    RAISE EXCEPTION 'the purpose is none of: %', (SELECT string_agg(p.purpose, ', ' ORDER BY p.purpose) FROM masq.purposes p)
      USING ERRCODE = 'MQ001';
  END IF;
  IF coalesce(btrim(ticket), '') = '' OR length(btrim(coalesce(reason, ''))) < 10 THEN
    RAISE EXCEPTION 'a ticket and a reason of at least ten characters are needed' USING ERRCODE = 'MQ001';
  END IF;
END
$$;

-- Asks for the values of tokens. Answers the request's number, whether a second person must approve it, and how many
-- tokens this login may ask for today besides: at all, and without a second person.
--
-- What was asked for without one adds up over the day, as the quota does: otherwise ten requests would be a way round. What
-- needed an approval does not count, since without it nothing was given, nor does what got one. Whether a request was
-- answered is not asked: only the caller could say. Decided once and on the record, for its answer must stay the same.
CREATE FUNCTION masq.request_reveal(purpose text, ticket text, reason text, claimed text, tokens bytea[], OUT request bigint,
                                    OUT needs_approval boolean, OUT quota_left bigint, OUT alone_left bigint)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  policy masq.policy;
  many   integer := coalesce(cardinality(tokens), 0);
BEGIN
  PERFORM masq.check_why(request_reveal.purpose, request_reveal.ticket, request_reveal.reason);
  IF many = 0 OR EXISTS (SELECT FROM unnest(tokens) AS token WHERE octet_length(token) IS DISTINCT FROM 32) THEN
    RAISE EXCEPTION 'a request is for one token or more, of 32 bytes each' USING ERRCODE = 'MQ001';
  END IF;
  SELECT * INTO STRICT policy FROM masq.policy;
  -- Counted under the log's lock, so that no two requests see the same room.
  PERFORM h.single FROM masq.audit_head h FOR UPDATE;
  SELECT policy.daily_quota - many - coalesce(sum(cardinality(a.items)), 0),
         policy.approve_above - coalesce(sum(cardinality(a.items)) FILTER (
           WHERE NOT a.detail::jsonb ? 'needs_approval'
             AND NOT EXISTS (SELECT FROM masq.audit y WHERE y.request = a.seq AND y.action = 'approve')), 0)
  INTO quota_left, alone_left FROM masq.audit a
  WHERE a.action = 'reveal' AND a.login = session_user
    AND a.at >= date_trunc('day', clock_timestamp() AT TIME ZONE 'UTC') AT TIME ZONE 'UTC';
  IF quota_left < 0 THEN
    RAISE EXCEPTION 'the quota of % tokens a day is exceeded by %', policy.daily_quota, -quota_left USING ERRCODE = 'MQ002';
  END IF;
  needs_approval := many > alone_left;
  alone_left := greatest(alone_left - CASE WHEN needs_approval THEN 0 ELSE many END, 0);
  request := masq.append('reveal', request_reveal.claimed, request_reveal.purpose, request_reveal.ticket,
                         request_reveal.reason, tokens, NULL, CASE WHEN needs_approval THEN '{"needs_approval": true}' END);
END
$$;

-- The request as it stands in the log, if it may be answered now: it is this login's, committed, recent and, where it has
-- to be, approved. Otherwise an error. Every function that gives something away begins with this.
CREATE FUNCTION masq.permitted(request bigint, action text) RETURNS masq.audit
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  asked  masq.audit;
  policy masq.policy;
BEGIN
  SELECT * INTO STRICT policy FROM masq.policy;
  SELECT * INTO asked FROM masq.audit a WHERE a.seq = permitted.request AND a.action = permitted.action;
  IF NOT FOUND OR asked.login <> session_user THEN
    RAISE EXCEPTION 'there is no such request of this login' USING ERRCODE = 'MQ006';
  END IF;
  -- Before anything is made of its transaction, whose number is another one's in a restored database. Completing the
  -- restore is what helps.
  IF asked.action <> 'restore' AND (SELECT h.identity FROM masq.home h) IS DISTINCT FROM masq.identity() THEN
    RAISE EXCEPTION 'this database was restored or moved, and erasures have not been replayed since' USING ERRCODE = 'MQ007';
  END IF;
  -- In the request's own transaction, a ROLLBACK would take it off the record.
  IF asked.xid = txid_current() OR txid_status(asked.xid) IS DISTINCT FROM 'committed' THEN
    RAISE EXCEPTION 'the request is not committed yet' USING ERRCODE = 'MQ003';
  END IF;
  IF asked.at < clock_timestamp() - policy.request_lives THEN
    RAISE EXCEPTION 'the request is older than %', policy.request_lives USING ERRCODE = 'MQ006';
  END IF;
  IF asked.action = 'reveal' AND asked.detail::jsonb ? 'needs_approval' AND NOT EXISTS (
    SELECT FROM masq.audit a
    WHERE a.request = asked.seq AND a.action = 'approve' AND a.login <> asked.login AND a.xid <> txid_current()
  ) THEN
    RAISE EXCEPTION 'the request needs the approval of a second login' USING ERRCODE = 'MQ004';
  END IF;
  RETURN asked;
END
$$;

-- Approves somebody else's request.
CREATE FUNCTION masq.approve(request bigint, claimed text, reason text) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  asked masq.audit;
BEGIN
  SELECT * INTO asked FROM masq.audit a WHERE a.seq = approve.request AND a.action = 'reveal';
  IF NOT FOUND OR asked.at < clock_timestamp() - (SELECT request_lives FROM masq.policy) THEN
    RAISE EXCEPTION 'there is no such request, or it is too old' USING ERRCODE = 'MQ006';
  END IF;
  IF asked.login = session_user THEN
    RAISE EXCEPTION 'who asks cannot approve' USING ERRCODE = 'MQ005';
  END IF;
  RETURN masq.append('approve', approve.claimed, NULL, NULL, approve.reason, NULL, approve.request, NULL);
END
$$;

-- The tokens that this login asked for, in that order: whoever had to wait for an approval goes on with the number alone.
CREATE FUNCTION masq.requested(request bigint) RETURNS bytea[]
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  asked masq.audit;
BEGIN
  SELECT * INTO asked FROM masq.audit a WHERE a.seq = requested.request AND a.action = 'reveal' AND a.login = session_user;
  IF NOT FOUND THEN
    RAISE EXCEPTION 'there is no such request of this login' USING ERRCODE = 'MQ006';
  END IF;
  RETURN asked.items;
END
$$;

-- What a second person has to know of a request: also the field of each token, where the vault has something under it, and
-- who else approved it already.
CREATE FUNCTION masq.pending(request bigint)
RETURNS TABLE (at timestamptz, login text, claimed text, purpose text, ticket text, reason text, tokens bytea[],
               fields text[], approved_by text)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
  SELECT a.at, a.login, a.claimed, a.purpose, a.ticket, a.reason, a.items,
    ARRAY(SELECT (SELECT n.field FROM masq.entries n WHERE n.token = i.item ORDER BY n.subject_tag, n.month LIMIT 1)
          FROM unnest(a.items) WITH ORDINALITY AS i (item, nth) ORDER BY i.nth),
    (SELECT y.login FROM masq.audit y
     WHERE y.request = a.seq AND y.action = 'approve' AND y.login <> a.login ORDER BY y.seq LIMIT 1)
  FROM masq.audit a WHERE a.seq = pending.request AND a.action = 'reveal'
$$;

-- The keys of these epochs, sealed. To whoever has no recovery key they say nothing.
CREATE FUNCTION masq.fetch_epochs(ids uuid[])
RETURNS TABLE (epoch uuid, started_at timestamptz, recipients bytea[], wrapped bytea[])
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
  SELECT e.id, e.started_at, array_agg(w.recipient ORDER BY w.recipient), array_agg(w.wrapped ORDER BY w.recipient)
  FROM masq.epochs e JOIN masq.epoch_wraps w ON w.epoch = e.id WHERE e.id = ANY (fetch_epochs.ids)
  GROUP BY e.id, e.started_at
$$;

-- The sealed values that may be given away. Those of erased persons are not, whatever was restored: an epoch from before the
-- erasure may have brought back a slot.
CREATE VIEW masq.live_entries AS
SELECT n.* FROM masq.entries n
WHERE NOT EXISTS (
  SELECT FROM masq.erasures x JOIN masq.epochs o ON o.id = n.epoch
  WHERE x.subject_tag = n.subject_tag AND o.recorded_at <= x.erased_at
);

-- The sealed values of a request's tokens, eight of each at most: one may have been poisoned by whoever has a worker's login,
-- and then another one helps. In the order of the primary key, and with a literal for the limit, so that the token of a
-- million persons is no slower than another. `item` is the token as it was asked for: while a rotation is going on, what was
-- sealed under it may stand under the one that it is now called.
CREATE FUNCTION masq.fetch_entries(request bigint)
RETURNS TABLE (item bytea, token bytea, field text, subject_tag bytea, sealed bytea, epoch uuid)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  asked masq.audit;
BEGIN
  asked := masq.permitted(fetch_entries.request, 'reveal');
  RETURN QUERY
  SELECT wanted.old, e.token, e.field, e.subject_tag, e.sealed, e.epoch
  FROM (SELECT DISTINCT i.old, masq.now_called(i.old) AS now FROM unnest(asked.items) AS i (old)) AS wanted
  CROSS JOIN LATERAL (
    SELECT n.* FROM masq.live_entries n WHERE n.token = wanted.now ORDER BY n.subject_tag, n.month LIMIT 8
  ) AS e;
END
$$;

-- Further ones of one token of the request, for when none of the first eight opened.
CREATE FUNCTION masq.fetch_further(request bigint, wanted bytea, skip integer)
RETURNS TABLE (item bytea, token bytea, field text, subject_tag bytea, sealed bytea, epoch uuid)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  asked masq.audit;
  now   CONSTANT bytea := masq.now_called(fetch_further.wanted);
BEGIN
  asked := masq.permitted(fetch_further.request, 'reveal');
  RETURN QUERY
  SELECT fetch_further.wanted, n.token, n.field, n.subject_tag, n.sealed, n.epoch FROM masq.live_entries n
  WHERE n.token = now AND fetch_further.wanted = ANY (asked.items)
  ORDER BY n.subject_tag, n.month OFFSET fetch_further.skip LIMIT 1000;
END
$$;

-- What came of a request: how many of its tokens were shown and how many were not, and how many sealed values were not
-- what they should be. Its items: the tokens that were opened in the place of those that a rotation has replaced.
CREATE FUNCTION masq.revealed(request bigint, claimed text, shown integer, missing integer, tampered integer) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  asked  masq.audit;
  opened bytea[];
BEGIN
  asked := masq.permitted(revealed.request, 'reveal');
  opened := ARRAY(SELECT n.now FROM (SELECT i.old, masq.now_called(i.old) AS now FROM unnest(asked.items) AS i (old)) AS n
                  WHERE n.now <> n.old ORDER BY 1);
  RETURN masq.append('revealed', revealed.claimed, NULL, NULL, NULL, opened, revealed.request,
    format('{"shown": %s, "missing": %s, "tampered": %s}', revealed.shown, revealed.missing, revealed.tampered));
END
$$;

-- Notes that somebody looked for tokens. Whoever holds token.key could do it without saying so.
CREATE FUNCTION masq.found(claimed text, reason text, field text, tokens bytea[]) RETURNS bigint
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
  SELECT masq.append('find', found.claimed, NULL, NULL, found.reason, found.tokens, NULL,
                     format('{"field": %s}', to_json(found.field)))
$$;

-- Asks for dead letters. A key is its message's SentTimestamp, milliseconds in 8 bytes, and its id in 16.
CREATE FUNCTION masq.request_open(reason text, claimed text, keys bytea[]) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF coalesce(btrim(reason), '') = '' OR coalesce(cardinality(keys), 0) = 0
     OR EXISTS (SELECT FROM unnest(keys) AS key WHERE octet_length(key) IS DISTINCT FROM 24) THEN
    RAISE EXCEPTION 'a request names letters and says why' USING ERRCODE = 'MQ001';
  END IF;
  RETURN masq.append('open', request_open.claimed, NULL, NULL, request_open.reason, keys, NULL, NULL);
END
$$;

-- The key by which the log names a dead letter.
CREATE FUNCTION masq.letter_key(sent_at timestamptz, message_id uuid) RETURNS bytea
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT int8send(round(extract(epoch FROM sent_at) * 1000)::bigint) || uuid_send(message_id)
$$;

-- The sealed bodies of a request's letters. Of an erased person there are none.
CREATE FUNCTION masq.fetch_letters(request bigint)
RETURNS TABLE (sent_at timestamptz, message_id uuid, sealed bytea, epoch uuid)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  asked masq.audit;
BEGIN
  asked := masq.permitted(fetch_letters.request, 'open');
  RETURN QUERY
  SELECT d.sent_at, d.message_id, d.sealed, d.epoch
  FROM unnest(asked.items) AS key
  CROSS JOIN LATERAL (SELECT ('x' || encode(substr(key, 1, 8), 'hex'))::bit(64)::bigint AS sent) AS at
  JOIN masq.dead_letters d
    ON d.sent_at = timestamptz 'epoch' + make_interval(secs => at.sent / 1000) + make_interval(secs => at.sent % 1000 * 0.001)
    AND d.message_id = encode(substr(key, 9), 'hex')::uuid;
END
$$;

-- Notes what an epoch wrote, so that vault rows that vanish are noticed. An epoch without this is open: its worker died,
-- or a COMMIT of it had no answer, so that nobody knows.
CREATE FUNCTION masq.close_epoch(epoch uuid, entries bigint, slots bigint, letters bigint) RETURNS bigint
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
  SELECT masq.append('epoch', 'masq', NULL, NULL, NULL, ARRAY[uuid_send(close_epoch.epoch)], NULL,
                     format('{"entries": %s, "slots": %s, "letters": %s}', entries, slots, letters))
$$;

-- What was on the record until now. The transactions of these are over, so nothing can be fetched for them again.
DO $$
DECLARE
  o record;
BEGIN
  FOR o IN SELECT * FROM masq.openings ORDER BY id LOOP
    PERFORM masq.append('opened', o.claimed, NULL, NULL, o.reason, ARRAY[masq.letter_key(o.sent_at, o.message_id)], NULL,
                        format('{"login": %s, "at": %s}', to_json(o.login), to_json(o.at)));
  END LOOP;
END
$$;
DROP TABLE masq.openings;

DO $$
DECLARE
  f regprocedure;
BEGIN
  FOR f IN SELECT p.oid FROM pg_proc p WHERE p.pronamespace = 'masq'::regnamespace AND p.proname IN (
    'append', 'check_why', 'request_reveal', 'permitted', 'approve', 'requested', 'pending', 'fetch_epochs',
    'fetch_entries', 'fetch_further', 'revealed', 'found', 'request_open', 'fetch_letters', 'close_epoch'
  ) LOOP
    EXECUTE format('REVOKE ALL ON FUNCTION %s FROM PUBLIC', f);
  END LOOP;
END
$$;

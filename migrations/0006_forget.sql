-- Forgetting a person, in one transaction, under a lock that keeps writers of the table out: rows unlinked, sealed copies
-- deleted. What comes back all the same is the next migration's. Forward only.
--
-- The slots may lie in another database; then whoever calls deletes them there first and says how many they were.

-- The key is drawn by whoever erases and stands in the file, too: by it both are compared.
ALTER TABLE masq.erasures
  ADD COLUMN key          uuid    NOT NULL UNIQUE,
  ADD COLUMN delete_rows  boolean NOT NULL,
  ADD COLUMN rows_deleted bigint  NOT NULL;
-- Rows that erasures had deleted by then, so that the numbers of rows still add up.
ALTER TABLE masq.baselines ADD COLUMN erased bigint NOT NULL DEFAULT 0;
CREATE INDEX dead_letters_subject ON masq.dead_letters (subject_tag) WHERE subject_tag IS NOT NULL;

CREATE FUNCTION masq.rows_erased() RETURNS bigint
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
  SELECT coalesce(sum(rows_deleted), 0)::bigint FROM masq.erasures
$$;

-- Whether a target is described like this: a worker that may not describe it asks before it starts.
CREATE FUNCTION masq.is_described(schema text, name text, subject text, masked jsonb) RETURNS boolean
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
  SELECT EXISTS (
    SELECT FROM masq.targets t
    WHERE t.schema = is_described.schema AND t.name = is_described.name
      AND t.subject IS NOT DISTINCT FROM is_described.subject AND t.masked = is_described.masked
  )
$$;

-- The columns of a target that hold tokens, as expressions on a row `t`: the token's hexadecimal digits, and a format for
-- what to put there, where %s stands for such digits.
CREATE FUNCTION masq.token_columns(target regclass) RETURNS TABLE (name name, hex text, put text)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT a.attname, CASE WHEN b.is_bytea THEN format('encode(t.%I, ''hex'')', a.attname) ELSE format('t.%I::text', a.attname) END,
         CASE WHEN b.is_bytea THEN 'decode(%s, ''hex'')'
              ELSE '(%s)::' || replace(format_type(a.atttypid, a.atttypmod), '%', '%%') END
  FROM masq.targets d
  JOIN pg_namespace n ON n.nspname = d.schema
  JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = d.name
  JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
  JOIN pg_type y ON y.oid = a.atttypid
  CROSS JOIN LATERAL (SELECT coalesce(nullif(y.typbasetype, 0), y.oid) = 'bytea'::regtype AS is_bytea) AS b
  WHERE c.oid = token_columns.target
    AND a.attname IN (SELECT item ->> 'column' FROM jsonb_array_elements(d.masked) AS item)
  ORDER BY a.attnum
$$;

-- Which tables have rows of persons: the condition for the rows `t` of one ($1: as the column has it, $2: as tokens), and
-- the column, its value as text and whether that is a token.
CREATE FUNCTION masq.tables_of_persons()
RETURNS TABLE (target regclass, masked jsonb, subject name, is_token boolean, as_text text, whose text, marker text)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT c.oid::regclass, t.masked, a.attname, k.is_token, coalesce(k.hex, format('t.%I::text', a.attname)),
         CASE WHEN k.is_token THEN format('%s = ANY ($2)', k.hex) ELSE format('t.%I = ANY ($1)', a.attname) END,
         -- NULL is nobody: it fits every type, no unique or foreign key minds it, no message can bring it, and no two
         -- erased persons can be told apart. Where the column refuses it, a word that says what happened.
         CASE WHEN a.attnotnull OR y.typnotnull
              THEN quote_literal(CASE WHEN m.typmod > 4 THEN left('erased', m.typmod - 4) ELSE 'erased' END)
              ELSE 'NULL' END
  FROM masq.targets t
  JOIN pg_namespace n ON n.nspname = t.schema
  JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = t.name
  JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = t.subject AND NOT a.attisdropped
  JOIN pg_type y ON y.oid = a.atttypid
  CROSS JOIN LATERAL (SELECT greatest(a.atttypmod, y.typtypmod) AS typmod) AS m
  LEFT JOIN LATERAL (
    SELECT true AS is_token, o.hex FROM masq.token_columns(c.oid) o WHERE o.name = a.attname
  ) AS k ON true
  ORDER BY t.schema, t.name
$$;

-- Those that have none, or whose description nobody has written: whatever they hold of a person stays.
CREATE FUNCTION masq.tables_without_persons() RETURNS text[]
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT coalesce(array_agg(c.oid::regclass::text ORDER BY 1), '{}')
  FROM masq.targets t
  JOIN pg_namespace n ON n.nspname = t.schema
  JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = t.name
  WHERE c.oid NOT IN (SELECT target FROM masq.tables_of_persons())
$$;

-- A token of nobody: key id 0, then what differs in every row and column. It need not be a secret.
CREATE FUNCTION masq.tombstone() RETURNS text
LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
  SELECT '00' || substr(md5(random()::text || random()) || md5(clock_timestamp()::text || random() || random()), 1, 62)
$$;

-- Unlinks or deletes the rows of a person. Answers how many, by table.
CREATE FUNCTION masq.unlink(subjects text[], tokens text[], delete_rows boolean) RETURNS jsonb
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  t       record;
  changes text;
  done    bigint;
  rows    jsonb := '{}';
BEGIN
  FOR t IN SELECT * FROM masq.tables_of_persons() LOOP
    SELECT string_agg(format('%1$I = CASE WHEN t.%1$I IS NOT NULL THEN %2$s END', c.name, format(c.put, 'masq.tombstone()')), ', ')
    INTO changes FROM masq.token_columns(t.target) AS c;
    IF t.is_token IS NOT TRUE THEN
      changes := concat_ws(', ', changes, format('%I = %s', t.subject, t.marker));
    END IF;
    EXECUTE CASE WHEN delete_rows THEN format('DELETE FROM %s AS t WHERE %s', t.target, t.whose)
                 ELSE format('UPDATE %s AS t SET %s WHERE %s', t.target, changes, t.whose) END
    USING subjects, tokens;
    GET DIAGNOSTICS done = ROW_COUNT;
    rows := rows || jsonb_build_object(t.target::text, done);
  END LOOP;
  RETURN rows;
END
$$;

-- The tokens of a person that the vault knows where a table has no other name of them.
CREATE FUNCTION masq.tokens_of(subject_tag bytea) RETURNS text[]
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT coalesce(array_agg(DISTINCT encode(e.token, 'hex')), '{}') FROM masq.entries e
  WHERE e.subject_tag = tokens_of.subject_tag AND e.field IN (
    SELECT item ->> 'field' FROM masq.tables_of_persons() t, jsonb_array_elements(t.masked) AS item
    WHERE t.is_token AND item ->> 'column' = t.subject
  )
$$;

-- Counts by epoch, added up: {"…": 3} and {"…": 2} are {"…": 5}.
CREATE FUNCTION masq.add_counts(a jsonb, b jsonb) RETURNS jsonb
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT coalesce(jsonb_object_agg(epoch, n), '{}')
  FROM (SELECT key AS epoch, sum(value::bigint) AS n
        FROM (SELECT * FROM jsonb_each_text(a) UNION ALL SELECT * FROM jsonb_each_text(b)) AS counts GROUP BY key) AS sums
$$;
CREATE FUNCTION masq.sum_counts(counts jsonb) RETURNS bigint
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT coalesce(sum(value::bigint), 0)::bigint FROM jsonb_each_text(counts)
$$;
-- As the log says what was deleted: {"<epoch>": [entries, slots, letters]}.
CREATE FUNCTION masq.deleted(entries jsonb, slots jsonb, letters jsonb) RETURNS jsonb
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT coalesce(jsonb_object_agg(epoch::uuid, jsonb_build_array(
           coalesce((entries ->> epoch)::bigint, 0), coalesce((slots ->> epoch)::bigint, 0),
           coalesce((letters ->> epoch)::bigint, 0))), '{}')
  FROM jsonb_object_keys(entries || slots || letters) AS epoch
$$;

-- Deletes the entries of persons from epochs that were recorded before these moments.
CREATE FUNCTION masq.delete_entries(tags bytea[], moments timestamptz[]) RETURNS jsonb
LANGUAGE sql SET search_path = pg_catalog, pg_temp AS $$
  WITH gone AS (
    DELETE FROM masq.entries e USING unnest(tags, moments) AS x (tag, moment)
    WHERE e.subject_tag = x.tag
      AND coalesce((SELECT o.recorded_at FROM masq.epochs o WHERE o.id = e.epoch), '-infinity') <= x.moment
    RETURNING e.epoch
  )
  SELECT coalesce(jsonb_object_agg(epoch, n), '{}') FROM (SELECT epoch, count(*) AS n FROM gone GROUP BY epoch) AS counts
$$;

-- Deletes dead letters, and notes it in the ledger as a purge does: 2 becomes 5, 3 becomes 1.
CREATE FUNCTION masq.delete_letters(sent timestamptz[], ids uuid[]) RETURNS jsonb
LANGUAGE sql SET search_path = pg_catalog, pg_temp AS $$
  WITH gone AS (
    DELETE FROM masq.dead_letters d USING unnest(sent, ids) AS x (sent_at, message_id)
    WHERE d.sent_at = x.sent_at AND d.message_id = x.message_id
    RETURNING d.sent_at, d.message_id, d.epoch
  ), noted AS (
    UPDATE masq.ledger l SET outcome = CASE l.outcome WHEN 2 THEN 5 ELSE 1 END FROM gone g
    WHERE l.sent_at = g.sent_at AND l.message_id = g.message_id AND l.outcome IN (2, 3)
      AND l.sent_at >= masq.ledger_oldest()
  )
  SELECT coalesce(jsonb_object_agg(epoch, n), '{}') FROM (SELECT epoch, count(*) AS n FROM gone GROUP BY epoch) AS counts
$$;
CREATE FUNCTION masq.delete_letters_of(tags bytea[], moments timestamptz[]) RETURNS jsonb
LANGUAGE sql SET search_path = pg_catalog, pg_temp AS $$
  SELECT masq.delete_letters(array_agg(sent_at), array_agg(message_id)) FROM (
    SELECT DISTINCT d.sent_at, d.message_id FROM unnest(tags, moments) AS x (tag, moment)
    JOIN masq.dead_letters d ON d.subject_tag = x.tag AND d.recorded_at <= x.moment ORDER BY 1, 2
  ) AS letters
$$;

-- Whether this is where all erasures are known: see masq.home.
CREATE FUNCTION masq.is_home() RETURNS boolean
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
  SELECT (SELECT identity FROM masq.home) IS NOT DISTINCT FROM masq.identity()
$$;

-- Whether this is the key of subject tags, by its check value; with another one nobody would be found.
CREATE FUNCTION masq.is_subject_key(check_value bytea) RETURNS boolean
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
  SELECT NOT EXISTS (SELECT FROM masq.key_checks k WHERE k.name = 'subject' AND k.value <> is_subject_key.check_value)
$$;

-- What the log says of the name of a request's person: whoever asks can show what it was, and as long as they keep the
-- secret, which no table holds, nobody can find it by trial.
CREATE FUNCTION masq.named(secret uuid, subjects text[], tokens text[]) RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT encode(masq.sha256(uuid_send(secret) || convert_to(jsonb_build_array(subjects, tokens)::text, 'UTF8')), 'hex')
$$;

-- Asks for the erasure of a person, whose tag it is and who goes by one name and one token only; or, without a tag, to
-- replay erasures after a restore. Whose tag it is nobody here can tell, but nobody else is counted or erased for it.
CREATE FUNCTION masq.request_erasure(purpose text, ticket text, reason text, claimed text, subject_tag bytea, secret uuid,
                                     subjects text[], tokens text[]) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  PERFORM masq.check_why(request_erasure.purpose, request_erasure.ticket, request_erasure.reason);
  IF subject_tag IS NOT NULL AND (secret IS NULL OR cardinality(subjects) > 1 OR cardinality(tokens) > 1) THEN
    RAISE EXCEPTION 'an erasure is of one person' USING ERRCODE = 'MQ001';
  END IF;
  IF subject_tag IS NOT NULL AND NOT masq.is_home() THEN
    RAISE EXCEPTION 'this database was restored or moved, and erasures have not been replayed since' USING ERRCODE = 'MQ007';
  END IF;
  RETURN masq.append(CASE WHEN subject_tag IS NULL THEN 'restore' ELSE 'forget' END, request_erasure.claimed,
                     request_erasure.purpose, request_erasure.ticket, request_erasure.reason,
                     array_remove(ARRAY[request_erasure.subject_tag], NULL), NULL,
                     CASE WHEN subject_tag IS NOT NULL
                          THEN format('{"named": "%s"}', masq.named(secret, subjects, tokens)) END);
END
$$;

-- The request, if it may be answered now and is of the person who goes by this name.
CREATE FUNCTION masq.permitted_of(request bigint, secret uuid, subjects text[], tokens text[]) RETURNS masq.audit
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  asked masq.audit;
BEGIN
  asked := masq.permitted(permitted_of.request, 'forget');
  IF asked.detail::jsonb ->> 'named' IS DISTINCT FROM masq.named(secret, subjects, tokens) THEN
    RAISE EXCEPTION 'the request names another person' USING ERRCODE = 'MQ006';
  END IF;
  RETURN asked;
END
$$;

-- What is there of a person: how many rows, tokens in them and how many of those others have too, entries, slots, letters.
CREATE FUNCTION masq.plan_erasure(request bigint, secret uuid, subjects text[], tokens text[]) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  asked  masq.audit;
  tag    bytea;
  theirs text[];
  t      record;
  c      record;
  count  bigint;
  rows   jsonb := '{}';
  found  text[];
  other  text[];
  many   bigint := 0;
  shared bigint := 0;
BEGIN
  asked := masq.permitted_of(plan_erasure.request, secret, subjects, tokens);
  tag := asked.items[1];
  theirs := tokens || masq.tokens_of(tag);
  FOR t IN SELECT * FROM masq.tables_of_persons() LOOP
    EXECUTE format('SELECT count(*) FROM %s AS t WHERE %s', t.target, t.whose) INTO count USING subjects, theirs;
    rows := rows || jsonb_build_object(t.target::text, count);
    FOR c IN SELECT * FROM masq.token_columns(t.target) LOOP
      EXECUTE format('SELECT coalesce(array_agg(DISTINCT %s), ''{}'') FROM %s AS t WHERE (%s) AND t.%I IS NOT NULL',
                     c.hex, t.target, t.whose, c.name) INTO found USING subjects, theirs;
      EXECUTE format('SELECT coalesce(array_agg(DISTINCT %1$s), ''{}'') FROM %2$s AS t WHERE %1$s = ANY ($3) AND (%3$s) IS NOT TRUE',
                     c.hex, t.target, t.whose) INTO other USING subjects, theirs, found;
      many := many + cardinality(found);
      shared := shared + (
        SELECT count(*) FROM unnest(found) AS f
        WHERE f = ANY (other) OR f ~ '^[0-9a-f]{64}$' AND EXISTS (
          SELECT FROM masq.entries e WHERE e.token = decode(f, 'hex') AND e.subject_tag <> tag));
    END LOOP;
  END LOOP;
  -- That was its outcome: a request without one is worth a look.
  PERFORM masq.append('planned', asked.claimed, NULL, NULL, NULL, NULL, asked.seq, NULL);
  RETURN jsonb_build_object(
    'rows', rows, 'tokens', many, 'shared_tokens', shared, 'tables_without_persons', masq.tables_without_persons(),
    'entries', (SELECT count(*) FROM masq.entries e WHERE e.subject_tag = tag),
    'letters', (SELECT count(*) FROM masq.dead_letters d WHERE d.subject_tag = tag));
END
$$;

-- Erases a person, who goes by one name only; the log says how many rows that were. `elsewhere`: the slots that were deleted in another database, by epoch.
CREATE FUNCTION masq.erase_person(erasure uuid, number bigint, request bigint, claimed text, tag bytea, subjects text[],
                                  tokens text[], delete_rows boolean, elsewhere jsonb) RETURNS jsonb
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  moment  timestamptz;
  slots   jsonb := coalesce(elsewhere, '{}');
  rows    jsonb;
  entries jsonb;
  letters jsonb;
  outcome jsonb;
BEGIN
  IF (SELECT count(DISTINCT s) FROM unnest(subjects) AS s) > 1 THEN
    RAISE EXCEPTION 'an erasure is of one person' USING ERRCODE = 'MQ001';
  END IF;
  EXECUTE coalesce((SELECT 'LOCK TABLE ' || string_agg(target::text, ', ') || ' IN SHARE ROW EXCLUSIVE MODE'
                    FROM masq.tables_of_persons()), 'SELECT');
  moment := clock_timestamp();
  rows := masq.unlink(subjects, tokens || masq.tokens_of(tag), delete_rows);
  letters := masq.delete_letters_of(ARRAY[tag], ARRAY[moment]);
  IF to_regclass('masq_slots.slots') IS NOT NULL THEN
    slots := masq.add_counts(slots, masq_slots.erase(erasure, tag));
  END IF;
  entries := masq.delete_entries(ARRAY[tag], ARRAY[moment]);
  INSERT INTO masq.erasures (id, subject_tag, erased_at, request, key, delete_rows, rows_deleted)
  VALUES (number, tag, moment, request, erasure, erase_person.delete_rows,
          CASE WHEN erase_person.delete_rows THEN masq.sum_counts(rows) ELSE 0 END);
  outcome := jsonb_build_object(
    'number', number, 'rows', rows, 'rows_deleted', erase_person.delete_rows, 'entries', masq.sum_counts(entries),
    'slots', masq.sum_counts(slots), 'letters', masq.sum_counts(letters),
    'tables_without_persons', masq.tables_without_persons());
  PERFORM masq.append('forgotten', claimed, NULL, NULL, NULL, ARRAY[tag], request,
                      (outcome || jsonb_build_object('deleted', masq.deleted(entries, slots, letters)))::text);
  RETURN outcome;
END
$$;

-- What came of an erasure; NULL if there was none of this key.
CREATE FUNCTION masq.outcome_of(erasure uuid) RETURNS jsonb
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT coalesce((SELECT a.detail::jsonb - 'deleted' FROM masq.audit a
                   WHERE a.action = 'forgotten' AND a.request = x.request AND (a.detail::jsonb ->> 'number')::bigint = x.id),
                  '{}')
  FROM masq.erasures x WHERE x.key = erasure
$$;

-- Erases the person of a request, once. The same key again, be it for another request, changes nothing and answers what came
-- of it then: whoever was cut off asks anew.
CREATE FUNCTION masq.erase(request bigint, claimed text, erasure uuid, secret uuid, subjects text[], tokens text[],
                           delete_rows boolean, elsewhere jsonb) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  asked masq.audit;
BEGIN
  asked := masq.permitted_of(erase.request, erase.secret, erase.subjects, erase.tokens);
  LOCK TABLE masq.erasures IN EXCLUSIVE MODE;
  IF EXISTS (
    SELECT FROM masq.erasures x
    WHERE CASE WHEN x.key = erasure THEN x.subject_tag <> asked.items[1] ELSE x.request = asked.seq END
  ) THEN
    RAISE EXCEPTION 'a request is for one erasure, of one person' USING ERRCODE = 'MQ006';
  END IF;
  RETURN coalesce(masq.outcome_of(erasure), masq.erase_person(
    erasure, (SELECT coalesce(max(id), 0) + 1 FROM masq.erasures), asked.seq, erase.claimed, asked.items[1], subjects, tokens,
    erase.delete_rows, elsewhere));
END
$$;

DO $$
DECLARE
  f regprocedure;
BEGIN
  FOR f IN SELECT p.oid FROM pg_proc p WHERE p.pronamespace = 'masq'::regnamespace AND p.proname IN (
    'rows_erased', 'token_columns', 'tables_of_persons', 'tables_without_persons', 'tombstone', 'unlink', 'tokens_of',
    'add_counts', 'sum_counts', 'deleted', 'delete_entries', 'delete_letters', 'delete_letters_of', 'is_home',
    'is_subject_key', 'named', 'request_erasure', 'permitted_of', 'plan_erasure', 'erase_person', 'outcome_of', 'erase'
  ) LOOP
    EXECUTE format('REVOKE ALL ON FUNCTION %s FROM PUBLIC', f);
  END LOOP;
END
$$;

-- Old tokens replaced by those of the active key: entries of the vault, a page at a time, then rows, a range of blocks at a
-- time; what analysts see meanwhile; and the end of the old key. Every call is a transaction that leaves each row and each
-- entry with tokens of one key. Forward only.

-- What each old token is now called. It leads from one key's tokens to the other's, so it goes when the old key goes.
CREATE TABLE masq.bridge (
  old bytea PRIMARY KEY,
  new bytea NOT NULL
);
CREATE UNIQUE INDEX bridge_text ON masq.bridge (encode(old, 'hex'));  -- as most tables have it

-- What this token is called now, if it was replaced and the vault has something under the new one; otherwise itself. For
-- requests of what was read in the table before its key was rotated (migrations/0005_audit.sql).
CREATE FUNCTION masq.now_called(token bytea) RETURNS bytea
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT coalesce((SELECT b.new FROM masq.bridge b WHERE b.old = now_called.token
                   AND EXISTS (SELECT FROM masq.live_entries n WHERE n.token = b.new)), now_called.token)
$$;

-- The next entries whose token is of this key, in the order of their primary key. Only of a read-only key, whose tokens
-- are being replaced: a rotation has no quota and no second person, and must be no way round masq.request_reveal. What was
-- sealed for a person before that person was erased is not given out; masq.sweep deletes it.
CREATE FUNCTION masq.fetch_rekey(request bigint, kid smallint, after_token bytea, after_subject bytea, after_month date,
                                 page integer)
RETURNS TABLE (token bytea, subject_tag bytea, month date, field text, epoch uuid, sealed bytea)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  -- Of 255 there is no next: 33 bytes come after every token.
  first CONSTANT bytea := decode(lpad(to_hex(kid::int), 2, '0'), 'hex');
  past  CONSTANT bytea := CASE kid WHEN 255 THEN decode(repeat('ff', 33), 'hex')
                                   ELSE decode(lpad(to_hex(kid + 1), 2, '0'), 'hex') END;
BEGIN
  PERFORM masq.permitted(fetch_rekey.request, 'rotate');
  IF NOT EXISTS (SELECT FROM masq.token_keys k WHERE k.kid = fetch_rekey.kid AND k.state = 'read-only') THEN
    RAISE EXCEPTION 'the key is not one whose tokens are replaced' USING ERRCODE = 'MQ013';
  END IF;
  RETURN QUERY
  SELECT e.token, e.subject_tag, e.month, e.field, e.epoch, e.sealed
  FROM masq.entries e
  WHERE e.token >= coalesce(fetch_rekey.after_token, first) AND e.token < past
    AND (fetch_rekey.after_token IS NULL
         OR (e.token, e.subject_tag, e.month) > (fetch_rekey.after_token, fetch_rekey.after_subject, fetch_rekey.after_month))
    AND NOT EXISTS (
      SELECT FROM masq.erasures x JOIN masq.epochs o ON o.id = e.epoch
      WHERE x.subject_tag = e.subject_tag AND o.recorded_at <= x.erased_at
    )
  ORDER BY e.token, e.subject_tag, e.month LIMIT fetch_rekey.page;
END
$$;

-- How many entries have tokens of keys that make none any more.
CREATE FUNCTION masq.count_rekey() RETURNS bigint
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
  SELECT coalesce(sum((SELECT count(*) FROM masq.entries e
    WHERE e.token >= decode(lpad(to_hex(k.kid::int), 2, '0'), 'hex') AND e.token < CASE k.kid WHEN 255
      THEN decode(repeat('ff', 33), 'hex') ELSE decode(lpad(to_hex(k.kid + 1), 2, '0'), 'hex') END)), 0)::bigint
  FROM masq.token_keys k WHERE k.state = 'read-only'
$$;

-- Entries under their new tokens, in the place of the old ones. What was deleted since it was given out stays deleted. An
-- entry that a worker has made of the new token already is as good: `merged` counts these, and the log says of which epoch
-- one less is there now.
CREATE FUNCTION masq.rekey(request bigint, claimed text, tokens bytea[], subject_tags bytea[], months date[], epochs uuid[],
                           new_tokens bytea[], sealed bytea[], OUT moved bigint, OUT merged bigint)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  active  smallint;
  deleted text;
BEGIN
  PERFORM masq.permitted(rekey.request, 'rotate');
  SELECT k.kid INTO active FROM masq.token_keys k WHERE k.state = 'active';
  PERFORM masq.hold_key(active);
  IF EXISTS (
    SELECT FROM unnest(rekey.tokens, rekey.new_tokens) AS p (old, new)
    WHERE octet_length(p.old) IS DISTINCT FROM 32 OR octet_length(p.new) IS DISTINCT FROM 32
      OR get_byte(p.new, 0) <> active
      OR NOT EXISTS (SELECT FROM masq.token_keys k WHERE k.kid = get_byte(p.old, 0) AND k.state = 'read-only')
  ) THEN
    RAISE EXCEPTION 'tokens of a read-only key become tokens of the active one' USING ERRCODE = 'MQ013';
  END IF;
  WITH page AS (
    SELECT * FROM unnest(rekey.tokens, rekey.subject_tags, rekey.months, rekey.epochs, rekey.new_tokens, rekey.sealed)
      AS p (token, subject_tag, month, epoch, new, again)
  ), gone AS (
    DELETE FROM masq.entries e USING page p
    WHERE e.token = p.token AND e.subject_tag = p.subject_tag AND e.month = p.month AND e.epoch = p.epoch
    RETURNING e.token, e.subject_tag, e.month, e.epoch, e.field, p.new, p.again
  ), bridged AS (
    INSERT INTO masq.bridge AS b (old, new) SELECT DISTINCT g.token, g.new FROM gone g ORDER BY 1
    ON CONFLICT ON CONSTRAINT bridge_pkey DO UPDATE SET new = excluded.new WHERE b.new <> excluded.new
  ), made AS (
    INSERT INTO masq.entries AS e (month, token, subject_tag, field, epoch, sealed)
    SELECT g.month, g.new, g.subject_tag, g.field, g.epoch, g.again FROM gone g
    ORDER BY g.month, g.new, g.subject_tag ON CONFLICT DO NOTHING
    RETURNING e.token, e.subject_tag, e.month
  ), by_epoch AS (
    SELECT g.epoch, count(*) AS all, count(*) FILTER (WHERE m.token IS NULL) AS merged
    FROM gone g LEFT JOIN made m ON (m.token, m.subject_tag, m.month) = (g.new, g.subject_tag, g.month)
    GROUP BY g.epoch
  )
  SELECT coalesce(sum(b.all), 0), coalesce(sum(b.merged), 0),
    json_object_agg(b.epoch, json_build_array(b.merged, 0, 0)) FILTER (WHERE b.merged > 0)
  INTO rekey.moved, rekey.merged, deleted FROM by_epoch b;
  IF deleted IS NOT NULL THEN
    PERFORM masq.append('rotated', rekey.claimed, NULL, NULL, NULL, NULL, rekey.request,
                        jsonb_build_object('deleted', deleted::jsonb)::text);
  END IF;
END
$$;

-- ── Rows ─────────────────────────────────────────────────────────────────────────────────────────────────────────────

-- The tables that rows go into; of how many parts each consists, and how many blocks the largest of them has now.
CREATE FUNCTION masq.rekey_tables() RETURNS TABLE (schema text, name text, parts bigint, blocks bigint)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
  WITH RECURSIVE part (schema, name, oid) AS (
    SELECT t.schema, t.name, to_regclass(format('%I.%I', t.schema, t.name))::oid FROM masq.targets t
    WHERE jsonb_array_length(t.masked) > 0
    UNION ALL SELECT p.schema, p.name, i.inhrelid FROM part p JOIN pg_inherits i ON i.inhparent = p.oid
  )
  SELECT p.schema, p.name, count(*), max(pg_relation_size(p.oid)) / current_setting('block_size')::bigint
  FROM part p JOIN pg_class c ON c.oid = p.oid WHERE c.relkind = 'r' GROUP BY 1, 2 ORDER BY 1, 2
$$;

-- A condition for the rows `t` in these blocks of every part that PostgreSQL answers without reading others.
CREATE FUNCTION masq.in_blocks(first bigint, past bigint) RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT CASE WHEN current_setting('server_version_num')::int >= 140000
    THEN format('t.ctid >= ''(%s,0)'' AND t.ctid < ''(%s,0)''', first, past)
    -- Before 14 only rows that are named: all that fit, each with a header of 24 bytes and a pointer of 4.
    ELSE format('t.ctid = ANY (ARRAY(SELECT format(''(%%s,%%s)'', block, item)::tid FROM generate_series(%s, %s) AS block, '
                'generate_series(1, %s) AS item))', first, past - 1, (current_setting('block_size')::int - 24) / 28) END
$$;

-- What the tokens of keys that make none any more begin with, as a literal of an array.
CREATE FUNCTION masq.old_beginnings() RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT quote_literal(coalesce(array_agg(lpad(to_hex(k.kid::int), 2, '0')), '{}')::text) || '::text[]'
  FROM masq.token_keys k WHERE k.state = 'read-only'
$$;

-- Rows in these blocks get their new tokens, all columns of a row at once. `remaining`: rows with an old token that has no
-- new one.
CREATE FUNCTION masq.rekey_rows(request bigint, schema text, name text, first bigint, past bigint,
                                OUT updated bigint, OUT remaining bigint)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  new  CONSTANT text := '(SELECT encode(b.new, ''hex'') FROM masq.bridge b WHERE encode(b.old, ''hex'') = %s)';
  old  text := masq.old_beginnings();
  sets text;
  hits text;
  left_over text;
BEGIN
  PERFORM masq.permitted(rekey_rows.request, 'rotate');
  SELECT string_agg(format('%1$I = coalesce(%2$s, t.%1$I)', c.name, format(c.put, format(new, c.hex))), ', '),
    string_agg(format('(length(%s) = 64 AND left(%s, 2) = ANY (%s) AND %s IS NOT NULL)', c.hex, c.hex, old, format(new, c.hex)), ' OR '),
    string_agg(format('(length(%s) = 64 AND left(%s, 2) = ANY (%s) AND %s IS NULL)', c.hex, c.hex, old, format(new, c.hex)), ' OR ')
  INTO sets, hits, left_over
  FROM masq.token_columns(to_regclass(format('%I.%I', rekey_rows.schema, rekey_rows.name))) c;
  IF sets IS NULL THEN
    updated := 0;
    remaining := 0;
    RETURN;
  END IF;
  EXECUTE format('UPDATE %I.%I AS t SET %s WHERE %s AND (%s)', rekey_rows.schema, rekey_rows.name, sets,
                 masq.in_blocks(rekey_rows.first, rekey_rows.past), hits);
  GET DIAGNOSTICS updated = ROW_COUNT;
  EXECUTE format('SELECT count(*) FROM %I.%I AS t WHERE %s AND (%s)', rekey_rows.schema, rekey_rows.name,
                 masq.in_blocks(rekey_rows.first, rekey_rows.past), left_over) INTO remaining;
END
$$;

-- Old tokens in these blocks that have no new one get a tombstone instead, each its own, so that equal ones stay equal. The
-- rows follow as all others do. Only for keys that leaked.
CREATE FUNCTION masq.bury_tokens(request bigint, schema text, name text, first bigint, past bigint) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  c      record;
  more   bigint;
  buried bigint := 0;
BEGIN
  PERFORM masq.permitted(bury_tokens.request, 'rotate');
  IF EXISTS (SELECT FROM masq.token_keys k WHERE k.state = 'read-only' AND NOT k.leaked) THEN
    RAISE EXCEPTION 'only tokens of leaked keys are buried' USING ERRCODE = 'MQ013';
  END IF;
  FOR c IN SELECT * FROM masq.token_columns(to_regclass(format('%I.%I', bury_tokens.schema, bury_tokens.name))) LOOP
    -- A tombstone has to differ from every other; it need not be secret.
    EXECUTE format(
      'INSERT INTO masq.bridge (old, new)
       SELECT decode(o.hex, ''hex''),
         decode(''00'' || substr(md5(random()::text || clock_timestamp() || o.hex) || md5(random()::text || o.hex), 1, 62), ''hex'')
       FROM (SELECT DISTINCT %s AS hex FROM %I.%I AS t WHERE %s) AS o
       WHERE o.hex ~ ''^[0-9a-f]{64}$'' AND left(o.hex, 2) = ANY (%s)
         AND NOT EXISTS (SELECT FROM masq.bridge b WHERE encode(b.old, ''hex'') = o.hex)
       ORDER BY 1 ON CONFLICT DO NOTHING',
      c.hex, bury_tokens.schema, bury_tokens.name, masq.in_blocks(bury_tokens.first, bury_tokens.past), masq.old_beginnings());
    GET DIAGNOSTICS more = ROW_COUNT;
    buried := buried + more;
  END LOOP;
  RETURN buried;
END
$$;

-- ── What analysts see meanwhile ──────────────────────────────────────────────────────────────────────────────────────

-- A view beside each target, named <table>_bridged, in which all tokens are of the new key: GROUP BY is right in it before
-- the last row is. Whoever may read the table may read it. Answers where none could be made, and why.
CREATE FUNCTION masq.show_bridged(request bigint) RETURNS text[]
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  t      record;
  reader record;
  shown  text;
  notes  text[] := '{}';
BEGIN
  PERFORM masq.permitted(show_bridged.request, 'rotate');
  PERFORM masq.hide_bridged(show_bridged.request);
  FOR t IN
    SELECT g.schema, g.name, c.oid, c.relowner, c.relacl, c.relrowsecurity FROM masq.targets g
    JOIN pg_class c ON c.oid = to_regclass(format('%I.%I', g.schema, g.name)) WHERE jsonb_array_length(g.masked) > 0
  LOOP
    shown := format('%I.%I', t.schema, (t.name || '_bridged')::name);
    IF t.relrowsecurity THEN
      notes := notes || format('%s: the table has row-level security, which a view would go round', shown);
      CONTINUE;
    ELSIF to_regclass(shown) IS NOT NULL THEN
      notes := notes || format('%s: the name is taken', shown);
      CONTINUE;
    END IF;
    BEGIN
      EXECUTE masq.bridged_view(t.oid, shown);
      EXECUTE format('COMMENT ON VIEW %s IS ''masq: tokens as they are after the rotation''', shown);
      FOR reader IN
        SELECT DISTINCT a.grantee FROM aclexplode(coalesce(t.relacl, acldefault('r', t.relowner))) AS a
        WHERE a.privilege_type = 'SELECT'
      LOOP
        EXECUTE format('GRANT SELECT ON %s TO %s', shown, CASE reader.grantee WHEN 0 THEN 'PUBLIC'
          ELSE quote_ident(pg_get_userbyid(reader.grantee)) END);
      END LOOP;
    EXCEPTION WHEN insufficient_privilege THEN
      notes := notes || format('%s: %I may not create it: GRANT USAGE, CREATE ON SCHEMA %I TO %I', shown, current_user,
                               t.schema, current_user);
    END;
  END LOOP;
  RETURN notes;
END
$$;

-- The statement that makes such a view.
CREATE FUNCTION masq.bridged_view(target regclass, shown text) RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT format('CREATE VIEW %s AS SELECT %s FROM %s AS t%s', shown,
    string_agg(CASE WHEN c.name IS NULL THEN format('t.%I', a.attname)
      ELSE format('coalesce(%1$s, t.%2$I) AS %2$I', format(c.put, format('encode(b%s.new, ''hex'')', a.attnum)), a.attname) END,
      ', ' ORDER BY a.attnum),
    bridged_view.target,
    string_agg(format(' LEFT JOIN masq.bridge AS b%s ON encode(b%s.old, ''hex'') = %s', a.attnum, a.attnum, c.hex), ''
               ORDER BY a.attnum) FILTER (WHERE c.name IS NOT NULL))
  FROM pg_attribute a
  LEFT JOIN masq.token_columns(bridged_view.target) c ON c.name = a.attname
  WHERE a.attrelid = bridged_view.target AND a.attnum > 0 AND NOT a.attisdropped
$$;

-- Takes those views away. One that other views were made of stays: without a bridge it shows the table as it is.
CREATE FUNCTION masq.hide_bridged(request bigint) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  v record;
BEGIN
  PERFORM masq.permitted(hide_bridged.request, 'rotate');
  FOR v IN
    SELECT c.oid FROM pg_class c
    WHERE c.relkind = 'v' AND obj_description(c.oid, 'pg_class') = 'masq: tokens as they are after the rotation'
      AND pg_has_role(c.relowner, 'USAGE')
  LOOP
    BEGIN
      EXECUTE format('DROP VIEW %s', v.oid::regclass);
    EXCEPTION WHEN dependent_objects_still_exist THEN
      NULL;
    END;
  END LOOP;
END
$$;

-- The old keys are over, and with them what leads from their tokens to the new ones. Refused while entries are left, unless
-- forced. Answers the key ids.
CREATE FUNCTION masq.retire_token_keys(request bigint, force boolean) RETURNS smallint[]
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  kids smallint[];
BEGIN
  PERFORM masq.permitted(retire_token_keys.request, 'rotate');
  PERFORM pg_advisory_xact_lock(hashtext('masq.keys'));
  IF NOT force AND masq.count_rekey() > 0 THEN
    RAISE EXCEPTION 'there are entries of the old keys' USING ERRCODE = 'MQ013';
  END IF;
  WITH retired AS (
    UPDATE masq.token_keys k SET state = 'retired', since = now() WHERE k.state = 'read-only' RETURNING k.kid
  )
  SELECT coalesce(array_agg(r.kid ORDER BY r.kid), '{}') INTO kids FROM retired r;
  PERFORM masq.hide_bridged(retire_token_keys.request);
  TRUNCATE masq.bridge;
  RETURN kids;
END
$$;

DO $$
DECLARE
  f regprocedure;
BEGIN
  FOR f IN SELECT p.oid FROM pg_proc p WHERE p.pronamespace = 'masq'::regnamespace AND p.proname IN (
    'now_called', 'fetch_rekey', 'count_rekey', 'rekey', 'rekey_tables', 'in_blocks', 'old_beginnings',
    'rekey_rows', 'bury_tokens', 'show_bridged', 'bridged_view', 'hide_bridged', 'retire_token_keys'
  ) LOOP
    EXECUTE format('REVOKE ALL ON FUNCTION %s FROM PUBLIC', f);
  END LOOP;
END
$$;

-- Makes masq_owner the owner of both schemas and of everything in them. Idempotent; what is its own already is left alone,
-- since changing an owner takes a lock that waits for all who use the table.
DO $$
DECLARE
  change text;
BEGIN
  -- No partition comes or goes meanwhile: see masq.keep_partitions, masq.keep_months, masq_slots.keep_months.
  PERFORM pg_advisory_xact_lock(hashtext(name))
  FROM unnest(ARRAY['masq.ledger', 'masq.entries', 'masq_slots.slots']) AS name;
  FOR change IN
    WITH ours AS (SELECT oid, nspname, nspowner FROM pg_namespace WHERE nspname IN ('masq', 'masq_slots'))
    SELECT format('ALTER SCHEMA %I OWNER TO masq_owner', nspname) FROM ours WHERE nspowner <> 'masq_owner'::regrole
    UNION ALL
    -- Sequences follow the tables whose columns they number.
    SELECT format('ALTER %s %s OWNER TO masq_owner', CASE relkind WHEN 'v' THEN 'VIEW' ELSE 'TABLE' END, c.oid::regclass)
    FROM pg_class c JOIN ours ON ours.oid = relnamespace
    WHERE relkind IN ('r', 'p', 'v') AND relowner <> 'masq_owner'::regrole
    UNION ALL
    SELECT format('ALTER FUNCTION %s OWNER TO masq_owner', p.oid::regprocedure)
    FROM pg_proc p JOIN ours ON ours.oid = pronamespace WHERE proowner <> 'masq_owner'::regrole
  LOOP
    EXECUTE change;
  END LOOP;
END
$$;

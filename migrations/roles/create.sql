-- The roles: who may do what with masq. Nobody logs in as one of them; logins are made members.
-- Idempotent, and safe beside other databases of the cluster that do the same: roles are the cluster's.
--
-- masq_owner     owns both schemas and everything in them
-- masq_writer    what a worker needs: it cannot read what it has written
-- masq_operator  dead letters, reconciling, re-keying; what a worker may, too, since a replayed letter becomes a row
-- masq_analyst   reads the target table
-- masq_revealer  asks for values, and approves what others ask for
-- masq_eraser    asks for erasures and has them done
-- masq_auditor   reads the audit log and the numbers that it can be checked against
DO $$
DECLARE
  role text;
BEGIN
  FOREACH role IN ARRAY ARRAY['masq_owner', 'masq_writer', 'masq_operator', 'masq_analyst', 'masq_revealer',
                              'masq_eraser', 'masq_auditor'] LOOP
    CONTINUE WHEN EXISTS (SELECT FROM pg_roles WHERE rolname = role);
    BEGIN
      EXECUTE format('CREATE ROLE %I NOLOGIN', role);
    EXCEPTION WHEN duplicate_object OR unique_violation THEN
      NULL;  -- another database was faster
    END;
  END LOOP;
  -- Only a member of a role hands something over to it. Superusers are members of every role; whoever creates a role from
  -- PostgreSQL 16 on may administer it, and has yet to become a member that may use it.
  IF NOT pg_has_role(current_user, 'masq_owner',
                     CASE WHEN current_setting('server_version_num')::int < 160000 THEN 'USAGE' ELSE 'SET' END)
     OR NOT pg_has_role(current_user, 'masq_owner', 'USAGE') THEN
    BEGIN
      EXECUTE format('GRANT masq_owner TO %I', current_user);
    EXCEPTION WHEN unique_violation OR insufficient_privilege THEN
      NULL;  -- src/db/roles.rs looks whether it is one, and says what to do
    END;
  END IF;
END
$$;

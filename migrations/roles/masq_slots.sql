-- Who may do what in the schema masq_slots, in the database where it lies. Idempotent: it begins with nothing.
REVOKE ALL ON SCHEMA masq_slots
  FROM PUBLIC, masq_writer, masq_operator, masq_analyst, masq_revealer, masq_eraser, masq_auditor;
REVOKE ALL ON ALL TABLES IN SCHEMA masq_slots
  FROM PUBLIC, masq_writer, masq_operator, masq_analyst, masq_revealer, masq_eraser, masq_auditor;
REVOKE ALL ON ALL FUNCTIONS IN SCHEMA masq_slots
  FROM PUBLIC, masq_writer, masq_operator, masq_analyst, masq_revealer, masq_eraser, masq_auditor;

GRANT USAGE ON SCHEMA masq_slots TO masq_writer, masq_operator, masq_revealer, masq_eraser, masq_auditor;
GRANT SELECT ON masq_slots.migrations TO masq_writer, masq_operator, masq_revealer, masq_eraser, masq_auditor;

GRANT INSERT ON masq_slots.slots TO masq_writer, masq_operator;
GRANT EXECUTE ON FUNCTION masq_slots.keep_months() TO masq_writer, masq_operator;
GRANT EXECUTE ON FUNCTION masq_slots.fetch_slots(bytea[], uuid[]) TO masq_revealer, masq_operator;

GRANT EXECUTE ON FUNCTION masq_slots.count(bytea), masq_slots.is_home() TO masq_eraser;

-- What deletes slots or opens them again leaves nothing in the audit log, which is where the rows are. Beside them only
-- the functions of the schema masq may call it, which put it on record; elsewhere the roles have to be trusted with it.
-- How long slots are kept at least the owner says, and no role can change.
DO $$
BEGIN
  IF to_regclass('masq.audit') IS NULL THEN
    GRANT EXECUTE ON FUNCTION masq_slots.of_erased(interval), masq_slots.sweep(bytea[], uuid[])
      TO masq_writer, masq_operator, masq_eraser;
    GRANT EXECUTE ON FUNCTION masq_slots.keep_slots(date, uuid[], integer) TO masq_writer, masq_operator;
    GRANT EXECUTE ON FUNCTION masq_slots.erase(uuid, bytea), masq_slots.note_erasures(uuid[], bytea[]),
      masq_slots.come_home() TO masq_eraser;
  END IF;
END
$$;

-- Whether slots have vanished: how many an epoch has, not which salts.
GRANT SELECT (epoch, month) ON masq_slots.slots TO masq_auditor;

-- Nobody's but the owner's.
REVOKE ALL ON masq_slots.home, masq_slots.erasures, masq_slots.policy FROM PUBLIC;
REVOKE ALL ON FUNCTION masq_slots.identity(), masq_slots.add_counts(jsonb, jsonb) FROM PUBLIC;

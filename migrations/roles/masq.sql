-- Who may do what in the schema masq. Idempotent: it begins with nothing. Where a table has a column that a role must not
-- write or see, the grant names the columns that it may.
REVOKE ALL ON SCHEMA masq
  FROM PUBLIC, masq_writer, masq_operator, masq_analyst, masq_revealer, masq_eraser, masq_auditor;
REVOKE ALL ON ALL TABLES IN SCHEMA masq
  FROM PUBLIC, masq_writer, masq_operator, masq_analyst, masq_revealer, masq_eraser, masq_auditor;
REVOKE ALL ON ALL SEQUENCES IN SCHEMA masq
  FROM PUBLIC, masq_writer, masq_operator, masq_analyst, masq_revealer, masq_eraser, masq_auditor;
REVOKE ALL ON ALL FUNCTIONS IN SCHEMA masq
  FROM PUBLIC, masq_writer, masq_operator, masq_analyst, masq_revealer, masq_eraser, masq_auditor;

-- Everybody but the analyst: which version this is, and which keys are in use.
GRANT USAGE ON SCHEMA masq TO masq_writer, masq_operator, masq_revealer, masq_eraser, masq_auditor;
GRANT SELECT ON masq.migrations, masq.key_checks, masq.token_keys, masq.recipients, masq.targets
  TO masq_writer, masq_operator, masq_revealer, masq_eraser, masq_auditor;

-- The worker. It adds, and reads nothing but which messages it knows. Whoever replays letters adds the same.
GRANT SELECT, INSERT ON masq.ledger TO masq_writer, masq_operator;
GRANT SELECT (key), INSERT (key) ON masq.dedupe TO masq_writer, masq_operator;
GRANT SELECT, INSERT (sent_at, message_id, readers), UPDATE (readers), DELETE ON masq.suspects
  TO masq_writer, masq_operator;
GRANT INSERT (id, started_at) ON masq.epochs TO masq_writer, masq_operator;  -- recorded_at is the server's to say
GRANT INSERT ON masq.epoch_wraps, masq.entries TO masq_writer, masq_operator;
GRANT INSERT (sent_at, message_id, reason, queue, receive_count, body_bytes, epoch, sealed, subject_tag)
  ON masq.dead_letters TO masq_writer, masq_operator;
GRANT EXECUTE ON FUNCTION masq.ledger_oldest(), masq.make_partition(date), masq.keep_partitions(interval),
  masq.prune(interval, integer), masq.keep_months(), masq.hold_key(smallint),
  masq.claim_keys(smallint, bytea, bytea, bytea[]), masq.close_epoch(uuid, bigint, bigint, bigint)
  TO masq_writer, masq_operator;

GRANT EXECUTE ON FUNCTION masq.is_described(text, text, text, jsonb), masq.stale(bytea[], uuid[]),
  masq.sweep(jsonb, interval), masq.keep_vault(interval, interval, integer), masq.kept_slots(jsonb)
  TO masq_writer, masq_operator;

-- Dead letters, and whether the numbers add up. A sealed body only on the record.
GRANT SELECT (sent_at, message_id, reason, queue, recorded_at, receive_count, body_bytes, epoch, subject_tag, resolved_at),
  UPDATE (resolved_at), DELETE ON masq.dead_letters TO masq_operator;
GRANT EXECUTE ON FUNCTION masq.purged(text, text, uuid[], bigint[]), masq.resolved(text, text, integer) TO masq_operator;
GRANT UPDATE (outcome) ON masq.ledger TO masq_operator;
GRANT SELECT, INSERT (claimed, reason, letters, keyless) ON masq.replays TO masq_operator;
GRANT SELECT, INSERT (claimed, condition, letters) ON masq.purges TO masq_operator;
GRANT SELECT, INSERT (claimed, rows, ledger, keyless, erased) ON masq.baselines TO masq_operator;
GRANT EXECUTE ON FUNCTION masq.rows_erased() TO masq_operator;
GRANT EXECUTE ON FUNCTION masq.request_open(text, text, bytea[]), masq.fetch_letters(bigint), masq.fetch_epochs(uuid[])
  TO masq_operator;

-- Other keys: pages of sealed bytes, on the record, and what was made of them.
GRANT EXECUTE ON FUNCTION masq.request_rotate(text, text, text, text), masq.rotated(bigint, text, text),
  masq.add_recipient(bigint, bytea), masq.count_unwrapped(bytea[]), masq.fetch_unwrapped(bigint, bytea[], uuid, integer),
  masq.add_wraps(bigint, uuid[], bytea[], bytea[]), masq.retire_recipient(bigint, bytea),
  masq.add_token_key(bigint, smallint, bytea, boolean), masq.activate_token_key(bigint, smallint),
  masq.fetch_rekey(bigint, smallint, bytea, bytea, date, integer), masq.count_rekey(),
  masq.rekey(bigint, text, bytea[], bytea[], date[], uuid[], bytea[], bytea[]), masq.rekey_tables(),
  masq.rekey_rows(bigint, text, text, bigint, bigint), masq.bury_tokens(bigint, text, text, bigint, bigint),
  masq.show_bridged(bigint), masq.retire_token_keys(bigint, boolean)
  TO masq_operator;

-- The way back, on the record.
GRANT SELECT ON masq.purposes, masq.policy TO masq_revealer, masq_eraser, masq_auditor;
GRANT EXECUTE ON FUNCTION masq.request_reveal(text, text, text, text, bytea[]), masq.requested(bigint),
  masq.fetch_entries(bigint), masq.fetch_further(bigint, bytea, integer),
  masq.fetch_epochs(uuid[]), masq.revealed(bigint, text, integer, integer, integer), masq.pending(bigint),
  masq.approve(bigint, text, text), masq.found(text, text, text, bytea[])
  TO masq_revealer;

-- Erasing a person, on the record, and erasing again after a restore.
GRANT EXECUTE ON FUNCTION masq.is_subject_key(bytea),
  masq.request_erasure(text, text, text, text, bytea, uuid, text[], text[]),
  masq.plan_erasure(bigint, uuid, text[], text[]), masq.erase(bigint, text, uuid, uuid, text[], text[], boolean, jsonb),
  masq.known_erasures(), masq.is_home(), masq.subjects(bigint),
  masq.replay_erasure(bigint, text, uuid, bigint, bytea, text[], boolean, jsonb), masq.come_home(bigint, text, bigint),
  masq.stale(bytea[], uuid[]), masq.sweep(jsonb, interval)
  TO masq_eraser;

-- The record itself, and the numbers of what is there, to be compared with it. Nothing that is sealed.
GRANT SELECT ON masq.audit, masq.audit_head, masq.erasures, masq.epochs, masq.replays, masq.purges, masq.baselines
  TO masq_auditor;
GRANT SELECT (epoch, month) ON masq.entries TO masq_auditor;
GRANT SELECT (epoch, recorded_at) ON masq.dead_letters TO masq_auditor;

-- How far the record goes: whoever adds to it may have a checkpoint of it signed.
GRANT EXECUTE ON FUNCTION masq.tip() TO masq_operator, masq_revealer, masq_eraser, masq_auditor;

-- Nobody's but the owner's: called by the functions above, or by whoever migrates.
REVOKE ALL ON masq.horizon, masq.home, masq.live_entries, masq.bridge FROM PUBLIC;
REVOKE ALL ON FUNCTION masq.ledger_is_by_day(), masq.newest_moment(), masq.forget_before(date), masq.identity(),
  masq.note_target(text, text), masq.describe_target(text, text, text, jsonb), masq.sha256(bytea), masq.framed(bytea), masq.framed(text),
  masq.leaf(masq.audit), masq.append(text, text, text, text, text, bytea[], bigint, text),
  masq.refuse_retired(), masq.now_called(bytea), masq.in_blocks(bigint, bigint), masq.old_beginnings(),
  masq.bridged_view(regclass, text), masq.hide_bridged(bigint),
  masq.check_why(text, text, text), masq.permitted(bigint, text), masq.letter_key(timestamptz, uuid) FROM PUBLIC;
REVOKE ALL ON FUNCTION masq.token_columns(regclass), masq.tables_of_persons(), masq.tables_without_persons(),
  masq.tombstone(), masq.unlink(text[], text[], boolean), masq.tokens_of(bytea), masq.add_counts(jsonb, jsonb),
  masq.sum_counts(jsonb), masq.deleted(jsonb, jsonb, jsonb), masq.delete_entries(bytea[], timestamptz[]),
  masq.delete_letters(timestamptz[], uuid[]), masq.delete_letters_of(bytea[], timestamptz[]), masq.outcome_of(uuid),
  masq.named(uuid, text[], text[]), masq.permitted_of(bigint, uuid, text[], text[]), masq.permit_replay(bigint),
  masq.erase_person(uuid, bigint, bigint, text, bytea, text[], text[], boolean, jsonb), masq.months_before(regclass, date),
  masq.expire_epochs(timestamptz, integer), masq.drop_entries(date, integer),
  masq.delete_old_letters(timestamptz, integer) FROM PUBLIC;

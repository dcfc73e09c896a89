//! What each role may do and what it may not, statement by statement, in a database as workers use it: each statement in a
//! transaction of its own that is rolled back.

use tokio_postgres::error::SqlState;

use crate::support::{Database, config, connector};

const UUID: &str = "'00000000-0000-4000-8000-000000000000'::uuid";

/// What nobody may but masq_owner, whom nobody logs in as.
const NOBODY: [&str; 30] = [
    "SET ROLE masq_owner",
    "SET SESSION AUTHORIZATION postgres",
    "CREATE TABLE masq.mine (n int)",
    "CREATE TABLE masq_slots.mine (n int)",
    "CREATE FUNCTION masq.mine() RETURNS int LANGUAGE sql AS 'SELECT 1'",
    "DROP SCHEMA masq CASCADE",
    "ALTER TABLE masq.entries DROP COLUMN token",
    "ALTER FUNCTION masq.identity() OWNER TO CURRENT_USER",
    "CREATE TRIGGER mine BEFORE INSERT ON masq.entries FOR EACH STATEMENT EXECUTE PROCEDURE suppress_redundant_updates_trigger()",
    "GRANT masq_owner TO CURRENT_USER",
    "TRUNCATE user_logins",
    "TRUNCATE masq.ledger",
    "DELETE FROM masq.ledger",
    "DELETE FROM masq.entries",
    "UPDATE masq.entries SET sealed = ''",
    "DELETE FROM masq_slots.slots",
    "UPDATE masq.policy SET daily_quota = 1000000",
    "INSERT INTO masq.purposes VALUES ('FUN', 'none')",
    "UPDATE masq.targets SET subject = NULL",
    "INSERT INTO masq.targets (schema, name, created) VALUES ('public', 'mine', true)",
    "SELECT masq.note_target('public', 'mine')",
    "UPDATE masq.token_keys SET state = 'active'",
    "DELETE FROM masq.recipients",
    "UPDATE masq.home SET identity = masq.identity()",
    "UPDATE masq.audit SET reason = 'another'",
    "DELETE FROM masq.audit",
    "UPDATE masq.audit_head SET size = 0",
    "SELECT masq.append('reveal', 'me', NULL, NULL, NULL, NULL, NULL, NULL)",
    "SELECT masq.describe_target('public', 'user_logins', NULL, '[]')",
    "SELECT masq.forget_before('2000-01-01')",
];

/// A login, what it may, and what it may not besides [`NOBODY`]. `ID` is a UUID.
const ROLES: [(&str, &[&str], &[&str]); 6] = [
    (
        "worker",
        &[
            "INSERT INTO user_logins (user_id) VALUES ('u')",
            "INSERT INTO masq.ledger (sent_at, message_id, outcome) VALUES (now(), ID, 1) ON CONFLICT DO NOTHING RETURNING sent_at",
            "INSERT INTO masq.epochs (id, started_at) VALUES (ID, now())",
            "INSERT INTO masq.entries (month, token, subject_tag, field, epoch, sealed) \
             VALUES (date_trunc('month', now()), '', '', 'ip', ID, '') ON CONFLICT DO NOTHING",
            "INSERT INTO masq_slots.slots (month, subject_tag, epoch, salt) \
             VALUES (date_trunc('month', now()), '', ID, '') ON CONFLICT DO NOTHING",
            "INSERT INTO masq.dedupe (key) VALUES (ID) ON CONFLICT DO NOTHING RETURNING key",
            "SELECT count(*) FROM masq.ledger",
            "SELECT masq.keep_partitions('15 days')",
            "SELECT masq.sweep('{}', '2 days')",
            "SELECT masq.keep_vault(NULL, NULL, 10)",
            "SELECT masq.close_epoch(ID, 1, 1, 1)",
        ],
        &[
            "SELECT user_id FROM user_logins",
            "UPDATE user_logins SET user_id = 'v'",
            "DELETE FROM user_logins",
            "INSERT INTO user_logins (user_id) VALUES ('u') RETURNING user_id",
            "UPDATE masq.ledger SET outcome = 2",
            "SELECT FROM masq.entries",
            "SELECT FROM masq.PARTITION",
            "DROP TABLE masq.PARTITION",
            "INSERT INTO masq.PARTITION (token) VALUES ('') RETURNING token",
            "INSERT INTO masq.entries (month, token, subject_tag, field, epoch, sealed) \
             VALUES (date_trunc('month', now()), '', '', 'ip', ID, '') RETURNING token",
            "SELECT FROM masq.epochs",
            "INSERT INTO masq.epochs (id, started_at, recorded_at) VALUES (ID, now(), 'infinity')",
            "UPDATE masq.epochs SET recorded_at = now()",
            "SELECT wrapped FROM masq.epoch_wraps",
            "DELETE FROM masq.epoch_wraps",
            "SELECT salt FROM masq_slots.slots",
            "SELECT reason FROM masq.dead_letters",
            "UPDATE masq.dead_letters SET resolved_at = now()",
            "DELETE FROM masq.dead_letters",
            "INSERT INTO masq.dead_letters (sent_at, message_id, resolved_at) VALUES (now(), ID, now())",
            "INSERT INTO masq.dead_letters (sent_at, message_id, recorded_at) VALUES (now(), ID, now())",
            "INSERT INTO masq.dedupe (key, seen_on) VALUES (ID, 'infinity')",
            "SELECT FROM masq.audit",
            "INSERT INTO masq.audit (seq) VALUES (0)",
            "INSERT INTO masq.token_keys (kid, check_value, state) VALUES (2, '', 'pending')",
            "UPDATE masq.key_checks SET value = ''",
            "SELECT masq.request_reveal('TEST', 'T', 'because of this', 'me', ARRAY[decode(repeat('01', 32), 'hex')])",
            "SELECT masq.fetch_entries(1)",
            "SELECT masq.fetch_further(1, '', 0)",
            "SELECT masq.fetch_epochs(ARRAY[ID])",
            "SELECT masq_slots.fetch_slots(ARRAY[''::bytea], ARRAY[ID])",
            "SELECT masq.request_open('why', 'me', ARRAY[decode(repeat('01', 24), 'hex')])",
            "SELECT masq.fetch_letters(1)",
            "SELECT masq.approve(1, 'me', 'why')",
            "SELECT masq.erase(1, 'me', ID, ID, '{}', '{}', false, '{}')",
            "SELECT masq_slots.erase(ID, '')",
            "SELECT masq_slots.sweep(ARRAY[''::bytea], ARRAY[ID])",
            "SELECT masq_slots.keep_slots(current_date, ARRAY[ID], 10)",
            "SELECT masq.come_home(1, 'me', 0)",
            "SELECT masq.purged('me', 'all', ARRAY[ID], ARRAY[1::bigint])",
        ],
    ),
    (
        "operator",
        &[
            "SELECT sent_at, message_id, reason, epoch FROM masq.dead_letters",
            "SELECT d.sent_at FROM masq.dead_letters d FOR UPDATE",
            "UPDATE masq.dead_letters SET resolved_at = now()",
            "DELETE FROM masq.dead_letters",
            "UPDATE masq.ledger SET outcome = 3 WHERE outcome = 2",
            "SELECT count(*) FROM user_logins",
            "INSERT INTO user_logins (user_id) VALUES ('u')",
            "SELECT masq.request_open('why', 'me', ARRAY[decode(repeat('01', 24), 'hex')])",
        ],
        &[
            "SELECT sealed FROM masq.dead_letters",
            "SELECT * FROM masq.dead_letters",
            "UPDATE masq.dead_letters SET sealed = ''",
            "DELETE FROM masq.dead_letters RETURNING sealed",
            "UPDATE masq.ledger SET sent_at = now()",
            "UPDATE user_logins SET user_id = 'v'",
            "DELETE FROM user_logins",
            "SELECT sealed FROM masq.entries",
            "SELECT salt FROM masq_slots.slots",
            "SELECT FROM masq.audit",
            "UPDATE masq.replays SET letters = 0",
            "DELETE FROM masq.purges",
            "INSERT INTO masq.replays (login, claimed, reason, letters, keyless) VALUES ('another', 'me', 'why', 1, 0)",
            "SELECT masq.request_reveal('TEST', 'T', 'because of this', 'me', ARRAY[decode(repeat('01', 32), 'hex')])",
            "SELECT masq.fetch_entries(1)",
            "SELECT masq.approve(1, 'me', 'why')",
        ],
    ),
    (
        "analyst",
        &["SELECT * FROM user_logins"],
        &[
            "INSERT INTO user_logins (user_id) VALUES ('u')",
            "UPDATE user_logins SET user_id = 'v'",
            "DELETE FROM user_logins",
            "SELECT FROM masq.migrations",
            "SELECT FROM masq.ledger",
            "SELECT FROM masq.entries",
            "SELECT FROM masq_slots.slots",
            "SELECT masq.ledger_oldest()",
            "SELECT masq.found('me', 'why', 'ip', NULL)",
        ],
    ),
    (
        "revealer",
        &[
            "SELECT masq.request_reveal('TEST', 'T', 'because of this', 'me', ARRAY[decode(repeat('01', 32), 'hex')])",
            "SELECT masq.found('me', 'why', 'ip', NULL)",
            "SELECT kid, state FROM masq.token_keys",
            "SELECT masq_slots.fetch_slots(ARRAY[''::bytea], ARRAY[ID])",
        ],
        &[
            "SELECT FROM user_logins",
            "SELECT FROM masq.entries",
            "SELECT FROM masq.live_entries",
            "SELECT FROM masq.epochs",
            "SELECT FROM masq.epoch_wraps",
            "SELECT FROM masq_slots.slots",
            "SELECT FROM masq.dead_letters",
            "SELECT FROM masq.erasures",
            "SELECT FROM masq.audit",
            "INSERT INTO masq.entries (token) VALUES ('')",
            "SELECT masq.request_open('why', 'me', ARRAY[decode(repeat('01', 24), 'hex')])",
            "SELECT masq.fetch_letters(1)",
            "SELECT masq.permitted(1, 'reveal')",
            "SELECT masq.request_erasure('TEST', 'T', 'because of this', 'me', decode(repeat('01', 16), 'hex'), ID, '{u}', '{}')",
            "SELECT masq.erase(1, 'me', ID, ID, '{}', '{}', false, '{}')",
            "SELECT masq.come_home(1, 'me', 0)",
            "SELECT masq.hold_key(1::smallint)",
        ],
    ),
    (
        "eraser",
        &[
            "SELECT purpose FROM masq.purposes",
            "SELECT size FROM masq.tip()",
            "SELECT masq.request_erasure('TEST', 'T', 'because of this', 'me', decode(repeat('01', 16), 'hex'), ID, '{u}', '{}')",
            "SELECT masq.known_erasures()",
        ],
        &[
            "SELECT FROM user_logins",
            "DELETE FROM user_logins",
            "SELECT FROM masq.entries",
            "SELECT FROM masq_slots.slots",
            "INSERT INTO masq.erasures (id, subject_tag, erased_at) VALUES (1, '', now())",
            "SELECT masq.request_reveal('TEST', 'T', 'because of this', 'me', ARRAY[decode(repeat('01', 32), 'hex')])",
            "SELECT masq.fetch_entries(1)",
            "SELECT masq.fetch_epochs(ARRAY[ID])",
            "SELECT masq.fetch_letters(1)",
            "SELECT masq_slots.fetch_slots(ARRAY[''::bytea], ARRAY[ID])",
            "SELECT masq_slots.erase(ID, '')",
            "SELECT masq_slots.note_erasures(ARRAY[ID], ARRAY[''::bytea])",
            "SELECT masq_slots.come_home()",
        ],
    ),
    (
        "auditor",
        &[
            "SELECT * FROM masq.audit",
            "SELECT * FROM masq.audit_head",
            "SELECT epoch, count(*) FROM masq.entries GROUP BY epoch",
            "SELECT epoch, count(*) FROM masq_slots.slots GROUP BY epoch",
            "SELECT epoch, count(*) FROM masq.dead_letters GROUP BY epoch",
        ],
        &[
            "SELECT FROM user_logins",
            "SELECT sealed FROM masq.entries",
            "SELECT token FROM masq.entries",
            "SELECT subject_tag FROM masq.entries",
            "SELECT sealed FROM masq.dead_letters",
            "SELECT wrapped FROM masq.epoch_wraps",
            "SELECT salt FROM masq_slots.slots",
            "INSERT INTO masq.audit (seq) VALUES (0)",
            "SELECT masq.fetch_entries(1)",
            "SELECT masq.fetch_epochs(ARRAY[ID])",
            "SELECT masq.approve(1, 'me', 'why')",
        ],
    ),
];

#[tokio::test]
async fn each_role_may_what_it_is_for_and_nothing_else() {
    let database = Database::loadable(&config()).await;
    database.execute("SELECT masq.keep_partitions('15 days')").await;
    // Before PostgreSQL 11 these are plain tables.
    let partition = "SELECT coalesce(min(inhrelid::regclass::text), 'masq.entries') FROM pg_inherits \
                     WHERE inhparent = 'masq.entries'::regclass";
    let partition = database.query(partition).await.remove(0);
    let mut wrong = Vec::new();
    for (login, may, may_not) in ROLES {
        let session = connector(&database.login(login)).connect().await.unwrap();
        let cases = may.iter().map(|sql| (sql, true)).chain(may_not.iter().chain(&NOBODY).map(|sql| (sql, false)));
        for (sql, allowed) in cases {
            let sql = sql.replace("ID", UUID).replace("masq.PARTITION", &partition);
            session.batch_execute("BEGIN").await.unwrap();
            let done = session.batch_execute(&sql).await;
            session.batch_execute("ROLLBACK").await.unwrap();
            let as_expected = match &done {
                Ok(()) => allowed,
                Err(error) => !allowed && error.code() == Some(&SqlState::INSUFFICIENT_PRIVILEGE),
            };
            if !as_expected {
                wrong.push(format!("{login}: {sql}: {done:?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Whatever is added to the schemas has to say in `migrations/roles/` who may use it.
#[tokio::test]
async fn every_table_and_function_stands_in_the_files_that_give_rights() {
    let database = Database::ready().await;
    let files: String =
        ["masq.sql", "masq_slots.sql"].map(|name| crate::source::read(&format!("migrations/roles/{name}"))).concat();
    let names = "\
        SELECT format('%s.%s', nspname, relname) FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace
        WHERE nspname IN ('masq', 'masq_slots') AND relkind IN ('r', 'p', 'v', 'm', 'f')
          AND NOT EXISTS (SELECT FROM pg_inherits WHERE inhrelid = c.oid)
        UNION
        SELECT format('%s.%s(', nspname, proname) FROM pg_proc JOIN pg_namespace n ON n.oid = pronamespace
        WHERE nspname IN ('masq', 'masq_slots')";
    let stands = |name: &str| {
        files.match_indices(name).any(|(at, _)| {
            !files[at + name.len()..].starts_with(|c: char| c.is_alphanumeric() || c == '_') || name.ends_with('(')
        })
    };
    let missing: Vec<String> = database.query(names).await.into_iter().filter(|name| !stands(name)).collect();
    assert!(missing.is_empty(), "name these in migrations/roles/, be it as nobody's: {missing:?}");
}

#[tokio::test]
async fn everything_is_the_owners_and_nothing_is_everybodys() {
    let database = Database::ready().await;
    let of_others = "\
        WITH ours AS (SELECT oid FROM pg_namespace WHERE nspname IN ('masq', 'masq_slots')),
             things AS (SELECT oid::regclass::text AS name, relowner AS owner, coalesce(relacl, acldefault('r', relowner)) AS acl
                        FROM pg_class WHERE relnamespace IN (SELECT oid FROM ours) AND relkind IN ('r', 'p', 'v', 'm', 'f', 'S')
                        UNION ALL SELECT oid::regprocedure::text, proowner, coalesce(proacl, acldefault('f', proowner))
                        FROM pg_proc WHERE pronamespace IN (SELECT oid FROM ours)
                        UNION ALL SELECT nspname, nspowner, coalesce(nspacl, acldefault('n', nspowner))
                        FROM pg_namespace WHERE oid IN (SELECT oid FROM ours)
                        UNION ALL SELECT typname, typowner, NULL FROM pg_type WHERE typnamespace IN (SELECT oid FROM ours))
        SELECT name FROM things WHERE owner <> 'masq_owner'::regrole
           OR EXISTS (SELECT FROM aclexplode(acl) WHERE grantee = 0 OR is_grantable AND grantee <> owner)";
    assert_eq!(database.query(of_others).await, [""; 0]);
    let loose = "\
        SELECT oid::regprocedure FROM pg_proc
        WHERE pronamespace IN ('masq'::regnamespace, 'masq_slots'::regnamespace)
          AND NOT ('search_path=pg_catalog, pg_temp' = ANY (coalesce(proconfig, '{}')))";
    assert_eq!(database.query(loose).await, [""; 0]);
}

/// What runs with the owner's rights must not use what its caller has made.
#[tokio::test]
async fn functions_and_operators_of_the_callers_own_are_not_used() {
    const TRAP: &str = "\
        CREATE FUNCTION trap.now() RETURNS timestamptz LANGUAGE plpgsql AS $$ BEGIN RAISE 'trapped as %', current_user; END $$;
        CREATE FUNCTION trap.to_char(date, text) RETURNS text LANGUAGE plpgsql AS $$ BEGIN RAISE 'trapped as %', current_user; END $$;
        CREATE FUNCTION trap.less(date, date) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN RAISE 'trapped as %', current_user; END $$;
        CREATE OPERATOR trap.< (LEFTARG = date, RIGHTARG = date, PROCEDURE = trap.less);
        CREATE TEMP TABLE pg_inherits (inhrelid oid, inhparent oid);
        SET search_path = trap, pg_temp, masq, pg_catalog";
    let database = Database::loadable(&config()).await;
    database.execute("CREATE SCHEMA trap; GRANT USAGE, CREATE ON SCHEMA trap TO worker").await;
    let session = connector(&database.login("worker")).connect().await.unwrap();
    session.batch_execute(TRAP).await.unwrap();
    for works in ["SELECT now()", "SELECT date '2024-01-01' < date '2024-01-02'"] {
        let error = session.batch_execute(works).await.unwrap_err();
        assert_eq!(error.code().unwrap().code(), "P0001", "the trap does not work: {works}");
    }
    for call in [
        "SELECT masq.keep_partitions('15 days')",
        "SELECT masq.make_partition(date '2030-01-01')",
        "SELECT masq.keep_months()",
        "SELECT masq_slots.keep_months()",
        "SELECT masq.prune('15 days', 10)",
        "SELECT masq.close_epoch('00000000-0000-4000-8000-000000000000', 1, 1, 1)",
    ] {
        session.batch_execute(call).await.unwrap_or_else(|error| panic!("{call}: {error:?}"));
    }
}

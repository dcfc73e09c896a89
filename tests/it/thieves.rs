//! The way back, tried by who should not have it: an operator who wants to look without leaving a trace, a thief of the
//! worker's keys and login, and somebody who changes what is sealed.

use masq::vault::{
    epochs::{self, Opener},
    identity,
    recovery::RecoveryKey,
    seal::{OpenError, Original, SubjectTag},
    token::{Kind, Token},
};
use uuid::Uuid;

use crate::{
    reveal::{ADDRESS, Vault, hex, line},
    support::{config_of, plain, until},
};

#[tokio::test]
async fn a_transaction_that_is_rolled_back_gives_nothing_and_takes_no_request_off_the_record() {
    let vault = Vault::of(&[("u", ADDRESS)]).await;
    let client = plain(&vault.logins[0]).await;
    let token = vault.token(ADDRESS);
    let ask = format!(
        "SELECT request FROM masq.request_reveal('FRAUD', 'T-1', 'look, and leave no trace', 'eve', ARRAY['\\x{token}'::bytea])"
    );
    let number = "(SELECT max(n) FROM generate_series(1, 100) AS n WHERE EXISTS (SELECT FROM masq.pending(n)))";
    let fetch = format!("SELECT count(*) FROM masq.fetch_entries({number})");
    // In one transaction, in a savepoint that is given up or kept, and in one statement.
    let hidden = [
        format!("BEGIN; {ask}; {fetch}; ROLLBACK"),
        format!("BEGIN; SAVEPOINT s; {ask}; {fetch}; ROLLBACK TO s; COMMIT"),
        format!("BEGIN; SAVEPOINT s; {ask}; RELEASE s; {fetch}; ROLLBACK"),
        format!("SELECT (SELECT count(*) FROM masq.fetch_entries(r.request)) FROM ({ask}) AS r"),
        format!("DO $$ BEGIN PERFORM count(*) FROM masq.fetch_entries(({ask})); END $$"),
        format!("BEGIN; {ask}; SELECT count(*) FROM masq.fetch_further({number}, '\\x{token}', 0); ROLLBACK"),
    ];
    for sql in &hidden {
        let refused = client.simple_query(sql).await.unwrap_err();
        assert_eq!(sqlstate(&refused), Some("MQ003"), "{sql}");
        client.batch_execute("ROLLBACK").await.unwrap();
    }
    assert_eq!(vault.record().await, [""; 0], "nothing was given, and nothing asked");

    client.batch_execute(&ask).await.unwrap();
    client.batch_execute(&format!("BEGIN; {fetch}; ROLLBACK")).await.unwrap();
    assert_eq!(vault.record().await, ["reveal\t1\t{}"], "what was given was asked for");
    let other = plain(&vault.logins[1]).await;
    let refused = other.simple_query(&fetch).await.unwrap_err();
    assert_eq!(sqlstate(&refused), Some("MQ006"), "it is somebody else's");
}

#[tokio::test]
async fn two_requests_at_once_do_not_share_the_same_room() {
    let vault = Vault::of(&[("u", ADDRESS)]).await;
    vault.scene.database.execute("UPDATE masq.policy SET daily_quota = 1").await;
    let (first, second) = (plain(&vault.logins[0]).await, plain(&vault.logins[0]).await);
    let ask = format!(
        "SELECT * FROM masq.request_reveal('FRAUD', 'T-1', 'one of two at once', 'eve', ARRAY['\\x{}'::bytea])",
        vault.token(ADDRESS)
    );
    first.batch_execute(&format!("BEGIN; {ask}")).await.unwrap();
    let waiting = tokio::spawn(async move { second.batch_execute(&ask).await });
    let waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%one of two at once%' \
                 AND datname = current_database()";
    until("the second waits", async || vault.scene.database.query(waits).await == ["1"]).await;
    first.batch_execute("COMMIT").await.unwrap();
    let refused = waiting.await.unwrap().unwrap_err();
    assert_eq!(sqlstate(&refused), Some("MQ002"));
    assert_eq!(vault.record().await, ["reveal\t1\t{}"]);
}

#[tokio::test]
async fn what_was_moved_flipped_or_swapped_is_an_alarm_and_never_a_value() {
    // One worker, so that both values lie in one epoch.
    let one = config_of("[database]\nconnections = 1\n");
    let vault = Vault::with(one, &[("u", ADDRESS), ("v", "10.0.0.1")]).await;
    let tag = |user: &str| hex(&vault.scene.shared.keys.subject.tag(user).0);
    let (mine, theirs) = (vault.token(ADDRESS), vault.token("10.0.0.1"));
    let row = format!("token = '\\x{mine}'");
    let flip =
        |column: &str, byte: usize| format!("{column} = set_byte({column}, {byte}, get_byte({column}, {byte}) # 1)");
    // A second epoch in which the same person has a slot, as if it had been used for another value.
    let other = "INSERT INTO masq.epochs (id, started_at) VALUES ('00000000-0000-4000-8000-000000000001', now()); \
                 INSERT INTO masq.epoch_wraps SELECT '00000000-0000-4000-8000-000000000001', recipient, wrapped FROM masq.epoch_wraps LIMIT 1; \
                 INSERT INTO masq_slots.slots SELECT month, subject_tag, '00000000-0000-4000-8000-000000000001', salt FROM masq_slots.slots";
    vault.scene.database.execute(other).await;
    let changes = [
        format!(
            "UPDATE masq.entries SET sealed = (SELECT sealed FROM masq.entries WHERE token = '\\x{theirs}') WHERE {row}"
        ),
        format!(
            "UPDATE masq.entries SET token = '\\x{}', subject_tag = '\\x{}' WHERE {row}; UPDATE masq.entries SET token = '\\x{mine}' WHERE token = '\\x{theirs}'",
            "01".repeat(32),
            tag("w")
        ),
        format!("UPDATE masq.entries SET {} WHERE {row}", flip("sealed", 40)),
        format!("UPDATE masq.entries SET sealed = substr(sealed, 1, 60) WHERE {row}"),
        format!("UPDATE masq_slots.slots SET {}", flip("salt", 3)),
        format!("UPDATE masq.epoch_wraps SET {}", flip("wrapped", 700)),
        format!("UPDATE masq.entries SET epoch = '00000000-0000-4000-8000-000000000001' WHERE {row}"),
        format!("UPDATE masq.entries SET subject_tag = '\\x{}' WHERE {row}", tag("v")),
        format!("UPDATE masq.entries SET field = 'device_id' WHERE {row}"),
    ];
    for change in changes {
        let keep = "CREATE TABLE keep_e AS SELECT * FROM masq.entries; CREATE TABLE keep_s AS SELECT * FROM masq_slots.slots; \
                    CREATE TABLE keep_w AS SELECT * FROM masq.epoch_wraps";
        let back = "DELETE FROM masq.entries; INSERT INTO masq.entries SELECT * FROM keep_e; DELETE FROM masq_slots.slots; \
                    INSERT INTO masq_slots.slots SELECT * FROM keep_s; DELETE FROM masq.epoch_wraps; INSERT INTO masq.epoch_wraps \
                    SELECT * FROM keep_w; DROP TABLE keep_e, keep_s, keep_w";
        vault.scene.database.execute(keep).await;
        vault.scene.database.execute(&change).await;
        let (code, out, said) = vault.reveal(&[mine], &[]);
        assert_eq!((code, out), (3, line(mine, "")), "{change}: {said}");
        assert!(said.contains("ALARM") && said.contains(&mine.to_string()), "{change}: {said}");
        assert!(!said.contains(ADDRESS) && !said.contains("10.0.0.1"), "{said}");
        vault.scene.database.execute(back).await;
    }
    assert!(vault.record().await.last().unwrap().ends_with("{\"shown\": 0, \"missing\": 1, \"tampered\": 1}"));
    assert_eq!(vault.reveal(&[mine], &[]).1, line(mine, ADDRESS), "as it was it opens");
}

#[tokio::test]
async fn a_poisoned_entry_hides_no_good_one() {
    let vault = Vault::of(&[("u", ADDRESS)]).await;
    let token = vault.token(ADDRESS);
    // More than are fetched at first, and all of them before the good one.
    let poison = "INSERT INTO masq.entries SELECT month, token, decode(lpad(to_hex(n), 32, '0'), 'hex'), field, epoch, sealed \
                  FROM masq.entries, generate_series(0, 20) AS n WHERE field = 'ip'; \
                  INSERT INTO masq_slots.slots SELECT s.month, e.subject_tag, s.epoch, s.salt FROM masq.entries e JOIN masq_slots.slots s \
                  ON s.epoch = e.epoch AND s.subject_tag <> e.subject_tag WHERE e.field = 'ip' AND e.subject_tag < '\\x01'";
    vault.scene.database.execute(poison).await;
    let (code, out, said) = vault.reveal(&[token], &[]);
    assert_eq!((code, out), (3, line(token, ADDRESS)), "{said}");
    assert!(said.contains("ALARM") && said.contains(": 21 of its sealed values"), "{said}");
    assert!(vault.record().await.last().unwrap().ends_with("{\"shown\": 1, \"missing\": 0, \"tampered\": 21}"));
}

#[tokio::test]
async fn a_value_forged_with_a_workers_keys_and_login_is_an_alarm() {
    let vault = Vault::of(&[("u", ADDRESS)]).await;
    let token = vault.token(ADDRESS);
    // In good form: an epoch, a slot and an entry as a worker makes them, with another value under the token.
    let mut epoch =
        vault.scene.shared.keys.new_epoch(1_700_000_000_000).await.unwrap_or_else(|error| panic!("{error}"));
    let (slot, mut sealed) = (epoch.slot(SubjectTag([0; 16])), Vec::new());
    epoch.seal_value((&slot, "ip", &token), Original { kind: Kind::Ip, raw: "10.6.6.6" }, &mut sealed);
    let (header, tag) = (epoch.header(), "00".repeat(16));
    let (id, wrap) = (header.id, &header.wraps[0]);
    let month = "date_trunc('month', now() AT TIME ZONE 'UTC')::date";
    let forge = format!(
        "INSERT INTO masq.epochs (id, started_at) VALUES ('{id}', '2023-11-14T22:13:20Z'); \
         INSERT INTO masq.epoch_wraps VALUES ('{id}', '\\x{}', '\\x{}'); \
         INSERT INTO masq_slots.slots VALUES ({month}, '\\x{tag}', '{id}', '\\x{}'); \
         INSERT INTO masq.entries VALUES ({month}, '\\x{token}', '\\x{tag}', 'ip', '{id}', '\\x{}')",
        hex(&wrap.recipient),
        hex(&wrap.wrapped),
        hex(&slot.salt),
        hex(&sealed),
    );
    vault.scene.database.execute(&forge).await;
    let (code, out, said) = vault.reveal(&[token], &[]);
    assert_eq!((code, out), (3, line(token, ADDRESS)), "{said}");
    assert!(said.contains("ALARM") && said.contains(": 1 of its sealed values"), "{said}");
    vault.scene.database.execute("DELETE FROM masq.entries WHERE subject_tag <> decode(repeat('00', 16), 'hex')").await;
    let (code, out, said) = vault.reveal(&[token], &[]);
    assert_eq!((code, out), (3, line(token, "")), "{said}");
    assert!(said.contains("another value than its token says") && !said.contains("10.6.6.6"), "{said}");
}

#[tokio::test]
async fn all_that_a_worker_has_opens_nothing_that_it_sealed() {
    let vault = Vault::of(&[("u", ADDRESS)]).await;
    let database = &vault.scene.database;
    let role = format!("worker_{}", Uuid::new_v4().simple());
    let grants = "CREATE ROLE $ LOGIN; GRANT USAGE ON SCHEMA masq, masq_slots TO $; GRANT INSERT ON user_logins, \
                  masq.dead_letters, masq.epochs, masq.epoch_wraps, masq.entries, masq_slots.slots TO $; \
                  GRANT SELECT, INSERT ON masq.ledger TO $; GRANT SELECT ON masq.token_keys, masq.recipients TO $; \
                  GRANT EXECUTE ON FUNCTION masq.hold_key(smallint), masq.close_epoch(uuid, bigint, bigint, bigint) TO $";
    database.execute(&grants.replace('$', &role)).await;
    let worker = plain(&database.url.replace("postgres@", &format!("{role}@"))).await;
    for sql in [
        "SELECT sealed FROM masq.entries",
        "SELECT salt FROM masq_slots.slots",
        "SELECT wrapped FROM masq.epoch_wraps",
        "SELECT masked_ip FROM user_logins",
        "SELECT * FROM masq.live_entries",
        "SELECT * FROM masq.fetch_entries(1)",
        "SELECT * FROM masq.fetch_further(1, '', 0)",
        "SELECT * FROM masq.fetch_epochs('{}')",
        "SELECT * FROM masq_slots.fetch_slots('{}', '{}')",
        "SELECT * FROM masq.request_reveal('FRAUD', 'T-1', 'a reason of some length', 'eve', '{}')",
    ] {
        let refused = worker.simple_query(sql).await.unwrap_err();
        assert_eq!(sqlstate(&refused), Some("42501"), "{sql}");
    }

    // Even with a copy of the database: none of its keys is the one that opens an epoch.
    let session = database.session().await;
    let row = session
        .query_one("SELECT epoch, subject_tag, sealed, token FROM masq.entries WHERE field = 'ip'", &[])
        .await
        .unwrap();
    let headers = epochs::headers(&session, &[row.get(0)]).await.unwrap();
    for file in ["token.key", "subject.key"] {
        let text = std::fs::read_to_string(vault.scene.keys.path().join(file)).unwrap();
        let key = text.lines().last().map(base64_32).unwrap();
        let shut = Opener::new(&RecoveryKey::new(&key)).epoch(&headers[0]).err().unwrap();
        assert!(matches!(shut, OpenError::WrongKey { .. }));
    }
    // The one that does is on nobody's worker, and opens it.
    let key = identity::load(&vault.scene.keys.path().join("recovery.key"), None).unwrap_or_else(|e| panic!("{e}"));
    let salt = session.query_one("SELECT salt FROM masq_slots.slots", &[]).await.unwrap().get::<_, Vec<u8>>(0);
    let mut opener = Opener::new(&key);
    let epoch = opener.epoch(&headers[0]).unwrap_or_else(|error| panic!("{error}"));
    let subject = SubjectTag(row.get::<_, Vec<u8>>(1).try_into().unwrap());
    let slot = epoch.slot(subject, &salt.try_into().unwrap());
    let token = Token(row.get::<_, Vec<u8>>(3).try_into().unwrap());
    let opened = epoch.open_value(&slot, "ip", &token, row.get(2)).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(*opened.raw, ADDRESS);
}

/// What the functions that a role needs for its own work must not do for it besides.
#[tokio::test]
async fn what_a_role_is_given_for_one_thing_is_no_way_to_another() {
    let vault = Vault::of(&[("u", ADDRESS), ("v", "10.0.0.1")]).await;
    let database = &vault.scene.database;
    let refused = async |login: &str, sql: &str| {
        let client = plain(&database.login(login)).await;
        let done = client.simple_query(sql).await;
        done.map_or_else(|error| sqlstate(&error).unwrap_or_default().to_owned(), |_| "done".to_owned())
    };
    let last = |action| format!("SELECT max(seq) FROM masq.audit WHERE action = '{action}'");

    // A rotation has neither quota nor second person: it gives out nothing of a key that is not being replaced.
    assert_eq!(
        refused("operator", "SELECT masq.request_rotate('just looking around', NULL, 'eve', NULL)").await,
        "done"
    );
    let request = database.query(&last("rotate")).await.remove(0);
    for kid in ["1", "0", "-1", "257", "NULL"] {
        let look = format!("SELECT masq.fetch_rekey({request}, ({kid})::smallint, NULL, NULL, NULL, 1000)");
        assert_eq!(refused("operator", &look).await, "MQ013", "{kid}");
    }

    // Who loads must not make anybody forget what may still come.
    for sql in [
        "SELECT masq.keep_partitions('-10 days')",
        "SELECT masq.keep_partitions('23 hours')",
        "SELECT masq.keep_partitions(NULL)",
        "SELECT masq.prune('-10 years', 1000)",
        "SELECT masq.prune(NULL, 1000)",
    ] {
        assert_eq!(refused("worker", sql).await, "22023", "{sql}");
    }

    // An entry of the log that nobody could read again would make every verification fail, for ever.
    for sql in [
        "SELECT masq.close_epoch(md5('x')::uuid, NULL, 1, 1)",
        "SELECT masq.kept_slots('{\"x\": 5}')",
        "SELECT masq.kept_slots('[1]')",
    ] {
        let code = refused("worker", sql).await;
        assert!(code.starts_with("22"), "{sql}: {code}");
    }
    let entries = "SELECT count(*) FROM masq.audit WHERE detail::jsonb IS NULL OR action = 'retention'";
    assert_eq!(database.query(entries).await, ["0"]);
}

fn base64_32(line: &str) -> [u8; 32] {
    use base64::{Engine, prelude::BASE64_STANDARD};
    BASE64_STANDARD.decode(line).unwrap().try_into().unwrap()
}

fn sqlstate(error: &tokio_postgres::Error) -> Option<&str> {
    error.code().map(tokio_postgres::error::SqlState::code)
}

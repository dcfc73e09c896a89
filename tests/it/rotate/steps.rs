//! `masq keys rotate --token`: each call a step, and what is in the way of one.

use std::time::Duration;

use masq::vault::token_files;

use super::{Stock, hex, user};
use crate::support::{Keys, masq, plain};

#[tokio::test]
async fn each_call_does_the_next_step_and_says_what_a_person_has_to_do() {
    let stock = Stock::of(30).await;
    let said = stock.rotated(&["--token"]);
    assert!(said.contains("token-2.key is the next token key") && said.contains("every worker"), "{said}");
    assert_eq!(stock.states().await, ["1\tactive", "2\tpending"]);

    let said = stock.rotated(&["--token"]);
    assert!(said.contains("Key id 2 makes the tokens from now on"), "{said}");
    assert_eq!(stock.states().await, ["1\tread-only", "2\tactive"]);

    let (code, said) = stock.rotate(&["--token"]);
    assert!(code == 75 && said.contains("--identity recovery.key"), "{said}");

    let (code, said) = stock.rekey();
    assert!(code == 0 && said.contains("60 entries have their new tokens"), "{said}");
    assert!(said.contains("30 rows have") && said.contains("Key id 1 is retired"), "{said}");
    assert_eq!(stock.states().await, ["1\tretired", "2\tactive"]);
    stock.assert_all_of(2).await;

    let log = "SELECT action, coalesce(purpose, ''), coalesce(reason, ''), detail FROM masq.audit ORDER BY seq";
    let log = stock.query(log).await;
    let asked =
        log.iter().filter(|line| line.starts_with("rotate\tOPERATIONS\tyearly rotation, ticket 4711\t")).count();
    assert_eq!(asked, 3, "{log:?}");
    assert!(log.iter().any(|line| line.contains(r#""moved": 60"#)), "{log:?}");
    assert!(log.last().unwrap().contains(r#"{"retired": [1]}"#), "{log:?}");

    let keys = stock.keys().path();
    let shown = masq(&keys, &["keys", "status", "--keys", keys.to_str().unwrap()]).output().unwrap();
    let shown = String::from_utf8(shown.stdout).unwrap();
    assert!(shown.contains("token.key     0400  key id 1\ntoken-2.key   0400  key id 2\n"), "{shown}");
}

#[tokio::test]
async fn a_second_rotation_follows_the_first() {
    let stock = Stock::of(3).await;
    stock.activate();
    assert_eq!(stock.rekey().0, 0);
    // The same command once more, as after a lost connection: that rotation is over, and the next is not meant.
    for again in [stock.rekey(), stock.rotate(&["--token"])] {
        assert!(
            again.0 == 2 && again.1.contains("key id 1 was retired") && again.1.contains("--another"),
            "{}",
            again.1
        );
    }
    stock.assert_all_of(2).await;
    assert!(!stock.keys().path().join("token-3.key").exists());
    stock.rotated(&["--token", "--another"]);
    stock.rotated(&["--token"]);
    assert_eq!(stock.rekey().0, 0);
    stock.assert_all_of(3).await;
    assert_eq!(stock.states().await, ["1\tretired", "2\tretired", "3\tactive"]);
    stock.execute("UPDATE masq.token_keys SET since = since - interval '1 day'").await;
    // The first key's file is needed by nobody.
    std::fs::remove_file(stock.keys().path().join("token.key")).unwrap();
    stock.activate();
    assert_eq!(stock.rekey().0, 0);
    stock.assert_all_of(4).await;
}

#[tokio::test]
async fn what_is_malformed_or_has_the_wrong_keys_changes_nothing() {
    let stock = Stock::of(3).await;
    let keys = stock.keys().path();
    let mut short =
        masq(&keys, &["keys", "rotate", "--token", "--reason", "because", "--keys", keys.to_str().unwrap()]);
    let short = short.env("DATABASE_URL", &stock.scene.database.url).output().unwrap();
    let said = String::from_utf8(short.stderr).unwrap();
    assert!(short.status.code() == Some(2) && said.contains("ten characters"), "{said}");
    let (code, said) = stock.rotate(&["--token", "--emergency"]);
    assert!(code == 2 && said.contains("--identity"), "{said}");
    let (code, said) = stock.rotate(&[]);
    assert!(code == 2 && said.contains("--token"), "{said}");

    let others = Keys::create();
    let elsewhere = others.path();
    let (code, said) = stock.rotate(&["--token"]);
    assert_eq!(code, 0, "{said}");
    std::fs::rename(keys.join("token-2.key"), keys.join("away")).unwrap();
    let (code, said) = stock.rotate(&["--token"]);
    assert!(code == 78 && said.contains("token-2.key, though other keys are there"), "{said}");
    token_files::create(&elsewhere, 2.try_into().unwrap()).unwrap_or_else(|error| panic!("{error}"));
    std::fs::copy(elsewhere.join("token-2.key"), keys.join("token-2.key")).unwrap();
    let (code, said) = stock.rotate(&["--token"]);
    assert!(code == 78 && said.contains("key with id 2") && said.contains("not the one"), "{said}");
    assert_eq!(stock.states().await, ["1\tactive", "2\tpending"]);
}

#[tokio::test]
async fn a_table_that_is_not_described_is_not_half_rotated() {
    let stock = Stock::of(3).await;
    stock.activate();
    stock.execute("UPDATE masq.targets SET masked = '[]'").await;
    let (code, said) = stock.rekey();
    assert!(
        code == 78 && said.contains("masked_ip, masked_device_id of user_logins") && said.contains("masq migrate"),
        "{said}"
    );
    assert_eq!(stock.opened(1).await.len(), 6);
}

#[tokio::test]
async fn what_was_changed_or_shredded_is_left_counted_and_told() {
    let stock = Stock::of(12).await;
    stock.activate();
    let tag = |person| hex(&stock.keys().load().subject.tag(&user(person)).0);
    stock
        .execute(&format!(
            "UPDATE masq.entries SET sealed = set_byte(sealed, 20, get_byte(sealed, 20) # 1)
               WHERE subject_tag = '\\x{}' AND field = 'device_id';
             DELETE FROM masq_slots.slots WHERE subject_tag = '\\x{}'",
            tag(1),
            tag(2)
        ))
        .await;
    let (code, said) = stock.rekey();
    assert_eq!(code, 3, "{said}");
    assert!(
        said.contains("1 entries ARE NOT WHAT WAS SEALED") && said.contains("2 entries cannot be opened"),
        "{said}"
    );
    // The device of 1 and of 2; the address of 2 is that of 0 and 1, too, and so has a new token.
    assert!(said.contains("2 rows keep an old token") && said.contains("--force"), "{said}");
    assert_eq!(stock.states().await, ["1\tread-only", "2\tactive"]);
    assert_eq!(stock.opened(2).await.len(), 24 - 3);
    let old = "SELECT user_id FROM user_logins WHERE left(masked_device_id, 2) = '01' AND left(masked_ip, 2) = '02' ORDER BY 1";
    assert_eq!(stock.query(old).await, ["user-1", "user-2"]);

    let (code, said) = stock.rotate(&["--token", "--identity", &stock.identity(), "--force"]);
    assert!(code == 3 && said.contains("Key id 1 is retired"), "{said}");
    assert_eq!(stock.states().await, ["1\tretired", "2\tactive"]);
    assert_eq!(stock.query("SELECT count(*) FROM masq.bridge").await, ["0"]);
}

#[tokio::test]
async fn an_emergency_ends_the_old_key_at_once() {
    let stock = Stock::of(12).await;
    let tag = hex(&stock.keys().load().subject.tag(&user(2)).0);
    stock
        .execute(&format!(
            "DELETE FROM masq_slots.slots WHERE subject_tag = '\\x{tag}';
             INSERT INTO user_logins (user_id, masked_device_id) SELECT 'again', masked_device_id FROM user_logins WHERE user_id = 'user-2'"
        ))
        .await;
    let emergency = ["--token", "--emergency", "--identity", &stock.identity()];
    let other = Keys::create();
    let wrong = other.path().join("recovery.key");
    // A recovery key of this database, to which these epochs are not sealed.
    let known = format!("INSERT INTO masq.recipients VALUES ('\\x{}', 'active')", hex(&other.load().fingerprints()[0]));
    stock.execute(&known).await;
    let (code, said) = stock.rotate(&["--token", "--emergency", "--identity", wrong.to_str().unwrap()]);
    assert!(code == 3 && said.contains("sealed to other recovery keys"), "{said}");
    assert_eq!(stock.states().await, ["1\tread-only", "2\tactive"], "what another key opens is not buried");

    let (code, said) = stock.rotate(&emergency);
    assert!(code == 3 && said.contains("1 tokens that no entry leads away from became tombstones"), "{said}");
    assert!(said.contains("token.key was overwritten and deleted") && said.contains("yours to destroy"), "{said}");
    assert_eq!(stock.states().await, ["1\tretired", "2\tactive"]);
    assert!(!stock.keys().path().join("token.key").exists());
    let kids =
        "SELECT left(masked_ip, 2), left(masked_device_id, 2), count(*) FROM user_logins GROUP BY 1, 2 ORDER BY 1, 2";
    assert_eq!(stock.query(kids).await, ["02\t00\t1", "02\t02\t11", "NULL\t00\t1"]);
    let tombstones = "SELECT count(DISTINCT masked_device_id) FROM user_logins WHERE masked_device_id LIKE '00%'";
    assert_eq!(stock.query(tombstones).await, ["1"], "equal tokens stay equal");
    // Workers go on with what is in the directory.
    assert_eq!(stock.keys().load().token.kid().get(), 2);

    let (code, said) = stock.rotate(&emergency);
    assert!(
        code == 2 && said.contains("key id 1 was retired"),
        "the key that workers have just received stays: {said}"
    );
    assert_eq!(stock.states().await, ["1\tretired", "2\tactive"]);
    assert!(stock.keys().path().join("token-2.key").exists());
    let (code, said) = stock.rotate(&[&emergency[..], &["--another"]].concat());
    assert!(code == 0 && said.contains("Key id 3 makes the tokens"), "another emergency is another rotation: {said}");
}

#[tokio::test]
async fn tokens_in_bytes_and_in_partitions_are_followed_too() {
    let stock = Stock::of(6).await;
    let is_10 = stock.scene.database.version().await < 11;
    let (partitioned, part) = if is_10 {
        ("", "CREATE TABLE other_a () INHERITS (other)")
    } else {
        ("PARTITION BY LIST (user_id)", "CREATE TABLE other_a PARTITION OF other DEFAULT")
    };
    stock
        .execute(&format!(
            r#"CREATE TABLE other (gone int, user_id text, masked_ip bytea, "masked device" char(64)) {partitioned};
               ALTER TABLE other DROP COLUMN gone; {part}; GRANT SELECT, UPDATE ON other TO masq_owner;
               INSERT INTO other_a SELECT user_id, decode(masked_ip, 'hex'), masked_device_id FROM user_logins;
               INSERT INTO other_a VALUES ('none', NULL, NULL), ('short', '\x01', '01');
               INSERT INTO masq.targets (schema, name, created) VALUES ('public', 'other', true);
               SELECT masq.describe_target('public', 'other', 'user_id',
                 '[{{"column": "masked_ip", "field": "ip"}}, {{"column": "masked device", "field": "device_id"}}]')"#
        ))
        .await;
    stock.activate();
    let (code, said) = stock.rekey();
    assert_eq!(code, 0, "{said}");
    let same = r#"SELECT count(*) FROM user_logins u JOIN other o USING (user_id)
                  WHERE encode(o.masked_ip, 'hex') = u.masked_ip AND o."masked device"::text = u.masked_device_id"#;
    assert_eq!(stock.query(same).await, ["6"]);
    stock.assert_all_of(2).await;
}

#[tokio::test]
async fn whoever_rotates_needs_functions_and_no_table_of_sealed_values() {
    let stock = Stock::of(6).await;
    stock.execute("CREATE ROLE rotate_operator LOGIN; GRANT masq_operator TO rotate_operator").await;
    let url = stock.scene.database.url.replace("postgres@", "rotate_operator@");
    let rotate = |args: &[&str]| {
        let output = stock.command(args).env("DATABASE_URL", &url).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    rotate(&["--token"]);
    rotate(&["--token"]);
    rotate(&["--token", "--identity", &stock.identity()]);
    stock.assert_all_of(2).await;
    let operator = plain(&url).await;
    for table in ["masq.entries", "masq.epoch_wraps", "masq.bridge", "masq_slots.slots"] {
        let refused = operator.batch_execute(&format!("SELECT FROM {table}")).await.unwrap_err();
        assert_eq!(refused.code().unwrap().code(), "42501", "{table}");
    }
    // Nothing is given out in the transaction of its request.
    operator.batch_execute("BEGIN; SELECT masq.request_rotate('just looking around', NULL, 'me', '{}')").await.unwrap();
    let look = "SELECT masq.fetch_rekey((SELECT max(seq) FROM masq.audit), 2::smallint, NULL, NULL, NULL, 10)";
    let look = look.replace("(SELECT max(seq) FROM masq.audit)", &(seq(&stock).await + 1).to_string());
    let refused = operator.batch_execute(&look).await.unwrap_err();
    assert_eq!(refused.code().unwrap().code(), "MQ003");
    operator.batch_execute("ROLLBACK").await.unwrap();
    drop(operator);
    tokio::time::timeout(
        Duration::from_secs(10),
        stock.execute("DROP OWNED BY rotate_operator; DROP ROLE rotate_operator"),
    )
    .await
    .unwrap();
}

async fn seq(stock: &Stock) -> i64 {
    stock.query("SELECT max(seq) FROM masq.audit").await[0].parse().unwrap()
}

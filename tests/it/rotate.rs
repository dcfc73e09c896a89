//! `masq keys rotate`: step by step, through every kind of interruption, and all at once.

use std::{collections::BTreeMap, process::Stdio, time::Duration};

use masq::vault::{
    identity,
    keyring::KeyRing,
    recovery::RecoveryKey,
    seal::{EpochHeader, OpenEpoch, Original, SubjectTag, Wrap},
    token::{Kind, TokenRoot},
    token_files,
};
use tokio_postgres::types::Type;
use uuid::Uuid;

use crate::{
    scene::Scene,
    support::{Database, Keys, masq, plain, until},
    vault::{assert_recoverable, open_all},
};

const WHY: [&str; 2] = ["--reason", "yearly rotation, ticket 4711"];

/// What an entry is of: the person's number, the field.
type Owned = (u32, &'static str);

/// A table with these people's rows and a vault with their values, as workers leave them.
struct Stock {
    scene: Scene,
    people: u32,
    headers: Vec<EpochHeader>,
}

fn user(person: u32) -> String {
    format!("user-{person}")
}

/// Three people share an address; each has a device of their own.
fn values(person: u32) -> [(Kind, &'static str, String); 2] {
    let ip = std::net::Ipv4Addr::from_bits(0x0a00_0000 + person / 3).to_string();
    [(Kind::Ip, "ip", ip), (Kind::Text, "device_id", format!("593-47-{person}"))]
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn token(root: &TokenRoot, (kind, field, raw): &(Kind, &'static str, String)) -> String {
    root.domain(field).unwrap().token(*kind, raw).unwrap().to_string()
}

impl Stock {
    /// People in epochs of five hundred each, begun a few minutes ago.
    async fn of(people: u32) -> Self {
        let scene = Scene::new().await;
        scene.start().await.unwrap_or_else(|error| panic!("{error}"));
        let mut stock = Self { scene, people, headers: vec![] };
        stock.describe("user_logins").await;
        for first in (0..people).step_by(500) {
            stock.epoch(first..people.min(first + 500)).await;
        }
        stock.execute("UPDATE masq.epochs SET recorded_at = recorded_at - interval '1 hour'").await;
        stock
    }

    async fn describe(&self, table: &str) {
        self.execute(&format!(
            r#"INSERT INTO masq.targets (schema, name, created) VALUES ('public', '{table}', true) ON CONFLICT DO NOTHING;
               SELECT masq.describe_target('public', '{table}', 'user_id',
                 '[{{"column": "masked_ip", "field": "ip"}}, {{"column": "masked_device_id", "field": "device_id"}}]')"#
        ))
        .await;
    }

    /// One epoch with the values and rows of these people.
    async fn epoch(&mut self, people: std::ops::Range<u32>) {
        let ring = self.scene.keys.load();
        let (header, rows) = self.seal(&ring, people).await;
        self.headers.push(header);
        self.execute(&rows).await;
    }

    /// Writes header, slots and entries; answers the statement for the rows.
    async fn seal(&self, ring: &KeyRing, people: std::ops::Range<u32>) -> (EpochHeader, String) {
        let now: i64 = self.query("SELECT (extract(epoch FROM now()) * 1000)::bigint").await[0].parse().unwrap();
        let mut epoch = ring.new_epoch(now).unwrap();
        let (mut slots, mut entries, mut rows) = (vec![], vec![], vec![]);
        for person in people {
            let slot = epoch.slot(ring.subject.tag(&user(person)));
            slots.push(format!("('\\x{}', '\\x{}')", hex(&slot.subject.0), hex(&slot.salt)));
            for value in &values(person) {
                let (kind, field, raw) = value;
                let (mut sealed, made) = (vec![], ring.token.domain(field).unwrap().token(*kind, raw).unwrap());
                epoch.seal_value(&slot, field, &made, Original { kind: *kind, raw }, &mut sealed);
                let tag = hex(&slot.subject.0);
                entries.push(format!("('\\x{made}', '\\x{tag}', '{field}', '\\x{}')", hex(&sealed)));
            }
            let [ip, device] = values(person).map(|value| token(&ring.token, &value));
            rows.push(format!("('{}', '{ip}', '{device}')", user(person)));
        }
        let id = epoch.header().id;
        let wraps: Vec<_> = epoch.header().wraps.iter().map(wrap_row(id)).collect();
        let month = "date_trunc('month', now() AT TIME ZONE 'UTC')::date";
        self.execute(&format!(
            "BEGIN; INSERT INTO masq.epochs (id, started_at) VALUES ('{id}', timestamptz 'epoch' + interval '1 ms' * {now});
             INSERT INTO masq.epoch_wraps VALUES {wraps};
             INSERT INTO masq_slots.slots (month, subject_tag, epoch, salt)
               SELECT {month}, tag::bytea, '{id}', salt::bytea FROM (VALUES {slots}) AS s (tag, salt);
             INSERT INTO masq.entries (month, token, subject_tag, field, epoch, sealed)
               SELECT {month}, token::bytea, tag::bytea, field, '{id}', sealed::bytea
               FROM (VALUES {entries}) AS e (token, tag, field, sealed) ON CONFLICT DO NOTHING; COMMIT",
            wraps = wraps.join(","),
            slots = slots.join(","),
            entries = entries.join(","),
        ))
        .await;
        let rows = format!("INSERT INTO user_logins (user_id, masked_ip, masked_device_id) VALUES {}", rows.join(","));
        (epoch.header().clone(), rows)
    }

    async fn execute(&self, sql: &str) {
        self.scene.database.execute(sql).await;
    }

    async fn query(&self, sql: &str) -> Vec<String> {
        self.scene.database.query(sql).await
    }

    fn keys(&self) -> &Keys {
        &self.scene.keys
    }

    fn identity(&self) -> String {
        self.keys().path().join("recovery.key").to_str().unwrap().to_owned()
    }

    fn command(&self, args: &[&str]) -> std::process::Command {
        let keys = self.keys().path();
        let args = [&["keys", "rotate"], args, &WHY, &["--keys", keys.to_str().unwrap()]].concat();
        let mut command = masq(self.keys().directory.path(), &args);
        command.env("DATABASE_URL", &self.scene.database.url);
        command
    }

    /// Exit code and stderr.
    fn rotate(&self, args: &[&str]) -> (i32, String) {
        let output = self.command(args).output().unwrap();
        (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
    }

    fn rotated(&self, args: &[&str]) -> String {
        let (code, said) = self.rotate(args);
        assert_eq!(code, 0, "{said}");
        said
    }

    fn rekey(&self) -> (i32, String) {
        self.rotate(&["--token", "--identity", &self.identity()])
    }

    /// The next key is active, and nothing has been re-keyed.
    fn activate(&self) {
        self.rotated(&["--token"]);
        self.rotated(&["--token"]);
    }

    fn root(&self, kid: u8) -> TokenRoot {
        token_files::load(&self.keys().path(), kid.try_into().unwrap()).unwrap_or_else(|error| panic!("{error}"))
    }

    async fn states(&self) -> Vec<String> {
        self.query("SELECT kid, state FROM masq.token_keys ORDER BY kid").await
    }

    /// Every entry whose token begins with this key id, opened; it must stand under the token of its value.
    async fn opened(&self, kid: u8) -> BTreeMap<Owned, String> {
        let (root, ring) = (self.root(kid), self.keys().load());
        let key =
            identity::load(&self.keys().path().join("recovery.key"), None).unwrap_or_else(|error| panic!("{error}"));
        let tags: BTreeMap<String, u32> =
            (0..self.people).map(|person| (hex(&ring.subject.tag(&user(person)).0), person)).collect();
        let epochs: BTreeMap<Uuid, OpenEpoch> =
            self.headers.iter().map(|header| (header.id, OpenEpoch::new(&key, header).unwrap())).collect();
        let session = self.scene.database.session().await;
        let rows = session
            .query_typed(
                "SELECT e.token, e.subject_tag, e.field, e.epoch, e.sealed, s.salt FROM masq.entries e \
                 JOIN masq_slots.slots s USING (subject_tag, epoch) WHERE get_byte(e.token, 0) = $1",
                &[(&i32::from(kid), Type::INT4)],
            )
            .await
            .unwrap();
        let opened = rows.iter().map(|row| {
            let (made, tag, field): (&[u8], &[u8], &str) = (row.get(0), row.get(1), row.get(2));
            let (sealed, salt): (&[u8], &[u8]) = (row.get(4), row.get(5));
            let made = masq::vault::token::Token(made.try_into().unwrap());
            let person = tags[&hex(tag)];
            let value = values(person).into_iter().find(|(_, of, _)| *of == field).unwrap();
            assert_eq!(made.to_string(), token(&root, &value));
            let epoch = &epochs[&row.get::<_, Uuid>(3)];
            let slot = epoch.slot(SubjectTag(tag.try_into().unwrap()), &salt.try_into().unwrap());
            let opened = epoch.open_value(&slot, field, &made, sealed).unwrap();
            assert_eq!((opened.kind, opened.raw.as_str()), (value.0, value.2.as_str()));
            ((person, value.1), opened.raw.to_string())
        });
        opened.collect()
    }

    /// All rows and all entries have the tokens of this key and of no other, and nothing is left of a rotation.
    async fn assert_all_of(&self, kid: u8) {
        let root = self.root(kid);
        let rows = self.query("SELECT user_id, masked_ip, masked_device_id FROM user_logins").await;
        let mut expected: Vec<String> = (0..self.people)
            .map(|person| {
                let [ip, device] = values(person).map(|value| token(&root, &value));
                format!("{}\t{ip}\t{device}", user(person))
            })
            .collect();
        let mut rows = rows;
        rows.sort();
        expected.sort();
        assert!(rows == expected, "rows are not those of key id {kid}");
        assert_eq!(self.opened(kid).await.len(), 2 * self.people as usize);
        let left = "SELECT (SELECT count(*) FROM masq.entries), (SELECT count(*) FROM masq.bridge), \
                    to_regclass('user_logins_bridged') IS NULL";
        assert_eq!(self.query(left).await, [format!("{}\t0\tt", 2 * self.people)]);
    }
}

fn wrap_row(id: Uuid) -> impl Fn(&Wrap) -> String {
    move |wrap| format!("('{id}', '\\x{}', '\\x{}')", hex(&wrap.recipient), hex(&wrap.wrapped))
}

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
    for kid in [2, 3] {
        stock.activate();
        assert_eq!(stock.rekey().0, 0);
        stock.assert_all_of(kid).await;
    }
    assert_eq!(stock.states().await, ["1\tretired", "2\tretired", "3\tactive"]);
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
async fn no_token_of_the_old_key_can_be_committed_after_the_change() {
    let stock = Stock::of(3).await;
    stock.rotated(&["--token"]);
    let writer = plain(&stock.scene.database.url).await;
    writer.batch_execute("BEGIN; SELECT masq.hold_key(1::smallint)").await.unwrap();
    let mut waiting = stock.command(&["--token"]).stderr(Stdio::null()).spawn().unwrap();
    let waits = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted AND database = \
                 (SELECT oid FROM pg_database WHERE datname = current_database())";
    until("the change waits for the writer", async || stock.query(waits).await == ["1"]).await;
    assert_eq!(stock.states().await, ["1\tactive", "2\tpending"]);
    writer.batch_execute("COMMIT").await.unwrap();
    assert!(waiting.wait().unwrap().success());
    let refused = writer.batch_execute("SELECT masq.hold_key(1::smallint)").await.unwrap_err();
    assert_eq!(refused.code().unwrap().code(), "MQ010");
    writer.batch_execute("SELECT masq.hold_key(2::smallint)").await.unwrap();
}

/// Statements on this table fail now and then, also in the middle of a transaction.
async fn hurt(stock: &Stock, table: &str, operation: &str, every: u32) {
    stock
        .execute(&format!(
            "CREATE SEQUENCE IF NOT EXISTS public.calls;
             CREATE OR REPLACE FUNCTION public.fail() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
               IF nextval('public.calls') % {every} = 0 THEN RAISE EXCEPTION 'no' USING ERRCODE = '57P01'; END IF;
               RETURN coalesce(NEW, OLD); END $$;
             CREATE TRIGGER fail BEFORE {operation} ON {table} FOR EACH ROW EXECUTE PROCEDURE public.fail()"
        ))
        .await;
}

#[tokio::test]
async fn failing_anywhere_it_goes_on_and_no_row_is_left_in_between() {
    let stock = Stock::of(1100).await;
    stock.activate();
    if ![11, 12].contains(&stock.scene.database.version().await) {
        hurt(&stock, "masq.entries", "INSERT", 2100).await; // 11 and 12 have no such triggers on partitioned tables
    }
    hurt(&stock, "masq.bridge", "INSERT OR UPDATE", 2100).await;
    hurt(&stock, "user_logins", "UPDATE", 2100).await;
    let mut attempts = 0;
    loop {
        attempts += 1;
        let (code, said) = stock.rekey();
        // Whatever has happened: a row has tokens of one key, and an entry is under one token.
        assert_eq!(
            stock.query("SELECT count(*) FROM user_logins WHERE left(masked_ip, 2) <> left(masked_device_id, 2)").await,
            ["0"]
        );
        assert_eq!(stock.opened(1).await.len() + stock.opened(2).await.len(), 2200);
        if code == 0 {
            break;
        }
        assert!(code == 69 && said.contains("the same command goes on"), "{said}");
        assert!(attempts < 20, "{said}");
    }
    assert!(attempts > 2, "it failed {attempts} times only");
    stock.assert_all_of(2).await;
}

/// Runs it until it waits for a lock that this statement holds, and kills it there, with what it has asked for.
async fn killed_where_it_waits(stock: &Stock, lock: &str) {
    let holder = plain(&stock.scene.database.url).await;
    holder.batch_execute(&format!("BEGIN; {lock}")).await.unwrap();
    let mut child = stock.command(&["--token", "--identity", &stock.identity()]).stderr(Stdio::null()).spawn().unwrap();
    let waits =
        "SELECT count(*) > 0 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()";
    until("it waits", async || stock.query(waits).await == ["t"]).await;
    child.kill().unwrap();
    child.wait().unwrap();
    // Otherwise the server would still do it, once it has the lock: that is the same as a kill a moment later.
    let waiting = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
                   WHERE wait_event_type = 'Lock' AND datname = current_database()";
    stock.query(waiting).await;
    until("it is over", async || stock.query(waits).await == ["f"]).await;
    holder.batch_execute("ROLLBACK").await.unwrap();
}

#[tokio::test]
async fn killed_anywhere_it_goes_on() {
    let stock = Stock::of(1100).await;
    stock.activate();
    let middle = "SELECT FROM masq.entries WHERE token = (SELECT token FROM masq.entries WHERE get_byte(token, 0) = 1 \
                  ORDER BY token OFFSET 1500 LIMIT 1) FOR UPDATE";
    killed_where_it_waits(&stock, middle).await;
    assert_eq!((stock.opened(1).await.len(), stock.opened(2).await.len()), (1200, 1000));
    killed_where_it_waits(&stock, "LOCK TABLE user_logins IN SHARE ROW EXCLUSIVE MODE").await;
    assert_eq!((stock.opened(1).await.len(), stock.opened(2).await.len()), (0, 2200));
    killed_where_it_waits(&stock, "SELECT FROM user_logins WHERE user_id = 'user-1000' FOR UPDATE").await;
    let (code, said) = stock.rekey();
    assert_eq!(code, 0, "{said}");
    stock.assert_all_of(2).await;
}

#[tokio::test]
async fn the_view_groups_rightly_before_the_last_row_is_updated() {
    let stock = Stock::of(30).await;
    stock.execute("CREATE ROLE rotate_reader LOGIN; GRANT SELECT ON user_logins TO rotate_reader").await;
    stock.activate();
    // The last person has come again since, with the new key.
    let ring = KeyRing::load_kid(&stock.keys().path(), 2.try_into().unwrap()).unwrap_or_else(|error| panic!("{error}"));
    let (_, rows) = stock.seal(&ring, 29..30).await;
    stock.execute(&rows).await;
    let devices = |from: &str| format!("SELECT count(*) FROM (SELECT masked_device_id FROM {from} GROUP BY 1) AS d");
    assert_eq!(stock.query(&devices("user_logins")).await, ["31"]);
    killed_where_it_waits(&stock, "SELECT FROM user_logins WHERE user_id = 'user-7' FOR UPDATE").await;
    let reader = stock.scene.database.url.replace("postgres@", "rotate_reader@");
    assert_ne!(reader, stock.scene.database.url);
    assert_eq!(Database::of(&reader).query(&devices("user_logins_bridged")).await, ["30"]);
    let (code, said) = stock.rekey();
    assert_eq!(code, 0, "{said}");
    assert!(said.contains("31 rows have") || said.contains("30 rows have"), "{said}");
    assert_eq!(stock.query(&devices("user_logins")).await, ["30"]);
    assert_eq!(stock.query("SELECT to_regclass('user_logins_bridged') IS NULL").await, ["t"]);
    let deleted = "SELECT d.value FROM masq.audit, json_each(detail::json -> 'deleted') AS d WHERE action = 'rotated'";
    assert_eq!(stock.query(deleted).await, ["[2, 0, 0]"]);
    stock.execute("DROP OWNED BY rotate_reader; DROP ROLE rotate_reader").await;
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
               ALTER TABLE other DROP COLUMN gone; {part};
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
async fn the_pipeline_runs_through_a_rotation() {
    let mut stock = Stock::of(0).await;
    for round in 0..2 {
        (0..400).for_each(|person| drop(stock.scene.queue.inner.send(sent(person, round))));
        stock.scene.settle().await;
    }
    stock.activate();
    let ring = KeyRing::load_kid(&stock.keys().path(), 2.try_into().unwrap()).unwrap_or_else(|error| panic!("{error}"));
    stock.scene.shared.keys = ring.into();
    let running = stock.scene.run().await;
    let mut rekey = stock.command(&["--token", "--identity", &stock.identity()]).stderr(Stdio::null()).spawn().unwrap();
    let mut sent_since = 0;
    while rekey.try_wait().unwrap().is_none() {
        (0..400).step_by(7).for_each(|person| drop(stock.scene.queue.inner.send(sent(person, sent_since))));
        sent_since += 1;
        stock.scene.until_empty().await;
    }
    assert!(rekey.wait().unwrap().success());
    running.stop().await;
    stock.scene.assert_adds_up();

    let rows =
        "SELECT count(*), bool_and(left(masked_ip, 2) = '02' AND left(masked_device_id, 2) = '02') FROM user_logins";
    assert_eq!(stock.query(rows).await, [format!("{}\tt", 800 + 58 * sent_since)]);
    let vault = open_all(&stock.scene, &stock.scene.database).await;
    assert_recoverable(&stock.scene, &vault).await;
    assert_eq!(stock.states().await, ["1\tretired", "2\tactive"]);
    // What each epoch wrote, less what rotating took away, is what there is of it.
    let balance = "WITH wrote AS (
            SELECT encode(items[1], 'hex')::uuid AS epoch, (detail::json ->> 'entries')::int AS entries
            FROM masq.audit WHERE action = 'epoch'
        ), gone AS (
            SELECT d.key::uuid AS epoch, sum((d.value ->> 0)::int) AS entries
            FROM masq.audit, json_each(detail::json -> 'deleted') AS d WHERE action = 'rotated' GROUP BY 1
        )
        SELECT count(*), sum(w.entries) = (SELECT count(*) FROM masq.entries) + (SELECT sum(entries) FROM gone),
            bool_and(w.entries - coalesce(g.entries, 0) = (SELECT count(*) FROM masq.entries e WHERE e.epoch = w.epoch))
        FROM wrote w LEFT JOIN gone g USING (epoch)";
    let balance = stock.query(balance).await;
    assert!(balance[0].ends_with("\tt\tt") || balance[0].ends_with("\tNULL\tt"), "{balance:?}");
}

fn sent(person: u32, round: u32) -> Vec<u8> {
    let [(_, _, ip), (_, _, device)] = values(person);
    format!(r#"{{"user_id": "{}", "app_version": "{round}.0.0", "ip": "{ip}", "device_id": "{device}"}}"#, user(person))
        .into_bytes()
}

/// Makes a recovery key, has it added, and answers it.
fn added(stock: &Stock, name: &str) -> RecoveryKey {
    let dir = stock.keys().directory.path().join(name);
    let said = stock.rotated(&["--recovery", "--new", dir.to_str().unwrap(), "--no-passphrase"]);
    assert!(said.contains("holds 2 recovery keys now") && said.contains("every worker"), "{said}");
    identity::load(&dir.join("recovery.key"), None).unwrap_or_else(|error| panic!("{error}"))
}

async fn header(stock: &Stock, id: Uuid) -> EpochHeader {
    let session = stock.scene.database.session().await;
    masq::vault::epochs::headers(&session, &[id]).await.unwrap().remove(0)
}

#[tokio::test]
async fn another_recovery_key_opens_what_was_sealed_before() {
    let mut stock = Stock::of(1200).await;
    let key = added(&stock, "second");
    let id = stock.headers[0].id;
    assert!(OpenEpoch::new(&key, &header(&stock, id).await).is_err());
    // What a worker with the new recovery.pub seals needs nothing more.
    stock.people = 1201;
    stock.epoch(1200..1201).await;
    assert_eq!(stock.headers[3].wraps.len(), 2);

    let said = stock.rotated(&["--recovery", "--identity", &stock.identity()]);
    assert!(said.contains("3 epochs were sealed to all 2 recovery keys"), "{said}");
    for header_of in stock.headers.clone() {
        assert!(OpenEpoch::new(&key, &header(&stock, header_of.id).await).is_ok());
    }
    let said = stock.rotated(&["--recovery", "--identity", &stock.identity()]);
    assert!(said.contains("0 epochs were sealed"), "{said}");

    let old = hex(&stock.headers[0].wraps[0].recipient);
    let retire = ["--recovery", "--retire", &old[..10]];
    let (code, said) = stock.rotate(&retire);
    assert!(code == 75 && said.contains("holds the key no longer"), "{said}");
    assert_eq!(stock.keys().load().fingerprints(), [key.public().fingerprint()]);
    let (code, said) = stock.rotate(&retire);
    assert!(code == 75 && said.contains("seals to this recipient still"), "{said}");
    stock.execute("UPDATE masq.epochs SET recorded_at = recorded_at - interval '3 minutes'").await;
    let said = stock.rotated(&retire);
    assert!(said.contains("is retired") && said.contains("4 epochs fewer"), "{said}");
    assert_eq!(stock.query("SELECT count(*), count(DISTINCT recipient) FROM masq.epoch_wraps").await, ["4\t1"]);
    assert!(OpenEpoch::new(&key, &header(&stock, id).await).is_ok());
    // A worker that has not heard of it.
    let id = Uuid::from_u128(7);
    stock.execute(&format!("INSERT INTO masq.epochs (id, started_at) VALUES ('{id}', now())")).await;
    let stale = format!("INSERT INTO masq.epoch_wraps VALUES ('{id}', '\\x{old}', '\\x01')");
    let refused = plain(&stock.scene.database.url).await.batch_execute(&stale).await.unwrap_err();
    assert_eq!(refused.code().unwrap().code(), "MQ012");
}

#[tokio::test]
async fn no_epoch_loses_its_last_recovery_key() {
    let stock = Stock::of(3).await;
    let old = hex(&stock.headers[0].wraps[0].recipient);
    let (code, said) = stock.rotate(&["--recovery", "--retire", &old]);
    assert!(code == 78 && said.contains("only key in recovery.pub"), "{said}");
    added(&stock, "second");
    assert_eq!(stock.rotate(&["--recovery", "--retire", &old]).0, 75);
    let (code, said) = stock.rotate(&["--recovery", "--retire", &old]);
    assert!(code == 78 && said.contains("no other active recipient") && said.contains("--identity"), "{said}");
    let (code, said) = stock.rotate(&["--recovery", "--retire", "77777777"]);
    assert!(code == 2 && said.contains(&old), "{said}");
    assert_eq!(stock.query("SELECT count(*) FROM masq.recipients WHERE state = 'active'").await, ["2"]);
}

#[tokio::test]
async fn whoever_rotates_needs_functions_and_no_table_of_sealed_values() {
    let stock = Stock::of(6).await;
    stock
        .execute(
            "CREATE ROLE rotate_operator LOGIN; GRANT USAGE ON SCHEMA masq, masq_slots TO rotate_operator;
             GRANT SELECT ON masq.migrations, masq.token_keys, masq.recipients, masq.targets TO rotate_operator;
             GRANT EXECUTE ON FUNCTION masq.request_rotate(text, text, text, text), masq.rotated(bigint, text, text),
               masq.add_token_key(bigint, smallint, bytea, boolean), masq.activate_token_key(bigint, smallint),
               masq.fetch_rekey(bigint, smallint, bytea, bytea, date, integer), masq.count_rekey(),
               masq.rekey(bigint, text, bytea[], bytea[], date[], uuid[], bytea[], bytea[]), masq.rekey_tables(),
               masq.rekey_rows(bigint, text, text, oid, bigint, bigint), masq.show_bridged(bigint),
               masq.retire_token_keys(bigint, boolean), masq.fetch_epochs(uuid[]),
               masq_slots.fetch_slots(bytea[], uuid[]) TO rotate_operator",
        )
        .await;
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
    for table in ["masq.entries", "masq.epoch_wraps", "masq.bridge", "masq_slots.slots", "user_logins"] {
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

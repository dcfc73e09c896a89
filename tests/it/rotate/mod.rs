//! `masq keys rotate`: step by step, through every kind of interruption, and all at once. Here is what it is played on.

mod interrupted;
mod recovery;
mod revealed;
mod steps;

use std::collections::BTreeMap;

use masq::vault::{
    identity,
    keyring::KeyRing,
    seal::{EpochHeader, OpenEpoch, Original, SubjectTag, Wrap},
    token::{Kind, TokenRoot},
    token_files,
};
use tokio_postgres::types::Type;
use uuid::Uuid;

use crate::{
    scene::Scene,
    support::{Keys, masq},
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
        let mut epoch = ring.new_epoch(now).await.unwrap();
        let (mut slots, mut entries, mut rows) = (vec![], vec![], vec![]);
        for person in people {
            let slot = epoch.slot(ring.subject.tag(&user(person)));
            slots.push(format!("('\\x{}', '\\x{}')", hex(&slot.subject.0), hex(&slot.salt)));
            for value in &values(person) {
                let (kind, field, raw) = value;
                let (mut sealed, made) = (vec![], ring.token.domain(field).unwrap().token(*kind, raw).unwrap());
                epoch.seal_value((&slot, field, &made), Original { kind: *kind, raw }, &mut sealed);
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

//! A database with dead letters, and how they are made, opened and counted.

use std::{fs, num::NonZeroU8};

use masq::{
    config::Config,
    event::Reason,
    pipeline::{
        decode::Decoder,
        mask::{Masker, mask},
        now_ms,
    },
    queue::{Key, Message, Receipt},
    sink::{Batch, Entry, Outcome, Sink, Verdict, postgres::PostgresSink},
    start,
    vault::sealer::Seals,
};
use tokio::process::Command;
use uuid::Uuid;

use crate::{
    scene::options,
    stage::WRONG,
    support::{Database, Keys, config, connector, finish, login, service},
};

/// What an address that is none becomes in the mended configuration: NULL.
pub(super) const MENDED: &str = r#"
[columns]
user_id          = { from = "user_id",     type = "varchar(128)", required = true, subject = true }
device_type      = { from = "device_type", type = "varchar(32)" }
masked_ip        = { from = "ip",          type = "varchar(256)", as = "ip", mask = "hmac", on_invalid = "null" }
masked_device_id = { from = "device_id",   type = "varchar(256)", mask = "hmac" }
locale           = { from = "locale",      type = "varchar(32)" }
app_version      = { from = "app_version", type = "varchar(32)",  as = "version" }
create_date      = { from = "create_date", type = "date", default = "sent_date" }
"#;

pub(super) const MINUTE: i64 = 60_000;

/// A database with dead letters, the keys that they were made with, and the mended configuration in a file.
pub(crate) struct Ward {
    pub(crate) database: Database,
    pub(crate) keys: Keys,
}

impl Ward {
    pub(crate) async fn new() -> Self {
        Self::with(&config()).await
    }

    pub(crate) async fn with(config: &Config) -> Self {
        let ward = Self { database: Database::ready().await, keys: Keys::create() };
        fs::write(ward.file(), MENDED).unwrap();
        ward.admit(config, &[]).await;
        ward
    }

    pub(super) fn file(&self) -> String {
        self.keys.directory.path().join("masq.toml").display().to_string()
    }

    /// Writes what becomes of these messages, as a worker with the unmended configuration does.
    pub(crate) async fn write(&self, messages: &[(Key, Vec<u8>)]) {
        self.admit(&config(), messages).await;
    }

    /// Writes a letter `older_than_ledger` with this key.
    pub(super) async fn write_late(&self, key: Key) {
        let (_, mut masker, mut sink) = self.reader(&config()).await;
        let message = Message::new(key, 1, login("late", "1.1.1.1").into_bytes(), Receipt("".into()));
        let dead = masker.dead_letter(&message, Reason::OlderThanLedger, None);
        let entries = vec![Entry { message, verdict: Verdict::Dead(dead) }];
        let (epoch, seals) = (masker.epoch().header().clone(), Seals::default());
        let batch = Batch { entries, doubles: 0, rows: Vec::new(), epoch, seals, kid: NonZeroU8::MIN };
        assert_eq!(sink.write(&batch, 0..1).await.unwrap(), [Outcome::Written]);
    }

    pub(super) async fn admit(&self, config: &Config, messages: &[(Key, Vec<u8>)]) {
        let (decoder, mut masker, mut sink) = self.reader(config).await;
        let messages =
            messages.iter().map(|(key, body)| Message::new(*key, 1, body.clone(), Receipt("".into()))).collect();
        let batch = mask(messages, |message| decoder.read(message), &mut masker);
        sink.write(&batch, 0..batch.len()).await.unwrap();
    }

    pub(super) async fn reader(&self, config: &Config) -> (Decoder, Masker, PostgresSink) {
        let keys = self.keys.load();
        self.database.prepare(config).await;
        let worker = connector(&self.database.login("worker"));
        let made = start::database(worker, config, &keys, "login-queue", options()).await;
        made.unwrap_or_else(|error| panic!("{error}")).reader(config, &keys).await.unwrap()
    }

    /// So many letters `bad_ip:ip`, sent so many minutes ago, each of another user.
    pub(crate) async fn bad_ips(&self, count: usize, minutes_ago: i64) -> Vec<Key> {
        let messages: Vec<_> = (0..count)
            .map(|number| (key(minutes_ago), login(&format!("user-{number}"), "199.172.111").into_bytes()))
            .collect();
        for messages in messages.chunks(2_000) {
            self.write(messages).await;
        }
        messages.into_iter().map(|(key, _)| key).collect()
    }

    /// Makes each transaction of a replay last, so that what happens happens in the middle of one.
    pub(super) async fn slow(&self) {
        let trigger = "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS \
             $$ BEGIN PERFORM pg_sleep(0.1); RETURN NULL; END $$; \
             CREATE TRIGGER slow AFTER UPDATE ON masq.dead_letters EXECUTE FUNCTION slow()";
        self.database.execute(trigger).await;
    }

    /// A letter that no configuration mends.
    pub(super) async fn wrong(&self) -> Key {
        let key = key(1);
        self.write(&[(key, WRONG.to_vec())]).await;
        key
    }

    /// `masq` against this database with the mended configuration, as an operator.
    pub(crate) fn masq(&self, arguments: &[&str]) -> Command {
        self.masq_as("operator", arguments)
    }

    pub(super) fn masq_as(&self, login: &str, arguments: &[&str]) -> Command {
        let (file, keys) = (self.file(), self.keys.path().display().to_string());
        let database = self.database.login(login);
        let place = ["--config", &file, "--database-url", &database];
        let mut command = service(&[arguments, &place].concat());
        command.env("MASQ_KEYS", keys);
        command
    }

    pub(super) fn replay(&self, more: &[&str]) -> Command {
        let identity = self.keys.path().join("recovery.key").display().to_string();
        let why = ["dead", "replay", "--identity", &identity, "--reason", "ticket 4711"];
        self.masq(&[&why, more].concat())
    }

    /// Replays to the end: exit code, what stands on stdout, and the summary.
    pub(crate) async fn replayed(&self, more: &[&str]) -> (i32, String, String) {
        let (exit, stdout, stderr) = finish(self.replay(more)).await;
        (exit, stdout, stderr.lines().last().unwrap_or_default().to_owned())
    }

    pub(super) async fn query(&self, sql: &str) -> Vec<String> {
        self.database.query(sql).await
    }

    /// Rows, users among them, and how often the ledger has each outcome.
    pub(super) async fn counts(&self) -> String {
        let counts = "SELECT count(*), count(DISTINCT user_id), (SELECT string_agg(outcome || 'x' || n, ' ') \
                      FROM (SELECT outcome, count(*) AS n FROM masq.ledger GROUP BY outcome ORDER BY outcome) AS o), \
                      (SELECT count(*) FROM masq.dead_letters WHERE resolved_at IS NULL) FROM user_logins";
        self.query(counts).await.remove(0)
    }

    /// The numbers add up, by the program that an operator would ask.
    pub(crate) async fn assert_reconciled(&self) {
        let (exit, stdout, stderr) = finish(self.masq(&["reconcile", "--strict"])).await;
        assert_eq!(exit, 0, "{stdout}{stderr}");
    }
}

pub(crate) fn key(minutes_ago: i64) -> Key {
    Key { sent_at: now_ms() - minutes_ago * MINUTE, id: Uuid::new_v4() }
}

//! What a worker writes into the vault beside its rows: the sealed original of every value, once, in the row's
//! transaction, and nothing that it could open again.

use std::collections::{BTreeMap, HashMap};

use masq::{
    queue::Key,
    vault::{
        epochs::{self, Opener},
        identity,
        seal::SubjectTag,
        token::Token,
    },
};
use uuid::Uuid;

use crate::{
    forget::WHY,
    scene::Scene,
    support::{Database, config, config_of, finish, login, service},
};

/// A value that was opened: whose, in which field, behind which token.
pub(crate) type Opened = BTreeMap<([u8; 16], String, String), String>;

/// Opens every entry with the recovery key, recomputes its token, and answers what is in the vault.
pub(crate) async fn open_all(scene: &Scene, slots: &Database) -> Opened {
    let key = identity::load(&scene.keys.path().join("recovery.key"), None).unwrap_or_else(|error| panic!("{error}"));
    let session = scene.database.session().await;
    let salts =
        slots.session().await.query("SELECT subject_tag, epoch, salt FROM masq_slots.slots", &[]).await.unwrap();
    let salts: HashMap<(Vec<u8>, Uuid), Vec<u8>> =
        salts.iter().map(|row| ((row.get(0), row.get(1)), row.get(2))).collect();
    let entries = "SELECT token, subject_tag, field, epoch, sealed FROM masq.entries";
    let entries = session.query(entries, &[]).await.unwrap();
    let ids: Vec<Uuid> = entries.iter().map(|row| row.get(3)).collect();
    let headers = epochs::headers(&session, &ids).await.unwrap();
    let mut opener = Opener::new(&key);
    let open = |row: &tokio_postgres::Row| {
        let (token, subject): (Vec<u8>, Vec<u8>) = (row.get(0), row.get(1));
        let (field, id): (String, Uuid) = (row.get(2), row.get(3));
        let header = headers.iter().find(|header| header.id == id).expect("the epoch of an entry has a header");
        let salt = &salts[&(subject.clone(), id)];
        let (token, subject) = (Token(token.try_into().unwrap()), SubjectTag(subject.try_into().unwrap()));
        let epoch = opener.epoch(header).unwrap_or_else(|error| panic!("{error}"));
        let slot = epoch.slot(subject, salt.as_slice().try_into().unwrap());
        let sealed: Vec<u8> = row.get(4);
        let opened = epoch.open_value(&slot, &field, &token, &sealed).unwrap_or_else(|error| panic!("{error}"));
        let ring = &scene.shared.keys;
        assert_eq!(ring.token.domain(&field).unwrap().token(opened.kind, &opened.raw), Some(token));
        ((subject.0, field, token.to_string()), opened.raw.to_string())
    };
    entries.iter().map(open).collect()
}

fn tag(scene: &Scene, user: &str) -> [u8; 16] {
    scene.shared.keys.subject.tag(user).0
}

/// Every token of the table is in the vault for the person of its row.
pub(crate) async fn assert_recoverable(scene: &Scene, vault: &Opened) {
    for row in scene.database.query("SELECT user_id, masked_ip, masked_device_id FROM user_logins").await {
        let values: Vec<&str> = row.split('\t').collect();
        for (field, token) in [("ip", values[1]), ("device_id", values[2])] {
            let key = (tag(scene, values[0]), field.to_owned(), token.to_owned());
            assert!(token == "NULL" || vault.contains_key(&key), "{row}: {field}");
        }
    }
}

#[tokio::test]
async fn every_masked_value_is_sealed_once_a_person_and_opens_as_it_came() {
    let scene = Scene::new().await;
    for _ in 0..3 {
        scene.queue.inner.send(login("u", " ::ffff:199.172.111.135").into_bytes());
        scene.queue.inner.send(login("v", "199.172.111.135").into_bytes());
    }
    scene.queue.inner.send(br#"{"user_id": "w", "ip": null}"#.to_vec());
    scene.settle().await;
    scene.queue.inner.send(login("u", "199.172.111.135").into_bytes());
    scene.settle().await;

    let vault = open_all(&scene, &scene.database).await;
    let values: Vec<_> =
        vault.iter().map(|((subject, field, _), raw)| (*subject, field.as_str(), raw.as_str())).collect();
    assert_eq!(values.len(), 4);
    for (user, ip) in [("u", " ::ffff:199.172.111.135"), ("v", "199.172.111.135")] {
        assert!(values.contains(&(tag(&scene, user), "ip", ip)), "{values:?}");
        assert!(values.contains(&(tag(&scene, user), "device_id", "593-47-5928")), "{values:?}");
    }
    assert_recoverable(&scene, &vault).await;
    assert_eq!(scene.database.query("SELECT count(DISTINCT masked_ip) FROM user_logins").await, ["1"]);
}

#[tokio::test]
async fn what_becomes_no_row_is_not_in_the_vault() {
    let scene = Scene::new().await;
    scene.start().await.map(drop).unwrap_or_else(|error| panic!("{error}"));
    scene.database.execute("ALTER TABLE user_logins ADD CHECK (user_id <> 'refused')").await;
    scene.send_many(3);
    scene.queue.inner.send(login("refused", "203.0.113.9").into_bytes());
    scene.queue.inner.send(br#"{"user_id": "bad", "ip": "203.0.113.300"}"#.to_vec());
    scene.settle().await;
    assert_eq!(scene.counted(), (3, 2, 0, 0));
    let vault = open_all(&scene, &scene.database).await;
    assert_eq!(vault.len(), 6);
    assert_recoverable(&scene, &vault).await;
}

#[tokio::test]
async fn an_epoch_says_in_the_audit_log_what_it_wrote() {
    let scene = Scene::with(config_of("[database]\nconnections = 1\n")).await;
    let keys: Vec<Key> = scene.send_many(5);
    scene.queue.inner.send(b"{}".to_vec());
    scene.settle().await;
    assert_eq!(keys.len(), 5);
    let said = "SELECT detail FROM masq.audit WHERE action = 'epoch'";
    let details = scene.database.query(said).await;
    assert_eq!(details, [r#"{"entries": 10, "slots": 5, "letters": 1}"#]);
    let whole = "SELECT bool_and(hash = masq.sha256('\\x00'::bytea || masq.leaf(a))) FROM masq.audit a";
    assert_eq!(scene.database.query(whole).await, ["t"]);
}

#[tokio::test]
async fn slots_may_lie_in_a_database_of_their_own() {
    let (rows, slots) = (Database::create().await, Database::create().await);
    let config = config_of(&format!("[vault]\nslots_url = \"{}\"\n", slots.url));
    let scene = Scene::on(rows, config);
    scene.send_many(4);
    scene.settle().await;
    assert_eq!(scene.counted(), (4, 0, 0, 0));
    assert_eq!(scene.database.query("SELECT to_regnamespace('masq_slots')").await, ["NULL"]);
    let vault = open_all(&scene, &slots).await;
    assert_eq!(vault.len(), 8);
    assert_recoverable(&scene, &vault).await;
}

#[tokio::test]
async fn slots_beside_the_rows_are_not_to_be_named() {
    let database = Database::create().await;
    let scene = Scene::on(database, config());
    scene.prepare().await;
    let keys = scene.keys.path();
    let keys = keys.to_str().unwrap();
    let file = format!("[database]\nurl = \"{0}\"\n[vault]\nslots_url = \"{0}\"\n", scene.database.url);
    let file = format!("{file}erasures = {:?}\n", scene.keys.directory.path().join("erasures.jsonl"));
    let path = scene.keys.directory.path().join("masq.toml");
    std::fs::write(&path, file).unwrap();
    let queue = ["--queue-url", "http://127.0.0.1:9/000000000000/login-queue", "--keys", keys];
    let forget = [&["--keys", keys][..], &WHY, &["u"]].concat();
    for (command, more) in [("run", &queue[..]), ("check", &queue), ("migrate", &[]), ("forget", &forget)] {
        let arguments = [&["--config", path.to_str().unwrap(), command][..], more].concat();
        let (exit, out, err) = finish(service(&arguments)).await;
        let said = format!("{out}{err}");
        let is_named = said.contains("slots_url in [vault] names the database that the rows are in")
            && said.contains("leave slots_url out");
        assert!(is_named && (exit == 78 || command == "check"), "{command} ends with {exit}: {said}");
    }
    assert_eq!(scene.database.query("SELECT values_kept FROM masq_slots.policy").await, ["NULL"]);
}

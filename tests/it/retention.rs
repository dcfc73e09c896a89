//! What is no longer kept: old sealed values, the keys of their epochs, and old dead letters; and what stays.

use std::time::Duration;

use masq::{
    setup,
    vault::retention::{Keep, keep},
};

use crate::{
    scene::Scene,
    support::{Database, config_of, connector, login},
};

const DAY: Duration = Duration::from_secs(86_400);

/// A login, and with `letter` one that becomes a dead letter.
async fn loaded(scene: &Scene, user: &str, letter: bool) {
    scene.queue.inner.send(login(user, "199.172.111.135").into_bytes());
    if letter {
        scene.queue.inner.send(login(user, "199.172.111").into_bytes());
    }
    scene.settle().await;
}

/// Lets everything in the vault be so much older: epochs, and the months of values and slots.
async fn age(rows: &Database, slots: &Database, days: u32) {
    let older = |schema: &str, table: &str| {
        format!(
            "DO $$ DECLARE old date := date_trunc('month', now() AT TIME ZONE 'UTC' - interval '{days} days')::date;
             BEGIN
               IF current_setting('server_version_num')::int >= 110000
                  AND to_regclass('{schema}.{table}_' || to_char(old, 'YYYYMM')) IS NULL THEN
                 EXECUTE format('CREATE TABLE {schema}.%I PARTITION OF {schema}.{table} FOR VALUES FROM (%L) TO (%L)',
                                '{table}_' || to_char(old, 'YYYYMM'), old, (old + interval '1 month')::date);
                 EXECUTE format('ALTER TABLE {schema}.%I OWNER TO %I', '{table}_' || to_char(old, 'YYYYMM'), (
                   SELECT pg_get_userbyid(relowner) FROM pg_class WHERE oid = '{schema}.{table}'::regclass));
               END IF;
               UPDATE {schema}.{table} SET month = old;
             END $$"
        )
    };
    rows.execute(&older("masq", "entries")).await;
    slots.execute(&older("masq_slots", "slots")).await;
    rows.execute(&format!(
        "UPDATE masq.epochs SET recorded_at = recorded_at - interval '{days} days', \
         started_at = started_at - interval '{days} days'"
    ))
    .await;
}

async fn kept(rows: &Database, slots: Option<&Database>, what: Keep) {
    rows.execute("UPDATE masq.policy SET values_kept = '1 day', letters_kept = '1 day'").await;
    slots.unwrap_or(rows).execute("UPDATE masq_slots.policy SET values_kept = '1 day'").await;
    let session = rows.session().await;
    let slots = match slots {
        Some(slots) => Some(slots.session().await),
        None => None,
    };
    while keep(&session, slots.as_ref(), what).await.unwrap_or_else(|error| panic!("{error:?}")) {}
}

/// Epochs, their wraps, entries, slots, letters.
async fn vault(rows: &Database, slots: &Database) -> (String, String) {
    let counts = "SELECT (SELECT count(*) FROM masq.epochs), (SELECT count(*) FROM masq.epoch_wraps), \
                  (SELECT count(*) FROM masq.entries), (SELECT count(*) FROM masq.dead_letters)";
    (rows.query(counts).await.remove(0), slots.query("SELECT count(*) FROM masq_slots.slots").await.remove(0))
}

/// What the log says was deleted: entries, slots and letters, an entry of the log a line.
const DELETED: &str = "SELECT (SELECT concat_ws(' ', sum((n ->> 0)::int), sum((n ->> 1)::int), sum((n ->> 2)::int)) \
                       FROM jsonb_each(detail::jsonb -> 'deleted') AS d (epoch, n)) \
                       FROM masq.audit WHERE action = 'retention' ORDER BY seq";

fn values(days: u32) -> Keep {
    Keep { values: Some(DAY * days), letters: None }
}

fn one() -> masq::config::Config {
    config_of("[database]\nconnections = 1\n")
}

fn expected(rows: &str, slots: &str) -> (String, String) {
    (rows.to_owned(), slots.to_owned())
}

#[tokio::test]
async fn old_months_go_as_a_whole_and_young_ones_stay() {
    let scene = Scene::with(one()).await;
    loaded(&scene, "u", false).await;
    age(&scene.database, &scene.database, 100).await;
    loaded(&scene, "v", false).await;
    assert_eq!(vault(&scene.database, &scene.database).await, expected("2\t2\t4\t0", "2"));
    kept(&scene.database, None, values(300)).await;
    assert_eq!(vault(&scene.database, &scene.database).await, expected("2\t2\t4\t0", "2"), "not yet");
    kept(&scene.database, None, values(30)).await;
    assert_eq!(vault(&scene.database, &scene.database).await, expected("1\t1\t2\t0", "1"));
    assert_eq!(scene.database.query(DELETED).await, ["2 1 0"], "one entry a run that deleted something");
    kept(&scene.database, None, values(30)).await;
    assert_eq!(scene.database.query(DELETED).await.len(), 1);
    let months = "SELECT count(*) FROM pg_inherits WHERE inhparent = 'masq.entries'::regclass \
                  AND inhrelid::regclass::text < 'masq.entries_' || to_char(now() - interval '40 days', 'YYYYMM')";
    assert_eq!(scene.database.query(months).await, ["0"]);
    assert_eq!(scene.database.query("SELECT count(*) FROM user_logins WHERE masked_ip IS NOT NULL").await, ["2"]);
}

#[tokio::test]
async fn a_key_that_is_too_old_goes_before_its_month() {
    let scene = Scene::with(one()).await;
    loaded(&scene, "u", false).await;
    let later = "UPDATE masq.epochs SET recorded_at = recorded_at - interval '3 days'";
    scene.database.execute(later).await;
    kept(&scene.database, None, values(2)).await;
    assert_eq!(vault(&scene.database, &scene.database).await, expected("1\t0\t2\t0", "1"), "shut, and still there");
    kept(&scene.database, None, values(2)).await;
    assert_eq!(
        scene.database.query("SELECT detail FROM masq.audit WHERE action = 'retention'").await,
        [r#"{"epochs": 1, "deleted": {}}"#]
    );
}

#[tokio::test]
async fn an_epoch_that_a_dead_letter_needs_keeps_its_key_and_nothing_else() {
    let scene = Scene::with(one()).await;
    loaded(&scene, "u", true).await;
    scene.database.execute("UPDATE masq.epochs SET recorded_at = recorded_at - interval '3 days'").await;
    kept(&scene.database, None, values(2)).await;
    assert_eq!(vault(&scene.database, &scene.database).await, expected("1\t1\t0\t1", "0"));
    assert_eq!(scene.database.query(DELETED).await, ["2 1 0"]);

    scene.database.execute("UPDATE masq.dead_letters SET recorded_at = recorded_at - interval '9 days'").await;
    let both = Keep { values: Some(DAY * 2), letters: Some(DAY * 10) };
    kept(&scene.database, None, both).await;
    assert_eq!(vault(&scene.database, &scene.database).await, expected("1\t1\t0\t1", "0"), "not yet");
    kept(&scene.database, None, Keep { letters: Some(DAY * 8), ..both }).await;
    assert_eq!(vault(&scene.database, &scene.database).await, expected("1\t0\t0\t0", "0"), "now nobody needs it");
    assert_eq!(scene.database.query(DELETED).await, ["2 1 0", "0 0 1"]);
    assert_eq!(scene.database.query("SELECT outcome FROM masq.ledger ORDER BY 1").await, ["1", "5"]);
    assert_eq!(scene.database.query("SELECT claimed, letters FROM masq.purges").await, ["masq\t1"]);
}

#[tokio::test]
async fn slots_in_a_database_of_their_own_go_with_their_month() {
    let slots = Database::create().await;
    let config = config_of(&format!("[database]\nconnections = 1\n[vault]\nslots_url = \"{}\"\n", slots.url));
    let scene = Scene::on(Database::create().await, config);
    loaded(&scene, "u", true).await;
    age(&scene.database, &slots, 100).await;
    loaded(&scene, "v", false).await;
    assert_eq!(vault(&scene.database, &slots).await, expected("2\t2\t4\t1", "2"));
    kept(&scene.database, Some(&slots), values(30)).await;
    assert_eq!(vault(&scene.database, &slots).await, expected("2\t2\t2\t1", "1"));
    assert_eq!(scene.database.query(DELETED).await, ["2 0 0", "0 1 0"]);
}

#[tokio::test]
async fn a_jumping_clock_and_a_slip_throw_nothing_away() {
    let scene = Scene::with(one()).await;
    loaded(&scene, "u", false).await;
    // As if the clock had jumped ahead: messages and epochs are old by it, and none is younger.
    scene.database.execute("UPDATE masq.epochs SET recorded_at = recorded_at - interval '3 days'").await;
    scene.database.execute("UPDATE masq.ledger SET sent_at = sent_at - interval '3 days'").await;
    kept(&scene.database, None, values(2)).await;
    assert_eq!(vault(&scene.database, &scene.database).await, expected("1\t1\t2\t0", "1"));
    let session = scene.database.session().await;
    let error = keep(&session, None, Keep { values: Some(DAY / 2), letters: None }).await.unwrap_err();
    assert_eq!(error.code().unwrap().code(), "22023");
}

#[tokio::test]
async fn a_worker_cannot_have_less_kept_than_the_owner_says() {
    let scene = Scene::new().await;
    loaded(&scene, "u", true).await;
    let session = scene.database.session().await;
    let refused = async |what: Keep| {
        let error = keep(&session, None, what).await.unwrap_err();
        error.code().map(|code| code.code().to_owned())
    };
    let letters = |days| Keep { values: None, letters: Some(DAY * days) };
    for what in [values(400), letters(400)] {
        assert_eq!(refused(what).await.as_deref(), Some("MQ015"), "it is for ever unless the owner says otherwise");
    }
    let says = config_of("[vault]\nretention = \"90d\"\n[dead_letters]\nretention = \"30d\"\n");
    setup::database(&mut scene.database.session().await, &says, false).await.unwrap_or_else(|error| panic!("{error}"));
    for what in [values(89), letters(29)] {
        assert_eq!(refused(what).await.as_deref(), Some("MQ015"));
    }
    assert!(keep(&session, None, Keep { letters: Some(DAY * 30), ..values(90) }).await.is_ok());
}

#[tokio::test]
async fn nor_slots_in_a_database_of_their_own() {
    let (rows, slots) = (Database::create().await, Database::create().await);
    let of = |retention: &str| config_of(&format!("[vault]\nslots_url = \"{}\"\n{retention}", slots.url));
    let scene = Scene::on(rows, of(""));
    loaded(&scene, "u", false).await;
    assert_eq!(setup::slots(&slots.session().await, &scene.config, true).await.unwrap(), []);
    age(&scene.database, &slots, 100).await;
    let worker = connector(&slots.login("worker")).connect().await.unwrap();
    let asked = async |ago: &str| {
        let day = format!("(now() AT TIME ZONE 'UTC' - interval '{ago}')::date");
        let done = worker.batch_execute(&format!("SELECT masq_slots.keep_slots({day}, '{{}}', 10)")).await;
        let code = done.err().and_then(|error| error.code().map(|code| code.code().to_owned()));
        (code.unwrap_or_default(), slots.query("SELECT count(*) FROM masq_slots.slots").await.remove(0))
    };
    let answer = |code: &str, left: &str| (code.to_owned(), left.to_owned());
    assert_eq!(asked("400 days").await, answer("MQ015", "1"), "for ever unless the owner says otherwise");
    setup::slots(&slots.session().await, &of("retention = \"250d\"\n"), false).await.unwrap();
    for ago in ["60 days", "248 days", "-9 days"] {
        assert_eq!(asked(ago).await, answer("MQ015", "1"), "{ago}");
    }
    assert_eq!(
        asked("249 days").await,
        answer("", "1"),
        "another server's clock may be ahead, and gains nothing by it"
    );
    setup::slots(&slots.session().await, &of("retention = \"60d\"\n"), false).await.unwrap();
    assert_eq!(asked("60 days").await, answer("", "0"));
}

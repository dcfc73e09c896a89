//! A rotation that fails, is killed, or has workers beside it.

use std::process::Stdio;

use masq::vault::keyring::KeyRing;

use super::{Stock, user, values};
use crate::{
    support::{Database, plain, until},
    vault::{assert_recoverable, open_all},
};

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
             CREATE OR REPLACE FUNCTION public.fail() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$ BEGIN
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
    stock
        .execute(
            "CREATE ROLE rotate_reader LOGIN; GRANT SELECT ON user_logins TO rotate_reader; \
         GRANT CREATE ON SCHEMA public TO masq_owner",
        )
        .await;
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
async fn the_pipeline_runs_through_a_rotation() {
    let mut stock = Stock::of(0).await;
    let running = stock.scene.run().await;
    for round in 0..2 {
        (0..400).for_each(|person| _ = stock.scene.queue.inner.send(sent(person, round)));
        stock.scene.until_empty().await;
    }
    // From here on the workers find out by themselves, and take the new key from their directory.
    stock.activate();
    let mut rekey = stock.command(&["--token", "--identity", &stock.identity()]).stderr(Stdio::null()).spawn().unwrap();
    let mut sent_since = 0;
    while rekey.try_wait().unwrap().is_none() {
        (0..400).step_by(7).for_each(|person| _ = stock.scene.queue.inner.send(sent(person, sent_since)));
        sent_since += 1;
        stock.scene.until_empty().await;
    }
    assert!(rekey.wait().unwrap().success());
    running.stop().await;
    stock.scene.assert_adds_up();
    let ring = KeyRing::load_kid(&stock.keys().path(), 2.try_into().unwrap()).unwrap_or_else(|error| panic!("{error}"));
    stock.scene.shared.keys = ring.into();

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

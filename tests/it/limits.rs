//! What the database allows nobody more of, tried bit by bit: values without a second person, persons by one request to
//! erase, and tables that rows are said to go into.

use tokio_postgres::Client;

use crate::{
    forget::{self, WHY, forget, forgotten, loaded},
    reveal::{ADDRESS, Vault},
    scene::Scene,
    support::{config_of, plain, until},
};

/// The SQLSTATE of a refusal; otherwise the first row, with tabs between.
async fn answer(client: &Client, sql: &str) -> String {
    match client.simple_query(sql).await {
        Err(error) => error.code().unwrap_or_else(|| panic!("{error:?}")).code().to_owned(),
        Ok(messages) => {
            let row = messages.iter().find_map(|message| match message {
                tokio_postgres::SimpleQueryMessage::Row(row) => Some(row),
                _ => None,
            });
            row.map_or_else(String::new, |row| {
                (0..row.len()).map(|at| row.get(at).unwrap_or("NULL")).collect::<Vec<_>>().join("\t")
            })
        }
    }
}

/// Asks for so many tokens: whether that needs a second person, and how many more do not.
fn ask(tokens: usize) -> String {
    format!(
        "SELECT needs_approval, alone_left FROM masq.request_reveal('FRAUD', 'T-1', 'one after the other', 'eve', \
         (SELECT array_agg(decode(lpad(to_hex(n), 64, '0'), 'hex')) FROM generate_series(1, {tokens}) AS n))"
    )
}

#[tokio::test]
async fn little_asked_for_often_needs_a_second_person_as_much_does() {
    let vault = Vault::of(&[("u", ADDRESS)]).await;
    let database = &vault.scene.database;
    database.execute("UPDATE masq.policy SET approve_above = 3").await;
    let (eve, other) = (plain(&vault.logins[0]).await, plain(&vault.logins[1]).await);
    let last = async || database.query("SELECT max(seq) FROM masq.audit WHERE action = 'reveal'").await.remove(0);
    let fetch = |request: &str| format!("SELECT count(*) FROM masq.fetch_entries({request})");

    assert_eq!(answer(&eve, &ask(2)).await, "f\t1");
    let small = last().await;
    assert_eq!(answer(&eve, &ask(2)).await, "t\t1", "four in all");
    let large = last().await;
    assert_eq!(answer(&eve, &fetch(&large)).await, "MQ004");
    assert_eq!((answer(&eve, &fetch(&small)).await, answer(&eve, &fetch(&small)).await), ("0".into(), "0".into()));
    assert_eq!(answer(&eve, &ask(1)).await, "f\t0", "what waits was not given");
    assert_eq!(answer(&other, &ask(3)).await, "f\t0", "each login for itself");
    let (code, out, said) = vault.reveal(&[vault.token(ADDRESS)], &[]);
    assert!(code == 75 && out.is_empty() && said.contains("is for 1 tokens, and this login may have 0 more"), "{said}");
    assert!(said.contains("masq approve"), "{said}");

    // What a second person has seen does not count, however small; and only what they have seen is given.
    for request in [&small, &large] {
        answer(&other, &format!("SELECT masq.approve({request}, 'bob', NULL)")).await;
    }
    assert_eq!(answer(&eve, &fetch(&large)).await, "0");
    assert_eq!(answer(&eve, &ask(3)).await, "t\t2");
    let unseen = last().await;
    assert_eq!(answer(&eve, &fetch(&unseen)).await, "MQ004");
    assert_eq!(answer(&eve, &ask(2)).await, "f\t0");
    let marked = "SELECT count(*) FROM masq.audit WHERE detail = '{\"needs_approval\": true}'";
    assert_eq!(database.query(marked).await, ["3"]);

    // Another limit is for what is asked from then on, and another day begins anew.
    database.execute("UPDATE masq.policy SET approve_above = 100").await;
    assert_eq!(answer(&eve, &fetch(&unseen)).await, "MQ004");
    database
        .execute("UPDATE masq.policy SET approve_above = 3; UPDATE masq.audit SET at = at - interval '1 day'")
        .await;
    assert_eq!(answer(&eve, &ask(3)).await, "f\t0");
}

#[tokio::test]
async fn two_requests_at_once_do_not_both_go_without_a_second_person() {
    let vault = Vault::of(&[]).await;
    let (first, second) = (plain(&vault.logins[0]).await, plain(&vault.logins[0]).await);
    first.batch_execute(&format!("BEGIN; {}", ask(10))).await.unwrap();
    let waiting = tokio::spawn(async move { (answer(&second, &ask(1)).await, second) });
    waits(&vault.scene, "one after the other").await;
    first.batch_execute("COMMIT").await.unwrap();
    let (asked, second) = waiting.await.unwrap();
    assert_eq!(asked, "t\t0");

    // Whoever looks at an older moment is told to ask again.
    vault.scene.database.execute("UPDATE masq.policy SET approve_above = 20").await;
    second.batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1").await.unwrap();
    assert_eq!(answer(&first, &ask(10)).await, "f\t0");
    assert_eq!(answer(&second, &ask(1)).await, "40001");
}

/// Until somebody waits for a lock with a statement that holds this.
async fn waits(scene: &Scene, statement: &str) {
    let waiting = format!(
        "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%{statement}%' \
         AND datname = current_database()"
    );
    until("somebody waits", async || scene.database.query(&waiting).await == ["1"]).await;
}

const SECRET: &str = "md5('secret')::uuid";

/// Asks to erase the person of this tag, who goes by these names and tokens.
fn request(tag: &str, names: &str, tokens: &str) -> String {
    format!(
        "SELECT masq.request_erasure('TEST', 'T-1', 'a reason of some length', 'eve', {tag}, {SECRET}, {names}, {tokens})"
    )
}

fn erase(request: &str, key: &str, name: &str) -> String {
    format!("SELECT masq.erase({request}, 'eve', md5('{key}')::uuid, {SECRET}, '{{{name}}}', '{{}}', true, NULL)")
}

#[tokio::test]
async fn a_request_to_erase_is_for_one_person_and_one_erasure() {
    let scene = Scene::new().await;
    loaded(&scene).await;
    let tag = |user: &str| format!("'\\x{}'::bytea", crate::reveal::hex(&scene.shared.keys.subject.tag(user).0));
    let eraser = plain(&scene.database.login("eraser")).await;
    for (names, tokens) in [("'{u,v}'", "'{}'"), ("'{}'", "'{a,b}'"), ("'{u}'", "'{a,b}'")] {
        assert_eq!(answer(&eraser, &request(&tag("u"), names, tokens)).await, "MQ001", "{names} {tokens}");
    }
    let of_u = answer(&eraser, &request(&tag("u"), "'{u}'", "'{}'")).await;

    // Nobody else is counted for it, nor with another secret.
    let plan = |secret: &str, name: &str, tokens: &str| {
        format!("SELECT masq.plan_erasure({of_u}, {secret}, '{{{name}}}', '{tokens}') ->> 'entries'")
    };
    for (secret, name, tokens) in [(SECRET, "v", "{}"), (SECRET, "u", "{00}"), ("md5('x')::uuid", "u", "{}")] {
        assert_eq!(answer(&eraser, &plan(secret, name, tokens)).await, "MQ006", "{secret} {name} {tokens}");
    }
    assert_eq!(answer(&eraser, &plan(SECRET, "u", "{}")).await, "2");

    // Nor erased, and not twice; at the same time neither.
    assert_eq!(answer(&eraser, &erase(&of_u, "1", "v")).await, "MQ006");
    eraser.batch_execute("BEGIN").await.unwrap();
    assert!(answer(&eraser, &erase(&of_u, "1", "u")).await.contains("\"number\": 1"));
    let (second, again) = (plain(&scene.database.login("eraser")).await, erase(&of_u, "2", "u"));
    let waiting = tokio::spawn(async move { answer(&second, &again).await });
    waits(&scene, "masq.erase(").await;
    eraser.batch_execute("COMMIT").await.unwrap();
    assert_eq!(waiting.await.unwrap(), "MQ006");

    // Whoever was cut off asks anew, of the same person.
    let first = answer(&eraser, &erase(&of_u, "1", "u")).await;
    let anew = answer(&eraser, &request(&tag("u"), "'{u}'", "'{}'")).await;
    assert_eq!(answer(&eraser, &erase(&anew, "1", "u")).await, first);
    let of_v = answer(&eraser, &request(&tag("v"), "'{v}'", "'{}'")).await;
    assert_eq!(answer(&eraser, &erase(&of_v, "1", "v")).await, "MQ006", "that key is of another");
    let left = "SELECT (SELECT count(*) FROM masq.erasures), (SELECT string_agg(user_id, ',') FROM user_logins)";
    assert_eq!(scene.database.query(left).await, ["1\tv"]);
}

#[tokio::test]
async fn names_are_read_and_erasures_replayed_only_after_a_restore() {
    let scene = Scene::new().await;
    loaded(&scene).await;
    let eraser = plain(&scene.database.login("eraser")).await;
    let restore = answer(&eraser, &request("NULL", "NULL", "NULL")).await;
    let names = format!("SELECT string_agg(s, ',' ORDER BY s) FROM masq.subjects({restore}) AS s");
    let again =
        format!("SELECT masq.replay_erasure({restore}, 'eve', md5('1')::uuid, 1, '\\x01', '{{v}}', true, NULL)");
    for sql in [&names, &again] {
        assert_eq!(answer(&eraser, sql).await, "MQ008");
    }

    // The program says what helps: here an erasure was begun and nothing restored.
    forgotten(&scene, "w", &[]);
    let file = scene.keys.directory.path().join("erasures.jsonl");
    let begun = format!(
        "{}{{\"erasure\": \"00000000-0000-4000-8000-000000000000\", \"stage\": \"asked\", \"subject\": \"{}\", \
         \"rows\": \"unlink\", \"at\": \"2026-01-01T00:00:00Z\"}}\n",
        forget::journal(&scene),
        crate::reveal::hex(&scene.shared.keys.subject.tag("u").0)
    );
    std::fs::write(file, begun).unwrap();
    let replay = || forget(&scene, &scene.database.url, &[&["--replay", "erasures.jsonl"], &WHY[..]].concat(), "");
    let (code, _, said) = replay();
    assert!(
        code == 78 && said.contains("neither restored nor moved") && said.contains("the same `masq forget`"),
        "{said}"
    );

    // A restore that only its owner knows of.
    scene.database.execute("UPDATE masq.home SET identity = 'restored'").await;
    assert_eq!(answer(&eraser, &names).await, "u,v");
    let (code, _, said) = replay();
    assert_eq!(code, 0, "{said}");
    assert_eq!(scene.database.query("SELECT string_agg(user_id, ',') FROM user_logins").await, ["v"]);
    for sql in [&names, &again] {
        assert_eq!(answer(&eraser, sql).await, "MQ008", "the request is not an hour old, but the vault is open");
    }
}

#[tokio::test]
async fn a_worker_does_not_say_where_rows_go() {
    let scene = Scene::new().await;
    loaded(&scene).await;
    let targets = "SELECT schema, name, subject FROM masq.targets";
    let noted = scene.database.query(targets).await;
    let table = "CREATE TABLE others (user_id text); GRANT INSERT ON others TO masq_writer";
    scene.database.execute(table).await;
    let other =
        "[table]\nname = \"others\"\n[columns]\nuser_id = { from = \"user_id\", type = \"text\", subject = true }\n";
    let elsewhere = Scene { config: config_of(other), ..scene };
    let refused = elsewhere.start_as(&elsewhere.database.login("worker")).await.map(drop).unwrap_err().to_string();
    assert!(refused.contains("masq.targets does not say of others") && refused.contains("masq migrate"), "{refused}");
    assert_eq!(elsewhere.database.query(targets).await, noted);

    // Its owner does, once.
    for _ in ["first", "again"] {
        elsewhere.database.prepare(&elsewhere.config).await;
        let of_others = "SELECT created, subject FROM masq.targets WHERE name = 'others'";
        assert_eq!(elsewhere.database.query(of_others).await, ["f\tuser_id"]);
    }
    elsewhere.start_as(&elsewhere.database.login("worker")).await.map(drop).unwrap_or_else(|error| panic!("{error}"));
}

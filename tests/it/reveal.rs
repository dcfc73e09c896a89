//! The way back: from a value to its token, from a token to its value, and a second person in between. What the commands
//! show, what they refuse, and what stays on the record.

use std::{io::Write, os::unix::fs::PermissionsExt, process::Output};

use masq::{
    config::Config,
    vault::{
        entry::Shut,
        epochs::{self, Opener},
        keyring::KeyRing,
        recovery::RecoveryKey,
        seal::{OpenError, SubjectTag},
        token::{Kind, Token},
    },
};
use serde_json::Value;
use tempfile::TempDir;

use crate::{
    scene::Scene,
    support::{Keys, config, config_of, login, masq, plain, python, python_prints},
};

const ADDRESS: &str = "199.172.111.135";
const WHY: [&str; 6] = ["--purpose", "FRAUD", "--ticket", "T-17", "--reason", "many accounts, one device"];
/// What `masq migrate --roles` gives to whoever reveals.
const REVEALER: &str = "\
    GRANT USAGE ON SCHEMA masq, masq_slots TO $; GRANT SELECT ON masq.token_keys, masq.purposes TO $; \
    GRANT EXECUTE ON FUNCTION masq.request_reveal(text, text, text, text, bytea[]), masq.requested(bigint), \
    masq.fetch_entries(bigint), masq.fetch_further(bigint, bytea, integer), masq.fetch_epochs(uuid[]), \
    masq.revealed(bigint, text, integer, integer, integer), masq.pending(bigint), masq.approve(bigint, text, text), \
    masq.found(text, text, text, bytea[]), masq_slots.fetch_slots(bytea[], uuid[]) TO $";

/// A vault with the values of these users, and two logins that may reveal.
struct Vault {
    scene: Scene,
    /// The addresses of both logins.
    logins: [String; 2],
}

impl Vault {
    async fn of(users: &[(&str, &str)]) -> Self {
        Self::with(config(), users).await
    }

    async fn with(config: Config, users: &[(&str, &str)]) -> Self {
        let scene = Scene::with(config).await;
        for (user, ip) in users {
            scene.queue.inner.send(login(user, ip).into_bytes());
        }
        scene.settle().await;
        let mut logins = Vec::new();
        for _ in 0..2 {
            let role = format!("revealer_{}", uuid::Uuid::new_v4().simple());
            let grants = REVEALER.replace('$', &role);
            scene.database.execute(&format!("CREATE ROLE {role} LOGIN; {grants}")).await;
            logins.push(scene.database.url.replace("postgres@", &format!("{role}@")));
        }
        Self { logins: logins.try_into().unwrap(), scene }
    }

    /// The token of an address.
    fn token(&self, ip: &str) -> Token {
        self.scene.shared.keys.token.domain("ip").unwrap().token(Kind::Ip, ip).unwrap()
    }

    /// The program, as the first login or the second, with the keys of the scene and this on stdin.
    fn masq(&self, who: usize, args: &[&str], stdin: &[u8]) -> (i32, String, String) {
        let here = TempDir::new().unwrap();
        let mut command = masq(here.path(), args);
        command.env("DATABASE_URL", &self.logins[who]).env("MASQ_KEYS", self.scene.keys.path());
        let mut child = command.stdin(std::process::Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(stdin).unwrap();
        let Output { status, stdout, stderr } = child.wait_with_output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (status.code().unwrap(), text(stdout), text(stderr))
    }

    /// Reveals these tokens into a pipe.
    fn reveal(&self, tokens: &[Token], more: &[&str]) -> (i32, String, String) {
        let lines: String = tokens.iter().map(|token| format!("{token}\n")).collect();
        self.masq(0, &[&self.args()[..], &WHY, more].concat(), lines.as_bytes())
    }

    /// Goes on with a request.
    fn go_on(&self, who: usize, request: &str) -> (i32, String, String) {
        self.masq(who, &[&self.args()[..], &["--request", request]].concat(), b"")
    }

    fn args(&self) -> [&'static str; 4] {
        let identity = self.scene.keys.path().join("recovery.key").display().to_string();
        ["reveal", "--identity", identity.leak(), "--plain-output-i-know"]
    }

    /// What is on the record beside the epochs: action, items, outcome.
    async fn record(&self) -> Vec<String> {
        let sql = "SELECT action, cardinality(items), detail FROM masq.audit WHERE action <> 'epoch' ORDER BY seq";
        self.scene.database.query(sql).await
    }
}

fn line(token: Token, value: &str) -> String {
    format!("{token}\t{value}\n")
}

#[tokio::test]
async fn a_value_leads_to_its_token_and_back_and_both_are_on_the_record() {
    let vault = Vault::of(&[("u", ADDRESS), ("v", " ::ffff:199.172.111.135"), ("w", "10.0.0.1")]).await;
    let (code, out, said) = vault.masq(0, &["find", "--field", "ip", "-"], b"199.172.111.135\r\n\n::ffff:10.0.0.1\n");
    assert_eq!((code, said.as_str()), (0, ""));
    let tokens: Vec<Token> = out.lines().map(|line| line.parse().unwrap()).collect();
    assert_eq!(tokens, [vault.token(ADDRESS), vault.token("10.0.0.1")]);
    let rows = format!("SELECT count(*) FROM user_logins WHERE masked_ip = '{}'", tokens[0]);
    assert_eq!(vault.scene.database.query(&rows).await, ["2"]);

    let (code, out, said) = vault.reveal(&[tokens[1], tokens[0], tokens[1]], &[]);
    assert_eq!((code, said.as_str()), (0, ""));
    let lines: Vec<&str> = out.lines().collect();
    assert_eq!(lines.len(), 3);
    assert_eq!((lines[0], lines[2]), (lines[2], line(tokens[1], "10.0.0.1").trim_end()));
    // Of the two persons' spellings it is one.
    assert!(
        lines[1] == line(tokens[0], ADDRESS).trim_end() || lines[1].ends_with("\t ::ffff:199.172.111.135"),
        "{out}"
    );
    let record = vault.record().await;
    assert_eq!(record[0], "find\t2\t{\"field\": \"ip\"}");
    assert_eq!(record[1..], ["reveal\t2\t{}", "revealed\t0\t{\"shown\": 2, \"missing\": 0, \"tampered\": 0}"]);
    let who = "SELECT DISTINCT login LIKE 'revealer_%', claimed <> '', coalesce(purpose || ticket || reason, '-') \
               FROM masq.audit WHERE action IN ('reveal', 'revealed') ORDER BY 3";
    assert_eq!(vault.scene.database.query(who).await, ["t\tt\t-", "t\tt\tFRAUDT-17many accounts, one device"]);

    let (code, out, _) = vault.reveal(&tokens[..1], &["--json"]);
    let json: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, &json["token"], &json["field"]), (0, &tokens[0].to_string().into(), &"ip".into()));
    assert!(json["value"].as_str().unwrap().ends_with(ADDRESS), "{json}");
}

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
        assert_eq!(refused.code().map(|code| code.code().to_owned()).as_deref(), Some("MQ003"), "{sql}");
        client.batch_execute("ROLLBACK").await.unwrap();
    }
    assert_eq!(vault.record().await, [""; 0], "nothing was given, and nothing asked");

    client.batch_execute(&ask).await.unwrap();
    client.batch_execute(&format!("BEGIN; {fetch}; ROLLBACK")).await.unwrap();
    assert_eq!(vault.record().await, ["reveal\t1\t{}"], "what was given was asked for");
    let other = plain(&vault.logins[1]).await;
    let refused = other.simple_query(&fetch).await.unwrap_err();
    assert_eq!(refused.code().map(|code| code.code().to_owned()).as_deref(), Some("MQ006"), "it is somebody else's");
}

#[tokio::test]
async fn without_a_reason_or_beyond_the_quota_nothing_is_asked_for() {
    let vault = Vault::of(&[("u", ADDRESS), ("v", "10.0.0.1")]).await;
    let tokens = [vault.token(ADDRESS), vault.token("10.0.0.1")];
    let reveal = |purpose, ticket, reason| {
        let why = ["--purpose", purpose, "--ticket", ticket, "--reason", reason, &*tokens[0].to_string().leak()];
        vault.masq(0, &[&vault.args()[..], &why[..]].concat(), b"")
    };
    for (why, said) in [
        (("CURIOSITY", "T-1", "a reason of some length"), "the purpose is none of: ERASURE, FRAUD"),
        (("FRAUD", "  ", "a reason of some length"), "a ticket and a reason"),
        (("FRAUD", "T-1", "why not"), "ten characters"),
    ] {
        let (code, out, err) = reveal(why.0, why.1, why.2);
        assert_eq!((code, out.as_str()), (2, ""), "{err}");
        assert!(err.contains(said) && err.contains("masq.purposes"), "{err}");
    }
    let (code, _, err) = vault.masq(0, &[&vault.args()[..], &WHY[..4]].concat(), tokens[0].to_string().as_bytes());
    assert!(code == 2 && err.contains("--reason"), "{err}");

    vault.scene.database.execute("UPDATE masq.policy SET daily_quota = 2").await;
    assert_eq!(vault.reveal(&tokens[..1], &[]).0, 0);
    let (code, out, err) = vault.reveal(&tokens, &[]);
    assert_eq!((code, out.as_str()), (75, ""), "{err}");
    assert!(err.contains("the quota of 2 tokens a day is exceeded by 1") && err.contains("midnight UTC"), "{err}");
    assert_eq!(vault.reveal(&tokens[1..], &[]).0, 0, "what was refused did not count");
    assert_eq!(vault.record().await.len(), 4);
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
    crate::support::until("the second waits", async || vault.scene.database.query(waits).await == ["1"]).await;
    first.batch_execute("COMMIT").await.unwrap();
    let refused = waiting.await.unwrap().unwrap_err();
    assert_eq!(refused.code().map(|code| code.code().to_owned()).as_deref(), Some("MQ002"));
    assert_eq!(vault.record().await, ["reveal\t1\t{}"]);
}

#[tokio::test]
async fn many_tokens_wait_for_a_second_person_who_is_another_one() {
    let users: Vec<(String, String)> = (0..11).map(|n| (format!("u{n}"), format!("10.0.0.{n}"))).collect();
    let users: Vec<(&str, &str)> = users.iter().map(|(user, ip)| (user.as_str(), ip.as_str())).collect();
    let vault = Vault::of(&users).await;
    let tokens: Vec<Token> = users.iter().map(|(_, ip)| vault.token(ip)).collect();
    let (code, out, said) = vault.reveal(&tokens, &[]);
    assert_eq!((code, out.as_str()), (75, ""), "{said}");
    let seq = vault.scene.database.query("SELECT max(seq) FROM masq.audit").await.remove(0);
    assert!(said.contains(&format!("request {seq} is for 11 tokens")) && said.contains("masq approve"), "{said}");
    let (code, out, said) = vault.go_on(0, &seq);
    assert!(code == 75 && out.is_empty() && said.contains("a second login"), "{said}");

    let (code, _, said) = vault.masq(0, &["approve", &seq, "--yes"], b"");
    assert!(code == 77 && said.contains("who asks cannot approve") && said.contains("another login"), "{said}");
    let (code, _, said) = vault.masq(1, &["approve", &seq], b"y\n");
    assert!(code == 2 && said.contains("--yes"), "only a terminal is asked: {said}");
    assert_eq!(vault.go_on(0, &seq).0, 75, "nothing was approved so far");
    let (code, _, said) = vault.masq(1, &["approve", &seq, "--yes", "--reason", "spoke to them"], b"");
    assert_eq!(code, 0, "{said}");
    for told in ["the values of 11 tokens", "FRAUD, ticket T-17", "many accounts, one device", "by        revealer_"] {
        assert!(said.contains(told), "{said}");
    }
    assert_eq!(vault.go_on(1, &seq).0, 2, "who approves is not shown it");
    let (code, out, said) = vault.go_on(0, &seq);
    let expected: String = users.iter().map(|(_, ip)| line(vault.token(ip), ip)).collect();
    assert_eq!((code, out), (0, expected), "{said}");
    assert_eq!(vault.masq(1, &["approve", "999", "--yes"], b"").0, 2);
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
async fn all_that_a_worker_has_opens_nothing_that_it_sealed() {
    let vault = Vault::of(&[("u", ADDRESS)]).await;
    let database = &vault.scene.database;
    let role = format!("worker_{}", uuid::Uuid::new_v4().simple());
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
        assert_eq!(refused.code().map(|code| code.code().to_owned()).as_deref(), Some("42501"), "{sql}");
    }

    // Even with a copy of the database: none of its keys is the one that opens an epoch.
    let session = database.session().await;
    let row = session
        .query_one("SELECT epoch, subject_tag, sealed, token FROM masq.entries WHERE field = 'ip'", &[])
        .await
        .unwrap();
    let headers = epochs::headers(&session, &[row.get(0)]).await.unwrap();
    let ring = KeyRing::load(&vault.scene.keys.path()).unwrap();
    assert!(!vault.scene.keys.path().join("audit.key").exists() || ring.recipients.len() == 1);
    for file in ["token.key", "subject.key"] {
        let text = std::fs::read_to_string(vault.scene.keys.path().join(file)).unwrap();
        let key = text.lines().last().map(base64_32).unwrap();
        let shut = Opener::new(&RecoveryKey::new(&key)).epoch(&headers[0]).err().unwrap();
        assert!(matches!(shut, OpenError::WrongKey { .. }));
    }
    // The one that does is on nobody's worker, and opens it.
    let key = masq::vault::identity::load(&vault.scene.keys.path().join("recovery.key"), None)
        .unwrap_or_else(|e| panic!("{e}"));
    let salt = session.query_one("SELECT salt FROM masq_slots.slots", &[]).await.unwrap().get::<_, Vec<u8>>(0);
    let mut opener = Opener::new(&key);
    let epoch = opener.epoch(&headers[0]).unwrap_or_else(|error| panic!("{error}"));
    let subject = SubjectTag(row.get::<_, Vec<u8>>(1).try_into().unwrap());
    let slot = epoch.slot(subject, &salt.try_into().unwrap());
    let token = Token(row.get::<_, Vec<u8>>(3).try_into().unwrap());
    let opened = epoch.open_value(&slot, "ip", &token, row.get(2)).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(*opened.raw, ADDRESS);
    assert!(!Shut::NoSlot.is_tampering());
}

fn base64_32(line: &str) -> [u8; 32] {
    use base64::{Engine, prelude::BASE64_STANDARD};
    BASE64_STANDARD.decode(line).unwrap().try_into().unwrap()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[tokio::test]
async fn values_go_to_a_terminal_or_sealed_to_a_person_and_else_nowhere() {
    /// The age project's own test identity and its recipient.
    const IDENTITY: &str = "AGE-SECRET-KEY-1EGTZVFFV20835NWYV6270LXYVK2VKNX2MMDKWYKLMGR48UAWX40Q2P2LM0";
    const RECIPIENT: &str = "age1xmwwc06ly3ee5rytxm9mflaz2u56jjj36s0mypdrwsvlul66mv4q47ryef";
    let vault = Vault::of(&[("u", ADDRESS)]).await;
    let token = vault.token(ADDRESS).to_string();
    let identity = vault.scene.keys.path().join("recovery.key").display().to_string();
    let args = [&["reveal", &token, "--identity", &identity], &WHY[..]].concat();

    let (code, out, said) = vault.masq(0, &args, b"");
    assert!(code == 2 && out.is_empty() && said.contains("--recipient"), "{said}");
    let (code, _, said) = vault.masq(0, &[&args[..], &["--output", "x"]].concat(), b"");
    assert!(code == 2 && said.contains("--recipient"), "{said}");
    let wrong = RECIPIENT.replace("xmww", "xmwm");
    let (code, _, said) = vault.masq(0, &[&args[..], &["--recipient", &wrong]].concat(), b"");
    assert!(code == 2 && said.contains("copy it again"), "{said}");
    assert_eq!(vault.record().await, [""; 0], "nothing was asked for so far");

    let (code, out, said) = vault.masq(0, &[&args[..], &["--recipient", RECIPIENT]].concat(), b"");
    assert_eq!((code, said.as_str()), (0, ""));
    assert_eq!(python_prints("open_age.py", &[IDENTITY], out).await, line(vault.token(ADDRESS), ADDRESS));

    let directory = TempDir::new().unwrap();
    let file = directory.path().join("values.age");
    let to_file = [&args[..], &["--recipient", RECIPIENT, "--json", "--output", file.to_str().unwrap()]].concat();
    let (code, out, said) = vault.masq(0, &to_file, b"");
    assert_eq!((code, out.as_str()), (0, ""), "{said}");
    assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    let sealed = std::fs::read_to_string(&file).unwrap();
    let json: Value = serde_json::from_str(&python_prints("open_age.py", &[IDENTITY], sealed).await).unwrap();
    assert_eq!(json["value"], ADDRESS);
    let requests = vault.record().await.len();
    let (code, _, said) = vault.masq(0, &to_file, b"");
    assert!(code == 2 && said.contains("exists already"), "{said}");
    assert_eq!(vault.record().await.len(), requests);

    // Python's own terminal.
    let spawn = "import os, pty, sys; sys.exit(os.waitstatus_to_exitcode(pty.spawn(sys.argv[1:])))";
    let mut terminal = std::process::Command::new(python());
    terminal.args(["-c", spawn, env!("CARGO_BIN_EXE_masq")]).args(&args).stdin(std::process::Stdio::null());
    terminal.env("DATABASE_URL", &vault.logins[0]).env("MASQ_KEYS", vault.scene.keys.path());
    let Output { status, stdout, .. } = terminal.output().unwrap();
    let shown = String::from_utf8(stdout).unwrap();
    assert!(status.success() && shown.contains(&format!("{token}\t{ADDRESS}\r\n")), "{shown}");
}

#[tokio::test]
async fn a_large_answer_is_sealed_in_several_chunks() {
    let vault_text: String = (0..20_000).map(|n| format!("{n}\n")).collect();
    let recipient: masq::vault::age_recipient::Recipient =
        "age1xmwwc06ly3ee5rytxm9mflaz2u56jjj36s0mypdrwsvlul66mv4q47ryef".parse().unwrap();
    for len in [0, 65_535, 65_536, 65_537, vault_text.len()] {
        let text = &vault_text[..len];
        let sealed = recipient.seal(text.as_bytes(), &zeroize::Zeroizing::new([9; 64]));
        let identity = "AGE-SECRET-KEY-1EGTZVFFV20835NWYV6270LXYVK2VKNX2MMDKWYKLMGR48UAWX40Q2P2LM0";
        assert_eq!(python_prints("open_age.py", &[identity], sealed).await, text);
    }
}

#[tokio::test]
async fn what_cannot_be_revealed_is_told_apart() {
    let vault = Vault::of(&[("u", ADDRESS), ("v", "10.0.0.1")]).await;
    let (mine, theirs) = (vault.token(ADDRESS), vault.token("10.0.0.1"));
    let (none, unknown, tombstone) = (Token([1; 32]), Token([7; 32]), Token([0; 32]));
    let (code, out, said) = vault.reveal(&[tombstone, unknown], &[]);
    assert_eq!((code, out), (3, line(tombstone, "") + &line(unknown, "")));
    assert!(said.contains("was erased") && said.contains("no key with key id 7"), "{said}");
    assert_eq!(vault.record().await, [""; 0], "neither was asked for");

    let (code, _, said) = vault.reveal(&[none], &[]);
    assert!(code == 3 && said.contains("nothing under it"), "{said}");
    let (code, _, said) = vault.masq(0, &[&vault.args()[..], &WHY[..], &["0123"]].concat(), b"");
    assert!(code == 2 && said.contains("token 1 is no token"), "{said}");
    let (code, _, said) =
        vault.masq(0, &[&vault.args()[..], &WHY[..]].concat(), format!("{mine}\n\nx{mine}\n").as_bytes());
    assert!(code == 2 && said.contains("line 3 is no token"), "{said}");
    assert_eq!(vault.masq(0, &[&vault.args()[..], &WHY[..]].concat(), b"").0, 2);

    // Slots are gone before anything is on record, as while a person is being erased; then the epochs' keys.
    let tag = hex(&vault.scene.shared.keys.subject.tag("u").0);
    vault.scene.database.execute(&format!("DELETE FROM masq_slots.slots WHERE subject_tag = '\\x{tag}'")).await;
    let (code, out, said) = vault.reveal(&[mine, theirs], &[]);
    assert_eq!((code, out), (3, line(mine, "") + &line(theirs, "10.0.0.1")));
    assert!(said.contains("its slot is gone") && !said.contains("ALARM"), "{said}");
    let erase = format!("INSERT INTO masq.erasures VALUES (1, '\\x{tag}', now())");
    vault.scene.database.execute(&erase).await;
    let said = vault.reveal(&[mine], &[]).2;
    assert!(said.contains("nothing under it"), "{said}");
    vault.scene.database.execute("DELETE FROM masq.epoch_wraps").await;
    let said = vault.reveal(&[theirs], &[]).2;
    assert!(said.contains("has expired"), "{said}");

    // Another database is none of this one's erasures.
    vault.scene.database.execute("UPDATE masq.home SET identity = 'elsewhere'").await;
    let (code, out, said) = vault.reveal(&[theirs], &[]);
    assert_eq!((code, out.as_str()), (77, ""));
    assert!(said.contains("restored or moved") && said.contains("masq forget --replay"), "{said}");
}

#[tokio::test]
async fn another_recovery_key_opens_nothing_and_the_right_one_goes_on() {
    let vault = Vault::of(&[("u", ADDRESS)]).await;
    let (token, other) = (vault.token(ADDRESS), Keys::create());
    let identity = other.path().join("recovery.key").display().to_string();
    let args = ["reveal", "--identity", &identity, "--plain-output-i-know", &token.to_string()];
    let (code, out, said) = vault.masq(0, &[&args[..], &WHY[..]].concat(), b"");
    assert_eq!((code, out), (3, line(token, "")));
    let ours = hex(&vault.scene.shared.keys.fingerprints()[0][..8]);
    assert!(said.contains(&format!("begins {ours}")) && !said.contains("ALARM"), "{said}");
    let seq = vault.scene.database.query("SELECT seq FROM masq.audit WHERE action = 'reveal'").await.remove(0);
    assert_eq!(vault.go_on(0, &seq).1, line(token, ADDRESS));
}

#[tokio::test]
async fn a_value_has_a_token_for_each_key_in_use_and_none_may_be_missing() {
    let vault = Vault::of(&[("u", ADDRESS)]).await;
    let keys = vault.scene.keys.path();
    let text = std::fs::read_to_string(keys.join("token.key")).unwrap().replace("kid=1", "kid=2");
    std::fs::write(keys.join("token-2.key"), text).unwrap();
    std::fs::set_permissions(keys.join("token-2.key"), std::fs::Permissions::from_mode(0o400)).unwrap();
    let root = masq::vault::token_files::read(&keys.join("token-2.key")).unwrap_or_else(|error| panic!("{error}"));
    let second = format!("INSERT INTO masq.token_keys VALUES (2, '\\x{}', 'active')", hex(&root.check_value()));
    vault.scene.database.execute("UPDATE masq.token_keys SET state = 'read-only'").await;
    vault.scene.database.execute(&second).await;

    let find =
        |args: &[&str], values: &str| vault.masq(0, &[&["find", "--field", "ip"], args].concat(), values.as_bytes());
    let (code, out, said) = find(&["--json", "--reason", "ticket 4711"], ADDRESS);
    assert_eq!(code, 0, "{said}");
    let found: Vec<Value> = out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let told: Vec<_> = found.iter().map(|it| (it["key_id"].as_u64().unwrap(), it["state"].as_str().unwrap())).collect();
    assert_eq!(told, [(1, "read-only"), (2, "active")]);
    assert_eq!(found[0]["token"], vault.token(ADDRESS).to_string());
    assert!(!out.contains(ADDRESS));
    let reasons = "SELECT reason, cardinality(items) FROM masq.audit WHERE action = 'find'";
    assert_eq!(vault.scene.database.query(reasons).await, ["ticket 4711\t2"]);

    for (args, values, said) in [
        (&["-"][..], "10.0.0.1\n10.0.0.256\n", "line 2 is no IP address"),
        (&["10.0.0.1"], "", "stdin"),
        (&["--field", "ipp"], "10.0.0.1", "did you mean"),
    ] {
        let (code, out, err) = match args {
            ["--field", field] => vault.masq(0, &["find", "--field", field], values.as_bytes()),
            args => find(args, values),
        };
        assert!(code == 2 && out.is_empty() && err.contains(said), "{err}");
        assert!(!err.contains("10.0.0.256") && !err.contains("no IP address: 10"), "{err}");
    }
    assert_eq!(vault.scene.database.query(reasons).await.len(), 1, "what was no question is not on the record");

    std::fs::remove_file(keys.join("token-2.key")).unwrap();
    let (code, out, said) = find(&[], ADDRESS);
    assert!(code == 78 && out.is_empty() && said.contains("token-2.key"), "{said}");
    let (code, out, said) = vault.reveal(&[Token([2; 32]), vault.token(ADDRESS)], &[]);
    assert_eq!((code, out), (3, line(Token([2; 32]), "") + &line(vault.token(ADDRESS), ADDRESS)));
    assert!(said.contains("could not be checked") && said.contains("token-2.key"), "{said}");

    let foreign = Keys::create();
    let directory = foreign.path().display().to_string();
    let (code, _, said) = find(&["--keys", &directory], ADDRESS);
    assert!(code == 78 && said.contains("not the key with which this database was written"), "{said}");
}

#[tokio::test]
async fn a_login_without_the_role_and_a_database_without_a_vault_are_told_what_helps() {
    let vault = Vault::of(&[("u", ADDRESS)]).await;
    let role = format!("nobody_{}", uuid::Uuid::new_v4().simple());
    vault.scene.database.execute(&format!("CREATE ROLE {role} LOGIN")).await;
    let nobody = vault.scene.database.url.replace("postgres@", &format!("{role}@"));
    let empty = crate::support::Database::create().await.url;
    for (url, expected, words) in [(nobody, 77, "masq_revealer"), (empty, 78, "masq migrate")] {
        let (code, _, said) = vault.masq(0, &["find", "--field", "ip", "--database-url", &url], ADDRESS.as_bytes());
        assert!(code == expected && said.contains(words), "{said}");
        let (code, _, said) = vault.masq(0, &["approve", "1", "--yes", "--database-url", &url], b"");
        assert!(code == expected && said.contains(words), "{said}");
        let (code, _, said) = vault.reveal(&[vault.token(ADDRESS)], &["--database-url", &url]);
        assert!(code == expected && said.contains(words), "{said}");
    }
}

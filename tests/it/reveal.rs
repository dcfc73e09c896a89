//! The way back: from a value to its token, from a token to its value, and a second person in between. What the commands
//! show, what they refuse, and what stays on the record.

use std::{
    io::Write,
    os::unix::fs::PermissionsExt,
    process::{Command, Output, Stdio},
};

use masq::{
    config::Config,
    vault::{
        age_recipient::Recipient,
        token::{Kind, Token},
        token_files,
    },
};
use serde_json::Value;
use tempfile::TempDir;
use uuid::Uuid;

use crate::{
    scene::Scene,
    support::{Database, Keys, config, login, masq, python, python_prints},
};

pub(crate) const ADDRESS: &str = "199.172.111.135";
const WHY: [&str; 6] = ["--purpose", "FRAUD", "--ticket", "T-17", "--reason", "many accounts, one device"];
/// What `masq migrate --roles` gives to whoever reveals.
const REVEALER: &str = "\
    GRANT USAGE ON SCHEMA masq, masq_slots TO $; GRANT SELECT ON masq.token_keys, masq.recipients, masq.purposes TO $; \
    GRANT EXECUTE ON FUNCTION masq.request_reveal(text, text, text, text, bytea[]), masq.requested(bigint), \
    masq.fetch_entries(bigint), masq.fetch_further(bigint, bytea, integer), masq.fetch_epochs(uuid[]), \
    masq.revealed(bigint, text, integer, integer, integer), masq.pending(bigint), masq.approve(bigint, text, text), \
    masq.found(text, text, text, bytea[]), masq_slots.fetch_slots(bytea[], uuid[]) TO $";

/// A vault with the values of these users, and two logins that may reveal.
pub(crate) struct Vault {
    pub(crate) scene: Scene,
    /// The addresses of both logins.
    pub(crate) logins: [String; 2],
    /// The recovery key's file.
    identity: String,
}

impl Vault {
    pub(crate) async fn of(users: &[(&str, &str)]) -> Self {
        Self::with(config(), users).await
    }

    pub(crate) async fn with(config: Config, users: &[(&str, &str)]) -> Self {
        let scene = Scene::with(config).await;
        for (user, ip) in users {
            scene.queue.inner.send(login(user, ip).into_bytes());
        }
        scene.settle().await;
        let mut logins = Vec::new();
        for _ in 0..2 {
            let role = format!("revealer_{}", Uuid::new_v4().simple());
            let grants = REVEALER.replace('$', &role);
            scene.database.execute(&format!("CREATE ROLE {role} LOGIN; {grants}")).await;
            logins.push(scene.database.url.replace("postgres@", &format!("{role}@")));
        }
        let identity = scene.keys.path().join("recovery.key").display().to_string();
        Self { logins: logins.try_into().unwrap(), scene, identity }
    }

    /// The token of an address.
    pub(crate) fn token(&self, ip: &str) -> Token {
        self.scene.shared.keys.token.domain("ip").unwrap().token(Kind::Ip, ip).unwrap()
    }

    /// The program, as the first login or the second, with the keys of the scene and this on stdin.
    pub(crate) fn masq(&self, who: usize, args: &[&str], stdin: &[u8]) -> (i32, String, String) {
        let here = TempDir::new().unwrap();
        let mut command = masq(here.path(), args);
        command.env("DATABASE_URL", &self.logins[who]).env("MASQ_KEYS", self.scene.keys.path());
        let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
        // It may have ended already, over a wrong command line.
        drop(child.stdin.take().unwrap().write_all(stdin));
        let Output { status, stdout, stderr } = child.wait_with_output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (status.code().unwrap(), text(stdout), text(stderr))
    }

    /// Reveals these tokens into a pipe.
    pub(crate) fn reveal(&self, tokens: &[Token], more: &[&str]) -> (i32, String, String) {
        let lines: String = tokens.iter().map(|token| format!("{token}\n")).collect();
        self.masq(0, &[&self.args()[..], &WHY, more].concat(), lines.as_bytes())
    }

    /// Goes on with a request.
    pub(crate) fn go_on(&self, who: usize, request: &str) -> (i32, String, String) {
        self.masq(who, &[&self.args()[..], &["--request", request]].concat(), b"")
    }

    fn args(&self) -> [&str; 4] {
        ["reveal", "--identity", &self.identity, "--plain-output-i-know"]
    }

    /// What is on the record beside the epochs: action, items, outcome.
    pub(crate) async fn record(&self) -> Vec<String> {
        let sql = "SELECT action, cardinality(items), detail FROM masq.audit WHERE action <> 'epoch' ORDER BY seq";
        self.scene.database.query(sql).await
    }
}

pub(crate) fn line(token: Token, value: &str) -> String {
    format!("{token}\t{value}\n")
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
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
async fn without_a_reason_or_beyond_the_quota_nothing_is_asked_for() {
    let vault = Vault::of(&[("u", ADDRESS), ("v", "10.0.0.1")]).await;
    let tokens = [vault.token(ADDRESS), vault.token("10.0.0.1")];
    let text = tokens[0].to_string();
    let reveal = |purpose, ticket, reason| {
        let why = ["--purpose", purpose, "--ticket", ticket, "--reason", reason, &text];
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
    let mut terminal = Command::new(python());
    terminal.args(["-c", spawn, env!("CARGO_BIN_EXE_masq")]).args(&args).stdin(Stdio::null());
    terminal.env("DATABASE_URL", &vault.logins[0]).env("MASQ_KEYS", vault.scene.keys.path());
    let Output { status, stdout, .. } = terminal.output().unwrap();
    let shown = String::from_utf8(stdout).unwrap();
    assert!(status.success() && shown.contains(&format!("{token}\t{ADDRESS}\r\n")), "{shown}");
}

#[tokio::test]
async fn a_large_answer_is_sealed_in_several_chunks() {
    let vault_text: String = (0..20_000).map(|n| format!("{n}\n")).collect();
    let recipient: Recipient = "age1xmwwc06ly3ee5rytxm9mflaz2u56jjj36s0mypdrwsvlul66mv4q47ryef".parse().unwrap();
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
    let erase = format!(
        "INSERT INTO masq.erasures (id, subject_tag, erased_at, key, delete_rows, rows_deleted) VALUES \
         (1, '\\x{tag}', now(), '00000000-0000-4000-8000-000000000000', false, 0)"
    );
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
    let foreign = || vault.masq(0, &[&args[..], &WHY[..]].concat(), b"");
    let theirs = other.load().fingerprints()[0];
    let (code, out, said) = foreign();
    assert_eq!((code, out.as_str()), (78, ""));
    assert!(said.contains(&hex(&theirs[..8])) && said.contains("--identity"), "{said}");
    assert_eq!(vault.record().await, [""; 0], "nothing was asked for, and the quota is whole");

    // One that the database knows, and to which this epoch is not sealed yet.
    let known = format!("INSERT INTO masq.recipients VALUES ('\\x{}', 'active')", hex(&theirs));
    vault.scene.database.execute(&known).await;
    let (code, out, said) = foreign();
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
    let root = token_files::read(&keys.join("token-2.key")).unwrap_or_else(|error| panic!("{error}"));
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
    let role = format!("nobody_{}", Uuid::new_v4().simple());
    vault.scene.database.execute(&format!("CREATE ROLE {role} LOGIN")).await;
    let nobody = vault.scene.database.url.replace("postgres@", &format!("{role}@"));
    let empty = Database::create().await.url;
    for (url, expected, words) in [(nobody, 77, "masq_revealer"), (empty, 78, "masq migrate")] {
        let (code, _, said) = vault.masq(0, &["find", "--field", "ip", "--database-url", &url], ADDRESS.as_bytes());
        assert!(code == expected && said.contains(words), "{said}");
        let (code, _, said) = vault.masq(0, &["approve", "1", "--yes", "--database-url", &url], b"");
        assert!(code == expected && said.contains(words), "{said}");
        let (code, _, said) = vault.reveal(&[vault.token(ADDRESS)], &["--database-url", &url]);
        assert!(code == expected && said.contains(words), "{said}");
    }
}

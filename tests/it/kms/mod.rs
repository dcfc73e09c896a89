//! AWS KMS: the whole way from `masq keys new` to an opened dead letter, against a KMS of our own that knows permissions
//! ([`stand_in`]), also for a database that began without one ([`added`]); the same bytes against moto and boto3 ([`boto3`]); and a worker whose KMS is away ([`outage`]).

mod added;
mod boto3;
mod outage;
mod stand_in;

use std::{path::Path, sync::Arc};

use masq::vault::{
    epochs::{self, Opener},
    keyring::{KeyRing, Lookup},
    kms::{KmsError, KmsKey, epochs::KmsOpener},
    seal::OpenError,
};
use tempfile::TempDir;

use self::stand_in::{Call, REVEALER, StandIn, TOKEN_KEY, VAULT_ALIAS, VAULT_KEY, WORKER};
use crate::{
    scene::Scene,
    support::{login, masq},
};

/// Runs masq with these credentials: exit code, stdout, stderr.
fn run(stand_in: &StandIn, who: &'static str, here: &Path, arguments: &[&str]) -> (i32, String, String) {
    let mut command = masq(here, arguments);
    let environment = stand_in.environment(who);
    for name in ["AWS_ENDPOINT_URL_KMS", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION"] {
        command.env(name, environment(name).unwrap());
    }
    let output = command.output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code().unwrap(), text(&output.stdout), text(&output.stderr))
}

/// Keys of which KMS keeps everything that it can: the token root is wrapped, and there is no recovery key.
struct KmsAlone {
    stand_in: Arc<StandIn>,
    here: TempDir,
}

impl KmsAlone {
    async fn make() -> Self {
        let (stand_in, here) = (Arc::new(StandIn::start().await), TempDir::new().unwrap());
        let made = Self { stand_in, here };
        let (code, out, err) =
            made.run(WORKER, &["keys", "new", "keys", "--kms-token-key", TOKEN_KEY, "--no-passphrase"]);
        assert_eq!(code, 0, "{err}");
        assert!(out.contains(&format!("key id 1, opened by {TOKEN_KEY}")), "{out}");
        for file in ["recovery.pub", "recovery.key"] {
            std::fs::remove_file(made.here.path().join("keys").join(file)).unwrap();
        }
        std::fs::write(
            made.here.path().join("masq.toml"),
            format!("[keys]\ndir = \"keys\"\nkms_epoch_key = \"{VAULT_ALIAS}\"\n"),
        )
        .unwrap();
        made
    }

    fn run(&self, who: &'static str, arguments: &[&str]) -> (i32, String, String) {
        // The stand-in answers from this process.
        tokio::task::block_in_place(|| run(&self.stand_in, who, self.here.path(), arguments))
    }

    async fn load(&self) -> KeyRing {
        let dir = self.here.path().join("keys");
        let environment: Lookup = Arc::new(self.stand_in.environment(WORKER));
        KeyRing::load_with_kms(&dir, None, Some(VAULT_ALIAS), &environment)
            .await
            .unwrap_or_else(|error| panic!("{error}"))
    }

    /// A database with a row and a dead letter, written by workers with these keys.
    async fn loaded(&self) -> Scene {
        let mut scene = Box::pin(Scene::new()).await;
        scene.shared.keys = Arc::new(Box::pin(self.load()).await);
        scene.send("u");
        scene.queue.inner.send(login("v", "not an address").into_bytes());
        Box::pin(scene.settle()).await;
        scene
    }
}

/// The arguments that show a dead letter to a pipe.
fn show<'a>(id: &'a str, scene: &'a Scene) -> [&'a str; 8] {
    let database = ["--database-url", &scene.database.url];
    ["dead", "show", id, "--plain-output-i-know", "--reason", "ticket 4711", database[0], database[1]]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_without_decrypt_seals_and_who_may_decrypt_opens() {
    let kms = KmsAlone::make().await;
    let scene = kms.loaded().await;
    assert_eq!(scene.reasons().await, ["bad_ip:ip"]);
    let worked = kms.stand_in.calls();
    assert!(worked.iter().all(|call| call.who == WORKER));
    assert!(worked.iter().any(|call| call.action == "GenerateDataKey" && call.key == VAULT_KEY));
    assert!(!worked.iter().any(|call| call.action == "Decrypt" && call.key == VAULT_KEY), "{worked:?}");

    let id = scene.database.query("SELECT message_id FROM masq.dead_letters").await.remove(0);
    let show = show(&id, &scene);
    let by_config = kms.run(REVEALER, &show);
    assert_eq!((by_config.0, by_config.1), (0, login("v", "not an address")), "{}", by_config.2);
    let named = format!("--kms={VAULT_KEY}");
    let by_name = kms.run(REVEALER, &[&show[..], &[&named]].concat());
    assert_eq!((by_name.0, by_name.1), (0, login("v", "not an address")), "{}", by_name.2);

    let (code, out, err) = kms.run(WORKER, &show);
    assert_eq!((code, out.as_str()), (77, ""), "{err}");
    assert!(err.contains("AccessDeniedException") && err.contains("allow kms:Decrypt"), "{err}");
    let named = format!("--kms={TOKEN_KEY}");
    let (code, out, err) = kms.run(REVEALER, &[&show[..], &[&named]].concat());
    assert_eq!((code, out.as_str()), (78, ""), "{err}");
    assert!(err.contains("open it with --kms and the name of that key"), "{err}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blob_is_bound_to_its_epoch_by_the_encryption_context() {
    let kms = KmsAlone::make().await;
    let ring = kms.load().await;
    let [mut one, two] = [ring.new_epoch(5).await, ring.new_epoch(6).await]
        .map(|epoch| epoch.unwrap_or_else(|error| panic!("{error}")).header().clone());
    let expected = serde_json::json!({ "masq:use": "epoch", "masq:epoch": two.id.to_string(), "masq:started_at": "6" });
    let last = kms.stand_in.calls().pop().unwrap();
    assert_eq!(
        last,
        Call { who: WORKER.into(), action: "GenerateDataKey".into(), key: VAULT_KEY.into(), context: expected }
    );

    let key = KmsKey::connect(VAULT_ALIAS, &kms.stand_in.environment(REVEALER)).await.unwrap();
    let opener = KmsOpener::new(key);
    let mut opener = Opener::of_kms(&opener);
    opener.fetch([&one, &two]).await.unwrap();
    assert!(opener.epoch(&one).is_ok() && opener.epoch(&two).is_ok());
    one.wraps = two.wraps;
    opener.fetch([]).await.unwrap();
    opener.fetch([&one]).await.unwrap();
    assert!(matches!(opener.epoch(&one), Err(OpenError::Tampered)));
}

#[tokio::test(flavor = "multi_thread")]
async fn with_recovery_pub_beside_it_either_opens() {
    let kms = KmsAlone::make().await;
    let beside = kms.here.path().join("keys");
    let other = TempDir::new().unwrap();
    masq::vault::keyring::create(&other.path().join("k"), None).unwrap();
    std::fs::copy(other.path().join("k/recovery.pub"), beside.join("recovery.pub")).unwrap();
    let identity = other.path().join("k/recovery.key");
    let scene = kms.loaded().await;
    let id = scene.database.query("SELECT message_id FROM masq.dead_letters").await.remove(0);
    let show = show(&id, &scene);
    let before = kms.stand_in.calls().len();
    let by_file = kms.run(WORKER, &[&show[..], &["--identity", identity.to_str().unwrap()]].concat());
    assert_eq!((by_file.0, by_file.1), (0, login("v", "not an address")), "{}", by_file.2);
    assert_eq!(kms.stand_in.calls().len(), before, "KMS is not asked");
    let by_kms = kms.run(REVEALER, &show);
    assert_eq!((by_kms.0, by_kms.1), (0, login("v", "not an address")), "{}", by_kms.2);
}

#[tokio::test(flavor = "multi_thread")]
async fn values_are_revealed_with_kms() {
    let kms = KmsAlone::make().await;
    let scene = kms.loaded().await;
    let token = scene.database.query("SELECT masked_ip FROM user_logins WHERE user_id = 'u'").await.remove(0);
    let why = ["--purpose", "FRAUD", "--ticket", "T-17", "--reason", "many accounts, one device"];
    let reveal = ["reveal", &token, "--plain-output-i-know", "--database-url", &scene.database.url];
    let (code, out, err) = kms.run(REVEALER, &[&reveal[..], &why].concat());
    assert_eq!((code, out), (0, format!("{token}\t199.172.111.135\n")), "{err}");
    let (code, out, err) = kms.run(WORKER, &[&reveal[..], &why].concat());
    assert_eq!((code, out.as_str()), (77, ""), "{err}");
    assert!(err.contains("allow kms:Decrypt"), "{err}");
}

#[tokio::test(flavor = "multi_thread")]
async fn letters_are_replayed_with_kms() {
    let kms = KmsAlone::make().await;
    let scene = kms.loaded().await;
    let file = kms.here.path().join("masq.toml");
    let mended = std::fs::read_to_string(&file).unwrap()
        + "[columns]\nuser_id = { from = \"user_id\", type = \"varchar(128)\", required = true, subject = true }\n";
    std::fs::write(&file, mended).unwrap();
    // Whoever replays does what a worker does, too, so it takes both permissions: here KMS is asked by one who lacks one.
    let replay = ["dead", "replay", "--all", "--reason", "ticket 4711", "--database-url", &scene.database.url];
    let (code, _, err) = kms.run(WORKER, &[&replay[..], &["--dry-run"]].concat());
    assert_eq!(code, 77, "{err}");
    assert!(err.contains("allow kms:Decrypt") && err.contains("0 would become rows"), "{err}");
    kms.stand_in.allow(REVEALER, "GenerateDataKey", VAULT_KEY);
    let (code, _, err) = kms.run(REVEALER, &replay);
    assert_eq!((code, err.contains("1 became rows")), (0, true), "{err}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_kms_refuses_is_said_before_anything_is_begun() {
    let kms = KmsAlone::make().await;
    let check = |code: Option<&'static str>| {
        kms.stand_in.fail(code);
        let (_, out, _) = kms.run(WORKER, &["check"]);
        out.lines().skip_while(|line| !line.contains(": keys: ")).take(2).collect::<Vec<_>>().join("\n")
    };
    assert_eq!(check(None), "");
    for (code, remedy) in [
        ("AccessDeniedException", "allow kms:Decrypt"),
        ("ExpiredTokenException", "check the access key"),
        ("NotFoundException", "check its name, the account and the region"),
        ("DisabledException", "enable it"),
        ("KMSInvalidStateException", "cancel the deletion"),
    ] {
        let said = check(Some(code));
        assert!(said.starts_with(&format!("problem: keys: KMS key {TOKEN_KEY}: Decrypt: ")), "{said}");
        assert!(said.contains(code) && said.contains(remedy), "{said}");
    }
    kms.stand_in.fail(Some("DisabledException"));
    let here = TempDir::new().unwrap();
    let made = ["keys", "new", "keys", "--kms-token-key", TOKEN_KEY, "--no-passphrase"];
    let (code, _, err) = tokio::task::block_in_place(|| run(&kms.stand_in, WORKER, here.path(), &made));
    assert_eq!((code, here.path().join("keys").exists()), (78, false), "{err}");
    let (code, _, err) = kms.run(WORKER, &["keys", "new", "more", "--kms-token-key", "token", "--no-passphrase"]);
    assert_eq!(code, 78, "{err}");
    let status = kms.run(WORKER, &["keys", "status"]);
    assert_eq!((status.0, status.1.contains("KMS alone opens")), (0, true), "{}", status.1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_knows_the_key_of_kms_it_was_written_with() {
    let kms = KmsAlone::make().await;
    let scene = kms.loaded().await;
    let mut other = Scene::on(crate::support::Database::of(&scene.database.url), crate::support::config());
    other.shared.keys = Arc::new(kms.load().await);
    assert!(other.start().await.is_ok());
    scene.database.execute("UPDATE masq.recipients SET fingerprint = sha256(fingerprint)").await;
    let said = other.start().await.err().unwrap().to_string();
    assert!(said.contains(&format!("{VAULT_KEY} is not the key with which this database was written")), "{said}");
    let headers = epochs::headers(&scene.database.session().await, &[]).await.unwrap();
    assert!(headers.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn throttling_is_waited_out_and_a_denial_is_not() {
    let stand_in = Arc::new(StandIn::start().await);
    let key = KmsKey::connect(VAULT_KEY, &stand_in.environment(WORKER)).await.unwrap();
    let context = masq::vault::kms::Context::new();
    stand_in.fail(Some("ThrottlingException"));
    let recover = async {
        crate::support::until("it is asked again", async || stand_in.calls().len() > 2).await;
        stand_in.fail(None);
    };
    let (made, ()) = tokio::join!(key.make(&context), recover);
    assert!(made.is_ok());
    stand_in.fail(Some("DisabledException"));
    let before = stand_in.calls().len();
    assert!(matches!(key.make(&context).await, Err(KmsError::Unusable { .. })));
    assert_eq!(stand_in.calls().len(), before + 1);
}

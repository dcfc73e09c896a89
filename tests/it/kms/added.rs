//! A key of KMS for a database that was written without one: put on record, let in, and given what is there already.

use serde_json::json;

use super::*;
use crate::support::{config, config_of};

/// A database that knows a recovery key alone, with a row and a dead letter.
struct Files {
    stand_in: Arc<StandIn>,
    scene: Scene,
    here: TempDir,
}

impl Files {
    async fn make() -> Self {
        let scene = Box::pin(Scene::with(config_of("[database]\nconnections = 1\n"))).await;
        scene.send("u");
        scene.queue.inner.send(login("v", "not an address").into_bytes());
        Box::pin(scene.settle()).await;
        let here = TempDir::new().unwrap();
        let file = format!("[keys]\ndir = {:?}\nkms_epoch_key = \"{VAULT_ALIAS}\"\n", scene.keys.path());
        std::fs::write(here.path().join("masq.toml"), file).unwrap();
        Self { stand_in: Arc::new(StandIn::start().await), scene, here }
    }

    fn run(&self, arguments: &[&str]) -> (i32, String, String) {
        let database = ["--database-url", &self.scene.database.url];
        let arguments = [arguments, &database].concat();
        tokio::task::block_in_place(|| run(&self.stand_in, REVEALER, self.here.path(), &arguments))
    }

    fn rotate(&self, arguments: &[&str]) -> (i32, String) {
        let why = ["--reason", "KMS from now on, ticket 4711"];
        let (code, _, said) = self.run(&[&["keys", "rotate", "--recovery"], arguments, &why].concat());
        (code, said)
    }

    /// Whether a worker may start with this key.
    async fn start(&self) -> Result<(), String> {
        let environment: Lookup = Arc::new(self.stand_in.environment(WORKER));
        let keys = KeyRing::load_with_kms(&self.scene.keys.path(), None, Some(VAULT_ALIAS), &environment).await;
        let mut worker = Scene::on(crate::support::Database::of(&self.scene.database.url), config());
        worker.shared.keys = Arc::new(keys.unwrap_or_else(|error| panic!("{error}")));
        worker.start().await.map(drop).map_err(|error| error.to_string())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_of_kms_is_let_in_and_opens_what_was_sealed_before() {
    let files = Files::make().await;
    let id = files.scene.database.query("SELECT message_id FROM masq.dead_letters").await.remove(0);
    let show = ["dead", "show", &id, "--plain-output-i-know", "--reason", "ticket 4711", "--kms"];
    let identity = files.scene.keys.path().join("recovery.key");
    let rewrap = ["--identity", identity.to_str().unwrap()];

    // Until it is let in, everybody who meets it says how that is done.
    let refused = files.start().await.unwrap_err();
    assert!(refused.contains(&format!("masq keys rotate --recovery --add-kms {VAULT_KEY}")), "{refused}");
    let (code, said) = files.rotate(&["--add-kms", VAULT_ALIAS]);
    assert!(code == 77 && said.contains("allow kms:Encrypt"), "{said}");
    files.stand_in.allow(REVEALER, "Encrypt", VAULT_KEY);
    let (code, said) = files.rotate(&rewrap);
    assert!(code == 78 && said.contains("--add-kms"), "{said}");
    assert_eq!(files.scene.database.query("SELECT count(*) FROM masq.recipients").await, ["1"]);

    let (code, said) = files.rotate(&["--add-kms", VAULT_ALIAS]);
    assert!(code == 0 && said.contains(VAULT_KEY) && said.contains("kms_epoch_key"), "{said}");
    files.start().await.unwrap();
    let (code, _, said) = files.run(&show);
    assert_eq!(code, 78, "it opens only what it is sealed to: {said}");

    let (code, said) = files.rotate(&rewrap);
    assert!(code == 0 && said.contains("1 epochs were sealed to all 2 recovery keys"), "{said}");
    assert_eq!(files.run(&show).1, login("v", "not an address"));
    let epoch = "SELECT id, round(extract(epoch FROM started_at) * 1000)::bigint FROM masq.epochs";
    let epoch = files.scene.database.query(epoch).await.remove(0);
    let (epoch, started_at) = epoch.split_once('\t').unwrap();
    let context = json!({ "masq:use": "epoch", "masq:epoch": epoch, "masq:started_at": started_at });
    let (who, action, key) = (REVEALER.to_owned(), "Encrypt".to_owned(), VAULT_KEY.to_owned());
    assert!(files.stand_in.calls().contains(&Call { who, action, key, context }), "bound to its epoch");
    let (code, said) = files.rotate(&rewrap);
    assert!(code == 0 && said.contains("0 epochs were sealed"), "{said}");

    // Then the recovery key is no longer needed.
    let old = files.scene.keys.load().fingerprints()[0].map(|byte| format!("{byte:02x}")).concat();
    let (code, said) = files.rotate(&["--retire", &old]);
    assert!(code == 75 && said.contains("held no other key and is gone"), "{said}");
    assert!(!files.scene.keys.path().join("recovery.pub").exists());
    files.scene.database.execute("UPDATE masq.epochs SET recorded_at = recorded_at - interval '3 minutes'").await;
    let (code, said) = files.rotate(&["--retire", &old]);
    assert!(code == 0 && said.contains("is retired") && said.contains("1 epochs fewer"), "{said}");
    assert_eq!(files.run(&show).1, login("v", "not an address"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recovery_key_is_added_to_what_kms_alone_opens() {
    let kms = KmsAlone::make().await;
    let scene = kms.loaded().await;
    let here = kms.here.path();
    let rotate = |arguments: &[&str]| {
        let why = ["--reason", "a key for a safe, ticket 4711", "--database-url", &scene.database.url];
        let (code, _, said) = kms.run(REVEALER, &[&["keys", "rotate", "--recovery"], arguments, &why].concat());
        (code, said)
    };
    let (code, said) = rotate(&["--new", "safe", "--no-passphrase"]);
    assert!(code == 0 && said.contains("holds 1 recovery keys now"), "{said}");
    assert!(here.join("keys/recovery.pub").exists());
    kms.load().await;

    // By an alias it cannot be told which key that is without asking it for something.
    let (code, said) = rotate(&["--kms"]);
    assert!(code == 77 && said.contains("name it by its ARN"), "{said}");
    let file = format!("[keys]\ndir = \"keys\"\nkms_epoch_key = \"{VAULT_KEY}\"\n");
    std::fs::write(here.join("masq.toml"), file).unwrap();
    let (code, said) = rotate(&["--identity", "safe/recovery.key"]);
    assert!(code == 3 && said.contains("--kms"), "it is sealed to nobody but KMS: {said}");
    kms.stand_in.fail(Some("AccessDeniedException"));
    assert_eq!(rotate(&["--kms=alias/masq-vault"]).0, 77);
    kms.stand_in.fail(None);
    let (code, said) = rotate(&["--kms"]);
    assert!(code == 0 && said.contains("epochs were sealed to all 2 recovery keys"), "{said}");
    let id = scene.database.query("SELECT message_id FROM masq.dead_letters").await.remove(0);
    let show = show(&id, &scene);
    let (asked, show) = (kms.stand_in.calls().len(), [&show[..], &["--identity", "safe/recovery.key"]].concat());
    let (code, out, said) = kms.run(REVEALER, &show);
    assert_eq!((code, out), (0, login("v", "not an address")), "{said}");
    assert_eq!(kms.stand_in.calls().len(), asked, "KMS is not asked");
}

//! `masq keys rotate --recovery`: a second recovery key, and then only the second.

use masq::vault::{
    epochs, identity,
    recovery::RecoveryKey,
    seal::{EpochHeader, OpenEpoch},
};
use uuid::Uuid;

use super::{Stock, hex};
use crate::support::{Keys, plain};

/// Makes a recovery key, has it added, and answers it.
fn added(stock: &Stock, name: &str) -> RecoveryKey {
    let dir = stock.keys().directory.path().join(name);
    let said = stock.rotated(&["--recovery", "--new", dir.to_str().unwrap(), "--no-passphrase"]);
    assert!(said.contains("holds 2 recovery keys now") && said.contains("every worker"), "{said}");
    identity::load(&dir.join("recovery.key"), None).unwrap_or_else(|error| panic!("{error}"))
}

async fn header(stock: &Stock, id: Uuid) -> EpochHeader {
    let session = stock.scene.database.session().await;
    epochs::headers(&session, &[id]).await.unwrap().remove(0)
}

#[tokio::test]
async fn a_new_key_that_was_not_let_in_is_added_later() {
    let stock = Stock::of(1).await;
    let dir = stock.keys().directory.path().join("third");
    let whole = std::fs::read(stock.keys().path().join("recovery.pub")).unwrap();
    stock.execute("ALTER FUNCTION masq.request_rotate RENAME TO gone").await;
    let (code, said) = stock.rotate(&["--recovery", "--new", dir.to_str().unwrap(), "--no-passphrase"]);
    assert!(code != 0 && said.contains("third/recovery.pub: the key is made"), "{said}");
    assert_eq!(std::fs::read(stock.keys().path().join("recovery.pub")).unwrap(), whole);
    stock.execute("ALTER FUNCTION masq.gone RENAME TO request_rotate").await;
    let said = stock.rotated(&["--recovery", "--add", dir.join("recovery.pub").to_str().unwrap()]);
    assert!(said.contains("holds 2 recovery keys now"), "{said}");
}

#[tokio::test]
async fn another_recovery_key_opens_what_was_sealed_before() {
    let mut stock = Stock::of(1200).await;
    let key = added(&stock, "second");
    let id = stock.headers[0].id;
    assert!(OpenEpoch::new(&key, &header(&stock, id).await).is_err());
    // What a worker with the new recovery.pub seals needs nothing more.
    stock.people = 1201;
    stock.epoch(1200..1201).await;
    assert_eq!(stock.headers[3].wraps.len(), 2);

    let said = stock.rotated(&["--recovery", "--identity", &stock.identity()]);
    assert!(said.contains("3 epochs were sealed to all 2 recovery keys"), "{said}");
    for header_of in stock.headers.clone() {
        assert!(OpenEpoch::new(&key, &header(&stock, header_of.id).await).is_ok());
    }
    let said = stock.rotated(&["--recovery", "--identity", &stock.identity()]);
    assert!(said.contains("0 epochs were sealed"), "{said}");

    let old = hex(&stock.headers[0].wraps[0].recipient);
    let retire = ["--recovery", "--retire", &old[..10]];
    let (code, said) = stock.rotate(&retire);
    assert!(code == 75 && said.contains("holds the key no longer"), "{said}");
    assert_eq!(stock.keys().load().fingerprints(), [key.public().fingerprint()]);
    let (code, said) = stock.rotate(&retire);
    assert!(code == 75 && said.contains("seals to this recipient still"), "{said}");
    stock.execute("UPDATE masq.epochs SET recorded_at = recorded_at - interval '3 minutes'").await;
    let said = stock.rotated(&retire);
    assert!(said.contains("is retired") && said.contains("4 epochs fewer"), "{said}");
    assert_eq!(stock.query("SELECT count(*), count(DISTINCT recipient) FROM masq.epoch_wraps").await, ["4\t1"]);
    assert!(OpenEpoch::new(&key, &header(&stock, id).await).is_ok());
    // A worker that has not heard of it.
    let id = Uuid::from_u128(7);
    stock.execute(&format!("INSERT INTO masq.epochs (id, started_at) VALUES ('{id}', now())")).await;
    let stale = format!("INSERT INTO masq.epoch_wraps VALUES ('{id}', '\\x{old}', '\\x01')");
    let refused = plain(&stock.scene.database.url).await.batch_execute(&stale).await.unwrap_err();
    assert_eq!(refused.code().unwrap().code(), "MQ012");
}

#[tokio::test]
async fn a_key_that_opens_nothing_here_is_refused() {
    let stock = Stock::of(3).await;
    let others = Keys::create();
    let wrong = others.path().join("recovery.key");
    let theirs = hex(&others.load().fingerprints()[0][..8]);
    for what in ["--recovery", "--token"] {
        let (code, said) = stock.rotate(&[what, "--identity", wrong.to_str().unwrap()]);
        assert!(code == 78 && said.contains(&theirs) && said.contains("opens nothing in this database"), "{said}");
    }
    assert_eq!(stock.query("SELECT count(*) FROM masq.audit WHERE action = 'rotate'").await, ["0"]);
    stock.execute("UPDATE masq.recipients SET state = 'retired'").await;
    let (code, said) = stock.rotate(&["--recovery", "--identity", &stock.identity()]);
    assert!(code == 78 && said.contains("was retired"), "{said}");
}

#[tokio::test]
async fn no_epoch_loses_its_last_recovery_key() {
    let stock = Stock::of(3).await;
    let old = hex(&stock.headers[0].wraps[0].recipient);
    let (code, said) = stock.rotate(&["--recovery", "--retire", &old]);
    assert!(code == 78 && said.contains("only key in recovery.pub"), "{said}");
    added(&stock, "second");
    assert_eq!(stock.rotate(&["--recovery", "--retire", &old]).0, 75);
    let (code, said) = stock.rotate(&["--recovery", "--retire", &old]);
    assert!(code == 78 && said.contains("no other active recipient") && said.contains("--identity"), "{said}");
    let (code, said) = stock.rotate(&["--recovery", "--retire", "77777777"]);
    assert!(code == 2 && said.contains(&old), "{said}");
    assert_eq!(stock.query("SELECT count(*) FROM masq.recipients WHERE state = 'active'").await, ["2"]);
}

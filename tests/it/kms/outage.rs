//! A worker that gets no new epoch: it goes on with the old one for five minutes, says so, and then waits with what it
//! has in its hands.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures_util::future::BoxFuture;
use masq::{
    pipeline::Trouble,
    vault::{
        backend::{EpochSource, Recipient, Recipients},
        keyfile::KeyError,
        keyring::KeyRing,
        kms::KmsError,
        recovery::RecoveryKey,
        seal::EpochKey,
    },
};

use crate::stage::Stage;

/// How the next epochs come about. The clock of epochs is the machine's, which a test cannot wind on: so the first of
/// each worker is as old as the test wants it.
struct Script {
    files: Recipients,
    /// Of the first epoch, in milliseconds.
    age: i64,
    first: Mutex<bool>,
    mood: Mutex<Mood>,
    asked: AtomicUsize,
    /// Of the epoch made last.
    newest: AtomicU64,
}

#[derive(Clone, Copy, PartialEq)]
enum Mood {
    Works,
    Fails,
    Hangs,
}

#[derive(Clone)]
struct Source(Arc<Script>);

impl EpochSource for Source {
    fn recipients(&self) -> Vec<Recipient> {
        self.0.files.recipients()
    }

    fn new_epoch(&self, now_ms: i64) -> BoxFuture<'static, Result<EpochKey, KeyError>> {
        if std::mem::take(&mut *self.0.first.lock().unwrap()) {
            return self.0.files.new_epoch(now_ms - self.0.age);
        }
        self.0.asked.fetch_add(1, Ordering::Relaxed);
        let mood = *self.0.mood.lock().unwrap();
        let script = Arc::clone(&self.0);
        Box::pin(async move {
            tokio::time::sleep(Duration::from_millis(20)).await;
            match mood {
                Mood::Works => {
                    script.newest.store(now_ms.unsigned_abs(), Ordering::Relaxed);
                    script.files.new_epoch(now_ms).await
                }
                Mood::Fails => Err(KmsError::Unavailable {
                    key: "alias/v".into(),
                    action: "GenerateDataKey",
                    reason: "cannot reach it".into(),
                }
                .into()),
                Mood::Hangs => {
                    tokio::time::sleep(Duration::from_secs(30)).await;
                    Err(KmsError::Configuration("it hung".into()).into())
                }
            }
        })
    }
}

/// One worker whose first epoch began so long ago.
fn stage(age: Duration, mood: Mood) -> (Stage, Source) {
    let mut stage = Stage::new(1);
    let script = Script {
        files: Recipients(vec![RecoveryKey::new(&[1; 32]).public()]),
        age: i64::try_from(age.as_millis()).unwrap(),
        first: Mutex::new(true),
        mood: Mutex::new(mood),
        asked: AtomicUsize::new(0),
        newest: AtomicU64::new(0),
    };
    let source = Source(Arc::new(script));
    let other = KeyRing::throw_away().unwrap();
    stage.shared.keys = Arc::new(KeyRing { epochs: Arc::new(source.clone()), ..other });
    (stage, source)
}

impl Source {
    fn set(&self, mood: Mood) {
        *self.0.mood.lock().unwrap() = mood;
    }

    fn asked(&self) -> usize {
        self.0.asked.load(Ordering::Relaxed)
    }
}

#[tokio::test(start_paused = true)]
async fn a_batch_does_not_wait_for_kms_while_the_old_epoch_is_young_enough() {
    for mood in [Mood::Fails, Mood::Hangs] {
        let (stage, source) = stage(Duration::from_secs(90), mood);
        let running = stage.run();
        let began = tokio::time::Instant::now();
        let mut keys = Vec::new();
        for number in 1..=30 {
            keys.push(stage.send(&format!("u{number}")));
            stage.until("it is written", |stage| stage.shared.metrics.rows.get() == number).await;
        }
        assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
        assert!((1..20).contains(&source.asked()), "not with every batch: {}", source.asked());
        assert_eq!(source.0.newest.load(Ordering::Relaxed), 0, "all under the old one");
        if mood == Mood::Fails {
            assert!(stage.trouble(Trouble::Keys).unwrap().contains("alias/v: GenerateDataKey: cannot reach it"));
            assert!(stage.shared.metrics.epoch_failures.get() > 0);
        }
        source.set(Mood::Works);
        for number in 31.. {
            keys.push(stage.send(&format!("u{number}")));
            stage.until("it is written", |stage| stage.shared.metrics.rows.get() == number).await;
            if source.0.newest.load(Ordering::Relaxed) > 0 && stage.trouble(Trouble::Keys).is_none() {
                break;
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
            assert!(number < 200, "it never gets a new one");
        }
        running.stop().await;
        stage.assert_rows(&keys);
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_is_written_under_an_epoch_that_is_too_old() {
    let (stage, source) = stage(Duration::from_secs(361), Mood::Fails);
    let keys = stage.send_many(20);
    let running = stage.run();
    stage.until("it asks again and again", |_| source.asked() > 20).await;
    assert_eq!((stage.counted(), stage.sink.outcomes().len()), ((0, 0, 0, 0), 0));
    assert!(stage.trouble(Trouble::Keys).is_some());
    let received = stage.shared.metrics.received.get();
    assert!(received <= 20, "nothing more is received, and what is held stays hidden: {received}");
    source.set(Mood::Works);
    stage.until("all is written", |stage| stage.shared.metrics.rows.get() == 20).await;
    assert_eq!(stage.trouble(Trouble::Keys), None);
    assert_eq!(stage.shared.metrics.received.get(), 20, "none of them came twice");
    running.stop().await;
    stage.assert_rows(&keys);
}

#[tokio::test(start_paused = true)]
async fn a_stop_gives_back_what_waits_for_an_epoch() {
    for mood in [Mood::Fails, Mood::Hangs] {
        let (stage, source) = stage(Duration::from_secs(361), mood);
        stage.send_many(5);
        let running = stage.run();
        stage.until("it waits", |_| source.asked() > 0).await;
        let took = running.stop().await;
        assert!(took < Duration::from_secs(2), "{took:?}");
        assert_eq!(stage.counted(), (0, 0, 0, 5));
        tokio::time::sleep(Duration::from_secs(1)).await; // as all that is given back rests
        assert_eq!(stage.queue.inner.count().visible, 5);
    }
}

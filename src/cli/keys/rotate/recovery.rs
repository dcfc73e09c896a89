//! `masq keys rotate --recovery`: another recovery key for what is sealed from now on, for what was sealed before, and no
//! longer the old one.

use std::path::Path;

use serde_json::json;

use super::{Args, Scene, session};
use crate::{
    cli::{
        context::Context,
        environment::lookup,
        exit::Exit,
        opening,
        progress::Progress,
        report::{Failure, Hex},
        signals,
    },
    config::Config,
    db::Session,
    vault::{
        keyring::{self, Kind},
        kms::{
            KmsKey,
            epochs::{KmsOpener, KmsRecipient},
        },
        recovery::RecoveryPublic,
        rotate::{
            Rotation,
            recovery::{self, Identity, Recipient, Recipients, Rewrap, Tally},
        },
    },
};

pub(super) async fn run(args: &Args, config: &Config, scene: &Scene<'_>) -> Result<Exit, Failure> {
    // Before anything is asked of the database: it is not kept waiting while somebody types.
    if let Some(path) = &args.identity {
        let key = args.passphrase.unlock(path).await?;
        return rewrap(config, &Identity::File(Box::new(key)), scene).await;
    }
    if let Some(name) = &args.kms {
        let name = name.as_ref().or(config.keys.kms_epoch_key.as_ref()).ok_or_else(opening::unnamed)?;
        let key = Box::pin(KmsKey::connect(name, &lookup)).await?;
        return rewrap(config, &Identity::Kms(KmsOpener::new(key)), scene).await;
    }
    if let Some(name) = &args.add_kms {
        return add_kms(config, name, scene).await;
    }
    if let Some(fingerprint) = &args.retire {
        return retire(config, fingerprint, scene).await;
    }
    let new = match (&args.add, &args.new) {
        (Some(path), _) => keyring::recipients_of(path)?,
        (None, Some(dir)) => {
            let new = create(args, dir, scene.context).await?;
            return add(config, &[new], scene).await.map_err(|failure| go_on(failure, dir));
        }
        (None, None) => {
            return Err(Failure::new(Exit::Usage, "say what is to be done with recovery keys")
                .hint("--add FILE, --new DIR or --add-kms KEY, then --identity FILE, then --retire FINGERPRINT"));
        }
    };
    add(config, &new, scene).await
}

/// Those in recovery.pub, which need not be there where KMS makes the keys of epochs.
fn in_file(config: &Config, scene: &Scene<'_>) -> Result<Vec<RecoveryPublic>, Failure> {
    Ok(keyring::optional(keyring::recipients(scene.dir), config.keys.kms_epoch_key.is_some())?.0)
}

async fn create(args: &Args, dir: &Path, context: &Context) -> Result<RecoveryPublic, Failure> {
    let passphrase = args.passphrase.for_new(args.no_passphrase).get().await?;
    let public = keyring::create_recovery(dir, passphrase.as_ref().map(|passphrase| passphrase.as_str()))?;
    context.say(format_args!(
        "{} is the new recovery key. Move it away from the workers now, and keep two copies.",
        dir.join(Kind::Recovery.file()).display()
    ));
    Ok(public)
}

/// The key was made and is kept; made again it would be another.
fn go_on(failure: Failure, dir: &Path) -> Failure {
    let with = format!("go on with --add {}: the key is made", dir.join(Kind::RecoveryPublic.file()).display());
    let hint = failure.hint.as_ref().map_or_else(|| with.clone(), |hint| format!("{hint}; then {with}"));
    failure.hint(hint)
}

async fn add(config: &Config, new: &[RecoveryPublic], scene: &Scene<'_>) -> Result<Exit, Failure> {
    let (mut all, session) = (in_file(config, scene)?, session(config).await?);
    let fingerprints: Vec<String> = new.iter().map(|key| Hex(&key.fingerprint()).to_string()).collect();
    let detail = json!({ "recovery": "add", "fingerprints": fingerprints });
    let mut rotation = Rotation::request(&session, scene.why, detail).await?;
    // First the database, for a worker that reads the file and finds an unknown key in it does not start.
    for key in new {
        recovery::add(&mut rotation, &key.fingerprint()).await?;
        if all.iter().all(|known| known.fingerprint() != key.fingerprint()) {
            all.push(key.clone());
        }
    }
    keyring::set_recipients(scene.dir, &all)?;
    scene.context.say(format_args!(
        "{} holds {} recovery keys now. What is next:\n\
         1. copy it to every worker, and start the workers again: they seal to all of them from then on\n\
         2. masq keys rotate --recovery --identity recovery.key, with the old key (or --kms): so that the new one opens what is \
         there",
        scene.dir.join(Kind::RecoveryPublic.file()).display(),
        all.len(),
    ));
    Ok(Exit::Done)
}

async fn add_kms(config: &Config, name: &str, scene: &Scene<'_>) -> Result<Exit, Failure> {
    let key = Box::pin(KmsKey::connect(name, &lookup)).await?;
    let kms = Box::pin(KmsRecipient::new(key)).await?;
    let (fingerprint, session) = (kms.fingerprint(), session(config).await?);
    let detail = json!({ "recovery": "add", "fingerprints": [Hex(&fingerprint).to_string()], "kms_key": kms.name() });
    let mut rotation = Rotation::request(&session, scene.why, detail).await?;
    recovery::add(&mut rotation, &fingerprint).await?;
    scene.context.say(format_args!(
        "{} may open what is sealed here, by the fingerprint {}. What is next:\n\
         1. name it as kms_epoch_key in [keys] on every worker, and start the workers again: it makes the keys of epochs\n\
         2. masq keys rotate --recovery --identity recovery.key, with the same configuration: so that it opens what is there",
        kms.name(),
        Hex(&fingerprint),
    ));
    Ok(Exit::Done)
}

/// The active ones that are at hand: in recovery.pub, and the key of KMS that is configured.
async fn at_hand(session: &Session, config: &Config, scene: &Scene<'_>) -> Result<Recipients, Failure> {
    let mut known = recovery::recipients(session).await?;
    known.retain(|recipient| recipient.is_active);
    let is_active = |fingerprint: [u8; 32]| known.iter().any(|recipient| recipient.fingerprint == fingerprint);
    let mut files = in_file(config, scene)?;
    files.retain(|key| is_active(key.fingerprint()));
    let kms = match &config.keys.kms_epoch_key {
        Some(name) => {
            let key = Box::pin(KmsKey::connect(name, &lookup)).await?;
            match KmsRecipient::of_arn(&key) {
                None => Some(Box::pin(KmsRecipient::new(key)).await.map_err(|error| {
                    Failure::from(error).hint("or name it by its ARN: then it is asked only for epochs that it lacks")
                })?),
                known => known,
            }
        }
        None => None,
    };
    if let Some(kms) = kms.as_ref().filter(|kms| !is_active(kms.fingerprint())) {
        return Err(Failure::new(Exit::Config, format!("{} is no key that this database knows", kms.name()))
            .hint(format!("add it first: masq keys rotate --recovery --add-kms {}", kms.name())));
    }
    let recipients = Recipients { files, kms };
    if recipients.count() < known.len() {
        scene.context.say(format_args!(
            "{} active recovery keys are not in {}, so nothing is sealed to them now. For one of AWS KMS, name it as \
             kms_epoch_key in [keys].",
            known.len() - recipients.count(),
            scene.dir.join(Kind::RecoveryPublic.file()).display(),
        ));
    }
    Ok(recipients)
}

async fn rewrap(config: &Config, identity: &Identity, scene: &Scene<'_>) -> Result<Exit, Failure> {
    let session = &session(config).await?;
    if let Identity::File(key) = identity {
        opening::check(session, key).await?;
    }
    let recipients = at_hand(session, config, scene).await?;
    let mut rewrap = Rewrap::new(session, identity, &recipients).await?;
    let mut rotation =
        Rotation::request(session, scene.why, json!({ "recovery": "rewrap", "epochs": rewrap.epochs })).await?;
    let stop = signals::listen()?;
    let mut progress = Progress::new(scene.context, "sealing epochs", Some(rewrap.epochs));
    let (mut total, mut done) = (Tally::default(), 0);
    let ended = loop {
        if stop.gently.has_started() {
            break Err(signals::stopped().hint("the same command goes on with the rest"));
        }
        match rewrap.next(&mut rotation).await {
            Ok(Some(Tally { sealed, locked, tampered })) => {
                total = Tally {
                    sealed: total.sealed + sealed,
                    locked: total.locked + locked,
                    tampered: total.tampered + tampered,
                };
                done += sealed + locked + tampered;
                progress.set(done);
            }
            Ok(None) => break Ok(()),
            Err(error) => break Err(Failure::from(error).hint("the same command goes on with the rest")),
        }
    };
    progress.finish();
    scene.context.say(format_args!("{} epochs were sealed to all {} recovery keys.", total.sealed, recipients.count()));
    ended?;
    let Tally { sealed, locked, tampered } = total;
    rotation.outcome(&json!({ "sealed": sealed, "locked": locked, "tampered": tampered })).await?;
    if locked + tampered == 0 {
        scene
            .context
            .say("As soon as every worker has this recovery.pub, --retire FINGERPRINT takes an old key out of use.");
        return Ok(Exit::Done);
    }
    if locked > 0 {
        scene.context.say(format_args!(
            "{locked} epochs are not sealed to this key: use another --identity, or --kms, for them."
        ));
    }
    if tampered > 0 {
        scene.context.say(format_args!(
            "{tampered} epochs have a wrap that is not what was sealed: somebody changed them. Look for them in a backup."
        ));
    }
    Ok(Exit::Rejects)
}

async fn retire(config: &Config, fingerprint: &str, scene: &Scene<'_>) -> Result<Exit, Failure> {
    let session = session(config).await?;
    let known = recovery::recipients(&session).await?;
    let old = named(&known, fingerprint)?;
    let mut kept = in_file(config, scene)?;
    let before = kept.len();
    kept.retain(|key| key.fingerprint() != *old);
    if kept.is_empty() && config.keys.kms_epoch_key.is_none() {
        return Err(Failure::new(
            Exit::Config,
            "that is the only key in recovery.pub, and nothing could be sealed without one",
        )
        .hint("add another first: masq keys rotate --recovery --new DIR"));
    }
    if kept.len() < before {
        keyring::set_recipients(scene.dir, &kept)?;
        let (held, copy) = match kept.is_empty() {
            true => ("held no other key and is gone", "Delete it on"),
            false => ("holds the key no longer", "Copy it to"),
        };
        scene.context.say(format_args!(
            "{} {held}. {copy} every worker, start the workers again, and two minutes later run this once more.",
            scene.dir.join(Kind::RecoveryPublic.file()).display()
        ));
        return Ok(Exit::Unfinished);
    }
    let detail = json!({ "recovery": "retire", "fingerprints": [Hex(old).to_string()] });
    let mut rotation = Rotation::request(&session, scene.why, detail).await?;
    let epochs = recovery::retire(&mut rotation, old).await?;
    rotation.outcome(&json!({ "wraps": epochs })).await?;
    scene.context.say(format_args!(
        "{} is retired: it opens nothing in this database any more, {epochs} epochs fewer. With an older backup it opens \
         what is in that.",
        Hex(old)
    ));
    Ok(Exit::Done)
}

/// The recovery key whose fingerprint begins so.
fn named<'a>(known: &'a [Recipient], beginning: &str) -> Result<&'a [u8], Failure> {
    let beginning = beginning.to_ascii_lowercase();
    let mut found = known.iter().filter(|recipient| Hex(&recipient.fingerprint).to_string().starts_with(&beginning));
    match (found.next(), found.next()) {
        (Some(one), None) if !beginning.is_empty() => Ok(&one.fingerprint),
        _ => {
            let known: Vec<_> = known.iter().map(|recipient| Hex(&recipient.fingerprint).to_string()).collect();
            Err(Failure::new(Exit::Usage, "that is not how one recovery key's fingerprint begins")
                .hint(format!("this database knows {}", known.join(" and "))))
        }
    }
}

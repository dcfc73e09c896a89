//! `masq keys rotate --token`: looks where things stand and does the next safe step.

use std::{
    collections::{BTreeMap, BTreeSet},
    num::NonZeroU8,
};

use serde_json::{Value, json};
use tokio::time::Instant;

use super::{
    Args, PATIENCE, Scene, session,
    work::{Rows, Work},
};
use crate::{
    cli::{connect, context::Context, exit::Exit, opening, report::Failure},
    config::{Config, Mask},
    db::{Session, catalog},
    start,
    vault::{
        recovery::RecoveryKey,
        rotate::{
            Rotation,
            rekey::{self, Rekey, Tally},
            rows::{self, Pass},
            token::{self, State, TokenKey},
        },
        token::TokenRoot,
        token_files,
    },
};

pub(super) async fn run(args: &Args, config: &Config, scene: &Scene<'_>) -> Result<Exit, Failure> {
    // Before anything is asked of the database: it is not kept waiting while somebody types.
    let identity = match &args.identity {
        Some(path) => Some(args.passphrase.unlock(path).await?),
        None => None,
    };
    let session = session(config).await?;
    if let Some(key) = &identity {
        opening::check(&session, key).await?;
    }
    let keys = token::keys(&session).await?;
    let stage = Stage { session: &session, keys: &keys, config, scene, force: args.force, another: args.another };
    match identity {
        Some(identity) if args.emergency => stage.emergency(&identity).await,
        identity => stage.step(identity.as_ref()).await,
    }
}

/// What a step is taken in.
struct Stage<'a> {
    session: &'a Session,
    keys: &'a [TokenKey],
    config: &'a Config,
    scene: &'a Scene<'a>,
    force: bool,
    another: bool,
}

impl Stage<'_> {
    fn in_state(&self, state: State) -> impl Iterator<Item = &TokenKey> {
        self.keys.iter().filter(move |key| key.state == state)
    }

    async fn step(&self, identity: Option<&RecoveryKey>) -> Result<Exit, Failure> {
        let pending = self.in_state(State::Pending).next();
        let old = self.in_state(State::ReadOnly).next();
        match (self.in_state(State::Active).next(), pending, old, identity) {
            (None, ..) => Err(Failure::new(Exit::Config, "no key makes tokens in this database yet")
                .hint("the first worker that starts notes its own: masq run")),
            (Some(_), Some(pending), ..) => self.activate(pending).await,
            (Some(active), None, None, _) => self.begin(active).await,
            (Some(active), None, Some(_), Some(identity)) => self.finish(active.kid, identity, false).await,
            (Some(active), None, Some(old), None) => {
                self.scene.context.say(format_args!(
                    "Key id {} makes the tokens, and key id {} is read-only. Next, where the recovery key may be, with all token \
                     keys in --keys:\n  masq keys rotate --token --identity recovery.key --reason …",
                    active.kid, old.kid,
                ));
                Ok(Exit::Unfinished)
            }
        }
    }

    /// Makes the next key.
    async fn begin(&self, active: &TokenKey) -> Result<Exit, Failure> {
        // Keys of somebody else's database would make tokens that nobody can move on.
        active.verify(&token_files::load(self.scene.dir, active.kid)?)?;
        let kid = self.next_kid()?;
        let root = token_files::create(self.scene.dir, kid)?;
        let detail = json!({ "token": "begin", "key_id": kid });
        let mut rotation = Rotation::request(self.session, self.scene.why, detail).await?;
        token::add(&mut rotation, &root, false).await?;
        self.scene.context.say(format_args!(
            "{} is the next token key; tokens are made with key id {} still. Copy it into the keys directory of every worker, \
             and to where `masq find` and `masq reveal` are used. Then run this again: it makes key id {kid} the one that \
             makes tokens.",
            token_files::path(self.scene.dir, kid).display(),
            active.kid,
        ));
        Ok(Exit::Done)
    }

    /// The id of another key. Whoever repeats a command whose answer was lost means the rotation that has just ended: the
    /// next one would hand workers yet another key, and in an emergency destroy the one that they have received.
    fn next_kid(&self) -> Result<NonZeroU8, Failure> {
        if let Some(ended) = self.keys.iter().filter(|key| key.ended_lately && !self.another).map(|key| key.kid).max() {
            let what = format!("nothing is left to do: key id {ended} was retired within the last day");
            return Err(Failure::new(Exit::Usage, what)
                .hint("`masq keys status` lists the keys; to begin another rotation all the same, say --another"));
        }
        let last = self.keys.iter().map(|key| key.kid).max().unwrap_or(NonZeroU8::MIN);
        last.checked_add(1).ok_or_else(|| {
            Failure::new(Exit::Config, "all 255 key ids are used up")
                .hint("a token has one byte for its key id: load into a new database")
        })
    }

    async fn activate(&self, pending: &TokenKey) -> Result<Exit, Failure> {
        pending.verify(&token_files::load(self.scene.dir, pending.kid)?)?;
        let detail = json!({ "token": "activate", "key_id": pending.kid });
        let mut rotation = Rotation::request(self.session, self.scene.why, detail).await?;
        token::activate(&mut rotation, pending.kid).await?;
        self.scene.context.say(format_args!(
            "Key id {} makes the tokens from now on. A worker without its file is not ready, and says so. Next, where the \
             recovery key may be, with all token keys in --keys:\n  masq keys rotate --token --identity recovery.key --reason …",
            pending.kid,
        ));
        Ok(Exit::Done)
    }

    /// All steps at once.
    async fn emergency(&self, identity: &RecoveryKey) -> Result<Exit, Failure> {
        let roots = token_files::all(self.scene.dir)?;
        let unfinished = |key: &TokenKey| key.leaked && (key.state == State::ReadOnly || roots.contains_key(&key.kid));
        if self.keys.iter().any(unfinished)
            && let Some(active) = self.in_state(State::Active).find(|key| !key.leaked)
        {
            return self.finish(active.kid, identity, true).await;
        }
        let kid = self.next_kid()?;
        let root = token_files::create(self.scene.dir, kid)?;
        let detail = json!({ "token": "emergency", "key_id": kid });
        let mut rotation = Rotation::request(self.session, self.scene.why, detail).await?;
        token::add(&mut rotation, &root, true).await?;
        self.scene.context.say(format_args!(
            "Key id {kid} makes the tokens from now on. Copy {} into the keys directory of every worker now: without it a \
             worker is not ready.",
            token_files::path(self.scene.dir, kid).display(),
        ));
        self.finish(kid, identity, true).await
    }

    /// Gives entries and rows their new tokens, and ends the old keys if nothing is left of them.
    async fn finish(&self, active: NonZeroU8, identity: &RecoveryKey, emergency: bool) -> Result<Exit, Failure> {
        self.rows_are_described().await?;
        let keys = token::keys(self.session).await?;
        let roots = self.verified_roots(&keys, active)?;
        let old: Vec<NonZeroU8> = keys.iter().filter(|key| key.state == State::ReadOnly).map(|key| key.kid).collect();
        let detail = json!({ "token": "rekey", "from": old, "to": active });
        let rotation = Rotation::request(self.session, self.scene.why, detail).await?;
        let mut work = Work::new(rotation, self.scene.context)?;
        for note in rows::show_bridged(&mut work.rotation).await? {
            self.scene.context.say(format_args!("There is no view {note}."));
        }
        let slots = match connect::slots(self.config)? {
            Some(elsewhere) => elsewhere,
            None => connect::connector(self.config)?,
        };
        let slots = start::connect(&slots, Instant::now() + PATIENCE).await?;
        let rekey = Rekey::new(identity, &roots, active);
        let entries = work.entries(rekey, self.session, &slots, &old).await?;
        slots.close().await;
        let outcome = Outcome::of(&mut work, entries, emergency).await?;
        outcome.tell(self.scene.context);
        work.rotation.outcome(&outcome.detail()).await?;
        let left = rekey::count(self.session).await?;
        let is_over = emergency || self.force || (left == 0 && outcome.rows.remaining == 0);
        // What another recovery key opens is not lost, so the key of its token is not given up.
        if outcome.entries.locked > 0 || !is_over {
            self.scene.context.say(
                "The old key stays read-only. What is left keeps its old token; once that is decided, --force retires the key \
                 all the same.",
            );
            return Ok(Exit::Rejects);
        }
        let retired = token::retire(&mut work.rotation, emergency || self.force).await?;
        work.rotation.outcome(&json!({ "retired": retired })).await?;
        self.bury_keys(&keys, &retired, emergency)?;
        Ok(outcome.exit())
    }

    /// Every root that is needed, and each the one that the database knows.
    fn verified_roots(&self, keys: &[TokenKey], active: NonZeroU8) -> Result<BTreeMap<NonZeroU8, TokenRoot>, Failure> {
        let roots = token_files::all(self.scene.dir)?;
        for key in keys.iter().filter(|key| key.state == State::ReadOnly || key.kid == active) {
            match roots.get(&key.kid) {
                Some(root) => key.verify(root)?,
                None => drop(token_files::load(self.scene.dir, key.kid)?),
            }
        }
        Ok(roots)
    }

    /// A table of which the database does not know where its tokens are would keep the old ones.
    async fn rows_are_described(&self) -> Result<(), Failure> {
        let Some(table) = catalog::table(self.session, &self.config.table).await? else { return Ok(()) };
        let described: BTreeSet<String> =
            rows::described(self.session, &table.schema, &table.name).await?.into_iter().collect();
        let masked = self.config.columns.iter().filter(|column| matches!(column.mask, Some(Mask::Hmac { .. })));
        let missing: Vec<&str> =
            masked.map(|column| column.name.as_str()).filter(|column| !described.contains(*column)).collect();
        if missing.is_empty() {
            return Ok(());
        }
        let error = format!("this database does not know that {} of {} hold tokens", missing.join(", "), table.name);
        Err(Failure::new(Exit::Config, error).hint("tell it with the owner's login: masq migrate"))
    }

    /// The files of keys that are over.
    fn bury_keys(&self, keys: &[TokenKey], retired: &[NonZeroU8], emergency: bool) -> Result<(), Failure> {
        let context = self.scene.context;
        if !emergency {
            for kid in retired {
                context.say(format_args!(
                    "Key id {kid} is retired. Its file can be deleted everywhere, as soon as no backup of the table matters."
                ));
            }
            return Ok(());
        }
        for key in keys.iter().filter(|key| key.leaked) {
            for path in token_files::destroy(self.scene.dir, key.kid)? {
                context.say(format_args!(
                    "{} was overwritten and deleted. Copies on workers, in backups, and those that a journal or snapshot of the \
                     disk keeps are yours to destroy.",
                    path.display()
                ));
            }
        }
        Ok(())
    }
}

/// What became of everything.
struct Outcome {
    entries: Tally,
    rows: Pass,
    tombstones: u64,
}

impl Outcome {
    /// Lets the rows follow their entries. In an emergency what cannot follow gets a tombstone, unless another recovery key
    /// could still open it.
    async fn of(work: &mut Work<'_>, entries: Tally, emergency: bool) -> Result<Self, Failure> {
        let rows = work.rows(Rows::Update).await?;
        if !emergency || rows.remaining == 0 || entries.locked > 0 {
            return Ok(Self { entries, rows, tombstones: 0 });
        }
        let tombstones = work.rows(Rows::Bury).await?.updated;
        let buried = work.rows(Rows::Update).await?;
        let rows = Pass { updated: rows.updated + buried.updated, remaining: buried.remaining };
        Ok(Self { entries, rows, tombstones })
    }

    /// As it stands on the record.
    fn detail(&self) -> Value {
        let Tally { moved, merged, shredded, locked, tampered } = self.entries;
        json!({
            "entries": {
                "moved": moved, "merged": merged, "shredded": shredded, "locked": locked, "tampered": tampered,
            },
            "rows": self.rows.updated, "rows_left": self.rows.remaining, "tombstones": self.tombstones,
        })
    }

    fn tell(&self, context: &Context) {
        let Tally { moved, merged, shredded, locked, tampered } = self.entries;
        context.say(format_args!("{moved} entries have their new tokens ({merged} had been sealed anew already)."));
        context.say(format_args!("{} rows have their new tokens.", self.rows.updated));
        let left = |count: u64, what: &str| {
            if count > 0 {
                context.say(format_args!("{count} {what}"));
            }
        };
        left(shredded, "entries cannot be opened by anybody: their person was erased, or their epoch dropped.");
        left(locked, "entries are sealed to other recovery keys: use another --identity for them.");
        left(tampered, "entries ARE NOT WHAT WAS SEALED: somebody changed or made them. They were left as they are.");
        left(self.tombstones, "tokens that no entry leads away from became tombstones.");
        left(self.rows.remaining, "rows keep an old token: its value was shredded, or never in the vault.");
    }

    fn exit(&self) -> Exit {
        if self.entries.left() == 0 && self.rows.remaining == 0 { Exit::Done } else { Exit::Rejects }
    }
}

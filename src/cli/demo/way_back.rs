//! The way back, shown with two persons who share an address: its token found, revealed for a reason, one of the two
//! forgotten, the address revealed once more, and what the audit log has of all that.
//!
//! Each step is what the command above it does, by the same functions. The values are made up, so they are printed
//! wherever stdout goes; `masq reveal` itself is more careful.

use std::{error::Error, path::Path};

use super::{household::Household, summary::short};
use crate::{
    cli::{
        exit::Exit,
        report::{self, Failure},
        vault,
    },
    config::Config,
    db::Session,
    vault::{
        audit::{
            leaf::Entry,
            read::{self, Which},
            verify::Seen,
        },
        epochs::Opener,
        erase::{self, Erased, Eraser, Person, journal::Journal},
        identity,
        keyring::{self, Kind as KeyFile},
        recovery::RecoveryKey,
        reveal::{self, Answer},
        token::{Kind, Token},
        token_keys::{Origin, TokenKeys},
    },
};

/// Of tokens below the first: so many that one knows them again, and few enough for a line.
const DIGITS: usize = 16;

/// Why all this is done, as the record keeps it.
const REASON: &str = "shown by masq demo";

const INTRODUCTION: &str =
    "The first two share an address. One of them wants to be forgotten; every step is on record.";

/// What the steps share.
pub(super) struct WayBack<'a> {
    household: &'a Household,
    /// Its session serves every step; the slots are in the same database.
    eraser: Eraser,
    tokens: TokenKeys,
    recovery: RecoveryKey,
    claimed: String,
}

/// In which rows a token stands.
struct Holders {
    rows: u64,
    persons: u64,
}

impl<'a> WayBack<'a> {
    /// Opens what the steps need: the keys in this directory, `recovery.key` among them, and sessions.
    pub(super) async fn open(config: &Config, keys: &Path, household: &'a Household) -> Result<Self, Failure> {
        let eraser = Eraser { rows: vault::session(config).await?, slots: None };
        let tokens = vault::token_keys(config, &eraser.rows).await?;
        let recovery = identity::load(&keys.join(KeyFile::Recovery.file()), None)?;
        Ok(Self { household, eraser, tokens, recovery, claimed: vault::claimed() })
    }

    /// Goes all the way, and says what came of each step. `keys` and `erasures`: the directory of the keys, and the file
    /// to which the erasure is appended.
    ///
    /// Answers what is not as it should be; empty if all is.
    ///
    /// # Errors
    /// A step cannot be done.
    pub(super) async fn walk(self, keys: &Path, erasures: &Path) -> Result<Vec<String>, Failure> {
        let Household { ip, leaver, stayer, device } = self.household;
        let token = self.find(ip).await?;
        let device = self.token("device_id", Kind::Text, device)?;
        let before = self.reveal(&[token]).await?;
        let (rows, theirs) = (self.rows_of(leaver).await?, self.rows_of(stayer).await?);
        let erased = self.forget(keys, erasures).await?;
        let after = self.reveal(&[token, device]).await?;
        let holders = self.holders("masked_ip", &token).await?;
        let device_holders = self.holders("masked_device_id", &device).await?;
        report::print(format_args!(
            "  The address is still in {}, of {}: whoever shares it has lost nothing.\n",
            counted(holders.rows, "row"),
            counted(holders.persons, "person"),
        ))?;
        self.list().await?;
        let checks = [
            ("the address that was revealed is not the one that was sent", before[0].as_ref() == Some(ip)),
            ("the address of who stays cannot be revealed any more", after[0].as_ref() == Some(ip)),
            ("the device of who was forgotten can be revealed", after[1].is_none() || device_holders.rows > 0),
            ("rows name who was forgotten", self.rows_of(leaver).await? == 0),
            ("other rows were erased", erased.rows.values().sum::<u64>() == rows),
            ("who stays lost rows", self.rows_of(stayer).await? == theirs && theirs > 0),
            ("nobody holds the address any more", holders.persons > 0),
        ];
        self.eraser.rows.close().await;
        Ok(checks.iter().filter(|(_, holds)| !holds).map(|(wrong, _)| (*wrong).to_owned()).collect())
    }

    fn session(&self) -> &Session {
        &self.eraser.rows
    }

    /// The token of a value, as the pipeline made it.
    fn token(&self, field: &str, kind: Kind, value: &str) -> Result<Token, Failure> {
        let (root, _) = self.tokens.in_use()?[0];
        let domain = root.domain(field).map_err(|error| bug(&error))?;
        domain.token(kind, value).ok_or_else(|| Failure::new(Exit::Bug, "a sample login has a value without a token"))
    }

    async fn find(&self, ip: &str) -> Result<Token, Failure> {
        let token = self.token("ip", Kind::Ip, ip)?;
        let recorded = reveal::record_find(self.session(), &self.claimed, Some(REASON), ("ip", &[token])).await;
        recorded.map_err(vault::refused)?;
        let holders = self.holders("masked_ip", &token).await?;
        report::print(format_args!(
            "\n{INTRODUCTION}\n\
             $ echo {ip} | masq find --field ip --reason \"{REASON}\" -\n\
             {token}\n  It is in {}, of {}; nothing had to be revealed to know that.\n",
            counted(holders.rows, "row"),
            counted(holders.persons, "person"),
        ))?;
        Ok(token)
    }

    /// The values behind tokens, where there are any.
    async fn reveal(&self, tokens: &[Token]) -> Result<Vec<Option<String>>, Failure> {
        let session = self.session();
        let why = reveal::Why { purpose: "SUPPORT", ticket: "T-1", reason: REASON, claimed: &self.claimed };
        let request = reveal::request(session, why, tokens).await.map_err(vault::refused)?.number;
        let mut answer = Answer::fetch(session, session, request).await.map_err(vault::refused)?;
        let mut opener = Opener::either(Some(&self.recovery), None);
        let mut values = Vec::new();
        for token in tokens {
            let Origin::Root(root) = self.tokens.origin(token) else { continue };
            let outcome = answer.open(token, &mut opener, root).await.map_err(|error| bug(&error))?;
            values.push(outcome.value.ok().map(|value| value.raw.to_string()));
        }
        let shown = values.iter().flatten().count();
        let counts = [shown, tokens.len() - shown, 0];
        reveal::record(session, request, &self.claimed, counts).await.map_err(vault::refused)?;

        let cut: Vec<String> = tokens.iter().map(|token| short(&token.to_string(), DIGITS)).collect();
        let mut text = format!(
            "\n$ masq reveal --identity recovery.key --purpose {} --ticket {} \\\n    --reason \"{REASON}\" {}\n",
            why.purpose,
            why.ticket,
            cut.join(" ")
        );
        for (token, value) in cut.iter().zip(&values) {
            text += &format!("{token}  {}\n", value.as_deref().unwrap_or("(no value)"));
        }
        report::print(text)?;
        Ok(values)
    }

    async fn forget(&self, keys: &Path, erasures: &Path) -> Result<Erased, Failure> {
        let id = &self.household.leaver;
        let key = keyring::subject(keys)?;
        let person = Person { tag: key.tag(id), id: id.clone().into(), tokens: Vec::new() };
        let why = erase::Why { purpose: "ERASURE", ticket: "T-2", reason: REASON, claimed: &self.claimed };
        let mut journal = Journal::open(erasures, true).map_err(|error| bug(&error))?;
        let erased = self.eraser.erase(why, &person, false, &mut journal).await.map_err(|error| bug(&error))?;
        report::print(format_args!(
            "\n$ echo {id} | masq forget --purpose {} \\\n    \
             --ticket {} --reason \"{REASON}\" --erasures erasures.jsonl -\n\
             {} unlinked, {} and {} deleted\n",
            why.purpose,
            why.ticket,
            counted(erased.rows.values().sum(), "row"),
            counted(erased.entries, "sealed value"),
            counted(erased.slots, "slot"),
        ))?;
        Ok(erased)
    }

    /// What is on record of the steps; not the workers' own entries.
    async fn list(&self) -> Result<(), Failure> {
        let mut text = "\n$ masq audit list      (here without times, outcomes and what workers note)\n".to_owned();
        read::entries(self.session(), &Which::default(), |seen| {
            if let Seen::Entry(entry) = seen
                && entry.action != "epoch"
            {
                text += &line(&entry);
            }
            Ok::<_, Failure>(())
        })
        .await?;
        report::print(text)
    }

    async fn holders(&self, column: &str, token: &Token) -> Result<Holders, Failure> {
        let sql = format!("SELECT count(*), count(DISTINCT user_id) FROM user_logins WHERE {column} = '{token}'");
        let [rows, persons] = numbers(self.session(), &sql).await?;
        Ok(Holders { rows, persons })
    }

    async fn rows_of(&self, person: &str) -> Result<u64, Failure> {
        let sql = format!("SELECT count(*) FROM user_logins WHERE user_id = '{person}'");
        numbers(self.session(), &sql).await.map(|[rows]| rows)
    }
}

/// An entry of the log, cut to what fits a line.
fn line(entry: &Entry) -> String {
    let Entry { seq, action, login, claimed, items, request, purpose, ticket, reason, .. } = entry;
    let of = request.map(|request| format!("of {request}")).unwrap_or_default();
    let what = if items.is_empty() { of } else { counted(items.len() as u64, "item") };
    let why: Vec<&str> = [purpose, ticket, reason].into_iter().flatten().map(String::as_str).collect();
    format!("{seq:>4}  {action:<10}{what:<8}{login} ({claimed})  {}", why.join(" ")).trim_end().to_owned() + "\n"
}

/// As in "1 row" and "2 rows".
fn counted(number: u64, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

/// The numbers in the only row of an answer.
async fn numbers<const N: usize>(session: &Session, sql: &str) -> Result<[u64; N], Failure> {
    let rows = session.texts("counting rows", sql).await?;
    Ok(std::array::from_fn(|at| rows[0][at].as_deref().and_then(|text| text.parse().ok()).unwrap_or(0)))
}

/// Here nobody but masq itself can be wrong.
fn bug(error: &dyn Error) -> Failure {
    Failure::of(Exit::Bug, error)
}

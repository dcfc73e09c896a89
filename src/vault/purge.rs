//! Dead letters deleted for good: body, subject tag and all. What remains is the ledger's word that the message had an
//! outcome, as long as the ledger remembers it, and a record of who deleted how many, in the audit log too.

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime},
};

use tokio_postgres::{
    Error, Row,
    types::{ToSql, Type},
};
use uuid::Uuid;

use crate::{
    db::{DbError, Session},
    queue::Key,
    sink::ledger::{self, time_of},
};

/// Letters of one transaction. More would hold locks for longer that a replay waits for; fewer leave the cost of a
/// commit to too few.
const LETTERS: i64 = 1_000;

/// Which letters go.
#[derive(Clone, Copy, Debug)]
pub struct Condition<'a> {
    /// Recorded longer ago than this.
    pub older_than: Duration,
    /// With this reason, with its field or a kind of reasons.
    pub reason: Option<&'a str>,
    /// Only those that were replayed into rows.
    pub resolved: bool,
}

/// Letters to be deleted.
pub struct Purge<'a> {
    condition: Condition<'a>,
    until: SystemTime,
    after: Option<Key>,
    /// How many there were at first.
    pub letters: u64,
    /// How many of them were never replayed: with them goes what there is of their messages.
    pub unreplayed: u64,
}

/// The condition's parameters are the first three of a statement.
const WHICH: &str = "recorded_at < $1 AND ($2::text IS NULL OR reason = $2 OR split_part(reason, ':', 1) = $2) \
                     AND (NOT $3 OR resolved_at IS NOT NULL)";

impl<'a> Purge<'a> {
    /// Fixes which letters go, and counts them.
    ///
    /// # Errors
    /// If they cannot be counted.
    pub async fn new(session: &Session, condition: Condition<'a>) -> Result<Self, DbError> {
        let failed = |error| DbError::new("counting the dead letters", &error);
        let age = condition.older_than.as_secs_f64();
        let until = session.query_typed_one("SELECT now() - make_interval(secs => $1)", &[(&age, Type::FLOAT8)]).await;
        let until: SystemTime = until.and_then(|row| row.try_get(0)).map_err(failed)?;
        let mut purge = Self { condition, until, after: None, letters: 0, unreplayed: 0 };
        let count = format!(
            "SELECT count(*), count(*) FILTER (WHERE resolved_at IS NULL) FROM masq.dead_letters WHERE {WHICH}"
        );
        let row = session.query_typed_one(&count, &purge.parameters()).await.map_err(failed)?;
        purge.letters = row.try_get::<_, i64>(0).map_err(failed)?.unsigned_abs();
        purge.unreplayed = row.try_get::<_, i64>(1).map_err(failed)?.unsigned_abs();
        Ok(purge)
    }

    /// Deletes the next letters, notes that in the ledger and puts it on record, all in one transaction. Answers how
    /// many they were: with 0 there are no more.
    ///
    /// # Errors
    /// If they cannot be deleted.
    pub async fn next(&mut self, session: &Session, claimed: &str, asked: &str) -> Result<u64, DbError> {
        let failed = |error| DbError::new("deleting dead letters", &error);
        let gone = session.within(async {
            let gone = self.take_away(session, claimed, asked).await?;
            // Last, for until the end of the transaction nobody else gets an entry into the audit log.
            record(session, claimed, asked, &gone).await?;
            Ok(gone)
        });
        let gone = ledger::keys(&gone.await.map_err(failed)?).map_err(failed)?;
        self.after = gone.iter().max().copied().or(self.after);
        Ok(gone.len() as u64)
    }

    /// Answers key and epoch of each letter that is gone.
    async fn take_away(&self, session: &Session, claimed: &str, asked: &str) -> Result<Vec<Row>, Error> {
        // A ledger row that a replay has changed since it began is read again
        // by PostgreSQL before it is changed. What somebody else has under a lock is left to them.
        let purge = format!(
            "WITH doomed AS (
                 SELECT sent_at, message_id FROM masq.dead_letters
                 WHERE {WHICH} AND ($4::timestamptz IS NULL OR (sent_at, message_id) > ($4, $5))
                 ORDER BY sent_at, message_id LIMIT $6 FOR UPDATE SKIP LOCKED
             ), noted AS (
                 UPDATE masq.ledger l SET outcome = CASE l.outcome WHEN {dead} THEN {purged} ELSE {row} END
                 FROM doomed d
                 WHERE l.sent_at = d.sent_at AND l.message_id = d.message_id AND l.outcome IN ({dead}, {replayed})
                     AND l.sent_at >= masq.ledger_oldest()
             ), gone AS (
                 DELETE FROM masq.dead_letters l USING doomed d
                 WHERE l.sent_at = d.sent_at AND l.message_id = d.message_id RETURNING l.sent_at, l.message_id, l.epoch
             ), record AS (
                 INSERT INTO masq.purges (claimed, condition, letters)
                 SELECT $7, $8, count(*) FROM gone HAVING count(*) > 0
             )
             SELECT sent_at, message_id, epoch FROM gone",
            dead = ledger::DEAD,
            purged = ledger::PURGED,
            row = ledger::ROW,
            replayed = ledger::REPLAYED,
        );
        let (sent, id) = self.after.map(|key| (time_of(key.sent_at), key.id)).unzip();
        let [until, reason, resolved] = self.parameters();
        let parameters = [
            until,
            reason,
            resolved,
            (&sent as &(dyn ToSql + Sync), Type::TIMESTAMPTZ),
            (&id, Type::UUID),
            (&LETTERS, Type::INT8),
            (&claimed, Type::TEXT),
            (&asked, Type::TEXT),
        ];
        session.query_typed(&purge, &parameters).await
    }

    fn parameters(&self) -> [(&(dyn ToSql + Sync), Type); 3] {
        let Condition { reason, resolved, .. } = &self.condition;
        [(&self.until, Type::TIMESTAMPTZ), (reason, Type::TEXT), (resolved, Type::BOOL)]
    }
}

/// Puts into the audit log how many letters of each epoch are gone, if any are.
async fn record(session: &Session, claimed: &str, asked: &str, gone: &[Row]) -> Result<(), Error> {
    const RECORD: &str = "SELECT masq.purged($1, $2, $3, $4)";
    let mut letters: BTreeMap<Uuid, i64> = BTreeMap::new();
    for row in gone {
        *letters.entry(row.try_get(2)?).or_default() += 1;
    }
    if letters.is_empty() {
        return Ok(());
    }
    let (epochs, letters): (Vec<Uuid>, Vec<i64>) = letters.into_iter().unzip();
    let parameters: [(&(dyn ToSql + Sync), Type); 4] =
        [(&claimed, Type::TEXT), (&asked, Type::TEXT), (&epochs, Type::UUID_ARRAY), (&letters, Type::INT8_ARRAY)];
    session.query_typed(RECORD, &parameters).await.map(drop)
}

//! After a restore: erasing again who was erased since the backup was made. The file knows their tags; who they are, as the
//! restored rows name them, is found by computing the tag of everybody there.

use std::collections::{HashMap, HashSet};

use futures_util::TryStreamExt;
use tokio_postgres::types::{ToSql, Type};
use zeroize::Zeroizing;

use super::{
    Asked, EraseError, Erased, Eraser, Why,
    journal::{Erasure, Journal},
};
use crate::vault::seal::{SubjectKey, SubjectTag};

/// What a replay came to.
#[derive(Clone, Debug)]
pub struct Replayed {
    /// Each erasure that was done again, in order.
    pub erased: Vec<Erased>,
    /// What had come back besides, and was deleted, too.
    pub swept: u64,
    /// Whether a database had been restored or moved, so that the vault was shut.
    pub was_shut: bool,
}

/// How the restored rows name the persons to be erased.
type Names = HashMap<SubjectTag, Vec<Zeroizing<String>>>;

impl Eraser {
    /// Does again every erasure of the file that the database does not know, and opens the vault. `nobody`: also where
    /// neither knows of any, for then somebody has to know that there was none.
    ///
    /// # Errors
    /// The file is none of this database, or a database refuses. The same call goes on where this one stopped.
    pub async fn replay(
        &self,
        why: Why<'_>,
        subjects: &SubjectKey,
        journal: &mut Journal,
        nobody: bool,
    ) -> Result<Replayed, EraseError> {
        // Before the file is given what the database knows: it would look complete.
        if let Some(number) = lacking(journal.erasures(), &self.known().await?) {
            return Err(EraseError::Old { number });
        }
        let known = self.catch_up(journal).await?;
        let missing = missing(journal.erasures(), &known)?;
        let was_shut = !self.are_home().await?;
        let mut replayed = Replayed { erased: Vec::new(), swept: 0, was_shut };
        if missing.is_empty() && !was_shut {
            return Ok(replayed);
        }
        if journal.erasures().is_empty() && !nobody {
            return Err(EraseError::Nobody);
        }
        let asked = self.ask(why, None).await?;
        let names = self.names(asked.request, subjects, &missing).await?;
        for erasure in missing {
            let elsewhere = self.erase_slots(&erasure).await?;
            let erased = self.again(&asked, &erasure, &names, elsewhere).await?;
            if erasure.number.is_none() {
                journal.write(&Erasure { number: Some(erased.number), ..erasure })?;
            }
            replayed.erased.push(erased);
        }
        self.note_in_slots().await?;
        replayed.swept = self.sweep_all().await?;
        self.come_home(&asked, replayed.erased.len()).await?;
        Ok(replayed)
    }

    async fn again(
        &self,
        asked: &Asked<'_>,
        erasure: &Erasure,
        names: &Names,
        elsewhere: Option<String>,
    ) -> Result<Erased, EraseError> {
        const AGAIN: &str = "SELECT masq.replay_erasure($1, $2, $3, $4, $5, $6, $7, $8::text::jsonb)::text";
        let failed = |error| EraseError::of("erasing again", &error);
        let tag: &[u8] = &erasure.subject.0;
        let theirs: Vec<&str> = names.get(&erasure.subject).into_iter().flatten().map(|name| name.as_str()).collect();
        let parameters: [(&(dyn ToSql + Sync), Type); 8] = [
            (&asked.request, Type::INT8),
            (&asked.claimed, Type::TEXT),
            (&erasure.key, Type::UUID),
            (&erasure.number, Type::INT8),
            (&tag, Type::BYTEA),
            (&theirs, Type::TEXT_ARRAY),
            (&erasure.delete_rows, Type::BOOL),
            (&elsewhere, Type::TEXT),
        ];
        let row = self.patiently(&self.rows, AGAIN, &parameters).await.map_err(failed)?;
        Ok(serde_json::from_str(row.try_get(0).map_err(failed)?)?)
    }

    /// Everybody who has a row goes by once; only those who are meant are kept.
    async fn names(&self, request: i64, key: &SubjectKey, missing: &[Erasure]) -> Result<Names, EraseError> {
        let failed = |error| EraseError::of("reading whose rows there are", &error);
        let wanted: HashSet<[u8; 16]> = missing.iter().map(|erasure| erasure.subject.0).collect();
        let mut names = Names::new();
        if wanted.is_empty() {
            return Ok(names);
        }
        let all = self.rows.within(async {
            self.rows.batch_execute("SET LOCAL statement_timeout = 0").await?;
            let sql = "SELECT * FROM masq.subjects($1)";
            let mut rows = std::pin::pin!(self.rows.query_typed_raw(sql, [(request, Type::INT8)]).await?);
            while let Some(row) = rows.try_next().await? {
                let name: &str = row.try_get(0)?;
                let tag = key.tag(name);
                if wanted.contains(&tag.0) {
                    names.entry(tag).or_default().push(Zeroizing::new(name.to_owned()));
                }
            }
            Ok(())
        });
        all.await.map_err(failed)?;
        Ok(names)
    }

    /// A database of slots that was restored may not know whose slots it may delete.
    async fn note_in_slots(&self) -> Result<(), EraseError> {
        const NOTE: &str = "SELECT masq_slots.note_erasures($1, $2)";
        let Some(session) = &self.slots else { return Ok(()) };
        let known = self.known().await?;
        let keys: Vec<_> = known.iter().map(|erasure| erasure.key).collect();
        let tags: Vec<&[u8]> = known.iter().map(|erasure| erasure.subject.0.as_slice()).collect();
        let parameters: [(&(dyn ToSql + Sync), Type); 2] = [(&keys, Type::UUID_ARRAY), (&tags, Type::BYTEA_ARRAY)];
        let noted = session.query_typed(NOTE, &parameters).await;
        noted.map(drop).map_err(|error| EraseError::of("noting erasures beside the slots", &error))
    }

    async fn are_home(&self) -> Result<bool, EraseError> {
        let failed = |error| EraseError::of("asking whether a database was restored", &error);
        let rows = self.rows.query_typed_one("SELECT masq.is_home()", &[]).await.map_err(failed)?;
        let session = self.slots.as_ref().unwrap_or(&self.rows);
        let slots = session.query_typed_one("SELECT masq_slots.is_home()", &[]).await.map_err(failed)?;
        Ok(rows.try_get(0).map_err(failed)? && slots.try_get(0).map_err(failed)?)
    }

    /// The slots first: whatever is cut off then is done again.
    async fn come_home(&self, asked: &Asked<'_>, erasures: usize) -> Result<(), EraseError> {
        const HOME: &str = "SELECT masq.come_home($1, $2, $3)";
        let failed = |error| EraseError::of("opening the vault again", &error);
        if let Some(slots) = &self.slots {
            slots.query_typed("SELECT masq_slots.come_home()", &[]).await.map_err(failed)?;
        }
        let erasures = i64::try_from(erasures).unwrap_or(i64::MAX);
        let parameters: [(&(dyn ToSql + Sync), Type); 3] =
            [(&asked.request, Type::INT8), (&asked.claimed, Type::TEXT), (&erasures, Type::INT8)];
        self.rows.query_typed(HOME, &parameters).await.map(drop).map_err(failed)
    }
}

/// The first erasure that the database knows and the file does not. A file that lacks one may lack later ones, too, which
/// nobody would ever do again.
fn lacking(file: &[Erasure], known: &[Erasure]) -> Option<i64> {
    let is_there = |known: &Erasure| file.iter().any(|there| there.key == known.key || there.number == known.number);
    known.iter().filter(|known| !is_there(known)).filter_map(|known| known.number).min()
}

/// What the file has and the database has not, by number; then what was begun, which gets the next numbers.
fn missing(file: &[Erasure], known: &[Erasure]) -> Result<Vec<Erasure>, EraseError> {
    let mut missing: Vec<Erasure> =
        file.iter().filter(|erasure| !known.iter().any(|known| known.key == erasure.key)).cloned().collect();
    missing.sort_by_key(|erasure| erasure.number.unwrap_or(i64::MAX));
    let first = known.iter().filter_map(|erasure| erasure.number).max().unwrap_or(0) + 1;
    let mut numbers = (first..).zip(missing.iter().filter_map(|erasure| erasure.number));
    match numbers.find(|(next, number)| next != number) {
        Some((number, _)) => Err(EraseError::Gap { number }),
        None => Ok(missing),
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn erasure(key: u128, number: Option<i64>) -> Erasure {
        Erasure { key: Uuid::from_u128(key), subject: SubjectTag([7; 16]), delete_rows: false, number }
    }

    #[test]
    fn numbers_go_on_where_the_database_stops() {
        let file = [erasure(1, Some(1)), erasure(9, None), erasure(3, Some(3)), erasure(2, Some(2))];
        let order = |missing: Vec<Erasure>| missing.iter().map(|erasure| erasure.key.as_u128()).collect::<Vec<_>>();
        assert_eq!(order(missing(&file, &file[..1]).unwrap()), [2, 3, 9]);
        assert_eq!(order(missing(&file, &[]).unwrap()), [1, 2, 3, 9]);
        assert_eq!(lacking(&file, &file[2..]), None);
        assert_eq!(lacking(&[erasure(1, None)], &file[..1]), None, "the end of it was not written down");
        assert_eq!(lacking(&file[..1], &file[2..]), Some(2));
        let without_second = &file[..3];
        assert!(matches!(missing(without_second, &file[..1]), Err(EraseError::Gap { number: 2 })));
    }
}

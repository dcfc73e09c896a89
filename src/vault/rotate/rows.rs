//! Rows that follow their entries: old tokens in the target tables replaced by the new ones that the bridge names, all
//! columns of a row at once, a range of blocks a transaction.
//!
//! A pass looks at every row once. What somebody else moved behind its back the next pass finds, so there are passes until
//! one finds nothing to do.

use tokio_postgres::types::{ToSql, Type};

use super::Rotation;
use crate::db::{DbError, Session};

/// Blocks of one transaction, of all parts of a table together: 1 MiB, some 10,000 rows. More would keep an erasure waiting, which locks the table; fewer leave
/// the cost of a commit to too few.
const BLOCKS: i64 = 128;

/// A table that rows go into, with its partitions or children.
#[derive(Clone, Debug)]
pub struct Table {
    schema: String,
    name: String,
    /// Of how many it consists, each of which has blocks counted from 0.
    parts: i64,
    /// Of the largest part.
    blocks: i64,
}

/// What a pass found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pass {
    /// Rows that got new tokens.
    pub updated: u64,
    /// Rows that keep an old token, since nothing says which is the new one.
    pub remaining: u64,
}

/// The columns of a table that the database knows to hold tokens: those that a rotation changes.
///
/// # Errors
/// If it cannot say.
pub async fn described(session: &Session, schema: &str, name: &str) -> Result<Vec<String>, DbError> {
    const READ: &str = "SELECT m ->> 'column' FROM masq.targets t, jsonb_array_elements(t.masked) AS m \
                        WHERE t.schema = $1 AND t.name = $2";
    let failed = |error| DbError::new("asking which columns hold tokens", &error);
    let rows = session.query_typed(READ, &[(&schema, Type::TEXT), (&name, Type::TEXT)]).await.map_err(failed)?;
    rows.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>().map_err(failed)
}

/// The tables that rows go into, as they are now.
///
/// # Errors
/// If the database cannot say.
pub async fn tables(rotation: &Rotation<'_>) -> Result<Vec<Table>, DbError> {
    let failed = |error| DbError::new("looking for the tables", &error);
    let rows = rotation.session.query_typed("SELECT schema, name, parts, blocks FROM masq.rekey_tables()", &[]).await;
    let table = |row: &tokio_postgres::Row| {
        Ok(Table { schema: row.try_get(0)?, name: row.try_get(1)?, parts: row.try_get(2)?, blocks: row.try_get(3)? })
    };
    rows.map_err(failed)?.iter().map(table).collect::<Result<_, _>>().map_err(failed)
}

impl Table {
    /// How many ranges of blocks it has.
    pub fn ranges(&self) -> u64 {
        self.blocks.unsigned_abs().div_ceil(self.range().unsigned_abs())
    }

    /// The blocks of a range, in every part.
    fn range(&self) -> i64 {
        (BLOCKS / self.parts.max(1)).max(1)
    }

    /// Gives the rows of this range, counted from 0, the new tokens that there are for them.
    ///
    /// # Errors
    /// If the database fails; then no row of the range has changed.
    pub async fn rekey(&self, rotation: &mut Rotation<'_>, range: u64) -> Result<Pass, DbError> {
        const REKEY: &str = "SELECT updated, remaining FROM masq.rekey_rows($1, $2, $3, $4, $5)";
        let doing = "updating the rows";
        let row = self.call(rotation, doing, REKEY, range).await?;
        let counts = row.try_get::<_, i64>(0).and_then(|updated| Ok((updated, row.try_get::<_, i64>(1)?)));
        let (updated, remaining) = counts.map_err(|error| DbError::new(doing, &error))?;
        Ok(Pass { updated: updated.unsigned_abs(), remaining: remaining.unsigned_abs() })
    }

    /// Gives old tokens in this range that have no new one a tombstone for one. Answers how many.
    ///
    /// # Errors
    /// If the database fails, or the old key is not said to have leaked.
    pub async fn bury(&self, rotation: &mut Rotation<'_>, range: u64) -> Result<u64, DbError> {
        const BURY: &str = "SELECT masq.bury_tokens($1, $2, $3, $4, $5)";
        let doing = "burying tokens";
        let row = self.call(rotation, doing, BURY, range).await?;
        row.try_get(0).map(i64::unsigned_abs).map_err(|error| DbError::new(doing, &error))
    }

    async fn call(
        &self,
        rotation: &mut Rotation<'_>,
        doing: &str,
        sql: &str,
        range: u64,
    ) -> Result<tokio_postgres::Row, DbError> {
        let first = i64::try_from(range).unwrap_or(i64::MAX).saturating_mul(self.range());
        let past = first.saturating_add(self.range()).min(self.blocks);
        let rest: [(&(dyn ToSql + Sync), Type); 4] =
            [(&self.schema, Type::TEXT), (&self.name, Type::TEXT), (&first, Type::INT8), (&past, Type::INT8)];
        rotation.call_one(doing, sql, &rest).await
    }
}

/// Makes the views in which all tokens are of the new key. Answers where none could be made, and why.
///
/// # Errors
/// If the database fails.
pub async fn show_bridged(rotation: &mut Rotation<'_>) -> Result<Vec<String>, DbError> {
    let doing = "making the views of bridged tokens";
    let row = rotation.call_one(doing, "SELECT masq.show_bridged($1)", &[]).await?;
    row.try_get(0).map_err(|error| DbError::new(doing, &error))
}

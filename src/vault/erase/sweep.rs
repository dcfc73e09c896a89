//! What came back of erased persons, deleted: a worker that began its epoch before an erasure knows nothing of it, and for
//! a minute writes with what it had. Nobody can fetch that, and it does not stay.

use std::time::Duration;

use tokio_postgres::{
    Error,
    types::{ToSql, Type},
};
use uuid::Uuid;

use crate::db::Session;

/// For which erasures workers look. SQS hides a message for twelve hours at most, so no batch that is in hand is older
/// than this; more would make every look longer.
pub const RECENT: Duration = Duration::from_secs(2 * 86_400);

/// All erasures there are: a hundred years.
pub(super) const ALL: Duration = Duration::from_secs(100 * 365 * 86_400);

/// Deletes entries, slots and dead letters of persons who were erased not longer ago than `since`, as far as they are
/// from before. `slots`: a session with the database of the slots, if they have one of their own. Answers how many.
///
/// # Errors
/// If one of the databases refuses. Doing it again does the rest.
pub async fn sweep(rows: &Session, slots: Option<&Session>, since: Duration) -> Result<u64, Error> {
    let seconds = since.as_secs_f64();
    let elsewhere = match slots {
        Some(slots) => sweep_slots(rows, slots, seconds).await?,
        None => "{}".to_owned(),
    };
    const SWEEP: &str = "SELECT masq.sweep($1::text::jsonb, make_interval(secs => $2))";
    let parameters: [(&(dyn ToSql + Sync), Type); 2] = [(&elsewhere, Type::TEXT), (&seconds, Type::FLOAT8)];
    let gone: i64 = rows.within(rows.query_typed_one(SWEEP, &parameters)).await?.try_get(0)?;
    Ok(gone.unsigned_abs())
}

/// Only the database of the rows knows how old an epoch is. Answers what was deleted, as JSON.
async fn sweep_slots(rows: &Session, slots: &Session, since: f64) -> Result<String, Error> {
    const FIND: &str = "SELECT subject_tag, epoch FROM masq_slots.of_erased(make_interval(secs => $1))";
    const JUDGE: &str = "SELECT subject_tag, epoch FROM masq.stale($1, $2)";
    const DELETE: &str = "SELECT masq_slots.sweep($1, $2)::text";
    let found = slots.within(slots.query_typed(FIND, &[(&since, Type::FLOAT8)])).await?;
    let (tags, epochs) = pairs(&found)?;
    let stale = rows.query_typed(JUDGE, &[(&tags, Type::BYTEA_ARRAY), (&epochs, Type::UUID_ARRAY)]).await?;
    let (tags, epochs) = pairs(&stale)?;
    let parameters: [(&(dyn ToSql + Sync), Type); 2] = [(&tags, Type::BYTEA_ARRAY), (&epochs, Type::UUID_ARRAY)];
    slots.within(slots.query_typed_one(DELETE, &parameters)).await?.try_get(0)
}

fn pairs(rows: &[tokio_postgres::Row]) -> Result<(Vec<Vec<u8>>, Vec<Uuid>), Error> {
    rows.iter().map(|row| Ok::<(Vec<u8>, Uuid), Error>((row.try_get(0)?, row.try_get(1)?))).collect()
}

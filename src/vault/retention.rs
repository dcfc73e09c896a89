//! How long what is sealed is kept. An epoch's key goes as soon as the epoch is too old, which shuts all that was sealed
//! under it; the sealed values and their slots go with their whole month. A dead letter keeps its epoch's key, and then
//! the values and slots of that epoch go at once.

use std::time::Duration;

use tokio_postgres::{
    Error,
    types::{ToSql, Type},
};
use uuid::Uuid;

use crate::db::Session;

/// Letters, epochs and, before PostgreSQL 11, values of one call. More would hold locks for longer than a batch likes to
/// wait; fewer would take days to delete what a retention that was made shorter leaves behind.
const MOST: i32 = 10_000;

/// How long what is kept; `None`: for ever.
#[derive(Clone, Copy, Debug, Default)]
pub struct Keep {
    /// `[vault] retention`: sealed values.
    pub values: Option<Duration>,
    /// `[dead_letters] retention`
    pub letters: Option<Duration>,
}

/// Deletes some of what is too old, on the record. `slots`: a session with the database of the slots, if they have one of
/// their own. Answers whether there may be more.
///
/// # Errors
/// If one of the databases refuses. Doing it again does the rest.
pub async fn keep(rows: &Session, slots: Option<&Session>, keep: Keep) -> Result<bool, Error> {
    const KEEP: &str = "SELECT more, slots_of, day::text \
                        FROM masq.keep_vault(make_interval(secs => $1), make_interval(secs => $2), $3)";
    if keep.values.is_none() && keep.letters.is_none() {
        return Ok(false);
    }
    let (values, letters) = (keep.values.map(|time| time.as_secs_f64()), keep.letters.map(|time| time.as_secs_f64()));
    let parameters: [(&(dyn ToSql + Sync), Type); 3] =
        [(&values, Type::FLOAT8), (&letters, Type::FLOAT8), (&MOST, Type::INT4)];
    let row = rows.within(rows.query_typed_one(KEEP, &parameters)).await?;
    let more: Option<bool> = row.try_get(0)?;
    let (Some(slots), Some(day)) = (slots, row.try_get::<_, Option<String>>(2)?) else {
        return Ok(more.unwrap_or(false));
    };
    let epochs: Option<Vec<Uuid>> = row.try_get(1)?;
    let more_slots = keep_slots(rows, slots, &day, &epochs.unwrap_or_default()).await?;
    Ok(more.unwrap_or(false) || more_slots)
}

async fn keep_slots(rows: &Session, slots: &Session, day: &str, epochs: &[Uuid]) -> Result<bool, Error> {
    const KEEP: &str = "SELECT gone::text, more FROM masq_slots.keep_slots($1::text::date, $2, $3)";
    const RECORD: &str = "SELECT masq.kept_slots($1::text::jsonb)";
    let parameters: [(&(dyn ToSql + Sync), Type); 3] =
        [(&day, Type::TEXT), (&epochs, Type::UUID_ARRAY), (&MOST, Type::INT4)];
    let row = slots.within(slots.query_typed_one(KEEP, &parameters)).await?;
    let gone: &str = row.try_get(0)?;
    rows.within(rows.query_typed(RECORD, &[(&gone, Type::TEXT)])).await?;
    row.try_get(1)
}

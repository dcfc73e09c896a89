//! The database with the slots: whether it is another than that with the rows, and how long it keeps what it has. What is
//! read and written there is not here, but in `sink/` and `vault/`.

use tokio_postgres::types::{ToSql, Type};
use uuid::Uuid;

use super::{DbError, Session};
use crate::{check::Finding, config::VaultConfig};

/// What is wrong where both sessions are with one database. Its roles and functions would take the slots for those beside
/// the rows, which only masq's own functions delete, and a worker for one that deletes them itself.
///
/// Of two sessions with one database the second does not get the lock that the first one has. Names, addresses and the
/// system identifier say less: a server has several, and a restored one has those of another.
///
/// # Errors
/// If one of them cannot say.
pub async fn beside_rows(rows: &Session, slots: &Session) -> Result<Option<Finding>, DbError> {
    let number = Uuid::new_v4().as_u64_pair().0.cast_signed();
    let key: [(&(dyn ToSql + Sync), Type); 1] = [(&number, Type::INT8)];
    let is_another = rows.within(async {
        rows.query_typed("SELECT pg_advisory_xact_lock($1)", &key).await?;
        slots.query_typed_one("SELECT pg_try_advisory_xact_lock($1)", &key).await?.try_get(0)
    });
    let is_another: bool = is_another
        .await
        .map_err(|error| DbError::new("comparing the database of the slots with that of the rows", &error))?;
    Ok((!is_another).then(|| {
        Finding::refused(
            "database",
            "slots_url in [vault] names the database that the rows are in",
            "leave slots_url out, for slots beside the rows; or name another database",
        )
    }))
}

/// Sets how long slots are kept at least, in their own database, where a worker's login cannot go past it.
///
/// # Errors
/// If the database refuses.
pub async fn set_limit(session: &Session, vault: &VaultConfig) -> Result<(), DbError> {
    const SET: &str = "UPDATE masq_slots.policy SET values_kept = make_interval(secs => $1)";
    let values = vault.retention.map(|kept| kept.as_secs_f64());
    let set = session.execute_typed(SET, &[(&values, Type::FLOAT8)]).await;
    set.map(drop).map_err(|error| DbError::new("setting how long slots are kept", &error))
}

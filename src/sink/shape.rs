//! Whether the target's columns still have the types whose bytes are written. COPY BINARY itself does not find out: to
//! it the four characters of the version 0.96 are a good integer.

use std::mem::discriminant;

use tokio_postgres::{
    Client, Error,
    types::{ToSql, Type},
};

use crate::{
    config::TableName,
    db::{DbError, Session, catalog, catalog::Table},
    sink::{SinkError, postgres::Target},
};

/// In which order the columns stand does not matter, nor does how long a varchar is: that PostgreSQL checks.
const SHAPE: &str = "SELECT string_agg(attname || ' ' || atttypid, ', ' ORDER BY attname) FROM pg_attribute \
     WHERE attrelid = to_regclass($1) AND attname = ANY ($2) AND NOT attisdropped";

/// The types of the written columns, to be compared with another time's. Whoever has written to the table in the same
/// transaction has locked it, so that its types stay.
pub(super) async fn now(client: &Client, target: &Target) -> Result<Option<String>, Error> {
    let name = catalog::quote_table(&name(&target.table));
    let parameters: [(&(dyn ToSql + Sync), Type); 2] = [(&name, Type::TEXT), (&target.columns, Type::TEXT_ARRAY)];
    client.query_typed_one(SHAPE, &parameters).await?.try_get(0)
}

/// Takes the types as they are if they are still those that the start found.
pub(super) async fn as_started(session: &Session, target: &Target) -> Result<Option<String>, SinkError> {
    let failed = |error| SinkError::from(DbError::new("reading the table's columns from the catalogue", &error));
    // Before the look, so that a change between the two is noticed.
    let shape = now(session, target).await.map_err(failed)?;
    let found = catalog::table(session, &name(&target.table)).await?;
    let is_same = |column: &String| {
        let kind = |table: &Table| {
            let there = table.columns.iter().find(|there| there.name == *column)?;
            there.column_type.as_ref().ok().map(discriminant)
        };
        found.as_ref().and_then(kind) == kind(&target.table)
    };
    if target.columns.iter().all(is_same) { Ok(shape) } else { Err(changed(target)) }
}

/// The columns have other names or types now, or are gone.
pub(super) fn changed(target: &Target) -> SinkError {
    let Table { schema, name, .. } = &target.table;
    SinkError::Misconfigured(format!(
        "the columns of {schema}.{name} have other names or types than when masq started: restore \
         them, or start masq again"
    ))
}

fn name(table: &Table) -> TableName {
    TableName { schema: Some(table.schema.clone()), name: table.name.clone() }
}

impl From<DbError> for SinkError {
    fn from(error: DbError) -> Self {
        match error {
            DbError::Unavailable(text) => Self::Unavailable(text),
            DbError::Denied(text) | DbError::Misconfigured(text) => Self::Misconfigured(text),
            DbError::Refused(refusal) => Self::Misconfigured(refusal.said),
        }
    }
}

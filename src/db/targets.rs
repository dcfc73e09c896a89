//! What the database is told of the target table: which column names a person, and which hold tokens. An erasure goes by
//! that, in a function that knows no configuration.

use serde_json::{Value, json};
use tokio_postgres::types::{ToSql, Type};

use super::{DbError, Session, catalog::Table};
use crate::{
    check::{Finding, Severity},
    config::{Column, Mask},
};

/// Writes down the table and what these columns are, if it is not there yet and this login may; otherwise that is a
/// finding.
///
/// # Errors
/// If the database cannot answer.
pub async fn describe(session: &Session, table: &Table, columns: &[Column]) -> Result<Vec<Finding>, DbError> {
    const ASK: &str = "SELECT masq.is_described($1, $2, $3, $4::text::jsonb), \
        has_table_privilege('masq.targets', 'INSERT') AND has_table_privilege('masq.targets', 'UPDATE') \
        AND has_function_privilege('masq.describe_target(text, text, text, jsonb)', 'EXECUTE')";
    const WRITE: &str = "SELECT masq.describe_target($1, $2, $3, $4::text::jsonb)";
    let failed = |error| DbError::new("describing the target table", &error);
    let (subject, masked) = (subject(columns), masked(columns).to_string());
    let parameters: [(&(dyn ToSql + Sync), Type); 4] =
        [(&table.schema, Type::TEXT), (&table.name, Type::TEXT), (&subject, Type::TEXT), (&masked, Type::TEXT)];
    let row = session.query_typed_one(ASK, &parameters).await.map_err(failed)?;
    let (is_described, may_describe): (bool, bool) = (row.try_get(0).map_err(failed)?, row.try_get(1).map_err(failed)?);
    if is_described {
        return Ok(Vec::new());
    }
    if may_describe {
        session.query_typed(WRITE, &parameters).await.map_err(failed)?;
        return Ok(Vec::new());
    }
    Ok(vec![Finding::new(
        Severity::Denied,
        "database",
        format!(
            "masq.targets does not say of {} what [columns] says, so that `masq forget` would miss some of it",
            table.name
        ),
        "run `masq migrate` once with this configuration and the login that owns the schema masq",
    )])
}

/// The column by which the rows of a person are found: in clear or as a token.
fn subject(columns: &[Column]) -> Option<&str> {
    let subject = columns.iter().find(|column| column.subject)?;
    matches!(subject.mask, None | Some(Mask::Hmac { .. })).then_some(subject.name.as_str())
}

fn masked(columns: &[Column]) -> Value {
    let tokens = columns.iter().filter_map(|column| match &column.mask {
        Some(Mask::Hmac { domain }) => Some(json!({"column": column.name, "field": domain})),
        _ => None,
    });
    Value::Array(tokens.collect())
}

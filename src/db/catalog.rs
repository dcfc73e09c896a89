//! What PostgreSQL's catalogue says of a table, and how safely the server keeps what it commits.
//!
//! Works from PostgreSQL 10 on and behind a pooler: unnamed statements, no type beyond the built-in ones.

use tokio_postgres::{Row, types::Type};

use super::{DbError, Session};
use crate::config::{ColumnType, TableName};

/// A table, as it is.
#[derive(Clone, Debug)]
pub struct Table {
    /// Its number in `pg_class`.
    pub oid: u32,
    /// Its schema, found by the search path where the configuration named none.
    pub schema: String,
    /// Its name.
    pub name: String,
    /// What it is.
    pub kind: Kind,
    /// Whether a crash or the session's end empties it.
    pub persistence: Persistence,
    /// Its columns in their order, without dropped ones.
    pub columns: Vec<TableColumn>,
}

/// `pg_class.relkind`, as far as it matters to whoever writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // PostgreSQL's own words
pub enum Kind {
    Table,
    Partitioned,
    View,
    Foreign,
    Other,
}

/// `pg_class.relpersistence`; of a partitioned table the weakest among its partitions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // PostgreSQL's own words
pub enum Persistence {
    Permanent,
    Unlogged,
    Temporary,
}

/// A column of a [`Table`].
#[derive(Clone, Debug)]
pub struct TableColumn {
    /// Its name.
    pub name: String,
    /// Its type, of a domain the type below; or the SQL name of a type that masq does not write.
    pub column_type: Result<ColumnType, String>,
    /// NULL is refused, by the column or by its domain.
    pub not_null: bool,
    /// Left out, it gets a value: by DEFAULT, by identity or by its domain.
    pub has_default: bool,
    /// GENERATED ALWAYS AS (…): cannot be written.
    pub generated: bool,
    /// GENERATED ALWAYS AS IDENTITY: COPY writes it, INSERT only with OVERRIDING SYSTEM VALUE.
    pub identity_always: bool,
    /// The session's user may INSERT into it.
    pub may_insert: bool,
}

const TABLE: &str = "\
    WITH RECURSIVE part(oid) AS (
        SELECT to_regclass($1)::oid
        UNION ALL SELECT i.inhrelid FROM pg_inherits i JOIN part p ON i.inhparent = p.oid
    )
    SELECT c.oid, n.nspname::text, c.relname::text, c.relkind::text,
           (SELECT max(d.relpersistence::text) FROM part p JOIN pg_class d ON d.oid = p.oid)
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.oid = to_regclass($1)::oid";

/// A domain may stand on a domain: each step down adds its NOT NULL and DEFAULT, the last one is the type. A modifier
/// (a varchar's length) stands on the domain, not on the column. `to_jsonb` reads `attgenerated`, which PostgreSQL 10
/// and 11 do not have.
const COLUMNS: &str = "\
    WITH RECURSIVE base AS (
        SELECT a.attnum, 0 AS step, t.oid AS type, a.atttypmod AS modifier, t.typtype, t.typbasetype, t.typtypmod,
               a.attnotnull OR t.typnotnull AS not_null, t.typdefault IS NOT NULL AS has_default
        FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
        WHERE a.attrelid = $1 AND a.attnum > 0 AND NOT a.attisdropped
        UNION ALL
        SELECT b.attnum, b.step + 1, t.oid, b.typtypmod, t.typtype, t.typbasetype, t.typtypmod,
               b.not_null OR t.typnotnull, b.has_default OR t.typdefault IS NOT NULL
        FROM base b JOIN pg_type t ON t.oid = b.typbasetype WHERE b.typtype = 'd'
    )
    SELECT a.attname::text, b.type, b.modifier, format_type(a.atttypid, a.atttypmod), b.not_null,
           b.has_default OR a.atthasdef OR a.attidentity <> '',
           coalesce(to_jsonb(a) ->> 'attgenerated', '') <> '', a.attidentity = 'a',
           has_column_privilege(a.attrelid, a.attnum, 'INSERT')
    FROM base b JOIN pg_attribute a ON a.attrelid = $1 AND a.attnum = b.attnum
    WHERE b.typtype <> 'd' ORDER BY a.attnum";

/// Reads a table; `None` if there is none of that name, or none on the search path.
///
/// # Errors
/// If the catalogue cannot be read, or the schema not be entered.
pub async fn table(session: &Session, name: &TableName) -> Result<Option<Table>, DbError> {
    let failed = |error| DbError::new("reading the table's columns from the catalogue", &error);
    let quoted = quote_table(name);
    let Some(row) = session.query_typed_opt(TABLE, &[(&quoted, Type::TEXT)]).await.map_err(failed)? else {
        return Ok(None);
    };
    let oid: u32 = row.try_get(0).map_err(failed)?;
    let rows = session.query_typed(COLUMNS, &[(&oid, Type::OID)]).await.map_err(failed)?;
    let columns = rows.iter().map(column).collect::<Result<_, _>>().map_err(failed)?;
    Ok(Some(Table {
        oid,
        schema: row.try_get(1).map_err(failed)?,
        name: row.try_get(2).map_err(failed)?,
        kind: kind(row.try_get(3).map_err(failed)?),
        persistence: persistence(row.try_get(4).map_err(failed)?),
        columns,
    }))
}

fn column(row: &Row) -> Result<TableColumn, tokio_postgres::Error> {
    let (oid, modifier, sql_name): (u32, i32, String) = (row.try_get(1)?, row.try_get(2)?, row.try_get(3)?);
    Ok(TableColumn {
        name: row.try_get(0)?,
        column_type: column_type(oid, modifier).ok_or(sql_name),
        not_null: row.try_get(4)?,
        has_default: row.try_get(5)?,
        generated: row.try_get(6)?,
        identity_always: row.try_get(7)?,
        may_insert: row.try_get(8)?,
    })
}

/// The type of this number in `pg_type`. The modifier of character types is their length plus 4, or -1 for none.
fn column_type(oid: u32, modifier: i32) -> Option<ColumnType> {
    let length = modifier.checked_sub(4).and_then(|length| u32::try_from(length).ok());
    let column_type = match Type::from_oid(oid)? {
        Type::TEXT => ColumnType::Text,
        Type::VARCHAR => ColumnType::Varchar(length),
        Type::BPCHAR => ColumnType::Char(length?),
        Type::INT2 => ColumnType::SmallInt,
        Type::INT4 => ColumnType::Integer,
        Type::INT8 => ColumnType::BigInt,
        Type::FLOAT4 => ColumnType::Real,
        Type::FLOAT8 => ColumnType::DoublePrecision,
        Type::NUMERIC => ColumnType::Numeric,
        Type::BOOL => ColumnType::Boolean,
        Type::DATE => ColumnType::Date,
        Type::TIMESTAMP => ColumnType::Timestamp,
        Type::TIMESTAMPTZ => ColumnType::TimestampTz,
        Type::UUID => ColumnType::Uuid,
        Type::INET => ColumnType::Inet,
        Type::JSON => ColumnType::Json,
        Type::JSONB => ColumnType::Jsonb,
        Type::BYTEA => ColumnType::Bytea,
        _ => return None,
    };
    Some(column_type)
}

fn kind(letter: &str) -> Kind {
    match letter {
        "r" => Kind::Table,
        "p" => Kind::Partitioned,
        "v" => Kind::View,
        "f" => Kind::Foreign,
        _ => Kind::Other,
    }
}

/// The letters' order in the alphabet is the order of their weakness: p, t, u.
fn persistence(letter: &str) -> Persistence {
    match letter {
        "u" => Persistence::Unlogged,
        "t" => Persistence::Temporary,
        _ => Persistence::Permanent,
    }
}

/// How safely the server keeps what it commits, by its settings for this session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Durability {
    /// `fsync`
    pub fsync: bool,
    /// `synchronous_commit`: `off` loses commits in a crash, anything else does not.
    pub synchronous_commit: String,
    /// `full_page_writes`
    pub full_page_writes: bool,
    /// It is a standby, or being restored.
    pub in_recovery: bool,
    /// `synchronous_standby_names`; empty where no standby is waited for.
    pub synchronous_standby_names: String,
    /// 150004 is 15.4.
    pub server_version_num: i32,
}

const DURABILITY: &str = "\
    SELECT current_setting('fsync')::bool, current_setting('synchronous_commit'),
           current_setting('full_page_writes')::bool, pg_is_in_recovery(),
           current_setting('synchronous_standby_names'), current_setting('server_version_num')::int";

/// Reads the settings that decide what a COMMIT is worth.
///
/// # Errors
/// If they cannot be read.
pub async fn durability(session: &Session) -> Result<Durability, DbError> {
    let failed = |error| DbError::new("reading the server's settings", &error);
    let row = session.query_typed_one(DURABILITY, &[]).await.map_err(failed)?;
    Ok(Durability {
        fsync: row.try_get(0).map_err(failed)?,
        synchronous_commit: row.try_get(1).map_err(failed)?,
        full_page_writes: row.try_get(2).map_err(failed)?,
        in_recovery: row.try_get(3).map_err(failed)?,
        synchronous_standby_names: row.try_get(4).map_err(failed)?,
        server_version_num: row.try_get(5).map_err(failed)?,
    })
}

/// A name as SQL takes it literally: in double quotes, with those inside doubled.
pub fn quote_ident(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A table's name as SQL takes it literally, with its schema where it has one.
pub fn quote_table(name: &TableName) -> String {
    match &name.schema {
        Some(schema) => format!("{}.{}", quote_ident(schema), quote_ident(&name.name)),
        None => quote_ident(&name.name),
    }
}

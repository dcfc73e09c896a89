//! Who may do what, enforced by PostgreSQL: the roles of `migrations/roles/`, of which the database's administrator makes
//! logins members.
//!
//! [`apply`] makes the roles and hands both schemas over to masq_owner; from then on every migration gives the roles
//! their rights again, since it may have made something new. [`grant_target`] does the same for the target table, which
//! stays its owner's. The rights themselves are SQL, and listed there.

use std::time::Duration;

use tokio_postgres::{
    Error,
    types::{ToSql, Type},
};

use super::{
    DbError, Session,
    catalog::{Table, quote_ident},
    migrations::Schema,
};
use crate::{
    check::{Finding, Severity},
    config::Config,
};

/// Makes the roles, and this login a member of masq_owner where it must be one. In a transaction of its own: other
/// databases of the cluster wait for it.
pub const CREATE: &str = include_str!("../../migrations/roles/create.sql");

const OWN: &str = include_str!("../../migrations/roles/own.sql");

/// What makes masq_owner own these schemas and gives the roles their rights in them; for one transaction.
pub fn sql(schemas: &[&Schema]) -> String {
    let grants = schemas.iter().map(|schema| schema.grants());
    std::iter::once(OWN).chain(grants).collect::<Vec<_>>().join("\n")
}

/// Whether the schemas of this database belong to masq_owner.
///
/// # Errors
/// If the catalogue cannot be read.
pub async fn are_there(session: &Session) -> Result<bool, DbError> {
    const THERE: &str = "SELECT EXISTS (SELECT FROM pg_namespace WHERE nspname IN ('masq', 'masq_slots') \
                         AND pg_get_userbyid(nspowner) = 'masq_owner')";
    is(session, THERE).await
}

/// As [`are_there`], and this login may do what masq_owner may.
pub(super) async fn are_mine(session: &Session) -> Result<bool, DbError> {
    const MINE: &str = "SELECT EXISTS (SELECT FROM pg_namespace WHERE nspname IN ('masq', 'masq_slots') \
                        AND pg_get_userbyid(nspowner) = 'masq_owner' AND pg_has_role(current_user, nspowner, 'USAGE'))";
    is(session, MINE).await
}

async fn is(session: &Session, question: &str) -> Result<bool, DbError> {
    let answer = session.query_typed_one(question, &[]).await.and_then(|row| row.try_get(0));
    answer.map_err(failed)
}

fn failed(error: Error) -> DbError {
    DbError::new("asking for the roles", &error)
}

/// Makes the roles if they are missing, hands these schemas, which are there, over to masq_owner, and gives the roles
/// their rights in them. If this login may not, what keeps it from that is the answer, and nothing but roles has changed.
///
/// # Errors
/// If the database refuses for another reason, such as a lock that somebody holds.
pub async fn apply(session: &Session, schemas: &[&Schema]) -> Result<Vec<Finding>, DbError> {
    let findings = obstacles(session, BEFORE).await?;
    if !findings.is_empty() {
        return Ok(findings);
    }
    let doing = |error| DbError::new("making the roles", &error);
    session.batch_execute(CREATE).await.map_err(doing)?;
    let findings = obstacles(session, AFTER).await?;
    if !findings.is_empty() {
        return Ok(findings);
    }
    let handed_over = session.within(session.batch_execute(&sql(schemas))).await;
    handed_over.map_err(|error| DbError::new("giving the roles their rights", &error))?;
    Ok(Vec::new())
}

/// What keeps this login from making roles: cause and remedy. Before PostgreSQL 16, CREATEROLE may administer every role;
/// since then only those that it has made.
const BEFORE: &str = "\
    WITH me AS (SELECT rolsuper, rolsuper OR rolcreaterole AS may_create,
                       rolsuper OR rolcreaterole AND current_setting('server_version_num')::int < 160000 AS may_administer
                FROM pg_roles WHERE rolname = current_user),
         missing AS (SELECT string_agg(role, ', ' ORDER BY at) AS roles,
                            string_agg(format('CREATE ROLE %I', role), '; ' ORDER BY at) AS creating
                     FROM unnest(ARRAY['masq_owner', 'masq_writer', 'masq_operator', 'masq_analyst', 'masq_revealer',
                                       'masq_eraser', 'masq_auditor']) WITH ORDINALITY AS r (role, at)
                     WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = role)),
         others AS (SELECT nspname, nspowner AS owner FROM pg_namespace WHERE nspname IN ('masq', 'masq_slots')
                    UNION ALL SELECT nspname, relowner FROM pg_class JOIN pg_namespace n ON n.oid = relnamespace
                    WHERE nspname IN ('masq', 'masq_slots') AND relkind IN ('r', 'p', 'v')
                    UNION ALL SELECT nspname, proowner FROM pg_proc JOIN pg_namespace n ON n.oid = pronamespace
                    WHERE nspname IN ('masq', 'masq_slots'))
    SELECT format('the roles %s are missing, and this login may not create roles', roles),
           format('run `masq migrate --roles` as a superuser or a login with CREATEROLE, or have one run: %s; '
                  'GRANT masq_owner TO %I', creating, current_user)
    FROM me, missing WHERE roles IS NOT NULL AND NOT may_create
    UNION ALL
    SELECT 'this login is no member of masq_owner, and may not become one',
           format('run `masq migrate --roles` as a superuser, or have one run: GRANT masq_owner TO %I', current_user)
    FROM me, pg_roles r WHERE rolname = 'masq_owner' AND NOT may_administer AND NOT pg_has_role(current_user, r.oid, 'MEMBER')
    UNION ALL
    SELECT DISTINCT format('parts of the schema %s belong to %I', nspname, pg_get_userbyid(owner)),
           format('run `masq migrate --roles` as %I or as a superuser', pg_get_userbyid(owner))
    FROM others WHERE NOT pg_has_role(current_user, owner, 'MEMBER') AND pg_get_userbyid(owner) <> 'masq_owner'
    UNION ALL
    SELECT format('this login may not create schemas in %I, which who hands one over must be able to', current_database()),
           format('GRANT CREATE ON DATABASE %I TO %I', current_database(), current_user)
    WHERE NOT has_database_privilege(current_database(), 'CREATE')
      AND EXISTS (SELECT FROM others WHERE pg_get_userbyid(owner) <> 'masq_owner')";

/// What keeps this login from acting as masq_owner.
const AFTER: &str = "\
    SELECT 'this login is a member of masq_owner and may not act as it',
           CASE WHEN current_setting('server_version_num')::int < 160000 THEN format('ALTER ROLE %I INHERIT', current_user)
                ELSE format('GRANT masq_owner TO %I WITH INHERIT TRUE, SET TRUE', current_user) END
    WHERE NOT pg_has_role(current_user, 'masq_owner', 'USAGE')
       OR NOT pg_has_role(current_user, 'masq_owner',
                          CASE WHEN current_setting('server_version_num')::int < 160000 THEN 'USAGE' ELSE 'SET' END)";

async fn obstacles(session: &Session, query: &str) -> Result<Vec<Finding>, DbError> {
    let rows = session.query_typed(query, &[]).await.map_err(failed)?;
    let finding = |row: &tokio_postgres::Row| {
        Ok(Finding::new(Severity::Denied, "roles", row.try_get::<_, &str>(0)?, row.try_get::<_, &str>(1)?))
    };
    rows.iter().map(finding).collect::<Result<_, Error>>().map_err(failed)
}

/// What the roles lack on the target table: the statement, whose it is to run, and whether this login may. Columns that
/// were configured once keep their grants: another masq may write them.
///
/// masq_owner erases and re-keys. A serial column's default takes a right to its sequence, an identity column none.
const LACKING: &str = "\
    WITH target AS (SELECT c.oid, relowner, format('%I.%I', nspname, relname) AS name, nspname, nspowner, n.oid AS schema
                    FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace WHERE c.oid = $1),
         users AS (SELECT rolname FROM pg_roles
                   WHERE rolname IN ('masq_owner', 'masq_writer', 'masq_operator', 'masq_analyst')),
         wanted (role, privilege) AS (VALUES ('masq_owner', 'SELECT'), ('masq_owner', 'UPDATE'), ('masq_owner', 'DELETE'),
                                             ('masq_analyst', 'SELECT'), ('masq_operator', 'SELECT')),
         lacking AS (
             SELECT format('GRANT USAGE ON SCHEMA %I TO %s', nspname, string_agg(rolname, ', ' ORDER BY rolname)) AS sql,
                    nspowner AS owner
             FROM target, users WHERE NOT has_schema_privilege(rolname, schema, 'USAGE') GROUP BY nspname, nspowner
             UNION ALL
             SELECT format('GRANT INSERT (%s) ON %s TO masq_writer, masq_operator', $3, name), relowner FROM target
             WHERE EXISTS (SELECT FROM unnest($2::text[]) AS col, unnest(ARRAY['masq_writer', 'masq_operator']) AS role
                           WHERE NOT has_column_privilege(role, target.oid, col, 'INSERT'))
             UNION ALL
             SELECT format('GRANT %s ON %s TO %s', string_agg(privilege, ', '), name, role), relowner FROM target, wanted
             WHERE NOT has_table_privilege(role, target.oid, privilege) GROUP BY name, role, relowner
             UNION ALL
             SELECT format('GRANT USAGE ON SEQUENCE %s TO masq_writer, masq_operator', d.objid::regclass), target.relowner
             FROM target JOIN pg_depend d ON d.refobjid = target.oid AND d.refclassid = 'pg_class'::regclass
             JOIN pg_class s ON s.oid = d.objid AND d.classid = 'pg_class'::regclass
             WHERE d.deptype = 'a' AND s.relkind = 'S'
               AND NOT (has_sequence_privilege('masq_writer', s.oid, 'USAGE')
                        AND has_sequence_privilege('masq_operator', s.oid, 'USAGE')))
    SELECT sql, pg_get_userbyid(owner)::text, pg_has_role(current_user, owner, 'USAGE') FROM lacking";

/// Gives the roles, which are there, what they lack on the target table: INSERT of these columns, SELECT for analysts, and
/// what erasing and re-keying need. What only somebody else may give is the answer.
///
/// # Errors
/// If the database refuses.
pub async fn grant_target(session: &Session, table: &Table, columns: &[&str]) -> Result<Vec<Finding>, DbError> {
    let quoted = columns.iter().map(|column| quote_ident(column)).collect::<Vec<_>>().join(", ");
    let parameters: [(&(dyn ToSql + Sync), Type); 3] =
        [(&table.oid, Type::OID), (&columns, Type::TEXT_ARRAY), (&quoted, Type::TEXT)];
    let lacking = session.query_typed(LACKING, &parameters).await.map_err(failed)?;
    let mut findings = Vec::new();
    for row in &lacking {
        let (sql, owner): (&str, &str) = (row.try_get(0).map_err(failed)?, row.try_get(1).map_err(failed)?);
        if row.try_get(2).map_err(failed)? {
            let granted = session.batch_execute(sql).await;
            granted.map_err(|error| DbError::new("giving the roles their rights on the target table", &error))?;
        } else {
            let what = format!("the roles lack rights on {}.{} that only {owner} can give", table.schema, table.name);
            findings.push(Finding::new(Severity::Denied, "table", what, format!("as {owner}: {sql}")));
        }
    }
    Ok(findings)
}

/// What gives the roles their rights on a target table that was just created; see [`grant_target`].
pub fn target_sql(table: &str, columns: &[&str]) -> String {
    let columns = columns.iter().map(|column| quote_ident(column)).collect::<Vec<_>>().join(", ");
    format!(
        "GRANT INSERT ({columns}) ON {table} TO masq_writer, masq_operator;\n\
         GRANT SELECT ON {table} TO masq_analyst, masq_operator;\n\
         GRANT SELECT, UPDATE, DELETE ON {table} TO masq_owner;\n"
    )
}

/// What a worker's login that lacks a right is told.
///
/// # Errors
/// If the catalogue cannot be read.
pub async fn remedy(session: &Session) -> Result<String, DbError> {
    const ME: &str = "SELECT quote_ident(current_user), \
                      coalesce((SELECT pg_has_role(current_user, oid, 'USAGE') FROM pg_roles WHERE rolname = 'masq_writer'), false)";
    let row = session.query_typed_one(ME, &[]).await.map_err(failed)?;
    let (me, writes): (&str, bool) = (row.try_get(0).map_err(failed)?, row.try_get(1).map_err(failed)?);
    Ok(match (are_there(session).await?, writes) {
        (true, false) => format!("GRANT masq_writer TO {me}"),
        (true, true) => {
            "run `masq migrate` with the login that made the schema masq: this one is a masq_writer, and those \
                         have less than this version needs"
                .to_owned()
        }
        (false, _) => format!(
            "run `masq migrate --roles` with the login that made the schema masq, then GRANT masq_writer TO {me}"
        ),
    })
}

/// Sets who may have how much revealed, and how long everything is kept at least, in the database, where no program can go
/// past it.
///
/// # Errors
/// If the database refuses.
pub async fn set_limits(session: &Session, config: &Config) -> Result<(), DbError> {
    const SET: &str = "UPDATE masq.policy SET approve_above = $1, daily_quota = $2, \
                       values_kept = make_interval(secs => $3), letters_kept = make_interval(secs => $4)";
    let number = |limit: u32| i32::try_from(limit).unwrap_or(i32::MAX);
    let seconds = |kept: Option<Duration>| kept.map(|kept| kept.as_secs_f64());
    let (approve_above, daily_quota) = (number(config.vault.approve_above), number(config.vault.daily_quota));
    let (values, letters) = (seconds(config.vault.retention), seconds(config.dead_letters.retention));
    let parameters: [(&(dyn ToSql + Sync), Type); 4] =
        [(&approve_above, Type::INT4), (&daily_quota, Type::INT4), (&values, Type::FLOAT8), (&letters, Type::FLOAT8)];
    let set = session.execute_typed(SET, &parameters).await;
    set.map(drop).map_err(|error| DbError::new("setting the limits of the vault", &error))
}

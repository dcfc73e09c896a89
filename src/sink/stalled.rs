//! Sessions of workers that were stopped while they sent something, as by SIGSTOP or on a frozen machine. The kernel
//! keeps the connection alive, and a backend that waits for the rest of a COPY or of a statement's parameters acts on
//! none of its limits on time, only on `pg_terminate_backend` (PostgreSQL's `HOLD_CANCEL_INTERRUPTS`). So its keys would
//! stay locked without limit.
//!
//! Whoever waits for such a key in vain ends them: what was open is rolled back, and the worker, should it ever go on,
//! finds its connection gone and its batch to be written again.

use tokio_postgres::{Error, types::Type};

use crate::{
    db::{Session, sqlstate},
    sink::{postgres::Target, transaction::copy_rows},
};

/// Of this login only, which is all that a worker may end. A statement older than `statement_timeout` is lost in any
/// case: it is cancelled when its next bytes arrive. The server shows no more than the beginning of a long statement.
const END: &str = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity \
     WHERE datname = current_database() AND usename = session_user AND state = 'active' AND wait_event = 'ClientRead' \
     AND (query LIKE '%masq.%' OR left($1, length(query)) = query) \
     AND query_start < clock_timestamp() - current_setting('statement_timeout')::interval";

/// Ends them, and says so.
pub(super) async fn make_way(session: &Session, target: &Target) {
    match end(session, target).await {
        Ok(0) => {}
        Ok(sessions) => tracing::warn!(
            sessions,
            "ended sessions of workers that stood still in the middle of a batch whose messages have come again; what they \
             had begun is rolled back"
        ),
        Err(error) => tracing::warn!(error = sqlstate::describe(&error), "cannot look for workers that stand still"),
    }
}

async fn end(session: &Session, target: &Target) -> Result<i64, Error> {
    let copy = copy_rows(target);
    session.within(session.query_typed_one(END, &[(&copy, Type::TEXT)])).await?.try_get(0)
}

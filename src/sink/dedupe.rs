//! Claims on events, by their producers' own ids: of the messages that bring one event the first is a row, and the
//! others are repetitions of it. Only rows claim, in the transaction that writes them. No transaction of its own.
//!
//! It stands beside the ledger, not in its place: the ledger knows deliveries of one message, this knows messages that
//! say the same.

use std::collections::{BTreeMap, HashSet};

use tokio_postgres::{Client, Error, types::Type};
use uuid::Uuid;

use crate::{
    queue::Key,
    sink::{Entry, Verdict},
};

/// In the order of the array, which is sorted: two transactions that claim the same events never wait for each other in
/// a circle.
const CLAIM: &str =
    "INSERT INTO masq.dedupe (key) SELECT * FROM unnest($1::uuid[]) ON CONFLICT DO NOTHING RETURNING key";

/// Who of a batch claims what.
#[derive(Default)]
pub struct Claims {
    /// Claimed by this transaction.
    pub won: HashSet<Key>,
    /// Another message has the claim, in this batch or from before.
    pub lost: HashSet<Key>,
}

/// Whether an entry claims an event.
pub fn claims(entry: &Entry) -> bool {
    matches!(&entry.verdict, Verdict::Row(row) if row.claim.is_some())
}

/// Claims what these entries claim. Of two with the same claim the first one gets it.
pub async fn claim(client: &Client, entries: impl Iterator<Item = &Entry>) -> Result<Claims, Error> {
    let mut claimants: BTreeMap<Uuid, Vec<Key>> = BTreeMap::new();
    for entry in entries {
        if let Verdict::Row(row) = &entry.verdict
            && let Some(claim) = row.claim
        {
            claimants.entry(claim).or_default().push(entry.message.key);
        }
    }
    let mut claims = Claims::default();
    if claimants.is_empty() {
        return Ok(claims);
    }
    let wanted: Vec<Uuid> = claimants.keys().copied().collect();
    for row in client.query_typed(CLAIM, &[(&wanted, Type::UUID_ARRAY)]).await? {
        let first = claimants.get_mut(&row.try_get(0)?).map(|keys| keys.remove(0));
        claims.won.extend(first);
    }
    claims.lost.extend(claimants.into_values().flatten());
    Ok(claims)
}

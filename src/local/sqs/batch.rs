//! Batches: up to ten entries with ids of their own, each of which succeeds or fails by itself.

use serde::Serialize;

use super::fault::Fault;

/// The most entries in one request.
const MOST_ENTRIES: usize = 10;
/// The longest id of an entry, in characters.
const LONGEST_ID: usize = 80;

/// What all kinds of entries have.
pub(super) trait Entry {
    /// The caller's name for it, distinct within its request.
    fn id(&self) -> &str;
}

/// How each entry fared. Amazon SQS leaves an empty list out.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Outcome<T> {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    successful: Vec<T>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    failed: Vec<Failed>,
}

/// An entry that succeeded and has nothing more to say.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Succeeded<'a> {
    id: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Failed {
    id: String,
    sender_fault: bool,
    code: &'static str,
    message: String,
}

/// What is wrong with the request as a whole.
pub(super) fn check<E: Entry>(entries: &[E]) -> Result<(), Fault> {
    if entries.is_empty() {
        return Err(Fault::EmptyBatchRequest);
    }
    if entries.len() > MOST_ENTRIES {
        return Err(Fault::TooManyEntriesInBatchRequest(entries.len()));
    }
    for (at, id) in entries.iter().map(Entry::id).enumerate() {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        if !(1..=LONGEST_ID).contains(&id.len()) || !id.bytes().all(plain) {
            return Err(Fault::InvalidBatchEntryId);
        }
        if entries[..at].iter().any(|before| before.id() == id) {
            return Err(Fault::BatchEntryIdsNotDistinct(id.to_owned()));
        }
    }
    Ok(())
}

/// Does `step` for each entry.
pub(super) fn each<'a, E: Entry, T>(entries: &'a [E], step: impl Fn(&'a E) -> Result<T, Fault>) -> Outcome<T> {
    let mut outcome = Outcome { successful: Vec::with_capacity(entries.len()), failed: Vec::new() };
    for entry in entries {
        match step(entry) {
            Ok(success) => outcome.successful.push(success),
            Err(fault) => outcome.failed.push(Failed {
                id: entry.id().to_owned(),
                sender_fault: fault.is_senders(),
                code: fault.code(),
                message: fault.to_string(),
            }),
        }
    }
    outcome
}

/// Does `step` for each entry where success is all there is to say.
pub(super) fn each_done<E: Entry>(entries: &[E], step: impl Fn(&E) -> Result<(), Fault>) -> Outcome<Succeeded<'_>> {
    each(entries, |entry| step(entry).map(|()| Succeeded { id: entry.id() }))
}

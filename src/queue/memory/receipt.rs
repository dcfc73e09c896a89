//! Receipt handles: what one delivery of a message is known by. As long as the real ones, so that requests, logs and
//! benchmarks weigh what they will weigh; not secret, and good for one queue only.

use thiserror::Error;
use uuid::Uuid;

use super::backlog::Place;

/// Random characters before the part that means something. Amazon's handles are some 350 characters; a shorter one
/// would flatter every measurement of a client, a longer one slander it.
const FILLER: usize = 272;
/// Age, arrival, receive count and the message's id in hexadecimal.
const MEANING: usize = 16 + 16 + 8 + 32;

/// Why a receipt handle did nothing.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum ReceiptError {
    /// Never issued by this queue.
    #[error("the receipt handle is not one of this queue's")]
    Invalid,
    /// The message is deleted, expired or moved, or a later delivery has overtaken this one.
    #[error("the message does not exist or is not available for a change of its visibility timeout")]
    Gone,
    /// A message stays hidden for twelve hours at most, counted from its delivery.
    #[error("the visibility timeout would end more than 12 hours after the message was received")]
    TooLong,
}

/// What a handle stands for: one delivery of one message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Handle {
    pub(super) place: Place,
    pub(super) count: u32,
    /// Known even when the message is long gone.
    pub(super) id: Uuid,
}

/// One queue's handles; they all begin alike, and no other queue's do.
pub(super) struct Receipts {
    prefix: String,
}

impl Receipts {
    pub(super) fn new() -> Self {
        let filler = std::iter::repeat_with(fastrand::alphanumeric).take(FILLER);
        Self { prefix: "AQEB".chars().chain(filler).collect() }
    }

    /// The text of a handle.
    pub(super) fn issue(&self, Handle { place, count, id }: Handle) -> String {
        let mut handle = String::with_capacity(self.prefix.len() + MEANING);
        handle.push_str(&self.prefix);
        push_hex(&mut handle, &place.sent_at.to_be_bytes());
        push_hex(&mut handle, &place.arrival.to_be_bytes());
        push_hex(&mut handle, &count.to_be_bytes());
        push_hex(&mut handle, id.as_bytes());
        handle
    }

    /// What [`Receipts::issue`] was given.
    pub(super) fn read(&self, handle: &str) -> Result<Handle, ReceiptError> {
        let meaning = handle.strip_prefix(&self.prefix).ok_or(ReceiptError::Invalid)?;
        if meaning.len() != MEANING || !meaning.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(ReceiptError::Invalid);
        }
        let part = |range| u64::from_str_radix(&meaning[range], 16).map_err(|_not_hex| ReceiptError::Invalid);
        let place = Place { sent_at: part(0..16)?.cast_signed(), arrival: part(16..32)? };
        let count = u32::try_from(part(32..40)?).map_err(|_too_large| ReceiptError::Invalid)?;
        let id = Uuid::from_u64_pair(part(40..56)?, part(56..MEANING)?);
        Ok(Handle { place, count, id })
    }
}

fn push_hex(text: &mut String, bytes: &[u8]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for byte in bytes {
        text.push(char::from(DIGITS[usize::from(byte >> 4)]));
        text.push(char::from(DIGITS[usize::from(byte & 15)]));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handle_is_as_long_as_the_real_ones_and_reads_back() {
        let receipts = Receipts::new();
        let place = Place { sent_at: 1_700_000_000_123, arrival: u64::MAX };
        let handle = Handle { place, count: 7, id: Uuid::from_u128(0x0123_4567_89ab_cdef_0011_2233_4455_6677) };
        let text = receipts.issue(handle);
        assert_eq!(text.len(), 348);
        assert_eq!(receipts.read(&text), Ok(handle));
    }

    #[test]
    fn another_queues_handle_or_a_damaged_one_is_invalid() {
        let receipts = Receipts::new();
        let meaning = Handle { place: Place { sent_at: 1, arrival: 2 }, count: 1, id: Uuid::nil() };
        let handle = receipts.issue(meaning);
        let long = format!("{handle}0");
        let signed = format!("{}+0000001", &handle[..handle.len() - 8]);
        for wrong in ["", "garbage", &Receipts::new().issue(meaning), &handle[..340], &long, &signed] {
            assert_eq!(receipts.read(wrong), Err(ReceiptError::Invalid));
        }
    }
}

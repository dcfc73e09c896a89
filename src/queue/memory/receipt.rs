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
const DIGITS: &[u8; 16] = b"0123456789abcdef";

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
        let mut meaning = [0; MEANING / 2];
        meaning[..8].copy_from_slice(&place.sent_at.to_be_bytes());
        meaning[8..16].copy_from_slice(&place.arrival.to_be_bytes());
        meaning[16..20].copy_from_slice(&count.to_be_bytes());
        meaning[20..].copy_from_slice(id.as_bytes());
        let digits = meaning.map(|byte| [DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
        [&self.prefix, str::from_utf8(digits.as_flattened()).unwrap_or_default()].concat()
    }

    /// What [`Receipts::issue`] was given.
    pub(super) fn read(&self, handle: &str) -> Result<Handle, ReceiptError> {
        let meaning = handle.strip_prefix(&self.prefix).ok_or(ReceiptError::Invalid)?;
        let (digits, []) = meaning.as_bytes().as_chunks::<2>() else { return Err(ReceiptError::Invalid) };
        let digits: &[[u8; 2]; MEANING / 2] = digits.try_into().map_err(|_too_few_or_many| ReceiptError::Invalid)?;
        let mut meaning = [0; MEANING / 2];
        for (byte, [high, low]) in meaning.iter_mut().zip(digits) {
            *byte = value(*high)? << 4 | value(*low)?;
        }
        let number = |at: usize| u64::from_be_bytes(std::array::from_fn(|byte| meaning[at + byte]));
        let place = Place { sent_at: number(0).cast_signed(), arrival: number(8) };
        let count = u32::from_be_bytes(std::array::from_fn(|byte| meaning[16 + byte]));
        Ok(Handle { place, count, id: Uuid::from_u64_pair(number(20), number(28)) })
    }
}

/// The value of a hexadecimal digit.
fn value(digit: u8) -> Result<u8, ReceiptError> {
    match digit {
        b'0'..=b'9' => Ok(digit - b'0'),
        b'a'..=b'f' => Ok(digit - b'a' + 10),
        _ => Err(ReceiptError::Invalid),
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

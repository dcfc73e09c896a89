//! HMAC-SHA-256 (RFC 2104) as every record needs it: many short messages under one key. Pure.
//!
//! The compression function is the sha2 crate's. What is here keeps the states that a key and the head of a message lead
//! to, so that a tag costs two compressions and little else, where the hmac crate's general form costs half as much again
//! (`cargo bench --bench mask`). Where that does not matter, the hmac crate is used; a property test holds the two
//! against each other.

use sha2::block_api::compress256;
use zeroize::Zeroize;

const BLOCK: usize = 64;
/// The state before the first block: FIPS 180-4, section 5.3.3.
const INITIAL: [u32; 8] =
    [0x6a09_e667, 0xbb67_ae85, 0x3c6e_f372, 0xa54f_f53a, 0x510e_527f, 0x9b05_688c, 0x1f83_d9ab, 0x5be0_cd19];

/// A key, and what all its messages begin with.
pub(super) struct Mac {
    inner: Sha256,
    /// After the key's block.
    outer: [u32; 8],
}

impl Mac {
    /// Takes a key; messages begin with whatever they are.
    pub(super) fn new(key: &[u8; 32]) -> Self {
        let padded = |pad: u8| {
            let mut block = [pad; BLOCK];
            block.iter_mut().zip(key).for_each(|(byte, key)| *byte ^= key);
            let mut hash = Sha256 { state: INITIAL, block, length: 0 };
            hash.take_block();
            block.zeroize();
            hash.length = BLOCK as u64;
            hash
        };
        Self { inner: padded(0x36), outer: padded(0x5c).state }
    }

    /// The same for messages that begin with these bytes, after what they begin with already.
    pub(super) fn with_head(mut self, head: &[u8]) -> Self {
        self.inner.update(head);
        self
    }

    /// The tag of the message that these parts are, one after the other.
    pub(super) fn tag(&self, parts: &[&[u8]]) -> [u8; 32] {
        let mut inner = self.inner.clone();
        parts.iter().for_each(|part| inner.update(part));
        let mut outer = Sha256 { state: self.outer, block: [0; BLOCK], length: BLOCK as u64 };
        outer.update(&inner.finish());
        outer.finish()
    }
}

/// A hash that has taken `length` bytes, of which the last, short of a block, stand in `block`.
#[derive(Clone)]
struct Sha256 {
    state: [u32; 8],
    block: [u8; BLOCK],
    length: u64,
}

impl Sha256 {
    fn filled(&self) -> usize {
        self.length as usize % BLOCK
    }

    fn update(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let at = self.filled();
            let (now, later) = bytes.split_at(bytes.len().min(BLOCK - at));
            self.block[at..at + now.len()].copy_from_slice(now);
            self.length += now.len() as u64;
            if at + now.len() == BLOCK {
                self.take_block();
            }
            bytes = later;
        }
    }

    fn take_block(&mut self) {
        compress256(&mut self.state, &[self.block]);
    }

    /// Pads to a whole block: a one, zeros, and the length in bits.
    fn finish(mut self) -> [u8; 32] {
        const LENGTH: usize = BLOCK - 8;
        let (bits, at) = (self.length * 8, self.filled());
        self.block[at] = 0x80;
        self.block[at + 1..].fill(0);
        if at >= LENGTH {
            self.take_block();
            self.block.fill(0);
        }
        self.block[LENGTH..].copy_from_slice(&bits.to_be_bytes());
        self.take_block();
        let mut digest = [0; 32];
        digest.chunks_exact_mut(4).zip(self.state).for_each(|(bytes, word)| bytes.copy_from_slice(&word.to_be_bytes()));
        digest
    }
}

impl Drop for Mac {
    fn drop(&mut self) {
        self.outer.zeroize();
    }
}

impl Drop for Sha256 {
    fn drop(&mut self) {
        self.state.zeroize();
        self.block.zeroize();
    }
}

#[cfg(test)]
mod tests {
    use hmac::{Hmac, KeyInit, Mac as _};
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn tag_is_what_the_hmac_crate_says(key: [u8; 32], head in ".{0,150}", parts in prop::collection::vec(".{0,80}", 0..4)) {
            let mac = Mac::new(&key).with_head(head.as_bytes());
            let parts: Vec<&[u8]> = parts.iter().map(String::as_bytes).collect();
            let mut other = Hmac::<sha2::Sha256>::new_from_slice(&key).unwrap().chain_update(&head);
            parts.iter().for_each(|part| other.update(part));
            prop_assert_eq!(mac.tag(&parts), <[u8; 32]>::from(other.finalize().into_bytes()));
        }

        #[test]
        fn every_length_about_a_block(key: [u8; 32], length in 0..200_usize) {
            let message = vec![7; length];
            let other = Hmac::<sha2::Sha256>::new_from_slice(&key).unwrap().chain_update(&message);
            prop_assert_eq!(Mac::new(&key).tag(&[&message]), <[u8; 32]>::from(other.finalize().into_bytes()));
        }
    }
}

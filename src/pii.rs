//! `Pii<T>`: a value that may identify a person.
//!
//! It has no `Debug`, `Display`, `Serialize` or `Clone`, so it cannot end up in a log, an error or an answer by
//! accident, and it is wiped when it is dropped. Looking inside takes one greppable word, [`Pii::expose`], which a tidy
//! test allows in `pipeline/decode.rs`, `pipeline/mask.rs` and `vault/` only.
//! It is no protection against code that means harm.

use zeroize::Zeroize;

/// A plain value on its way from the queue to the mask.
pub struct Pii<T: Zeroize>(T);

impl<T: Zeroize> Pii<T> {
    /// Wraps a value; from here on only [`Pii::expose`] reads it.
    pub fn new(value: T) -> Self {
        Self(value)
    }

    /// The plain value.
    pub fn expose(&self) -> &T {
        &self.0
    }
}

impl Pii<Vec<u8>> {
    /// How many bytes there are; that much may be known.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<T: Zeroize> Drop for Pii<T> {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

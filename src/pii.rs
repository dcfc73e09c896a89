//! `Pii<T>`: a value that may identify a person.
//!
//! It has no `Debug`, `Display`, `Serialize` or `Clone`, so it cannot end up in a log, an error or an answer by
//! accident, and it is wiped when it is dropped. Looking inside takes one greppable word, [`Pii::expose`], which a tidy
//! test allows in `pipeline/decode/`, `pipeline/mask.rs` and `vault/` only.
//! It is no protection against code that means harm.

use std::borrow::Cow;

use zeroize::Zeroize;

/// A plain value on its way from the queue to the mask.
pub struct Pii<T: Wipe>(T);

impl<T: Wipe> Pii<T> {
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

impl<T: Wipe> Drop for Pii<T> {
    fn drop(&mut self) {
        self.0.wipe();
    }
}

/// What can be wiped: like [`Zeroize`], which wipes a vector byte by byte, but at the speed of memory.
pub trait Wipe {
    /// Overwrites what it owns in a way that the compiler does not leave out. What is borrowed is its owner's to wipe.
    fn wipe(&mut self);
}

impl Wipe for Vec<u8> {
    fn wipe(&mut self) {
        self.spare_capacity_mut().zeroize();
        self.as_mut_slice().zeroize();
    }
}

impl Wipe for String {
    fn wipe(&mut self) {
        std::mem::take(self).into_bytes().wipe();
    }
}

impl Wipe for Cow<'_, str> {
    fn wipe(&mut self) {
        if let Cow::Owned(text) = self {
            text.wipe();
        }
    }
}

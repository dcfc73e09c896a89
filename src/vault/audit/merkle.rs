//! The Merkle tree over the leaves of the audit log (RFC 6962, section 2.1): its root says all of them in 32 bytes. Pure.
//!
//! Of the tree only the roots of its perfect subtrees are kept, as `masq.append` keeps them in SQL: so a log of any length
//! is checked in the memory of a few hashes. That a log is a continuation of an earlier one is seen by making both roots.

use sha2::{Digest, Sha256};

/// SHA-256 of a leaf, or of two nodes.
pub type Hash = [u8; 32];

/// The hash of a leaf with these bytes.
pub fn leaf(bytes: &[u8]) -> Hash {
    Sha256::new().chain_update([0x00]).chain_update(bytes).finalize().into()
}

fn node(left: &Hash, right: &Hash) -> Hash {
    Sha256::new().chain_update([0x01]).chain_update(left).chain_update(right).finalize().into()
}

/// The leaves up to one of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tree {
    size: u64,
    peaks: Vec<Hash>,
}

impl Tree {
    /// A tree of so many leaves whose perfect subtrees have these roots, the largest first. `None`: there is none, for
    /// another number of subtrees belongs to that many leaves.
    pub fn of(size: u64, peaks: Vec<Hash>) -> Option<Self> {
        (size.count_ones() as usize == peaks.len()).then_some(Self { size, peaks })
    }

    /// How many leaves it has.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Adds the next leaf, by its hash.
    pub fn push(&mut self, leaf: Hash) {
        // Each set bit at the low end is a subtree that the new one makes twice as large.
        let full = self.size.trailing_ones() as usize;
        let rest = self.peaks.len() - full;
        let merged = self.peaks.drain(rest..).rev().fold(leaf, |right, left| node(&left, &right));
        self.peaks.push(merged);
        self.size += 1;
    }

    /// The hash of all leaves.
    pub fn root(&self) -> Hash {
        let root = self.peaks.iter().copied().rev().reduce(|right, left| node(&left, &right));
        root.unwrap_or_else(|| Sha256::digest([]).into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(hash: Hash) -> String {
        hash.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// The leaves and roots with which Google's certificate-transparency tests its implementation of RFC 6962
    /// (`cpp/merkletree/merkle_tree_test.cc`).
    #[test]
    fn roots_are_those_of_the_reference() {
        let leaves: [&[u8]; 8] =
            [b"", b"\0", b"\x10", b"\x20\x21", b"\x30\x31", b"\x40\x41\x42\x43", b"PQRSTUVW", b"`abcdefghijklmno"];
        let roots = [
            "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
            "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
            "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
            "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
            "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
            "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
            "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
            "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
            "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
        ];
        let mut tree = Tree::default();
        for (size, root) in roots.iter().enumerate() {
            assert_eq!((hex(tree.root()).as_str(), tree.size()), (*root, size as u64));
            if let Some(bytes) = leaves.get(size) {
                tree.push(leaf(bytes));
            }
        }
    }

    /// The definition of RFC 6962, written down once more: MTH(D[n]) splits at the largest power of two below n.
    fn by_definition(leaves: &[Hash]) -> Hash {
        match leaves {
            [] => Sha256::digest([]).into(),
            [one] => *one,
            _ => {
                let (left, right) = leaves.split_at(leaves.len().next_power_of_two() / 2);
                node(&by_definition(left), &by_definition(right))
            }
        }
    }

    #[test]
    fn a_tree_is_what_the_definition_says_at_every_size() {
        let leaves: Vec<Hash> = (0..130_u8).map(|byte| leaf(&[byte])).collect();
        let mut tree = Tree::default();
        for (size, leaf) in leaves.iter().enumerate() {
            assert_eq!(tree.root(), by_definition(&leaves[..size]));
            assert_eq!(Tree::of(tree.size, tree.peaks.clone()), Some(tree.clone()));
            tree.push(*leaf);
        }
    }

    #[test]
    fn peaks_that_no_tree_has_are_none() {
        assert_eq!(Tree::of(3, vec![[0; 32]]), None);
        assert_eq!(Tree::of(0, vec![[0; 32]]), None);
    }
}

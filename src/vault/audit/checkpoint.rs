//! A signed checkpoint: how many entries the audit log had, and the root of their tree, under a signature. What stands in
//! one cannot be taken back by who owns the database. Pure.
//!
//! Text and keys are C2SP's (<https://c2sp.org/signed-note>, <https://c2sp.org/tlog-checkpoint>), with Ed25519 (RFC 8032),
//! so that witnesses and tools of others understand them:
//! ```text
//! note     origin \n size \n base64(root) \n \n — name base64(key id, 4 bytes | signature, 64 bytes) \n
//! key id   SHA-256(name | \n | 0x01 | public key)[..4]
//! key      name + hex(key id) + base64(0x01 | public key), joined by plus signs
//! ```
//! Name and origin of a log are masq-audit/ and the first 8 bytes of SHA-256 of the public key, in hexadecimal digits.

use std::fmt;

use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use base64::{Engine, prelude::BASE64_STANDARD};
use sha2::{Digest, Sha256};
use thiserror::Error;

use super::merkle::{Hash, Tree};

/// C2SP's number of Ed25519 signatures over notes.
const ED25519_NOTE: u8 = 0x01;

/// What begins a line with a signature: an em dash and a space.
const DASH: &str = "\u{2014} ";

/// The public half of an audit key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifierKey {
    name: String,
    key: [u8; 32],
}

impl VerifierKey {
    /// Reads it as it is written. `None`: it is none, or one of another kind than Ed25519.
    pub fn parse(text: &str) -> Option<Self> {
        let (name, rest) = text.split_once('+')?;
        let (id, key) = rest.split_once('+')?;
        let key = BASE64_STANDARD.decode(key).ok()?;
        let (&ED25519_NOTE, key) = key.split_first()? else { return None };
        let key = Self { name: name.to_owned(), key: key.try_into().ok()? };
        let is_name = !name.is_empty() && !name.contains(char::is_whitespace);
        (is_name && id == hex(&key.id())).then_some(key)
    }

    /// What it is called, in checkpoints too.
    pub fn name(&self) -> &str {
        &self.name
    }

    fn id(&self) -> [u8; 4] {
        let digest = Sha256::new().chain_update(&self.name).chain_update([b'\n', ED25519_NOTE]).chain_update(self.key);
        let digest: Hash = digest.finalize().into();
        std::array::from_fn(|at| digest[at])
    }
}

impl fmt::Display for VerifierKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = BASE64_STANDARD.encode([&[ED25519_NOTE][..], &self.key].concat());
        write!(f, "{}+{}+{key}", self.name, hex(&self.id()))
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// An audit key: it signs checkpoints.
pub struct Signer {
    pair: Ed25519KeyPair,
    public: VerifierKey,
}

impl Signer {
    /// Takes 32 random bytes, the seed of RFC 8032.
    pub fn new(seed: &[u8; 32]) -> Self {
        let named = |key: &[u8; 32]| format!("masq-audit/{}", hex(&Sha256::digest(key)[..8]));
        Self::named(seed, named)
    }

    fn named(seed: &[u8; 32], name: impl FnOnce(&[u8; 32]) -> String) -> Self {
        let pair = Ed25519KeyPair::from_seed_unchecked(seed).expect("any 32 bytes are a seed");
        let key = pair.public_key().as_ref().try_into().expect("an Ed25519 public key has 32 bytes");
        Self { public: VerifierKey { name: name(&key), key }, pair }
    }

    /// What checks its signatures.
    pub fn public(&self) -> &VerifierKey {
        &self.public
    }

    /// The signed checkpoint of a log with this tree, as text that ends with a line end.
    pub fn checkpoint(&self, tree: &Tree) -> String {
        let root = BASE64_STANDARD.encode(tree.root());
        self.sign(&format!("{}\n{}\n{root}\n", self.public.name, tree.size()))
    }

    fn sign(&self, text: &str) -> String {
        let signature = [&self.public.id()[..], self.pair.sign(text.as_bytes()).as_ref()].concat();
        format!("{text}\n{DASH}{} {}\n", self.public.name, BASE64_STANDARD.encode(signature))
    }
}

/// What a checkpoint says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// How many entries there were.
    pub size: u64,
    /// The root of their tree.
    pub root: Hash,
}

/// Why a checkpoint proves nothing.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum NoteError {
    /// It is cut off, or was never one.
    #[error("it is no signed checkpoint")]
    Malformed,
    /// Name the key of its log.
    #[error("it is not signed with this key: name the audit.pub of its log with --public-key")]
    Foreign,
    /// Somebody changed it.
    #[error("its signature is wrong: it was changed after it was signed")]
    Forged,
}

/// The notes in a file of them, one after the other, each with the number of its first line. One that was cut off spoils
/// no other: a checkpoint has an empty line only before its signatures.
pub fn notes(text: &str) -> Vec<(usize, &str)> {
    let (mut starts, mut may_begin, mut at) = (Vec::new(), true, 0);
    for (number, line) in text.split_inclusive('\n').enumerate() {
        let (is_signature, is_blank) = (line.starts_with(DASH), line.trim().is_empty());
        if !is_blank && (starts.is_empty() || (may_begin && !is_signature)) {
            starts.push((number + 1, at));
        }
        may_begin = is_signature || is_blank;
        at += line.len();
    }
    let ends = starts.iter().skip(1).map(|(_, at)| *at).chain([text.len()]);
    starts.iter().zip(ends).map(|((number, at), end)| (*number, &text[*at..end])).collect()
}

/// Reads a note and checks its signature. Signatures of others, of witnesses for example, are passed over.
pub fn open(note: &str, key: &VerifierKey) -> Result<Checkpoint, NoteError> {
    let text = verified(note, key)?;
    let mut lines = text.lines();
    let (origin, size, root) = (lines.next(), lines.next(), lines.next());
    if origin != Some(key.name()) {
        return Err(NoteError::Foreign);
    }
    let is_number =
        |size: &&str| size.bytes().all(|byte| byte.is_ascii_digit()) && (*size == "0" || !size.starts_with('0'));
    let size = size.filter(is_number).and_then(|size| size.parse().ok());
    let root = root.and_then(|root| BASE64_STANDARD.decode(root).ok()?.try_into().ok());
    let (Some(size), Some(root)) = (size, root) else { return Err(NoteError::Malformed) };
    Ok(Checkpoint { size, root })
}

/// The text that this key signed.
fn verified<'a>(note: &'a str, key: &VerifierKey) -> Result<&'a str, NoteError> {
    let (text, signatures) = note.trim_end_matches('\n').rsplit_once("\n\n").ok_or(NoteError::Malformed)?;
    let text = &note[..=text.len()];
    let mut error = NoteError::Malformed;
    for line in signatures.lines() {
        let signature = line.strip_prefix(DASH).and_then(|line| line.split_once(' ')).ok_or(NoteError::Malformed)?;
        let bytes = BASE64_STANDARD.decode(signature.1).map_err(|_| NoteError::Malformed)?;
        let Some((id, bytes)) = bytes.split_at_checked(4) else { return Err(NoteError::Malformed) };
        if (signature.0, id) == (key.name.as_str(), &key.id()) {
            let public = UnparsedPublicKey::new(&ED25519, &key.key);
            return public.verify(text.as_bytes(), bytes).map(|()| text).map_err(|_| NoteError::Forged);
        }
        error = NoteError::Foreign;
    }
    Err(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of <https://c2sp.org/signed-note>.
    #[test]
    fn the_example_of_c2sp_verifies() {
        let text = "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k";
        let key = VerifierKey::parse(text).unwrap();
        assert_eq!(key.to_string(), text);
        let note = "This is an example message.\n\n\u{2014} example.com/foo \
             Uw2QOkn8srV1yJGh2VYRlL1Tnagv1YEq6TfXppzi2ONncAlTgK7Ztg1ERYNZXsYjOBH3mFXmRKuwHjG1Yu72IneyaQM=\n";
        assert_eq!(verified(note, &key), Ok("This is an example message.\n"));
        assert_eq!(verified(&note.replace("message", "massage"), &key), Err(NoteError::Forged));
    }

    /// The example of Go's golang.org/x/mod/sumdb/note, whose private key is published too.
    #[test]
    fn gos_example_is_signed_byte_for_byte() {
        let seed = BASE64_STANDARD.decode("AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz").unwrap();
        let signer = Signer::named(seed[1..].try_into().unwrap(), |_| "PeterNeumann".to_owned());
        let key = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW";
        assert_eq!(signer.public().to_string(), key);
        let text =
            "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n";
        let note = format!(
            "{text}\n\u{2014} PeterNeumann \
             x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n"
        );
        assert_eq!(signer.sign(text), note);
        assert_eq!(verified(&note, &VerifierKey::parse(key).unwrap()), Ok(text));
    }

    fn tree(leaves: u8) -> Tree {
        let mut tree = Tree::default();
        (0..leaves).for_each(|leaf| tree.push([leaf; 32]));
        tree
    }

    #[test]
    fn a_file_of_checkpoints_reads_back() {
        let signer = Signer::new(&[7; 32]);
        let witness = "\u{2014} witness.example.com/w1 jWbPPwAAAABkGFDL\n";
        let notes_of = [0, 1, 6].map(|leaves| signer.checkpoint(&tree(leaves)));
        let cut_off = &notes_of[1][..60];
        let file = format!("{}{}{witness}\n\n{cut_off}\n\n{}", notes_of[0], notes_of[1], notes_of[2]);
        let mut found = notes(&file);
        assert_eq!(found.iter().map(|(line, _)| *line).collect::<Vec<_>>(), [1, 6, 14, 18]);
        assert_eq!(open(found.remove(2).1, signer.public()), Err(NoteError::Malformed));
        for ((_, note), leaves) in found.iter().zip([0, 1, 6]) {
            let expected = Checkpoint { size: leaves.into(), root: tree(leaves).root() };
            assert_eq!(open(note, signer.public()), Ok(expected));
        }
    }

    #[test]
    fn what_is_no_checkpoint_of_this_log_is_none() {
        let (ours, theirs) = (Signer::new(&[7; 32]), Signer::new(&[8; 32]));
        let note = ours.checkpoint(&tree(6));
        assert_eq!(open(&note, theirs.public()), Err(NoteError::Foreign));
        assert_eq!(open(&note.replace("\n6\n", "\n5\n"), ours.public()), Err(NoteError::Forged));
        for cut in (0..note.len() - 1).filter(|cut| note.is_char_boundary(*cut)) {
            assert!(open(&note[..cut], ours.public()).is_err(), "cut at {cut}");
        }
        // Signed by us, and about something else.
        for (text, error) in [
            ("another.example/log\n6\nAAAA\n".to_owned(), NoteError::Foreign),
            (format!("{}\n06\n{}\n", ours.public.name, BASE64_STANDARD.encode([0; 32])), NoteError::Malformed),
            (format!("{}\n6\nAAAA\n", ours.public.name), NoteError::Malformed),
        ] {
            assert_eq!(open(&ours.sign(&text), ours.public()), Err(error));
        }
        assert_eq!(open("", ours.public()), Err(NoteError::Malformed));
    }

    #[test]
    fn keys_of_another_kind_or_with_a_slip_are_none() {
        let key = Signer::new(&[7; 32]).public().to_string();
        assert!(VerifierKey::parse(&key).is_some());
        let ecdsa = "sum.golang.org+033de0ae+Ac4zctda0e5eza+HJyk9SxEdh+s3Ux18htTTAD8OuAn8";
        assert!(VerifierKey::parse(ecdsa).is_some(), "that is Go's own key, an Ed25519 one");
        for bad in
            [key.replace("masq", "mask"), key.replace("+", " "), format!("{key}A"), key[..key.len() - 4].to_owned()]
        {
            assert_eq!(VerifierKey::parse(&bad), None, "{bad}");
        }
    }
}

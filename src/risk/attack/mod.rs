//! The attack of somebody who has the table and no key: hashes every value of a space and looks whether a column has it.
//!
//! All columns are attacked at once, since a hash is the same for all of them. For a quarter of the time every function
//! and space gets its share, in an order that spreads over the space; what was reversed says where the rest of the time
//! goes. Runs on threads of its own; what is read and how it ends is its caller's.

use std::{
    ops::Range,
    sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

use aws_lc_rs::digest::SHA1_FOR_LEGACY_USE_ONLY;
use md5::{Digest, Md5};
use sha2::block_api::compress256;

use super::space::{LONGEST, Space};

/// Values hashed between two looks at the clock. More would run past the end of the time; fewer would spend it on the
/// clock, and on threads that wait for each other's counter.
const CHUNK: u64 = 4096;

/// The part of the time for finding out what the values are. Less could miss a space in which few of a column's values
/// lie; more is taken from reversing the rest of those that are found.
const EXPLORE: u32 = 4;

/// A hash function without a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // the functions' own names
pub enum Function {
    Md5,
    Sha1,
    Sha256,
}

impl Function {
    const ALL: [Self; 3] = [Self::Sha256, Self::Sha1, Self::Md5];

    /// As people write it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Md5 => "MD5",
            Self::Sha1 => "SHA-1",
            Self::Sha256 => "SHA-256",
        }
    }

    /// Whether digests of so many bytes are its own, or its first bytes, as some programs keep them.
    fn may_be(self, bytes: usize) -> bool {
        match self {
            Self::Md5 => bytes == 16,
            Self::Sha1 => bytes == 16 || bytes == 20,
            Self::Sha256 => bytes <= 32,
        }
    }

    /// Hashes at most [`LONGEST`] bytes into the first bytes of `out`.
    fn hash(self, value: &[u8], out: &mut [u8; 32]) {
        match self {
            Self::Md5 => out[..16].copy_from_slice(&Md5::digest(value)),
            Self::Sha1 => {
                out[..20].copy_from_slice(aws_lc_rs::digest::digest(&SHA1_FOR_LEGACY_USE_ONLY, value).as_ref());
            }
            Self::Sha256 => sha256(value, out),
        }
    }
}

/// SHA-256 (FIPS 180-4) of what fits into one block: without a buffer it takes half the time.
fn sha256(value: &[u8], out: &mut [u8; 32]) {
    const INITIAL: [u32; 8] =
        [0x6a09_e667, 0xbb67_ae85, 0x3c6e_f372, 0xa54f_f53a, 0x510e_527f, 0x9b05_688c, 0x1f83_d9ab, 0x5be0_cd19];
    let mut block = [0; 64];
    block[..value.len()].copy_from_slice(value);
    block[value.len()] = 0x80;
    block[63] = (value.len() * 8) as u8; // at most 128 bits, so the other seven bytes of the length are zero
    let mut state = INITIAL;
    compress256(&mut state, &[block]);
    for (bytes, word) in out.chunks_exact_mut(4).zip(state) {
        bytes.copy_from_slice(&word.to_be_bytes());
    }
}

/// The digests to be reversed.
pub struct Targets {
    /// By their first eight bytes: these, the column and the digest.
    digests: Vec<(u64, usize, Box<[u8]>)>,
    /// A bit for each beginning that occurs: nearly all candidates are done with after one look.
    filter: Vec<u64>,
    shift: u32,
}

impl Targets {
    /// `digests`: of column so-and-so, each once, of 16, 20 or 32 bytes.
    pub fn new(digests: impl IntoIterator<Item = (usize, Box<[u8]>)>) -> Self {
        let mut digests: Vec<_> =
            digests.into_iter().map(|(column, digest)| (beginning(&digest), column, digest)).collect();
        digests.sort_unstable();
        // Sixteen bits a digest: one candidate in sixteen looks further.
        let bits = (digests.len() * 16).next_power_of_two().max(64);
        let shift = 64 - bits.trailing_zeros();
        let mut filter = vec![0_u64; bits / 64];
        for (start, ..) in &digests {
            let bit = start >> shift;
            filter[(bit / 64) as usize] |= 1 << (bit % 64);
        }
        Self { digests, filter, shift }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.digests.len()
    }

    /// Whether there is nothing to attack.
    pub fn is_empty(&self) -> bool {
        self.digests.is_empty()
    }

    /// The places of the digests that this hash begins with.
    fn find(&self, hash: &[u8; 32], function: Function, found: &mut Vec<usize>) {
        let start = beginning(hash);
        let bit = start >> self.shift;
        if self.filter[(bit / 64) as usize] >> (bit % 64) & 1 == 0 {
            return;
        }
        let first = self.digests.partition_point(|(other, ..)| *other < start);
        let same = self.digests[first..].iter().take_while(|(other, ..)| *other == start);
        let equal = same
            .enumerate()
            .filter(|(_, (.., digest))| function.may_be(digest.len()) && hash[..digest.len()] == **digest);
        found.extend(equal.map(|(nth, _)| first + nth));
    }
}

fn beginning(digest: &[u8]) -> u64 {
    digest.first_chunk().map_or(0, |start| u64::from_be_bytes(*start))
}

/// How an attack is made.
pub struct Effort<'a> {
    /// How long at most.
    pub time: Duration,
    /// On how many threads.
    pub threads: usize,
    /// Counts the values tried so far.
    pub tried: &'a AtomicU64,
    /// Set, it ends the attack early.
    pub stop: &'a AtomicBool,
}

/// What one function came to over one space.
#[derive(Clone, Debug)]
pub struct Pass {
    /// The function.
    pub function: Function,
    /// The space.
    pub space: Space,
    /// How many of its values were tried.
    pub tried: u64,
    /// For how long.
    pub took: Duration,
    /// Of each column, how many of its values were reversed.
    pub reversed: Vec<u64>,
    /// The next chunk.
    next: u64,
}

impl Pass {
    fn new(function: Function, space: &Space, columns: usize) -> Self {
        Self { function, space: space.clone(), tried: 0, took: Duration::ZERO, reversed: vec![0; columns], next: 0 }
    }

    /// Values a second, on all threads together.
    pub fn rate(&self) -> f64 {
        self.tried as f64 / self.took.as_secs_f64().max(f64::EPSILON)
    }

    /// Seconds that the whole space takes here.
    pub fn seconds(&self) -> f64 {
        self.space.size() as f64 / self.rate()
    }

    /// Whether anything was reversed.
    pub fn has_reversed(&self) -> bool {
        self.reversed.iter().any(|count| *count > 0)
    }

    fn is_done(&self) -> bool {
        self.tried >= self.space.size()
    }

    /// Goes on until then, or until nothing is left to reverse; on each thread for one chunk at least.
    fn go_on(&mut self, siege: &Siege<'_>, until: Instant) {
        let started = Instant::now();
        let next = AtomicU64::new(self.next);
        let work = || {
            let (mut tried, mut reversed) = (0, Vec::new());
            while !siege.is_over() && (tried == 0 || Instant::now() < until) {
                let Some(chunk) = self.chunk(next.fetch_add(1, Ordering::Relaxed)) else { break };
                let size = chunk.end - chunk.start;
                self.try_all(chunk, siege, &mut reversed);
                tried += size;
                siege.effort.tried.fetch_add(size, Ordering::Relaxed);
            }
            (tried, reversed)
        };
        let done: Vec<(u64, Vec<usize>)> = thread::scope(|scope| {
            let threads: Vec<_> = (0..siege.effort.threads).map(|_| scope.spawn(work)).collect();
            threads.into_iter().filter_map(|thread| thread.join().ok()).collect()
        });
        self.took += started.elapsed();
        self.next = next.into_inner();
        for (tried, reversed) in done {
            self.tried += tried;
            reversed.into_iter().for_each(|column: usize| self.reversed[column] += 1);
        }
    }

    /// The numbers of the nth chunk. Chunks follow each other in leaps, so that the first are a fair sample.
    fn chunk(&self, nth: u64) -> Option<Range<u64>> {
        let chunks = self.space.size().div_ceil(CHUNK);
        if nth >= chunks {
            return None;
        }
        let place = u128::from(nth) * u128::from(leap(chunks)) % u128::from(chunks);
        let start = self.space.range.start + u64::try_from(place).unwrap_or(0) * CHUNK;
        Some(start..(start + CHUNK).min(self.space.range.end))
    }

    /// Tries these values; adds the column of each digest that nobody has reversed before.
    fn try_all(&self, numbers: Range<u64>, siege: &Siege<'_>, reversed: &mut Vec<usize>) {
        let (mut value, mut hash, mut found) = ([0; LONGEST], [0; 32], Vec::new());
        for number in numbers {
            let len = self.space.write(number, &mut value);
            self.function.hash(&value[..len], &mut hash);
            siege.targets.find(&hash, self.function, &mut found);
            reversed.extend(found.drain(..).filter_map(|place| siege.take(place)));
        }
    }
}

/// A number of chunks to leap over that has no divisor in common with how many there are, so that each is come to once:
/// the golden ratio's share of them or the next.
fn leap(chunks: u64) -> u64 {
    let wanted = (chunks as f64 * 0.618) as u64 + 1;
    (wanted..).find(|leap| divisor(*leap, chunks) == 1).unwrap_or(1)
}

/// The greatest common divisor.
fn divisor(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { divisor(b, a % b) }
}

/// What an attack came to.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Each function over each space.
    pub passes: Vec<Pass>,
    /// Of each column, how many of its values were reversed, by whichever.
    pub reversed: Vec<u64>,
}

impl Outcome {
    /// Whether anything was reversed.
    pub fn has_reversed(&self) -> bool {
        self.reversed.iter().any(|count| *count > 0)
    }

    /// Values tried, each function counted by itself.
    pub fn tried(&self) -> u64 {
        self.passes.iter().map(|pass| pass.tried).sum()
    }
}

/// Attacks the columns, of which there are so many, until all is reversed or tried, or the time is over.
pub fn attack(targets: &Targets, columns: usize, spaces: &[Space], effort: &Effort<'_>) -> Outcome {
    let fits = |function: &Function| targets.digests.iter().any(|(.., digest)| function.may_be(digest.len()));
    let functions = Function::ALL.into_iter().filter(fits);
    let passes = functions.flat_map(|function| spaces.iter().map(move |space| Pass::new(function, space, columns)));
    let mut passes: Vec<Pass> = passes.collect();
    let siege = Siege {
        targets,
        effort,
        is_reversed: (0..targets.len()).map(|_| AtomicBool::new(false)).collect(),
        left: AtomicUsize::new(targets.len()),
    };
    let begin = Instant::now();
    siege.share(&mut passes, begin + effort.time / EXPLORE, |_| true);
    siege.share(&mut passes, begin + effort.time, Pass::has_reversed);
    siege.share(&mut passes, begin + effort.time, |_| true);
    Outcome { reversed: (0..columns).map(|at| passes.iter().map(|pass| pass.reversed[at]).sum()).collect(), passes }
}

/// An attack under way.
struct Siege<'a> {
    targets: &'a Targets,
    effort: &'a Effort<'a>,
    is_reversed: Vec<AtomicBool>,
    left: AtomicUsize,
}

impl Siege<'_> {
    fn is_over(&self) -> bool {
        self.effort.stop.load(Ordering::Relaxed) || self.left.load(Ordering::Relaxed) == 0
    }

    /// Gives each of these passes an equal share of the time until then; what one leaves is the others'.
    fn share(&self, passes: &mut [Pass], end: Instant, of: impl Fn(&Pass) -> bool) {
        let mut chosen: Vec<_> = passes.iter_mut().filter(|pass| of(pass) && !pass.is_done()).collect();
        let mut shares = u32::try_from(chosen.len()).unwrap_or(u32::MAX);
        for pass in &mut chosen {
            let now = Instant::now();
            pass.go_on(self, now + end.saturating_duration_since(now) / shares);
            shares -= 1;
        }
    }

    /// Notes that the digest at this place is reversed: its column, the first time.
    fn take(&self, place: usize) -> Option<usize> {
        let is_known = self.is_reversed[place].swap(true, Ordering::Relaxed);
        (!is_known).then(|| {
            self.left.fetch_sub(1, Ordering::Relaxed);
            self.targets.digests[place].1
        })
    }
}

#[cfg(test)]
mod tests;

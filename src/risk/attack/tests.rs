//! Hashes of values that are within reach, and of some that are not.

use super::*;

/// With so much time and this many threads.
fn attacked(digests: &[(usize, Vec<u8>)], spaces: &[Space], time: Duration) -> Outcome {
    let targets = Targets::new(digests.iter().map(|(column, digest)| (*column, digest.clone().into_boxed_slice())));
    let (tried, stop) = (AtomicU64::new(0), AtomicBool::new(false));
    let outcome = attack(&targets, 3, spaces, &Effort { time, threads: 2, tried: &tried, stop: &stop });
    assert_eq!(tried.into_inner(), outcome.tried());
    outcome
}

fn ipv4(range: Range<u64>) -> Space {
    Space::all().swap_remove(3).within(range)
}

const LONG: Duration = Duration::from_secs(600);

fn hashed(function: Function, value: &str, bytes: usize) -> Vec<u8> {
    let mut out = [0; 32];
    function.hash(value.as_bytes(), &mut out);
    out[..bytes].to_vec()
}

#[test]
fn functions_are_those_of_that_name() {
    // Of coreutils' md5sum, sha1sum and sha256sum.
    for (function, bytes, expected) in [
        (Function::Md5, 16, "1237b6b78f6293ce2714d52b209eb3b4"),
        (Function::Sha1, 20, "99b5612a9ba21027f724fe3faebcef50b623a99d"),
        (Function::Sha256, 32, "4f00c1a807b673887c7af517d0df68e6b41aecf8cbec26c71fe4c580664669ed"),
    ] {
        let hex: String = hashed(function, "593-47-5928", bytes).iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(hex, expected);
    }
}

#[test]
fn every_function_and_length_is_reversed_and_what_is_elsewhere_is_not() {
    let spaces = [ipv4(0x0a00_0000..0x0a00_4321)];
    let inside = "10.0.66.33";
    for (function, bytes) in [
        (Function::Md5, 16),
        (Function::Sha1, 20),
        (Function::Sha1, 16),
        (Function::Sha256, 32),
        (Function::Sha256, 20),
        (Function::Sha256, 16),
    ] {
        let digests = [(2, hashed(function, inside, bytes)), (1, hashed(function, "10.0.67.33", bytes))];
        let outcome = attacked(&digests, &spaces, LONG);
        assert_eq!(outcome.reversed, [0, 0, 1], "{function:?} {bytes}");
        let pass = outcome.passes.iter().find(|pass| pass.has_reversed()).unwrap();
        assert_eq!((pass.function, pass.tried), (function, 0x4321));
    }
}

#[test]
fn each_value_of_a_space_is_tried_once_and_an_attack_ends_when_all_is_reversed() {
    for size in [1, 4095, 4096, 4097, 70_001] {
        let space = ipv4(5..5 + size);
        let pass = Pass::new(Function::Md5, &space, 1);
        let mut numbers: Vec<u64> = (0..).map_while(|nth| pass.chunk(nth)).flatten().collect();
        numbers.sort_unstable();
        assert!(numbers.into_iter().eq(5..5 + size), "{size}");
    }
    let first = hashed(Function::Sha256, "0", 32);
    let outcome = attacked(&[(0, first)], &Space::all(), LONG);
    assert_eq!(outcome.reversed, [1, 0, 0]);
    assert!(outcome.passes[1..].iter().all(|pass| pass.tried == 0), "nothing was left to look for");
}

#[test]
fn a_value_of_two_columns_is_reversed_in_both_and_one_of_two_spaces_once() {
    let digest = hashed(Function::Sha256, "100000001", 32);
    let spaces: Vec<_> = Space::all().into_iter().take(2).map(|space| space.within(99_999_990..100_000_010)).collect();
    let outcome = attacked(&[(0, digest.clone()), (1, digest)], &spaces, LONG);
    assert_eq!(outcome.reversed, [1, 1, 0]);
}

#[test]
fn time_ends_it_and_so_does_its_caller() {
    let digests = [(0, vec![7; 32])];
    let outcome = attacked(&digests, &Space::all(), Duration::from_millis(200));
    assert!(outcome.passes.iter().all(|pass| pass.tried > 0 && !pass.is_done()), "each got its share");
    assert!(!outcome.has_reversed());
    let targets = Targets::new([(0, vec![7; 32].into_boxed_slice())]);
    let effort = Effort { time: LONG, threads: 2, tried: &AtomicU64::new(0), stop: &AtomicBool::new(true) };
    assert_eq!(attack(&targets, 1, &Space::all(), &effort).tried(), 0);
}

//! Programs that share no code with masq: they judge the labelled messages and compute the known answers once more.

use crate::support::python_prints;

#[tokio::test]
async fn the_reference_program_agrees_with_every_label() {
    let messages = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/messages");
    let printed = python_prints("reference.py", &["corpus", messages], String::new()).await;
    assert!(printed.ends_with(", 0 without a case, 0 differ\n"), "{printed}");
}

#[tokio::test]
async fn every_known_answer_is_computed_alike_a_second_time() {
    python_prints("vectors.py", &[], String::new()).await;
}

#[tokio::test]
async fn the_checker_of_chaos_campaigns_finds_every_invariant_broken() {
    let printed = python_prints("checker", &["--self-test"], String::new()).await;
    assert!(printed.ends_with(" cases, 0 wrong\n"), "{printed}");
}

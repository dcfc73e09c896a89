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

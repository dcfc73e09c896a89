//! The protocol as a model: every order in which its steps and a handful of faults can happen, searched breadth first.
//!
//! `protocol` says what can happen next, in the words of the code: receive, write (one transaction: the ledger's key, the
//! row or the dead letter), COMMIT, delete. `search` goes everywhere. Here stand the invariants' verdicts: none is
//! violated by the protocol as it is, and each way of breaking it violates one, with the shortest way there.
//! A batch is one message here. What batches add (order, deadlocks, halving) is tested on PostgreSQL and simulated.

mod protocol;
mod search;
mod step;

use std::time::Instant;

use masq::mutant::Mutant;

use self::{
    protocol::{Protocol, Verdict},
    search::{Search, Violation},
};

/// Both versions of a rolling deploy take the message for a row, or the newer one takes it for a dead letter.
const VERDICTS: [[Verdict; 2]; 2] = [[Verdict::Row, Verdict::Row], [Verdict::Row, Verdict::Dead]];

#[test]
fn no_order_of_steps_and_faults_breaks_the_protocol() {
    let begin = Instant::now();
    let mut states = 0;
    for verdicts in VERDICTS {
        for (resent, faults) in [(false, 5), (true, 2)] {
            let protocol = Protocol { verdicts, resent, faults, broken: None };
            let search = Search::new(&protocol);
            assert_eq!(search.traces(), [], "{protocol:?}");
            states += search.states();
        }
    }
    eprintln!("{states} states in {:?}", begin.elapsed());
    assert!(states > 20_000, "only {states} states: the model does not move");
}

#[test]
fn every_broken_variant_violates_what_it_breaks() {
    use Violation::{Both, Lost, Twice};
    // The ways of breaking it, the worst that comes of each, and how many faults that takes.
    let variants = [
        (Mutant::NoLedger, Twice, 1),
        (Mutant::NoLedger, Both, 1),
        (Mutant::DeleteFirst, Lost, 1),
        (Mutant::LedgerFirst, Lost, 1),
        (Mutant::RowsFirst, Twice, 1),
        (Mutant::UnknownIsDone, Lost, 1),
        (Mutant::PrunedEarly, Twice, 2),
        (Mutant::SelectThenInsert, Twice, 1),
        (Mutant::SelectThenInsert, Both, 1),
        (Mutant::NoDedupe, Twice, 0),
        (Mutant::AsynchronousCommit, Lost, 1),
    ];
    for (mutant, violation, faults) in variants {
        let verdicts = VERDICTS[usize::from(violation == Both)];
        let resent = mutant == Mutant::NoDedupe;
        let search = |faults| Search::new(&Protocol { verdicts, resent, faults, broken: Some(mutant) });
        let found =
            search(faults).trace(violation).unwrap_or_else(|| panic!("{mutant:?} is not caught: {violation:?}"));
        eprintln!("{mutant:?}: {violation:?} after\n{found}");
        if let Some(fewer) = faults.checked_sub(1) {
            assert_eq!(search(fewer).trace(violation), None, "{mutant:?} needs fewer faults than the table says");
        }
    }
    for (_, mutant) in Mutant::ALL {
        let is_tried = variants.iter().any(|(tried, ..)| *tried == mutant);
        assert!(is_tried || mutant == Mutant::OtherVerdict, "{mutant:?} is not tried");
    }
}

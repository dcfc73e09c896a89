//! Broken variants of this program, to test what is to find them: a simulation or a campaign that lets one of them pass
//! proves nothing. They exist only with the cargo feature `mutants`, which a release build refuses; without it
//! [`is`] is `false` before the compiler looks at what it guards.

/// What is broken. Each is a mistake that somebody could make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutant {
    /// Rows are written without asking the ledger.
    NoLedger,
    /// Messages are deleted before their outcomes are written.
    DeleteFirst,
    /// The ledger's keys are committed first, the rows after them.
    LedgerFirst,
    /// The rows are committed first, the ledger's keys after them.
    RowsFirst,
    /// A COMMIT without an answer is taken for one that succeeded.
    UnknownIsDone,
    /// The ledger forgets a message while it can still come again.
    PrunedEarly,
    /// Keys are looked for and then inserted, without a unique index to decide.
    SelectThenInsert,
    /// Producers' own ids are not looked at, so a message sent anew under another MessageId is another row.
    NoDedupe,
    /// A COMMIT answers before it is on disk.
    AsynchronousCommit,
    /// Not broken, but of another opinion: judges some messages otherwise, as the next version in a rolling deploy may.
    OtherVerdict,
}

#[cfg(all(feature = "mutants", not(debug_assertions)))]
compile_error!("the feature `mutants` breaks the program on purpose and is not for release builds");

impl Mutant {
    /// All of them, each with the name by which the environment chooses it.
    pub const ALL: [(&str, Self); 10] = [
        ("no-ledger", Self::NoLedger),
        ("delete-first", Self::DeleteFirst),
        ("ledger-first", Self::LedgerFirst),
        ("rows-first", Self::RowsFirst),
        ("unknown-is-done", Self::UnknownIsDone),
        ("pruned-early", Self::PrunedEarly),
        ("select-then-insert", Self::SelectThenInsert),
        ("no-dedupe", Self::NoDedupe),
        ("asynchronous-commit", Self::AsynchronousCommit),
        ("other-verdict", Self::OtherVerdict),
    ];
}

/// Whether this process is that mutant.
#[cfg(not(feature = "mutants"))]
#[inline]
pub const fn is(_mutant: Mutant) -> bool {
    false
}

/// Whether this process is that mutant: the one that [`choose`] named.
#[cfg(feature = "mutants")]
pub fn is(mutant: Mutant) -> bool {
    CHOSEN.get().is_some_and(|chosen| *chosen == mutant)
}

#[cfg(feature = "mutants")]
static CHOSEN: std::sync::OnceLock<Mutant> = std::sync::OnceLock::new();

/// Makes this process a mutant, once and for all. `false`: there is none of that name, or it is one already.
#[cfg(feature = "mutants")]
pub fn choose(name: &str) -> bool {
    let named = Mutant::ALL.iter().find(|(known, _)| *known == name);
    named.is_some_and(|(_, mutant)| CHOSEN.set(*mutant).is_ok())
}

//! What a look at an audit log finds: each with a code for programs, and the number of the entry that it is about. Pure.

/// What is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    /// Numbers are left out.
    Missing,
    /// A number stands where it does not belong.
    Disorder,
    /// An entry is not what was hashed.
    Changed,
    /// An entry does not follow the one before.
    Unchained,
    /// The log ends before its end.
    Truncated,
    /// The head does not fit the entries.
    Head,
    /// The first entries are not those that a checkpoint was signed for.
    Rewritten,
    /// A checkpoint proves nothing.
    BadCheckpoint,
    /// There is no checkpoint.
    NoCheckpoint,
    /// What an entry says of epochs cannot be understood.
    BadDetail,
    /// A request was never answered.
    Unanswered,
    /// Rows of the vault are gone.
    MissingRows,
    /// Rows of the vault came from nowhere.
    ExtraRows,
    /// Rows are there whose epoch is gone.
    LostEpoch,
    /// An epoch never said what it wrote.
    OpenEpoch,
}

impl Code {
    /// As `--json` has it. These names do not change.
    pub fn name(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Disorder => "disorder",
            Self::Changed => "changed",
            Self::Unchained => "unchained",
            Self::Truncated => "truncated",
            Self::Head => "head",
            Self::Rewritten => "rewritten",
            Self::BadCheckpoint => "bad_checkpoint",
            Self::NoCheckpoint => "no_checkpoint",
            Self::BadDetail => "bad_detail",
            Self::Unanswered => "unanswered",
            Self::MissingRows => "missing_rows",
            Self::ExtraRows => "extra_rows",
            Self::LostEpoch => "lost_epoch",
            Self::OpenEpoch => "open_epoch",
        }
    }
}

/// One thing that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What.
    pub code: Code,
    /// Where: an entry's number.
    pub entry: Option<i64>,
    /// Whether it is only good to know.
    pub is_note: bool,
    /// In words.
    pub text: String,
}

/// How many findings are kept. Where there are more, the log as a whole is at fault, and the first say where it begins;
/// more would let a log that somebody made up fill the memory.
const KEPT: usize = 1_000;

/// All that was found, in the order of the log.
#[derive(Default)]
pub struct Findings {
    /// The first of them.
    pub list: Vec<Finding>,
    /// How many more there are.
    pub more: u64,
    broken: bool,
}

impl Findings {
    /// Something is wrong.
    pub fn broken(&mut self, code: Code, entry: Option<i64>, text: String) {
        self.broken = true;
        self.add(Finding { code, entry, is_note: false, text });
    }

    /// Something is good to know.
    pub fn note(&mut self, code: Code, entry: Option<i64>, text: String) {
        self.add(Finding { code, entry, is_note: true, text });
    }

    /// Whether nothing is wrong.
    pub fn are_harmless(&self) -> bool {
        !self.broken
    }

    fn add(&mut self, finding: Finding) {
        if self.list.len() < KEPT {
            self.list.push(finding);
        } else {
            self.more += 1;
        }
    }
}

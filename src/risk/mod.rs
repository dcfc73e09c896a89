//! What somebody learns who has the target table and no key: `masq risk`.
//!
//! [`table`] reads rows as an analyst may, [`column`] and [`pattern`] look at their values, [`attack`] tries the values
//! of each [`space`] against those that look like hashes, [`groups`] and [`identifiers`] judge what is left unmasked.
//! This file puts it together, [`words`] says what follows. No value is kept or told, only what they come to.

pub mod attack;
pub mod column;
pub mod groups;
pub mod identifiers;
pub mod pattern;
pub mod space;
pub mod table;
pub mod words;

use std::collections::HashSet;

use attack::{Outcome, Pass, Targets};
use groups::Groups;
use identifiers::Identifier;
use pattern::Pattern;
use table::{Read, Sample};

use crate::config::Mask;

/// SHA-256 hashes a second on one NVIDIA RTX 4090: hashcat 6.2.6, mode 1400, as S. Croley (Chick3nman) published it in
/// 2022. MD5 and SHA-1 are less work.
pub const GRAPHICS_CARD: f64 = 21_975.5e6;

/// Rows below which a column with no value twice may be so by chance.
const FEW: u64 = 20;

/// What was found.
pub struct Report {
    /// Schema and name of the table, quoted.
    pub table: String,
    /// Rows that were read.
    pub rows: u64,
    /// Rows that the table has by PostgreSQL's statistics.
    pub estimate: Option<u64>,
    /// Whether all rows were read.
    pub is_whole: bool,
    /// Columns that could not be read.
    pub hidden: Vec<String>,
    /// The others.
    pub columns: Vec<Finding>,
    /// Groups of rows that agree in all columns of [`Report::grouped_by`].
    pub groups: Groups,
    /// The columns that tell rows apart and that somebody may know of a person.
    pub grouped_by: Vec<String>,
    /// The attack on what looks like hashes.
    pub attack: Outcome,
}

/// What was found of a column.
#[derive(Clone, Debug)]
pub struct Finding {
    /// Its name.
    pub name: String,
    /// How the configuration masks it.
    pub mask: Option<Mask>,
    /// Values that are not NULL.
    pub values: u64,
    /// Different ones.
    pub distinct: u64,
    /// The part of the values that are the most frequent one.
    pub top: f64,
    /// The part of the values that are among the ten most frequent.
    pub top_ten: f64,
    /// Digests that were attacked; `None` if it holds none.
    pub attacked: Option<u64>,
    /// Different first bytes of these: of masq's tokens, the ids of their keys.
    pub key_ids: usize,
    /// How many of these were reversed.
    pub reversed: u64,
    /// How long all that its reversed values can be takes.
    pub seconds: Option<Seconds>,
    /// Which identifier of HIPAA's it is, and whether its values say so, not its name alone.
    pub identifier: Option<(Identifier, bool)>,
}

/// A time, in seconds.
#[derive(Clone, Copy, Debug)]
pub struct Seconds {
    /// On this machine, at the rate that was measured.
    pub here: f64,
    /// On one graphics card, at the rate of [`GRAPHICS_CARD`].
    pub graphics_card: f64,
}

impl Finding {
    /// Whether values stand in it as they came.
    pub fn is_clear(&self) -> bool {
        self.attacked.is_none() && self.mask.is_none()
    }
}

/// What there is to attack.
pub fn targets(sample: &Sample) -> Targets {
    let digests = sample.columns.iter().enumerate();
    Targets::new(digests.flat_map(|(at, column)| column.seen.digests().map(move |digest| (at, digest.into()))))
}

/// Puts together what was read and what the attack came to.
pub fn assess(sample: Sample, attack: Outcome) -> Report {
    let columns: Vec<_> = sample.columns.iter().enumerate().map(|(at, column)| finding(at, column, &attack)).collect();
    let chosen: Vec<usize> =
        (0..columns.len()).filter(|at| is_known_of_people(&sample.columns[*at], &columns[*at])).collect();
    let person = sample.columns.iter().position(|column| column.is_subject);
    let groups = if chosen.is_empty() { Groups::default() } else { grouped(&sample, &chosen, person) };
    Report {
        table: sample.table,
        rows: sample.rows,
        estimate: sample.estimate,
        is_whole: sample.is_whole,
        hidden: sample.hidden,
        grouped_by: chosen.iter().map(|at| columns[*at].name.clone()).collect(),
        columns,
        groups,
        attack,
    }
}

fn grouped(sample: &Sample, chosen: &[usize], person: Option<usize>) -> Groups {
    let rows = sample.cells.chunks_exact(sample.columns.len());
    groups::groups(rows.map(|row| (chosen.iter().map(|at| row[*at]).collect(), person.map(|at| row[at]))))
}

fn finding(at: usize, column: &Read, attack: &Outcome) -> Finding {
    let seen = &column.seen;
    let (top, top_ten) = seen.most_frequent();
    let found: Vec<&Pass> = attack.passes.iter().filter(|pass| pass.reversed[at] > 0).collect();
    let seconds = (!found.is_empty()).then(|| Seconds {
        here: found.iter().map(|pass| pass.seconds()).sum(),
        graphics_card: found.iter().map(|pass| pass.space.size() as f64 / GRAPHICS_CARD).sum(),
    });
    Finding {
        name: column.name.clone(),
        mask: column.mask.clone(),
        values: seen.values(),
        distinct: seen.distinct(),
        top,
        top_ten,
        attacked: seen.is_hashed().then(|| seen.digests().count() as u64),
        key_ids: seen.digests().filter_map(|digest| digest.first()).collect::<HashSet<_>>().len(),
        reversed: attack.reversed[at],
        seconds,
        identifier: identifier(column),
    }
}

fn identifier(column: &Read) -> Option<(Identifier, bool)> {
    if column.seen.values() == 0 {
        return None;
    }
    let found = identifiers::identifier(&column.name, column.is_date, column.seen.pattern());
    found.or_else(|| column.is_subject.then(|| (identifiers::of_subject(), false)))
}

/// Whether somebody may know this of a person, so that it tells rows apart: in clear, neither the person's own id nor a
/// number that the database gave each row.
fn is_known_of_people(column: &Read, finding: &Finding) -> bool {
    let is_id = finding.values >= FEW && finding.distinct == finding.values && !column.is_date;
    let is_uuid = column.seen.pattern() == Some(Pattern::Uuid);
    finding.is_clear() && finding.values > 0 && !column.is_subject && !is_id && !is_uuid
}

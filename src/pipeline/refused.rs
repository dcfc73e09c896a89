//! What becomes of rows that the table refuses one by one: dead letters, if the table takes others; otherwise it is the
//! table that is at fault, and they wait. Part of step 4; `load` finds them.

use std::ops::Range;

use super::{Trouble, load::Load, retry::patience};
use crate::{
    event::Reason,
    sink::{Sink, Verdict, Witness},
};

/// So many messages that the table refuses or that wait for those, and none that it takes, stop the line.
const DOUBT: usize = 100;

/// An entry whose row the table refuses, with which SQLSTATE, and because of which constraint or column.
pub(super) struct Refused {
    /// Its place in the batch.
    pub(super) at: usize,
    pub(super) sqlstate: String,
    pub(super) place: String,
    pub(super) witness: Witness,
}

impl Refused {
    fn part(&self) -> Range<usize> {
        self.at..self.at + 1
    }
}

/// Whether the table refuses also what nobody has complained of.
fn blame_table(refused: &[Refused]) -> bool {
    refused.iter().any(|refused| refused.witness == Witness::TakesNone)
}

impl<S: Sink> Load<'_, S> {
    /// Answers the parts of the batch that are to be written again.
    pub(super) async fn decide(&mut self, refused: Vec<Refused>) -> Vec<Range<usize>> {
        if self.is_table_sound(&refused) {
            return self.try_or_condemn(refused);
        }
        self.write_sealed().await;
        if self.judge.may_carry && refused.len() + self.count_waiting() < DOUBT {
            self.carry(refused);
            Vec::new()
        } else {
            self.wait_for_sound_table(refused).await
        }
    }

    fn count_waiting(&self) -> usize {
        self.waiting.iter().map(Range::len).sum()
    }

    /// Whether refused rows may become dead letters: only if the table takes others, for a table that takes nothing is
    /// at fault itself. Dead letters and duplicates prove nothing of it. Nor is it enough that it took others a moment
    /// ago: what it refuses now, though nobody complained of it, speaks against it.
    fn is_table_sound(&self, refused: &[Refused]) -> bool {
        let takes_new = || refused.iter().any(|refused| refused.witness == Witness::TakesNew);
        !blame_table(refused)
            && (self.sound
                || takes_new()
                || self.is_old_row_enough(refused)
                || self.were_rows_taken_since(refused)
                || self.is_row_before_enough(refused))
    }

    /// Whether the table has taken another worker's row since it first refused these, which it still does.
    fn were_rows_taken_since(&self, refused: &[Refused]) -> bool {
        let rows = self.judge.status.rows_taken();
        let is_since = |refused: &Refused| {
            let then = self.judge.doubted.get(&self.batch.entries[refused.at].message.key);
            refused.witness == Witness::TakesOld && then.is_some_and(|then| rows > *then)
        };
        refused.iter().all(is_since)
    }

    /// Where nothing comes that could vouch for the table, a row that it takes again has to do: no other message has
    /// room, or those of the group come only after this one.
    fn is_old_row_enough(&self, refused: &[Refused]) -> bool {
        let comes_nothing = |refused: &Refused| !self.judge.may_carry || self.group(refused.at).is_some();
        refused.len() < DOUBT && refused.iter().all(|one| one.witness == Witness::TakesOld && comes_nothing(one))
    }

    /// A row written before this batch vouches for the table against a single refused message, and only against one: a
    /// second in a row is a doubt.
    fn is_row_before_enough(&self, refused: &[Refused]) -> bool {
        refused.len() == 1 && self.judge.status.stop_rows_flow()
    }

    /// What is sealed does not wait for rows, and cannot be carried, since its body is gone.
    async fn write_sealed(&mut self) {
        let is_row = |at: &usize| matches!(self.batch.entries[*at].verdict, Verdict::Row(_));
        let (rows, sealed): (Vec<_>, Vec<_>) = self.waiting.drain(..).flatten().partition(is_row);
        self.waiting = ranges(rows);
        self.write(ranges(sealed)).await;
    }

    /// Leaves refused messages to the next batch: what comes with them may show that the table takes rows.
    fn carry(&mut self, refused: Vec<Refused>) {
        self.doubt(&refused);
        self.carried.extend(refused.iter().map(|refused| refused.at));
        self.carried.extend(self.waiting.drain(..).flatten());
    }

    fn doubt(&self, refused: &[Refused]) {
        self.judge.status.stop_rows_flow();
        let Refused { sqlstate, place, .. } = &refused[0];
        let which = if blame_table(refused) {
            "every row, also what it took before"
        } else {
            "rows, and has taken no other since"
        };
        let what = format!(
            "the table refuses {which} (SQLSTATE {sqlstate}{place}); nothing becomes a dead letter until it takes one: \
             look at its constraints and triggers"
        );
        self.judge.status.set(Trouble::Table, &what);
    }

    /// Stops the line until the table takes a row again: one of these, another worker's, or what bears witness. Answers
    /// what is to be tried again then, since it may have been refused for the table's fault; nothing if it is time to
    /// stop. One is tried at a time: a table that takes nothing should not have to refuse thousands a second.
    async fn wait_for_sound_table(&mut self, mut refused: Vec<Refused>) -> Vec<Range<usize>> {
        self.doubt(&refused);
        self.sound = false;
        let waiting = std::mem::take(&mut self.waiting);
        let was_blamed = blame_table(&refused);
        let mut patience = patience(&self.judge.status.table, self.shutdown);
        while !self.sound && !refused.is_empty() {
            if !patience.outage().await {
                return Vec::new();
            }
            self.sound = self.judge.status.do_rows_flow();
            if !self.sound {
                refused.rotate_left(1);
                let again = self.write(Vec::from([refused[0].part()])).await;
                refused.retain(|refused| self.outcomes[refused.at].is_none());
                // What it was blamed for is over; whose fault each refusal is will be asked anew.
                if was_blamed && !again.is_empty() && !blame_table(&again) {
                    break;
                }
            }
        }
        self.waiting = waiting;
        refused.iter().map(Refused::part).collect()
    }

    /// Makes dead letters of refused rows, but for those of which no witness has spoken, if there is one by now: a row
    /// of this batch or another worker's. Answers where they are.
    fn try_or_condemn(&mut self, refused: Vec<Refused>) -> Vec<Range<usize>> {
        self.judge.status.clear(Trouble::Table);
        let parts = refused.iter().map(Refused::part).collect();
        for Refused { at, sqlstate, place, witness } in refused {
            if witness != Witness::Unknown || !self.sound {
                tracing::warn!(%sqlstate, place, "PostgreSQL refuses a row; it becomes a dead letter");
                self.make_dead(at, Reason::DbRejected(sqlstate));
            }
        }
        parts
    }
}

/// The same places in as few stretches as may be.
fn ranges(places: Vec<usize>) -> Vec<Range<usize>> {
    let mut ranges: Vec<Range<usize>> = Vec::new();
    for at in places {
        match ranges.last_mut() {
            Some(last) if last.end == at => last.end += 1,
            _ => ranges.push(at..at + 1),
        }
    }
    ranges
}

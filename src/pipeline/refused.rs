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

/// Whether the table has refused what it took before.
fn do_blame_table(refused: &[Refused]) -> bool {
    refused.iter().any(|refused| refused.witness == Witness::Refused)
}

impl<S: Sink> Load<'_, S> {
    /// Answers the parts of the batch that are to be written again, those last that come first.
    pub(super) async fn decide(&mut self, refused: Vec<Refused>) -> Vec<Range<usize>> {
        if self.is_table_sound(&refused) {
            self.try_or_condemn(refused)
        } else if self.judge.may_carry && refused.len() + self.waiting.iter().map(Range::len).sum::<usize>() < DOUBT {
            self.carry(refused)
        } else {
            self.wait_for_sound_table(refused).await
        }
    }

    /// Whether refused rows may become dead letters: only if the table takes others, for a table that takes nothing is
    /// at fault itself. Dead letters and duplicates prove nothing of it. Nor is it enough that it took others a moment
    /// ago: what it refuses now, though it took it then, speaks against it.
    fn is_table_sound(&self, refused: &[Refused]) -> bool {
        !do_blame_table(refused) && (self.sound || self.vouches_row_before(refused) || self.vouch_witnesses(refused))
    }

    /// A row written before this batch vouches for the table against a single refused message, and only against one: a
    /// second in a row is a doubt.
    fn vouches_row_before(&self, refused: &[Refused]) -> bool {
        refused.len() == 1 && self.judge.status.do_rows_flow()
    }

    /// Where there is no room for another message, whose row could vouch for the table, witnesses have to do.
    fn vouch_witnesses(&self, refused: &[Refused]) -> bool {
        let is_taken = |refused: &Refused| refused.witness == Witness::Taken;
        !self.judge.may_carry && refused.len() < DOUBT && refused.iter().all(is_taken)
    }

    /// Leaves refused messages to the next batch: what comes with them may show that the table takes rows. What is
    /// sealed is written now: it waits for no row, and its body is gone. Answers where it is.
    fn carry(&mut self, refused: Vec<Refused>) -> Vec<Range<usize>> {
        self.doubt(&refused);
        let is_row = |at: &usize| matches!(self.batch.entries[*at].verdict, Verdict::Row(_));
        let (rows, sealed): (Vec<_>, Vec<_>) = self.waiting.drain(..).flatten().partition(is_row);
        self.carried.extend(refused.iter().map(|refused| refused.at).chain(rows));
        sealed.into_iter().map(|at| at..at + 1).collect()
    }

    fn doubt(&self, refused: &[Refused]) {
        self.judge.status.rows_flow(false);
        let Refused { sqlstate, place, .. } = &refused[0];
        let what = format!(
            "the table refuses every row (SQLSTATE {sqlstate}{place}); nothing becomes a dead letter until it takes one: \
             look at its constraints and triggers"
        );
        self.judge.status.set(Trouble::Table, &what);
    }

    /// Stops the line until the table takes a row again: one of these, another worker's, or what it took before. Answers what is to be tried
    /// again then, since it may have been refused for the table's fault; nothing if it is time to stop. One is tried
    /// at a time: a table that takes nothing should not have to refuse thousands a second.
    async fn wait_for_sound_table(&mut self, mut refused: Vec<Refused>) -> Vec<Range<usize>> {
        self.doubt(&refused);
        self.sound = false;
        let waiting = std::mem::take(&mut self.waiting);
        let was_blamed = do_blame_table(&refused);
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
                if was_blamed && !again.is_empty() && !do_blame_table(&again) {
                    break;
                }
            }
        }
        self.waiting = waiting;
        refused.iter().map(Refused::part).collect()
    }

    /// Makes dead letters of refused rows, but for those of which no witness has spoken: now there is one. Answers where
    /// they are.
    fn try_or_condemn(&mut self, refused: Vec<Refused>) -> Vec<Range<usize>> {
        if !self.sound {
            self.judge.status.rows_flow(false);
        }
        let parts = refused.iter().map(Refused::part).collect();
        for Refused { at, sqlstate, place, witness } in refused {
            if witness != Witness::Unknown {
                tracing::warn!(%sqlstate, place, "PostgreSQL refuses a row; it becomes a dead letter");
                self.make_dead(at, Reason::DbRejected(sqlstate));
            }
        }
        parts
    }
}

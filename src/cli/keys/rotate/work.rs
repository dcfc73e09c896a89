//! The long part of a rotation: entries and rows, page by page, with a bar, and between two pages an ear for signals.

use std::num::NonZeroU8;

use crate::{
    cli::{
        context::Context,
        progress::Progress,
        report::Failure,
        signals::{self, Stop},
    },
    db::Session,
    vault::rotate::{
        RotateError, Rotation,
        rekey::{self, Rekey, Tally},
        rows::{self, Pass},
    },
};

/// What helps whoever sees it end early.
const GOES_ON: &str = "the same command goes on with the rest";

/// What is done to rows.
#[derive(Clone, Copy)]
pub(super) enum Rows {
    Update,
    Bury,
}

/// Long work, between whose pages a signal is heard.
pub(super) struct Work<'a> {
    /// On whose record it is done.
    pub(super) rotation: Rotation<'a>,
    context: &'a Context,
    stop: Stop,
}

impl<'a> Work<'a> {
    /// Listens for signals from now on.
    ///
    /// # Errors
    /// The system does not let us.
    pub(super) fn new(rotation: Rotation<'a>, context: &'a Context) -> Result<Self, Failure> {
        Ok(Self { rotation, context, stop: signals::listen()? })
    }

    fn go_on(&self) -> Result<(), Failure> {
        if self.stop.gently.has_started() { Err(signals::stopped().hint(GOES_ON)) } else { Ok(()) }
    }

    /// Moves every entry of these keys.
    ///
    /// # Errors
    /// Those of the database, or a signal came. What was moved stays moved.
    pub(super) async fn entries(
        &mut self,
        mut rekey: Rekey<'_>,
        session: &Session,
        slots: &Session,
        old: &[NonZeroU8],
    ) -> Result<Tally, Failure> {
        let mut progress = Progress::new(self.context, "re-keying entries", Some(rekey::count(session).await?));
        let mut total = Tally::default();
        for kid in old {
            loop {
                self.go_on()?;
                let next = rekey.next(&mut self.rotation, slots, *kid).await;
                let Some(tally) = next.map_err(interrupted)? else { break };
                total.add(tally);
                progress.set(total.all());
            }
        }
        progress.finish();
        Ok(total)
    }

    /// Passes over all rows until one finds nothing to do. Answers what they did, and what the last one left.
    ///
    /// # Errors
    /// As [`Work::entries`].
    pub(super) async fn rows(&mut self, what: Rows) -> Result<Pass, Failure> {
        let mut total = Pass::default();
        loop {
            let tables = rows::tables(&self.rotation).await?;
            let ranges = tables.iter().map(rows::Table::ranges).sum();
            let mut progress = Progress::new(self.context, "updating rows, ranges", Some(ranges));
            let mut pass = Pass::default();
            for table in &tables {
                for range in 0..table.ranges() {
                    self.go_on()?;
                    let found = match what {
                        Rows::Update => table.rekey(&mut self.rotation, range).await,
                        Rows::Bury => {
                            let buried = table.bury(&mut self.rotation, range).await;
                            buried.map(|updated| Pass { updated, remaining: 0 })
                        }
                    };
                    let found = found.map_err(|error| interrupted(error.into()))?;
                    pass = Pass { updated: pass.updated + found.updated, remaining: pass.remaining + found.remaining };
                    progress.add(1);
                }
            }
            progress.finish();
            total = Pass { updated: total.updated + pass.updated, remaining: pass.remaining };
            if pass.updated == 0 || matches!(what, Rows::Bury) {
                return Ok(total);
            }
        }
    }
}

fn interrupted(error: RotateError) -> Failure {
    let failure = Failure::from(error);
    if failure.hint.is_some() { failure } else { failure.hint(GOES_ON) }
}

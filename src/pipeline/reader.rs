//! Reads the source: hands rows to their table and marks to all, and releases what every table has.

use std::sync::Arc;

use tokio::sync::{Notify, mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::Ended;
use super::writer::Safe;
use crate::batch::Flow;
use crate::budget::Budget;
use crate::error::{Error, Result};
use crate::position::Checkpoint;
use crate::sources::Source;
use crate::table::{Lanes, Table, TableId};

/// Rows of one batch take no more of the budget than this part, whatever they weigh. Tables may hold more than half of it until the next mark,
/// and where that is behind such rows, they would wait for each other.
const TAKEN_SHARE: usize = 3;

/// The reader's end of one table.
pub struct Outlet {
    pub table: Arc<Table>,
    pub queue: mpsc::Sender<Flow>,
    pub safe: watch::Receiver<Safe>,
}

pub struct Reader<S> {
    pub source: S,
    /// In the order in which marks are handed out: the dead letters first, because the others wait for them.
    pub outlets: Vec<Outlet>,
    /// Tables that are left out, and what they hold: they still need what is behind it.
    pub left_out: Vec<(Lanes, Checkpoint)>,
    pub budget: Budget,
    pub moved: Arc<Notify>,
    pub stop: CancellationToken,
}

impl<S: Source> Reader<S> {
    /// Runs until the source ends, its lanes change, it has something that stops a table, or `stop`; then waits for the writers to publish,
    /// and releases that too.
    pub async fn run(mut self) -> Result<Ended> {
        let (mut read, mut released) = (Checkpoint::default(), Checkpoint::default());
        let ended = loop {
            let flow = tokio::select! {
                biased;
                () = self.stop.cancelled() => break Ok(Ended::Stopped),
                // Before the next rows: what is safe frees space at the source.
                () = self.moved.notified() => {
                    self.release(&read, &mut released).await?;
                    continue;
                }
                flow = self.source.next() => match flow {
                    // What was handed over before is good up to the last mark.
                    Err(error) if error.table.is_some() => break Err(error),
                    flow => flow?,
                },
            };
            let sent = match flow {
                None => break Ok(Ended::Finished),
                Some(Flow::Reopen(why)) => break Ok(Ended::Reopen(why)),
                Some(Flow::Copied { table, mark }) => {
                    let queue = &self.outlet(&table)?.queue;
                    queue.send(Flow::Copied { table, mark }).await.is_ok()
                }
                Some(Flow::Begin { table, mark }) => {
                    let queue = &self.outlet(&table)?.queue;
                    queue.send(Flow::Begin { table, mark }).await.is_ok()
                }
                Some(Flow::Gap(gap)) => self.outlet(&gap.table)?.queue.send(Flow::Gap(gap)).await.is_ok(),
                Some(Flow::Rows(mut batch)) => {
                    if batch.permit.is_none() {
                        let (bytes, most) = (batch.rows.get_array_memory_size(), self.budget.limit() / TAKEN_SHARE);
                        batch.permit = Some(self.budget.acquire_part(bytes, most).await);
                    }
                    self.outlet(&batch.table)?.queue.send(Flow::Rows(batch)).await.is_ok()
                }
                Some(Flow::Mark(mark)) => {
                    if !mark.covers(&read) {
                        return Err(Error::bug(format!("the source went back from {read} to {mark}")));
                    }
                    let sent = self.mark(&mark).await;
                    read = mark;
                    sent
                }
            };
            if !sent {
                return Ok(Ended::Stopped); // A writer has ended, and says why.
            }
        };
        let drained = self.drain(&read, &mut released).await;
        ended.and_then(|ended| drained.map(|()| ended))
    }

    fn outlet(&self, table: &TableId) -> Result<&Outlet> {
        let found = self.outlets.iter().find(|outlet| outlet.table.id == *table);
        found.ok_or_else(|| Error::bug(format!("the source speaks of the unknown table {table}")))
    }

    /// Hands the mark to every table, each with its own lanes only.
    async fn mark(&mut self, mark: &Checkpoint) -> bool {
        for outlet in &mut self.outlets {
            let own = mark.only(|lane| outlet.table.lanes.takes(lane));
            if outlet.queue.send(Flow::Mark(own)).await.is_err() {
                return false;
            }
        }
        true
    }

    /// Tells the source what every table has, if that is more than before.
    async fn release(&mut self, read: &Checkpoint, released: &mut Checkpoint) -> Result<()> {
        let tables: Vec<_> = self
            .outlets
            .iter()
            .map(|outlet| (&outlet.table.lanes, durable(&outlet.table.lanes, &outlet.safe.borrow())))
            .chain(self.left_out.iter().map(|(lanes, held)| (lanes, held.clone())))
            .collect();
        let floor = floor(read, &tables);
        if floor != *released {
            self.source.release(&floor).await?;
            *released = floor;
        }
        Ok(())
    }

    /// Ends the queues, waits for the writers, releases what they have published, and takes leave of the source.
    async fn drain(mut self, read: &Checkpoint, released: &mut Checkpoint) -> Result<()> {
        for outlet in &mut self.outlets {
            outlet.queue = mpsc::channel(1).0; // The last sender goes, so the writer publishes and ends.
        }
        for outlet in &mut self.outlets {
            while outlet.safe.changed().await.is_ok() {}
        }
        self.release(read, released).await?;
        self.source.close().await;
        Ok(())
    }
}

/// How far a table no longer needs its source. A slot forgets what it is told, and whether it may be believed is seen by the table's own
/// marks: so only these count. A topic keeps its records anyway, and dashboards shall not see a lag that is none.
fn durable(lanes: &Lanes, safe: &Safe) -> Checkpoint {
    match lanes {
        Lanes::Slot(_) => safe.held.clone(),
        Lanes::All | Lanes::Topics(_) | Lanes::TopicPattern(_) => safe.read.clone(),
    }
}

/// The lowest position of each lane over all tables that take it. A lane that one of them has not reached at all is not in it.
fn floor(read: &Checkpoint, tables: &[(&Lanes, Checkpoint)]) -> Checkpoint {
    tables.iter().fold(read.clone(), |floor, (lanes, safe)| {
        let others = floor.only(|lane| !lanes.takes(lane));
        floor.meet(&safe.only(|lane| lanes.takes(lane))).join(&others)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::position::{Lane, Position};

    fn topics(names: &[&str]) -> Lanes {
        Lanes::Topics(names.iter().map(|&name| name.to_owned()).collect())
    }

    fn at(lanes: &[(&str, u64)]) -> Checkpoint {
        lanes.iter().map(|&(lane, at)| (Lane::new(lane), Position(at))).collect()
    }

    #[test]
    fn the_floor_is_the_lowest_of_the_tables_that_take_the_lane() {
        let read = at(&[("a/0", 9), ("b/0", 9)]);
        let (a, b, both) = (topics(&["a"]), topics(&["b"]), topics(&["a", "b"]));
        let cases = [
            (
                vec![(&a, at(&[("a/0", 5)])), (&both, at(&[("a/0", 7), ("b/0", 8)]))],
                at(&[("a/0", 5), ("b/0", 8)]),
            ),
            (vec![(&a, at(&[])), (&b, at(&[("b/0", 9)]))], at(&[("b/0", 9)])),
            (vec![(&both, at(&[("a/0", 9), ("b/0", 9)]))], read.clone()),
        ];
        for (tables, expected) in cases {
            assert_eq!(floor(&read, &tables), expected);
        }
    }
}

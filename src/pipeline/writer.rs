//! Writes one table: stages rows, publishes them at marks, and says how far the table is safe.

use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::sync::{Notify, mpsc, watch};
use tokio::time::{Instant, sleep_until};

use super::Context;
use crate::batch::{ChangeBatch, Flow};
use crate::budget::Permit;
use crate::cadence::Cadence;
use crate::error::{Error, Result};
use crate::log::FORGOTTEN;
use crate::position::Checkpoint;
use crate::sinks::{Sink, Upkeep};
use crate::sources::Confirm;
use crate::table::{Lanes, Table, Version};
use crate::telemetry;

/// How far a table is.
#[derive(Clone, Debug, Default)]
pub struct Safe {
    /// The last mark of this flow up to which nothing of the flow is missing in the table; where nothing was read for it, no version says
    /// so. What the table held before is no part of it: dead letters of a table that is behind are new, at positions that others passed.
    pub read: Checkpoint,
    /// The marks of the table's newest version. Of a table without its copy: all that came by, for the copy will hold it.
    pub held: Checkpoint,
    /// How many marks of this flow have come up to which nothing is missing: all tables get the same ones.
    pub marks: u64,
}

/// What connects a writer with the rest of its pipeline.
pub struct Lines {
    /// Rows and marks of this table, in source order.
    pub queue: mpsc::Receiver<Flow>,
    pub safe: watch::Sender<Safe>,
    /// Wakes the reader when `safe` has moved.
    pub moved: Arc<Notify>,
    pub letters: Letters,
    /// Asked before each commit; None where what a source hands over needs no other word.
    pub confirm: Option<Arc<dyn Confirm>>,
    /// Takes work that may follow a commit, off its path.
    pub upkeep: mpsc::Sender<Upkeep>,
}

/// What a table has to do with the dead letters. They are counted in marks of this flow (`Safe::marks`).
pub enum Letters {
    /// This table takes them, and others wait for it: up to which mark.
    Taken { wanted: watch::Receiver<u64> },
    /// They lie elsewhere, and this table is never published ahead of them.
    Awaited {
        safe: watch::Receiver<Safe>,
        wanted: watch::Sender<u64>,
    },
    /// Nobody takes them.
    Nowhere,
}

impl Letters {
    fn are_taken(&self) -> bool {
        matches!(self, Letters::Taken { .. })
    }

    /// The mark up to which others wait for this table.
    fn wanted(&self) -> u64 {
        match self {
            Letters::Taken { wanted } => *wanted.borrow(),
            Letters::Awaited { .. } | Letters::Nowhere => 0,
        }
    }

    /// Returns when others wait for more than before.
    async fn more_are_wanted(&mut self) {
        let is_so = match self {
            Letters::Taken { wanted } => wanted.changed().await.is_ok(),
            Letters::Awaited { .. } | Letters::Nowhere => false,
        };
        if !is_so {
            pending().await
        }
    }

    /// Waits until they are published up to this mark. False: their writer has ended short of it.
    async fn are_safe(&mut self, mark: u64) -> bool {
        let Letters::Awaited { safe, wanted } = self else { return true };
        wanted.send_if_modified(|others| {
            let more = mark > *others;
            *others = mark.max(*others);
            more
        });
        safe.wait_for(|safe| safe.marks >= mark).await.is_ok()
    }
}

/// How far the copy is of a table that does not hold its part of a database yet. Marks are of no meaning to it: what lies between the copy
/// and them is read when the flow opens again.
enum Copy {
    Awaited,
    /// Its rows are here, at this mark.
    Staged(Checkpoint),
    Published,
}

impl Copy {
    fn of(table: &Table, held: &Checkpoint) -> Option<Self> {
        let Lanes::Slot(lane) = &table.lanes else { return None };
        let holds = held.get(lane).is_some_and(|at| at != FORGOTTEN);
        (!holds).then_some(Self::Awaited)
    }
}

pub struct Writer<K> {
    sink: K,
    table: Arc<Table>,
    lines: Lines,
    context: Context,
    cadence: Cadence,
    /// The last mark of this flow.
    came: Checkpoint,
    /// How many marks of this flow have come.
    marks: u64,
    /// The last of them that told this table something. The letters are waited for up to here: what the table holds beyond it was
    /// published behind its own letters, and this flow may never come to it.
    awaited: u64,
    /// The same lanes, but never behind what the table held already: what the next commit publishes. Lanes that do not flow here are
    /// not in it: another instance may be writing them.
    mark: Checkpoint,
    /// None of a table that takes its part in the marks.
    copy: Option<Copy>,
    /// Whether rows came behind it: then there is no place to publish.
    beyond_mark: bool,
    /// Dead letters behind the mark, which are not staged as long as others before it are: those can be published at any time. The tables
    /// wait for them, and the source, which may have to wait for the tables, may not come to another mark before.
    ahead: Option<ChangeBatch>,
    /// When the newest staged record came to be at the source.
    newest_ms: Option<i64>,
}

impl<K: Sink> Writer<K> {
    pub fn new(sink: K, table: Arc<Table>, lines: Lines, context: Context) -> Self {
        let cadence = Cadence::new(table.limits);
        Self {
            copy: Copy::of(&table, sink.checkpoint()),
            sink,
            table,
            lines,
            context,
            cadence,
            came: Checkpoint::default(),
            marks: 0,
            awaited: 0,
            mark: Checkpoint::default(),
            beyond_mark: false,
            ahead: None,
            newest_ms: None,
        }
    }

    /// Runs until the queue ends, then publishes what is staged up to the last mark. Rows behind it are forgotten: they will be read
    /// again. Hands the sink back.
    pub async fn run(mut self) -> Result<K> {
        loop {
            let deadline = self.deadline();
            let flow = tokio::select! {
                biased;
                // Time first: a full queue must not keep rows from their readers.
                () = sleep_until(deadline.unwrap_or_else(Instant::now)), if deadline.is_some() => {
                    if !self.publish().await? {
                        break;
                    }
                    continue;
                }
                () = self.lines.letters.more_are_wanted() => continue,
                flow = self.lines.queue.recv() => flow,
            };
            match flow {
                Some(Flow::Rows(batch)) => {
                    // All tables of a database show one moment at one mark: whoever asks for one in between gets the first version that
                    // holds it.
                    let is_of_database = matches!(self.table.lanes, Lanes::Slot(_));
                    if is_of_database && self.has_skipped_marks() && !self.publish().await? {
                        break;
                    }
                    let held_up = self.lines.letters.are_taken() && !self.cadence.is_empty() && self.may_publish();
                    if held_up && self.ahead.is_none() {
                        self.ahead = Some(batch); // Mostly the next mark is next.
                        continue;
                    }
                    if held_up && !self.publish().await? {
                        break;
                    }
                    if let Err(error) = self.stage(batch).await {
                        // Columns are looked at before anything is staged, so what was staged before ends at a mark as it did.
                        if error.code == "schema_changed" && self.may_publish() && !self.cadence.is_empty() {
                            self.publish().await?;
                        }
                        return Err(error);
                    }
                }
                Some(Flow::Mark(mark)) => self.pass(mark).await?,
                Some(Flow::Copied { mark: at, .. }) => self.copy = Some(Copy::Staged(at)),
                Some(Flow::Gap(gap)) => self.sink.note(gap),
                Some(Flow::Begin { mark, .. }) => {
                    // At once: with the first rows it would be forgotten by whatever ends before them, and guessed anew.
                    self.mark = mark;
                    if !self.publish().await? {
                        break;
                    }
                }
                Some(Flow::Reopen(_)) | None => break,
            }
        }
        // What a slot is told is what tables hold, the other members of a group see there how far this one is, and what retention takes is
        // missed behind it: so those without rows say how far they are, too.
        if self.has_skipped_marks() || (!self.cadence.is_empty() && self.may_publish()) {
            self.publish().await?;
        }
        Ok(self.sink)
    }

    async fn stage_ahead(&mut self) -> Result<()> {
        match self.ahead.take() {
            Some(batch) => self.stage(batch).await,
            None => Ok(()),
        }
    }

    async fn stage(&mut self, batch: ChangeBatch) -> Result<()> {
        let rows = batch.rows.num_rows();
        if batch.ops.len() != rows {
            return Err(Error::bug(format!(
                "{}: {} operations for {rows} rows",
                self.table.id,
                batch.ops.len()
            )));
        }
        if rows == 0 {
            return Ok(());
        }
        let (bytes, newest_ms) = (batch.permit.as_ref().map_or(0, Permit::bytes), batch.newest_ms);
        self.sink.write(batch).await?;
        self.cadence.stage(rows, bytes, Instant::now());
        self.beyond_mark = true;
        self.newest_ms = self.newest_ms.max(newest_ms);
        Ok(())
    }

    async fn pass(&mut self, mark: Checkpoint) -> Result<()> {
        self.stage_ahead().await?;
        self.marks += 1;
        if mark != self.came || self.copy.is_some() {
            self.awaited = self.marks;
        }
        if let Some(copy) = &self.copy {
            // The source has come to the copy, and the letters, which are handed each mark first, have those of its rows.
            if let Copy::Staged(at) = copy
                && mark.covers(at)
            {
                (self.mark, self.came) = (at.clone(), mark);
                self.copy = Some(Copy::Published);
                self.publish().await?;
            } else {
                self.lines.safe.send_replace(Safe {
                    read: mark.clone(),
                    held: mark,
                    marks: self.marks,
                });
                self.lines.moved.notify_one();
            }
            return Ok(());
        }
        let held = self.sink.checkpoint().of_lanes(&mark);
        self.mark = mark.clone().join(&held);
        self.came = mark;
        self.beyond_mark = false;
        if self.cadence.is_empty() {
            if self.mark != held {
                self.cadence.pass(Instant::now());
            }
            self.say_safe();
        } else if self.cadence.is_due(Instant::now()) {
            self.publish().await?;
        }
        Ok(())
    }

    /// Whether marks passed without rows, of which no version tells. That there are no dead letters, none has to.
    fn has_skipped_marks(&self) -> bool {
        let is_between = self.cadence.is_empty() && self.may_publish();
        is_between && !matches!(self.table.lanes, Lanes::All) && !self.sink.checkpoint().covers(&self.mark)
    }

    /// Publishes what is staged, with the mark. False: the dead letters' writer has ended short of it, so nothing can be published any
    /// more.
    async fn publish(&mut self) -> Result<bool> {
        if !self.lines.letters.are_safe(self.awaited).await {
            return Ok(false);
        }
        if let Some(confirm) = &self.lines.confirm {
            confirm.confirm().await?;
        }
        let rows = self.cadence.staged_rows();
        let version = self.sink.commit(&self.mark).await?;
        if !self.sink.checkpoint().covers(&self.mark) {
            return Err(Error::bug(format!(
                "{}: version {version} does not hold the mark {}",
                self.table.id, self.mark
            )));
        }
        self.cadence.commit();
        self.say_safe();
        self.report(version, rows);
        if let Some(upkeep) = self.sink.upkeep() {
            // One piece of upkeep at a time: a later commit asks again.
            let _ = self.lines.upkeep.try_send(upkeep);
        }
        self.stage_ahead().await?;
        Ok(true)
    }

    /// When what is staged is to be published, whatever comes.
    fn deadline(&self) -> Option<Instant> {
        let is_awaited = !self.cadence.is_empty() && self.lines.letters.wanted() > self.lines.safe.borrow().marks;
        let at = if is_awaited {
            Some(Instant::now())
        } else {
            self.cadence.deadline()
        };
        at.filter(|_| self.may_publish())
    }

    /// Whether what is staged ends at a mark, and may be seen.
    fn may_publish(&self) -> bool {
        !self.beyond_mark && self.copy.is_none()
    }

    fn say_safe(&self) {
        let held = self.sink.checkpoint().of_lanes(&self.mark);
        self.lines.safe.send_replace(Safe {
            read: self.came.clone(),
            held,
            marks: self.marks,
        });
        self.lines.moved.notify_one();
    }

    fn report(&mut self, version: Version, rows: usize) {
        self.context.commits.fetch_add(1, Ordering::Relaxed);
        let newest_ms = self.newest_ms.take();
        self.context.board.update(&self.context.pipeline, |status| {
            let table = status.tables.entry(self.table.id.to_string()).or_default();
            table.holds(version, &self.mark);
            table.is_beginning = false;
            table.rows_committed += rows as u64;
            table.source_ms = newest_ms.or(table.source_ms);
            table.last_commit_ms = Some(telemetry::now_us() / 1000);
        });
    }
}

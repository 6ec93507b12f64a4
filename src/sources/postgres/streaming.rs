//! The stream of a slot: frames of the connection become rows and marks.
//!
//! A mark stands behind a whole transaction, and where all tables are to be published: so a version of one table and a version of another
//! show the same moment of the database. That is why marks keep to the limits of the pipeline, and tables publish at each of them.

use std::collections::VecDeque;

use metrics::counter;
use tokio::time::{Duration, Instant, sleep_until};

use super::again::{Held, copy_again};
use super::changes::{Changes, Doubt, Transaction};
use super::connection::{Frame, Stream};
use super::introduced::Introduced;
use super::pgoutput::{self, Message, Resolved};
use super::prepared::Prepared;
use super::spool::{Replay, Spool};
use super::{Settings, mark};
use crate::batch::Flow;
use crate::cadence::Cadence;
use crate::error::{Error, Result};
use crate::position::{Lane, Lsn, Position};
use crate::table::Limits;
use crate::telemetry;

/// Rows are handed on when they weigh so much, even in the middle of a transaction.
const BATCH_BYTES: usize = 4 << 20; // A good size for columns, and a small part of any budget.
/// Where some tables are ahead, the others are published where these are; after this time anyway, for what they have must not be lost.
const PATIENCE: Duration = Duration::from_secs(60);

/// See the head of the file.
pub struct Streaming {
    lane: Lane,
    stream: Stream,
    changes: Changes,
    /// Transactions in progress, and prepared ones.
    spool: Spool,
    prepared: Prepared,
    introduced: Introduced,
    /// What came together, and is not read yet; so many of these end a transaction.
    frames: VecDeque<Frame>,
    commits_left: usize,
    within: Within,
    replay: Option<Kept>,
    /// All transactions up to here were read.
    reached: u64,
    /// What the last mark said.
    marked: u64,
    /// Where to end.
    until: Option<u64>,
    /// Where tables were published that are ahead of others, the first one last: the others are published there, too.
    stops: Vec<u64>,
    /// What rows that were not handed on yet weigh, as they came.
    weight: usize,
    /// Messages and bytes since they were last counted.
    received: (u64, u64),
    /// When the next mark is due.
    cadence: Cadence,
    limits: Limits,
}

/// What is being read.
#[derive(Clone, Copy, PartialEq)]
enum Within {
    Nothing,
    /// The rows of a committed transaction.
    Transaction(Transaction),
    /// A block of a transaction in progress.
    Stream(u32),
    /// The rows of a transaction that is about to be prepared.
    Prepare(u32),
}

/// A committed transaction that was kept, and is read back.
struct Kept {
    replay: Replay,
    of: Transaction,
    /// Where its commit record ends.
    end_lsn: u64,
    prepared: bool,
}

impl Streaming {
    /// `stops`: where tables begin, and where they were published behind it; in any order. `began`: where the slot is.
    pub fn new(
        settings: &Settings,
        stream: Stream,
        changes: Changes,
        spool: Spool,
        mut stops: Vec<u64>,
        began: u64,
        until: Option<u64>,
    ) -> Self {
        stops.sort_unstable_by_key(|&at| std::cmp::Reverse(at));
        stops.dedup();
        // The first of them is marked, too: what was copied is published there.
        let from = stops.last().copied().unwrap_or(0);
        let limits = settings.limits;
        let patient = Limits {
            interval: limits.interval.max(PATIENCE),
            rows: usize::MAX,
            bytes: usize::MAX,
            ..limits
        };
        Self {
            lane: settings.lane.clone(),
            stream,
            changes,
            spool,
            prepared: Prepared::new(began),
            introduced: Introduced::default(),
            frames: VecDeque::new(),
            commits_left: 0,
            within: Within::Nothing,
            replay: None,
            reached: from,
            marked: 0,
            until,
            stops,
            weight: 0,
            received: (0, 0),
            cadence: Cadence::new(patient),
            limits,
        }
    }

    /// What the catalog has to be asked before what was read is handed on.
    pub fn doubts(&mut self) -> &mut Vec<Doubt> {
        self.changes.doubts()
    }

    /// Why what was read may not be handed on, and the flow has to be opened again.
    pub fn reopen(&self) -> Option<&str> {
        self.changes.reopen()
    }

    /// All transactions up to here were read.
    pub fn reached(&self) -> u64 {
        self.reached
    }

    /// All tables have everything up to here.
    pub fn acknowledge(&mut self, at: Position) {
        self.prepared.hold(at.0);
        self.tell();
    }

    /// Tells the slot what it may forget.
    fn tell(&self) {
        if let Some(safe) = self.prepared.safe() {
            self.stream.acknowledge(safe);
        }
    }

    /// Ends the session. The server has heard what was acknowledged, and the slot is free for the next one.
    pub async fn close(self) {
        self.stream.close().await;
    }

    /// Whether all is handed over up to the end that was asked for.
    pub fn is_at_its_end(&self) -> bool {
        self.until.is_some_and(|until| self.marked >= until) && self.frames.is_empty() && self.replay.is_none()
    }

    /// Reads what has come, until there are rows or a mark, or nothing more has come. Cancel safe: all that was read is kept here.
    pub async fn read(&mut self, ready: &mut VecDeque<Flow>) -> Result<()> {
        if self.frames.is_empty() && self.replay.is_none() && !self.is_at_its_end() {
            let deadline = self.cadence.deadline().filter(|_| !matches!(self.within, Within::Transaction(_)));
            let frames = tokio::select! {
                biased;
                // Time first: a stream that never pauses must not keep rows from their readers.
                () = sleep_until(deadline.unwrap_or_else(Instant::now)), if deadline.is_some() => return self.pass(ready),
                frames = self.stream.next() => frames?,
            };
            self.commits_left = frames.iter().filter(|frame| ends_transaction(frame)).count();
            self.frames.extend(frames.iter().cloned());
        }
        while ready.is_empty() {
            if self.replay.is_some() {
                self.read_back(ready)?;
            } else if let Some(frame) = self.frames.pop_front() {
                self.frame(&frame, ready)?;
            } else {
                return Ok(());
            }
        }
        Ok(())
    }

    fn frame(&mut self, frame: &Frame, ready: &mut VecDeque<Flow>) -> Result<()> {
        match frame {
            // Nothing is on its way before this: the server says how far it has read its WAL, whatever it leaves out of it (other tables and
            // databases, rows that a condition takes out). It is asked every second where nothing comes, so an idle slot needs no heartbeat.
            Frame::KeepAlive { end } => {
                if self.within == Within::Nothing {
                    self.stop_before(*end, ready)?;
                    self.has_read(*end);
                    if self.commits_left == 0 {
                        self.pass(ready)?;
                    }
                }
                Ok(())
            }
            Frame::Data { start, data, .. } => {
                self.received.0 += 1;
                self.received.1 += data.len() as u64;
                let read = pgoutput::message(data, matches!(self.within, Within::Stream(_)));
                let (message, _) = read.map_err(unreadable)?;
                self.message(&message, *start, data, ready)
            }
        }
    }

    fn message(&mut self, message: &Message<'_>, lsn: u64, bytes: &[u8], ready: &mut VecDeque<Flow>) -> Result<()> {
        match *message {
            Message::Begin { final_lsn, time, xid } => {
                self.stop_before(final_lsn, ready)?;
                self.within = Within::Transaction(Transaction {
                    commit_lsn: final_lsn,
                    xid,
                    time,
                });
                Ok(())
            }
            Message::Commit { end_lsn, .. } => {
                self.within = Within::Nothing;
                self.ended(end_lsn, ready)
            }
            Message::StreamStart { xid, .. } => {
                self.within = Within::Stream(xid);
                Ok(())
            }
            Message::StreamStop => {
                self.within = Within::Nothing;
                Ok(())
            }
            Message::StreamAbort { xid, subxid } => {
                self.spool.abort(xid, subxid);
                Ok(())
            }
            Message::StreamCommit {
                xid,
                commit_lsn,
                end_lsn,
                time,
            } => self.committed(Transaction { commit_lsn, xid, time }, end_lsn, false, ready),
            Message::BeginPrepare(of) => {
                self.introduced.begin();
                self.within = Within::Prepare(of.xid);
                Ok(())
            }
            Message::Prepare(of) | Message::StreamPrepare(of) => {
                self.within = Within::Nothing;
                self.prepared.prepare(of.xid, of.prepare_lsn);
                Ok(())
            }
            Message::CommitPrepared(of) => self.commit_prepared(&of, ready),
            Message::RollbackPrepared(of) => {
                self.spool.abort(of.xid, of.xid);
                self.prepared.roll_back(of.xid);
                self.ended(of.end_lsn, ready)
            }
            _ => match self.within {
                Within::Stream(xid) => self.spool.push(xid, true, lsn, bytes),
                Within::Prepare(xid) => {
                    for before in self.introduced.keep(message, bytes) {
                        self.spool.push(xid, false, lsn, &before)?;
                    }
                    self.spool.push(xid, false, lsn, bytes)
                }
                Within::Transaction(of) => {
                    self.weight += bytes.len();
                    for before in self.introduced.read(message, bytes) {
                        self.changes.take(&whole(&before)?, &of, lsn)?;
                    }
                    self.changes.take(message, &of, lsn)?;
                    self.drain_if_heavy(ready)
                }
                // Logical messages may stand outside of transactions.
                Within::Nothing if matches!(message, Message::Logical { .. } | Message::Origin) => Ok(()),
                Within::Nothing => Err(Error::bug(format!("{message:?} outside of a transaction"))),
            },
        }
    }

    /// A prepared transaction is committed. Where its PREPARE was not sent, which is before the session began, tables must have it.
    fn commit_prepared(&mut self, of: &Resolved<'_>, ready: &mut VecDeque<Flow>) -> Result<()> {
        let transaction = Transaction {
            commit_lsn: of.lsn,
            xid: of.xid,
            time: of.time,
        };
        if self.prepared.commit(of.xid, of.end_lsn) {
            return self.committed(transaction, of.end_lsn, true, ready);
        }
        self.spool.abort(of.xid, of.xid);
        let lacking: Vec<Held<'_>> = self.changes.lacking(of.lsn).collect();
        if lacking.is_empty() {
            return self.ended(of.end_lsn, ready);
        }
        let what = format!(
            "the prepared transaction `{}` was committed at {}, and its changes are gone: they came with its PREPARE, and the slot of {} begins \
             behind that, at {} (was it read or advanced by another program?)",
            of.gid,
            Lsn(of.lsn),
            self.lane,
            Lsn(self.prepared.began()),
        );
        Err(copy_again("prepare_missing", what, lacking))
    }

    /// A transaction that was kept is committed.
    fn committed(&mut self, of: Transaction, end_lsn: u64, prepared: bool, ready: &mut VecDeque<Flow>) -> Result<()> {
        self.stop_before(of.commit_lsn, ready)?;
        match self.spool.commit(of.xid)? {
            Some(replay) => {
                self.replay = Some(Kept {
                    replay,
                    of,
                    end_lsn,
                    prepared,
                });
                Ok(())
            }
            None => self.ended(end_lsn, ready),
        }
    }

    /// Reads one block of a transaction that was kept.
    fn read_back(&mut self, ready: &mut VecDeque<Flow>) -> Result<()> {
        let Some(kept) = &mut self.replay else {
            return Ok(());
        };
        let (of, end_lsn, prepared) = (kept.of, kept.end_lsn, kept.prepared);
        let (changes, weight, introduced) = (&mut self.changes, &mut self.weight, &mut self.introduced);
        let more = kept.replay.next_block(|lsn, message, bytes| {
            *weight += bytes.len();
            match prepared {
                true => introduced.read_back_prepared(message),
                false => introduced.read_back(message, bytes),
            }
            changes.take(message, &of, lsn)
        })?;
        self.drain_if_heavy(ready)?;
        if !more {
            self.replay = None;
            self.ended(end_lsn, ready)?;
        }
        Ok(())
    }

    /// All that is committed up to here was read.
    fn has_read(&mut self, upto: u64) {
        self.reached = self.reached.max(upto);
        self.prepared.read(upto);
        self.tell();
    }

    /// A transaction was read whole.
    fn ended(&mut self, end_lsn: u64, ready: &mut VecDeque<Flow>) -> Result<()> {
        self.has_read(end_lsn);
        self.commits_left = self.commits_left.saturating_sub(1);
        if self.commits_left == 0 || self.weight >= BATCH_BYTES || self.cadence.is_due(Instant::now()) {
            self.pass(ready)?;
        }
        Ok(())
    }

    /// Marks what tables hold that are ahead of others, before a transaction that is in none of them: so there is a version of each table
    /// at the same moment.
    fn stop_before(&mut self, commit_lsn: u64, ready: &mut VecDeque<Flow>) -> Result<()> {
        while let Some(stop) = self.stops.pop_if(|stop| *stop <= commit_lsn) {
            self.reached = self.reached.max(stop);
            self.drain(ready)?;
            self.mark(ready);
            if self.stops.is_empty() {
                self.cadence = Cadence::new(self.limits);
            }
        }
        Ok(())
    }

    /// The others are published where a table was copied, too; and the stream does not end before. False: it is past that already.
    pub fn stop_at(&mut self, point: u64) -> bool {
        if point >= self.reached && point > self.marked && !self.stops.contains(&point) {
            self.stops.push(point);
            self.stops.sort_unstable_by_key(|&at| std::cmp::Reverse(at));
        }
        self.until = self.until.map(|until| until.max(point));
        point >= self.reached || point == self.marked
    }

    /// What the last mark said.
    pub fn marked(&self) -> u64 {
        self.marked
    }

    /// Hands over rows, and where it is due the mark that contains them. No transaction is read halfway.
    fn pass(&mut self, ready: &mut VecDeque<Flow>) -> Result<()> {
        self.drain(ready)?;
        let at_the_end = self.until.is_some_and(|until| self.reached >= until);
        let nothing_waits = self.cadence.is_empty() && self.stops.is_empty();
        let due = nothing_waits || self.cadence.is_due(Instant::now()) || at_the_end;
        if due {
            self.mark(ready);
        }
        Ok(())
    }

    fn mark(&mut self, ready: &mut VecDeque<Flow>) {
        if self.reached > self.marked {
            self.marked = self.reached;
            ready.push_back(mark(&self.lane, self.marked));
            self.cadence.commit();
        }
    }

    /// Says the last mark again, for something else that came since, unless rows came: then there will be another mark.
    pub fn mark_again(&mut self, ready: &mut VecDeque<Flow>) {
        if self.cadence.is_empty() && self.marked > 0 {
            ready.push_back(mark(&self.lane, self.marked));
        }
    }

    fn drain_if_heavy(&mut self, ready: &mut VecDeque<Flow>) -> Result<()> {
        if self.weight >= BATCH_BYTES { self.drain(ready) } else { Ok(()) }
    }

    fn drain(&mut self, ready: &mut VecDeque<Flow>) -> Result<()> {
        let before = ready.len();
        self.changes.drain(ready)?;
        let rows = ready.range(before..).map(|flow| match flow {
            Flow::Rows(batch) => batch.ops.len(),
            _ => 0,
        });
        let rows = rows.sum();
        if rows > 0 {
            self.cadence.stage(rows, self.weight, Instant::now());
        }
        self.weight = 0;
        Ok(())
    }

    /// Adds what was read since the last call to the metrics.
    pub fn count(&mut self, settings: &Settings) {
        let pipeline = || settings.pipeline.to_string();
        let (records, bytes) = std::mem::take(&mut self.received);
        if records == 0 {
            return;
        }
        counter!(telemetry::RECORDS_RECEIVED, "pipeline" => pipeline(), "source" => settings.slot.clone()).increment(records);
        counter!(telemetry::RECEIVED_BYTES, "pipeline" => pipeline(), "source" => settings.slot.clone()).increment(bytes);
        for (table, counts) in self.changes.counts() {
            let outcomes = [
                ("written", counts.written),
                ("deduplicated", counts.deduplicated),
                ("dead_letter", counts.dead_letter),
            ];
            for (outcome, count) in outcomes.into_iter().filter(|(_, count)| *count > 0) {
                counter!(telemetry::RECORDS, "pipeline" => pipeline(), "table" => table.to_string(), "outcome" => outcome).increment(count);
            }
            if counts.printed_by_server > 0 {
                let labels = [("pipeline", pipeline()), ("table", table.to_string())];
                counter!(telemetry::UNKNOWN_TYPES, &labels).increment(counts.printed_by_server);
            }
        }
    }
}

fn ends_transaction(frame: &Frame) -> bool {
    matches!(frame, Frame::Data { data, .. } if matches!(data.first(), Some(b'C' | b'c' | b'K' | b'r')))
}

/// A message that came outside of streams.
fn whole(bytes: &[u8]) -> Result<Message<'_>> {
    pgoutput::message(bytes, false).map(|(message, _)| message).map_err(unreadable)
}

fn unreadable(error: pgoutput::Malformed) -> Error {
    Error::bug("the stream cannot be read: please report this").because(error)
}

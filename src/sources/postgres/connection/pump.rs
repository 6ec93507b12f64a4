//! The task that reads a replication stream.
//!
//! It reads whether or not anyone takes what it read, up to the budget, and speaks to the server every second in any case: so neither a long
//! commit of ours nor a pause ends the session. A server that says nothing for too long, although it is asked, counts as gone.

use std::io;
use std::mem::size_of;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, Interval, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use super::refusals::{self, Refusal};
use super::stream::{Frame, Frames};
use super::wire::{Message, Wire};
use super::{Address, GOODBYE_MAX};
use crate::budget::Budget;
use crate::error::{Error, Result};
use crate::telemetry;

/// Well under the shortest wal_sender_timeout that anyone sets.
const STATUS_EVERY: Duration = Duration::from_secs(1);
/// 2000-01-01, from which PostgreSQL counts microseconds, in those of Unix.
const EPOCH_US: i64 = 946_684_800_000_000;

pub(super) struct Pump {
    line: Line,
    /// When the stream has to end, whoever reads it.
    over: CancellationToken,
    batches: mpsc::Sender<Result<Frames>>,
    budget: Budget,
}

/// The conversation with the server, apart from the channel, so that one goes on while the other waits.
struct Line {
    wire: Wire,
    address: Arc<Address>,
    doing: String,
    acknowledged: watch::Receiver<u64>,
    /// The highest LSN that came.
    received: u64,
    /// When the server last said anything.
    heard: Instant,
    /// No data since the last status: then the server is asked for a word, which also says how far it has read.
    idle: bool,
    clock: Interval,
}

impl Pump {
    pub fn new(
        wire: Wire,
        address: Arc<Address>,
        doing: String,
        over: CancellationToken,
        acknowledged: watch::Receiver<u64>,
        batches: mpsc::Sender<Result<Frames>>,
        budget: Budget,
    ) -> Self {
        let mut clock = tokio::time::interval(STATUS_EVERY);
        clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let line = Line {
            wire,
            address,
            doing,
            acknowledged,
            received: 0,
            heard: Instant::now(),
            idle: false,
            clock,
        };
        Self {
            line,
            over,
            batches,
            budget,
        }
    }

    pub async fn run(mut self) {
        let mut told = self.line.acknowledged.clone();
        let dropped = async move { while told.changed().await.is_ok() {} };
        let over = self.over.clone();
        let error = tokio::select! {
            biased;
            // First, for the last never ends while data comes. All are cancel safe.
            () = dropped => return self.line.take_leave().await,
            () = over.cancelled() => {
                // Before anyone is told: the server may be waiting for it, and a reader that has stalled hears of it late.
                self.line.take_leave().await;
                self.line.left_alone()
            }
            error = self.read() => error,
        };
        // The server is let go at once, and a reader that has stalled hears of it late. If nobody listens any more, nobody misses it.
        drop(self.line);
        drop(self.batches.send(Err(error)).await);
    }

    /// Reads until it fails.
    async fn read(&mut self) -> Error {
        loop {
            // First what is there: the first words may have come with the one that began the stream.
            if let Err(error) = self.pass_on().await {
                return error;
            }
            if let Err(error) = self.line.more().await {
                return error;
            }
        }
    }

    /// Hands over what has been read.
    async fn pass_on(&mut self) -> Result<()> {
        let (frames, asked) = self.line.frames()?;
        if asked {
            self.line.status(Ask::Nothing).await?;
        }
        if !frames.is_empty() {
            self.hand_over(frames).await?;
        }
        Ok(())
    }

    /// Waits for room in the buffer, and keeps the session alive meanwhile.
    async fn hand_over(&mut self, frames: Vec<Frame>) -> Result<()> {
        let Pump { line, batches, budget, .. } = self;
        let bytes = frames.iter().map(weight).sum();
        let mut room = std::pin::pin!(async { (budget.acquire(bytes).await, batches.reserve().await) });
        let (permit, place) = loop {
            tokio::select! {
                biased;
                room = &mut room => break room,
                // Nothing is read now, so nothing is asked for.
                _ = line.clock.tick() => line.status(Ask::Nothing).await?,
            }
        };
        if let Ok(place) = place {
            place.send(Ok(Frames { frames, _permit: permit }));
        }
        line.heard = Instant::now();
        Ok(())
    }
}

fn weight(frame: &Frame) -> usize {
    let data = match frame {
        Frame::Data { data, .. } => data.len(),
        Frame::KeepAlive { .. } => 0,
    };
    size_of::<Frame>() + data
}

/// Whether a status asks the server for a word in return.
#[derive(Clone, Copy, PartialEq)]
enum Ask {
    Nothing,
    Reply,
}

impl Line {
    /// Reads something, or lets a second pass.
    async fn more(&mut self) -> Result<()> {
        let read = tokio::select! {
            biased;
            // First, for under load there is always something to read. It comes once a second.
            _ = self.clock.tick() => return self.tick().await,
            read = async {
                self.wire.gather().await;
                self.wire.read().await
            } => read,
        };
        self.result(read)?;
        self.heard = Instant::now();
        Ok(())
    }

    /// All frames that have been read whole, and whether the server asks for a status.
    fn frames(&mut self) -> Result<(Vec<Frame>, bool)> {
        let mut frames = Vec::new();
        let mut asked = false;
        loop {
            let buffered = self.wire.buffered();
            let Some(message) = self.result(buffered)? else { break };
            let Some((frame, asks)) = self.frame(message)? else { continue };
            asked |= asks;
            match &frame {
                Frame::Data { end, .. } => {
                    self.idle = false;
                    self.received = self.received.max(*end);
                }
                Frame::KeepAlive { end } => self.received = self.received.max(*end),
            }
            frames.push(frame);
        }
        Ok((frames, asked))
    }

    /// <https://www.postgresql.org/docs/current/protocol-replication.html>
    fn frame(&self, message: Message) -> Result<Option<(Frame, bool)>> {
        let Message { tag, body } = message;
        match tag {
            b'd' => match copy_data(body) {
                Some(frame) => Ok(Some(frame)),
                None => Err(Error::bug(format!(
                    "Cannot {} on {}: a message of the stream cannot be read",
                    self.doing, self.address
                ))),
            },
            b'E' => Err(refusals::refused(&self.address, &self.doing, &Refusal::parse(&body))),
            // So does a server that stops.
            b'c' => {
                let what = format!("Cannot {} on {}: the server ended the stream", self.doing, self.address);
                Err(Error::transient("postgres_unreachable", what))
            }
            b'N' => match Refusal::parse(&body) {
                warning if warning.leaves_changes_out() => Err(refusals::refused(&self.address, &self.doing, &warning)),
                _ => Ok(None),
            },
            _ => Ok(None),
        }
    }

    /// Once a second: is the server still there? Does it know that we are?
    async fn tick(&mut self) -> Result<()> {
        let silent = self.heard.elapsed();
        if silent > self.address.silence_max {
            let what = format!(
                "Cannot {} on {}: the server has said nothing for {} s",
                self.doing,
                self.address,
                silent.as_secs()
            );
            return Err(Error::transient("postgres_unreachable", what));
        }
        let ask = if self.idle { Ask::Reply } else { Ask::Nothing };
        self.idle = true;
        self.status(ask).await
    }

    /// A standby status update: what was received, and what of it is safe. 0 as long as nothing is: then the slot stays where it is.
    async fn status(&mut self, ask: Ask) -> Result<()> {
        let safe = *self.acknowledged.borrow();
        let mut out = BytesMut::with_capacity(39);
        out.put_u8(b'd');
        out.put_u32(38);
        out.put_u8(b'r');
        out.put_u64(self.received.max(safe));
        out.put_u64(safe);
        out.put_u64(safe);
        out.put_i64(telemetry::now_us() - EPOCH_US);
        out.put_u8(u8::from(ask == Ask::Reply));
        // A peer that takes nothing for so long is gone as well.
        let sent = tokio::time::timeout(self.address.silence_max, self.wire.send(&out)).await;
        self.result(sent.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())))
    }

    /// The last status, and that it is the last: a walsender ends on it at once, in the middle of a transaction as well. When it has
    /// closed its side, it has let go of the slot.
    async fn take_leave(&mut self) {
        let leave = async {
            if self.status(Ask::Nothing).await.is_ok() {
                self.wire.take_leave().await;
            }
        };
        // A server that does not hear it is cut off.
        let _ = tokio::time::timeout(GOODBYE_MAX, leave).await;
    }

    fn left_alone(&self) -> Error {
        let what = format!(
            "Cannot {} on {}: the server has ended the session beside it (it shuts down, or somebody has ended it)",
            self.doing, self.address
        );
        Error::transient("postgres_unreachable", what)
    }

    fn result<T>(&self, result: io::Result<T>) -> Result<T> {
        result.map_err(|error| refusals::broken(&self.address, &self.doing, error))
    }
}

/// XLogData: start, end, the server's clock, and the plugin's message. Keep-alive: end, clock, and whether it wants an answer. None: neither.
fn copy_data(mut body: Bytes) -> Option<(Frame, bool)> {
    match body.try_get_u8().ok()? {
        b'w' => {
            let (start, end) = (body.try_get_u64().ok()?, body.try_get_u64().ok()?);
            body.try_get_u64().ok()?;
            Some((Frame::Data { start, end, data: body }, false))
        }
        b'k' => {
            let end = body.try_get_u64().ok()?;
            body.try_get_u64().ok()?;
            Some((Frame::KeepAlive { end }, body.try_get_u8().ok()? != 0))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_read_and_cut_ones_are_refused() {
        let mut keep = vec![b'k'];
        keep.extend([0, 0, 0, 1, 0, 0, 0, 2]);
        keep.extend([0; 8]);
        keep.push(1);
        let read = copy_data(Bytes::copy_from_slice(&keep));
        assert_eq!(read, Some((Frame::KeepAlive { end: 0x1_0000_0002 }, true)));
        for length in 0..keep.len() {
            assert_eq!(copy_data(Bytes::copy_from_slice(&keep[..length])), None, "cut at {length}");
        }
        keep[0] = b'w';
        keep.truncate(17);
        assert_eq!(copy_data(Bytes::copy_from_slice(&keep)), None);
    }
}

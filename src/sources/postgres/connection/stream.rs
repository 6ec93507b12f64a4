//! What a replication slot sends, as its reader sees it: batches of frames, and a place to say how far they are safe.

use std::ops::Deref;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::pump::Pump;
use super::wire::Wire;
use super::{Address, GOODBYE_MAX};
use crate::budget::{Budget, Permit};
use crate::error::{Error, Result};

/// Batches that wait; their bytes are what is bounded, this only keeps tiny ones from piling up.
const BATCHES_MAX: usize = 1024;

/// One word of the server's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// What the output plugin wrote, one message. `end`: of a commit, where its transaction ends, which is the position to acknowledge.
    /// Messages about the schema have 0 for both.
    Data { start: u64, end: u64, data: Bytes },
    /// The server has read its log up to here. All that lies before it has been sent: when nothing is pending, this too may be acknowledged.
    KeepAlive { end: u64 },
}

impl Frame {
    fn end(&self) -> u64 {
        match self {
            Frame::Data { end, .. } | Frame::KeepAlive { end } => *end,
        }
    }
}

/// Frames in the order in which they came. Their room in the buffer is free again when they are dropped: a reader that keeps them all while
/// it waits for more waits for ever.
#[derive(Debug)]
pub struct Frames {
    pub(super) frames: Vec<Frame>,
    pub(super) _permit: Permit,
}

impl Deref for Frames {
    type Target = [Frame];
    fn deref(&self) -> &[Frame] {
        &self.frames
    }
}

/// A running stream. The session stays alive however long its reader takes. Dropped, it tells the server so; [`Stream::close`] also waits
/// until the slot is free.
pub struct Stream {
    batches: mpsc::Receiver<Result<Frames>>,
    /// Dropping it ends the pump.
    acknowledged: watch::Sender<u64>,
    received: u64,
    pump: JoinHandle<()>,
    doing: String,
}

/// Begins to read a session that has just started to stream.
pub(super) fn begin(
    wire: Wire,
    address: Arc<Address>,
    doing: String,
    over: CancellationToken,
    from_lsn: u64,
    buffer_bytes: usize,
) -> Stream {
    let (sender, batches) = mpsc::channel(BATCHES_MAX);
    let (acknowledged, told) = watch::channel(0);
    let pump = Pump::new(wire, address, doing.clone(), over, told, sender, Budget::new(buffer_bytes));
    Stream {
        batches,
        acknowledged,
        received: from_lsn,
        pump: tokio::spawn(pump.run()),
        doing,
    }
}

impl Stream {
    /// The next frames, at least one. A stream has no end but an error. Cancel safe.
    pub async fn next(&mut self) -> Result<Frames> {
        match self.batches.recv().await {
            Some(batch) => self.took(batch),
            None => Err(self.ended()),
        }
    }

    /// The next frames, if they are there already.
    pub fn try_next(&mut self) -> Result<Option<Frames>> {
        match self.batches.try_recv() {
            Ok(batch) => self.took(batch).map(Some),
            Err(mpsc::error::TryRecvError::Empty) => Ok(None),
            Err(mpsc::error::TryRecvError::Disconnected) => Err(self.ended()),
        }
    }

    /// All up to this LSN is safe: the server may forget it. It hears so within a second or two. What was not received cannot be
    /// acknowledged (the server would believe it, and the slot would jump), and what was acknowledged stays so.
    pub fn acknowledge(&self, lsn: u64) {
        let lsn = lsn.min(self.received);
        self.acknowledged.send_if_modified(|told| {
            let further = lsn > *told;
            *told = lsn.max(*told);
            further
        });
    }

    /// Takes leave of the server and waits until it has heard: the last acknowledgement is in, and the slot is free or about to be.
    pub async fn close(self) {
        let Self {
            acknowledged, mut pump, ..
        } = self;
        drop(acknowledged);
        if tokio::time::timeout(2 * GOODBYE_MAX, &mut pump).await.is_err() {
            pump.abort();
        }
    }

    fn took(&mut self, batch: Result<Frames>) -> Result<Frames> {
        let frames = batch?;
        let end = frames.iter().map(Frame::end).max().unwrap_or_default();
        self.received = self.received.max(end);
        Ok(frames)
    }

    /// Whoever asks again after an error hears that it is over.
    fn ended(&self) -> Error {
        Error::transient("postgres_unreachable", format!("Cannot {}: the stream has ended", self.doing))
    }
}

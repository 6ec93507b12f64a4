//! What every pipeline is doing now: written by the pipelines, read by `/status`, `/readyz` and the progress line.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::Serialize;
use tokio::time::Instant;

use crate::position::{Checkpoint, Lsn};
use crate::table::Version;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    #[default]
    Starting,
    Running,
    /// Running without tables that no longer fit what their source sends.
    Degraded,
    /// Waiting before it opens again from the log.
    Retrying,
    /// Stopped by an error that needs a person.
    Failed,
    Stopped,
}

impl State {
    pub const ALL: [State; 6] = [
        State::Starting,
        State::Running,
        State::Degraded,
        State::Retrying,
        State::Failed,
        State::Stopped,
    ];

    /// The label of `pipeline_state{state}`.
    pub fn name(self) -> &'static str {
        match self {
            State::Starting => "starting",
            State::Running => "running",
            State::Degraded => "degraded",
            State::Retrying => "retrying",
            State::Failed => "failed",
            State::Stopped => "stopped",
        }
    }
}

#[derive(Clone, Debug, Default, Serialize)]
pub struct PipelineStatus {
    pub state: State,
    /// Why it does not work now, and what to do. What stopped single tables stands with these.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    pub tables: BTreeMap<String, TableStatus>,
    pub lanes: BTreeMap<String, LaneStatus>,
    /// Lanes that wait for brokers that do not answer, each with its broker, while others are read.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub waiting: Vec<String>,
    /// All tables that are copied, together; until the last of them is there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub copy: Option<CopyStatus>,
}

impl PipelineStatus {
    /// Sums up what the tables say of their copies.
    pub fn sum_copies(&mut self, now: Instant) {
        let copies = self.tables.values().filter_map(|table| table.copy.as_ref());
        let (rows, bytes, total_bytes) = copies.fold((0, 0, 0), |(rows, bytes, total), copy| {
            (rows + copy.rows, bytes + copy.bytes, total + copy.total_bytes)
        });
        let began = self.copy.as_ref().and_then(|copy| copy.began);
        let mut sum = CopyStatus {
            began,
            ..CopyStatus::of(total_bytes)
        };
        sum.add(rows, bytes, now);
        self.copy = Some(sum);
    }
}

#[derive(Clone, Debug, Default, Serialize)]
pub struct TableStatus {
    pub version: Option<u64>,
    pub rows_committed: u64,
    /// Last position contained, by lane name.
    pub positions: BTreeMap<String, u64>,
    /// The same as `--position` takes it: `orders/0:41 orders/1:17`, or `slot:0/16B3748`.
    pub mark: String,
    pub last_commit_ms: Option<i64>,
    /// When the newest published record came to be at the source, where the source tells it.
    pub source_ms: Option<i64>,
    /// Where it begins is not on record yet: what comes before it is might be passed over.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub is_beginning: bool,
    /// Why the table stopped while the others go on, and what to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stopped: Option<String>,
    /// It stopped because its source is gone, which may be meant: nobody has to do anything.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub is_gone: bool,
    /// The copy of what was there before the table was followed, until those of all tables are there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub copy: Option<CopyStatus>,
}

impl TableStatus {
    /// Whether it has stopped, and somebody has to do something.
    pub fn needs_somebody(&self) -> bool {
        self.stopped.is_some() && !self.is_gone
    }

    /// What the table holds at its newest version.
    pub fn holds(&mut self, version: Version, mark: &Checkpoint) {
        let shown = mark.iter().filter(|(lane, _)| lane.has_positions());
        self.version = Some(version);
        self.positions = shown.map(|(lane, at)| (lane.name().to_owned(), at.0)).collect();
        self.mark = mark.to_string();
    }
}

/// How far a copy is.
#[derive(Clone, Debug, Default, Serialize)]
pub struct CopyStatus {
    pub rows: u64,
    /// Of `total_bytes`, which it weighs at the source.
    pub bytes: u64,
    pub total_bytes: u64,
    /// What the rest takes, if it goes on as it went since it began.
    pub left_seconds: Option<u64>,
    #[serde(skip)]
    began: Option<Instant>,
}

impl CopyStatus {
    /// One that has not begun.
    pub fn of(total_bytes: u64) -> Self {
        Self {
            total_bytes,
            ..Self::default()
        }
    }

    /// More was copied; or nothing yet, and it begins.
    pub fn add(&mut self, rows: u64, bytes: u64, now: Instant) {
        let began = *self.began.get_or_insert(now);
        self.rows += rows;
        self.bytes += bytes;
        let (done, left) = (self.bytes as f64, self.total_bytes.saturating_sub(self.bytes) as f64);
        self.left_seconds = (done > 0.0).then(|| ((now - began).as_secs_f64() * left / done).ceil() as u64);
    }

    /// Whether it has begun, and is not whole.
    pub fn is_under_way(&self) -> bool {
        self.began.is_some() && self.bytes < self.total_bytes
    }
}

#[derive(Clone, Debug, Default, Serialize)]
pub struct LaneStatus {
    /// First position of the lane's end: what a record written now would get; of a slot, where the server's WAL ends.
    pub end: Option<u64>,
    /// Last position read.
    pub read: Option<u64>,
    /// Records not yet read, by offsets: an upper bound where a topic is compacted. Of a slot nobody can tell: see its bytes.
    pub lag: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slot: Option<SlotStatus>,
}

/// What only a replication slot has: positions as Postgres writes them, and bytes of its WAL.
#[derive(Clone, Debug, Serialize)]
pub struct SlotStatus {
    pub phase: Phase,
    /// Where the server's WAL ends.
    pub end: Lsn,
    /// All transactions up to here were read.
    pub read: Option<Lsn>,
    /// The server was told that all tables have everything up to here.
    pub committed: Lsn,
    /// From what was read to the end; while nothing was read, from what is committed.
    pub lag_bytes: u64,
    pub committed_lag_bytes: u64,
    /// Kept for the slot.
    pub retained_bytes: u64,
    /// May still be written before the server gives the slot up; None where it has no such limit.
    pub safe_bytes: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Tables are copied; those that are there already are followed meanwhile.
    Copying,
    Streaming,
}

/// Shared by everything in the process. Held only for moments: never across an await.
#[derive(Clone, Debug, Default)]
pub struct Board(Arc<Mutex<BTreeMap<String, PipelineStatus>>>);

impl Board {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, PipelineStatus>> {
        // A panic elsewhere does not make a status unreadable.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the status of one pipeline, which is made when it is not there.
    pub fn update(&self, pipeline: &str, change: impl FnOnce(&mut PipelineStatus)) {
        change(self.lock().entry(pipeline.to_owned()).or_default());
    }

    pub fn read(&self) -> BTreeMap<String, PipelineStatus> {
        self.lock().clone()
    }
}

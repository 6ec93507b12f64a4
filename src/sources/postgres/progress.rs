//! How far the slot is read and tables are copied, for the metrics and the status.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use metrics::{counter, gauge};
use tokio::task::JoinSet;
use tokio::time::{Duration, Instant, MissedTickBehavior, interval};
use tracing::debug;

use super::connection::Control;
use super::slot::{self, Lag};
use crate::position::Lsn;
use crate::status::{Board, CopyStatus, LaneStatus, Phase, SlotStatus};
use crate::table::TableId;
use crate::telemetry;

/// How often the server is asked: dashboards look no more often, and the question takes it a moment.
const EVERY: Duration = Duration::from_secs(1);

/// The slot of one flow, and the copies that it makes.
#[derive(Debug)]
pub struct Progress {
    pipeline: Arc<str>,
    slot: String,
    board: Board,
    /// All transactions up to here were read; 0 while nothing was.
    reached: AtomicU64,
    /// From where on the server keeps WAL for the slot: what it told last, and what is certain to be on its disk; 0 while that is not known.
    restart_told: AtomicU64,
    restart: AtomicU64,
}

impl Progress {
    pub fn new(pipeline: &Arc<str>, slot: &str, board: &Board) -> Self {
        board.update(pipeline, |status| status.lanes.clear());
        Self {
            pipeline: Arc::clone(pipeline),
            slot: slot.to_owned(),
            board: board.clone(),
            reached: AtomicU64::new(0),
            restart_told: AtomicU64::new(0),
            restart: AtomicU64::new(0),
        }
    }

    /// All transactions up to here were read.
    pub fn read(&self, at: u64) {
        self.reached.store(at, Ordering::Relaxed);
    }

    /// How far the slot is that the server will never be behind again, unless it is set back.
    pub fn restart(&self) -> Option<u64> {
        Some(self.restart.load(Ordering::Relaxed)).filter(|&at| at > 0)
    }

    /// Shows what the server tells of the slot.
    pub fn publish(&self, lag: &Lag) {
        // What it told a second ago, it has written by now.
        let written = self.restart_told.swap(lag.restart.unwrap_or(0), Ordering::Relaxed);
        self.restart.fetch_max(written, Ordering::Relaxed);
        let read = Some(self.reached.load(Ordering::Relaxed)).filter(|&at| at > 0);
        let end = lag.end.max(read.unwrap_or(0));
        let labels = || [("pipeline", self.pipeline.to_string()), ("source", self.slot.clone())];
        let bytes = |stage: &'static str, at: u64| {
            let [pipeline, source] = labels();
            gauge!(telemetry::PG_LAG_BYTES, &[pipeline, source, ("stage", stage.to_owned())]).set((end - at) as f64);
        };
        let confirmed = lag.confirmed.min(end);
        if let Some(read) = read {
            bytes("received", read);
        }
        bytes("committed", confirmed);
        gauge!(telemetry::PG_SLOT_RETAINED_WAL_BYTES, &labels()).set(lag.retained() as f64);
        if let Some(safe) = lag.safe {
            gauge!(telemetry::PG_SLOT_SAFE_WAL_BYTES, &labels()).set(safe as f64);
        }
        self.board.update(&self.pipeline, |status| {
            let slot = SlotStatus {
                phase: if status.copy.is_some() { Phase::Copying } else { Phase::Streaming },
                end: Lsn(end),
                read: read.map(Lsn),
                committed: Lsn(confirmed),
                lag_bytes: end - read.unwrap_or(confirmed),
                committed_lag_bytes: end - confirmed,
                retained_bytes: lag.retained(),
                safe_bytes: lag.safe,
            };
            let lane = LaneStatus {
                end: Some(end),
                read,
                lag: None,
                slot: Some(slot),
            };
            status.lanes.insert(self.slot.clone(), lane);
        });
    }

    /// No table is to be copied any more. Until then, those that were copied stay in the sum.
    pub fn all_copied(&self) {
        self.board.update(&self.pipeline, |status| {
            status.copy = None;
            for (name, table) in &mut status.tables {
                if table.copy.take().is_some() {
                    gauge!(telemetry::SNAPSHOT_LEFT_SECONDS, &self.labels(name)).set(0.0);
                }
            }
        });
    }

    /// A table of so many bytes is to be copied, and nothing of it is yet.
    pub fn will_copy(&self, table: &TableId, bytes: u64) {
        let labels = self.labels(table.as_str());
        gauge!(telemetry::SNAPSHOT_SIZE_BYTES, &labels).set(bytes as f64);
        gauge!(telemetry::SNAPSHOT_DONE_BYTES, &labels).set(0.0);
        gauge!(telemetry::SNAPSHOT_LEFT_SECONDS, &labels).set(f64::NAN);
        self.board.update(&self.pipeline, |status| {
            status.tables.entry(table.to_string()).or_default().copy = Some(CopyStatus::of(bytes));
            status.sum_copies(Instant::now());
        });
    }

    /// Nobody knows when a table will be copied whose copy was given up.
    pub fn give_up(&self, table: &TableId) {
        gauge!(telemetry::SNAPSHOT_LEFT_SECONDS, &self.labels(table.as_str())).set(f64::NAN);
    }

    /// A part of a table is being copied, of so many bytes.
    pub fn part(self: &Arc<Self>, table: &TableId, bytes: u64) -> PartProgress {
        let part = PartProgress {
            progress: Arc::clone(self),
            table: table.clone(),
            bytes,
            received: 0,
            told: 0,
        };
        self.copied(table, 0, 0);
        part
    }

    fn copied(&self, table: &TableId, rows: u64, bytes: u64) {
        let labels = self.labels(table.as_str());
        counter!(telemetry::SNAPSHOT_ROWS, &labels).increment(rows);
        self.board.update(&self.pipeline, |status| {
            let now = Instant::now();
            if let Some(copy) = status.tables.get_mut(table.as_str()).and_then(|table| table.copy.as_mut()) {
                copy.add(rows, bytes, now);
                gauge!(telemetry::SNAPSHOT_DONE_BYTES, &labels).set(copy.bytes as f64);
                let left = copy.left_seconds.map_or(f64::NAN, |seconds| seconds as f64);
                gauge!(telemetry::SNAPSHOT_LEFT_SECONDS, &labels).set(left);
            }
            status.sum_copies(now);
        });
    }

    fn labels(&self, table: &str) -> [(&'static str, String); 2] {
        [("pipeline", self.pipeline.to_string()), ("table", table.to_owned())]
    }
}

/// A part of a table that is being copied. What comes of it is told as a share of what it weighs at the source: rows weigh otherwise on
/// their way.
#[derive(Debug)]
pub struct PartProgress {
    progress: Arc<Progress>,
    table: TableId,
    bytes: u64,
    received: u64,
    told: u64,
}

impl PartProgress {
    /// So many bytes have come.
    pub fn receive(&mut self, bytes: usize) {
        self.received += bytes as u64;
    }

    /// So many rows are handed over.
    pub fn hand_over(&mut self, rows: u64) {
        let bytes = self.received.min(self.bytes) - self.told;
        self.told += bytes;
        self.progress.copied(&self.table, rows, bytes);
    }

    /// It is copied whole.
    pub fn finish(&mut self) {
        self.received = self.bytes;
        self.hand_over(0);
    }
}

/// Shows how far the slot is behind, whatever the flow waits for, until it is dropped.
pub fn watch(control: Arc<Control>, progress: Arc<Progress>) -> JoinSet<()> {
    let mut task = JoinSet::new();
    task.spawn(async move {
        let mut ticks = interval(EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            match slot::lag(&control, &progress.slot).await {
                Ok(lag) => lag.iter().for_each(|lag| progress.publish(lag)),
                // Where the session has ended, so does the flow.
                Err(error) => {
                    debug!(pipeline = %progress.pipeline, %error, "the slot is no longer watched");
                    return;
                }
            }
        }
    });
    task
}

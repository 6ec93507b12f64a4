//! What a sink tells of its commits: one line in the log, and metrics.

use std::time::Duration;

use metrics::{counter, gauge, histogram};
use tokio::time::Instant;
use tracing::{info, warn};

use super::compact::choose::Policy;
use super::unknown::LeftOut;
use crate::batch::{ChangeBatch, Op};
use crate::log::{Change, Snapshot};
use crate::table::Version;
use crate::telemetry;

/// How often the files of a table are counted through. Dashboards ask no more often, and a commit's cost is not to grow with the table.
const CENSUS_EVERY: Duration = Duration::from_secs(10);

/// Changes staged for a commit.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    pub puts: u64,
    pub deletes: u64,
    pub truncates: u64,
    /// When the newest of their records came to be at the source.
    pub newest_ms: Option<i64>,
}

impl Counts {
    pub fn add(&mut self, batch: &ChangeBatch) {
        let ops = &batch.ops;
        self.newest_ms = self.newest_ms.max(batch.newest_ms);
        let puts = ops.iter().filter(|&&op| op == Op::Put).count();
        let deletes = ops.iter().filter(|&&op| op == Op::Delete).count();
        self.puts += puts as u64;
        self.deletes += deletes as u64;
        self.truncates += (ops.len() - puts - deletes) as u64;
    }

    pub fn rows(&self) -> u64 {
        self.puts + self.deletes + self.truncates
    }
}

/// Tells of the commits of one table.
pub struct Reporter {
    pipeline: String,
    table: String,
    policy: Policy,
    counted: Option<Instant>,
}

impl Reporter {
    /// `policy` says which files are small.
    pub fn new(pipeline: &str, table: &str, policy: Policy) -> Self {
        Self {
            pipeline: pipeline.to_owned(),
            table: table.to_owned(),
            policy,
            counted: None,
        }
    }

    fn labels(&self) -> [(&'static str, String); 2] {
        [("pipeline", self.pipeline.clone()), ("table", self.table.clone())]
    }

    /// Tells of a table that is there when it is opened: whoever alerts on its age needs that before the first commit.
    pub fn opened(&self, now: &Snapshot) {
        self.tell_newest(now.version, now);
        gauge!(telemetry::LAST_COMMIT_TIMESTAMP, &self.labels()).set(now.timestamp_ms as f64 / 1e3);
        self.census(now);
    }

    fn tell_newest(&self, version: Version, now: &Snapshot) {
        let labels = self.labels();
        gauge!(telemetry::TABLE_VERSION, &labels).set(version as f64);
        gauge!(telemetry::TABLE_FILES, &labels).set(now.files.len() as f64);
    }

    pub fn published(&mut self, version: Version, change: &Change, counts: Counts, now: &Snapshot, took: Duration) {
        let labels = self.labels();
        for (op, rows) in [("put", counts.puts), ("delete", counts.deletes), ("truncate", counts.truncates)] {
            let [pipeline, table] = labels.clone();
            counter!(telemetry::ROWS, &[pipeline, table, ("op", op.to_owned())]).increment(rows);
        }
        histogram!(telemetry::COMMIT_DURATION, &labels).record(took.as_secs_f64());
        histogram!(telemetry::COMMIT_ROWS, &labels).record(counts.rows() as f64);
        self.tell_newest(version, now);
        gauge!(telemetry::LAST_COMMIT_TIMESTAMP, &labels).set(now.timestamp_ms as f64 / 1e3);
        if let Some(newest_ms) = counts.newest_ms {
            // A clock of the source that is ahead of ours makes nothing older than it is.
            let age_us = (telemetry::now_us() - newest_ms.saturating_mul(1000)).max(0);
            histogram!(telemetry::FRESHNESS, &labels).record(age_us as f64 / 1e6);
            gauge!(telemetry::COMMITTED_SOURCE_TIMESTAMP, &labels).set(newest_ms as f64 / 1e3);
        }
        self.count_files(now);
        info!(
            pipeline = self.pipeline,
            table = self.table,
            version,
            rows = counts.rows(),
            files_added = change.adds.len(),
            files_removed = change.removes.len(),
            vectors = change.vectors.len(),
            ms = took.as_millis() as u64,
            mark = %change.mark,
            "committed"
        );
    }

    /// Tells of rows that a version lacks, because what they are cannot be known.
    pub fn left_out(&self, LeftOut { rows, one }: &LeftOut) {
        counter!(telemetry::UNKNOWN_ROWS, &self.labels()).increment(*rows);
        if *rows > 0 {
            warn!(
                pipeline = self.pipeline,
                table = self.table,
                rows,
                one,
                "updates of rows that the table does not have leave values out as unchanged: they were left out (`on_unknown_row`), and the rows \
                 are missing until a change brings them whole"
            );
        }
    }

    /// Tells of a version that a compaction made.
    pub fn compacted(&mut self, version: Version, change: &Change, now: &Snapshot) {
        let labels = self.labels();
        counter!(telemetry::COMPACTIONS, &labels).increment(1);
        counter!(telemetry::COMPACTED_FILES, &labels).increment(change.removes.len() as u64);
        self.tell_newest(version, now);
        self.counted = None; // What was counted is what has changed.
        self.count_files(now);
        info!(
            pipeline = self.pipeline,
            table = self.table,
            version,
            files_added = change.adds.len(),
            files_removed = change.removes.len(),
            "compacted"
        );
    }

    /// The gauges that need a walk through all files.
    fn count_files(&mut self, now: &Snapshot) {
        if self.counted.is_some_and(|at| at.elapsed() < CENSUS_EVERY) {
            return;
        }
        self.counted = Some(Instant::now());
        self.census(now);
    }

    fn census(&self, now: &Snapshot) {
        let labels = self.labels();
        let small = now.files.values().filter(|file| self.policy.is_small(file)).count();
        let deleted: u64 = now.files.values().map(|file| file.deleted()).sum();
        gauge!(telemetry::TABLE_SMALL_FILES, &labels).set(small as f64);
        gauge!(telemetry::TABLE_DELETED_ROWS, &labels).set(deleted as f64);
    }
}

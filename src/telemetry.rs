//! The names of metrics, what they mean, and their labels: a contract with the dashboards of others. Values are in base units.
//!
//! Here is also the one clock on the wall.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// How a metric behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sort {
    Counter,
    Gauge,
    Histogram,
}

/// One metric of the contract.
#[derive(Clone, Copy, Debug)]
pub struct Metric {
    pub name: &'static str,
    pub sort: Sort,
    pub labels: &'static [&'static str],
    pub help: &'static str,
}

/// Makes a constant of each name, and the list of all of them: none can be forgotten.
macro_rules! metrics {
    ($($constant:ident: $sort:ident = $name:literal [$($label:literal)*] $help:literal)*) => {
        $(pub const $constant: &str = $name;)*
        /// Every metric.
        pub const METRICS: &[Metric] =
            &[$(Metric { name: $name, sort: Sort::$sort, labels: &[$($label),*], help: $help }),*];
    };
}

metrics! {
    RECORDS_RECEIVED: Counter = "alluvium_records_received_total" ["pipeline" "source"] "Records read from the source, once for each time."
    RECORDS: Counter = "alluvium_records_total" ["pipeline" "table" "outcome"]
        "What became of the records read: written (rows handed to the table), deduplicated, dead_letter, filtered or tombstone. What is read again because its commit failed counts again."
    UNKNOWN_MEMBERS: Counter = "alluvium_unknown_members_total" ["pipeline" "table"]
        "Members of JSON records that are no columns of the table, and were passed over."
    UNKNOWN_ROWS: Counter = "alluvium_unknown_rows_total" ["pipeline" "table"]
        "Updates that leave values out of a row that the table does not have, and were left out (on_unknown_row)."
    UNKNOWN_TYPES: Counter = "alluvium_unknown_types_total" ["pipeline" "table"]
        "Values of types of a database that only its server can print, and that were read as text."
    RECEIVED_BYTES: Counter = "alluvium_received_bytes_total" ["pipeline" "source"] "Bytes of keys and values read from the source."
    ROWS: Counter = "alluvium_rows_total" ["pipeline" "table" "op"] "Changes handed to the table, whatever becomes of its commit: put, delete or truncate."
    COMMITS: Counter = "alluvium_commits_total" ["pipeline" "table" "result"]
        "Attempts to publish a version: ok, conflict, ambiguous_recovered or error."
    COMMIT_DURATION: Histogram = "alluvium_commit_duration_seconds" ["pipeline" "table"] "Time from the decision to publish until readers see the version."
    COMMIT_ROWS: Histogram = "alluvium_commit_rows" ["pipeline" "table"] "Rows published with one version."
    TABLE_VERSION: Gauge = "alluvium_table_version" ["pipeline" "table"] "Newest version of the table that this pipeline knows."
    TABLE_FILES: Gauge = "alluvium_table_files" ["pipeline" "table"] "Live data files of the table."
    TABLE_SMALL_FILES: Gauge = "alluvium_table_small_files" ["pipeline" "table"] "Live data files that compaction would join."
    TABLE_DELETED_ROWS: Gauge = "alluvium_table_deleted_rows" ["pipeline" "table"] "Rows in live files that deletion vectors mark as gone."
    COMPACTIONS: Counter = "alluvium_compactions_total" ["pipeline" "table"] "Versions that compaction made: the same rows in fewer files."
    COMPACTED_FILES: Counter = "alluvium_compacted_files_total" ["pipeline" "table"] "Data files that compaction has replaced."
    LAST_COMMIT_TIMESTAMP: Gauge = "alluvium_last_commit_timestamp_seconds" ["pipeline" "table"] "When the newest version that this pipeline knows was published."
    COMMITTED_SOURCE_TIMESTAMP: Gauge = "alluvium_committed_source_timestamp_seconds" ["pipeline" "table"]
        "Source time of the newest record that is published."
    FRESHNESS: Histogram = "alluvium_freshness_seconds" ["pipeline" "table"] "From the source time of a commit's newest record to its publication."
    KAFKA_LAG_RECORDS: Gauge = "alluvium_kafka_lag_records" ["pipeline" "source" "partition"]
        "Offsets between what was read and the end of the partition: an upper bound where a topic is compacted."
    KAFKA_WAITING: Gauge = "alluvium_kafka_partition_waiting" ["pipeline" "source" "partition"]
        "1 while a partition waits for its broker, which does not answer, and others are read; 0 when that is over."
    KAFKA_COMMITTED_OFFSET: Gauge = "alluvium_kafka_committed_offset" ["pipeline" "source" "partition"] "The offset behind the last one that every table of the pipeline has published, as a group commits it."
    KAFKA_HIGH_WATERMARK: Gauge = "alluvium_kafka_high_watermark" ["pipeline" "source" "partition"] "The offset that the next record of the partition will get."
    PG_LAG_BYTES: Gauge = "alluvium_pg_lag_bytes" ["pipeline" "source" "stage"] "WAL between the server's end and what was read (received), and what every table has published (committed)."
    PG_SLOT_RETAINED_WAL_BYTES: Gauge = "alluvium_pg_slot_retained_wal_bytes" ["pipeline" "source"] "WAL that the server keeps for the slot."
    PG_SLOT_SAFE_WAL_BYTES: Gauge = "alluvium_pg_slot_safe_wal_bytes" ["pipeline" "source"] "WAL that may still be written before the server gives the slot up; absent where it has no such limit."
    SNAPSHOT_ROWS: Counter = "alluvium_snapshot_rows_total" ["pipeline" "table"] "Rows copied from the source's table."
    SNAPSHOT_DONE_BYTES: Gauge = "alluvium_snapshot_done_bytes" ["pipeline" "table"] "How much of alluvium_snapshot_size_bytes is copied."
    SNAPSHOT_SIZE_BYTES: Gauge = "alluvium_snapshot_size_bytes" ["pipeline" "table"] "What the source's table weighed when its copy was planned."
    SNAPSHOT_LEFT_SECONDS: Gauge = "alluvium_snapshot_left_seconds" ["pipeline" "table"]
        "What the rest of the copy takes, if it goes on as it went since it began; NaN until some of it is there."
    ERRORS: Counter = "alluvium_errors_total" ["pipeline" "stage" "code" "kind"]
        "Errors: of stage pipeline, what ended a run; of stage kafka, what the client met between itself and the brokers, and tries again by itself."
    DEAD_LETTERS: Counter = "alluvium_dead_letters_total" ["pipeline" "table" "reason"] "Records that could not be read and went to the dead-letter table."
    GAP_RECORDS: Counter = "alluvium_gap_records_total" ["pipeline" "source"] "Offsets that retention took before they were read, where on_gap allows to go on."
    FENCED: Counter = "alluvium_fenced_total" ["pipeline"] "Runs that ended because another writer had the lanes."
    SCHEMA_CHANGES: Counter = "alluvium_schema_changes_total" ["pipeline" "table" "change" "outcome"]
        "Columns that changed at the source: add_column, make_nullable or widen_type, which the table followed (applied), or other (refused)."
    BUFFER_BYTES: Gauge = "alluvium_buffer_bytes" ["pipeline"] "Memory that rows in flight hold."
    BUFFER_LIMIT_BYTES: Gauge = "alluvium_buffer_limit_bytes" ["pipeline"] "Memory that rows in flight may hold."
    BACKPRESSURE_ACTIVE: Gauge = "alluvium_backpressure_active" ["pipeline"] "1 while rows in flight hold more than seven eighths of their memory: the source waits, or soon will."
    PIPELINE_STATE: Gauge = "alluvium_pipeline_state" ["pipeline" "state"]
        "1 for the state that the pipeline is in: starting, running, degraded (a table has stopped), retrying, failed or stopped."
    BUILD_INFO: Gauge = "alluvium_build_info" ["version"] "Always 1."
    PANICS: Counter = "alluvium_panics_total" [] "Panics: each is a bug of alluvium."
}

/// Bounds of the histograms' buckets, in the metric's unit.
pub fn buckets(metric: &str) -> &'static [f64] {
    match metric {
        // From a commit on a local disk to one on a store that throttles.
        COMMIT_DURATION => &[
            0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0,
        ],
        // Around the commit intervals that people choose; beyond them, a backlog.
        FRESHNESS => &[
            0.05, 0.1, 0.2, 0.35, 0.5, 0.75, 1.0, 1.5, 2.5, 5.0, 10.0, 15.0, 30.0, 60.0, 300.0, 900.0, 3600.0, 86400.0,
        ],
        _ => &[1.0, 10.0, 100.0, 1e3, 1e4, 3e4, 1e5, 3e5, 1e6, 3e6, 1e7],
    }
}

/// Tells the installed recorder what each metric means.
pub fn describe() {
    for metric in METRICS {
        match metric.sort {
            Sort::Counter => metrics::describe_counter!(metric.name, metric.help),
            Sort::Gauge => metrics::describe_gauge!(metric.name, metric.help),
            Sort::Histogram => metrics::describe_histogram!(metric.name, metric.help),
        }
    }
    metrics::gauge!(BUILD_INFO, "version" => env!("CARGO_PKG_VERSION")).set(1.0);
    metrics::counter!(PANICS).absolute(0);
}

/// What is counted of each table whatever happens, by the label that tells it apart, and its values.
const BEGUN: [(&str, &str, &[&str]); 3] = [
    (
        RECORDS,
        "outcome",
        &["written", "deduplicated", "dead_letter", "filtered", "tombstone"],
    ),
    (ROWS, "op", &["put", "delete", "truncate"]),
    (COMMITS, "result", &["ok", "conflict", "ambiguous_recovered", "error"]),
];

/// Begins at 0 what is counted of a table: the first events of a counter that is absent until then are no increase to anybody.
pub fn begin_table(pipeline: &str, table: &str) {
    let labels = [("pipeline", pipeline.to_owned()), ("table", table.to_owned())];
    for name in [UNKNOWN_ROWS, COMPACTIONS, COMPACTED_FILES] {
        metrics::counter!(name, &labels).increment(0);
    }
    for (name, label, values) in BEGUN {
        for value in values {
            let [pipeline, table] = labels.clone();
            metrics::counter!(name, &[pipeline, table, (label, (*value).to_owned())]).increment(0);
        }
    }
}

/// Microseconds since 1970 by this machine's clock.
pub fn now_us() -> i64 {
    #[allow(clippy::disallowed_methods, reason = "this is the place that all others take the time from")]
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Changing a line here breaks somebody's dashboards and alerts: add, and keep what is there.
    const CONTRACT: &str = "\
counter alluvium_records_received_total{pipeline,source}
counter alluvium_records_total{pipeline,table,outcome}
counter alluvium_unknown_members_total{pipeline,table}
counter alluvium_unknown_rows_total{pipeline,table}
counter alluvium_unknown_types_total{pipeline,table}
counter alluvium_received_bytes_total{pipeline,source}
counter alluvium_rows_total{pipeline,table,op}
counter alluvium_commits_total{pipeline,table,result}
histogram alluvium_commit_duration_seconds{pipeline,table}
histogram alluvium_commit_rows{pipeline,table}
gauge alluvium_table_version{pipeline,table}
gauge alluvium_table_files{pipeline,table}
gauge alluvium_table_small_files{pipeline,table}
gauge alluvium_table_deleted_rows{pipeline,table}
counter alluvium_compactions_total{pipeline,table}
counter alluvium_compacted_files_total{pipeline,table}
gauge alluvium_last_commit_timestamp_seconds{pipeline,table}
gauge alluvium_committed_source_timestamp_seconds{pipeline,table}
histogram alluvium_freshness_seconds{pipeline,table}
gauge alluvium_kafka_lag_records{pipeline,source,partition}
gauge alluvium_kafka_partition_waiting{pipeline,source,partition}
gauge alluvium_kafka_committed_offset{pipeline,source,partition}
gauge alluvium_kafka_high_watermark{pipeline,source,partition}
gauge alluvium_pg_lag_bytes{pipeline,source,stage}
gauge alluvium_pg_slot_retained_wal_bytes{pipeline,source}
gauge alluvium_pg_slot_safe_wal_bytes{pipeline,source}
counter alluvium_snapshot_rows_total{pipeline,table}
gauge alluvium_snapshot_done_bytes{pipeline,table}
gauge alluvium_snapshot_size_bytes{pipeline,table}
gauge alluvium_snapshot_left_seconds{pipeline,table}
counter alluvium_errors_total{pipeline,stage,code,kind}
counter alluvium_dead_letters_total{pipeline,table,reason}
counter alluvium_gap_records_total{pipeline,source}
counter alluvium_fenced_total{pipeline}
counter alluvium_schema_changes_total{pipeline,table,change,outcome}
gauge alluvium_buffer_bytes{pipeline}
gauge alluvium_buffer_limit_bytes{pipeline}
gauge alluvium_backpressure_active{pipeline}
gauge alluvium_pipeline_state{pipeline,state}
gauge alluvium_build_info{version}
counter alluvium_panics_total{}
";

    #[test]
    fn the_names_of_metrics_are_a_contract() {
        let line = |m: &Metric| format!("{} {}{{{}}}\n", format!("{:?}", m.sort).to_lowercase(), m.name, m.labels.join(","));
        assert_eq!(METRICS.iter().map(line).collect::<String>(), CONTRACT);
    }

    #[test]
    fn names_say_what_prometheus_expects_of_them() {
        for metric in METRICS {
            assert_eq!(metric.name.ends_with("_total"), metric.sort == Sort::Counter, "{}", metric.name);
            assert!(buckets(metric.name).is_sorted(), "{}", metric.name);
        }
    }
}

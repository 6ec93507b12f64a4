//! The names of metrics and their labels: a contract with the dashboards of others. Values are in base units.

pub const RECORDS_RECEIVED: &str = "alluvium_records_received_total"; // pipeline, source
pub const RECORDS: &str = "alluvium_records_total"; // pipeline, table, outcome = written|deduplicated|dead_letter|filtered|tombstone
pub const RECEIVED_BYTES: &str = "alluvium_received_bytes_total"; // pipeline, source
pub const ROWS: &str = "alluvium_rows_total"; // pipeline, table, op = put|delete|truncate
pub const COMMITS: &str = "alluvium_commits_total"; // pipeline, table, result = ok|conflict|ambiguous_recovered|error
pub const COMMIT_DURATION: &str = "alluvium_commit_duration_seconds"; // pipeline, table; histogram
pub const COMMIT_ROWS: &str = "alluvium_commit_rows"; // pipeline, table; histogram
pub const TABLE_VERSION: &str = "alluvium_table_version"; // pipeline, table
pub const TABLE_FILES: &str = "alluvium_table_files"; // pipeline, table
pub const TABLE_SMALL_FILES: &str = "alluvium_table_small_files"; // pipeline, table
pub const TABLE_DELETED_ROWS: &str = "alluvium_table_deleted_rows"; // pipeline, table
pub const LAST_COMMIT_TIMESTAMP: &str = "alluvium_last_commit_timestamp_seconds"; // pipeline, table
pub const COMMITTED_SOURCE_TIMESTAMP: &str = "alluvium_committed_source_timestamp_seconds"; // pipeline, table
pub const FRESHNESS: &str = "alluvium_freshness_seconds"; // pipeline, table; histogram: source time → commit
pub const KAFKA_LAG_RECORDS: &str = "alluvium_kafka_lag_records"; // pipeline, source, partition
pub const KAFKA_COMMITTED_OFFSET: &str = "alluvium_kafka_committed_offset"; // pipeline, source, partition
pub const KAFKA_HIGH_WATERMARK: &str = "alluvium_kafka_high_watermark"; // pipeline, source, partition
pub const ERRORS: &str = "alluvium_errors_total"; // pipeline, stage, code, kind
pub const DEAD_LETTERS: &str = "alluvium_dead_letters_total"; // pipeline, table, reason
pub const GAP_RECORDS: &str = "alluvium_gap_records_total"; // pipeline, source
pub const FENCED: &str = "alluvium_fenced_total"; // pipeline
pub const BUFFER_BYTES: &str = "alluvium_buffer_bytes"; // pipeline
pub const BUFFER_LIMIT_BYTES: &str = "alluvium_buffer_limit_bytes"; // pipeline
pub const BACKPRESSURE_ACTIVE: &str = "alluvium_backpressure_active"; // pipeline
pub const PIPELINE_STATE: &str = "alluvium_pipeline_state"; // pipeline, state
pub const BUILD_INFO: &str = "alluvium_build_info"; // version
pub const PANICS: &str = "alluvium_panics_total";

/// The time on the wall: microseconds since 1970. The one place that reads it.
#[allow(clippy::disallowed_methods)]
pub fn now_us() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| since.as_micros() as i64)
}

//! Rows to data files alone: Parquet on the local disk, with the statistics that the log tells of them, and without. No commit is made.
//!
//! `cargo bench --profile release --bench files`. Some 200 bytes a row as JSON; batches as the Kafka source hands them over, whose bytes in
//! memory are the MB. CPU time counts all threads; rows/s and MB/s are on the clock.

mod bed;

use std::collections::BTreeMap;
use std::time::Instant;

use alluvium::log::{Indexed, store};
use alluvium::sinks::delta::files::Files;
use alluvium::table::{Layout, Mode};
use arrow::array::RecordBatch;
use bed::{BATCH, SHARE, cpu, orders, schema, table};

#[tokio::main]
async fn main() {
    println!(
        "{:>12} {:>8} {:>11} {:>12} {:>10} {:>12} {:>8} {:>10}",
        "rows a file", "files", "statistics", "rows/cpu-s", "MB/cpu-s", "rows/s", "MB/s", "B/row"
    );
    for (rows, files) in [(1_000, 1_000), (10_000, 200), (100_000, 40), (1_000_000, 4)] {
        measure(rows, files, &Indexed::First(32)).await;
        measure(rows, files, &Indexed::First(0)).await;
    }
}

/// Writes so many files of so many rows, with statistics of these columns.
async fn measure(rows: i64, files: u32, indexed: &Indexed) {
    let folder = tempfile::tempdir().expect("a folder");
    let table = table(folder.path(), Mode::Append);
    let store = store::open(&table.location, &BTreeMap::new()).expect("a folder");
    let target = Layout::default().target_file_size;
    let writers = Files::new(store, "orders".into(), schema(), indexed, target, SHARE).expect("columns that Parquet has");
    // Made before the clock starts: one file's worth, written again for each.
    let ids: Vec<i64> = (0..rows).collect();
    let batches: Vec<_> = ids.chunks(BATCH).map(|ids| orders(ids, 1)).collect();
    let weight: usize = batches.iter().map(RecordBatch::get_array_memory_size).sum();
    let (mut bytes, mut told) = (0, 0);
    let (begun, used) = (Instant::now(), cpu());
    for _ in 0..files {
        let mut file = writers.begin(BTreeMap::new()).expect("a file");
        for batch in &batches {
            file.write(batch).await.expect("written");
        }
        let file = file.finish().await.expect("finished");
        bytes += file.size;
        told += file.stats.len();
    }
    let (wall, used) = (begun.elapsed().as_secs_f64(), cpu() - used);
    let written = rows as f64 * f64::from(files);
    let megabytes = weight as f64 * f64::from(files) / 1e6;
    println!(
        "{rows:>12} {files:>8} {:>9} B {:>12.0} {:>10.0} {:>12.0} {:>8.0} {:>10.1}",
        told / files as usize,
        written / used,
        megabytes / used,
        written / wall,
        megabytes / wall,
        bytes as f64 / written,
    );
}

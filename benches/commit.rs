//! Rows to an append table on the local disk: rows per second of CPU time and the time of a commit, by how many rows a commit has.
//!
//! `cargo bench --bench commit`. Some 200 bytes a row as JSON; batches as the Kafka source hands them over. The reference is 0.3 CPU seconds
//! per million rows for the encoding alone.

mod bed;

use std::time::Instant;

use alluvium::batch::ChangeBatch;
use alluvium::sinks::Sink;
use alluvium::table::Mode;
use bed::{BATCH, cpu, mark, median, open, orders, table};

#[tokio::main]
async fn main() {
    println!(
        "{:>14} {:>12} {:>14} {:>14} {:>12} {:>10}",
        "rows a commit", "commits", "rows/cpu-s", "cpu-s/Mrow", "commit", "B/row"
    );
    for (rows, commits) in [(0, 200), (1_000, 100), (10_000, 50), (100_000, 10), (2_000_000, 1)] {
        measure(rows, commits).await;
    }
}

async fn measure(rows: i64, commits: usize) {
    let folder = tempfile::tempdir().expect("a folder");
    let table = table(folder.path(), Mode::Append);
    let mut sink = open(&table, &folder.path().join("state")).await;
    // Made before the clock starts: one commit's worth, written again for each.
    let ids: Vec<i64> = (0..rows).collect();
    let batches: Vec<_> = ids.chunks(BATCH).map(|ids| orders(ids, 1)).collect();
    let (mut times, used) = (Vec::new(), cpu());
    for at in 0..commits {
        for rows in &batches {
            sink.write(ChangeBatch::puts(table.id.clone(), rows.clone()))
                .await
                .expect("written");
        }
        let begun = Instant::now();
        sink.commit(&mark(at as u64)).await.expect("committed");
        times.push(begun.elapsed().as_secs_f64());
    }
    let used = cpu() - used;
    let written = rows as f64 * commits as f64;
    let bytes: u64 = sink.log().snapshot().files.values().map(|file| file.size).sum();
    println!(
        "{rows:>14} {commits:>12} {:>14.0} {:>14.3} {:>9.2} ms {:>10.1}",
        written / used,
        used / written * 1e6,
        median(times) * 1e3,
        bytes as f64 / written,
    );
}

//! Rows to an append table on the local disk: rows per second of CPU time and the time of a commit, by how many rows a commit has.
//!
//! `cargo bench --bench commit`. Some 200 bytes a row as JSON; batches as the Kafka source hands them over, whose bytes in memory are the MB.
//! The reference is 0.3 CPU seconds per million rows for the encoding alone. Each is measured without compaction and with it: then its work runs beside the commits, and its
//! CPU time is counted with theirs.

mod bed;

use std::time::Instant;

use alluvium::batch::ChangeBatch;
use alluvium::sinks::{Sink, Upkeep};
use alluvium::table::{Layout, Mode};
use arrow::array::RecordBatch;
use bed::{BATCH, cpu, mark, median, open, orders, table};
use tokio::sync::mpsc;

#[tokio::main]
async fn main() {
    println!(
        "{:>14} {:>12} {:>11} {:>14} {:>10} {:>14} {:>12} {:>10} {:>7}",
        "rows a commit", "commits", "compaction", "rows/cpu-s", "MB/cpu-s", "cpu-s/Mrow", "commit", "B/row", "files"
    );
    for (rows, commits) in [(0, 200), (1_000, 200), (10_000, 200), (100_000, 40), (2_000_000, 1)] {
        measure(rows, commits, false).await;
        measure(rows, commits, true).await;
    }
}

/// Does upkeep beside the commits, one piece after the other, as a pipeline does.
async fn keep_up(mut queue: mpsc::Receiver<Upkeep>) {
    while let Some(upkeep) = queue.recv().await {
        upkeep.work.await.expect("kept up");
    }
}

async fn measure(rows: i64, commits: usize, auto_compact: bool) {
    let folder = tempfile::tempdir().expect("a folder");
    let mut table = table(folder.path(), Mode::Append);
    table.layout = Layout {
        auto_compact,
        ..Layout::default()
    };
    let mut sink = open(&table, &folder.path().join("state")).await;
    // Made before the clock starts: one commit's worth, written again for each.
    let ids: Vec<i64> = (0..rows).collect();
    let batches: Vec<_> = ids.chunks(BATCH).map(|ids| orders(ids, 1)).collect();
    let weight: usize = batches.iter().map(RecordBatch::get_array_memory_size).sum();
    let (upkeep_tx, queue) = mpsc::channel(1);
    let upkeep = tokio::spawn(keep_up(queue));
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
        if let Some(upkeep) = sink.upkeep() {
            // Where the queue is full, a later commit asks again.
            let _ = upkeep_tx.try_send(upkeep);
        }
    }
    drop(upkeep_tx);
    upkeep.await.expect("upkeep ends");
    let used = cpu() - used;
    let written = rows as f64 * commits as f64;
    let bytes: u64 = sink.log().snapshot().files.values().map(|file| file.size).sum();
    println!(
        "{rows:>14} {commits:>12} {:>11} {:>14.0} {:>10.0} {:>14.3} {:>9.2} ms {:>10.1} {:>7}",
        if auto_compact { "on" } else { "off" },
        written / used,
        (weight * commits) as f64 / used / 1e6,
        used / written * 1e6,
        median(times) * 1e3,
        bytes as f64 / written,
        sink.log().snapshot().files.len(),
    );
}

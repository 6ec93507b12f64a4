//! Commits of 10,000 changes with random keys into tables of several sizes, beside deltalake's own MERGE of the same changes in the same run;
//! and the key index: its bytes, its opening from the cache, its rebuilding from the table.
//!
//! `cargo bench --bench upsert` takes 1, 4 and 10 million rows, and some minutes. Sizes in thousands of rows, and the number of
//! commits measured, can be given: `cargo bench --bench upsert -- 1000,4000 20`. MERGE is measured three times; `-- 1000 20 alone` leaves it out.
//! All times are on the clock, medians; both write to the same disk, and each table is loaded by its own writer.

mod bed;

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use alluvium::batch::{ChangeBatch, Op};
use alluvium::log::{Log, store};
use alluvium::sinks::Sink;
use alluvium::table::{Merge, Mode, Table};
use arrow::array::{BooleanArray, RecordBatch};
use arrow::compute::{concat_batches, filter_record_batch};
use bed::{BATCH, changes, cpu, mark, median, open, orders, schema};
use deltalake::DeltaTable;
use deltalake::datafusion::datasource::MemTable;
use deltalake::datafusion::prelude::{DataFrame, SessionContext, col};
use rand::SeedableRng;
use rand::rngs::SmallRng;

const CHANGES: usize = 10_000;
const MERGES: usize = 3;
/// Rows of a file as the loaders make them: some 40 MB.
const LOAD_ROWS: i64 = 1_000_000;

#[tokio::main]
async fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let sizes = arguments.first().map_or("1000,4000,10000", String::as_str).split(',');
    let sizes: Vec<i64> = sizes
        .map(|size| size.parse::<i64>().expect("thousands of rows, as 1000,4000") * 1000)
        .collect();
    let commits: usize = arguments.get(1).map_or(20, |text| text.parse().expect("a number of commits"));
    let beside_merge = arguments.get(2).is_none_or(|word| word != "alone");
    println!(
        "{:>10} {:>11} {:>11} {:>10} {:>9} | {:>9} {:>9} {:>11} {:>11}",
        "rows", "commit", "cpu", "MERGE", "faster", "B/key", "open", "rebuild", "keys/cpu-s"
    );
    for rows in sizes {
        let folder = tempfile::tempdir().expect("a folder");
        let ours = upserts(folder.path(), rows, commits).await;
        let merge = if beside_merge {
            merges(&folder.path().join("merge"), rows).await
        } else {
            f64::NAN
        };
        println!(
            "{rows:>10} {:>8.1} ms {:>8.1} ms {:>7.0} ms {:>8.0}x | {:>9.2} {:>7.0} ms {:>8.0} ms {:>11.0}",
            ours.commit * 1e3,
            ours.cpu * 1e3,
            merge * 1e3,
            merge / ours.commit,
            ours.bytes_per_key,
            ours.open * 1e3,
            ours.rebuild * 1e3,
            ours.rebuilt_per_cpu_second,
        );
    }
}

struct Measured {
    commit: f64,
    cpu: f64,
    bytes_per_key: f64,
    open: f64,
    rebuild: f64,
    rebuilt_per_cpu_second: f64,
}

async fn upserts(folder: &Path, rows: i64, commits: usize) -> Measured {
    let (place, state) = (folder.join("ours"), folder.join("state"));
    std::fs::create_dir_all(&place).expect("a folder");
    let table = bed::table(
        &place,
        Mode::Upsert {
            key: vec!["id".to_owned()],
            merge: Merge::Vectors,
        },
    );
    let mut sink = open(&table, &state).await;
    let mut at = 0;
    for ids in chunks(rows, LOAD_ROWS) {
        for ids in ids.chunks(BATCH) {
            sink.write(ChangeBatch::puts(table.id.clone(), orders(ids, 0)))
                .await
                .expect("written");
        }
        at += 1;
        sink.commit(&mark(at)).await.expect("committed");
    }
    let (mut times, mut cpus, mut rng) = (Vec::new(), Vec::new(), SmallRng::seed_from_u64(7));
    for turn in 0..commits {
        let batches = changes(&table, &mut rng, rows, CHANGES, turn as u64 + 1);
        let (begun, used) = (Instant::now(), cpu());
        for batch in batches {
            sink.write(batch).await.expect("written");
        }
        at += 1;
        sink.commit(&mark(at)).await.expect("committed");
        times.push(begun.elapsed().as_secs_f64());
        cpus.push(cpu() - used);
    }
    let index = sink.index().expect("an upsert table has an index");
    let (bytes_per_key, keys) = (index.memory() as f64 / index.len() as f64, index.len() as f64);
    sink.close();
    let open = opening(&table, &state).await.0;
    std::fs::remove_dir_all(&state).expect("the cache is there");
    let (rebuild, rebuild_cpu) = opening(&table, &state).await;
    Measured {
        commit: median(times),
        cpu: median(cpus),
        bytes_per_key,
        open,
        rebuild,
        rebuilt_per_cpu_second: keys / rebuild_cpu,
    }
}

/// Seconds on the clock, and of CPU time, that it takes to open the table's index.
async fn opening(table: &Table, state: &Path) -> (f64, f64) {
    let store = store::open(&table.location, &Default::default()).expect("a folder");
    let log = Log::open_or_create(&table.location, store, table, "bench").await.expect("a table");
    let (begun, used) = (Instant::now(), cpu());
    let sink = alluvium::sinks::delta::DeltaSink::open(table, log, "bench", bed::SHARE, state)
        .await
        .expect("a sink");
    let taken = (begun.elapsed().as_secs_f64(), cpu() - used);
    drop(sink);
    taken
}

fn chunks(rows: i64, size: i64) -> impl Iterator<Item = Vec<i64>> {
    (0..rows)
        .step_by(size as usize)
        .map(move |first| (first..(first + size).min(rows)).collect())
}

/// The same through deltalake: a table of its own, loaded by its own writer, and MERGE.
async fn merges(place: &Path, rows: i64) -> f64 {
    std::fs::create_dir_all(place).expect("a folder");
    let url = url::Url::from_directory_path(place).expect("an absolute path");
    let table = bed::table(place, Mode::Append);
    let mut delta = DeltaTable::try_from_url(url).await.expect("a place");
    for ids in chunks(rows, LOAD_ROWS) {
        delta = delta.write(vec![orders(&ids, 0)]).await.expect("written");
    }
    let (mut times, mut rng) = (Vec::new(), SmallRng::seed_from_u64(7));
    for turn in 0..MERGES {
        let batches = changes(&table, &mut rng, rows, CHANGES, turn as u64 + 1);
        let begun = Instant::now();
        delta = merge(delta, &batches).await;
        times.push(begun.elapsed().as_secs_f64());
    }
    median(times)
}

/// MERGE must be told each key once, and knows no order: the last change of each key is found before, and is not counted.
async fn merge(delta: DeltaTable, batches: &[ChangeBatch]) -> DeltaTable {
    let all: Vec<RecordBatch> = batches.iter().map(|batch| batch.rows.clone()).collect();
    let all = concat_batches(&schema(), &all).expect("equal columns");
    let ops: Vec<Op> = batches.iter().flat_map(|batch| batch.ops.clone()).collect();
    let ids = all
        .column(0)
        .as_any()
        .downcast_ref::<arrow::array::Int64Array>()
        .expect("ids")
        .values()
        .to_vec();
    let last: std::collections::HashMap<i64, usize> = ids.iter().enumerate().map(|(row, &id)| (id, row)).collect();
    let keep = BooleanArray::from_iter((0..ids.len()).map(|row| Some(last[&ids[row]] == row)));
    let mut rows = filter_record_batch(&all, &keep).expect("a mask").columns().to_vec();
    let deleted: Vec<bool> = (0..ids.len())
        .filter(|&row| keep.value(row))
        .map(|row| ops[row] == Op::Delete)
        .collect();
    rows.push(Arc::new(BooleanArray::from(deleted)));
    let mut fields = schema().fields().to_vec();
    fields.push(Arc::new(arrow::datatypes::Field::new(
        "deleted",
        arrow::datatypes::DataType::Boolean,
        false,
    )));
    let source_schema = Arc::new(arrow::datatypes::Schema::new(fields));
    let source = RecordBatch::try_new(Arc::clone(&source_schema), rows).expect("columns");
    let context = SessionContext::new();
    let source: DataFrame = context
        .read_table(Arc::new(MemTable::try_new(source_schema, vec![vec![source]]).expect("a table")))
        .expect("a frame");
    let names: Vec<String> = schema().fields().iter().map(|field| field.name().clone()).collect();
    let set = names.clone();
    let (delta, _) = delta
        .merge(source, col("target.id").eq(col("source.id")))
        .with_source_alias("source")
        .with_target_alias("target")
        .when_matched_delete(|delete| delete.predicate(col("source.deleted")))
        .expect("a clause")
        .when_matched_update(|update| {
            set.iter()
                .fold(update, |update, name| update.update(name.as_str(), col(format!("source.{name}"))))
        })
        .expect("a clause")
        .when_not_matched_insert(|insert| {
            names
                .iter()
                .fold(insert.predicate(col("source.deleted").is_false()), |insert, name| {
                    insert.set(name.as_str(), col(format!("source.{name}")))
                })
        })
        .expect("a clause")
        .await
        .expect("merged");
    delta
}

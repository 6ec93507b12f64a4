//! Commits of 10,000 changes with random keys into tables of several sizes, beside deltalake's own MERGE of the same changes in the same run;
//! and the key index: its bytes, its opening from the cache, its rebuilding from the table.
//!
//! ```text
//! cargo bench --profile release --bench upsert                       1, 4 and 10 million rows, 100 commits into each; some minutes
//! cargo bench --profile release --bench upsert -- 1000,4000 20       thousands of rows, commits
//! cargo bench --profile release --bench upsert -- 1000 20 alone      without MERGE, which is measured three times
//! ```
//! The tables are there together, and take turns: each gets a commit, then each gets the next. So whatever else the machine does meanwhile
//! befalls all sizes alike. All times are on the clock, medians; both write to the same disk, and each table is loaded by its own writer. Bytes
//! are those of the changes in memory. The aims stand in the tables.

mod bed;

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use alluvium::batch::{ChangeBatch, Op};
use alluvium::log::{Log, store};
use alluvium::sinks::Sink;
use alluvium::sinks::delta::DeltaSink;
use alluvium::table::{Merge, Mode, Table};
use arrow::array::{BooleanArray, RecordBatch};
use arrow::compute::{concat_batches, filter_record_batch};
use bed::{BATCH, changes, cpu, mark, median, open, orders, schema};
use deltalake::DeltaTable;
use deltalake::datafusion::datasource::MemTable;
use deltalake::datafusion::prelude::{DataFrame, SessionContext, col};
use rand::SeedableRng;
use rand::rngs::SmallRng;
use tempfile::TempDir;

const CHANGES: usize = 10_000;
const COMMITS: usize = 100;
const MERGES: usize = 3;
/// How much longer a commit may take than into the first table, and MERGE has to take than a commit.
const LONGER_MOST: f64 = 1.3;
const FASTER_LEAST: f64 = 30.0;
/// What the index may take for a key, and to be opened from its cache; and how many keys a second of CPU time has to bring back.
const KEY_BYTES_MOST: f64 = 24.0;
const OPEN_MS_MOST_OF_10_MILLION: f64 = 1_000.0;
const REBUILT_LEAST: f64 = 3e6;
/// Rows of a file as the loaders make them: some 40 MB.
const LOAD_ROWS: i64 = 1_000_000;

#[tokio::main]
async fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let sizes = arguments.first().map_or("1000,4000,10000", String::as_str).split(',');
    let sizes = sizes.map(|size| size.parse::<i64>().expect("thousands of rows, as 1000,4000") * 1000);
    let commits: usize = arguments.get(1).map_or(COMMITS, |text| text.parse().expect("a number of commits"));
    let beside_merge = arguments.get(2).is_none_or(|word| word != "alone");
    let mut tables = Vec::new();
    for rows in sizes {
        tables.push(Loaded::new(rows).await);
    }
    for turn in 1..=commits {
        for table in &mut tables {
            table.commit(turn as u64).await;
        }
    }
    println!(
        "{:>10} {:>10} {:>9} {:>10} {:>10} {:>8} {:>9} {:>9}",
        "rows", "commit", "of first", "cpu", "rows/s", "MB/s", "MERGE", "faster"
    );
    let (longer, faster) = (format!("<= {LONGER_MOST}x"), format!(">= {FASTER_LEAST}x"));
    println!("{:>10} {:>10} {longer:>9} {:>40} {faster:>9}", "aim", "", "");
    let mut first = None;
    for table in &tables {
        let commit = median(table.times.clone());
        let merge = if beside_merge { merges(table.rows).await } else { f64::NAN };
        println!(
            "{:>10} {:>7.1} ms {:>8.2}x {:>7.1} ms {:>10.0} {:>8.1} {:>6.0} ms {:>8.0}x",
            table.rows,
            commit * 1e3,
            commit / *first.get_or_insert(commit),
            median(table.cpus.clone()) * 1e3,
            CHANGES as f64 / commit,
            table.bytes as f64 / commits as f64 / commit / 1e6,
            merge * 1e3,
            merge / commit,
        );
    }
    println!(
        "\n{:>10} {:>8} {:>8} {:>10} {:>10} {:>10} {:>12} {:>12}",
        "keys", "B/key", "aim", "open", "aim", "rebuild", "keys/cpu-s", "aim"
    );
    for table in tables {
        let index = table.reopened().await;
        println!(
            "{:>10.0} {:>8.2} {KEY_BYTES_MOST:>8.0} {:>7.0} ms {:>7.0} ms {:>7.0} ms {:>12.0} {REBUILT_LEAST:>12.0}",
            index.keys,
            index.bytes / index.keys,
            index.open * 1e3,
            OPEN_MS_MOST_OF_10_MILLION * index.keys / 1e7,
            index.rebuild * 1e3,
            index.keys / index.rebuild_cpu,
        );
    }
}

/// A table of so many rows, and what its commits take.
struct Loaded {
    rows: i64,
    folder: TempDir,
    table: Table,
    sink: DeltaSink,
    rng: SmallRng,
    /// Where its source is.
    at: u64,
    times: Vec<f64>,
    cpus: Vec<f64>,
    /// Of all changes.
    bytes: usize,
}

impl Loaded {
    async fn new(rows: i64) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let place = folder.path().join("ours");
        std::fs::create_dir_all(&place).expect("a folder");
        let table = bed::table(
            &place,
            Mode::Upsert {
                key: vec!["id".to_owned()],
                merge: Merge::Vectors,
            },
        );
        let mut sink = open(&table, &folder.path().join("state")).await;
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
        Self {
            rows,
            folder,
            table,
            sink,
            rng: SmallRng::seed_from_u64(7),
            at,
            times: Vec::new(),
            cpus: Vec::new(),
            bytes: 0,
        }
    }

    async fn commit(&mut self, turn: u64) {
        let batches = changes(&self.table, &mut self.rng, self.rows, CHANGES, turn);
        self.bytes += batches.iter().map(|batch| batch.rows.get_array_memory_size()).sum::<usize>();
        let (begun, used) = (Instant::now(), cpu());
        for batch in batches {
            self.sink.write(batch).await.expect("written");
        }
        self.at += 1;
        self.sink.commit(&mark(self.at)).await.expect("committed");
        self.times.push(begun.elapsed().as_secs_f64());
        self.cpus.push(cpu() - used);
    }

    /// What its index takes, and what it takes to have it again.
    async fn reopened(self) -> Reopened {
        let state = self.folder.path().join("state");
        let index = self.sink.index().expect("an upsert table has an index");
        let (bytes, keys) = (index.memory() as f64, index.len() as f64);
        self.sink.close();
        let open = opening(&self.table, &state).await.0;
        std::fs::remove_dir_all(&state).expect("the cache is there");
        let (rebuild, rebuild_cpu) = opening(&self.table, &state).await;
        Reopened {
            keys,
            bytes,
            open,
            rebuild,
            rebuild_cpu,
        }
    }
}

struct Reopened {
    keys: f64,
    bytes: f64,
    /// Seconds.
    open: f64,
    rebuild: f64,
    rebuild_cpu: f64,
}

/// Seconds on the clock, and of CPU time, that it takes to open the table's index.
async fn opening(table: &Table, state: &Path) -> (f64, f64) {
    let store = store::open(&table.location, &Default::default()).expect("a folder");
    let log = Log::open_or_create(&table.location, store, table, "bench").await.expect("a table");
    let (begun, used) = (Instant::now(), cpu());
    let sink = DeltaSink::open(table, log, "bench", bed::SHARE, state).await.expect("a sink");
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
async fn merges(rows: i64) -> f64 {
    let folder = tempfile::tempdir().expect("a folder");
    let place = folder.path();
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

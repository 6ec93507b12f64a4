//! What the benches of the sink share: orders of some 200 bytes as JSON, tables on the local disk, and the process's CPU time.
#![allow(dead_code, reason = "each bench uses a part")]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use alluvium::batch::{ChangeBatch, Op};
use alluvium::log::{Log, store};
use alluvium::position::{Checkpoint, Lane, Position};
use alluvium::sinks::delta::DeltaSink;
use alluvium::table::{Mode, Table, TableId};
use arrow::array::{ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use rand::Rng;
use rand::rngs::SmallRng;
use url::Url;

/// Rows of a batch, as the Kafka source hands them over.
pub const BATCH: usize = 8192;
/// Bytes that staged rows may take: the default of a pipeline with one table.
pub const SHARE: usize = 256 << 20;

pub fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("id", DataType::Int64, false),
        Field::new("customer", DataType::Utf8, true),
        Field::new("amount", DataType::Float64, true),
        Field::new("status", DataType::Utf8, true),
        Field::new("ts", DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())), true),
        Field::new("note", DataType::Utf8, true),
    ]))
}

/// The orders of these ids. `turn` makes their other columns different from those of another turn.
pub fn orders(ids: &[i64], turn: u64) -> RecordBatch {
    let mix = |id: i64| (id as u64 ^ turn << 40).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20;
    let text = |make: &dyn Fn(u64) -> String| -> ArrayRef { Arc::new(StringArray::from_iter_values(ids.iter().map(|&id| make(mix(id))))) };
    let statuses = ["new", "paid", "packed", "shipped", "returned"];
    let columns: Vec<ArrayRef> = vec![
        Arc::new(Int64Array::from(ids.to_vec())),
        text(&|x| format!("customer-{:06}", x % 1_000_000)),
        Arc::new(Float64Array::from_iter_values(
            ids.iter().map(|&id| (mix(id) % 1_000_000) as f64 / 100.0),
        )),
        text(&|x| statuses[(x % 5) as usize].to_owned()),
        Arc::new(
            TimestampMicrosecondArray::from_iter_values(ids.iter().map(|&id| 1_790_000_000_000_000 + (mix(id) % 1_000_000_000) as i64))
                .with_timezone("UTC"),
        ),
        text(&|x| format!("note {x:016x} left at the door of the house {}", x % 9_973)),
    ];
    RecordBatch::try_new(schema(), columns).expect("the columns are those of the schema")
}

/// Changes of `count` random keys below `keys`: a tenth of them deletions.
pub fn changes(table: &Table, rng: &mut SmallRng, keys: i64, count: usize, turn: u64) -> Vec<ChangeBatch> {
    let ids: Vec<i64> = (0..count).map(|_| rng.random_range(0..keys)).collect();
    let batch = |ids: &[i64]| {
        let ops = ids
            .iter()
            .map(|id| if (id + turn as i64) % 10 == 0 { Op::Delete } else { Op::Put })
            .collect();
        ChangeBatch {
            table: table.id.clone(),
            rows: orders(ids, turn),
            ops,
            unchanged: None,
            newest_ms: None,
            permit: None,
        }
    };
    ids.chunks(BATCH).map(batch).collect()
}

pub fn table(folder: &Path, mode: Mode) -> Table {
    let location = Url::from_directory_path(folder).expect("an absolute path");
    Table::new(TableId::new("orders"), location, mode, schema())
}

/// Opens a sink as the pipeline does.
pub async fn open(table: &Table, state: &Path) -> DeltaSink {
    let store = store::open(&table.location, &BTreeMap::new()).expect("a folder");
    let log = Log::open_or_create(&table.location, store, table, "bench").await.expect("a table");
    DeltaSink::open(table, log, "bench", SHARE, state).await.expect("a sink")
}

pub fn mark(at: u64) -> Checkpoint {
    [(Lane::new("orders/0"), Position(at))].into_iter().collect()
}

/// Seconds that this process has computed.
pub fn cpu() -> f64 {
    let mut usage = std::mem::MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: the call fills the struct that it is given, which is valid as zeroes already.
    let usage = unsafe {
        libc::getrusage(libc::RUSAGE_SELF, usage.as_mut_ptr());
        usage.assume_init()
    };
    let seconds = |time: libc::timeval| time.tv_sec as f64 + time.tv_usec as f64 / 1e6;
    seconds(usage.ru_utime) + seconds(usage.ru_stime)
}

pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

//! Columns whose types get wider while the changes flow: every version has its own types, and its rows are those of the model.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use alluvium::batch::{ChangeBatch, Op, Unchanged};
use alluvium::error::Kind;
use alluvium::log::{Log, When};
use alluvium::query::{self, Named};
use alluvium::sinks::Sink;
use alluvium::table::{Merge, Mode, TableId, Version};
use arrow::array::{ArrayRef, Int32Array, RecordBatch};
use arrow::buffer::BooleanBuffer;
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::bed::{AMPLE, Bed, mark, texts};

fn list(item: DataType) -> DataType {
    DataType::List(Arc::new(Field::new("element", item, true)))
}

fn object(inner: DataType) -> DataType {
    DataType::Struct(vec![Field::new("n", inner, true)].into())
}

/// Each column's type at first, and the wider one.
fn columns() -> Vec<(&'static str, DataType, DataType)> {
    let decimal = DataType::Decimal128;
    vec![
        ("id", DataType::Int32, DataType::Int64),
        ("i", DataType::Int32, DataType::Int64),
        ("x", DataType::Int32, DataType::Float64),
        ("e", DataType::Int32, decimal(12, 2)),
        ("f", DataType::Float32, DataType::Float64),
        ("p", decimal(5, 2), decimal(9, 4)),
        ("d", decimal(5, 2), decimal(9, 2)),
        ("t", DataType::Date32, DataType::Timestamp(TimeUnit::Microsecond, None)),
        ("l", list(DataType::Int32), list(DataType::Int64)),
        ("s", object(DataType::Int32), object(DataType::Int64)),
    ]
}

/// Small numbers as values of a type.
fn values(kind: &DataType, numbers: &[Option<i32>]) -> ArrayRef {
    let plain: ArrayRef = Arc::new(Int32Array::from(numbers.to_vec()));
    match kind {
        DataType::List(item) => {
            let ends = arrow::buffer::OffsetBuffer::from_lengths(vec![1; numbers.len()]);
            let nulls = plain.nulls().cloned();
            Arc::new(arrow::array::ListArray::new(
                Arc::clone(item),
                ends,
                values(item.data_type(), numbers),
                nulls,
            ))
        }
        DataType::Struct(fields) => {
            let nulls = plain.nulls().cloned();
            let inner = vec![values(fields[0].data_type(), numbers)];
            Arc::new(arrow::array::StructArray::new(fields.clone(), inner, nulls))
        }
        // A number is a day.
        DataType::Timestamp(..) => cast(&values(&DataType::Date32, numbers), kind).unwrap(),
        kind => cast(&plain, kind).unwrap(),
    }
}

/// A row by column; the key is not among its cells.
type Cells = BTreeMap<&'static str, Option<i32>>;

#[derive(Clone, Default)]
struct Model {
    rows: BTreeMap<(i32, u64), Cells>,
    serial: u64,
    wide: BTreeSet<&'static str>,
}

impl Model {
    fn put(&mut self, appends: bool, id: i32, cells: Cells) {
        self.serial += 1;
        self.rows.insert((id, if appends { self.serial } else { 0 }), cells);
    }

    fn schema(&self) -> SchemaRef {
        let kind = |(name, narrow, wide): (&'static str, DataType, DataType)| {
            Field::new(name, if self.wide.contains(name) { wide } else { narrow }, true)
        };
        Arc::new(Schema::new(columns().into_iter().map(kind).collect::<Vec<_>>()))
    }

    fn texts(&self) -> Vec<String> {
        let schema = self.schema();
        let cell = |name: &str, (id, _): &(i32, u64), cells: &Cells| if name == "id" { Some(*id) } else { cells[name] };
        let column = |field: &Arc<Field>| {
            let numbers: Vec<_> = self.rows.iter().map(|(id, cells)| cell(field.name(), id, cells)).collect();
            values(field.data_type(), &numbers)
        };
        let arrays = schema.fields().iter().map(column).collect();
        let mut rows = texts(&RecordBatch::try_new(Arc::clone(&schema), arrays).unwrap());
        rows.sort();
        rows
    }
}

/// Changes as a source tells them that knows the wide types of some columns.
fn batch(rng: &mut SmallRng, model: &mut Model, appends: bool, wide: &BTreeSet<&'static str>) -> ChangeBatch {
    let (mut ops, mut ids) = (Vec::new(), Vec::new());
    let mut cells: BTreeMap<&str, Vec<Option<i32>>> = columns().iter().map(|(name, ..)| (*name, Vec::new())).collect();
    let mut unsent: BTreeMap<usize, Vec<bool>> = BTreeMap::new();
    for _ in 0..rng.random_range(1..8) {
        let id = rng.random_range(0..60);
        let before = model.rows.get(&(id, 0)).cloned();
        let delete = !appends && rng.random_bool(0.25);
        let mut row = Cells::new();
        for (place, (name, ..)) in columns().iter().enumerate().skip(1) {
            let unchanged = !delete && before.is_some() && rng.random_bool(0.2);
            let value = (!delete && rng.random_bool(0.8)).then(|| rng.random_range(-100..100));
            cells.get_mut(name).unwrap().push(if unchanged { Some(77) } else { value });
            unsent.entry(place).or_default().push(unchanged);
            row.insert(name, if unchanged { before.as_ref().unwrap()[name] } else { value });
        }
        ids.push(Some(id));
        ops.push(if delete { Op::Delete } else { Op::Put });
        if delete {
            model.rows.remove(&(id, 0));
        } else {
            model.put(appends, id, row);
        }
    }
    cells.insert("id", ids);
    model.wide.extend(wide);
    let told = Model {
        wide: wide.clone(),
        ..Model::default()
    };
    let schema = told.schema();
    let arrays = schema
        .fields()
        .iter()
        .map(|field| values(field.data_type(), &cells[field.name().as_str()]));
    let unsent = unsent.into_iter().filter(|(_, cells)| cells.contains(&true));
    let unsent: BTreeMap<usize, BooleanBuffer> = unsent.map(|(place, cells)| (place, cells.into())).collect();
    ChangeBatch {
        table: TableId::new("orders"),
        rows: RecordBatch::try_new(Arc::clone(&schema), arrays.collect()).unwrap(),
        ops,
        unchanged: (!unsent.is_empty()).then_some(Unchanged(unsent)),
        newest_ms: None,
        permit: None,
    }
}

/// What `alluvium query` reads at a version: its columns, and each row as one text.
async fn read(bed: &Bed, sql: &str, version: Version) -> (SchemaRef, Vec<String>) {
    let table = Named {
        name: "orders".to_owned(),
        url: bed.table.location.clone(),
        store: Arc::clone(&bed.store),
    };
    let rows = query::query(sql, &[table], &When::Version(version)).await.unwrap();
    let schema = Arc::clone(&rows.schema);
    let mut read: Vec<String> = rows.collect().await.unwrap().iter().flat_map(texts).collect();
    read.sort();
    (schema, read)
}

fn bed(mode: Mode) -> Bed {
    let mut bed = Bed::new(Model::default().schema(), mode);
    bed.table.type_widening = true;
    bed.table.properties.insert("delta.checkpointInterval".to_owned(), "5".to_owned());
    bed
}

fn upsert(merge: Merge) -> Mode {
    let key = vec!["id".to_owned()];
    Mode::Upsert { key, merge }
}

/// Whether a version was made by a compaction.
async fn run(seed: u64, mode: Mode) -> bool {
    let (mut rng, appends) = (SmallRng::seed_from_u64(seed), mode == Mode::Append);
    let mut bed = bed(mode.clone());
    if appends && seed.is_multiple_of(2) {
        bed.table.partition_by = vec!["id".to_owned(), "d".to_owned()];
    }
    let share = [1, 2_000, AMPLE][rng.random_range(0..3)];
    let mut sink = bed.open(share).await;
    let mut model = Model::default();
    let mut versions: Vec<(Version, Model)> = Vec::new();
    for turn in 0..24_u64 {
        let chance = if turn < 8 { 0.0 } else { 0.15 };
        for _ in 0..rng.random_range(0..4) {
            let all = columns();
            let wide = all.iter().filter(|_| rng.random_bool(chance)).map(|(name, ..)| *name).collect();
            let changes = batch(&mut rng, &mut model, appends, &wide);
            sink.write(changes).await.unwrap();
        }
        let version = sink.commit(&mark(&[("a/0", turn)])).await.unwrap();
        versions.push((version, model.clone()));
        while let Some(upkeep) = sink.upkeep() {
            upkeep.work.await.unwrap();
            if rng.random_bool(0.5) {
                break;
            }
        }
        if rng.random_bool(0.3) {
            if rng.random_bool(0.5) {
                // The index is saved; else it is made from the files again.
                sink.close();
            } else {
                drop(sink);
                let _ = std::fs::remove_dir_all(bed.state());
            }
            sink = bed.open(share).await;
        }
    }
    let made: BTreeSet<Version> = versions.iter().map(|(version, _)| *version).collect();
    let compacted = made.len() < versions.last().unwrap().0 as usize;
    for (version, model) in versions {
        let told = format!("seed {seed}, {mode:?}, version {version}");
        let (schema, rows) = read(&bed, "select * from orders", version).await;
        let kinds = |schema: &Schema| schema.fields().iter().map(|field| field.data_type().clone()).collect::<Vec<_>>();
        let expected = model.schema();
        assert_eq!(schema.fields().len(), expected.fields().len());
        for (read, expected) in kinds(&schema).iter().zip(kinds(&expected)) {
            assert!(read.equals_datatype(&expected), "{told}: {read} for {expected}");
        }
        assert_eq!(rows, model.texts(), "{told}");
    }
    compacted
}

async fn run_all(seeds: std::ops::Range<u64>, mode: Mode) {
    let mut compacted = 0;
    for seed in seeds {
        compacted += usize::from(run(seed, mode.clone()).await);
    }
    assert!(compacted > 0, "no files were compacted");
}

#[tokio::test]
async fn s9_an_upsert_table_widens_its_columns_with_their_source() {
    run_all(0..8, upsert(Merge::Vectors)).await;
}

#[tokio::test]
async fn s9_so_does_one_without_deletion_vectors() {
    run_all(100..106, upsert(Merge::Rewrite)).await;
}

#[tokio::test]
async fn s9_so_does_an_append_table() {
    run_all(200..208, Mode::Append).await;
}

/// One row with this column.
fn one(name: &str, kind: &DataType, number: i32) -> ChangeBatch {
    let fields = vec![Field::new("id", DataType::Int32, false), Field::new(name, kind.clone(), true)];
    let arrays = vec![values(&DataType::Int32, &[Some(number)]), values(kind, &[Some(number)])];
    ChangeBatch::puts(
        TableId::new("orders"),
        RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays).unwrap(),
    )
}

#[tokio::test]
async fn s9_queries_look_for_rows_by_values_of_files_with_narrower_statistics() {
    for (name, narrow, wide) in columns().into_iter().skip(1).take(7) {
        let bed = bed(Mode::Append);
        let mut sink = bed.open(AMPLE).await;
        for (turn, kind) in [&narrow, &narrow, &wide].into_iter().enumerate() {
            sink.write(one(name, kind, 10 + turn as i32)).await.unwrap();
            sink.commit(&mark(&[("a/0", turn as u64)])).await.unwrap();
        }
        let literal = if name == "t" { "timestamp '1970-01-12'" } else { "11" };
        for (condition, ids) in [("=", vec!["11"]), (">=", vec!["11", "12"]), ("<", vec!["10"])] {
            let sql = format!("select id from orders where \"{name}\" {condition} {literal}");
            assert_eq!(read(&bed, &sql, 3).await.1, ids, "{sql}");
        }
    }
}

#[tokio::test]
async fn s9_without_the_option_the_table_stops_and_is_told_of_it_and_with_it_the_table_goes_on() {
    for mode in [Mode::Append, upsert(Merge::Vectors)] {
        let mut bed = bed(mode);
        bed.table.type_widening = false;
        let mut sink = bed.open(AMPLE).await;
        sink.write(one("i", &DataType::Int32, 1)).await.unwrap();
        sink.commit(&mark(&[("a/0", 0)])).await.unwrap();
        let error = sink.write(one("i", &DataType::Int64, 2)).await.unwrap_err();
        assert_eq!((error.kind, error.code), (Kind::Data, "schema_changed"), "{error}");
        assert!(
            error.to_string().contains("`i` is Int32 in the table and Int64 here")
                && error.to_string().contains("set `type_widening = true`"),
            "{error}"
        );
        bed.table.type_widening = true;
        let mut sink = bed.open(AMPLE).await;
        sink.write(one("i", &DataType::Int64, 2)).await.unwrap();
        let version = sink.commit(&mark(&[("a/0", 1)])).await.unwrap();
        assert_eq!(read(&bed, "select id, i from orders", version).await.1, ["1|1", "2|2"]);
        // Without the option nothing is widened any more, and what was widened stays.
        bed.table.type_widening = false;
        let mut sink = bed.open(AMPLE).await;
        sink.write(one("i", &DataType::Int64, 3)).await.unwrap();
        sink.write(one("d", &DataType::Decimal128(9, 2), 3)).await.unwrap_err();
    }
}

#[tokio::test]
async fn s9_the_feature_comes_with_the_first_column_that_needs_it() {
    let bed = bed(upsert(Merge::Vectors));
    let mut sink = bed.open(AMPLE).await;
    sink.write(one("i", &DataType::Int32, 1)).await.unwrap();
    sink.commit(&mark(&[("a/0", 0)])).await.unwrap();
    let before = bed.library(None).await;
    assert!(
        before.table_provider().await.is_ok(),
        "readers that do not know the feature read the versions before"
    );
    sink.write(one("t", &DataType::Timestamp(TimeUnit::Microsecond, None), 2))
        .await
        .unwrap();
    sink.commit(&mark(&[("a/0", 1)])).await.unwrap();
    let log = Log::open(&bed.table.location, Arc::clone(&bed.store), "").await.unwrap().unwrap();
    let protocol = &log.snapshot().protocol;
    for features in [&protocol.reader_features, &protocol.writer_features] {
        let features = features.as_ref().unwrap();
        for feature in ["deletionVectors", "typeWidening", "timestampNtz"] {
            assert!(features.iter().any(|name| name == feature), "{features:?}");
        }
    }
    assert_eq!(log.snapshot().properties["delta.enableTypeWidening"], "true");
    let refused = bed.library(None).await.table_provider().await.map(drop).unwrap_err().to_string();
    assert!(refused.contains("TypeWidening"), "the library reads them by now: {refused}");
}

#[tokio::test]
async fn s9_of_two_writers_each_follows_what_the_other_widened() {
    for mode in [Mode::Append, upsert(Merge::Vectors), upsert(Merge::Rewrite)] {
        let bed = bed(mode);
        let (mut first, mut second) = (bed.open(AMPLE).await, bed.open(AMPLE).await);
        first.write(one("i", &DataType::Int64, 1)).await.unwrap();
        second.write(one("d", &DataType::Decimal128(9, 2), 2)).await.unwrap();
        first.commit(&mark(&[("a/0", 0)])).await.unwrap();
        second.write(one("i", &DataType::Int32, 3)).await.unwrap();
        second.commit(&mark(&[("a/1", 0)])).await.unwrap();
        first.write(one("d", &DataType::Decimal128(5, 2), 4)).await.unwrap();
        let version = first.commit(&mark(&[("a/0", 1)])).await.unwrap();
        let rows = ["1|1|NULL", "2|NULL|2.00", "3|3|NULL", "4|NULL|4.00"];
        assert_eq!(read(&bed, "select id, i, d from orders", version).await.1, rows);
    }
}

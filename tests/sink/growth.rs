//! Columns that come, go, and let in nulls while the changes flow.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use alluvium::batch::{ChangeBatch, Op, Unchanged};
use alluvium::error::Kind;
use alluvium::sinks::Sink;
use alluvium::table::{Merge, Mode, TableId, Version};
use arrow::array::{ArrayRef, Date32Array, Decimal128Array, Int32Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::buffer::BooleanBuffer;
use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef, TimeUnit};
use deltalake::kernel::{DataType as Delta, StructField};
use object_store::ObjectStoreExt;
use rand::rngs::SmallRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};

use super::bed::{AMPLE, Bed, mark};

/// The table as it is made: a key, a partition, and a column that is never null at first.
fn first_columns() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("id", DataType::Int64, false),
        Field::new("part", DataType::Utf8, true),
        Field::new("c0", DataType::Utf8, false),
    ]))
}

/// A row's cells by column; null is not there.
type Cells = BTreeMap<String, String>;

/// What the table must be. An append table keeps every row, under a number of its own.
#[derive(Clone, Default)]
struct Model {
    appends: bool,
    rows: BTreeMap<(i64, u64), Cells>,
    serial: u64,
    columns: BTreeSet<String>,
}

impl Model {
    fn put(&mut self, id: i64, cells: Cells) {
        self.serial += 1;
        let key = if self.appends { (id, self.serial) } else { (id, 0) };
        self.rows.insert(key, cells);
    }

    /// Each row as one text of these columns, sorted.
    fn texts(&self, columns: &[String]) -> Vec<String> {
        let cell = |id: i64, cells: &Cells, name: &String| match name.as_str() {
            "id" => id.to_string(),
            name => cells.get(name).cloned().unwrap_or_else(|| "NULL".to_owned()),
        };
        let row = |((id, _), cells): (&(i64, u64), &Cells)| columns.iter().map(|name| cell(*id, cells, name)).collect::<Vec<_>>().join("|");
        let mut rows: Vec<String> = self.rows.iter().map(row).collect();
        rows.sort();
        rows
    }
}

/// A producer that knows some of the columns, and hands them over in an order of its own.
fn batch(rng: &mut SmallRng, model: &mut Model, ids: &[i64], known: &[String]) -> ChangeBatch {
    let mut names: Vec<String> = known.to_vec();
    names.shuffle(rng);
    let (mut ops, mut keys) = (Vec::new(), Vec::new());
    let mut columns: Vec<Vec<Option<String>>> = vec![Vec::new(); names.len()];
    let mut unsent: Vec<Vec<bool>> = vec![Vec::new(); names.len()];
    for _ in 0..rng.random_range(1..6) {
        let id = ids[rng.random_range(0..ids.len())];
        let delete = !model.appends && rng.random_bool(0.25);
        let before = model.rows.get(&(id, 0)).cloned();
        let mut cells = Cells::new();
        for (place, name) in names.iter().enumerate() {
            // Only a row that is there can be updated in part.
            let unchanged = !delete && name != "part" && before.is_some() && rng.random_bool(0.2);
            let value = (rng.random_bool(0.8) && !delete).then(|| format!("{name} {}", rng.random_range(0..1000)));
            let kept = if unchanged {
                before.as_ref().and_then(|before| before.get(name).cloned())
            } else {
                value.clone()
            };
            columns[place].push(if unchanged { Some("never to be seen".to_owned()) } else { value });
            unsent[place].push(unchanged);
            cells.extend(kept.map(|value| (name.clone(), value)));
        }
        keys.push(id);
        if delete {
            ops.push(Op::Delete);
            model.rows.remove(&(id, 0));
        } else {
            ops.push(Op::Put);
            model.put(id, cells);
        }
    }
    model.columns.extend(names.iter().cloned());
    let id_place = rng.random_range(0..=names.len());
    let required = rng.random_bool(0.5);
    let mut fields: Vec<FieldRef> = names
        .iter()
        .zip(&columns)
        .map(|(name, cells)| Arc::new(Field::new(name, DataType::Utf8, !required || cells.iter().any(Option::is_none))))
        .collect();
    let mut arrays: Vec<ArrayRef> = columns
        .into_iter()
        .map(|cells| Arc::new(StringArray::from(cells)) as ArrayRef)
        .collect();
    fields.insert(id_place, Arc::new(Field::new("id", DataType::Int64, false)));
    arrays.insert(id_place, Arc::new(Int64Array::from(keys)));
    let masks = unsent.into_iter().enumerate().filter(|(_, cells)| cells.contains(&true));
    let masks: BTreeMap<usize, BooleanBuffer> = masks
        .map(|(place, cells)| (if place < id_place { place } else { place + 1 }, BooleanBuffer::from(cells)))
        .collect();
    ChangeBatch {
        table: TableId::new("orders"),
        rows: RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays).unwrap(),
        ops,
        unchanged: (!masks.is_empty()).then_some(Unchanged(masks)),
        newest_ms: None,
        permit: None,
    }
}

/// The columns of a version, as the library tells them.
async fn columns_at(bed: &Bed, version: Version) -> Vec<String> {
    let table = bed.library(Some(version)).await;
    let schema = table.snapshot().unwrap().schema();
    schema.fields().map(|field| field.name().clone()).collect()
}

async fn run(seed: u64, mode: Mode, partitioned: bool, writers: usize) {
    let mut rng = SmallRng::seed_from_u64(seed);
    let mut bed = Bed::new(first_columns(), mode.clone());
    if partitioned {
        bed.table.partition_by = vec!["part".to_owned()];
    }
    let share = [1, 3_000, AMPLE][rng.random_range(0..3)];
    let mut sinks = Vec::new();
    for _ in 0..writers {
        sinks.push(bed.open(share).await);
    }
    let mut model = Model {
        appends: mode == Mode::Append,
        ..Model::default()
    };
    // What a version shows is what every writer has committed.
    let mut published = vec![model.clone(); writers];
    let mut staged = published.clone();
    let mut universe: Vec<String> = ["part", "c0"].map(str::to_owned).to_vec();
    let mut versions: Vec<(Version, Vec<Model>)> = Vec::new();
    for turn in 0..12_u64 {
        if rng.random_bool(0.3) {
            universe.push(format!("c{}", universe.len()));
        }
        let who = rng.random_range(0..writers);
        let ids: Vec<i64> = (0..6).map(|id| id * writers as i64 + who as i64).collect();
        for _ in 0..rng.random_range(0..4) {
            // Old producers know fewer columns; some have dropped others.
            let known: Vec<String> = universe.iter().filter(|_| rng.random_bool(0.7)).cloned().collect();
            let changes = batch(&mut rng, &mut staged[who], &ids, &known);
            sinks[who].write(changes).await.unwrap();
        }
        let version = sinks[who].commit(&mark(&[(["a/0", "a/1"][who], turn)])).await.unwrap();
        published[who] = staged[who].clone();
        versions.push((version, published.clone()));
        if rng.random_bool(0.25) {
            sinks[who] = bed.open(share).await;
        }
    }
    model.columns.clear();
    let mut before: Vec<String> = vec!["id".to_owned(), "part".to_owned(), "c0".to_owned()];
    for (version, models) in versions {
        let columns = columns_at(&bed, version).await;
        let told = format!("seed {seed}, {mode:?}, partitioned {partitioned}, version {version}");
        assert_eq!(columns[..before.len()], before, "{told}: columns are only added");
        let mut seen: BTreeSet<String> = ["id", "part", "c0"].map(str::to_owned).into();
        seen.extend(models.iter().flat_map(|model| model.columns.iter().cloned()));
        assert_eq!(columns.iter().cloned().collect::<BTreeSet<_>>(), seen, "{told}");
        let mut expected: Vec<String> = models.iter().flat_map(|model| model.texts(&columns)).collect();
        expected.sort();
        assert_eq!(bed.columns_of_rows_at(&columns, version).await, expected, "{told}");
        before = columns;
    }
}

fn upsert(merge: Merge) -> Mode {
    Mode::Upsert {
        key: vec!["id".to_owned()],
        merge,
    }
}

#[tokio::test]
async fn s5_s7_s13_an_upsert_table_follows_columns_that_come_and_go() {
    for seed in 0..40 {
        run(seed, upsert(Merge::Vectors), false, 1).await;
    }
}

#[tokio::test]
async fn s5_s7_s13_so_does_one_without_deletion_vectors() {
    for seed in 100..125 {
        run(seed, upsert(Merge::Rewrite), false, 1).await;
    }
}

#[tokio::test]
async fn s5_s7_s13_so_do_append_tables_partitioned_or_not() {
    for seed in 200..225 {
        run(seed, Mode::Append, seed % 2 == 0, 1).await;
    }
}

#[tokio::test]
async fn s5_s13_two_writers_follow_their_sources_and_each_other() {
    for seed in 300..330 {
        run(seed, upsert([Merge::Vectors, Merge::Rewrite][seed as usize % 2]), false, 2).await;
    }
    for seed in 400..415 {
        run(seed, Mode::Append, seed % 2 == 0, 2).await;
    }
}

/// Puts of ids with one further column.
fn with_column(field: Field, values: ArrayRef) -> ChangeBatch {
    let rows = values.len();
    let fields = vec![
        Field::new("id", DataType::Int64, false),
        Field::new("c0", DataType::Utf8, false),
        field,
    ];
    let ids: ArrayRef = Arc::new(Int64Array::from_iter_values(0..rows as i64));
    let c0: ArrayRef = Arc::new(StringArray::from(vec!["x"; rows]));
    ChangeBatch::puts(
        TableId::new("orders"),
        RecordBatch::try_new(Arc::new(Schema::new(fields)), vec![ids, c0, values]).unwrap(),
    )
}

fn text(value: &str) -> ArrayRef {
    Arc::new(StringArray::from(vec![value]))
}

#[tokio::test]
async fn s5_the_column_comes_with_the_version_of_its_first_row_and_the_commit_tells_of_it() {
    let bed = Bed::new(first_columns(), upsert(Merge::Vectors));
    let mut sink = bed.open(AMPLE).await;
    sink.commit(&mark(&[("a/0", 0)])).await.unwrap();
    sink.write(with_column(Field::new("new", DataType::Utf8, false), text("first")))
        .await
        .unwrap();
    assert_eq!(columns_at(&bed, 1).await, ["id", "part", "c0"]);
    let version = sink.commit(&mark(&[("a/0", 1)])).await.unwrap();
    assert_eq!(columns_at(&bed, version).await, ["id", "part", "c0", "new"]);
    let commit = bed
        .store
        .get(&"_delta_log/00000000000000000002.json".into())
        .await
        .unwrap()
        .bytes()
        .await
        .unwrap();
    let lines: Vec<serde_json::Value> = String::from_utf8(commit.to_vec())
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let said: serde_json::Value = serde_json::from_str(lines[0]["commitInfo"]["userMetadata"].as_str().unwrap()).unwrap();
    let column = serde_json::json!([{"name": "new", "type": "string", "nullable": true, "metadata": {}}]);
    assert_eq!(said["notes"]["columnsAdded"], column);
    assert_eq!(lines.iter().filter(|line| line.get("metaData").is_some()).count(), 1);
    // The next commit has nothing to add.
    sink.write(with_column(Field::new("new", DataType::Utf8, false), text("second")))
        .await
        .unwrap();
    sink.commit(&mark(&[("a/0", 2)])).await.unwrap();
    let commit = bed
        .store
        .get(&"_delta_log/00000000000000000003.json".into())
        .await
        .unwrap()
        .bytes()
        .await
        .unwrap();
    assert!(!String::from_utf8(commit.to_vec()).unwrap().contains("metaData"));
}

#[tokio::test]
async fn s9_s10_v17_what_the_table_cannot_follow_stops_it_with_the_reason() {
    let cases: [(Field, ArrayRef, &str); 3] = [
        (
            Field::new("part", DataType::Int32, true),
            Arc::new(Int32Array::from(vec![1])),
            "`part` is Utf8 in the table and Int32 here",
        ),
        (Field::new("PART", DataType::Utf8, true), text("x"), "in case only"),
        (Field::new("a b", DataType::Utf8, true), text("x"), "does not allow"),
    ];
    for (field, values, part) in cases {
        let bed = Bed::new(first_columns(), upsert(Merge::Vectors));
        let mut sink = bed.open(AMPLE).await;
        let error = sink.write(with_column(field, values)).await.unwrap_err();
        assert_eq!((error.kind, error.code), (Kind::Data, "schema_changed"));
        assert!(
            error.to_string().contains(part) && error.to_string().contains("another `location`"),
            "{error}"
        );
    }
}

#[tokio::test]
async fn s10_values_that_the_column_holds_go_in_and_keys_of_another_width_are_the_same_keys() {
    let int = |value: i32| Arc::new(Int32Array::from(vec![value])) as ArrayRef;
    let decimal = |value: i128, (precision, scale)| {
        let values = Decimal128Array::from(vec![value]).with_precision_and_scale(precision, scale);
        Arc::new(values.unwrap()) as ArrayRef
    };
    let local = DataType::Timestamp(TimeUnit::Microsecond, None);
    // The column, a value in its own type, values in others that are the same key, and how it is shown.
    let cases: [(DataType, ArrayRef, ArrayRef, &str); 3] = [
        (DataType::Int64, Arc::new(Int64Array::from(vec![7])), int(7), "7"),
        (DataType::Decimal128(12, 2), decimal(750, (12, 2)), decimal(75, (5, 1)), "7.50"),
        (
            local,
            Arc::new(TimestampMicrosecondArray::from(vec![86_400_000_000])),
            Arc::new(Date32Array::from(vec![1])),
            "1970-01-02T00:00:00",
        ),
    ];
    for (kind, own, other, shown) in cases {
        let columns = vec![Field::new("k", kind, false), Field::new("n", DataType::Int32, true)];
        let mode = Mode::Upsert {
            key: vec!["k".to_owned()],
            merge: Merge::Vectors,
        };
        let bed = Bed::new(Arc::new(Schema::new(columns)), mode);
        let mut sink = bed.open(AMPLE).await;
        for (turn, key) in [&own, &other, &own].into_iter().enumerate() {
            let fields = vec![
                Field::new("k", key.data_type().clone(), false),
                Field::new("n", DataType::Int32, true),
            ];
            let rows = RecordBatch::try_new(Arc::new(Schema::new(fields)), vec![Arc::clone(key), int(turn as i32)]).unwrap();
            sink.write(ChangeBatch::puts(TableId::new("orders"), rows)).await.unwrap();
            let version = sink.commit(&mark(&[("a/0", turn as u64)])).await.unwrap();
            assert_eq!(bed.rows_at(version).await, [format!("{shown}|{turn}")]);
        }
    }
}

#[tokio::test]
async fn c10_of_two_writers_with_another_type_for_one_column_the_second_stops() {
    for mode in [Mode::Append, upsert(Merge::Vectors)] {
        let bed = Bed::new(first_columns(), mode);
        let (mut one, mut other) = (bed.open(AMPLE).await, bed.open(AMPLE).await);
        one.write(with_column(Field::new("new", DataType::Utf8, true), text("x")))
            .await
            .unwrap();
        other
            .write(with_column(
                Field::new("new", DataType::Int32, true),
                Arc::new(Int32Array::from(vec![1])),
            ))
            .await
            .unwrap();
        one.commit(&mark(&[("a/0", 1)])).await.unwrap();
        let error = other.commit(&mark(&[("a/1", 1)])).await.unwrap_err();
        assert_eq!((error.kind, error.code), (Kind::Data, "schema_changed"), "{error}");
        assert!(error.to_string().contains("`new` is Utf8 in the table and Int32 here"), "{error}");
        assert_eq!(bed.library(None).await.version(), Some(1), "nothing was published");
    }
}

#[tokio::test]
async fn a_column_that_an_operator_adds_is_null_in_rows_of_the_source() {
    let bed = Bed::new(first_columns(), upsert(Merge::Vectors));
    let mut sink = bed.open(AMPLE).await;
    sink.write(with_column(Field::new("part", DataType::Utf8, true), text("a")))
        .await
        .unwrap();
    let note = StructField::nullable("note", Delta::STRING);
    bed.library(None).await.add_columns().with_fields(vec![note]).await.unwrap();
    let version = sink.commit(&mark(&[("a/0", 1)])).await.unwrap();
    let columns = columns_at(&bed, version).await;
    assert_eq!(columns, ["id", "part", "c0", "note"]);
    assert_eq!(bed.columns_of_rows_at(&columns, version).await, ["0|a|x|NULL"]);
}

#[tokio::test]
async fn a_timestamp_without_zone_brings_its_feature_and_both_writers_go_on() {
    let micros = |at: i64| Arc::new(arrow::array::TimestampMicrosecondArray::from(vec![at])) as ArrayRef;
    let field = || Field::new("at", micros(0).data_type().clone(), true);
    for mode in [Mode::Append, upsert(Merge::Rewrite)] {
        let bed = Bed::new(first_columns(), mode);
        let (mut one, mut other) = (bed.open(AMPLE).await, bed.open(AMPLE).await);
        one.write(with_column(field(), micros(1))).await.unwrap();
        other.write(with_column(field(), micros(2))).await.unwrap();
        one.commit(&mark(&[("a/0", 1)])).await.unwrap();
        let version = other.commit(&mark(&[("a/1", 1)])).await.unwrap();
        let library = bed.library(None).await;
        assert_eq!(library.snapshot().unwrap().protocol().min_reader_version(), 3);
        let at = |micros: i64| format!("0|NULL|x|1970-01-01T00:00:00.00000{micros}");
        let expected = if bed.table.mode == Mode::Append {
            vec![at(1), at(2)]
        } else {
            vec![at(2)]
        };
        assert_eq!(bed.columns_of_rows_at(&columns_at(&bed, version).await, version).await, expected);
    }
}

//! Tables for tests: data files with known rows, the Delta library as a second opinion, and its other writers.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use alluvium::log::{Change, Log, NewFile, Snapshot};
use alluvium::position::{Checkpoint, Lane, Position};
use alluvium::table::{Merge, Mode, Table, TableId};
use arrow::array::{Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use deltalake::datafusion::prelude::SessionContext;
use deltalake::kernel::Action;
use deltalake::{DeltaTable, DeltaTableBuilder};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use parquet::arrow::ArrowWriter;
use roaring::RoaringTreemap;
use url::Url;

pub const PIPELINE: &str = "shop";

pub fn url() -> Url {
    Url::parse("memory://lake/orders/").expect("a URL")
}

pub fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("id", DataType::Int64, false),
        Field::new("v", DataType::Utf8, true),
    ]))
}

pub fn table(mode: Mode) -> Table {
    Table::new(TableId::new("orders"), url(), mode, schema())
}

pub fn append_table() -> Table {
    table(Mode::Append)
}

pub fn upsert_table() -> Table {
    table(Mode::Upsert {
        key: vec!["id".to_owned()],
        merge: Merge::Vectors,
    })
}

pub async fn opened(store: &Arc<dyn ObjectStore>, table: &Table) -> Log {
    Log::open_or_create(&url(), Arc::clone(store), table, PIPELINE)
        .await
        .expect("the table opens")
}

/// A checkpoint as people write it: `mark(&[("orders/0", 41)])`.
pub fn mark(lanes: &[(&str, u64)]) -> Checkpoint {
    lanes.iter().map(|(lane, at)| (Lane::new(*lane), Position(*at))).collect()
}

/// A change that moves `lane` from `base` to `to`, with nothing in it yet.
pub fn change(base: Option<u64>, to: u64) -> Change {
    Change {
        mark: mark(&[("orders/0", to)]),
        base: base.map(|base| mark(&[("orders/0", base)])).unwrap_or_default(),
        operation: "STREAMING UPDATE",
        ..Change::default()
    }
}

/// The rows of these ids, each with the text `tag` and its id.
pub fn rows(ids: std::ops::Range<i64>, tag: &str) -> RecordBatch {
    let texts = StringArray::from_iter_values(ids.clone().map(|id| format!("{tag}{id}")));
    RecordBatch::try_new(schema(), vec![Arc::new(Int64Array::from_iter_values(ids)), Arc::new(texts)]).expect("columns fit")
}

/// Writes a data file of these rows into the store.
pub async fn data_file(store: &Arc<dyn ObjectStore>, ids: std::ops::Range<i64>, tag: &str) -> NewFile {
    let batch = rows(ids.clone(), tag);
    let mut bytes = Vec::new();
    let mut writer = ArrowWriter::try_new(&mut bytes, schema(), None).expect("a writer");
    writer.write(&batch).expect("rows");
    writer.close().expect("an end");
    let path = format!("part-{}.parquet", uuid::Uuid::new_v4());
    let size = bytes.len() as u64;
    store.put(&Path::from(path.as_str()), bytes.into()).await.expect("the file is put");
    NewFile {
        size,
        path: path.into(),
        ..made_up_file(ids)
    }
}

/// A data file of which only the log will know.
pub fn made_up_file(ids: std::ops::Range<i64>) -> NewFile {
    let (first, last, rows) = (ids.start, ids.end - 1, ids.end - ids.start);
    let stats = format!(r#"{{"numRecords":{rows},"minValues":{{"id":{first}}},"maxValues":{{"id":{last}}},"nullCount":{{"id":0,"v":0}}}}"#);
    NewFile {
        path: format!("part-{}.parquet", uuid::Uuid::new_v4()).into(),
        size: 1000,
        rows: rows as u64,
        partition_values: BTreeMap::new(),
        stats: stats.into(),
        deleted: RoaringTreemap::new(),
    }
}

pub fn row_numbers(rows: impl IntoIterator<Item = u64>) -> RoaringTreemap {
    rows.into_iter().collect()
}

/// The table as the Delta library opens it.
pub async fn library(store: &Arc<dyn ObjectStore>) -> DeltaTable {
    library_at(store, None).await
}

pub async fn library_at(store: &Arc<dyn ObjectStore>, version: Option<u64>) -> DeltaTable {
    let root = Url::parse(&format!("memory://{}/", uuid::Uuid::new_v4().simple())).expect("a URL");
    let mut builder = DeltaTableBuilder::from_url(root.clone())
        .expect("a URL")
        .with_storage_backend(Arc::clone(store), root);
    if let Some(version) = version {
        builder = builder.with_version(version);
    }
    builder.load().await.expect("the library opens the table")
}

/// The rows of the table, by id, as DataFusion reads them.
pub async fn rows_of(table: DeltaTable) -> BTreeMap<i64, String> {
    let context = SessionContext::new();
    table.update_datafusion_session(&context.state()).expect("its store is known");
    context
        .register_table("t", table.table_provider().await.expect("a provider"))
        .expect("a table");
    let batches = context
        .sql("select id, cast(v as string) v from t")
        .await
        .expect("a query")
        .collect()
        .await
        .expect("rows");
    let mut found = BTreeMap::new();
    for batch in batches {
        let ids = batch.column(0).as_any().downcast_ref::<Int64Array>().expect("ids").clone();
        let texts = arrow::compute::cast(batch.column(1), &DataType::Utf8).expect("texts");
        let texts = texts.as_any().downcast_ref::<StringArray>().expect("texts").clone();
        for row in 0..batch.num_rows() {
            assert!(
                found.insert(ids.value(row), texts.value(row).to_owned()).is_none(),
                "id {} is there twice",
                ids.value(row)
            );
        }
    }
    found
}

/// What two readers of a log must agree on: version, files with the cardinality of their vectors, marks.
#[derive(Debug, PartialEq)]
pub struct Facts {
    version: u64,
    table_id: String,
    files: BTreeMap<String, (i64, u64, Option<u64>)>,
    marks: BTreeMap<String, i64>,
    columns: BTreeSet<String>,
}

pub fn facts_of(snapshot: &Snapshot) -> Facts {
    let marks = snapshot.marks.iter().flat_map(|(pipeline, checkpoint)| {
        checkpoint
            .iter()
            .map(move |(lane, at)| (format!("alluvium/{pipeline}/{}", lane.as_str()), at.0 as i64))
            .collect::<Vec<_>>()
    });
    let file = |file: &alluvium::log::LiveFile| (file.size as i64, file.deleted(), file.rows);
    Facts {
        version: snapshot.version,
        table_id: snapshot.table_id.clone(),
        files: snapshot.files.values().map(|live| (live.path.to_string(), file(live))).collect(),
        marks: marks.collect(),
        columns: snapshot.schema.fields().iter().map(|field| field.name().clone()).collect(),
    }
}

/// The same facts, as the Delta library sees them. It tells marks by name only: those in `lanes` are asked for.
pub async fn facts_of_library(table: &DeltaTable, lanes: &BTreeMap<String, i64>) -> Facts {
    let snapshot = table.snapshot().expect("a state");
    let data = snapshot.log_data();
    let files = data.iter().map(|file| {
        let deleted = file.deletion_vector_descriptor().map_or(0, |vector| vector.cardinality as u64);
        (
            file.path().to_string(),
            (file.size(), deleted, file.num_records().map(|rows| rows as u64)),
        )
    });
    let files = files.collect();
    let mut marks = BTreeMap::new();
    for lane in lanes.keys() {
        if let Some(at) = snapshot.transaction_version(table.log_store().as_ref(), lane).await.expect("marks") {
            marks.insert(lane.clone(), at);
        }
    }
    Facts {
        version: table.version().expect("a version"),
        table_id: snapshot.metadata().id().to_owned(),
        files,
        marks,
        columns: snapshot.schema().fields().map(|field| field.name().clone()).collect(),
    }
}

/// Compares the state in memory with what the library reads from the store.
pub async fn assert_replays(log: &Log, store: &Arc<dyn ObjectStore>) {
    let ours = facts_of(log.snapshot());
    let theirs = facts_of_library(&library(store).await, &ours.marks).await;
    assert_eq!(ours, theirs, "the state in memory differs from the library's");
    let again = Log::open(log.url(), Arc::clone(store), PIPELINE)
        .await
        .expect("opens")
        .expect("a table");
    assert_eq!(
        ours,
        facts_of(again.snapshot()),
        "the state in memory differs from the replayed one"
    );
}

/// A table of another program, as its log says it: `{"protocol": …}`'s and the columns' JSON, and its properties.
pub async fn by_hand(protocol: &str, columns: &[&str], properties: &[(&str, &str)]) -> Arc<dyn ObjectStore> {
    let store: Arc<dyn ObjectStore> = Arc::new(object_store::memory::InMemory::new());
    let metadata = serde_json::json!({"metaData": {
        "id": "by-hand",
        "format": {"provider": "parquet", "options": {}},
        "schemaString": format!(r#"{{"type":"struct","fields":[{}]}}"#, columns.join(",")),
        "partitionColumns": [],
        "configuration": properties.iter().copied().collect::<BTreeMap<_, _>>(),
    }});
    let text = format!("{{\"protocol\":{protocol}}}\n{metadata}\n");
    store
        .put(&Path::from("_delta_log/00000000000000000000.json"), text.into())
        .await
        .expect("put");
    store
}

/// The columns of [`schema`] as a log says them.
pub const COLUMNS: [&str; 2] = [
    r#"{"name":"id","type":"long","nullable":false,"metadata":{}}"#,
    r#"{"name":"v","type":"string","nullable":true,"metadata":{}}"#,
];

/// Commits raw actions as another program would.
pub async fn foreign_commit(store: &Arc<dyn ObjectStore>, actions: Vec<Action>) {
    use deltalake::kernel::transaction::{CommitBuilder, CommitProperties};
    use deltalake::protocol::{DeltaOperation, SaveMode};
    let table = library(store).await;
    let operation = DeltaOperation::Write {
        mode: SaveMode::Append,
        partition_by: None,
        predicate: None,
    };
    let commit = CommitBuilder::from(CommitProperties::default()).with_actions(actions);
    commit
        .build(Some(table.snapshot().expect("a state")), table.log_store(), operation)
        .await
        .expect("a commit");
}

//! The same values in Delta tables, copied and streamed: what each reader of such tables gets is what the server prints.

use std::collections::BTreeMap;

use alluvium::log::When;
use alluvium::query::query;
use alluvium::sources::postgres::catalog;
use alluvium::sources::postgres::connection::control;
use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::compute::{cast, concat_batches};
use arrow::datatypes::{DataType, Int32Type};
use serde_json::Value;
use tokio_postgres::Client;

use super::cases::{Case, cases};
use super::{SCHEMA, SETTINGS, UNREADABLE, column_type, meanings, render};
use crate::support::bank::Bank;
use crate::support::postgres::PostgresServer;
use crate::support::python::Reader;
use crate::support::readback::batches;
use crate::support::seed::seed;

/// A column of the tables: what it becomes, and what its values mean, by row.
struct Column {
    sql_type: &'static str,
    kind: DataType,
    values: Vec<Value>,
}

#[tokio::test(flavor = "multi_thread")]
async fn p21_every_reader_of_the_lake_gets_what_the_server_prints_copied_and_streamed() {
    let (seed, mut wrong) = (seed(), Vec::new());
    // Where a table has a type that is only known as text, all values are streamed as text.
    for form in ["binary", "text"] {
        let cases: Vec<Case> = cases(seed)
            .into_iter()
            .filter(|case| form == "text" || !UNREADABLE.contains(&case.sql_type))
            .collect();
        let follow = "create = true\nfollow = [\"public.copied\", \"public.streamed\"]";
        let bank = Bank::new(PostgresServer::shared(), "printed", SCHEMA, follow).await;
        let client = bank.server.client(&bank.database).await;
        client.batch_execute(SETTINGS).await.unwrap();
        make(&client, &cases).await;
        bank.catch_up().await;
        client.batch_execute("INSERT INTO streamed SELECT * FROM copied").await.unwrap();
        bank.catch_up().await;
        let letters = bank.here("SELECT message FROM bank_dead_letters", &["bank_dead_letters"]).await;
        assert!(letters.is_empty(), "{letters:?}");
        let columns = columns(&bank, &client, &cases).await;
        for table in ["copied", "streamed"] {
            for (reader, rows) in readings(&bank, table).await {
                let found = differences(reader, &rows, &columns);
                wrong.extend(found.into_iter().map(|what| format!("{table} ({form}), read by {reader}: {what}")));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// A table of each case's values, one of all of them side by side, and an empty one like it.
async fn make(client: &Client, cases: &[Case]) {
    client.batch_execute("CREATE SCHEMA made").await.unwrap();
    for (index, case) in cases.iter().enumerate() {
        client.batch_execute(&case.table(&format!("made.t{index}"))).await.unwrap();
    }
    let column = |index: usize| format!("(SELECT v FROM made.t{index} WHERE id = n) AS c{index}");
    let columns: Vec<String> = (0..cases.len()).map(column).collect();
    let sql = format!(
        "CREATE TABLE copied AS SELECT n AS id, {} FROM generate_series(1, {}) n; ALTER TABLE copied ADD PRIMARY KEY (id); \
         CREATE TABLE streamed (LIKE copied INCLUDING ALL)",
        columns.join(", "),
        rows(cases)
    );
    client.batch_execute(&sql).await.unwrap();
}

fn rows(cases: &[Case]) -> usize {
    cases.iter().map(|case| case.values.len()).max().unwrap()
}

/// Where a case has fewer values than others, the rows behind them have nulls.
async fn columns(bank: &Bank<'_>, client: &Client, cases: &[Case]) -> Vec<Column> {
    let session = control(&bank.server.address(&bank.database)).await.unwrap();
    let types = catalog::types(&session).await.unwrap();
    let mut columns = Vec::new();
    for (index, case) in cases.iter().enumerate() {
        let table = format!("made.t{index}");
        let kind = column_type(client, &types, &table).await.data_type();
        let mut values = meanings(client, &table, case.meaning, &kind).await;
        values.resize(rows(cases), Value::Null);
        columns.push(Column {
            sql_type: case.sql_type,
            kind,
            values,
        });
    }
    columns
}

/// The rows of a table, by each reader's name.
async fn readings(bank: &Bank<'_>, table: &str) -> Vec<(&'static str, RecordBatch)> {
    let name = format!("public.{table}");
    let answer = query(&format!("SELECT * FROM {name}"), &[bank.table(&name)], &When::Latest).await;
    let own = answer.unwrap().collect().await.unwrap();
    let mut readings = vec![("alluvium", one(&own))];
    let (folder, version) = (bank.site.table("public").join(table), bank.versions(&name).await);
    for reader in [Reader::Deltalake, Reader::Polars, Reader::Duckdb] {
        let files = reader.read(&folder, &[version], &bank.site.out()).await.concat();
        let read: Vec<RecordBatch> = files.iter().flat_map(|file| batches(file)).collect();
        readings.push((reader.name(), one(&read)));
    }
    readings
}

fn one(batches: &[RecordBatch]) -> RecordBatch {
    concat_batches(batches[0].schema_ref(), batches).unwrap()
}

/// Where rows are not what the columns mean: a few of each column.
fn differences(reader: &str, rows: &RecordBatch, columns: &[Column]) -> Vec<String> {
    let ids = cast(rows.column_by_name("id").unwrap(), &DataType::Int32).unwrap();
    let places: BTreeMap<i32, usize> = ids.as_primitive::<Int32Type>().values().iter().copied().zip(0..).collect();
    let all = columns[0].values.len();
    assert_eq!((rows.num_rows(), places.len()), (all, all), "{reader}");
    let mut wrong = Vec::new();
    for (index, column) in columns.iter().enumerate() {
        let held = rows.column_by_name(&format!("c{index}")).unwrap();
        let value = |row: usize| read(held.as_ref(), places[&(row as i32 + 1)], &column.kind);
        let differing = column.values.iter().enumerate().filter(|(row, expected)| value(*row) != **expected);
        let found = differing.map(|(row, expected)| format!("{}: {} instead of {expected}", column.sql_type, value(row)));
        wrong.extend(found.take(3));
    }
    wrong
}

/// A value as a reader has it, who may have another kind of text, list or map for what the table has.
fn read(array: &dyn Array, row: usize, kind: &DataType) -> Value {
    if array.is_null(row) {
        return Value::Null;
    }
    match kind {
        DataType::List(inner) => {
            let items = items(array, row);
            (0..items.len()).map(|item| read(items.as_ref(), item, inner.data_type())).collect()
        }
        DataType::Map(..) => {
            let pairs = items(array, row);
            let texts = |column: usize| cast(pairs.as_struct().column(column), &DataType::Utf8).unwrap();
            let (keys, values) = (texts(0), texts(1));
            let pair = |item: usize| (keys.as_string::<i32>().value(item).to_owned(), render(values.as_ref(), item));
            Value::Object((0..pairs.len()).map(pair).collect())
        }
        _ => render(cast(&array.slice(row, 1), kind).unwrap().as_ref(), 0),
    }
}

/// Of a list, or of a map, which is a list of pairs to some.
fn items(array: &dyn Array, row: usize) -> ArrayRef {
    match array.data_type() {
        DataType::LargeList(_) => array.as_list::<i64>().value(row),
        DataType::Map(..) => std::sync::Arc::new(array.as_map().value(row)),
        _ => array.as_list::<i32>().value(row),
    }
}

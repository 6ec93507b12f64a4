//! Values against the server's own word: for every type, what a column holds is what the server prints, whichever form it came in.
//!
//! The server also says what numbers mean: a date as days since 1970, a timestamp as microseconds, arrays and hstore as JSON.

mod cases;
mod lake;
mod random;

use std::sync::Arc;

use alluvium::sources::postgres::catalog;
use alluvium::sources::postgres::connection::control;
use alluvium::sources::postgres::types::{ColumnType, Types};
use alluvium::sources::postgres::values::{ColumnBuilder, Specials};
use arrow::array::{Array, AsArray};
use arrow::datatypes::{DataType, Date32Type, Decimal128Type, Float32Type, Float64Type, Int32Type, Int64Type, TimestampMicrosecondType};
use futures::TryStreamExt;
use serde_json::{Value, json};
use tokio_postgres::Client;

use self::cases::{Case, cases};
use crate::support::postgres::{Installation, Options, PostgresServer};
use crate::support::seed::seed;

/// What a replication session asks for.
const SETTINGS: &str = "SET datestyle = 'ISO'; SET timezone = 'UTC'; SET intervalstyle = 'postgres'; SET extra_float_digits = 1; \
                        SET bytea_output = 'hex'; SET lc_monetary = 'C'";
/// Types whose binary form is not read.
const UNREADABLE: &[&str] = &["purse", "tsquery", "regclass", "int2vector", "ltree", "ltree[]"];
const SCHEMA: &str = r#"
    CREATE EXTENSION hstore; CREATE EXTENSION citext; CREATE EXTENSION ltree;
    CREATE TYPE mood AS ENUM ('sad', 'o k', '"happy"', 'null');
    CREATE TYPE floats AS RANGE (subtype = float8);
    CREATE TYPE singles AS RANGE (subtype = float4);
    CREATE TYPE texts AS RANGE (subtype = text);
    CREATE TYPE pair AS (x float8, y text, z float4[]);
    CREATE TYPE wide AS (a int, b text, c text[], d pair, e int4range, f hstore, g interval, h bytea, i bool, j numeric(10,2),
        k timestamptz, l date, m mood, n inet, o uuid, p bit(5), q pair[], r jsonb, s "char", t time, u timetz, v box[], w xml,
        x tsvector, y bpchar(4), z int2, a2 int8, b2 oid, c2 timestamp, d2 macaddr, e2 varbit, f2 pg_lsn, g2 texts, h2 citext);
    CREATE TYPE purse AS (owner text, amount money);
    CREATE DOMAIN positive AS int CHECK (value > 0);
    CREATE DOMAIN price AS numeric(8, 3);
    CREATE DOMAIN ints AS int[];
    CREATE TABLE shop (id int, gone text, name text, prices price[]);
    ALTER TABLE shop DROP COLUMN gone;
"#;

#[tokio::test(flavor = "multi_thread")]
async fn p21_every_value_is_what_the_server_prints_in_both_forms_and_on_every_version() {
    let seed = seed();
    for installation in Installation::all() {
        let server = PostgresServer::start(Options::default().on(&installation));
        let client = server.client("postgres").await;
        client.batch_execute(SCHEMA).await.unwrap();
        client.batch_execute(SETTINGS).await.unwrap();
        let cases = cases(seed);
        for (index, case) in cases.iter().enumerate() {
            let made = client.batch_execute(&case.table(&format!("t{index}"))).await;
            made.unwrap_or_else(|e| panic!("{}: {e:?}", case.sql_type));
        }
        let control = control(&server.address("postgres")).await.unwrap();
        let types = catalog::types(&control).await.unwrap();
        let mut wrong = Vec::new();
        for (index, case) in cases.iter().enumerate() {
            let found = differences(&client, &types, &format!("t{index}"), case).await;
            wrong.extend(found.into_iter().take(3));
        }
        assert!(wrong.is_empty(), "PostgreSQL {}:\n{}", server.version(), wrong.join("\n"));
    }
}

/// Reads a column in both forms, and says where it is not what the server says that it means.
async fn differences(client: &Client, types: &Types, table: &str, case: &Case) -> Vec<String> {
    let column = column_type(client, types, table).await;
    assert_eq!(column.reads_binary(), !UNREADABLE.contains(&case.sql_type), "{}", case.sql_type);
    let expected = meanings(client, table, case.meaning, &column.data_type()).await;
    assert_eq!(expected.len(), case.values.len());
    let mut forms = vec![("text", values_as_text(client, table).await)];
    if column.reads_binary() {
        forms.push(("binary", values_as_binary(client, table).await));
    }
    let mut wrong = Vec::new();
    for (form, values) in forms {
        assert_eq!(values.len(), expected.len());
        let mut builder = ColumnBuilder::new(&column, Specials::Reject);
        for (index, value) in values.iter().enumerate() {
            let appended = match value {
                None => {
                    builder.append_null();
                    Ok(())
                }
                Some(value) if form == "binary" => builder.append_binary(value),
                Some(value) => builder.append_text(value),
            };
            if let Err(bad) = appended {
                wrong.push(format!("{}: {form} form of {}: {bad:?}", case.sql_type, case.values[index]));
                builder.append_null();
            }
        }
        let array = builder.finish().unwrap();
        assert_eq!(array.data_type(), &column.data_type(), "{}", case.sql_type);
        for (index, expected) in expected.iter().enumerate() {
            let held = render(array.as_ref(), index);
            if held != *expected {
                let value: String = case.values[index].chars().take(200).collect();
                wrong.push(format!("{}: {form} form of {value}: {held} instead of {expected}", case.sql_type));
            }
        }
    }
    wrong
}

/// What becomes of the column `v`.
async fn column_type(client: &Client, types: &Types, table: &str) -> ColumnType {
    let column = format!("SELECT atttypid, atttypmod FROM pg_attribute WHERE attrelid = '{table}'::regclass AND attname = 'v'");
    let column = client.query_one(&column, &[]).await.unwrap();
    types.column(column.get(0), column.get(1))
}

async fn values_as_text(client: &Client, table: &str) -> Vec<Option<Vec<u8>>> {
    let rows = client.simple_query(&format!("SELECT v FROM {table} ORDER BY id")).await.unwrap();
    let rows = rows.into_iter().filter_map(|message| match message {
        tokio_postgres::SimpleQueryMessage::Row(row) => Some(row.get(0).map(|text| text.as_bytes().to_vec())),
        _ => None,
    });
    rows.collect()
}

/// What COPY sends: a head of 19 bytes, rows of counted fields, and -1.
async fn values_as_binary(client: &Client, table: &str) -> Vec<Option<Vec<u8>>> {
    let sql = format!("COPY (SELECT v FROM {table} ORDER BY id) TO STDOUT (FORMAT binary)");
    let chunks: Vec<_> = client.copy_out(&sql).await.unwrap().try_collect().await.unwrap();
    let bytes = chunks.concat();
    let (mut at, mut values) = (19, Vec::new());
    let int = |at: usize| i32::from_be_bytes(bytes[at..at + 4].try_into().unwrap());
    while i16::from_be_bytes(bytes[at..at + 2].try_into().unwrap()) == 1 {
        let length = int(at + 2);
        at += 6;
        values.push(usize::try_from(length).ok().map(|length| bytes[at..at + length].to_vec()));
        at += usize::try_from(length).unwrap_or(0);
    }
    values
}

/// `format('%s')` prints with the type's own function, which a cast to text does not always do.
async fn meanings(client: &Client, table: &str, meaning: &str, kind: &DataType) -> Vec<Value> {
    // A composite of nulls `IS NULL`, and yet is none.
    let printed = |value: &str| {
        let meaning = meaning.replace("$v", value);
        format!("CASE WHEN {value} IS DISTINCT FROM NULL THEN format('%s', {meaning}) END")
    };
    let list = |array: &str, inner: &str, index: &str| {
        format!(
            "CASE WHEN {array} IS DISTINCT FROM NULL THEN (SELECT coalesce(json_agg({inner} ORDER BY {index}), '[]') \
             FROM generate_subscripts({array}, 1) {index})::text END"
        )
    };
    let sql = match kind {
        DataType::List(inner) => match inner.data_type() {
            DataType::List(_) => list("v", &format!("({})::json", list("(v[i])", &printed("(v[i])[j]"), "j")), "i"),
            DataType::Map(..) => list("v", "hstore_to_json(v[i])", "i"),
            _ => list("v", &printed("v[i]"), "i"),
        },
        DataType::Map(..) => "hstore_to_json(v)::text".to_owned(),
        _ => printed("v"),
    };
    let rows = client.simple_query(&format!("SELECT {sql} FROM {table} ORDER BY id")).await;
    let rows = rows.unwrap_or_else(|e| panic!("{sql}: {e:?}"));
    let rows = rows.into_iter().filter_map(|message| match message {
        tokio_postgres::SimpleQueryMessage::Row(row) => Some(row.get(0).map(str::to_owned)),
        _ => None,
    });
    rows.map(|text| match (text, kind) {
        (None, _) => Value::Null,
        (Some(text), DataType::List(_) | DataType::Map(..)) => canonical(serde_json::from_str(&text).unwrap(), kind),
        (Some(text), _) => canonical(Value::String(text), kind),
    })
    .collect()
}

/// Numbers that are written in several ways are written in one.
fn canonical(value: Value, kind: &DataType) -> Value {
    match (value, kind) {
        (Value::Array(items), DataType::List(inner)) => items.into_iter().map(|item| canonical(item, inner.data_type())).collect(),
        (Value::String(text), DataType::Float32) => float(f64::from(text.parse::<f32>().unwrap())),
        (Value::String(text), DataType::Float64) => float(text.parse().unwrap()),
        (value, _) => value,
    }
}

fn float(value: f64) -> Value {
    Value::String(if value.is_nan() {
        "NaN".to_owned()
    } else {
        format!("{:x}", value.to_bits())
    })
}

pub fn render(array: &dyn Array, row: usize) -> Value {
    if array.is_null(row) {
        return Value::Null;
    }
    let text = |text: &dyn ToString| Value::String(text.to_string());
    match array.data_type() {
        DataType::Boolean => text(&if array.as_boolean().value(row) { "t" } else { "f" }),
        DataType::Int32 => text(&array.as_primitive::<Int32Type>().value(row)),
        DataType::Int64 => text(&array.as_primitive::<Int64Type>().value(row)),
        DataType::Float32 => float(array.as_primitive::<Float32Type>().value(row).into()),
        DataType::Float64 => float(array.as_primitive::<Float64Type>().value(row)),
        DataType::Decimal128(..) => text(&array.as_primitive::<Decimal128Type>().value_as_string(row)),
        DataType::Utf8 => text(&array.as_string::<i32>().value(row)),
        DataType::Binary => {
            let bytes = array.as_binary::<i32>().value(row);
            text(&format!(
                "\\x{}",
                bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>()
            ))
        }
        DataType::Date32 => text(&array.as_primitive::<Date32Type>().value(row)),
        DataType::Timestamp(..) => text(&array.as_primitive::<TimestampMicrosecondType>().value(row)),
        DataType::List(_) => {
            let items = array.as_list::<i32>().value(row);
            (0..items.len()).map(|index| render(items.as_ref(), index)).collect()
        }
        DataType::Map(..) => {
            let pairs = array.as_map().value(row);
            let (keys, values) = (Arc::clone(pairs.column(0)), Arc::clone(pairs.column(1)));
            let key = |index: usize| keys.as_string::<i32>().value(index).to_owned();
            Value::Object((0..keys.len()).map(|index| (key(index), render(values.as_ref(), index))).collect())
        }
        other => json!(format!("no value of {other} is expected")),
    }
}

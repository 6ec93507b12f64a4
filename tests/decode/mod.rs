//! The decoders from outside: real events of Debezium, bad input, and properties over generated messages.

mod bad_input;
mod columns;
mod debezium;
mod documents;
mod flattened;
mod gone;
mod growth;
mod properties;
mod samples;
mod stops;
mod topics;
mod truncates;

use std::sync::Arc;

use alluvium::config::{Format, KeyFrom, Tombstones};
use alluvium::sources::decode::{DecodeSpec, Decoded, Headers, Message, NewColumns};
use arrow::array::{Array, AsArray};
use arrow::datatypes::*;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

fn spec(format: Format, columns: SchemaRef) -> DecodeSpec {
    DecodeSpec {
        format,
        columns,
        new_columns: NewColumns::Ignore,
        key: Vec::new(),
        key_from: KeyFrom::Value,
        tombstones: Tombstones::Skip,
        metadata: Vec::new(),
        partition_by: Vec::new(),
    }
}

fn upsert(mut spec: DecodeSpec, key: &[&str]) -> DecodeSpec {
    spec.key = key.iter().map(|name| (*name).to_owned()).collect();
    spec
}

fn columns(fields: Vec<Field>) -> SchemaRef {
    Arc::new(Schema::new(fields))
}

fn message<'a>(key: Option<&'a [u8]>, value: Option<&'a [u8]>) -> Message<'a> {
    Message {
        topic: "orders",
        partition: 3,
        offset: 41,
        timestamp_ms: Some(1_700_000_000_123),
        key,
        value,
        headers: Headers(None),
    }
}

fn value(text: &str) -> Message<'_> {
    message(None, Some(text.as_bytes()))
}

/// That every message is accounted for, and every part of the answer has the length that it should.
fn account(decoded: &Decoded, messages: usize) {
    let rows = decoded.rows.num_rows();
    assert_eq!(
        decoded.written() + decoded.rejects.len() + decoded.tombstones + decoded.filtered,
        messages
    );
    assert_eq!((decoded.ops.len(), decoded.origins.len()), (rows, rows));
    assert!(decoded.origins.windows(2).all(|pair| pair[0] <= pair[1]));
    assert!(decoded.rejects.windows(2).all(|pair| pair[0].index < pair[1].index));
    if let Some(unchanged) = &decoded.unchanged {
        assert!(unchanged.0.values().all(|mask| mask.len() == rows));
    }
}

/// A cell as plain JSON: times as microseconds, dates as days, decimals as text, bytes as base64.
fn cell(array: &dyn Array, row: usize) -> Value {
    if array.is_null(row) {
        return Value::Null;
    }
    match array.data_type() {
        DataType::Boolean => json!(array.as_boolean().value(row)),
        DataType::Int32 => json!(array.as_primitive::<Int32Type>().value(row)),
        DataType::Int64 => json!(array.as_primitive::<Int64Type>().value(row)),
        DataType::Float32 => float(f64::from(array.as_primitive::<Float32Type>().value(row))),
        DataType::Float64 => float(array.as_primitive::<Float64Type>().value(row)),
        DataType::Decimal128(..) => json!(array.as_primitive::<Decimal128Type>().value_as_string(row)),
        DataType::Utf8 => json!(array.as_string::<i32>().value(row)),
        DataType::Binary => json!(STANDARD.encode(array.as_binary::<i32>().value(row))),
        DataType::Date32 => json!(array.as_primitive::<Date32Type>().value(row)),
        DataType::Timestamp(..) => json!(array.as_primitive::<TimestampMicrosecondType>().value(row)),
        DataType::List(_) => {
            let list = array.as_list::<i32>().value(row);
            (0..list.len()).map(|item| cell(&list, item)).collect()
        }
        DataType::Struct(_) => object(array, row),
        DataType::Map(..) => {
            let pairs = array.as_map().value(row);
            let pair = |entry: usize| {
                (
                    pairs.column(0).as_string::<i32>().value(entry).to_owned(),
                    cell(pairs.column(1), entry),
                )
            };
            Value::Object((0..pairs.len()).map(pair).collect())
        }
        other => panic!("no table has a {other}"),
    }
}

fn object(array: &dyn Array, row: usize) -> Value {
    let array = array.as_struct();
    let fields = array.fields().iter().zip(array.columns());
    Value::Object(
        fields
            .map(|(field, column)| (field.name().clone(), cell(column, row)))
            .collect::<Map<_, _>>(),
    )
}

fn float(value: f64) -> Value {
    match value.is_finite() {
        true => json!(value),
        false if value.is_nan() => json!("NaN"),
        false => json!(if value > 0.0 { "Infinity" } else { "-Infinity" }),
    }
}

/// A row as a JSON object.
fn row(decoded: &Decoded, index: usize) -> Value {
    object(&arrow::array::StructArray::from(decoded.rows.clone()), index)
}

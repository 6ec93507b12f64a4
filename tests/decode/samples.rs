//! 158 messages that Debezium 3.7 wrote from PostgreSQL 15 and 18, each against a second, slow reading of the same text.

use std::collections::{BTreeMap, BTreeSet};

use alluvium::batch::Op;
use alluvium::config::{Format, KeyFrom};
use alluvium::sources::decode::{Decoded, Headers, Message, ReadHeaders, decoder, discover};
use arrow::datatypes::SchemaRef;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{account, message, row, spec, upsert};

const WITH_SCHEMA: &str = include_str!("../data/debezium/json-with-schema.jsonl");
const PLAIN: &str = include_str!("../data/debezium/json-plain.jsonl");
const OTHER_MODES: &str = include_str!("../data/debezium/json-plain-altmodes.jsonl");
const POSTGRES_18: &str = include_str!("../data/debezium/pg18-plain.jsonl");

#[derive(Clone, Debug, Deserialize)]
pub(super) struct Sample {
    pub name: String,
    topic: String,
    pub headers: Vec<(String, Option<String>)>,
    pub key: Option<String>,
    pub value: Option<String>,
}

impl Sample {
    /// `rich` of `pgs.public.rich`.
    pub fn table(&self) -> &str {
        self.topic.rsplit('.').next().unwrap()
    }
    pub fn message(&self) -> Message<'_> {
        Message {
            headers: Headers(Some(self)),
            ..message(self.key.as_deref().map(str::as_bytes), self.value.as_deref().map(str::as_bytes))
        }
    }
    /// The event without its schema.
    pub fn payload(&self) -> Option<Value> {
        let mut value: Value = serde_json::from_str(self.value.as_deref()?).unwrap();
        Some(value.get_mut("payload").map(Value::take).unwrap_or(value))
    }
    fn op(&self) -> Option<String> {
        Some(self.payload()?.get("op")?.as_str()?.to_owned())
    }
}

impl ReadHeaders for Sample {
    fn count(&self) -> usize {
        self.headers.len()
    }
    fn header(&self, index: usize) -> (&str, Option<&[u8]>) {
        let (name, value) = &self.headers[index];
        (name, value.as_deref().map(str::as_bytes))
    }
}

pub(super) fn all(text: &str) -> Vec<Sample> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn by_table(text: &str) -> BTreeMap<String, Vec<Sample>> {
    let mut tables: BTreeMap<String, Vec<Sample>> = BTreeMap::new();
    for sample in all(text) {
        tables.entry(sample.table().to_owned()).or_default().push(sample);
    }
    tables
}

pub(super) fn with_schema(table: &str) -> Vec<Sample> {
    by_table(WITH_SCHEMA).remove(table).unwrap()
}

pub(super) fn plain(table: &str) -> Vec<Sample> {
    by_table(PLAIN).remove(table).unwrap()
}

pub(super) fn other_modes(table: &str) -> Vec<Sample> {
    by_table(OTHER_MODES).remove(table).unwrap()
}

pub(super) fn columns_of(table: &str) -> SchemaRef {
    let samples = with_schema(table);
    let messages: Vec<Message<'_>> = samples.iter().map(Sample::message).collect();
    discover(Format::DebeziumJson, &messages).unwrap().unwrap()
}

/// The fields that Connect's schema has for a table's row, by name.
fn connect_fields(table: &str) -> BTreeMap<String, Value> {
    let sample = with_schema(table).into_iter().find(|sample| sample.value.is_some()).unwrap();
    let value: Value = serde_json::from_str(&sample.value.unwrap()).unwrap();
    let after = value["schema"]["fields"]
        .as_array()
        .unwrap()
        .iter()
        .find(|field| field["field"] == "after")
        .unwrap();
    after["fields"]
        .as_array()
        .unwrap()
        .iter()
        .map(|field| (field["field"].as_str().unwrap().to_owned(), field.clone()))
        .collect()
}

/// What a cell must be, read slowly and by other means than the decoder's.
fn expected(schema: &Value, value: &Value) -> Value {
    if value.is_null() {
        return Value::Null;
    }
    match (schema["name"].as_str().unwrap_or(""), schema["type"].as_str().unwrap()) {
        ("org.apache.kafka.connect.data.Decimal", _) => {
            json!(decimal(
                value.as_str().unwrap(),
                schema["parameters"]["scale"].as_str().unwrap().parse().unwrap()
            ))
        }
        ("io.debezium.data.VariableScaleDecimal", _) => {
            json!(decimal(value["value"].as_str().unwrap(), value["scale"].as_u64().unwrap() as usize))
        }
        ("io.debezium.time.Timestamp" | "io.debezium.time.Time", _) => json!(value.as_i64().unwrap() * 1000),
        ("io.debezium.time.ZonedTimestamp", _) => {
            json!(
                chrono::DateTime::parse_from_rfc3339(value.as_str().unwrap())
                    .unwrap()
                    .timestamp_micros()
            )
        }
        (_, "array") => value
            .as_array()
            .unwrap()
            .iter()
            .map(|item| expected(&schema["items"], item))
            .collect(),
        (_, "float") if value.is_number() => json!(f64::from(value.as_f64().unwrap() as f32)),
        _ => value.clone(),
    }
}

/// Base64 of two's complement as decimal text, digit by digit.
fn decimal(base64: &str, scale: usize) -> String {
    let mut bytes = STANDARD.decode(base64).unwrap();
    let negative = bytes[0] >= 128;
    if negative {
        bytes.iter_mut().for_each(|byte| *byte = !*byte);
    }
    let mut digits = vec![0u32]; // The lowest first.
    let push = |digits: &mut Vec<u32>, factor: u32, add: u32| {
        let mut carry = add;
        for digit in digits.iter_mut() {
            let value = *digit * factor + carry;
            (*digit, carry) = (value % 10, value / 10);
        }
        while carry > 0 {
            digits.push(carry % 10);
            carry /= 10;
        }
    };
    bytes.iter().for_each(|byte| push(&mut digits, 256, u32::from(*byte)));
    if negative {
        push(&mut digits, 1, 1);
    }
    while digits.len() <= scale {
        digits.push(0);
    }
    let mut text: Vec<char> = digits.iter().map(|digit| char::from_digit(*digit, 10).unwrap()).collect();
    if scale > 0 {
        text.insert(scale, '.');
    }
    if negative {
        text.push('-');
    }
    text.iter().rev().collect()
}

/// Messages whose times are infinite: no table can say so.
fn is_infinite(sample: &Sample) -> bool {
    sample.value.as_ref().is_some_and(|value| value.contains("2146033979"))
}

fn is_unavailable(sample: &Sample) -> bool {
    sample
        .value
        .as_ref()
        .is_some_and(|value| value.contains("__debezium_unavailable_value"))
}

/// Decodes the samples of a table as a table of events, and compares every row and cell.
fn every_event_is_its_row(table: &str, samples: &[Sample], columns: SchemaRef) {
    let fields = connect_fields(table);
    let mut spec = spec(Format::DebeziumJson, columns);
    spec.metadata = ["__op", "__deleted", "__lsn", "__source_ts_ms", "__ts_ms", "__unchanged", "__table"]
        .map(str::to_owned)
        .to_vec();
    let messages: Vec<Message<'_>> = samples.iter().map(Sample::message).collect();
    let decoded = decoder(&spec).unwrap().decode(&messages).unwrap();
    account(&decoded, messages.len());
    assert_eq!(decoded.filtered, samples.iter().filter(|s| s.op().as_deref() == Some("m")).count());
    assert_eq!(decoded.tombstones, samples.iter().filter(|s| s.payload().is_none()).count());
    let rejected: Vec<&str> = decoded.rejects.iter().map(|reject| samples[reject.index].name.as_str()).collect();
    let infinite: Vec<&str> = samples.iter().filter(|s| is_infinite(s)).map(|s| s.name.as_str()).collect();
    assert_eq!(rejected, infinite);
    for (index, origin) in decoded.origins.iter().enumerate() {
        let sample = &samples[*origin as usize];
        let event = sample.payload().unwrap();
        let image = if event["after"].is_null() {
            &event["before"]
        } else {
            &event["after"]
        };
        let row = row(&decoded, index);
        let unchanged: BTreeSet<&str> = row["__unchanged"]
            .as_array()
            .unwrap()
            .iter()
            .map(|name| name.as_str().unwrap())
            .collect();
        assert_eq!(unchanged.is_empty(), !is_unavailable(sample), "{}", sample.name);
        for (name, field) in &fields {
            let expected = if unchanged.contains(name.as_str()) {
                Value::Null
            } else {
                expected(field, &image[name])
            };
            assert_eq!(row[name], expected, "{} {name}", sample.name);
        }
        assert_eq!(row["__op"], event["op"], "{}", sample.name);
        assert_eq!(row["__deleted"], json!(matches!(event["op"].as_str(), Some("d" | "t"))));
        assert_eq!(row["__lsn"], event["source"]["lsn"]);
        assert_eq!(row["__source_ts_ms"], event["source"]["ts_ms"]);
        assert_eq!(row["__ts_ms"], event["ts_ms"]);
        assert_eq!(row["__table"], event["source"]["table"]);
    }
}

#[test]
fn every_event_with_its_schema_is_its_row() {
    for (table, samples) in by_table(WITH_SCHEMA) {
        if table != "message" {
            every_event_is_its_row(&table, &samples, columns_of(&table));
        }
    }
}

#[test]
fn every_event_without_schema_is_its_row() {
    for (table, samples) in by_table(PLAIN) {
        if !["message", "transaction"].contains(&table.as_str()) {
            every_event_is_its_row(&table, &samples, columns_of(&table));
        }
    }
}

#[test]
fn v15_messages_that_are_no_changes_are_filtered() {
    let samples: Vec<Sample> = ["message", "transaction"]
        .iter()
        .flat_map(|table| plain(table))
        .chain(with_schema("message"))
        .collect();
    let mut messages: Vec<Message<'_>> = samples.iter().map(Sample::message).collect();
    messages.push(super::value(r#"{"ts_ms":1580337780}"#));
    let spec = upsert(spec(Format::DebeziumJson, columns_of("rich")), &["id"]);
    let decoded = decoder(&spec).unwrap().decode(&messages).unwrap();
    account(&decoded, messages.len());
    assert_eq!(decoded.filtered, messages.len());
    assert!(discover(Format::DebeziumJson, &messages).unwrap().is_none());
}

/// The state that a run of puts and deletes leaves, by key.
fn fold(decoded: &Decoded, key: &[&str]) -> BTreeMap<String, Value> {
    let mut state = BTreeMap::new();
    for (index, op) in decoded.ops.iter().enumerate() {
        let row = row(decoded, index);
        let key: Vec<&Value> = key.iter().map(|name| &row[*name]).collect();
        match op {
            Op::Put => drop(state.insert(json!(key).to_string(), row)),
            Op::Delete => drop(state.remove(&json!(key).to_string())),
            Op::Truncate => state.clear(),
        }
    }
    state
}

#[test]
fn k10_an_upsert_table_follows_inserts_key_changes_deletes_and_tombstones() {
    let samples = plain("compk");
    let letters: String = samples.iter().map(|s| s.op().unwrap_or("-".to_owned())).collect();
    assert_eq!(letters, "rcud-cd-cut", "the story that the samples tell");
    for key_from in [KeyFrom::Value, KeyFrom::MessageKey] {
        for samples in [plain("compk"), with_schema("compk")] {
            let mut spec = upsert(spec(Format::DebeziumJson, columns_of("compk")), &["k1", "k2"]);
            spec.key_from = key_from;
            let truncate = samples.iter().position(|s| s.op().as_deref() == Some("t")).unwrap_or(samples.len());
            let messages: Vec<Message<'_>> = samples[..truncate].iter().map(Sample::message).collect();
            let mut decoder = decoder(&spec).unwrap();
            let decoded = decoder.decode(&messages).unwrap();
            account(&decoded, messages.len());
            assert_eq!((decoded.rejects.len(), decoded.tombstones), (0, 0));
            let mut naive: BTreeMap<String, Value> = BTreeMap::new();
            for sample in &samples[..truncate] {
                let key: Value = serde_json::from_str(sample.key.as_ref().unwrap()).unwrap();
                let key = key.get("payload").unwrap_or(&key);
                let key = json!([key["k1"], key["k2"]]).to_string();
                match sample.payload().map(|event| event["after"].clone()) {
                    // The samples change the table in between: a column comes, another goes.
                    Some(after) if !after.is_null() => {
                        drop(naive.insert(key, json!({"k1": after["k1"], "k2": after["k2"], "v": after["v"]})))
                    }
                    _ => drop(naive.remove(&key)),
                }
            }
            assert!(!naive.is_empty());
            assert_eq!(fold(&decoded, &["k1", "k2"]), naive);
            if truncate < samples.len() {
                let decoded = decoder.decode(&[samples[truncate].message()]).unwrap();
                assert_eq!(decoded.ops, [Op::Truncate]);
            }
        }
    }
}

#[test]
fn v16_cells_that_were_not_sent_are_marked_and_never_written() {
    let samples = plain("toasts");
    let spec = upsert(spec(Format::DebeziumJson, columns_of("toasts")), &["id"]);
    let decoded = decoder(&spec)
        .unwrap()
        .decode(&samples.iter().map(Sample::message).collect::<Vec<_>>())
        .unwrap();
    account(&decoded, samples.len());
    let unchanged = decoded.unchanged.as_ref().unwrap();
    let schema = decoded.rows.schema();
    let marked: Vec<&str> = unchanged.0.keys().map(|index| schema.field(*index).name().as_str()).collect();
    // Arrays of decimals and timestamps, and bit strings, come as nulls that nothing tells from a null.
    assert_eq!(marked, ["tx", "vc", "ch", "by", "j", "jb", "x", "hs", "ta", "ia", "i8a", "ua", "r"]);
    for (index, mask) in &unchanged.0 {
        assert_eq!((mask.value(0), mask.value(1)), (false, true));
        let column = decoded.rows.column(*index);
        let void = if schema.field(*index).is_nullable() {
            Value::Null
        } else {
            json!("")
        };
        assert_eq!(super::cell(column, 1), void);
        assert!(
            super::cell(column, 0).to_string().len() > 1000,
            "the placeholder stands for something large"
        );
    }
    assert_eq!(row(&decoded, 1)["v"], json!(2));
}

#[test]
fn v16_a_table_of_events_refuses_what_was_not_sent_unless_it_says_so() {
    let samples: Vec<Sample> = plain("toasts").into_iter().filter(is_unavailable).collect();
    let mut spec = spec(Format::DebeziumJson, columns_of("toasts"));
    spec.metadata = vec!["__op".to_owned()];
    let decoded = decoder(&spec).unwrap().decode(&[samples[0].message()]).unwrap();
    assert_eq!((decoded.rejects.len(), decoded.rejects[0].code), (1, "unavailable_value"));
    assert!(decoded.rejects[0].message.contains("`tx`") && decoded.rejects[0].message.contains("REPLICA IDENTITY FULL"));
}

#[test]
fn v5_decimals_as_text_are_exact_where_the_schema_says_text() {
    let schema = r#"{"type":"record","name":"rich","fields":[
        {"name":"id","type":"long"},
        {"name":"n","type":["null",{"type":"bytes","logicalType":"decimal","precision":20,"scale":5}],"encoding":"text"},
        {"name":"nu","type":["null","string"]},
        {"name":"ts","type":["null",{"type":"long","logicalType":"local-timestamp-millis"}]},
        {"name":"t","type":["null",{"type":"int","logicalType":"time-millis"}]},
        {"name":"iv","type":["null","string"]}]}"#;
    let columns = alluvium::sources::decode::columns::from_avro(schema).unwrap();
    let samples = other_modes("rich");
    let spec = upsert(spec(Format::DebeziumJson, columns), &["id"]);
    let decoded = decoder(&spec)
        .unwrap()
        .decode(&samples.iter().map(Sample::message).collect::<Vec<_>>())
        .unwrap();
    account(&decoded, samples.len());
    let created = samples.iter().position(|s| s.name == "rich.c").unwrap();
    let index = decoded.origins.iter().position(|origin| *origin as usize == created).unwrap();
    let expected = json!({"id": 3, "n": "12345.67891", "nu": "NAN", "ts": 1_709_210_096_789_000i64, "t": 86_399_123_000i64, "iv": "P1Y2M3DT4H5M6.789S"});
    assert_eq!(row(&decoded, index), expected);
    let infinite: Vec<&str> = decoded.rejects.iter().map(|reject| samples[reject.index].name.as_str()).collect();
    assert_eq!(infinite, ["rich.c.3"]);
    assert_eq!(
        decoded.rejects[0].message,
        "column `ts`: the time is infinite, or does not fit into 64 bits of microseconds"
    );
}

#[test]
fn generated_columns_of_postgres_18_are_columns() {
    let samples = all(POSTGRES_18);
    let schema = r#"{"type":"object","properties":{"id":{"type":"integer"},"a":{"type":"integer","format":"int32"},"gs":{"type":"integer","format":"int32"}}}"#;
    let columns = alluvium::sources::decode::columns::from_json_schema(schema).unwrap();
    let spec = upsert(spec(Format::DebeziumJson, columns), &["id"]);
    let decoded = decoder(&spec)
        .unwrap()
        .decode(&samples.iter().map(Sample::message).collect::<Vec<_>>())
        .unwrap();
    let rows: Vec<Value> = (0..decoded.rows.num_rows()).map(|index| row(&decoded, index)).collect();
    let names = ["id", "a", "gs"];
    let image = |sample: &Sample| -> Value {
        names
            .map(|name| (name.to_owned(), sample.payload().unwrap()["after"][name].clone()))
            .into_iter()
            .collect()
    };
    assert_eq!(rows, samples.iter().map(image).collect::<Vec<_>>());
}

#[test]
fn a_row_of_all_types_is_what_was_inserted() {
    let samples = with_schema("rich");
    let created = samples.iter().find(|s| s.name == "rich.c").unwrap();
    let spec = upsert(spec(Format::DebeziumJson, columns_of("rich")), &["id"]);
    let decoded = decoder(&spec).unwrap().decode(&[created.message()]).unwrap();
    let row = row(&decoded, 0);
    let expected = json!({
        "id": 3, "b": true, "i2": -32768, "i4": 2147483647, "i8": i64::MIN, "f4": 1.5, "f8": -std::f64::consts::E,
        "n": "12345.67891", "nu": null, "m": "1234.56", "d": 19782, "t": 86399123456i64, "t3": 3723004000i64, "ttz": "02:05:06.789Z",
        "ts": 1709210096789012i64, "ts3": 1709210096789000i64, "tstz": 1709190296789012i64, "u": "00112233-4455-6677-8899-aabbccddeeff",
        "by": "3q2+7wA=", "ia": [1, null, 3], "na": ["1.10", "22.22"], "tsa": [1704067200000000i64],
        "pt": {"x": 1.5, "y": -2.0, "wkb": "AQEAAAAAAAAAAAD4PwAAAAAAAADA", "srid": null}, "oidc": 4294967295i64,
    });
    for (name, value) in expected.as_object().unwrap() {
        assert_eq!(&row[name], value, "{name}");
    }
}

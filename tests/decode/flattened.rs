//! Messages that Debezium 3.7 wrote from PostgreSQL 15 and flattened by its transform ExtractNewRecordState, once in each of seven ways. What
//! must come of them is what was done there, in this order:
//!
//! ```sql
//! -- Read by the snapshot:
//! INSERT INTO kinds VALUES (1, …), (2, …), of which 2 has no more than a text in `s`, where no null may be; and an explicit null in `dflt`
//! INSERT INTO notes VALUES (1, repeat('0123456789', 210), 1), (2, repeat('abcdefghij', 210), 1)   -- stored out of line
//! INSERT INTO gone VALUES (1, 'a'), (2, 'b')
//! INSERT INTO log VALUES (1, 'read')                                        -- without a key, REPLICA IDENTITY FULL
//! -- And then:
//! INSERT INTO kinds VALUES (3, …)                                           -- the edges of its types
//! UPDATE kinds SET n = 9999999999.99, nu = 1e20, t = null, i4 = 0, f8 = 0.1, ts = '2024-03-01 00:00:00', s = 'uno' WHERE id = 1
//! UPDATE kinds SET id = 20, t = 'moved' WHERE id = 2
//! DELETE FROM kinds WHERE id = 3
//! INSERT INTO kinds (id, b, n, tstz, s, dflt) VALUES (3, true, 0, '2024-01-01 00:00:00+00', 'drei', 'y')
//! INSERT INTO kinds (id, s) VALUES (4, 'four')                              -- its `dflt` is 'new'
//! DELETE FROM kinds WHERE id = 4
//! UPDATE notes SET n = 2 WHERE id = 1                                       -- does not bring the body
//! UPDATE notes SET id = 5 WHERE id = 2                                      -- neither does this
//! UPDATE notes SET body = 'short' WHERE id = 5
//! DELETE FROM gone WHERE id = 1
//! TRUNCATE gone                                                             -- which the transform never tells
//! INSERT INTO gone VALUES (3, 'c')
//! INSERT INTO log VALUES (2, 'made')
//! UPDATE log SET what = 'changed' WHERE at = 1
//! DELETE FROM log WHERE at = 2
//! ```

use std::collections::BTreeMap;

use alluvium::batch::Op;
use alluvium::config::{Format, KeyFrom, Tombstones};
use alluvium::sources::decode::columns::from_avro;
use alluvium::sources::decode::{DecodeSpec, Message, NewColumns, decoder, discover, rows_among};
use arrow::datatypes::{DataType, SchemaRef, TimeUnit};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::samples::{Sample, all};
use super::{account, row, spec, upsert};

/// A column of a schema file: its name, its type in Avro, and how the messages write it where that is not the habit.
type Column = (&'static str, &'static str, &'static str);

const NOTES: &[Column] = &[("id", r#""int""#, ""), ("body", r#""string""#, ""), ("n", r#""int""#, "")];
const GONE: &[Column] = &[("id", r#""int""#, ""), ("v", r#""string""#, "")];
const LOG: &[Column] = &[("at", r#""int""#, ""), ("what", r#""string""#, "")];
/// As the types of the database are, and as Debezium writes them if nothing else is said.
const KINDS: &[Column] = &[
    ("id", r#""int""#, ""),
    ("b", r#""boolean""#, ""),
    ("i2", r#""int""#, ""),
    ("i4", r#""int""#, ""),
    ("i8", r#""long""#, ""),
    ("f4", r#""float""#, ""),
    ("f8", r#""double""#, ""),
    ("n", DECIMAL, ""),
    ("nu", r#""string""#, "variable-scale"),
    ("t", r#""string""#, ""),
    ("vc", r#""string""#, ""),
    ("by", r#""bytes""#, ""),
    ("d", r#"{"type":"int","logicalType":"date"}"#, ""),
    ("tm", r#"{"type":"long","logicalType":"time-micros"}"#, ""),
    ("tm3", TIME_MILLIS, ""),
    ("ts", r#"{"type":"long","logicalType":"local-timestamp-micros"}"#, ""),
    ("ts3", LOCAL_MILLIS, ""),
    ("tstz", INSTANT, ""),
    ("u", r#"{"type":"string","logicalType":"uuid"}"#, ""),
    ("j", r#""string""#, ""),
    ("jb", r#""string""#, ""),
    ("ia", r#"{"type":"array","items":["null","int"]}"#, ""),
    ("ta", r#"{"type":"array","items":["null","string"]}"#, ""),
    ("e", r#""string""#, ""),
    ("iv", r#""long""#, ""),
    ("s", r#""string""#, ""),
    ("dflt", r#""string""#, ""),
];
const DECIMAL: &str = r#"{"type":"bytes","logicalType":"decimal","precision":12,"scale":2}"#;
const TIME_MILLIS: &str = r#"{"type":"int","logicalType":"time-millis"}"#;
const LOCAL_MILLIS: &str = r#"{"type":"long","logicalType":"local-timestamp-millis"}"#;
const INSTANT: &str = r#"{"type":"long","logicalType":"timestamp-micros"}"#;

/// What the transform makes of a delete: `delete.tombstone.handling.mode`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Deletes {
    /// `rewrite`: a row that says `__deleted`.
    Row,
    /// `rewrite-with-tombstone`.
    RowAndTombstone,
    /// `tombstone`: a value that JSON calls null, with its schema or without: Connect's converter has no other for it.
    Null,
    /// `drop`.
    Nothing,
}

/// One way to set Debezium up.
struct Variant {
    text: &'static str,
    /// Columns of the schema file that are others than those of `KINDS`; None where the messages bring their schema.
    schema: Option<&'static [Column]>,
    deletes: Deletes,
    /// Cells of row 1 of `kinds` that are others than `one` has, and those of row 3.
    one: Value,
    three: Value,
    /// What the null of a column with a default comes as.
    no_default: Value,
}

/// Text of `isostring`, as it is in row 1.
fn iso() -> Value {
    json!({"d": "2024-02-29Z", "tm": "23:59:59.123456Z", "tm3": "01:02:03.004Z", "ts": "2024-03-01T00:00:00Z", "ts3": "2024-02-29T12:34:56.789Z"})
}

fn variants() -> [Variant; 7] {
    [
        // add.fields=op,source.ts_ms,lsn,table
        Variant {
            text: include_str!("../data/debezium/flattened-plain-rewrite.jsonl"),
            schema: Some(&[]),
            deletes: Deletes::Row,
            one: json!({}),
            three: json!({}),
            no_default: json!("new"),
        },
        // The same, and add.headers=op,source.db
        Variant {
            text: include_str!("../data/debezium/flattened-with-schema-rewrite.jsonl"),
            schema: None,
            deletes: Deletes::Row,
            one: json!({}),
            three: json!({}),
            no_default: json!("new"),
        },
        // add.headers=op, decimal.handling.mode=string, time.precision.mode=isostring
        Variant {
            text: include_str!("../data/debezium/flattened-plain-rewrite-tombstone.jsonl"),
            schema: Some(&[
                ("n", DECIMAL, "text"),
                ("nu", r#""string""#, ""),
                ("tm", r#""string""#, ""),
                ("tm3", r#""string""#, ""),
                ("ts", INSTANT, ""),
                ("ts3", INSTANT, ""),
            ]),
            deletes: Deletes::RowAndTombstone,
            one: json!({"tm": iso()["tm"], "tm3": iso()["tm3"]}),
            three: json!({}),
            no_default: json!("new"),
        },
        // add.fields=op,source.ts_ms,lsn,table, decimal.handling.mode=string, time.precision.mode=connect
        Variant {
            text: include_str!("../data/debezium/flattened-with-schema-rewrite-tombstone.jsonl"),
            schema: None,
            deletes: Deletes::RowAndTombstone,
            one: json!({"tm": 86_399_123_000i64}),
            three: json!({}),
            no_default: json!("new"),
        },
        // add.fields=op,source.ts_ms, add.headers=op, decimal.handling.mode=double, time.precision.mode=connect, and
        // replace.null.with.default=false of the transform and of the converter
        Variant {
            text: include_str!("../data/debezium/flattened-plain-tombstone.jsonl"),
            schema: Some(&[("nu", r#""double""#, ""), ("tm", TIME_MILLIS, ""), ("ts", LOCAL_MILLIS, "")]),
            deletes: Deletes::Null,
            one: json!({"nu": 1e20, "tm": 86_399_123_000i64}),
            three: json!({}),
            no_default: Value::Null,
        },
        // decimal.handling.mode=double, time.precision.mode=isostring, and replace.null.with.default=false of the converter
        Variant {
            text: include_str!("../data/debezium/flattened-with-schema-tombstone.jsonl"),
            schema: None,
            deletes: Deletes::Null,
            one: with(&json!({"n": 9_999_999_999.99, "nu": 1e20}), &iso()),
            three: json!({"n": 0.0}),
            no_default: Value::Null,
        },
        // add.fields=op
        Variant {
            text: include_str!("../data/debezium/flattened-plain-drop.jsonl"),
            schema: Some(&[]),
            deletes: Deletes::Nothing,
            one: json!({}),
            three: json!({}),
            no_default: json!("new"),
        },
    ]
}

impl Variant {
    /// The messages of one table.
    fn samples(&self, table: &str) -> Vec<Sample> {
        all(self.text).into_iter().filter(|sample| sample.table() == table).collect()
    }

    /// What a table of all events is decoded by, as a configuration for this topic would have it.
    fn spec(&self, table: &str) -> DecodeSpec {
        let columns = self.columns(table);
        DecodeSpec {
            new_columns: self.schema.map_or(NewColumns::Add, |_| NewColumns::Ignore),
            ..spec(Format::DebeziumJson, columns)
        }
    }

    fn columns(&self, table: &str) -> SchemaRef {
        let Some(others) = self.schema else {
            let samples = self.samples(table);
            let messages: Vec<Message<'_>> = samples.iter().map(Sample::message).collect();
            return discover(Format::DebeziumJson, &messages).unwrap().unwrap();
        };
        let (columns, others) = match table {
            "kinds" => (KINDS, others),
            "notes" => (NOTES, &[][..]),
            "gone" => (GONE, &[][..]),
            _ => (LOG, &[][..]),
        };
        from_avro(&avro(columns, others)).unwrap()
    }

    /// The letters of a story, where each `x` is a delete at the source.
    fn told(&self, story: &str) -> String {
        story.replace(
            'x',
            match self.deletes {
                Deletes::Row | Deletes::Null => "D",
                Deletes::RowAndTombstone => "DD",
                Deletes::Nothing => "",
            },
        )
    }
}

fn avro(columns: &[Column], others: &[Column]) -> String {
    let field = |column: &Column| {
        let (name, kind, encoding) = others.iter().find(|other| other.0 == column.0).unwrap_or(column);
        let kind = match *name {
            "id" | "s" => (*kind).to_owned(),
            _ => format!(r#"["null",{kind}]"#),
        };
        let encoding = match encoding.is_empty() {
            true => String::new(),
            false => format!(r#","encoding":"{encoding}""#),
        };
        format!(r#"{{"name":"{name}","type":{kind}{encoding}}}"#)
    };
    let fields: Vec<String> = columns.iter().map(field).collect();
    format!(r#"{{"type":"record","name":"r","fields":[{}]}}"#, fields.join(","))
}

/// An object with the members of another.
fn with(object: &Value, others: &Value) -> Value {
    let (mut object, others) = (object.as_object().unwrap().clone(), others.as_object().unwrap().clone());
    object.extend(others);
    Value::Object(object)
}

/// A row of `kinds` that is null where these cells do not say otherwise.
fn row_of(cells: &Value) -> Value {
    let nulls = KINDS.iter().map(|(name, ..)| ((*name).to_owned(), Value::Null)).collect();
    with(&Value::Object(nulls), cells)
}

/// Row 1 of `kinds` in the end.
fn one() -> Value {
    row_of(&json!({
        "id": 1, "b": true, "i2": -32768, "i4": 0, "i8": i64::MIN, "f4": 1.5, "f8": 0.1, "n": "9999999999.99", "nu": "100000000000000000000",
        "vc": "v", "by": "3q2+7wA=", "d": 19_782, "tm": 86_399_123_456i64, "tm3": 3_723_004_000i64, "ts": 1_709_251_200_000_000i64,
        "ts3": 1_709_210_096_789_000i64, "tstz": 1_709_190_296_789_012i64, "u": "00112233-4455-6677-8899-aabbccddeeff",
        "j": r#"{"a": [1, null]}"#, "jb": r#"{"k": "v"}"#, "ia": [1, null, 3], "ta": ["x", "y z"], "e": "happy", "iv": 93_600_000_000i64,
        "s": "uno", "dflt": "set",
    }))
}

/// What messages leave in a table with the key `id`.
#[derive(Debug, Default, PartialEq)]
struct Left {
    /// P for a put, D for a delete.
    ops: String,
    /// Which messages are rejects, and why.
    rejects: Vec<(String, &'static str)>,
    rows: BTreeMap<i64, Value>,
}

impl Left {
    /// Cells that a message does not bring are those of the older row.
    fn by(samples: &[Sample], spec: &DecodeSpec, at_once: usize) -> Self {
        let (mut left, mut decoder) = (Self::default(), decoder(spec).unwrap());
        for samples in samples.chunks(at_once) {
            let messages: Vec<Message<'_>> = samples.iter().map(Sample::message).collect();
            let decoded = decoder.decode(&messages).unwrap();
            account(&decoded, messages.len());
            assert_eq!((decoded.tombstones, decoded.filtered), (0, 0));
            let rejects = decoded
                .rejects
                .iter()
                .map(|reject| (samples[reject.index].name.clone(), reject.code));
            left.rejects.extend(rejects);
            let schema = decoded.rows.schema();
            for (index, op) in decoded.ops.iter().enumerate() {
                let mut new = row(&decoded, index);
                let id = new["id"].as_i64().unwrap();
                let old = left.rows.remove(&id);
                if *op == Op::Delete {
                    left.ops.push('D');
                    continue;
                }
                assert_eq!(*op, Op::Put);
                left.ops.push('P');
                let masks = decoded.unchanged.iter().flat_map(|unchanged| &unchanged.0);
                for (column, _) in masks.filter(|(_, mask)| mask.value(index)) {
                    let name = schema.field(*column).name().as_str();
                    new[name] = old.as_ref().expect("a row that was there before")[name].clone();
                }
                left.rows.insert(id, new);
            }
        }
        left
    }
}

/// Every variant of a table must leave the same, whether its messages come at once or one by one, and wherever the key is read.
fn every_variant_leaves(table: &str, left: impl Fn(&Variant) -> Left) {
    for variant in variants() {
        let (samples, expected) = (variant.samples(table), left(&variant));
        for key_from in [KeyFrom::Value, KeyFrom::MessageKey] {
            for at_once in [1, samples.len()] {
                let mut spec = upsert(variant.spec(table), &["id"]);
                spec.key_from = key_from;
                let left = Left::by(&samples, &spec, at_once);
                let which = (variant.deletes, variant.schema.is_some(), key_from, at_once);
                assert_eq!(left, expected, "{which:?}");
            }
        }
    }
}

#[test]
fn every_variant_leaves_the_rows_of_the_database() {
    every_variant_leaves("kinds", |variant| {
        let dflt = &variant.no_default;
        let three = json!({"id": 3, "b": true, "n": "0.00", "tstz": 1_704_067_200_000_000i64, "s": "drei", "dflt": "y"});
        let mut rows = BTreeMap::from([
            (1, with(&one(), &variant.one)),
            (3, row_of(&with(&three, &variant.three))),
            (20, row_of(&json!({"id": 20, "t": "moved", "s": "two", "dflt": dflt}))),
        ]);
        if variant.deletes == Deletes::Nothing {
            // Nobody says that they are gone.
            rows.insert(2, row_of(&json!({"id": 2, "s": "two", "dflt": dflt})));
            rows.insert(4, row_of(&json!({"id": 4, "s": "four", "dflt": "new"})));
        }
        Left {
            ops: variant.told("PPPPxPxPPx"),
            rejects: Vec::new(),
            rows,
        }
    });
}

#[test]
fn v16_a_row_that_moved_without_its_large_value_is_a_reject_whether_its_op_or_only_a_header_says_so() {
    every_variant_leaves("notes", |variant| {
        let note = |id: i64, body: &str, n: i64| (id, json!({"id": id, "body": body, "n": n}));
        let mut rows = BTreeMap::from([note(1, &"0123456789".repeat(210), 2), note(5, "short", 1)]);
        if variant.deletes == Deletes::Nothing {
            rows.extend([note(2, &"abcdefghij".repeat(210), 1)]);
        }
        Left {
            ops: variant.told("PPPxDP"),
            rejects: vec![("notes.c-pkchange-oldkey".to_owned(), "unavailable_value")],
            rows,
        }
    });
}

#[test]
fn a_truncate_is_not_told_by_flattened_messages() {
    every_variant_leaves("gone", |variant| {
        let gone = |id: i64, v: &str| (id, json!({"id": id, "v": v}));
        let mut rows = BTreeMap::from([gone(2, "b"), gone(3, "c")]);
        if variant.deletes == Deletes::Nothing {
            rows.extend([gone(1, "a")]);
        }
        Left {
            ops: variant.told("PPxP"),
            rejects: Vec::new(),
            rows,
        }
    });
}

#[test]
fn the_edges_of_types_come_through_the_flattening() {
    let edges = json!({
        "id": 3, "b": false, "i2": 32_767, "i4": -1, "i8": i64::MAX, "f4": "NaN", "f8": "-Infinity", "n": "-0.01",
        "nu": "-0.00000000000000000001", "t": "", "vc": "", "by": "", "d": -1, "tm": 0, "tm3": 0, "ts": -1, "ts3": -1000, "tstz": -1,
        "u": "ffffffff-ffff-ffff-ffff-ffffffffffff", "j": "null", "jb": "[]", "ia": [], "ta": [null], "e": "sad", "iv": 0, "s": "three",
        "dflt": "x",
    });
    let midnight = json!({"tm": "00:00:00Z", "tm3": "00:00:00Z"});
    let iso = json!({"d": "1969-12-31Z", "ts": "1969-12-31T23:59:59.999999Z", "ts3": "1969-12-31T23:59:59.999Z"});
    let others = [
        json!({}),
        json!({}),
        midnight.clone(),
        json!({"ts": -1000}),
        json!({"nu": -1e-20, "ts": -1000}),
        with(&with(&midnight, &iso), &json!({"n": -0.01, "nu": -1e-20})),
        json!({}),
    ];
    for (variant, others) in variants().iter().zip(others) {
        let samples = variant.samples("kinds");
        let inserted: Vec<Sample> = samples.into_iter().filter(|sample| sample.name == "kinds.c").collect();
        let left = Left::by(&inserted, &upsert(variant.spec("kinds"), &["id"]), 1);
        assert_eq!(left.rows, BTreeMap::from([(3, with(&edges, &others))]));
    }
}

const METADATA: [&str; 7] = [
    "__op",
    "__deleted",
    "__lsn",
    "__source_ts_ms",
    "__table",
    "__unchanged",
    "__headers",
];

#[test]
fn a_table_of_events_has_the_added_fields_and_headers_where_they_were_asked_for() {
    for variant in variants() {
        for table in ["kinds", "notes", "log"] {
            let samples = variant.samples(table);
            let mut spec = variant.spec(table);
            spec.metadata = METADATA.map(str::to_owned).to_vec();
            let messages: Vec<Message<'_>> = samples.iter().map(Sample::message).collect();
            let decoded = decoder(&spec).unwrap().decode(&messages).unwrap();
            account(&decoded, messages.len());
            assert_eq!(decoded.rejects, []);
            let payload = |sample: &Sample| sample.payload().filter(|payload| !payload.is_null());
            let nothing = samples.iter().filter(|sample| payload(sample).is_none());
            assert_eq!(decoded.tombstones, nothing.count());
            for (index, origin) in decoded.origins.iter().enumerate() {
                let sample = &samples[*origin as usize];
                let (row, payload) = (row(&decoded, index), payload(sample).unwrap());
                let name = &sample.name;
                for added in ["__op", "__lsn", "__source_ts_ms", "__table"] {
                    assert_eq!(row[added], payload[added], "{name} {added}");
                }
                assert_eq!(row["__deleted"], json!(payload["__deleted"] == "true"), "{name}");
                let bytes = |value: &Option<String>| value.as_ref().map(|value| STANDARD.encode(value));
                let headers = sample.headers.iter().map(|(key, value)| json!({"key": key, "value": bytes(value)}));
                assert_eq!(row["__headers"], headers.collect::<Value>(), "{name}");
                let is_unchanged = payload["body"] == "__debezium_unavailable_value";
                assert_eq!(
                    row["__unchanged"],
                    json!(if is_unchanged { vec!["body"] } else { vec![] }),
                    "{name}"
                );
            }
        }
    }
}

#[test]
fn the_samples_have_the_fields_that_they_are_said_to_have() {
    let [rewrite, with_schema, headed, ..] = variants();
    let last = |variant: &Variant| variant.samples("log").into_iter().rfind(|sample| sample.name == "log.d").unwrap();
    for variant in [&rewrite, &with_schema] {
        let event = last(variant).payload().unwrap();
        assert_eq!(
            (&event["__op"], &event["__table"], &event["__deleted"]),
            (&json!("d"), &json!("log"), &json!("true"))
        );
        assert!(event["__lsn"].is_u64() && event["__source_ts_ms"].is_u64(), "{event}");
    }
    let has = |variant: &Variant, name: &str, value: &str| last(variant).headers.contains(&(name.to_owned(), Some(value.to_owned())));
    assert!(has(&with_schema, "__op", "d") && has(&with_schema, "__source_db", "shop"));
    assert!(has(&headed, "__op", "d") && last(&headed).payload().unwrap()["__op"].is_null());
}

#[test]
fn a_table_without_a_key_has_the_deletes_that_are_told_as_rows() {
    for variant in variants() {
        for tombstones in [Tombstones::Skip, Tombstones::Keep] {
            let mut spec = variant.spec("log");
            spec.metadata = vec!["__deleted".to_owned()];
            spec.tombstones = tombstones;
            let samples = variant.samples("log");
            let messages: Vec<Message<'_>> = samples.iter().map(Sample::message).collect();
            let decoded = decoder(&spec).unwrap().decode(&messages).unwrap();
            account(&decoded, messages.len());
            let rows = (0..decoded.rows.num_rows()).map(|index| row(&decoded, index));
            let rows: Vec<Value> = rows.map(|row| json!([row["at"], row["what"], row["__deleted"]])).collect();
            let mut expected = vec![json!([1, "read", false]), json!([2, "made", false]), json!([1, "changed", false])];
            if matches!(variant.deletes, Deletes::Row | Deletes::RowAndTombstone) {
                expected.push(json!([2, "made", true]));
            }
            if matches!(variant.deletes, Deletes::RowAndTombstone | Deletes::Null) && tombstones == Tombstones::Keep {
                expected.push(json!([null, null, true]));
            }
            assert_eq!(rows, expected, "{:?} {tombstones:?}", variant.deletes);
        }
    }
}

#[test]
fn columns_are_discovered_without_what_the_flattening_adds() {
    let utc = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    let local = DataType::Timestamp(TimeUnit::Microsecond, None);
    let (date, text, long) = (DataType::Date32, DataType::Utf8, DataType::Int64);
    let kinds = |n: DataType, d: &DataType, tm: &DataType, ts: &DataType| [n, d.clone(), tm.clone(), ts.clone()];
    let expected = [
        kinds(DataType::Decimal128(12, 2), &date, &long, &local),
        kinds(DataType::Utf8, &date, &long, &utc),
        kinds(DataType::Float64, &text, &text, &text),
    ];
    let variants = variants().into_iter().filter(|variant| variant.schema.is_none());
    for (variant, expected) in variants.zip(expected) {
        let columns = variant.columns("kinds");
        let names: Vec<&str> = columns.fields().iter().map(|field| field.name().as_str()).collect();
        let known: Vec<&str> = KINDS.iter().map(|(name, ..)| *name).collect();
        assert_eq!(names, known);
        let kinds = ["n", "d", "tm", "ts"].map(|name| columns.field_with_name(name).unwrap().data_type().clone());
        assert_eq!(kinds, expected, "{:?}", variant.deletes);
        assert_eq!(columns.field_with_name("tstz").unwrap().data_type(), &utc);
        let optional = columns.fields().iter().filter(|field| field.is_nullable()).count();
        assert_eq!(optional, KINDS.len() - 2, "the key, and `s`, where no null may be");
    }
}

#[test]
fn what_says_that_a_row_is_gone_is_no_row_and_has_no_columns() {
    for variant in variants() {
        let samples = variant.samples("kinds");
        let (rows, gone): (Vec<&Sample>, Vec<&Sample>) = samples
            .iter()
            .partition(|sample| sample.payload().is_some_and(|row| !row.is_null() && row["__deleted"] != "true"));
        let messages = |samples: &[&Sample]| rows_among(&samples.iter().map(|sample| sample.message()).collect::<Vec<_>>());
        assert!(messages(&rows).rows && messages(&rows).unreadable.is_none());
        assert!(!messages(&gone).rows && messages(&gone).unreadable.is_none());
        let tombstones = gone
            .iter()
            .filter(|sample| sample.payload().is_none_or(|payload| payload.is_null()));
        let tombstones: Vec<Message<'_>> = tombstones.map(|sample| sample.message()).collect();
        assert!(discover(Format::DebeziumJson, &tombstones).unwrap().is_none());
    }
}

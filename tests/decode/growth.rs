//! Schemas inside of Debezium's messages that change while they flow, and keys that change without a delete.

use alluvium::batch::Op;
use alluvium::config::{Format, KeyFrom};
use alluvium::error::Kind;
use alluvium::sources::decode::{DecodeSpec, Decoded, Headers, Message, NewColumns, ReadHeaders, decoder, discover};
use arrow::datatypes::{DataType, Field};
use rand::rngs::SmallRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use serde_json::{Map, Value, json};

use super::samples::{Sample, columns_of, with_schema};
use super::{account, columns, message, row, spec, upsert, value};

/// A field of Kafka Connect's schema.
fn field(name: &str, kind: &str, optional: bool) -> Value {
    json!({"type": kind, "optional": optional, "field": name})
}

/// A message with a schema of these fields in front.
fn wrapped(fields: &[Value], op: &str, before: &Value, after: &Value) -> String {
    let row = |name: &str| json!({"type": "struct", "optional": true, "field": name, "fields": fields});
    let schema = json!({"type": "struct", "fields": [row("before"), row("after"), field("op", "string", false)]});
    let payload = json!({"before": before, "after": after, "op": op});
    // In the order in which Kafka Connect writes them.
    format!(r#"{{"schema":{schema},"payload":{payload}}}"#)
}

/// A table whose columns come from the first of the messages.
fn followed(messages: &[Message<'_>], key: &[&str]) -> DecodeSpec {
    let columns = discover(Format::DebeziumJson, &messages[..1]).unwrap().unwrap();
    DecodeSpec {
        new_columns: NewColumns::Add,
        ..upsert(spec(Format::DebeziumJson, columns), key)
    }
}

fn names(decoded: &Decoded) -> Vec<String> {
    decoded.rows.schema().fields().iter().map(|field| field.name().clone()).collect()
}

#[test]
fn s5_a_column_that_debezium_adds_is_a_column_of_the_rows_and_older_ones_have_null() {
    let samples = with_schema("compk");
    let added = samples.iter().position(|s| s.name == "compk.c.2").unwrap();
    let messages: Vec<Message<'_>> = samples.iter().map(Sample::message).collect();
    let mut spec = followed(&messages, &["k1", "k2"]);
    spec.metadata = ["__offset", "__op", "__lsn", "__ts_ms", "__deleted", "__table"]
        .map(str::to_owned)
        .to_vec();
    let mut decoder = decoder(&spec).unwrap();
    assert_eq!(decoder.schema().fields().len(), 3 + 6);
    let decoded = decoder.decode(&messages).unwrap();
    account(&decoded, messages.len());
    assert_eq!(decoded.rejects, []);
    let expected = [
        "k1",
        "k2",
        "v",
        "extra",
        "__offset",
        "__op",
        "__lsn",
        "__ts_ms",
        "__deleted",
        "__table",
    ];
    assert_eq!(names(&decoded), expected);
    let mut carried = 0;
    for (index, &origin) in decoded.origins.iter().enumerate() {
        let (row, sample) = (row(&decoded, index), &samples[origin as usize]);
        assert_eq!(row["__offset"], 41);
        if decoded.ops[index] == Op::Delete {
            continue;
        }
        let payload = sample.payload().unwrap();
        for name in ["k1", "k2", "v", "extra"] {
            assert_eq!(
                row[name],
                payload["after"].get(name).cloned().unwrap_or_default(),
                "{}: {name}",
                sample.name
            );
        }
        assert_eq!(
            (&row["__op"], &row["__lsn"]),
            (&payload["op"], &payload["source"]["lsn"]),
            "{}",
            sample.name
        );
        assert_eq!(
            (&row["__ts_ms"], &row["__table"]),
            (&payload["ts_ms"], &json!("compk")),
            "{}",
            sample.name
        );
        carried += usize::from(!row["extra"].is_null());
    }
    assert!(carried > 0 && added > 0, "the samples have both");
    // The next run goes on with what the last one learnt, whatever its writer knows.
    let again = decoder.decode(&messages[..added]).unwrap();
    assert_eq!(names(&again), expected);
    account(&again, added);
}

#[test]
fn a_schema_file_still_says_which_columns_there_are() {
    let samples = with_schema("compk");
    let messages: Vec<Message<'_>> = samples.iter().map(Sample::message).collect();
    let spec = upsert(spec(Format::DebeziumJson, columns_of("compk")), &["k1", "k2"]);
    let decoded = decoder(&spec).unwrap().decode(&messages).unwrap();
    assert_eq!(names(&decoded), ["k1", "k2", "v"]);
}

#[test]
fn s5_s6_s7_s13_rows_are_what_their_writers_wrote_however_these_take_turns() {
    let kinds = ["int32", "string", "boolean", "double", "bytes"];
    for seed in 0..200 {
        let mut rng = SmallRng::seed_from_u64(seed);
        let mut next = 0;
        let mut texts: Vec<(String, Value, bool)> = Vec::new();
        // Writers know some of the columns; a column has one type for ever, and is required by some of them.
        let writers: Vec<Vec<Value>> = (0..4)
            .map(|_| {
                let mut fields = vec![field("id", "int64", false)];
                let optional = rng.random_bool(0.5);
                fields.extend(
                    (0..6)
                        .filter(|_| rng.random_bool(0.6))
                        .map(|n| field(&format!("c{n}"), kinds[n % kinds.len()], optional)),
                );
                fields.shuffle(&mut rng);
                fields
            })
            .collect();
        for _ in 0..rng.random_range(1..20) {
            let fields = &writers[rng.random_range(0..writers.len())];
            next += 1;
            let mut cells = Map::new();
            for each in fields {
                let (name, optional) = (each["field"].as_str().unwrap(), each["optional"] == true);
                let cell = match each["type"].as_str().unwrap() {
                    "int64" => json!(next),
                    _ if optional && rng.random_bool(0.3) => Value::Null,
                    "int32" => json!(rng.random_range(-9..9)),
                    "string" => json!(format!("text {next}")),
                    "boolean" => json!(rng.random_bool(0.5)),
                    "double" => json!(f64::from(next) + 0.5),
                    _ => json!("AQID"),
                };
                cells.insert(name.to_owned(), cell);
            }
            let (row, delete) = (Value::Object(cells), rng.random_bool(0.2));
            let text = match delete {
                true => wrapped(fields, "d", &row, &Value::Null),
                false => wrapped(fields, "c", &Value::Null, &row),
            };
            texts.push((text, row, delete));
        }
        let messages: Vec<Message<'_>> = texts.iter().map(|(text, ..)| value(text)).collect();
        let mut spec = followed(&messages, &["id"]);
        spec.metadata = vec!["__op".to_owned(), "__deleted".to_owned()];
        let mut decoder = decoder(&spec).unwrap();
        let cut = rng.random_range(0..=messages.len());
        let mut known = 0;
        for (run, first) in [(&messages[..cut], 0), (&messages[cut..], cut)] {
            let decoded = decoder.decode(run).unwrap();
            account(&decoded, run.len());
            assert_eq!(decoded.rejects, [], "seed {seed}");
            let names = names(&decoded);
            assert!(names.len() >= known, "columns are only added");
            known = names.len();
            for index in 0..decoded.rows.num_rows() {
                let (_, expected, delete) = &texts[first + index];
                let row = row(&decoded, index);
                assert_eq!(
                    (row["id"].clone(), row["__deleted"].clone()),
                    (expected["id"].clone(), json!(delete)),
                    "seed {seed}"
                );
                assert_eq!(decoded.ops[index], if *delete { Op::Delete } else { Op::Put });
                for (name, cell) in expected.as_object().unwrap() {
                    assert!(names.contains(name), "seed {seed}: {name}");
                    assert!(*delete || row[name] == *cell, "seed {seed}: {name} is {} and not {cell}", row[name]);
                }
                for name in names
                    .iter()
                    .filter(|name| expected.get(name.as_str()).is_none() && !name.starts_with("__"))
                {
                    assert!(*delete || row[name].is_null(), "seed {seed}: {name}");
                }
            }
        }
    }
}

#[test]
fn v17_s10_columns_that_a_table_cannot_gain_stop_it_with_the_reason() {
    let id = || field("id", "int64", false);
    let inner = |fields: Value| json!({"type": "struct", "optional": true, "field": "s", "fields": fields});
    let first = vec![id(), field("name", "string", true), inner(json!([field("x", "int32", true)]))];
    let cases = [
        (vec![id(), field("Name", "string", true)], "`name` in case only"),
        (vec![id(), field("a b", "string", true)], "`a b`"),
        (vec![id(), field("name", "int64", true)], "`name` is Int64 there and Utf8 here"),
        (
            vec![id(), inner(json!([field("X", "int32", true)]))],
            "`s.X`: it differs from `x` in case only",
        ),
        (vec![id(), field("odd", "int128", true)], "`int128`"),
    ];
    for (fields, part) in cases {
        let good = wrapped(&first, "c", &Value::Null, &json!({"id": 1, "name": "a"}));
        let bad = wrapped(&fields, "c", &Value::Null, &json!({"id": 2}));
        let messages = [value(&good), value(&bad)];
        let mut decoder = decoder(&followed(&messages, &["id"])).unwrap();
        for _ in 0..2 {
            let error = decoder.decode(&messages).unwrap_err();
            assert_eq!(error.kind, Kind::Data, "{error}");
            assert!(error.to_string().contains(part), "{error}");
        }
        // Nothing of a failed run is left.
        let decoded = decoder.decode(&messages[..1]).unwrap();
        account(&decoded, 1);
        assert_eq!(names(&decoded), ["id", "name", "s"]);
    }
}

#[test]
fn s5_s7_s13_fields_within_columns_come_and_go_with_their_writers() {
    let object = |name: &str, fields: &[Value]| json!({"type": "struct", "optional": true, "field": name, "fields": fields});
    let columns = |fields: &[Value]| {
        let item = json!({"type": "struct", "optional": true, "fields": fields});
        let list = json!({"type": "array", "optional": true, "field": "l", "items": item});
        let map = json!({"type": "map", "optional": true, "field": "m", "keys": {"type": "string", "optional": false}, "values": item});
        vec![field("id", "int64", false), object("s", fields), list, map]
    };
    let row = |id: i64, cell: Value| json!({"id": id, "s": cell, "l": [cell, null, cell], "m": {"k": cell}});
    let (old, new) = (
        columns(&[field("x", "int32", false), field("gone", "string", false)]),
        columns(&[object("deep", &[field("z", "string", true)]), field("x", "int32", true)]),
    );
    let texts = [
        wrapped(&old, "c", &Value::Null, &row(1, json!({"x": 1, "gone": "a"}))),
        wrapped(&new, "c", &Value::Null, &row(2, json!({"deep": {"z": "b"}, "x": null}))),
        wrapped(&old, "c", &Value::Null, &row(3, json!({"x": 3, "gone": "c"}))),
    ];
    let messages: Vec<Message<'_>> = texts.iter().map(|text| value(text)).collect();
    let mut decoder = decoder(&followed(&messages, &["id"])).unwrap();
    let decoded = decoder.decode(&messages).unwrap();
    account(&decoded, 3);
    assert_eq!(decoded.rejects, []);
    let expected = [
        row(1, json!({"x": 1, "gone": "a", "deep": null})),
        row(2, json!({"x": null, "gone": null, "deep": {"z": "b"}})),
        row(3, json!({"x": 3, "gone": "c", "deep": null})),
    ];
    for (index, expected) in expected.iter().enumerate() {
        let read = super::row(&decoded, index);
        for name in ["id", "s", "l", "m"] {
            assert_eq!(read[name], expected[name], "{name} of {index}");
        }
    }
}

fn people() -> DecodeSpec {
    let fields = vec![
        Field::new("id", DataType::Int64, false),
        Field::new("place", DataType::Utf8, false),
        Field::new("body", DataType::Utf8, true),
    ];
    upsert(spec(Format::DebeziumJson, columns(fields)), &["place", "id"])
}

fn update(before: Value, after: Value) -> String {
    json!({"op": "u", "before": before, "after": after}).to_string()
}

#[test]
fn u3_an_update_of_the_key_puts_the_new_row_and_deletes_the_old_one() {
    let cases = [
        (json!({"id": 1, "place": "a", "body": "old"}), Some(json!([1, "a"]))),
        (json!({"body": "old", "place": "b", "id": 7}), Some(json!([7, "b"]))),
        (json!({"id": 2, "place": "b", "body": "old"}), None),
        // What was not sent of the old row says nothing.
        (json!({"id": 7, "place": null}), None),
        (json!({"id": 7}), None),
        (Value::Null, None),
    ];
    let after = json!({"id": 2, "place": "b", "body": "new"});
    let mut spec = people();
    spec.metadata = vec!["__deleted".to_owned(), "__offset".to_owned()];
    for (before, old) in cases {
        let text = update(before.clone(), after.clone());
        let good = update(Value::Null, json!({"id": 9, "place": "z"}));
        let messages = [value(&good), value(&text), value(&good)];
        let decoded = decoder(&spec).unwrap().decode(&messages).unwrap();
        account(&decoded, 3);
        assert_eq!(decoded.rejects, [], "{before}");
        let moved = row(&decoded, 1);
        assert_eq!(
            (&moved["id"], &moved["place"], &moved["body"]),
            (&json!(2), &json!("b"), &json!("new")),
            "{before}"
        );
        match old {
            Some(old) => {
                assert_eq!(decoded.ops, [Op::Put, Op::Put, Op::Delete, Op::Put], "{before}");
                assert_eq!(decoded.origins, [0, 1, 1, 2]);
                let gone = row(&decoded, 2);
                assert_eq!(json!([gone["id"], gone["place"]]), old);
                assert_eq!((&gone["__deleted"], &gone["__offset"]), (&json!(true), &json!(41)));
            }
            None => assert_eq!(decoded.ops, [Op::Put; 3], "{before}"),
        }
    }
    // A table of events gets the event, and by the message's key there is only one.
    let text = update(json!({"id": 1, "place": "a"}), after);
    let mut events = people();
    (events.key, events.metadata) = (Vec::new(), vec!["__op".to_owned()]);
    assert_eq!(decoder(&events).unwrap().decode(&[value(&text)]).unwrap().ops, [Op::Put]);
    let by_key = DecodeSpec {
        key_from: KeyFrom::MessageKey,
        ..people()
    };
    let keyed = message(Some(br#"{"id":2,"place":"b"}"#), Some(text.as_bytes()));
    assert_eq!(decoder(&by_key).unwrap().decode(&[keyed]).unwrap().ops, [Op::Put]);
}

#[test]
fn u3_an_old_key_that_cannot_be_read_rejects_the_event_whole() {
    let good = update(Value::Null, json!({"id": 9, "place": "z"}));
    for (before, code) in [
        (json!({"id": "x", "place": "a"}), "type_mismatch"),
        (json!([1]), "unexpected"),
        (json!({"id": 1.5, "place": "a"}), "type_mismatch"),
    ] {
        let text = update(before, json!({"id": 2, "place": "b"}));
        let messages = [value(&text), value(&good)];
        let decoded = decoder(&people()).unwrap().decode(&messages).unwrap();
        account(&decoded, 2);
        assert_eq!((decoded.origins.as_slice(), decoded.rejects[0].code), (&[1][..], code));
        assert!(decoded.rejects[0].message.contains("`before"), "{}", decoded.rejects[0].message);
    }
}

/// Of the create behind the delete of a row whose key was changed.
struct OldKey;

impl ReadHeaders for OldKey {
    fn count(&self) -> usize {
        2
    }
    fn header(&self, index: usize) -> (&str, Option<&[u8]>) {
        [("trace", None), ("__debezium.oldkey", Some(&br#"{"id":1,"place":"b"}"#[..]))][index]
    }
}

#[test]
fn v16_u3_a_row_of_a_new_key_is_never_filled_from_another_row() {
    let unavailable = "__debezium_unavailable_value";
    let after = json!({"id": 2, "place": "b", "body": unavailable});
    let flattened = json!({"id": 2, "place": "b", "body": unavailable, "__op": "c"});
    let rejected = [
        json!({"op": "c", "before": null, "after": after}).to_string(),
        json!({"op": "r", "before": null, "after": after}).to_string(),
        update(json!({"id": 1, "place": "b"}), after.clone()),
        flattened.to_string(),
    ];
    for text in rejected {
        let decoded = decoder(&people()).unwrap().decode(&[value(&text)]).unwrap();
        account(&decoded, 1);
        assert_eq!(decoded.rejects[0].code, "unavailable_value", "{text}");
        let said = &decoded.rejects[0].message;
        assert!(said.contains("`body`") && said.contains("REPLICA IDENTITY FULL"), "{said}");
    }
    // Flattened without `__op`, the headers of a changed key tell.
    let silent = json!({"id": 2, "place": "b", "body": unavailable}).to_string();
    let mut moved = value(&silent);
    moved.headers = Headers(Some(&OldKey));
    let decoded = decoder(&people()).unwrap().decode(&[moved]).unwrap();
    assert_eq!(
        (decoded.ops.as_slice(), decoded.rejects[0].code),
        (&[Op::Delete][..], "unavailable_value")
    );
    let filled = [
        update(json!({"id": 2, "place": "b"}), after.clone()),
        update(Value::Null, after),
        flattened.to_string().replace(r#""c""#, r#""u""#),
        silent,
    ];
    for text in filled {
        let decoded = decoder(&people()).unwrap().decode(&[value(&text)]).unwrap();
        assert_eq!(
            (decoded.ops.as_slice(), decoded.unchanged.unwrap().0.len()),
            (&[Op::Put][..], 1),
            "{text}"
        );
    }
}

#[test]
fn s9_s13_columns_get_wider_with_their_writers_however_these_take_turns() {
    let optional = |kind: Value, name: &str| {
        let mut field = kind;
        field["optional"] = json!(true);
        field["field"] = json!(name);
        field
    };
    let decimal = |scale: &str, precision: &str| {
        json!({"type": "bytes", "name": "org.apache.kafka.connect.data.Decimal",
            "parameters": {"scale": scale, "connect.decimal.precision": precision}})
    };
    let plain = |kind: &str| json!({"type": kind});
    let named = |kind: &str, name: &str| json!({"type": kind, "name": name});
    let within = |kind: &str| json!({"type": "struct", "fields": [field("n", kind, true)]});
    let list = |kind: &str| json!({"type": "array", "items": {"type": kind, "optional": true}});
    // Each column's type at first and then, and a value in both forms, as the wider column shows it.
    let cases = [
        (
            "i",
            plain("int32"),
            plain("int64"),
            json!(-7),
            json!(1_i64 << 40),
            json!(-7),
            json!(1_i64 << 40),
        ),
        ("x", plain("int32"), plain("double"), json!(3), json!(0.5), json!(3.0), json!(0.5)),
        ("f", plain("float"), plain("double"), json!(0.5), json!(0.1), json!(0.5), json!(0.1)),
        (
            "d",
            decimal("1", "5"),
            decimal("2", "9"),
            json!("AP8="),
            json!("AP8="),
            json!("25.50"),
            json!("2.55"),
        ),
        (
            "e",
            plain("int32"),
            decimal("2", "12"),
            json!(4),
            json!("AP8="),
            json!("4.00"),
            json!("2.55"),
        ),
        (
            "t",
            named("int32", "io.debezium.time.Date"),
            named("int64", "io.debezium.time.MicroTimestamp"),
            json!(1),
            json!(1),
            json!(86_400_000_000_i64),
            json!(1),
        ),
        (
            "l",
            list("int32"),
            list("int64"),
            json!([1, null]),
            json!([1_i64 << 40]),
            json!([1, null]),
            json!([1_i64 << 40]),
        ),
        (
            "s",
            within("int32"),
            within("int64"),
            json!({"n": 5}),
            json!({"n": 6}),
            json!({"n": 5}),
            json!({"n": 6}),
        ),
    ];
    for (name, narrow, wide, small, large, small_read, large_read) in cases {
        let text = |id: i64, kind: &Value, value: &Value| {
            let fields = [field("id", "int64", false), optional(kind.clone(), name)];
            wrapped(&fields, "c", &Value::Null, &json!({"id": id, name: value}))
        };
        let texts = [
            text(0, &narrow, &small),
            text(1, &wide, &large),
            text(2, &narrow, &small),
            text(3, &wide, &Value::Null),
        ];
        let messages: Vec<Message<'_>> = texts.iter().map(|text| value(text)).collect();
        let mut decoder = decoder(&followed(&messages, &["id"])).unwrap();
        for _ in 0..2 {
            let decoded = decoder.decode(&messages).unwrap();
            account(&decoded, messages.len());
            assert_eq!(decoded.rejects, [], "{name}");
            let read: Vec<Value> = (0..4).map(|index| row(&decoded, index)[name].clone()).collect();
            assert_eq!(
                read,
                [small_read.clone(), large_read.clone(), small_read.clone(), Value::Null],
                "{name}"
            );
            assert_eq!(decoder.schema(), &decoded.rows.schema(), "{name}");
        }
        // A schema file still says what the columns are: nothing is widened.
        let columns = discover(Format::DebeziumJson, &messages[..1]).unwrap().unwrap();
        let fixed = upsert(spec(Format::DebeziumJson, columns), &["id"]);
        let decoded = alluvium::sources::decode::decoder(&fixed).unwrap().decode(&messages[1..2]);
        assert!(decoded.is_err() || name == "d", "{name}: {decoded:?}");
    }
}

//! Generated rows, written as JSON in many ways, against what they were; and arbitrary bytes, which must do no harm.

use std::collections::BTreeMap;
use std::sync::Arc;

use alluvium::batch::Op;
use alluvium::config::{Format, KeyFrom};
use alluvium::sources::decode::{Decoder, Message, decoder, discover};
use arrow::datatypes::{DataType, Field, Fields, SchemaRef, TimeUnit};
use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::{account, cell, columns, message, spec, upsert};

fn table() -> SchemaRef {
    let inner = Fields::from(vec![
        Field::new("x", DataType::Int32, false),
        Field::new("note☃", DataType::Utf8, true),
    ]);
    let entries = Fields::from(vec![
        Field::new("key", DataType::Utf8, false),
        Field::new("value", DataType::Float64, true),
    ]);
    let item = |kind| DataType::List(Arc::new(Field::new("element", kind, true)));
    columns(vec![
        Field::new("id", DataType::Int64, false),
        Field::new("i", DataType::Int32, true),
        Field::new("f", DataType::Float32, true),
        Field::new("d", DataType::Float64, true),
        Field::new("b", DataType::Boolean, true),
        Field::new("s", DataType::Utf8, true),
        Field::new("n", DataType::Decimal128(38, 4), true),
        Field::new("day", DataType::Date32, true),
        Field::new("at", DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())), true),
        Field::new("local", DataType::Timestamp(TimeUnit::Microsecond, None), true),
        Field::new("list", item(item(DataType::Int64)), true),
        Field::new("structs", item(DataType::Struct(inner.clone())), true),
        Field::new("o", DataType::Struct(inner), true),
        Field::new(
            "m",
            DataType::Map(Arc::new(Field::new("key_value", DataType::Struct(entries), false)), false),
            true,
        ),
    ])
}

/// A value: what the cell must hold, as `cell` shows it, and a JSON text for it.
type Cell = (Value, String);

fn maybe(cell: impl Strategy<Value = Cell> + 'static) -> BoxedStrategy<Cell> {
    prop_oneof![1 => Just((Value::Null, "null".to_owned())), 4 => cell].boxed()
}

fn number(value: Value) -> Cell {
    let text = value.to_string();
    (value, text)
}

/// Text, with some characters written as escapes that need none.
fn text() -> impl Strategy<Value = Cell> {
    (any::<String>(), any::<u64>()).prop_map(|(text, escapes)| {
        let mut json = String::from("\"");
        for (index, letter) in text.chars().enumerate() {
            let forced = letter < ' ' || letter == '"' || letter == '\\';
            if forced || escapes >> (index % 64) & 1 == 1 {
                letter
                    .encode_utf16(&mut [0; 2])
                    .iter()
                    .for_each(|half| json += &format!("\\u{half:04x}"));
            } else {
                json.push(letter);
            }
        }
        (json!(text), json + "\"")
    })
}

fn decimal() -> impl Strategy<Value = Cell> {
    (-(10i128.pow(38) - 1)..10i128.pow(38), any::<bool>()).prop_map(|(unscaled, quoted)| {
        let digits = format!("{:05}", unscaled.unsigned_abs());
        let (whole, fraction) = digits.split_at(digits.len() - 4);
        let text = format!("{}{whole}.{fraction}", if unscaled < 0 { "-" } else { "" });
        (json!(text), if quoted { format!("\"{text}\"") } else { text.clone() })
    })
}

fn time(zone: bool) -> impl Strategy<Value = Cell> {
    // The years that both this program and the library of the test write with four digits.
    (-62_135_596_800_000_000i64..253_402_300_800_000_000, -23i32..24, any::<bool>())
        .prop_map(move |(at_us, hours, space)| {
            let offset = chrono::FixedOffset::east_opt(if zone { hours * 3600 + hours * 60 } else { 0 }).unwrap();
            let at = chrono::DateTime::from_timestamp_micros(at_us).unwrap().with_timezone(&offset);
            let pattern = match (space, zone) {
                (false, true) => "%Y-%m-%dT%H:%M:%S%.f%:z",
                (true, true) => "%Y-%m-%d %H:%M:%S%.6f%z",
                (false, false) => "%Y-%m-%dT%H:%M:%S%.f",
                (true, false) => "%Y-%m-%d %H:%M:%S%.9f",
            };
            (json!(at_us), format!("\"{}\"", at.format(pattern)))
        })
        .prop_filter("a year of four digits", |(_, text)| {
            !text.starts_with("\"+") && !text.starts_with("\"-")
        })
}

fn day() -> impl Strategy<Value = Cell> {
    (-719_162i32..2_932_897).prop_map(|days| {
        let date = chrono::NaiveDate::from_ymd_opt(1970, 1, 1).unwrap() + chrono::TimeDelta::days(i64::from(days));
        (json!(days), format!("\"{}\"", date.format("%Y-%m-%d")))
    })
}

fn list(item: BoxedStrategy<Cell>) -> impl Strategy<Value = Cell> {
    prop::collection::vec(item, 0..4).prop_map(|items| {
        let (values, texts): (Vec<_>, Vec<_>) = items.into_iter().unzip();
        (Value::Array(values), format!("[{}]", texts.join(" ,")))
    })
}

fn inner() -> impl Strategy<Value = Cell> {
    (any::<i32>(), maybe(text()), any::<bool>()).prop_map(|(x, (note, note_text), swapped)| {
        let json = match (swapped, note.is_null()) {
            (true, _) => format!(r#"{{"note☃":{note_text},"x":{x}}}"#),
            (false, true) => format!(r#"{{ "x" : {x} }}"#),
            (false, false) => format!(r#"{{"x":{x},"more":[{{}}],"note\u2603":{note_text}}}"#),
        };
        (json!({"x": x, "note☃": note}), json)
    })
}

fn map() -> impl Strategy<Value = Cell> {
    prop::collection::btree_map(
        "[a-c]{0,2}",
        maybe(any::<f64>().prop_filter("finite", |d| d.is_finite()).prop_map(|d| number(json!(d)))),
        0..4,
    )
    .prop_map(|pairs| {
        let texts: Vec<String> = pairs.iter().map(|(key, (_, text))| format!("\"{key}\":{text}")).collect();
        let values: Map<String, Value> = pairs.into_iter().map(|(key, (value, _))| (key, value)).collect();
        (Value::Object(values), format!("{{{}}}", texts.join(",")))
    })
}

/// A row of the table and a message for it.
fn row() -> impl Strategy<Value = (Value, String)> {
    let integer = any::<i64>().prop_map(|i| number(json!(i)));
    let cells = vec![
        ("i", maybe(any::<i32>().prop_map(|i| number(json!(i))))),
        (
            "f",
            maybe(
                any::<f32>()
                    .prop_filter("finite", |f| f.is_finite())
                    .prop_map(|f| (json!(f64::from(f)), format!("{f:e}"))),
            ),
        ),
        (
            "d",
            maybe(any::<f64>().prop_filter("finite", |d| d.is_finite()).prop_map(|d| number(json!(d)))),
        ),
        ("b", maybe(any::<bool>().prop_map(|b| number(json!(b))))),
        ("s", maybe(text())),
        ("n", maybe(decimal())),
        ("day", maybe(day())),
        ("at", maybe(time(true))),
        ("local", maybe(time(false))),
        ("list", maybe(list(maybe(list(maybe(integer)))))),
        ("structs", maybe(list(maybe(inner())))),
        ("o", maybe(inner())),
        ("m", maybe(map())),
    ];
    let names: Vec<&'static str> = cells.iter().map(|(name, _)| *name).collect();
    let strategies: Vec<BoxedStrategy<Cell>> = cells.into_iter().map(|(_, cell)| cell).collect();
    (any::<i64>(), strategies, any::<u32>(), any::<bool>()).prop_map(move |(id, cells, order, terse)| {
        let mut row = Map::from_iter([("id".to_owned(), json!(id))]);
        let mut members = vec![format!("\"id\":{id}")];
        for (name, (value, text)) in names.iter().zip(cells) {
            // A writer may leave nulls out.
            if !(terse && value.is_null()) {
                members.push(format!("\"{name}\":{text}"));
            }
            row.insert((*name).to_owned(), value);
        }
        let turn = order as usize % members.len();
        members.rotate_left(turn);
        if order % 5 == 0 {
            members.push(r#""not of the table": {"a":["\ud83d\ude00", -0.5e-7, {}]}"#.to_owned());
        }
        let comma = if order % 2 == 0 { "," } else { " ,\n\t" };
        (Value::Object(row), format!("{{{}}}", members.join(comma)))
    })
}

/// Breaks a message in one of several ways.
fn poison(text: &str, how: u8, place: usize) -> Vec<u8> {
    let mut bytes = text.as_bytes().to_vec();
    match how % 6 {
        0 => bytes.truncate(place % bytes.len()),
        1 => bytes.extend_from_slice(b"{}"),
        2 => bytes.insert(1, b','),
        3 => bytes = text.replacen("\"id\":", "\"id\":1.5,\"was\":", 1).into_bytes(),
        4 => bytes = text.replacen("\"id\":", "\"ident\":", 1).into_bytes(),
        _ => bytes.insert(bytes.len() - 1, 0xFF),
    }
    bytes
}

proptest! {
    #![proptest_config(ProptestConfig::default())]

    /// K12: any subset of bad messages is rejected, and all others are the rows that they were.
    #[test]
    fn k12_rows_are_what_they_were_and_exactly_the_bad_messages_are_rejected(
        rows in prop::collection::vec((row(), prop::option::weighted(0.3, (any::<u8>(), any::<usize>()))), 1..40),
        runs in 1usize..3,
    ) {
        let mut decoder = decoder(&spec(Format::Json, table())).unwrap();
        let bytes: Vec<Vec<u8>> = rows.iter().map(|((_, text), bad)| match bad {
            Some((how, place)) => poison(text, *how, *place),
            None => text.clone().into_bytes(),
        }).collect();
        for chunk in rows.iter().zip(&bytes).collect::<Vec<_>>().chunks(rows.len().div_ceil(runs)) {
            let messages: Vec<Message<'_>> = chunk.iter().map(|(_, bytes)| message(None, Some(bytes))).collect();
            let decoded = decoder.decode(&messages).unwrap();
            account(&decoded, messages.len());
            let bad: Vec<usize> = (0..chunk.len()).filter(|index| chunk[*index].0.1.is_some()).collect();
            prop_assert_eq!(decoded.rejects.iter().map(|reject| reject.index).collect::<Vec<_>>(), bad);
            for (index, origin) in decoded.origins.iter().enumerate() {
                prop_assert_eq!(&super::row(&decoded, index), &chunk[*origin as usize].0.0.0);
            }
        }
    }

    /// A second reader, of another make, sees the same table.
    #[test]
    fn arrow_json_reads_the_same_rows(mut rows in prop::collection::vec(row(), 1..20)) {
        // It puts halves of surrogate pairs together wrongly (arrow-json 59.3 makes U+1EBF0 of U+2EBF0).
        rows.retain(|(_, text)| !text.contains("\\ud"));
        prop_assume!(!rows.is_empty());
        let texts: Vec<&str> = rows.iter().map(|(_, text)| text.as_str()).collect();
        let messages: Vec<Message<'_>> = texts.iter().map(|text| super::value(text)).collect();
        let decoded = decoder(&spec(Format::Json, table())).unwrap().decode(&messages).unwrap();
        let mut other = arrow_json::ReaderBuilder::new(table()).with_batch_size(rows.len()).build_decoder().unwrap();
        texts.iter().for_each(|text| { other.decode(text.as_bytes()).unwrap(); });
        let other = other.flush().unwrap().unwrap();
        for (name, ours) in decoded.rows.schema().fields().iter().zip(decoded.rows.columns()) {
            // It takes a decimal's text, and the last bit of a float, its own way: those have the test above.
            if !["n", "f"].contains(&name.name().as_str()) {
                let theirs = other.column_by_name(name.name()).unwrap();
                for row in 0..rows.len() {
                    prop_assert_eq!(cell(ours, row), cell(theirs, row), "{}", name.name());
                }
            }
        }
    }

    /// What serde_json takes for JSON, and nothing else, is taken for JSON.
    #[test]
    fn json_is_what_another_strict_reader_takes_for_it(
        (_, text) in row(),
        edits in prop::collection::vec((any::<usize>(), any::<u8>(), 0..3u8), 0..3),
    ) {
        let mut bytes = text.into_bytes();
        for (place, byte, kind) in edits {
            let place = place % bytes.len();
            let byte = if byte % 2 == 0 { b"{}[]\",:\\ue0-.1\xC3\x80 "[usize::from(byte / 2) % 17] } else { byte };
            match kind {
                0 => bytes[place] = byte,
                1 => bytes.insert(place, byte),
                _ => drop(bytes.drain(place..(place + 1).min(bytes.len()))),
            }
            if bytes.is_empty() {
                break;
            }
        }
        // A column that the message does not have: all of it is passed over, and checked.
        let schema = columns(vec![Field::new("absent", DataType::Int64, true)]);
        let decoded = decoder(&spec(Format::Json, schema)).unwrap().decode(&[message(None, Some(&bytes))]).unwrap();
        match serde_json::from_slice::<Value>(&bytes) {
            Ok(value) => prop_assert_eq!(decoded.rejects.is_empty(), value.is_object()),
            // A number too large for a float is JSON all the same.
            Err(error) if error.to_string().contains("number out of range") => {}
            Err(_) => prop_assert_eq!(decoded.rejects.len(), 1),
        }
    }

    /// Debezium's decoder, over real events that were damaged: every message is accounted for, and nothing panics.
    #[test]
    fn damaged_events_are_accounted_for(
        edits in prop::collection::vec((any::<usize>(), any::<usize>(), any::<u8>(), 0..4u8), 0..12),
        with_schema in any::<bool>(),
        as_upsert in any::<bool>(),
    ) {
        let samples = if with_schema { super::samples::with_schema("rich") } else { super::samples::plain("rich") };
        let mut values: Vec<[Option<Vec<u8>>; 2]> = samples.iter().map(|sample| {
            [sample.key.clone(), sample.value.clone()].map(|part| part.map(String::into_bytes))
        }).collect();
        for (which, place, byte, kind) in edits {
            let which = which % values.len();
            let [key, value] = &mut values[which];
            let part = if byte % 7 == 0 { key } else { value };
            let Some(bytes) = part.as_mut().filter(|bytes| !bytes.is_empty()) else { continue };
            let place = place % bytes.len();
            match kind {
                0 => bytes[place] = byte,
                1 => bytes.truncate(place),
                2 => bytes.insert(place, byte),
                _ => { let end = (place + usize::from(byte)).min(bytes.len()); bytes.drain(place..end); }
            }
        }
        let mut spec = spec(Format::DebeziumJson, super::samples::columns_of("rich"));
        spec.metadata = ["__op", "__deleted", "__unchanged", "__lsn", "__ts_ms", "__headers"].map(str::to_owned).to_vec();
        if as_upsert {
            spec = upsert(spec, &["id"]);
        }
        let messages: Vec<Message<'_>> = values.iter().map(|[key, value]| message(key.as_deref(), value.as_deref())).collect();
        let mut decoder = decoder(&spec).unwrap();
        match decoder.decode(&messages) {
            Ok(decoded) => account(&decoded, messages.len()),
            // A damaged schema may well describe another table.
            Err(error) => prop_assert_eq!(error.kind, alluvium::error::Kind::Data),
        }
        // The next run is as good as any.
        let good = samples[0].message();
        let decoded = decoder.decode(&[good]).unwrap();
        account(&decoded, 1);
        prop_assert_eq!(decoded.rejects.len(), 0);
    }

    /// V16: whatever a later event leaves out as unchanged, it is never filled from a row that the source had before a change that is a
    /// reject. The rows that a fold of the run finds are those of the last change of their key, or there is none.
    #[test]
    fn a_row_is_its_keys_last_change_or_gone(
        changes in prop::collection::vec((0..3u8, 0..6u8, any::<bool>()), 1..30),
        by_key in any::<bool>(),
        runs in 1usize..3,
    ) {
        let fields = vec![Field::new("id", DataType::Int64, false), Field::new("v", DataType::Int64, false)];
        let mut spec = upsert(spec(Format::DebeziumJson, columns(fields)), &["id"]);
        if by_key {
            spec.key_from = KeyFrom::MessageKey;
        }
        let mut decoder = decoder(&spec).unwrap();
        let (mut expected, mut found) = (BTreeMap::new(), BTreeMap::new());
        let texts: Vec<(String, String)> = changes.iter().enumerate().map(|(v, (id, kind, flat))| {
            let (row, key) = (json!({"id": id, "v": v}), i64::from(*id));
            let bad = json!({"id": id, "v": "no number"});
            let value = match (kind, flat) {
                (0..=2, true) => row.to_string(),
                (0..=2, false) => json!({"op": "u", "before": null, "after": row}).to_string(),
                (3, true) => bad.to_string(),
                (3, false) => json!({"op": "c", "after": bad, "kafka_offset": v}).to_string(),
                (4, true) => json!({"id": id, "v": null, "__deleted": "true"}).to_string(),
                (4, false) => json!({"op": "d", "before": {"id": id}, "after": null}).to_string(),
                _ => json!({"op": "u", "after": row}).to_string() + "}",
            };
            match kind {
                0..=2 => drop(expected.insert(key, v as i64)),
                3 | 4 => drop(expected.remove(&key)),
                _ => {}
            }
            (json!({"id": id}).to_string(), value)
        }).collect();
        for run in texts.chunks(texts.len().div_ceil(runs)) {
            let messages: Vec<Message<'_>> = run.iter().map(|(key, value)| message(Some(key.as_bytes()), Some(value.as_bytes()))).collect();
            let decoded = decoder.decode(&messages).unwrap();
            account(&decoded, messages.len());
            for (index, op) in decoded.ops.iter().enumerate() {
                let row = super::row(&decoded, index);
                let key = row["id"].as_i64().unwrap();
                match op {
                    Op::Put => drop(found.insert(key, row["v"].as_i64().unwrap())),
                    _ => drop(found.remove(&key)),
                }
            }
        }
        prop_assert_eq!(found, expected);
    }

    /// Arbitrary bytes as keys and values do no harm to any decoder.
    #[test]
    fn arbitrary_bytes_do_no_harm(messages in prop::collection::vec((prop::option::of(bytes()), prop::option::of(bytes())), 0..20)) {
        let messages: Vec<Message<'_>> = messages.iter().map(|(key, value)| message(key.as_deref(), value.as_deref())).collect();
        let mut decoders: BTreeMap<&str, Box<dyn Decoder>> = BTreeMap::new();
        decoders.insert("json", decoder(&spec(Format::Json, table())).unwrap());
        decoders.insert("json by key", decoder(&upsert(spec(Format::Json, table()), &["s"])).unwrap());
        decoders.insert("debezium", decoder(&upsert(spec(Format::DebeziumJson, table()), &["id"])).unwrap());
        for decoder in decoders.values_mut() {
            if let Ok(decoded) = decoder.decode(&messages) {
                account(&decoded, messages.len());
            }
        }
        let _whatever = discover(Format::DebeziumJson, &messages);
    }
}

/// Bytes that look like JSON often enough to get somewhere.
fn bytes() -> impl Strategy<Value = Vec<u8>> {
    let words = prop::sample::select(vec![
        "{",
        "}",
        "[",
        "]",
        ",",
        ":",
        "\"",
        "\\",
        "null",
        "true",
        "1",
        "-1e5",
        " ",
        "\"id\"",
        "\"s\"",
        "\"before\"",
        "\"after\"",
        "\"op\"",
        "\"c\"",
        "\"d\"",
        "\"schema\"",
        "\"payload\"",
        "\"source\"",
        "{\"id\":1}",
        "\"type\":\"struct\"",
        "\"fields\"",
        "\u{fffd}",
        "\\ud800",
        "\"n\":\"AQ==\"",
    ]);
    prop_oneof![
        prop::collection::vec(any::<u8>(), 0..40),
        prop::collection::vec(words, 0..30).prop_map(|words| words.concat().into_bytes()),
    ]
}

//! What Debezium's messages mean, in the forms that the samples do not have: flattened rows, changed schemas, odd events.

use std::sync::Arc;

use alluvium::batch::Op;
use alluvium::config::{Format, KeyFrom, Tombstones};
use alluvium::error::Kind;
use alluvium::sources::decode::columns::{from_avro, from_json_schema};
use alluvium::sources::decode::{
    DecodeSpec, Decoded, Message, NewColumns, ReadHeaders, Terms, decoder, decoder_under, discover, rows_among,
};
use arrow::datatypes::{DataType, Field, TimeUnit};
use serde_json::json;

use super::{account, columns, message, row, spec, upsert, value};

fn people() -> DecodeSpec {
    let fields = vec![
        Field::new("id", DataType::Int64, false),
        Field::new("name", DataType::Utf8, true),
        Field::new("born", DataType::Date32, true),
    ];
    upsert(spec(Format::DebeziumJson, columns(fields)), &["id"])
}

fn events() -> DecodeSpec {
    DecodeSpec {
        key: Vec::new(),
        metadata: vec!["__op".to_owned(), "__deleted".to_owned()],
        ..people()
    }
}

#[test]
fn flattened_rows_put_and_delete() {
    let messages = [
        value(r#"{"id":1,"name":"a","born":0}"#),
        value(r#"{"id":2,"name":"b","born":19782,"__deleted":"false","__op":"c","__lsn":7,"__table":"people"}"#),
        value(r#"{"id":2,"name":"b","born":null,"__deleted":"true","__op":"d"}"#),
        message(Some(br#"{"id":3}"#), Some(br#"{"name":null,"__deleted":"true"}"#)),
        message(Some(br#"{"id":4}"#), None),
    ];
    let decoded = decoder(&people()).unwrap().decode(&messages).unwrap();
    account(&decoded, messages.len());
    assert_eq!(decoded.ops, [Op::Put, Op::Put, Op::Delete, Op::Delete, Op::Delete]);
    assert_eq!(row(&decoded, 1), json!({"id": 2, "name": "b", "born": 19782}));
    let ids: Vec<_> = (0..5).map(|index| row(&decoded, index)["id"].clone()).collect();
    assert_eq!(ids, [1, 2, 2, 3, 4]);

    let mut events = events();
    events.metadata.extend(["__lsn".to_owned(), "__table".to_owned()]);
    let decoded = decoder(&events).unwrap().decode(&messages[..3]).unwrap();
    assert_eq!(
        row(&decoded, 0),
        json!({"id": 1, "name": "a", "born": 0, "__op": null, "__deleted": false, "__lsn": null, "__table": null})
    );
    assert_eq!(
        row(&decoded, 1),
        json!({"id": 2, "name": "b", "born": 19782, "__op": "c", "__deleted": false, "__lsn": 7, "__table": "people"})
    );
    assert_eq!(
        row(&decoded, 2),
        json!({"id": 2, "name": "b", "born": null, "__op": "d", "__deleted": true, "__lsn": null, "__table": null})
    );
}

#[test]
fn a_table_of_events_must_be_able_to_say_delete() {
    let mut silent = events();
    silent.metadata = vec!["__lsn".to_owned()];
    let error = decoder(&silent).err().unwrap();
    assert_eq!((error.kind, error.code), (Kind::Config, "metadata"));
    assert!(error.what.contains("`__op` or `__deleted`"));
}

#[test]
fn flattened_rows_delete_whatever_columns_the_schema_file_names() {
    let marks = [
        ("__op", DataType::Utf8),
        ("__deleted", DataType::Utf8),
        ("__ts_ms", DataType::Int64),
    ];
    for named in [&marks[..], &marks[..1], &marks[1..2], &marks[2..]] {
        let mut fields = vec![Field::new("id", DataType::Int64, false), Field::new("v", DataType::Utf8, true)];
        fields.extend(named.iter().map(|(name, kind)| Field::new(*name, kind.clone(), true)));
        let mut decoder = decoder(&upsert(spec(Format::DebeziumJson, columns(fields)), &["id"])).unwrap();
        for deleted in [
            r#"{"id":1,"v":"a","__op":"d","__deleted":"true"}"#,
            r#"{"__deleted":"true","v":null,"id":1}"#,
            r#"{"__op":"d","v":"a","id":1,"__deleted":"false"}"#,
        ] {
            let put = r#"{"id":2,"v":"b","__op":"u","__deleted":"false","__ts_ms":7}"#;
            let decoded = decoder.decode(&[value(put), value(deleted), value(put)]).unwrap();
            account(&decoded, 3);
            assert_eq!(decoded.ops, [Op::Put, Op::Delete, Op::Put], "{named:?} {deleted}");
            assert_eq!(row(&decoded, 1)["id"], 1);
            let mut expected = json!({"id": 2, "v": "b"});
            for (name, _) in named {
                expected[*name] = serde_json::from_str::<serde_json::Value>(put).unwrap()[*name].clone();
            }
            assert_eq!((row(&decoded, 0), row(&decoded, 2)), (expected.clone(), expected));
        }
    }
}

#[test]
fn a_column_of_the_source_that_is_called_as_a_mark_is_a_column_of_the_envelopes_rows() {
    let fields = vec![
        Field::new("id", DataType::Int64, false),
        Field::new("__deleted", DataType::Utf8, true),
    ];
    let mut decoder = decoder(&upsert(spec(Format::DebeziumJson, columns(fields)), &["id"])).unwrap();
    let put = value(r#"{"op":"u","before":null,"after":{"id":1,"__deleted":"true"}}"#);
    let decoded = decoder.decode(&[put]).unwrap();
    assert_eq!(decoded.ops, [Op::Put]);
    assert_eq!(row(&decoded, 0), json!({"id": 1, "__deleted": "true"}));
    // Of a flattened row it says what is deleted, in Debezium's words: whoever has others is not taken at them.
    let cases = [
        ("__deleted", DataType::Int32, "1"),
        ("__deleted", DataType::Utf8, r#""yes""#),
        ("__op", DataType::Utf8, r#""deposit""#),
        ("__op", DataType::Utf8, r#""""#),
        ("__op", DataType::Int64, "7"),
    ];
    for (name, kind, written) in cases {
        let id = Field::new("id", DataType::Int64, false);
        let named = vec![id.clone(), Field::new(name, kind, true)];
        for fields in [named, vec![id]] {
            let is_number_for_text = name == "__op" && fields.len() == 1 && written == "7";
            let mut decoder = alluvium::sources::decode::decoder(&upsert(spec(Format::DebeziumJson, columns(fields)), &["id"])).unwrap();
            let decoded = decoder.decode(&[value(&format!(r#"{{"id":1,"{name}":{written}}}"#))]).unwrap();
            let code = if is_number_for_text { "type_mismatch" } else { "unexpected" };
            assert_eq!((decoded.rows.num_rows(), decoded.rejects[0].code), (0, code), "{name} {written}");
            assert!(decoded.rejects[0].message.contains(name), "{}", decoded.rejects[0].message);
        }
    }
}

#[test]
fn flattened_documents_of_mongodb_say_with_a_boolean_what_is_deleted() {
    let id = Field::new("id", DataType::Int64, false);
    let named = Field::new("__deleted", DataType::Boolean, true);
    for fields in [vec![id.clone()], vec![id, named]] {
        let mut decoder = decoder(&upsert(spec(Format::DebeziumJson, columns(fields)), &["id"])).unwrap();
        let messages = [
            r#"{"id":1,"__deleted":false}"#,
            r#"{"id":2,"__deleted":true}"#,
            r#"{"__deleted":null,"id":3}"#,
        ];
        let decoded = decoder.decode(&messages.map(value)).unwrap();
        account(&decoded, 3);
        assert_eq!(decoded.ops, [Op::Put, Op::Delete, Op::Put]);
        assert_eq!(row(&decoded, 1)["id"], 2);
    }
    assert!(!rows_among(&[value(r#"{"id":2,"__deleted":true}"#)]).rows && rows_among(&[value(r#"{"id":1,"__deleted":false}"#)]).rows);
}

#[test]
fn of_a_deleted_row_only_the_key_is_read() {
    let fields = vec![Field::new("id", DataType::Int64, false), Field::new("v", DataType::Int32, false)];
    for key_from in [KeyFrom::Value, KeyFrom::MessageKey] {
        let mut spec = upsert(spec(Format::DebeziumJson, columns(fields.clone())), &["id"]);
        spec.key_from = key_from;
        let mut decoder = decoder(&spec).unwrap();
        let deletes = [
            r#"{"id":1,"v":null,"__deleted":"true"}"#,
            r#"{"id":1,"__op":"d"}"#,
            r#"{"id":1,"v":"no number","__deleted":"true"}"#,
            r#"{"op":"d","before":{"id":1,"v":null},"after":null}"#,
        ];
        let messages = deletes.map(|delete| message(Some(br#"{"id":1}"#), Some(delete.as_bytes())));
        let decoded = decoder.decode(&messages).unwrap();
        account(&decoded, messages.len());
        assert_eq!(decoded.rejects, []);
        assert_eq!(decoded.ops, [Op::Delete; 4], "{key_from:?}");
        assert!((0..4).all(|index| row(&decoded, index)["id"] == 1));
    }
    // A time that no column can hold is no reason to keep what was deleted.
    let mut spec = people();
    spec.metadata = vec!["__timestamp".to_owned()];
    let mut late = message(Some(br#"{"id":1}"#), None);
    late.timestamp_ms = Some(i64::MAX);
    let decoded = decoder(&spec).unwrap().decode(&[late]).unwrap();
    assert_eq!((decoded.ops.as_slice(), decoded.rejects.len()), (&[Op::Delete][..], 0));
}

#[test]
fn events_that_lack_a_part_are_rejected_alone() {
    let cases = [
        (r#"{"op":"c","before":null,"after":null}"#, "unexpected", "`after`"),
        (r#"{"op":"u","before":{"id":1}}"#, "unexpected", "`after`"),
        (r#"{"op":"x","after":{"id":1}}"#, "unexpected", "`op`"),
        (r#"{"op":7,"after":{"id":1}}"#, "unexpected", "`op`"),
        (r#"{"op":null,"after":{"id":1}}"#, "unexpected", "`op`"),
        (r#"{"after":{"id":1}}"#, "unexpected", "`op`"),
        (
            r#"{"before":null,"after":{"id":1},"source":{},"ts_ms":1}"#,
            "unexpected",
            "`op`: the event does not say",
        ),
        (r#"{"op":"c","after":[1]}"#, "unexpected", "`after`: an object"),
        (r#"{"op":"c","after":{"name":"a"}}"#, "missing_key", "`id`"),
        (r#"{"op":"c","after":{"id":null}}"#, "missing_key", "`id`"),
        (r#"{"op":"d","before":null,"after":null}"#, "missing_key", "no key"),
        (r#"{"op":"d","before":{"name":"a"},"after":null}"#, "missing_key", "no key"),
        (r#"{"op":"u","after":{"id":1},"after":{"id":2}}"#, "duplicate_column", "`after`"),
        (
            r#"{"schema":{"type":"struct"},"payload":{"op":"c","after":{"id":1}},"x":1}"#,
            "malformed",
            "payload",
        ),
        (
            r#"{"payload":{"op":"c","after":{"id":1}},"schema":{"type":"struct"}}"#,
            "unexpected",
            "the schema first",
        ),
        (r#"{"payload":{"id":1,"name":"a"},"schema":null}"#, "unexpected", "the schema first"),
        (r#"{"op":"c","after":{"id":1}} {}"#, "malformed", "more follows"),
        (
            r#"{"schema":{"fields":1},"payload":{"op":"c","after":{"id":1}}}"#,
            "unexpected",
            "Kafka Connect",
        ),
        (
            r#"{"schema":{"type":"int64","optional":false},"payload":{"id":1}}"#,
            "unexpected",
            "describes no row",
        ),
        (r#"[]"#, "unexpected", "no object"),
        (r#"{"#, "malformed", ""),
    ];
    let mut spec = people();
    spec.metadata = vec!["__lsn".to_owned()];
    let mut decoder = decoder(&spec).unwrap();
    let good = r#"{"before":null,"after":{"id":5,"name":"e"},"op":"r"}"#;
    for (bad, code, what) in cases {
        let bad = bad.replace(r#"{"type":"struct"}"#, "null");
        let decoded = decoder.decode(&[value(good), value(&bad), value(good)]).unwrap();
        account(&decoded, 3);
        assert_eq!(decoded.origins, [0, 2], "{bad}");
        let reject = &decoded.rejects[0];
        assert_eq!(reject.code, code, "{bad}: {}", reject.message);
        assert!(reject.message.contains(what), "{bad}: {}", reject.message);
    }
}

#[test]
fn v16_a_change_that_the_table_cannot_hold_is_rejected_and_the_row_of_its_key_is_gone() {
    let cases = [
        (r#"{"op":"c","after":{"id":1,"born":2146033979}}"#, "out_of_range", "`born`"),
        (
            r#"{"op":"u","before":{"id":1},"after":{"id":1,"name":7}}"#,
            "type_mismatch",
            "`name`",
        ),
        (
            r#"{"op":"r","after":{"name":{},"id":1},"kafka_offset":7,"source":{}}"#,
            "type_mismatch",
            "`name`",
        ),
        (
            r#"{"op":"c","after":{"id":1},"source":{"lsn":"x"}}"#,
            "type_mismatch",
            "`source.__lsn`",
        ),
        (r#"{"op":"u","after":{"id":1,"name":"a","name":"b"}}"#, "duplicate_column", "`name`"),
        (
            r#"{"op":"c","after":{"id":1,"name":"__debezium_unavailable_value"}}"#,
            "unavailable_value",
            "`name`",
        ),
        (r#"{"name":7,"id":1}"#, "type_mismatch", "`name`"),
        (r#"{"id":1,"name":7,"__deleted":"false","__op":"u"}"#, "type_mismatch", "`name`"),
        (r#"{"schema":null,"payload":{"id":1,"name":7}}"#, "type_mismatch", "`name`"),
    ];
    let good = r#"{"before":null,"after":{"id":5,"name":"e"},"op":"r"}"#;
    for key_from in [KeyFrom::Value, KeyFrom::MessageKey] {
        let mut spec = DecodeSpec { key_from, ..people() };
        spec.metadata = vec!["__lsn".to_owned(), "__deleted".to_owned(), "__timestamp".to_owned()];
        let mut by_spec = decoder(&spec).unwrap();
        for (bad, code, what) in cases {
            let keyed = |key: &'static [u8], text: &'static str| message(Some(key), Some(text.as_bytes()));
            let messages = [keyed(br#"{"id":5}"#, good), keyed(br#"{"id":1}"#, bad), keyed(br#"{"id":5}"#, good)];
            let decoded = by_spec.decode(&messages).unwrap();
            account(&decoded, 3);
            assert_eq!((decoded.written(), decoded.rejects.len()), (2, 1), "{bad}");
            assert_eq!(decoded.ops, [Op::Put, Op::Delete, Op::Put], "{bad}");
            assert_eq!(decoded.origins, [0, 1, 2], "{bad}");
            assert_eq!(
                (&row(&decoded, 1)["id"], &row(&decoded, 1)["__deleted"]),
                (&json!(1), &json!(true)),
                "{bad}"
            );
            let reject = &decoded.rejects[0];
            assert_eq!((reject.index, reject.code), (1, code), "{bad}: {}", reject.message);
            assert!(reject.message.contains(what), "{bad}: {}", reject.message);
        }
        let mut late = message(Some(br#"{"id":1}"#), Some(br#"{"op":"u","after":{"id":1}}"#));
        late.timestamp_ms = Some(i64::MAX);
        let decoded = by_spec.decode(&[late]).unwrap();
        assert_eq!(
            (decoded.ops.as_slice(), decoded.rejects[0].code),
            (&[Op::Delete][..], "out_of_range")
        );
    }
    // Where the change moved the row, neither key has one.
    let moves = r#"{"op":"u","before":{"id":1},"after":{"id":2,"name":7}}"#;
    let decoded = decoder(&people()).unwrap().decode(&[value(good), value(moves)]).unwrap();
    account(&decoded, 2);
    assert_eq!(decoded.ops, [Op::Put, Op::Delete, Op::Delete]);
    assert_eq!((&row(&decoded, 1)["id"], &row(&decoded, 2)["id"]), (&json!(2), &json!(1)));
    // A table of events has no rows that could be gone, and what is no JSON says nothing of any.
    let decoded = decoder(&events()).unwrap().decode(&[value(cases[1].0)]).unwrap();
    assert_eq!((decoded.rows.num_rows(), decoded.rejects.len()), (0, 1));
    for broken in [
        r#"{"op":"u","after":{"id":1,"name":7},"x":}"#,
        r#"{"id":1,"name":7}}"#,
        r#"{"id":1,"name":07}"#,
    ] {
        let decoded = decoder(&people()).unwrap().decode(&[value(broken)]).unwrap();
        assert_eq!((decoded.rows.num_rows(), decoded.rejects.len()), (0, 1), "{broken}");
    }
}

#[test]
fn an_envelope_may_have_members_that_are_not_debeziums() {
    let after = r#""before":null,"after":{"id":1,"name":"a"}"#;
    let envelopes = [
        format!(r#"{{{after},"source":{{}},"op":"c","ts_ms":2,"updateDescription":null}}"#),
        format!(r#"{{"kafka_offset":3,{after},"source":{{}},"op":"c"}}"#),
        format!(r#"{{"_at":"x",{after},"op":"r"}}"#),
        format!(r#"{{{after},"op":"u","status":"x"}}"#),
        r#"{"after":{"name":"a","id":1},"before":{"id":1},"databaseName":"d","op":"u","source":{}}"#.to_owned(),
    ];
    let delete = r#"{"before":{"id":1},"after":null,"source":{},"op":"d","kafka_offset":3}"#;
    for key_from in [KeyFrom::Value, KeyFrom::MessageKey] {
        let spec = DecodeSpec { key_from, ..people() };
        for envelope in &envelopes {
            let messages = [envelope, delete].map(|text| message(Some(br#"{"id":1}"#), Some(text.as_bytes())));
            let decoded = decoder(&spec).unwrap().decode(&messages).unwrap();
            assert_eq!(decoded.rejects, [], "{envelope}");
            assert_eq!(decoded.ops, [Op::Put, Op::Delete], "{envelope}");
            assert_eq!(row(&decoded, 0), json!({"id": 1, "name": "a", "born": null}), "{envelope}");
        }
    }
    let decoded = decoder(&events()).unwrap().decode(&[value(&envelopes[0]), value(delete)]).unwrap();
    assert_eq!((&row(&decoded, 0)["name"], &row(&decoded, 1)["__op"]), (&json!("a"), &json!("d")));
    let truncate = value(r#"{"op":"t","before":null,"after":null,"source":{"lsn":5},"x":1}"#);
    assert_eq!(decoder(&people()).unwrap().decode(&[truncate]).unwrap().ops, [Op::Truncate]);
    let logical = value(r#"{"op":"m","message":{"prefix":"p"},"source":{},"x":1}"#);
    assert_eq!(decoder(&people()).unwrap().decode(&[logical]).unwrap().filtered, 1);
}

#[test]
fn a_flattened_row_may_have_columns_that_are_called_as_an_envelopes_members() {
    let text = |name: &str| Field::new(name, DataType::Utf8, true);
    let names = ["id", "message", "source", "op", "before", "after", "status"];
    let mut spec = spec(Format::DebeziumJson, columns(names.map(text).to_vec()));
    spec.metadata = vec!["__deleted".to_owned()];
    let rows = [
        json!({"message": "m", "source": "web"}),
        json!({"message": "m", "source": null, "ts_ms": 5}),
        json!({"op": "login", "source": "web"}),
        json!({"id": "1", "op": "c", "before": null, "after": "{}"}),
        json!({"id": "1", "op": "UPDATE", "before": "{}", "after": "{}"}),
        json!({"id": "1", "op": "d", "before": null, "after": null}),
        json!({"id": "1", "before": "x", "source": "y"}),
        json!({"id": "1", "status": "x"}),
    ];
    for object in rows {
        let decoded = decoder(&spec).unwrap().decode(&[value(&object.to_string())]).unwrap();
        assert_eq!((decoded.rejects.as_slice(), decoded.filtered), (&[][..], 0), "{object}");
        for name in names {
            assert_eq!(row(&decoded, 0)[name], object[name], "{object} {name}");
        }
    }
    for time in [r#"{"ts_ms":1}"#, r#"{"ts_ms":1,"ts_us":1000,"ts_ns":1000000}"#] {
        assert_eq!(decoder(&spec).unwrap().decode(&[value(time)]).unwrap().filtered, 1, "{time}");
    }
}

#[test]
fn a_tombstones_key_is_read_as_its_own_schema_says() {
    let cases = [
        (
            DataType::Timestamp(TimeUnit::Microsecond, None),
            "int64",
            "io.debezium.time.MicroTimestamp",
            "5000",
            json!(5000),
        ),
        (
            DataType::Timestamp(TimeUnit::Microsecond, None),
            "int64",
            "io.debezium.time.Timestamp",
            "5",
            json!(5000),
        ),
        (
            DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
            "int64",
            "org.apache.kafka.connect.data.Timestamp",
            "5",
            json!(5000),
        ),
        (DataType::Int64, "int32", "org.apache.kafka.connect.data.Time", "5", json!(5000)),
        (DataType::Int64, "int64", "io.debezium.time.MicroTime", "5000", json!(5000)),
        (
            DataType::Utf8,
            "struct",
            "io.debezium.data.VariableScaleDecimal",
            r#"{"scale":1,"value":"AP8="}"#,
            json!("25.5"),
        ),
        (DataType::Date32, "int32", "io.debezium.time.Date", "7", json!(7)),
        (DataType::Int64, "int64", "", "9", json!(9)),
    ];
    for (kind, written, name, cell, expected) in cases {
        let fields = vec![Field::new("k", kind, false), Field::new("v", DataType::Utf8, true)];
        for key_from in [KeyFrom::Value, KeyFrom::MessageKey] {
            let mut spec = upsert(spec(Format::DebeziumJson, columns(fields.clone())), &["k"]);
            (spec.key_from, spec.new_columns) = (key_from, NewColumns::Add);
            let of_key = format!(r#"{{"type":"{written}","optional":false,"name":"{name}","field":"k"}}"#).replace(r#""name":"","#, "");
            let schema = format!(r#"{{"type":"struct","optional":false,"fields":[{of_key}]}}"#);
            let key = format!(r#"{{"schema":{schema},"payload":{{"k":{cell}}}}}"#);
            let put = wrapped(&of_key, &format!(r#"{{"k":{cell}}}"#));
            let messages = [
                message(Some(key.as_bytes()), None),
                message(Some(key.as_bytes()), Some(put.as_bytes())),
                message(Some(key.as_bytes()), None),
            ];
            let decoded = decoder(&spec).unwrap().decode(&messages).unwrap();
            assert_eq!(decoded.rejects, [], "{name}");
            assert_eq!(decoded.ops, [Op::Delete, Op::Put, Op::Delete]);
            assert!((0..3).all(|index| row(&decoded, index)["k"] == expected), "{name}");
        }
    }
}

#[test]
fn a_schema_file_needs_to_know_nothing_of_columns_that_it_leaves_out_or_keeps_as_json() {
    let sparse = r#"{"type":"map","keys":{"type":"int16"},"values":{"type":"double"},"optional":true,"field":"sparse"}"#;
    let point = r#"{"type":"struct","fields":[{"type":"double","field":"x"}],"optional":true,"field":"doc"}"#;
    let schema = r#"{"type":"object","properties":{"id":{"type":"integer"},"doc":{"format":"json"},
        "o":{"type":"object","properties":{"any":{"format":"json"}}}}}"#;
    let file = alluvium::sources::decode::columns::from_json_schema(schema).unwrap();
    let mut decoder = decoder(&upsert(spec(Format::DebeziumJson, file), &["id"])).unwrap();
    let within = r#"{"type":"struct","fields":[{"type":"int64","field":"any"}],"optional":true,"field":"o"}"#;
    let text = r#"{"type":"string","optional":true,"field":"doc"}"#;
    let texts = [
        wrapped(
            &format!("{ID},{sparse},{point},{within}"),
            r#"{"id":1,"sparse":null,"doc":{"x":1.50},"o":{"any":7}}"#,
        ),
        wrapped(&format!("{ID},{text}"), r#"{"id":2,"doc":"a"}"#),
        r#"{"op":"c","after":{"id":3,"doc":"a"}}"#.to_owned(),
    ];
    let decoded = decoder.decode(&texts.each_ref().map(|text| value(text))).unwrap();
    assert_eq!(decoded.rejects, []);
    assert_eq!(row(&decoded, 0), json!({"id": 1, "doc": r#"{"x":1.50}"#, "o": {"any": "7"}}));
    assert_eq!(
        (&row(&decoded, 1)["doc"], &row(&decoded, 2)["doc"]),
        (&json!(r#""a""#), &json!(r#""a""#))
    );
}

#[test]
fn what_a_schema_file_requires_is_required_in_tables_that_keep_every_event_too() {
    let fields = vec![
        Field::new("id", DataType::Int64, false),
        Field::new("v", DataType::Utf8, false),
        Field::new("n", DataType::Int32, true),
    ];
    let mut spec = spec(Format::DebeziumJson, columns(fields));
    spec.metadata = vec!["__op".to_owned(), "__unchanged".to_owned()];
    let texts = [
        r#"{"op":"c","after":{}}"#,
        r#"{"op":"u","after":{"v":"x"}}"#,
        r#"{"v":"x","__op":"c"}"#,
        r#"{"op":"u","after":{"id":1,"v":null}}"#,
        r#"{"op":"u","after":{"id":1,"v":"__debezium_unavailable_value"}}"#,
        r#"{"op":"d","before":{"id":1},"after":null}"#,
        r#"{"op":"t","before":null,"after":null}"#,
        r#"{"id":1,"v":null,"__op":"d"}"#,
    ];
    let decoded = decoder(&spec).unwrap().decode(&texts.map(value)).unwrap();
    account(&decoded, texts.len());
    let rejects: Vec<_> = decoded.rejects.iter().map(|reject| (reject.index, reject.code)).collect();
    assert_eq!(rejects, [0, 1, 2, 3].map(|index| (index, "missing_value")));
    assert_eq!(decoded.origins, [4, 5, 6, 7]);

    spec.format = Format::Json;
    (spec.tombstones, spec.metadata) = (Tombstones::Keep, Vec::new());
    let messages = [value("{}"), value(r#"{"id":1,"v":"x"}"#), message(Some(b"k"), None)];
    let decoded = decoder(&spec).unwrap().decode(&messages).unwrap();
    account(&decoded, 3);
    assert_eq!(
        (decoded.origins.as_slice(), decoded.rejects[0].code),
        (&[1, 2][..], "missing_value")
    );
}

#[test]
fn decimals_that_kafka_connect_writes_as_numbers_are_text_as_they_stand() {
    let wide = r#"{"type":"bytes","optional":true,"name":"org.apache.kafka.connect.data.Decimal","parameters":{"scale":"2","connect.decimal.precision":"50"},"field":"n"}"#;
    let texts = [(1, r#""AP8=""#), (2, "-12.50"), (3, "1E+3")]
        .map(|(id, n)| wrapped(&format!("{ID},{wide}"), &format!(r#"{{"id":{id},"n":{n}}}"#)));
    let messages = texts.each_ref().map(|text| value(text));
    let columns = discover(Format::DebeziumJson, &messages).unwrap().unwrap();
    let mut decoder = decoder(&upsert(spec(Format::DebeziumJson, columns), &["id"])).unwrap();
    let decoded = decoder.decode(&messages).unwrap();
    assert_eq!((&row(&decoded, 0)["n"], &row(&decoded, 1)["n"]), (&json!("2.55"), &json!("-12.50")));
    assert_eq!((decoded.rejects[0].index, decoded.rejects[0].code), (2, "type_mismatch"));
}

#[test]
fn k9_tombstones_without_a_key_follow_a_delete_and_are_only_counted() {
    let delete = r#"{"op":"d","before":{"id":1,"name":"a"},"after":null}"#;
    let decoded = decoder(&people()).unwrap().decode(&[value(delete), message(None, None)]).unwrap();
    account(&decoded, 2);
    assert_eq!((decoded.ops.as_slice(), decoded.tombstones), (&[Op::Delete][..], 1));
}

#[test]
fn a_delete_without_its_old_row_deletes_by_the_messages_key() {
    for key_from in [KeyFrom::Value, KeyFrom::MessageKey] {
        let spec = DecodeSpec { key_from, ..people() };
        let messages = [message(Some(br#"{"id":9}"#), Some(br#"{"op":"d","before":null,"after":null}"#))];
        let decoded = decoder(&spec).unwrap().decode(&messages).unwrap();
        assert_eq!((decoded.ops.as_slice(), &row(&decoded, 0)["id"]), (&[Op::Delete][..], &json!(9)));
    }
}

#[test]
fn a_truncate_empties_an_upsert_table_and_is_an_event_of_the_other() {
    let truncate = r#"{"op":"t","before":null,"after":null,"source":{"lsn":5}}"#;
    let decoded = decoder(&people()).unwrap().decode(&[value(truncate)]).unwrap();
    assert_eq!(decoded.ops, [Op::Truncate]);
    let decoded = decoder(&events()).unwrap().decode(&[value(truncate)]).unwrap();
    assert_eq!(decoded.ops, [Op::Put]);
    assert_eq!(
        row(&decoded, 0),
        json!({"id": null, "name": null, "born": null, "__op": "t", "__deleted": true})
    );
}

#[test]
fn v5_debeziums_floats_and_decimals_are_read_its_way() {
    let fields = vec![
        Field::new("id", DataType::Int64, false),
        Field::new("f", DataType::Float32, true),
        Field::new("d", DataType::Float64, true),
        Field::new("n", DataType::Decimal128(20, 3), true),
    ];
    let mut decoder = decoder(&upsert(spec(Format::DebeziumJson, columns(fields)), &["id"])).unwrap();
    let values = [
        r#"{"id":1,"f":"NaN","d":"Infinity","n":"AQ=="}"#,
        r#"{"id":2,"f":"-Infinity","d":1.5,"n":"/w=="}"#,
        r#"{"id":3,"n":12.5}"#,
        r#"{"id":4,"n":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAQ=="}"#,
        r#"{"id":5,"n":"DeC2s6dj//8="}"#,
    ];
    let decoded = decoder.decode(&values.map(value)).unwrap();
    assert_eq!(decoded.rejects, []);
    assert_eq!(row(&decoded, 0), json!({"id": 1, "f": "NaN", "d": "Infinity", "n": "0.001"}));
    assert_eq!(row(&decoded, 1), json!({"id": 2, "f": "-Infinity", "d": 1.5, "n": "-0.001"}));
    assert_eq!(row(&decoded, 2)["n"], "12.500");
    assert_eq!(row(&decoded, 3)["n"], "0.001");
    assert_eq!(row(&decoded, 4)["n"], "999999999999999.999");
    let decoded = decoder
        .decode(&[
            value(r#"{"id":1,"d":"nan"}"#),
            value(r#"{"id":1,"n":""}"#),
            value(r#"{"id":1,"n":"Vrx1D0Rzj////w=="}"#),
        ])
        .unwrap();
    let codes: Vec<&str> = decoded.rejects.iter().map(|reject| reject.code).collect();
    assert_eq!(codes, ["type_mismatch", "type_mismatch", "out_of_range"]);
}

#[test]
fn v5_decimals_of_a_schema_file_are_digits_or_bytes_as_their_type_and_encoding_say() {
    let json_schema = |kind: &str, more: &str| {
        from_json_schema(&format!(
            r#"{{"type":"object","properties":{{"n":{{"type":"{kind}","format":"decimal","precision":20,"scale":0{more}}}}}}}"#
        ))
    };
    let avro = |more: &str| {
        from_avro(&format!(
            r#"{{"type":"record","name":"r","fields":[{{"name":"n","type":{{"type":"bytes","logicalType":"decimal","precision":20,"scale":0}}{more}}}]}}"#
        ))
    };
    let (digits, bytes) = (
        [("\"1234\"", "1234"), ("\"0000\"", "0"), ("12", "12")],
        [("\"1234\"", "-2658824"), ("\"AQ==\"", "1"), ("12", "12")],
    );
    let cases = [
        (json_schema("string", ""), digits, r#""encoding": "base64""#),
        (json_schema("number", ""), digits, r#""encoding": "base64""#),
        (json_schema("string", r#","encoding":"base64""#), bytes, r#""encoding": "text""#),
        (
            json_schema("string", r#","contentEncoding":"base64""#),
            bytes,
            r#""encoding": "text""#,
        ),
        (avro(""), bytes, r#""encoding": "text""#),
        (avro(r#","encoding":"text""#), digits, r#""encoding": "base64""#),
    ];
    for (columns, values, other) in cases {
        let columns = columns.unwrap();
        let spec = DecodeSpec {
            metadata: vec!["__op".to_owned()],
            ..spec(Format::DebeziumJson, Arc::clone(&columns))
        };
        let mut decoder = decoder(&spec).unwrap();
        for (written, read) in values {
            let decoded = decoder.decode(&[value(&format!(r#"{{"n":{written}}}"#))]).unwrap();
            assert_eq!(decoded.rejects, [], "{columns:?} {written}");
            assert_eq!(row(&decoded, 0)["n"], read, "{columns:?} {written}");
        }
        for wrong in ["12.5x", "*"] {
            let decoded = decoder.decode(&[value(&format!(r#"{{"n":"{wrong}"}}"#))]).unwrap();
            let message = &decoded.rejects[0].message;
            assert!(message.contains(other) && message.contains("decimal.handling.mode"), "{message}");
        }
    }
}

#[test]
fn decimals_of_any_scale_become_text_or_an_exact_decimal() {
    let schema = r#"{"type":"object","properties":{"id":{"type":"integer"},
        "t":{"type":"string","encoding":"variable-scale"},
        "n":{"type":"number","format":"decimal","precision":6,"scale":2,"encoding":"variable-scale"}}}"#;
    let columns = alluvium::sources::decode::columns::from_json_schema(schema).unwrap();
    let mut decoder = decoder(&upsert(spec(Format::DebeziumJson, columns), &["id"])).unwrap();
    let cases = [
        ("0", "AA==", "0"),
        ("2", "AA==", "0.00"),
        ("0", "AQ==", "1"),
        ("3", "/w==", "-0.001"),
        ("-3", "BQ==", "5000"),
        ("1", "AP8=", "25.5"),
        ("20", "AQ==", "0.00000000000000000001"),
    ];
    for (scale, bytes, text) in cases {
        let decoded = decoder
            .decode(&[value(&format!(r#"{{"id":1,"t":{{"scale":{scale},"value":"{bytes}"}}}}"#))])
            .unwrap();
        assert_eq!(decoded.rejects, [], "{scale} {bytes}");
        assert_eq!(row(&decoded, 0)["t"], text);
    }
    let decoded = decoder.decode(&[value(r#"{"id":1,"n":{"value":"AP8=","scale":1}}"#)]).unwrap();
    assert_eq!(row(&decoded, 0)["n"], "25.50");
    for bad in [
        r#"{"scale":3,"value":"/w=="}"#,
        r#"{"scale":1}"#,
        r#"{"scale":1,"value":"AP8=","x":1}"#,
        r#""x""#,
    ] {
        let decoded = decoder.decode(&[value(&format!(r#"{{"id":1,"n":{bad}}}"#))]).unwrap();
        assert_eq!(
            (decoded.rejects.len(), decoded.rejects[0].message.contains("`n`")),
            (1, true),
            "{bad}"
        );
    }
    let bomb = decoder
        .decode(&[value(r#"{"id":1,"t":{"scale":-2000000000,"value":"AQ=="}}"#)])
        .unwrap();
    assert_eq!(bomb.rejects[0].code, "out_of_range");
}

#[test]
fn u7_a_truncate_in_one_of_several_partitions_is_rejected_where_it_would_empty_a_table() {
    let truncate = r#"{"op":"t","before":null,"after":null,"source":{"lsn":5}}"#;
    let terms = Terms {
        in_one_order: false,
        ..Terms::default()
    };
    let messages = [r#"{"op":"c","after":{"id":1}}"#, truncate, r#"{"op":"c","after":{"id":2}}"#].map(value);
    let decoded = decoder_under(&people(), terms).unwrap().decode(&messages).unwrap();
    account(&decoded, 3);
    assert_eq!(
        (decoded.ops.as_slice(), decoded.origins.as_slice()),
        (&[Op::Put; 2][..], &[0, 2][..])
    );
    let reject = &decoded.rejects[0];
    assert_eq!((reject.index, reject.code), (1, "truncate_over_partitions"));
    assert!(reject.message.contains("`skipped.operations`"), "{}", reject.message);
    let decoded = decoder_under(&events(), terms).unwrap().decode(&messages).unwrap();
    assert_eq!((decoded.ops.as_slice(), decoded.rejects.len()), (&[Op::Put; 3][..], 0));
}

#[test]
fn k14_of_a_large_change_only_the_key_is_read_and_its_row_is_gone() {
    let long = "x".repeat(2_000);
    let terms = Terms {
        record_bytes_max: 1_000,
        ..Terms::default()
    };
    let cases = [
        // The first message of its writer, too: what a table holds does not depend on where the flow has begun.
        (wrapped(&format!("{ID},{NAME}"), &format!(r#"{{"id":1,"name":"{long}"}}"#)), 1, 1),
        (format!(r#"{{"op":"u","before":null,"after":{{"name":"{long}","id":1}}}}"#), 1, 1),
        (
            format!(r#"{{"op":"u","before":{{"id":2}},"after":{{"id":1,"name":"{long}"}}}}"#),
            2,
            1,
        ),
        (format!(r#"{{"id":1,"name":"{long}"}}"#), 1, 1),
        // Of a deleted row there is no more to read.
        (format!(r#"{{"op":"d","before":{{"id":1,"name":"{long}"}},"after":null}}"#), 1, 0),
        (format!(r#"{{"id":1,"name":"{long}","__deleted":"true"}}"#), 1, 0),
        (format!(r#"{{"op":"m","message":{{"content":"{long}"}}}}"#), 0, 0),
        (format!(r#"{{"op":"c","after":{{"name":"{long}"}}}}"#), 0, 1),
    ];
    for (large, deleted, rejected) in &cases {
        let decoded = decoder_under(&people(), terms).unwrap().decode(&[value(large)]).unwrap();
        account(&decoded, 1);
        let what = large.get(..100);
        assert_eq!(decoded.ops, vec![Op::Delete; *deleted], "{what:?}");
        assert!(decoded.ops.is_empty() || row(&decoded, 0)["id"] == 1, "{what:?}");
        let codes: Vec<_> = decoded.rejects.iter().map(|reject| reject.code).collect();
        assert_eq!(codes, vec!["too_large"; *rejected], "{what:?}");
    }
    let rejects = |spec: &DecodeSpec, large: Message<'_>| {
        let decoded = decoder_under(spec, terms).unwrap().decode(&[large]).unwrap();
        (decoded.rows.num_rows(), decoded.rejects[0].code)
    };
    // A table of events has each change whole or not at all, and a large key is nobody's.
    assert_eq!(rejects(&events(), value(&cases[4].0)), (0, "too_large"));
    let key = format!(r#"{{"id":1,"x":"{long}"}}"#);
    let change = br#"{"op":"c","after":{"id":1}}"#;
    assert_eq!(rejects(&people(), message(Some(key.as_bytes()), Some(change))), (0, "too_large"));
}

/// A message with a schema of these fields in front.
fn wrapped(fields: &str, after: &str) -> String {
    format!(
        r#"{{"schema":{{"type":"struct","optional":false,"fields":[{{"type":"struct","optional":true,"field":"after","fields":[{fields}]}},{{"type":"string","optional":false,"field":"op"}}]}},"payload":{{"after":{after},"op":"c"}}}}"#
    )
}

const ID: &str = r#"{"type":"int64","optional":false,"field":"id"}"#;
const NAME: &str = r#"{"type":"string","optional":true,"field":"name"}"#;

#[test]
fn writers_that_write_the_same_column_differently_are_each_read_as_they_write() {
    let at = |name: &str| format!(r#"{ID},{{"type":"int64","optional":true,"name":"io.debezium.time.{name}","field":"at"}}"#);
    let texts = [
        wrapped(&at("MicroTimestamp"), r#"{"id":1,"at":1700000000123456}"#),
        wrapped(&at("Timestamp"), r#"{"id":2,"at":1700000000123}"#),
        wrapped(&at("NanoTimestamp"), r#"{"id":3,"at":1700000000123456000}"#),
        wrapped(&at("MicroTimestamp"), r#"{"id":4,"at":1}"#),
        wrapped(ID, r#"{"id":5}"#),
        wrapped(&at("Timestamp"), r#"{"id":6,"at":1}"#),
    ];
    let messages: Vec<Message<'_>> = texts.iter().map(|text| value(text)).collect();
    let columns = discover(Format::DebeziumJson, &messages).unwrap().unwrap();
    let mut spec = upsert(spec(Format::DebeziumJson, columns), &["id"]);
    spec.new_columns = NewColumns::Add;
    let decoded = decoder(&spec).unwrap().decode(&messages).unwrap();
    account(&decoded, messages.len());
    let times: Vec<_> = (0..6).map(|index| row(&decoded, index)["at"].clone()).collect();
    assert_eq!(
        json!(times),
        json!([
            1_700_000_000_123_456i64,
            1_700_000_000_123_000i64,
            1_700_000_000_123_456i64,
            1,
            null,
            1000
        ])
    );
}

#[test]
fn v4_times_of_every_kind_are_columns_that_hold_them() {
    let cases = [
        ("int32", "org.apache.kafka.connect.data.Date", "19782", "Date32", json!(19_782)),
        ("int64", "org.apache.kafka.connect.data.Timestamp", "5", "UTC", json!(5000)),
        ("int32", "org.apache.kafka.connect.data.Time", "5", "Int64", json!(5000)),
        ("int32", "io.debezium.time.Time", "5", "Int64", json!(5000)),
        ("int64", "io.debezium.time.MicroTime", "5", "Int64", json!(5)),
        (
            "int64",
            "io.debezium.time.NanoTime",
            "45296123456700",
            "Utf8",
            json!("12:34:56.1234567"),
        ),
        ("int64", "io.debezium.time.NanoTime", "0", "Utf8", json!("00:00:00")),
        ("int64", "io.debezium.time.Timestamp", "5", "Timestamp", json!(5000)),
        ("int64", "io.debezium.time.MicroTimestamp", "5", "Timestamp", json!(5)),
        (
            "int64",
            "io.debezium.time.NanoTimestamp",
            "1709210096123456700",
            "Utf8",
            json!("2024-02-29T12:34:56.1234567"),
        ),
        ("int64", "io.debezium.time.NanoTimestamp", "0", "Utf8", json!("1970-01-01T00:00:00")),
        (
            "int64",
            "io.debezium.time.NanoTimestamp",
            "-1",
            "Utf8",
            json!("1969-12-31T23:59:59.999999999"),
        ),
        (
            "string",
            "io.debezium.time.ZonedTimestamp",
            r#""1970-01-01T00:00:00.000005Z""#,
            "UTC",
            json!(5),
        ),
        ("string", "io.debezium.time.ZonedTime", r#""12:34:56Z""#, "Utf8", json!("12:34:56Z")),
        (
            "string",
            "io.debezium.time.IsoTimestamp",
            r#""1970-01-01T00:00:00Z""#,
            "Utf8",
            json!("1970-01-01T00:00:00Z"),
        ),
        ("string", "io.debezium.time.Interval", r#""P1DT1S""#, "Utf8", json!("P1DT1S")),
        ("int64", "io.debezium.time.MicroDuration", "5", "Int64", json!(5)),
        ("int32", "io.debezium.time.Year", "2024", "Int32", json!(2024)),
    ];
    let at = |kind: &str, name: &str| format!(r#"{ID},{{"type":"{kind}","optional":true,"name":"{name}","field":"at"}}"#);
    for (kind, name, written, column, expected) in cases {
        let text = wrapped(&at(kind, name), &format!(r#"{{"id":1,"at":{written}}}"#));
        let columns = discover(Format::DebeziumJson, &[value(&text)]).unwrap().unwrap();
        let found = columns.field(1).data_type().to_string();
        assert!(found.contains(column), "{name}: {found}");
        let decoded = decoder(&upsert(spec(Format::DebeziumJson, columns), &["id"]))
            .unwrap()
            .decode(&[value(&text)])
            .unwrap();
        assert_eq!(decoded.rejects, [], "{name}");
        assert_eq!(row(&decoded, 0)["at"], expected, "{name} {written}");
    }
    // No text says what these are, and a timestamp cannot be finer than a microsecond.
    for (kind, name, written, says) in [
        ("int64", "NanoTimestamp", i64::MAX.to_string(), "infinite"),
        ("int64", "NanoTime", "86400000000000".to_owned(), "no time of a day"),
        ("int64", "NanoTime", "-1".to_owned(), "no time of a day"),
        (
            "string",
            "ZonedTimestamp",
            r#""2024-02-29T12:34:56.1234567Z""#.to_owned(),
            "as a string",
        ),
    ] {
        let text = wrapped(
            &at(kind, &format!("io.debezium.time.{name}")),
            &format!(r#"{{"id":1,"at":{written}}}"#),
        );
        let columns = discover(Format::DebeziumJson, &[value(&text)]).unwrap().unwrap();
        let mut decoder = decoder(&upsert(spec(Format::DebeziumJson, columns), &["id"])).unwrap();
        let reject = decoder.decode(&[value(&text)]).unwrap().rejects.remove(0);
        assert_eq!(reject.code, "out_of_range", "{name}");
        assert!(reject.message.contains(says), "{}", reject.message);
    }
}

#[test]
fn v4_nanoseconds_are_read_into_columns_of_microseconds_where_they_are_whole_ones_and_never_into_another_unit() {
    let at = |name: &str| format!(r#"{ID},{{"type":"int64","optional":true,"name":"io.debezium.time.{name}","field":"at"}}"#);
    let event = |name: &str, written: i64| wrapped(&at(name), &format!(r#"{{"id":1,"at":{written}}}"#));
    let local = DataType::Timestamp(TimeUnit::Microsecond, None);
    let utc = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    let table = |kind: &DataType, new_columns: NewColumns| {
        let fields = vec![Field::new("id", DataType::Int64, false), Field::new("at", kind.clone(), true)];
        DecodeSpec {
            new_columns,
            ..upsert(spec(Format::DebeziumJson, columns(fields)), &["id"])
        }
    };
    use NewColumns::{Add, Ignore};
    for (kind, new_columns, name, whole) in [
        (&local, Add, "NanoTimestamp", json!(7)),
        (&local, Ignore, "NanoTimestamp", json!(7)),
        (&utc, Ignore, "NanoTimestamp", json!(7)),
        (&DataType::Int64, Add, "NanoTime", json!(7)),
        (&DataType::Int64, Ignore, "NanoTime", json!(7)),
    ] {
        let texts = [event(name, 7000), event(name, 7001)];
        let messages = texts.each_ref().map(|text| value(text));
        let decoded = decoder(&table(kind, new_columns)).unwrap().decode(&messages).unwrap();
        account(&decoded, 2);
        assert_eq!(row(&decoded, 0)["at"], whole, "{kind} {name}");
        assert_eq!(
            (decoded.rejects[0].index, decoded.rejects[0].code),
            (1, "out_of_range"),
            "{kind} {name}"
        );
    }
    // Who writes the schema file may have them as they come, or as text.
    for (kind, name, expected) in [
        (DataType::Int64, "NanoTimestamp", json!(7001)),
        (DataType::Utf8, "NanoTimestamp", json!("1970-01-01T00:00:00.000007001")),
        (DataType::Utf8, "NanoTime", json!("00:00:00.000007001")),
    ] {
        let text = event(name, 7001);
        let decoded = decoder(&table(&kind, Ignore)).unwrap().decode(&[value(&text)]).unwrap();
        assert_eq!(row(&decoded, 0)["at"], expected, "{kind} {name}");
    }
    // A column that the messages made is of one unit for good.
    for (kind, name) in [
        (&DataType::Int64, "NanoTimestamp"),
        (&DataType::Utf8, "MicroTimestamp"),
        (&DataType::Utf8, "MicroTime"),
        (&utc, "NanoTimestamp"),
        (&DataType::Decimal128(38, 0), "NanoTimestamp"),
        (&DataType::Date32, "NanoTimestamp"),
        (&local, "NanoTime"),
    ] {
        let error = decoder(&table(kind, Add))
            .unwrap()
            .decode(&[value(&event(name, 7000))])
            .unwrap_err();
        assert_eq!(error.code, "schema_changed", "{kind} {name}");
    }
    // Without a schema in the messages, the file says what a number is.
    let file = from_json_schema(
        r#"{"type":"object","properties":{"id":{"type":"integer"},"at":{"type":"string","encoding":"nano-timestamp"},
            "t":{"type":"string","encoding":"nano-time"}}}"#,
    );
    let mut decoder = decoder(&upsert(spec(Format::DebeziumJson, file.unwrap()), &["id"])).unwrap();
    let decoded = decoder
        .decode(&[value(r#"{"op":"c","after":{"id":1,"at":7001,"t":7001}}"#)])
        .unwrap();
    assert_eq!(
        row(&decoded, 0),
        json!({"id": 1, "at": "1970-01-01T00:00:00.000007001", "t": "00:00:00.000007001"})
    );
}

#[test]
fn v4_times_with_a_zone_of_sql_server_are_text_for_they_are_finer_than_a_microsecond() {
    let zoned = r#"{"type":"string","optional":true,"name":"io.debezium.time.ZonedTimestamp","field":"at"}"#;
    let written = "2024-02-29T12:34:56.1234567+02:00";
    let text = |connector: &str| {
        let source = format!(r#"{{"type":"struct","name":"io.debezium.connector.{connector}.Source","fields":[],"field":"source"}}"#);
        let plain = wrapped(&format!("{ID},{zoned}"), &format!(r#"{{"id":1,"at":"{written}"}}"#));
        plain.replace(
            r#"{"type":"string","optional":false,"field":"op"}"#,
            &format!(r#"{source},{{"type":"string","field":"op"}}"#),
        )
    };
    let read = |text: &str, columns| {
        let mut decoder = decoder(&upsert(spec(Format::DebeziumJson, columns), &["id"])).unwrap();
        decoder.decode(&[value(text)]).unwrap()
    };
    let of = |connector: &str| {
        let text = text(connector);
        let columns = discover(Format::DebeziumJson, &[value(&text)]).unwrap().unwrap();
        read(&text, columns)
    };
    assert_eq!(row(&of("sqlserver"), 0)["at"], written);
    let others = of("postgresql");
    assert_eq!((others.ops.as_slice(), others.rejects[0].code), (&[Op::Delete][..], "out_of_range"));
    // A schema file can have them as text, or as timestamps where they are not finer.
    let with = |kind: DataType| columns(vec![Field::new("id", DataType::Int64, false), Field::new("at", kind, true)]);
    assert_eq!(row(&read(&text("postgresql"), with(DataType::Utf8)), 0)["at"], written);
    let coarse = text("sqlserver").replace(written, "1970-01-01T02:00:00.0000070+02:00");
    let utc = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    assert_eq!(row(&read(&coarse, with(utc)), 0)["at"], 7);
}

#[test]
fn s10_a_column_of_another_type_stops_the_table() {
    let columns = discover(Format::DebeziumJson, &[value(&wrapped(ID, r#"{"id":1}"#))])
        .unwrap()
        .unwrap();
    let spec = upsert(spec(Format::DebeziumJson, columns), &["id"]);
    let text = wrapped(r#"{"type":"string","optional":false,"field":"id"}"#, r#"{"id":"1"}"#);
    for _ in 0..2 {
        let error = decoder(&spec).unwrap().decode(&[value(&text)]).unwrap_err();
        assert_eq!((error.kind, error.code), (Kind::Data, "schema_changed"));
        assert!(error.what.contains("`id` is Utf8 there and Int64 here"), "{}", error.what);
    }
}

#[test]
fn a_schema_file_takes_the_columns_that_it_names_and_widens_them() {
    let text = wrapped(
        &format!(
            r#"{ID},{{"type":"int32","optional":true,"field":"small"}},{{"type":"bytes","optional":true,"name":"org.apache.kafka.connect.data.Decimal","parameters":{{"scale":"1"}},"field":"n"}},{{"type":"string","optional":true,"field":"beside"}}"#
        ),
        r#"{"id":1,"small":7,"n":"AP8=","beside":"x"}"#,
    );
    let fields = vec![
        Field::new("id", DataType::Int64, false),
        Field::new("small", DataType::Int64, true),
        Field::new("n", DataType::Decimal128(10, 2), true),
    ];
    let decoded = decoder(&upsert(spec(Format::DebeziumJson, columns(fields)), &["id"]))
        .unwrap()
        .decode(&[value(&text)])
        .unwrap();
    assert_eq!(decoded.rejects, []);
    assert_eq!(row(&decoded, 0), json!({"id": 1, "small": 7, "n": "25.50"}));
}

#[test]
fn flattened_rows_with_their_schema_are_discovered_without_what_the_flattening_adds() {
    let text = format!(
        r#"{{"schema":{{"type":"struct","optional":false,"fields":[{ID},{{"type":"string","optional":true,"field":"__deleted"}},{{"type":"map","keys":{{"type":"string"}},"values":{{"type":"int32","optional":true}},"field":"m"}}]}},"payload":{{"id":1,"__deleted":"true","m":{{"a":1}}}}}}"#
    );
    let columns = discover(Format::DebeziumJson, &[value("{}"), message(None, None), value(&text)])
        .unwrap()
        .unwrap();
    let names: Vec<&str> = columns.fields().iter().map(|field| field.name().as_str()).collect();
    assert_eq!(names, ["id", "m"]);
    let mut spec = upsert(spec(Format::DebeziumJson, columns), &["id"]);
    spec.new_columns = NewColumns::Add;
    let decoded = decoder(&spec).unwrap().decode(&[value(&text)]).unwrap();
    assert_eq!(decoded.ops, [Op::Delete]);
    assert!(discover(Format::DebeziumJson, &[value(r#"{"id":1}"#)]).unwrap().is_none());
    let no_rows = [
        r#"{"op":"d","before":{"id":1},"after":null}"#,
        r#"{"id":1,"__deleted":"true"}"#,
        r#"{"id":1,"__op":"d"}"#,
        r#"{"schema":null,"payload":null}"#,
        r#"{"ts_ms":5}"#,
        "null",
    ];
    let no_rows = no_rows.map(value);
    assert!(!rows_among(&no_rows).rows && !rows_among(&[message(Some(b"1"), None)]).rows);
    for row in [
        r#"{"op":"c","after":{"id":1}}"#,
        r#"{"id":1,"__deleted":"false"}"#,
        r#"{"schema":null,"payload":{"id":1}}"#,
        "{",
    ] {
        assert!(rows_among(&[no_rows[0], value(row)]).rows, "{row}");
    }
}

#[test]
fn v17_a_schema_in_the_messages_with_names_that_delta_cannot_hold_is_refused() {
    let text = wrapped(r#"{"type":"int64","optional":false,"field":"a b"}"#, "null").replace(r#""op":"c"}"#, r#""op":"t"}"#);
    let error = discover(Format::DebeziumJson, &[value(&text)]).unwrap_err();
    let said = error.to_string();
    assert!(said.contains("`a b`") && said.contains("topic orders"), "{said}");
}

#[test]
fn tombstones_are_kept_as_events_when_asked() {
    let spec = DecodeSpec {
        tombstones: Tombstones::Keep,
        ..events()
    };
    let wrapped_null = r#"{"schema":null,"payload":null}"#;
    let decoded = decoder(&spec)
        .unwrap()
        .decode(&[message(Some(b"{\"id\":1}"), None), value(wrapped_null)])
        .unwrap();
    account(&decoded, 2);
    for index in 0..2 {
        assert_eq!(
            row(&decoded, index),
            json!({"id": null, "name": null, "born": null, "__op": null, "__deleted": true})
        );
    }
}

struct TwoHeaders;

impl ReadHeaders for TwoHeaders {
    fn count(&self) -> usize {
        2
    }
    fn header(&self, index: usize) -> (&str, Option<&[u8]>) {
        [("__debezium.newkey", Some(&b"{}"[..])), ("__debezium.newkey", None)][index]
    }
}

#[test]
fn v20_metadata_columns_say_where_a_row_comes_from() {
    let mut spec = people();
    spec.metadata = ["__topic", "__partition", "__offset", "__timestamp", "__key", "__headers"]
        .map(str::to_owned)
        .to_vec();
    let mut decoder = decoder(&spec).unwrap();
    let mut first = message(Some(b"\xFFk"), Some(br#"{"id":1}"#));
    first.headers = alluvium::sources::decode::Headers(Some(&TwoHeaders));
    let mut second = value(r#"{"id":2}"#);
    second.timestamp_ms = Some(-1);
    let mut third = value(r#"{"id":3}"#);
    third.timestamp_ms = Some(i64::MAX);
    let decoded = decoder.decode(&[first, second, third]).unwrap();
    let expected = json!({
        "id": 1, "name": null, "born": null, "__topic": "orders", "__partition": 3, "__offset": 41, "__timestamp": 1_700_000_000_123_000i64,
        "__key": "/2s=", "__headers": [{"key": "__debezium.newkey", "value": "e30="}, {"key": "__debezium.newkey", "value": null}],
    });
    assert_eq!(row(&decoded, 0), expected);
    assert_eq!(
        (&row(&decoded, 1)["__timestamp"], &row(&decoded, 1)["__headers"]),
        (&json!(null), &json!([]))
    );
    assert_eq!((decoded.rejects[0].index, decoded.rejects[0].code), (2, "out_of_range"));
}

#[test]
fn v16_arrays_of_numbers_and_of_days_that_were_not_sent_are_marked() {
    let placeholder = json!("__debezium_unavailable_value".bytes().collect::<Vec<u8>>());
    for item in [DataType::Int32, DataType::Int64, DataType::Date32] {
        let list = DataType::List(Arc::new(Field::new("element", item.clone(), true)));
        let fields = vec![Field::new("id", DataType::Int64, false), Field::new("a", list, true)];
        let mut decoder = decoder(&upsert(spec(Format::DebeziumJson, columns(fields)), &["id"])).unwrap();
        let texts = [json!([95, 95]), placeholder.clone()].map(|a| json!({"op": "u", "after": {"id": 1, "a": a}}).to_string());
        let decoded = decoder.decode(&texts.each_ref().map(|text| value(text))).unwrap();
        let unchanged = decoded.unchanged.as_ref().unwrap();
        assert_eq!((unchanged.0[&1].value(0), unchanged.0[&1].value(1)), (false, true), "{item}");
        assert_eq!(row(&decoded, 1)["a"], json!(null));
    }
}

#[test]
fn k10_a_tombstone_behind_its_delete_says_nothing_where_the_tables_key_is_another_than_the_databases() {
    let mut spec = upsert(people(), &["name"]);
    spec.tombstones = Tombstones::Skip;
    let put = r#"{"op":"c","before":null,"after":{"id":1,"name":"a"}}"#;
    let delete = r#"{"op":"d","before":{"id":1,"name":"a"},"after":null}"#;
    let flattened = r#"{"id":1,"name":"a"}"#;
    let of = |value: Option<&'static str>| message(Some(br#"{"id":1}"#), value.map(str::as_bytes));
    let mut elsewhere = of(Some(flattened));
    elsewhere.partition = 9;
    let mut decoder = decoder(&spec).unwrap();
    let codes = |decoded: &Decoded| decoded.rejects.iter().map(|reject| reject.code).collect::<Vec<_>>();
    // A topic of tombstones alone may have lost its deletes.
    let alone = decoder.decode(&[of(None)]).unwrap();
    assert_eq!((codes(&alone), alone.tombstones), (vec!["missing_key"], 0));
    let pair = decoder.decode(&[of(Some(put)), of(Some(delete)), elsewhere, of(None)]).unwrap();
    account(&pair, 4);
    assert_eq!((codes(&pair), pair.tombstones), (vec![], 1));
    assert_eq!(pair.ops, [Op::Put, Op::Delete, Op::Put]);
    let cut = decoder.decode(&[of(None), of(Some(put))]).unwrap();
    assert_eq!((codes(&cut), cut.tombstones), (vec![], 1));
    for other in [put, flattened] {
        let lost = decoder.decode(&[of(Some(other)), of(None)]).unwrap();
        assert_eq!((codes(&lost), lost.tombstones), (vec!["missing_key"], 0), "{other}");
    }
    let null = message(Some(br#"{"name":null}"#), None);
    assert_eq!(codes(&decoder.decode(&[of(Some(delete)), null]).unwrap()), ["missing_key"]);
}

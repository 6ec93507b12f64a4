//! What Debezium's messages mean, in the forms that the samples do not have: flattened rows, changed schemas, odd events.

use alluvium::batch::Op;
use alluvium::config::{Format, KeyFrom, Tombstones};
use alluvium::error::Kind;
use alluvium::sources::decode::{DecodeSpec, Message, NewColumns, ReadHeaders, decoder, discover};
use arrow::datatypes::{DataType, Field};
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
fn events_that_lack_a_part_are_rejected_alone() {
    let cases = [
        (r#"{"op":"c","before":null,"after":null}"#, "unexpected", "`after`"),
        (r#"{"op":"u","before":{"id":1}}"#, "unexpected", "`after`"),
        (r#"{"op":"x","after":{"id":1}}"#, "unexpected", "`op`"),
        (r#"{"op":7,"after":{"id":1}}"#, "unexpected", "`op`"),
        (r#"{"op":"c","after":[1]}"#, "type_mismatch", "an object"),
        (r#"{"op":"c","after":{"name":"a"}}"#, "missing_key", "`id`"),
        (r#"{"op":"c","after":{"id":null}}"#, "missing_key", "`id`"),
        (r#"{"op":"d","before":null,"after":null}"#, "missing_key", "no key"),
        (r#"{"op":"d","before":{"name":"a"},"after":null}"#, "missing_key", "no key"),
        (r#"{"op":"c","after":{"id":1,"born":2146033979}}"#, "out_of_range", "`born`"),
        (
            r#"{"op":"c","after":{"id":1},"source":{"lsn":"x"}}"#,
            "type_mismatch",
            "`source.__lsn`",
        ),
        (
            r#"{"schema":{"type":"struct"},"payload":{"op":"c","after":{"id":1}},"x":1}"#,
            "malformed",
            "payload",
        ),
        (r#"{"op":"c","after":{"id":1}} {}"#, "malformed", "more follows"),
        (
            r#"{"schema":{"fields":1},"payload":{"op":"c","after":{"id":1}}}"#,
            "unexpected",
            "Kafka Connect",
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

/// A message with a schema of these fields in front.
fn wrapped(fields: &str, after: &str) -> String {
    format!(
        r#"{{"schema":{{"type":"struct","optional":false,"fields":[{{"type":"struct","optional":true,"field":"after","fields":[{fields}]}},{{"type":"string","optional":false,"field":"op"}}]}},"payload":{{"after":{after},"op":"c"}}}}"#
    )
}

const ID: &str = r#"{"type":"int64","optional":false,"field":"id"}"#;

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
}

#[test]
fn v17_a_schema_in_the_messages_with_names_that_delta_cannot_hold_is_refused() {
    let text = wrapped(r#"{"type":"int64","optional":false,"field":"a b"}"#, "null").replace(r#""op":"c"}"#, r#""op":"t"}"#);
    let error = discover(Format::DebeziumJson, &[value(&text)]).unwrap_err();
    assert!(error.what.contains("`a b`"), "{}", error.what);
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

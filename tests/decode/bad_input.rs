//! Messages that are wrong in one way each. Every one stands alone among good ones, and is rejected alone.

use alluvium::config::{Format, KeyFrom};
use alluvium::sources::decode::{Decoded, Message, decoder};
use arrow::datatypes::{DataType, Field, Fields, SchemaRef, TimeUnit};
use std::sync::Arc;

use super::{account, columns, message, spec, upsert, value};

fn all_types() -> SchemaRef {
    let pair = Fields::from(vec![Field::new("x", DataType::Int32, false), Field::new("y", DataType::Utf8, true)]);
    let entries = Fields::from(vec![
        Field::new("key", DataType::Utf8, false),
        Field::new("value", DataType::Int64, true),
    ]);
    columns(vec![
        Field::new("id", DataType::Int64, false),
        Field::new("i", DataType::Int32, true),
        Field::new("f", DataType::Float32, true),
        Field::new("d", DataType::Float64, true),
        Field::new("b", DataType::Boolean, true),
        Field::new("s", DataType::Utf8, true),
        Field::new("raw", DataType::Binary, true),
        Field::new("n", DataType::Decimal128(5, 2), true),
        Field::new("day", DataType::Date32, true),
        Field::new("at", DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())), true),
        Field::new("local", DataType::Timestamp(TimeUnit::Microsecond, None), true),
        Field::new("o", DataType::Struct(pair), true),
        Field::new("l", DataType::List(Arc::new(Field::new("element", DataType::Int64, false))), true),
        Field::new(
            "m",
            DataType::Map(Arc::new(Field::new("key_value", DataType::Struct(entries), false)), false),
            true,
        ),
    ])
}

/// Bytes, the code of the reject, and a part of its message.
const CASES: &[(&[u8], &str, &str)] = &[
    (b"", "malformed", "empty"),
    (b"   ", "malformed", "ends too early"),
    (b"{", "malformed", "member is expected"),
    (br#"{"id":1"#, "malformed", "comma or the end"),
    (br#"{"id":1}}"#, "malformed", "more follows"),
    (br#"{"id":1}{"id":2}"#, "malformed", "more follows"),
    (br#"{"id":1} x"#, "malformed", "more follows"),
    (b"{\"id\":1}\0", "malformed", "more follows"),
    (b"\xEF\xBB\xBF{\"id\":1}", "malformed", "not a JSON value"),
    (br#"{"id":1,}"#, "malformed", "name of a member"),
    (br#"{"id":1,,"i":2}"#, "malformed", "name of a member"),
    (br#"{"id":1 "i":2}"#, "malformed", "comma or the end"),
    (br#"{"id" 1}"#, "malformed", "colon"),
    (br#"{id:1}"#, "malformed", "name of a member"),
    (br#"{'id':1}"#, "malformed", "name of a member"),
    (br#"{"id":1,"l":[1,]}"#, "malformed", "not a JSON value"),
    (br#"{"id":1,"l":[1 2]}"#, "malformed", "comma or the end"),
    (br#"[{"id":1}]"#, "unexpected", "no object"),
    (br#""id""#, "unexpected", "no object"),
    (b"null", "unexpected", "no object"),
    (b"17", "unexpected", "no object"),
    (b"nul", "malformed", "not a JSON value"),
    (br#"{"id":01}"#, "malformed", "not a JSON number"),
    (br#"{"id":-}"#, "malformed", "not a JSON number"),
    (br#"{"id":+1}"#, "malformed", "not a JSON value"),
    (br#"{"id":1,"d":.5}"#, "malformed", "not a JSON value"),
    (br#"{"id":1,"d":1.}"#, "malformed", "not a JSON number"),
    (br#"{"id":1,"d":1e}"#, "malformed", "not a JSON number"),
    (br#"{"id":1,"d":NaN}"#, "malformed", "not a JSON value"),
    (br#"{"id":1,"d":Infinity}"#, "malformed", "not a JSON value"),
    (br#"{"id":0x10}"#, "malformed", "comma or the end"),
    (br#"{"id":1,"b":True}"#, "malformed", "not a JSON value"),
    (br#"{"id":1,"b":truely}"#, "malformed", "comma or the end"),
    (br#"{"id":1,"s":"a"#, "malformed", "within a string"),
    (br#"{"id":1,"s":"a\"#, "malformed", "within a string"),
    (b"{\"id\":1,\"s\":\"a\nb\"}", "malformed", "control character"),
    (br#"{"id":1,"s":"\x41"}"#, "malformed", "escape"),
    (br#"{"id":1,"s":"\u12"}"#, "malformed", "four digits"),
    (br#"{"id":1,"s":"\u+123"}"#, "malformed", "four digits"),
    // V9: what is no text stays none, in columns and beside them.
    (b"{\"id\":1,\"s\":\"\xFF\"}", "malformed", "UTF-8"),
    (b"{\"id\":1,\"s\":\"\xED\xA0\x80\"}", "malformed", "UTF-8"),
    (b"{\"id\":1,\"other\":\"\xC3\"}", "malformed", "UTF-8"),
    (b"{\"id\":1,\"oth\xC3\":1}", "malformed", "UTF-8"),
    (br#"{"id":1,"s":"\ud800"}"#, "malformed", "surrogate"),
    (br#"{"id":1,"s":"\udc00\ud800"}"#, "malformed", "surrogate"),
    (br#"{"id":1,"s":"\ud800A"}"#, "malformed", "surrogate"),
    (br#"{"id":1,"other":["\ud800"]}"#, "malformed", "surrogate"),
    // V10: integers as they are, or not at all.
    (
        br#"{"id":9223372036854775808}"#,
        "out_of_range",
        "`id`: the number does not fit into 64 bits",
    ),
    (br#"{"id":-9223372036854775809}"#, "out_of_range", "`id`"),
    (br#"{"id":99999999999999999999999999}"#, "out_of_range", "`id`"),
    (
        br#"{"id":1,"i":2147483648}"#,
        "out_of_range",
        "`i`: the number does not fit into 32 bits",
    ),
    (br#"{"id":1,"i":1.5}"#, "type_mismatch", "`i`: an integer"),
    (br#"{"id":1,"i":1.0}"#, "type_mismatch", "`i`: an integer"),
    (br#"{"id":1,"i":1e2}"#, "type_mismatch", "`i`: an integer"),
    (br#"{"id":1,"i":"1"}"#, "type_mismatch", "`i`: an integer"),
    (br#"{"id":1,"i":true}"#, "type_mismatch", "`i`: an integer"),
    (br#"{"id":1,"f":1e39}"#, "out_of_range", "`f`"),
    (br#"{"id":1,"d":1e400}"#, "out_of_range", "`d`"),
    (br#"{"id":1,"d":"1.5"}"#, "type_mismatch", "`d`: a number"),
    (br#"{"id":1,"d":"NaN"}"#, "type_mismatch", "`d`: a number"),
    (br#"{"id":1,"b":1}"#, "type_mismatch", "`b`: true or false"),
    (br#"{"id":1,"b":"true"}"#, "type_mismatch", "`b`: true or false"),
    (br#"{"id":1,"s":1}"#, "type_mismatch", "`s`: text"),
    (br#"{"id":1,"s":false}"#, "type_mismatch", "`s`: text"),
    (br#"{"id":1,"s":{"a":1}}"#, "type_mismatch", "`s`: text"),
    (br#"{"id":1,"raw":"a"}"#, "type_mismatch", "`raw`: bytes as base64"),
    (br#"{"id":1,"raw":"YQ"}"#, "type_mismatch", "`raw`: bytes as base64"),
    (br#"{"id":1,"raw":[1]}"#, "type_mismatch", "`raw`: text"),
    // V5: exact, or not at all.
    (br#"{"id":1,"n":1000}"#, "out_of_range", "`n`: the number has more digits"),
    (
        br#"{"id":1,"n":"1.005"}"#,
        "out_of_range",
        "`n`: the number has more decimal places",
    ),
    (br#"{"id":1,"n":1e-3}"#, "out_of_range", "`n`: the number has more decimal places"),
    (br#"{"id":1,"n":1e99}"#, "out_of_range", "`n`: the number has more digits"),
    (br#"{"id":1,"n":123456789012345678901234567890123456789012}"#, "out_of_range", "`n`"),
    (br#"{"id":1,"n":"NaN"}"#, "type_mismatch", "`n`: a decimal number"),
    (br#"{"id":1,"n":""}"#, "type_mismatch", "`n`: a decimal number"),
    (br#"{"id":1,"n":"1."}"#, "type_mismatch", "`n`: a decimal number"),
    (br#"{"id":1,"n":"1 000"}"#, "type_mismatch", "`n`: a decimal number"),
    (br#"{"id":1,"n":true}"#, "type_mismatch", "`n`: a decimal number"),
    // V2, V4: times are of this calendar and this clock.
    (br#"{"id":1,"day":"2023-02-29"}"#, "type_mismatch", "`day`: a date"),
    (br#"{"id":1,"day":"2024-2-9"}"#, "type_mismatch", "`day`: a date"),
    (br#"{"id":1,"day":"2024-02-29T00:00:00Z"}"#, "type_mismatch", "`day`: a date"),
    (br#"{"id":1,"day":"2024-02-29Z"}"#, "type_mismatch", "`day`: a date"),
    (br#"{"id":1,"day":19000}"#, "type_mismatch", "`day`: a date as text"),
    (
        br#"{"id":1,"at":"2024-02-29T12:00:00"}"#,
        "type_mismatch",
        "`at`: a timestamp with its zone",
    ),
    (br#"{"id":1,"at":"2024-02-29"}"#, "type_mismatch", "`at`"),
    (br#"{"id":1,"at":"2024-02-29T24:00:00Z"}"#, "type_mismatch", "`at`"),
    (br#"{"id":1,"at":"2024-02-29T23:59:60Z"}"#, "type_mismatch", "`at`"),
    (
        br#"{"id":1,"at":"2024-02-29T12:00:00.1234567Z"}"#,
        "out_of_range",
        "`at`: the time is finer than a microsecond",
    ),
    (br#"{"id":1,"at":"+300000-01-01T00:00:00Z"}"#, "out_of_range", "`at`"),
    (br#"{"id":1,"at":1700000000000}"#, "type_mismatch", "`at`: a timestamp as text"),
    (
        br#"{"id":1,"local":"2024-02-29T12:00:00Z"}"#,
        "type_mismatch",
        "`local`: a timestamp without zone",
    ),
    // Parts name the way to them.
    (br#"{"id":1,"o":{"y":"a"}}"#, "missing_value", "`o.x`: it is required"),
    (br#"{"id":1,"o":{"x":null}}"#, "missing_value", "`o.x`: it is required"),
    (br#"{"id":1,"o":{"x":"a"}}"#, "type_mismatch", "`o.x`: an integer"),
    (br#"{"id":1,"o":[]}"#, "type_mismatch", "`o`: an object"),
    (br#"{"id":1,"l":[1,null]}"#, "missing_value", "`l.element`: it is required"),
    (br#"{"id":1,"l":[1,"2"]}"#, "type_mismatch", "`l.element`: an integer"),
    (br#"{"id":1,"l":{"0":1}}"#, "type_mismatch", "`l`: an array"),
    (br#"{"id":1,"m":{"a":1,"a":2}}"#, "duplicate_column", "`m`: the same key"),
    (br#"{"id":1,"m":{"a":"b"}}"#, "type_mismatch", "`m.value`: an integer"),
    (br#"{"id":1,"o":{"x":1,"x":1}}"#, "duplicate_column", "`o.x`: it stands twice"),
    (br#"{"id":1,"id":1}"#, "duplicate_column", "`id`: it stands twice"),
    (br#"{"id":1,"i":null,"i":2}"#, "duplicate_column", "`i`: it stands twice"),
    (br#"{"i":1}"#, "missing_value", "`id`: it is required"),
    (br#"{"id":null}"#, "missing_value", "`id`: it is required"),
    (br#"{}"#, "missing_value", "`id`: it is required"),
];

const GOOD: &[u8] =
    br#" {"id" : 7, "i":-3, "s":"\u00e9\ud83d\ude00", "n": "1.50", "o":{"x":1}, "l":[], "m":{}, "unknown":[{"a":[null,1e5]}]}"#;

#[test]
fn k12_every_bad_message_is_rejected_alone() {
    let mut decoder = decoder(&spec(Format::Json, all_types())).unwrap();
    for (bad, code, what) in CASES {
        let messages = [GOOD, bad, GOOD, GOOD].map(|value| message(None, Some(value)));
        let decoded = decoder.decode(&messages).unwrap();
        account(&decoded, messages.len());
        let text = String::from_utf8_lossy(bad);
        assert_eq!(decoded.origins, [0, 2, 3], "{text}");
        let reject = &decoded.rejects[0];
        assert_eq!((reject.index, reject.code), (1, *code), "{text}: {}", reject.message);
        assert!(reject.message.contains(what), "{text}: {}", reject.message);
        for row in 1..3 {
            assert_eq!(super::row(&decoded, row), super::row(&decoded, 0), "{text}");
        }
    }
}

#[test]
fn k12_a_run_of_nothing_but_bad_messages_has_no_rows() {
    let mut decoder = decoder(&spec(Format::Json, all_types())).unwrap();
    let messages: Vec<Message<'_>> = CASES.iter().map(|(bad, ..)| message(None, Some(bad))).collect();
    let decoded = decoder.decode(&messages).unwrap();
    account(&decoded, messages.len());
    assert_eq!((decoded.rows.num_rows(), decoded.rejects.len()), (0, CASES.len()));
}

#[test]
fn a_reject_never_prints_the_value() {
    let mut decoder = decoder(&spec(Format::Json, all_types())).unwrap();
    for bad in [
        r#"{"id":"hunter2"}"#,
        r#"{"id":1,"raw":"hunter2"}"#,
        r#"{"id":1,"at":"hunter2"}"#,
        r#"hunter2"#,
        r#"{"hunter2":1}"#,
    ] {
        let decoded = decoder.decode(&[value(bad)]).unwrap();
        assert!(!decoded.rejects[0].message.contains("hunter2"), "{}", decoded.rejects[0].message);
    }
}

#[test]
fn v10_nesting_is_followed_to_a_limit_and_no_further() {
    let mut decoder = decoder(&spec(Format::Json, all_types())).unwrap();
    let nested = |depth: usize| format!(r#"{{"id":1,"x":{}1{}}}"#, "[".repeat(depth), "]".repeat(depth));
    let texts = [nested(100), nested(129), nested(100_000)];
    let decoded = decoder.decode(&texts.each_ref().map(|text| value(text))).unwrap();
    let codes: Vec<(usize, &str)> = decoded.rejects.iter().map(|reject| (reject.index, reject.code)).collect();
    assert_eq!(codes, [(1, "too_deep"), (2, "too_deep")]);
}

#[test]
fn the_edges_of_every_type_are_kept_as_they_are() {
    let mut decoder = decoder(&spec(Format::Json, all_types())).unwrap();
    let texts = [
        r#"{"id":-9223372036854775808,"i":-2147483648,"f":3.4028235e38,"d":-1.7976931348623157e308,"n":-999.99,"day":"-4712-01-01","at":"-0001-12-31T23:59:59.999999-12:59","local":"+294247-01-10T04:00:54.775807"}"#,
        r#"{"id":9223372036854775807,"i":2147483647,"f":-0.0,"d":5e-324,"n":"999.990000","day":"9999-12-31","at":"9999-12-31 23:59:59.999999000Z","local":"0001-01-01T00:00"}"#,
        r#"{"id":-0,"n":1.5e2,"day":"+12024-02-29","s":"\u0000\/\b","raw":"","m":{"":null}}"#,
    ];
    let decoded = decoder.decode(&texts.map(value)).unwrap();
    assert_eq!(decoded.rejects, []);
    let row = |index| super::row(&decoded, index);
    assert_eq!(row(0)["id"], i64::MIN);
    assert_eq!(row(0)["n"], "-999.99");
    assert_eq!(row(0)["day"], -2_440_550);
    assert_eq!(row(0)["local"], i64::MAX);
    let before_year_0 = chrono::DateTime::parse_from_rfc3339("0000-01-01T12:58:59.999999Z")
        .unwrap()
        .timestamp_micros();
    assert_eq!(row(0)["at"], before_year_0);
    assert_eq!(row(1)["id"], i64::MAX);
    assert_eq!((row(1)["n"].as_str(), row(1)["day"].as_i64()), (Some("999.99"), Some(2_932_896)));
    assert_eq!(row(1)["at"], 253_402_300_799_999_999i64);
    assert_eq!(row(1)["local"], -62_135_596_800_000_000i64);
    assert_eq!(row(1)["d"].as_f64(), Some(5e-324));
    assert_eq!(
        (row(2)["n"].as_str(), row(2)["s"].as_str(), row(2)["raw"].as_str()),
        (Some("150.00"), Some("\0/\u{8}"), Some(""))
    );
    assert_eq!(row(2)["m"], serde_json::json!({"": null}));
}

fn keyed(key: &[&str], key_from: KeyFrom) -> alluvium::sources::decode::DecodeSpec {
    let fields = vec![
        Field::new("id", DataType::Int64, true),
        Field::new("name", DataType::Utf8, true),
        Field::new("v", DataType::Int32, false),
    ];
    let mut spec = upsert(spec(Format::Json, columns(fields)), key);
    spec.key_from = key_from;
    spec
}

fn one(decoded: &Decoded) -> Result<serde_json::Value, (&'static str, String)> {
    match decoded.rejects.first() {
        Some(reject) => Err((reject.code, format!("{}: {}", reject.stage, reject.message))),
        None => Ok(super::row(decoded, 0)),
    }
}

#[test]
fn k11_a_message_without_its_key_is_rejected() {
    let mut decoder_by_value = decoder(&keyed(&["id", "name"], KeyFrom::Value)).unwrap();
    for text in [r#"{"name":"a","v":1}"#, r#"{"id":null,"name":"a","v":1}"#, r#"{"id":1,"v":1}"#] {
        let (code, message) = one(&decoder_by_value.decode(&[value(text)]).unwrap()).unwrap_err();
        assert_eq!(code, "missing_key");
        assert!(message.starts_with("key: column `"), "{message}");
    }
    let mut decoder_by_key = decoder(&keyed(&["id"], KeyFrom::MessageKey)).unwrap();
    for key in [
        None,
        Some(&b"null"[..]),
        Some(b"{}"),
        Some(br#"{"id":null}"#),
        Some(br#"{"other":1}"#),
    ] {
        let decoded = decoder_by_key.decode(&[message(key, Some(br#"{"v":1}"#))]).unwrap();
        assert_eq!(one(&decoded).unwrap_err().0, "missing_key", "{key:?}");
    }
    for key in [&b""[..], b"{", b"x", b"1 2", b"\"1\"", br#"{"id":1}}"#, br#"{"id":"1"}"#, b"1.5"] {
        let decoded = decoder_by_key.decode(&[message(Some(key), Some(br#"{"v":1}"#))]).unwrap();
        assert!(one(&decoded).unwrap_err().1.contains("message key"), "{key:?}");
    }
}

#[test]
fn keys_come_as_objects_bare_values_text_or_in_connects_wrapper() {
    use serde_json::json;
    let key_of = |column: &str, key: &str| {
        let mut decoder = decoder(&keyed(&[column], KeyFrom::MessageKey)).unwrap();
        // The value's own idea of the key does not count, and an older value may not even have it.
        let decoded = decoder
            .decode(&[message(Some(key.as_bytes()), Some(br#"{"id":-1,"name":"other","v":1}"#))])
            .unwrap();
        one(&decoded).map(|row| row[column].clone())
    };
    for key in [
        "5",
        " 5 ",
        r#"{"id":5}"#,
        r#"{"x":[],"id":5}"#,
        r#"{"schema":{"type":"int64"},"payload":5}"#,
        r#"{"schema":null,"payload":{"id":5}}"#,
    ] {
        assert_eq!(key_of("id", key), Ok(json!(5)), "{key}");
    }
    for (key, text) in [
        ("a b", "a b"),
        (r#""a\nb""#, "a\nb"),
        ("5", "5"),
        ("true", "true"),
        (r#"{"name":"x"}"#, "x"),
        ("ключ", "ключ"),
        ("[1]", "[1]"),
    ] {
        assert_eq!(key_of("name", key), Ok(json!(text)), "{key}");
    }
}

#[test]
fn k9_a_tombstone_deletes_by_the_messages_key() {
    use alluvium::batch::Op;
    for key_from in [KeyFrom::Value, KeyFrom::MessageKey] {
        let mut decoder = decoder(&keyed(&["id"], key_from)).unwrap();
        let messages = [
            message(Some(b"1"), Some(br#"{"id":1,"v":1}"#)),
            message(Some(b"1"), None),
            message(Some(b"2"), None),
            message(None, None),
        ];
        let decoded = decoder.decode(&messages).unwrap();
        account(&decoded, messages.len());
        assert_eq!(decoded.ops, [Op::Put, Op::Delete, Op::Delete]);
        assert_eq!((super::row(&decoded, 2)["id"].as_i64(), decoded.tombstones), (Some(2), 0));
        assert_eq!((decoded.rejects[0].index, decoded.rejects[0].code), (3, "missing_key"));
    }
}

#[test]
fn k9_a_table_of_events_passes_over_a_tombstone_or_keeps_it_as_a_row_of_nulls() {
    use alluvium::config::Tombstones;
    let mut spec = keyed(&[], KeyFrom::Value);
    spec.metadata = vec!["__key".to_owned(), "__deleted".to_owned()];
    let messages = [message(Some(b"1"), None), message(Some(b"1"), Some(br#"{"id":1,"v":1}"#))];
    let skipped = decoder(&spec).unwrap().decode(&messages).unwrap();
    account(&skipped, 2);
    assert_eq!((skipped.tombstones, skipped.origins.as_slice()), (1, &[1][..]));
    spec.tombstones = Tombstones::Keep;
    let kept = decoder(&spec).unwrap().decode(&messages).unwrap();
    account(&kept, 2);
    assert_eq!(
        super::row(&kept, 0),
        serde_json::json!({"id": null, "name": null, "v": null, "__key": "MQ==", "__deleted": true})
    );
    assert_eq!(super::row(&kept, 1)["__deleted"], false);
}

#[test]
fn v20_what_cannot_be_a_partition_is_rejected() {
    let mut spec = spec(Format::Json, all_types());
    spec.metadata = vec!["__timestamp".to_owned(), "__key".to_owned()];
    spec.partition_by = ["day", "at", "local", "raw", "s", "__timestamp", "__key"]
        .map(str::to_owned)
        .to_vec();
    let mut by_all = decoder(&spec).unwrap();
    let good = [
        r#"{"id":1}"#,
        r#"{"id":1,"day":"0001-01-01","at":"0001-01-01T00:00:00Z","local":"0001-01-01T00:00:00","raw":"","s":"\u0000"}"#,
        r#"{"id":1,"day":"9999-12-31","at":"9999-12-31T23:59:59.999999Z","local":"9999-12-31T23:59:59.999999","raw":"w6k="}"#,
    ];
    assert_eq!(by_all.decode(&good.map(value)).unwrap().rejects, []);
    let bad = [
        (r#"{"id":1,"day":"+10000-01-01"}"#, "out_of_range", "`day`"),
        (r#"{"id":1,"day":"0000-12-31"}"#, "out_of_range", "`day`"),
        (r#"{"id":1,"at":"9999-12-31T23:00:00-01:00"}"#, "out_of_range", "`at`"),
        (r#"{"id":1,"local":"0000-12-31T23:59:59.999999"}"#, "out_of_range", "`local`"),
        (r#"{"id":1,"raw":"/w=="}"#, "type_mismatch", "`raw`"),
    ];
    for (text, code, what) in bad {
        let decoded = by_all.decode(&[value(good[0]), value(text), value(good[0])]).unwrap();
        account(&decoded, 3);
        assert_eq!((decoded.origins.as_slice(), decoded.rejects[0].code), (&[0, 2][..], code), "{text}");
        assert!(decoded.rejects[0].message.contains(what), "{}", decoded.rejects[0].message);
    }
    let key = message(Some(b"\xFF"), Some(good[0].as_bytes()));
    let mut time = value(good[0]);
    time.timestamp_ms = Some(253_402_300_800_000);
    let decoded = by_all.decode(&[key, time]).unwrap();
    let codes: Vec<&str> = decoded.rejects.iter().map(|reject| reject.code).collect();
    assert_eq!(codes, ["type_mismatch", "out_of_range"]);
    // Columns that no partition is made of may hold all that their types can.
    spec.partition_by = vec!["id".to_owned()];
    let decoded = decoder(&spec).unwrap().decode(&bad.map(|(text, ..)| value(text))).unwrap();
    assert_eq!(decoded.rejects, []);
}

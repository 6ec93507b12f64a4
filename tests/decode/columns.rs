//! Schema files, and what is refused in them.

use std::path::Path;

use alluvium::config::Format;
use alluvium::error::Kind;
use alluvium::sources::decode::columns::{from_avro, from_file, from_json_schema};
use alluvium::sources::decode::{decoder, metadata};
use arrow::datatypes::{DataType, SchemaRef};
use serde_json::json;

use super::{spec, upsert, value};

fn order(file: &str) -> SchemaRef {
    from_file(&Path::new(env!("CARGO_MANIFEST_DIR")).join("schemas").join(file)).unwrap()
}

#[test]
fn both_example_schemas_make_the_same_table() {
    let message = r#"{"id":1,"customer":"Ada","amount":"12.30","status":"paid","placed_at":1700000000123,"deliver_on":"2024-02-29",
        "address":{"street":"a","city":"b"},"items":[{"product":"00112233-4455-6677-8899-aabbccddeeff","count":2}],"labels":{"x":"y"}}"#;
    let rows = ["order.avsc", "order.schema.json"].map(|file| {
        let mut decoder = decoder(&upsert(spec(Format::Json, order(file)), &["id"])).unwrap();
        let schema = decoder.schema().clone();
        let decoded = decoder.decode(&[value(message)]).unwrap();
        assert_eq!(decoded.rejects, []);
        (schema, super::row(&decoded, 0))
    });
    let [(avro, row), (json_schema, other)] = rows;
    assert_eq!(avro, json_schema);
    assert_eq!(row, other);
    let expected = json!({
        "id": 1, "customer": "Ada", "amount": "12.30", "status": "paid", "placed_at": 1_700_000_000_123_000i64, "deliver_on": 19782,
        "address": {"street": "a", "city": "b", "zip": null}, "items": [{"product": "00112233-4455-6677-8899-aabbccddeeff", "count": 2}],
        "labels": {"x": "y"},
    });
    assert_eq!(row, expected);
    // What the schema says of the writing is not the table's; what it says of the meaning is.
    assert_eq!(avro.field(0).metadata().get("comment").unwrap(), "Number of the order; the key.");
    assert!(
        avro.fields()
            .iter()
            .all(|field| field.metadata().keys().all(|key| key == "comment"))
    );
}

fn avro_type(kind: &str) -> Result<(DataType, bool), String> {
    let schema = from_avro(&format!(
        r#"{{"type":"record","name":"r","fields":[{{"name":"c","type":{kind}}}]}}"#
    ));
    schema
        .map(|s| (s.field(0).data_type().clone(), s.field(0).is_nullable()))
        .map_err(|e| e.to_string())
}

#[test]
fn avro_types_become_columns() {
    let cases = [
        (r#""boolean""#, "Boolean"),
        (r#""int""#, "Int32"),
        (r#""long""#, "Int64"),
        (r#""float""#, "Float32"),
        (r#""double""#, "Float64"),
        (r#""string""#, "Utf8"),
        (r#""bytes""#, "Binary"),
        (r#"{"type":"fixed","name":"f","size":4}"#, "Binary"),
        (r#"{"type":"enum","name":"e","symbols":["A"]}"#, "Utf8"),
        (r#"{"type":"string","logicalType":"uuid"}"#, "Utf8"),
        (r#"{"type":"int","logicalType":"date"}"#, "Date32"),
        (r#"{"type":"int","logicalType":"time-millis"}"#, "Int64"),
        (r#"{"type":"long","logicalType":"time-micros"}"#, "Int64"),
        (r#"{"type":"long","logicalType":"timestamp-millis"}"#, "Timestamp(µs, \"UTC\")"),
        (r#"{"type":"long","logicalType":"timestamp-micros"}"#, "Timestamp(µs, \"UTC\")"),
        (r#"{"type":"long","logicalType":"local-timestamp-millis"}"#, "Timestamp(µs)"),
        (
            r#"{"type":"bytes","logicalType":"decimal","precision":10,"scale":3}"#,
            "Decimal128(10, 3)",
        ),
        (
            r#"{"type":"fixed","name":"d","size":8,"logicalType":"decimal","precision":10,"scale":3}"#,
            "Decimal128(10, 3)",
        ),
        (r#"{"type":"array","items":"int"}"#, "List(non-null Int32, field: 'element')"),
    ];
    for (kind, expected) in cases {
        let (data, nullable) = avro_type(kind).unwrap();
        assert_eq!((data.to_string().as_str(), nullable), (expected, false), "{kind}");
        assert_eq!(avro_type(&format!(r#"["null",{kind}]"#)).unwrap(), (data, true), "{kind}");
    }
}

#[test]
fn avro_that_no_table_can_hold_is_refused_with_its_path() {
    let cases = [
        (r#"["int","string"]"#, "field `c`: a union"),
        (r#""null""#, "field `c`: a type of nothing but null"),
        (r#"{"type":"array","items":["int","string"]}"#, "field `c.element`: a union"),
        (r#"{"type":"fixed","name":"d","size":12,"logicalType":"duration"}"#, "duration"),
        (
            r#"{"type":"bytes","logicalType":"decimal","precision":40,"scale":3}"#,
            "1 to 38 digits",
        ),
        (
            r#"{"type":"record","name":"x","fields":[{"name":"y","type":["null","x"]}]}"#,
            "field `c.y`: record `x` contains itself",
        ),
        (r#"["null","r"]"#, "field `c`: record `r` contains itself"),
        (r#"{"type":"record","name":"x","fields":[]}"#, "field `c`: it has no fields"),
        (
            r#"{"type":"record","name":"x","fields":[{"name":"Y","type":"int"},{"name":"y","type":"int"}]}"#,
            "field `c.y`: it differs from `Y` in case only",
        ),
        (r#""money""#, "not a valid Avro schema"),
        (r#"{"type":"array","items":"r"}"#, "field `c.element`: record `r` contains itself"),
        (
            r#"{"type":"map","values":["null","r"]}"#,
            "field `c.value`: record `r` contains itself",
        ),
        (r#"[]"#, "field `c`: a union"),
        (
            r#"{"type":"bytes","logicalType":"big-decimal"}"#,
            "field `c`: a decimal needs a precision",
        ),
        // What Avro would pass over: the column would be of another type than is written there.
        (
            r#"{"type":"bytes","logicalType":"decimal","precision":2,"scale":3}"#,
            "field `c`: logicalType `decimal`",
        ),
        (
            r#"["null",{"type":"bytes","logicalType":"decimal"}]"#,
            "field `c`: logicalType `decimal`",
        ),
        (
            r#"{"type":"array","items":{"type":"string","logicalType":"decimal","precision":2}}"#,
            "field `c.element`: logicalType `decimal`",
        ),
        (
            r#"{"type":"map","values":{"type":"int","logicalType":"timestamp-millis"}}"#,
            "field `c.value`: logicalType `timestamp-millis`",
        ),
        (
            r#"{"type":"record","name":"x","fields":[{"name":"y","type":{"type":"string","logicalType":"date"}}]}"#,
            "field `c.y`: logicalType `date`",
        ),
        (
            r#"{"type":"fixed","name":"f","size":8,"logicalType":"duration"}"#,
            "field `c`: logicalType `duration`",
        ),
        (
            r#""int","logicalType":"date""#,
            "field `c`: logicalType `date` stands beside the type",
        ),
    ];
    for (kind, expected) in cases {
        let error = avro_type(kind).unwrap_err();
        assert!(error.contains(expected), "{kind}: {error}");
    }
    assert!(
        from_avro(r#"{"type":"array","items":"int"}"#)
            .unwrap_err()
            .what
            .contains("root must be a record")
    );
    assert_eq!(from_avro("{").unwrap_err().kind, Kind::Config);
    // V12: a root of null and a record, as older writers have it.
    assert_eq!(
        from_avro(r#"["null",{"type":"record","name":"r","fields":[{"name":"c","type":"int"}]}]"#)
            .unwrap()
            .fields()
            .len(),
        1
    );
}

#[test]
fn avro_types_with_names_can_be_used_again() {
    let named = [
        (
            r#"{"type":"fixed","name":"T","size":16,"logicalType":"decimal","precision":20,"scale":2}"#,
            "Decimal128(20, 2)",
        ),
        (r#"{"type":"fixed","name":"T","size":16,"logicalType":"uuid"}"#, "Utf8"),
        (r#"{"type":"fixed","name":"T","size":4}"#, "Binary"),
        (r#"{"type":"enum","name":"T","symbols":["A"]}"#, "Utf8"),
    ];
    for (kind, expected) in named {
        let fields = format!(r#"[{{"name":"a","type":{kind}}},{{"name":"b","type":["null","T"]}}]"#);
        let schema = from_avro(&format!(r#"{{"type":"record","name":"r","fields":{fields}}}"#)).unwrap();
        let types: Vec<String> = schema.fields().iter().map(|field| field.data_type().to_string()).collect();
        assert_eq!(types, [expected, expected], "{kind}");
    }
}

/// A type, JSON and what it is read as, and JSON that is refused.
type Reading<'a> = (&'a str, &'a [(serde_json::Value, serde_json::Value)], &'a [serde_json::Value]);

#[test]
fn avro_types_have_one_reading_of_json() {
    let instant = "2023-11-14T22:13:20.123Z";
    let local = "2023-11-14T22:13:20.123";
    let cases: &[Reading<'_>] = &[
        (r#""boolean""#, &[(json!(true), json!(true))], &[json!(1), json!("true")]),
        (r#""int""#, &[(json!(-5), json!(-5))], &[json!(1i64 << 31), json!(1.5), json!("5")]),
        (r#""long""#, &[(json!(1i64 << 31), json!(1i64 << 31))], &[json!("5")]),
        (
            r#""float""#,
            &[(json!(1.5), json!(1.5)), (json!(2), json!(2.0))],
            &[json!(1e39), json!("NaN")],
        ),
        (r#""double""#, &[(json!(1e39), json!(1e39))], &[json!("1")]),
        (r#""string""#, &[(json!("é"), json!("é"))], &[json!(1)]),
        (
            r#""bytes""#,
            &[(json!("AQI="), json!("AQI="))],
            &[json!("\u{1}\u{2}"), json!([1, 2])],
        ),
        (
            r#"{"type":"fixed","name":"f","size":4}"#,
            &[(json!("AQI="), json!("AQI="))],
            &[json!("\u{1}")],
        ),
        (
            r#"{"type":"enum","name":"e","symbols":["A"]}"#,
            &[(json!("B"), json!("B"))],
            &[json!(0)],
        ),
        (
            r#"{"type":"string","logicalType":"uuid"}"#,
            &[(json!("no uuid"), json!("no uuid"))],
            &[json!(1)],
        ),
        (
            r#"{"type":"int","logicalType":"date"}"#,
            &[(json!(19782), json!(19782)), (json!("2024-02-29"), json!(19782))],
            &[json!(i64::MAX), json!("2023-02-29")],
        ),
        (
            r#"{"type":"int","logicalType":"time-millis"}"#,
            &[(json!(1500), json!(1_500_000))],
            &[json!("12:00:00")],
        ),
        (
            r#"{"type":"long","logicalType":"time-micros"}"#,
            &[(json!(1500), json!(1500))],
            &[json!("12:00:00")],
        ),
        (
            r#"{"type":"long","logicalType":"timestamp-millis"}"#,
            &[
                (json!(1_700_000_000_123i64), json!(1_700_000_000_123_000i64)),
                (json!(instant), json!(1_700_000_000_123_000i64)),
            ],
            &[json!(local), json!(i64::MAX), json!(1.5)],
        ),
        (
            r#"{"type":"long","logicalType":"timestamp-micros"}"#,
            &[(json!(7), json!(7))],
            &[json!(local)],
        ),
        (
            r#"{"type":"long","logicalType":"timestamp-nanos"}"#,
            &[(json!(7000), json!(7))],
            &[json!(7001)],
        ),
        (
            r#"{"type":"long","logicalType":"local-timestamp-millis"}"#,
            &[(json!(7), json!(7000)), (json!(local), json!(1_700_000_000_123_000i64))],
            &[json!(instant)],
        ),
        (
            r#"{"type":"long","logicalType":"local-timestamp-micros"}"#,
            &[(json!(7), json!(7))],
            &[json!(instant)],
        ),
        (
            r#"{"type":"long","logicalType":"local-timestamp-nanos"}"#,
            &[(json!(7000), json!(7))],
            &[json!(1)],
        ),
        (
            r#"{"type":"bytes","logicalType":"decimal","precision":4,"scale":2}"#,
            &[(json!(12.5), json!("12.50")), (json!("12.5"), json!("12.50"))],
            &[json!(12.555), json!(123), json!("AQI=")],
        ),
        (
            r#"{"type":"array","items":["null","int"]}"#,
            &[(json!([1, null]), json!([1, null]))],
            &[json!({}), json!(["1"])],
        ),
        (
            r#"{"type":"map","values":"int"}"#,
            &[(json!({"a": 1}), json!({"a": 1}))],
            &[json!([]), json!({"a": null})],
        ),
        (
            r#"["null","int"]"#,
            &[(json!(1), json!(1)), (json!(null), json!(null))],
            &[json!({"int": 1})],
        ),
        // A logical type of somebody's says nothing.
        (r#"{"type":"long","logicalType":"money"}"#, &[(json!(1), json!(1))], &[json!("1")]),
    ];
    for (kind, good, bad) in cases {
        let schema = format!(r#"{{"type":"record","name":"r","fields":[{{"name":"c","type":{kind}}}]}}"#);
        let mut decoder = decoder(&spec(Format::Json, from_avro(&schema).unwrap())).unwrap();
        for (written, read) in *good {
            let decoded = decoder.decode(&[value(&json!({ "c": written }).to_string())]).unwrap();
            assert_eq!(decoded.rejects, [], "{kind} {written}");
            assert_eq!(super::row(&decoded, 0)["c"], *read, "{kind} {written}");
        }
        for written in *bad {
            let decoded = decoder.decode(&[value(&json!({ "c": written }).to_string())]).unwrap();
            assert_eq!(decoded.rejects.len(), 1, "{kind} {written}");
        }
    }
}

#[test]
fn defaults_and_aliases_of_avro_fill_no_cell() {
    let schema = r#"{"type":"record","name":"r","fields":[
        {"name":"a","type":"string","default":"x"}, {"name":"b","type":["null","int"],"default":null,"aliases":["old"]}]}"#;
    let mut decoder = decoder(&spec(Format::Json, from_avro(schema).unwrap())).unwrap();
    let decoded = decoder.decode(&[r#"{"a":"y","old":1}"#, r#"{"b":1}"#].map(value)).unwrap();
    assert_eq!(super::row(&decoded, 0), json!({"a": "y", "b": null}));
    assert_eq!((decoded.rejects[0].index, decoded.rejects[0].code), (1, "missing_value"));
}

#[test]
fn avro_names_are_found_in_their_namespaces() {
    let schema = r#"{"type":"record","name":"r","namespace":"com.x","fields":[
        {"name":"a","type":{"type":"enum","name":"E","symbols":["A"]}}, {"name":"b","type":"E"}, {"name":"c","type":"com.x.E"},
        {"name":"d","type":{"type":"record","name":"y.P","fields":[{"name":"e","type":["null","com.x.E"]}]}}, {"name":"f","type":"y.P"}]}"#;
    let schema = from_avro(schema).unwrap();
    let types: Vec<String> = schema.fields().iter().map(|field| field.data_type().to_string()).collect();
    assert_eq!(types, ["Utf8", "Utf8", "Utf8", "Struct(\"e\": Utf8)", "Struct(\"e\": Utf8)"]);
}

fn json_type(schema: &str) -> Result<(String, bool), String> {
    let schema = from_json_schema(&format!(
        r##"{{"type":"object","required":["c"],"properties":{{"c":{schema}}},"$defs":{{"n":{{"type":["integer","null"]}},"r":{{"type":"array","items":{{"$ref":"#/$defs/r"}}}}}}}}"##
    ));
    schema
        .map(|s| (s.field(0).data_type().to_string(), s.field(0).is_nullable()))
        .map_err(|e| e.to_string())
}

#[test]
fn json_schema_types_become_columns() {
    let cases = [
        (r#"{"type":"string"}"#, "Utf8", false),
        (r#"{"type":["string","null"],"format":"email"}"#, "Utf8", true),
        (r#"{"enum":["a","b",null]}"#, "Utf8", true),
        (r#"{"type":"string","format":"date"}"#, "Date32", false),
        (r#"{"type":"string","format":"date-time"}"#, "Timestamp(µs, \"UTC\")", false),
        (r#"{"type":"string","format":"local-date-time"}"#, "Timestamp(µs)", false),
        (r#"{"type":"integer","format":"timestamp-micros"}"#, "Timestamp(µs, \"UTC\")", false),
        (r#"{"type":"string","contentEncoding":"base64"}"#, "Binary", false),
        (r#"{"type":"integer"}"#, "Int64", false),
        (r#"{"type":"integer","format":"int32"}"#, "Int32", false),
        (r#"{"type":"number"}"#, "Float64", false),
        (r#"{"type":"number","format":"float"}"#, "Float32", false),
        (
            r#"{"type":["number","string"],"format":"decimal","precision":10,"scale":2}"#,
            "Decimal128(10, 2)",
            false,
        ),
        (r#"{"type":"boolean"}"#, "Boolean", false),
        (r#"{"format":"json"}"#, "Utf8", false),
        (r#"{"anyOf":[{"type":"null"},{"type":"integer"}]}"#, "Int64", true),
        (r##"{"$ref":"#/$defs/n"}"##, "Int64", true),
        (
            r#"{"type":"object","properties":{"a":{"type":"integer"}},"additionalProperties":{}}"#,
            "Struct(\"a\": Int64)",
            false,
        ),
        (
            r#"{"type":"array","items":{"type":"string"}}"#,
            "List(non-null Utf8, field: 'element')",
            false,
        ),
        (r#"{"items":{"type":"string"}}"#, "List(non-null Utf8, field: 'element')", false),
        (r#"{"const":"a"}"#, "Utf8", false),
        (r#"{"enum":[1,2,null]}"#, "Int64", true),
        (r#"{"enum":[1,2.5]}"#, "Float64", false),
        (r#"{"const":true}"#, "Boolean", false),
        (r#"{"type":"number","enum":[1,2]}"#, "Float64", false),
        (r#"{"type":"string","nullable":true}"#, "Utf8", true),
        (r#"{"type":"integer","format":"utc-millisec"}"#, "Timestamp(µs, \"UTC\")", false),
        (r#"{"allOf":[{"type":"string"}]}"#, "Utf8", false),
        (r##"{"$ref":"#/$defs/n","minimum":1}"##, "Int64", true),
        (
            r##"{"allOf":[{"$ref":"#/$defs/n"},{"minimum":1},{"enum":[1,2]}],"nullable":true}"##,
            "Int64",
            true,
        ),
        (
            r#"{"allOf":[{"type":"object","properties":{"a":{"type":"integer"}},"required":["a"]},{"properties":{"b":{"type":"string"},"a":{"enum":[1]}}}],"required":["b"]}"#,
            "Struct(\"a\": non-null Int64, \"b\": non-null Utf8)",
            false,
        ),
        (
            r#"{"anyOf":[{"type":"string","format":"uuid"},{"maxLength":0,"type":"string"},{"const":null}]}"#,
            "Utf8",
            true,
        ),
        (
            r#"{"type":"string","oneOf":[{"const":"a","title":"A"},{"pattern":"b"}]}"#,
            "Utf8",
            false,
        ),
        (
            r#"{"type":"object","properties":{"a":{"type":"integer"}},"anyOf":[{"required":["a"]},{"minProperties":1}]}"#,
            "Struct(\"a\": Int64)",
            false,
        ),
        (
            r#"{"format":"decimal","precision":10,"scale":2,"anyOf":[{"type":"number"},{"type":"string","pattern":"^1"}]}"#,
            "Decimal128(10, 2)",
            false,
        ),
        (
            r#"{"format":"json","oneOf":[{"type":"string"},{"type":"integer"}],"not":{},"enum":[1,"a"]}"#,
            "Utf8",
            false,
        ),
    ];
    for (schema, data, nullable) in cases {
        assert_eq!(json_type(schema).unwrap(), (data.to_owned(), nullable), "{schema}");
    }
}

#[test]
fn v19_json_schema_that_means_no_column_is_refused_and_nothing_is_fetched() {
    let cases = [
        (r#"{"$ref":"https://example.com/a.json"}"#, "only references within the file"),
        (r##"{"$ref":"#/$defs/missing"}"##, "there is nothing"),
        (r##"{"$ref":"#anchor"}"##, "no anchors"),
        (r##"{"$ref":"#/$defs/r"}"##, "field `c.element`: `#/$defs/r` contains itself"),
        (r#"{"type":["string","integer"]}"#, "several types"),
        (r#"{}"#, "it needs a `type`"),
        (r#"{"type":"strng"}"#, "not a valid JSON Schema"),
        (r#"{"type":"object"}"#, "an object needs `properties`"),
        (r#"{"type":"array"}"#, "one schema as its `items`"),
        (r#"{"type":"integer","format":"uint64"}"#, "no format `uint64`"),
        (r#"{"type":"string","format":"decimal","precision":10}"#, "needs `scale`"),
        (
            r#"{"type":"string","format":"decimal","precision":10,"scale":11}"#,
            "1 to 38 digits",
        ),
        (r#"{"type":"string","contentEncoding":"base32"}"#, "contentEncoding"),
        (r#"{"type":"string","encoding":"millis"}"#, "no encoding `millis`"),
        (
            r#"{"allOf":[{"type":"string"},{"type":"integer"}]}"#,
            "field `c`: `allOf` or `$ref` gives it a second `type`",
        ),
        (
            r##"{"$ref":"#/$defs/n","format":"int32","allOf":[{"format":"int64"}]}"##,
            "a second `format`",
        ),
        (
            r#"{"type":"object","properties":{"a":{"type":"string"}},"allOf":[{"properties":{"a":{"type":"integer"}}}]}"#,
            "field `c.a`: `allOf` or `$ref` gives it a second `type`",
        ),
        (r##"{"$ref":"#/properties/c"}"##, "contains itself"),
        (
            r##"{"allOf":[{"anyOf":[{"type":"null"},{"$ref":"#/properties/c"}]}]}"##,
            "contains itself",
        ),
        (r#"{"allOf":[{"not":{"type":"string"}}]}"#, "`not` is not supported"),
        (r#"{"enum":[1,"a"]}"#, "field `c`: the values of an enum must be of one type"),
        (r#"{"oneOf":[{"type":"string"},{"type":"integer"}]}"#, "one other schema"),
        (r#"{"anyOf":[{"type":"integer"},{"minimum":1}]}"#, "it needs a `type`"),
        (r#"{"type":"string","anyOf":[{"type":"integer"}]}"#, "a second `type`"),
        (r#"{"oneOf":[{"type":"null"}]}"#, "nothing but null"),
        (
            r#"{"type":"object","required":["z"],"properties":{"y":{"type":"integer"}}}"#,
            "`z` is required",
        ),
        (r#"{"type":"integer"},"c":{"type":"integer"}"#, "`c` stands twice"),
    ];
    for (schema, expected) in cases {
        let error = json_type(schema).unwrap_err();
        assert!(error.contains(expected), "{schema}: {error}");
    }
    let laughs: Vec<String> = (0..64)
        .map(|n| {
            format!(
                r##""{n}":{{"allOf":[{{"$ref":"#/$defs/{m}"}},{{"$ref":"#/$defs/{m}"}}]}}"##,
                m = n + 1
            )
        })
        .collect();
    let laughs = format!(
        r##"{{"$ref":"#/$defs/0","$defs":{{{},"64":{{"type":"object"}}}}}}"##,
        laughs.join(",")
    );
    assert!(from_json_schema(&laughs).unwrap_err().what.contains("more than 100000 schemas"));
    let unknown = r#"{"$schema":"https://example.com/own","type":"object","properties":{"a":{"type":"integer"}}}"#;
    assert_eq!(from_json_schema(unknown).unwrap_err().kind, Kind::Config);
}

/// Names, types and whether null is taken.
fn told(schema: &str) -> Vec<String> {
    let schema = from_json_schema(schema).unwrap();
    let tell = |field: &arrow::datatypes::FieldRef| {
        let (kind, nullable) = (field.data_type(), if field.is_nullable() { "?" } else { "" });
        match kind {
            DataType::Map(..) => format!("{}: Map{nullable}", field.name()),
            _ => format!("{}: {kind}{nullable}", field.name()),
        }
    };
    schema.fields().iter().map(tell).collect()
}

#[test]
fn json_schemas_as_programs_write_them_are_read() {
    // pydantic 2
    let schema = r##"{"$defs": {
        "Address": {"properties": {"street": {"title": "Street", "type": "string"}, "zip": {"anyOf": [{"type": "string"}, {"type": "null"}], "default": null, "title": "Zip"}},
            "required": ["street"], "title": "Address", "type": "object"},
        "Color": {"enum": ["red", "green"], "title": "Color", "type": "string"},
        "Level": {"enum": [1, 2], "title": "Level", "type": "integer"}},
        "properties": {
            "id": {"exclusiveMinimum": 0, "title": "Id", "type": "integer"},
            "placed_at": {"format": "date-time", "title": "Placed At", "type": "string"},
            "day": {"anyOf": [{"format": "date", "type": "string"}, {"type": "null"}], "default": null, "title": "Day"},
            "uid": {"format": "uuid", "title": "Uid", "type": "string"},
            "kind": {"const": "order", "default": "order", "title": "Kind"},
            "color": {"$ref": "#/$defs/Color", "default": "red"},
            "level": {"anyOf": [{"$ref": "#/$defs/Level"}, {"type": "null"}], "default": null},
            "address": {"allOf": [{"$ref": "#/$defs/Address"}], "description": "Where to."},
            "tags": {"items": {"type": "string"}, "title": "Tags", "type": "array", "uniqueItems": true},
            "extra": {"additionalProperties": {"type": "number"}, "title": "Extra", "type": "object"}},
        "required": ["id", "placed_at", "uid", "address", "tags", "extra"], "title": "Order", "type": "object"}"##;
    let columns = [
        "id: Int64",
        "placed_at: Timestamp(µs, \"UTC\")",
        "day: Date32?",
        "uid: Utf8",
        "kind: Utf8?",
        "color: Utf8?",
        "level: Int64?",
        "address: Struct(\"street\": non-null Utf8, \"zip\": Utf8)",
        "tags: List(non-null Utf8, field: 'element')",
        "extra: Map",
    ];
    assert_eq!(told(schema), columns);
    let address = from_json_schema(schema).unwrap().field(7).metadata().get("comment").cloned();
    assert_eq!(address.as_deref(), Some("Where to."));

    // pydantic 1: enums have no type.
    let schema = r##"{"title": "Order", "type": "object", "properties": {
            "id": {"title": "Id", "type": "integer"}, "color": {"$ref": "#/definitions/Color"},
            "level": {"default": 1, "allOf": [{"$ref": "#/definitions/Level"}]}},
        "required": ["id", "color"], "definitions": {
            "Color": {"title": "Color", "description": "An enumeration.", "enum": ["red", "green"]},
            "Level": {"title": "Level", "description": "An enumeration.", "enum": [1, 2]}}}"##;
    assert_eq!(told(schema), ["id: Int64", "color: Utf8", "level: Int64?"]);

    // ts-json-schema-generator: the root is a reference, an interface extends another, and names stand in URIs.
    let schema = r##"{"$schema": "http://json-schema.org/draft-07/schema#", "$ref": "#/definitions/Order", "definitions": {
        "Base": {"type": "object", "properties": {"id": {"type": "number"}}, "required": ["id"]},
        "Order": {"allOf": [{"$ref": "#/definitions/Base"}, {"type": "object", "additionalProperties": false, "properties": {
            "status": {"type": "string", "enum": ["paid", "open"]}, "note": {"type": ["string", "null"]},
            "labels": {"$ref": "#/definitions/Record%3Cstring%2Cnumber%3E"}}, "required": ["status", "note"]}]},
        "Record<string,number>": {"type": "object", "additionalProperties": {"type": "number"}}}}"##;
    assert_eq!(told(schema), ["id: Float64", "status: Utf8", "note: Utf8?", "labels: Map?"]);

    // Confluent's serializer for Java, and Connect's converter.
    let schema = r##"{"$schema": "http://json-schema.org/draft-07/schema#", "title": "Order", "type": "object", "additionalProperties": false,
        "properties": {
            "id": {"type": "integer", "connect.index": 0, "connect.type": "int64"},
            "name": {"connect.index": 1, "oneOf": [{"type": "null", "title": "Not included"}, {"type": "string"}]},
            "at": {"type": "integer", "format": "utc-millisec"},
            "address": {"oneOf": [{"type": "null", "title": "Not included"}, {"$ref": "#/definitions/Address"}]}},
        "required": ["id", "at"], "definitions": {"Address": {"type": "object", "additionalProperties": false,
            "properties": {"street": {"oneOf": [{"type": "null", "title": "Not included"}, {"type": "string"}]}}}}}"##;
    assert_eq!(
        told(schema),
        [
            "id: Int64",
            "name: Utf8?",
            "at: Timestamp(µs, \"UTC\")",
            "address: Struct(\"street\": Utf8)?"
        ]
    );

    // schemars for Rust: an enum with comments.
    let schema = r##"{"$schema": "https://json-schema.org/draft/2020-12/schema", "type": "object", "properties": {
            "n": {"type": "integer", "format": "int64"}, "status": {"$ref": "#/$defs/Status"}, "was": {"anyOf": [{"$ref": "#/$defs/Status"}, {"type": "null"}]}},
        "required": ["n", "status"], "$defs": {"Status": {"oneOf": [
            {"description": "It is paid.", "type": "string", "const": "Paid"}, {"type": "string", "enum": ["Open", "Gone"]}]}}}"##;
    assert_eq!(told(schema), ["n: Int64", "status: Utf8", "was: Utf8?"]);
}

#[test]
fn v17_names_that_delta_cannot_hold_are_refused() {
    for name in ["a b", "a,b", "a;b", "a{b", "a}b", "a(b", "a)b", "a\\nb", "a\\tb", "a=b", ""] {
        let schema = format!(r#"{{"type":"object","properties":{{"{name}":{{"type":"integer"}}}}}}"#);
        let error = from_json_schema(&schema).unwrap_err();
        assert_eq!((error.kind, error.code), (Kind::Config, "schema"), "{name}");
    }
    let cases = r#"{"type":"object","properties":{"Größe":{"type":"integer"},"GRÖSSE":{"type":"integer"},"größe":{"type":"integer"}}}"#;
    assert!(from_json_schema(cases).unwrap_err().what.contains("in case only"));
    let fine = r#"{"type":"object","properties":{"a.b":{"type":"integer"},"9":{"type":"integer"},"ключ":{"type":"integer"}}}"#;
    assert_eq!(from_json_schema(fine).unwrap().fields().len(), 3);
}

#[test]
fn columns_come_in_the_order_of_the_schema() {
    let schema = r#"{"type":"object","properties":{"z":{"type":"integer"},"a":{"type":"integer"},"m":{"type":"integer"}}}"#;
    let schema = from_json_schema(schema).unwrap();
    let names: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
    assert_eq!(names, ["z", "a", "m"]);
}

#[test]
fn a_schema_file_of_no_known_form_says_so() {
    let error = from_file(Path::new("/nowhere/order.avsc")).unwrap_err();
    assert!(error.to_string().contains("/nowhere/order.avsc"), "{error}");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("order.xsd");
    std::fs::write(&path, "<x/>").unwrap();
    assert!(from_file(&path).unwrap_err().to_string().contains("must end with .avsc or .json"));
    for (name, text) in [
        ("a.json", r#"{"type":"object","properties":{"a":{"type":"integer"}}}"#),
        ("a.avsc", r#"{"type":"record","name":"r","fields":[{"name":"a","type":"long"}]}"#),
    ] {
        let path = folder.path().join(name);
        std::fs::write(&path, format!("\u{feff}{text}")).unwrap();
        assert_eq!(from_file(&path).unwrap().fields().len(), 1, "{name}");
    }
}

#[test]
fn metadata_columns_that_do_not_exist_or_clash_are_refused() {
    let asked = |names: &[&str], format| {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        metadata::fields(&names, format).map(|fields| fields.len())
    };
    assert_eq!(asked(&["__topic", "__offset", "__headers"], Format::Json).unwrap(), 3);
    assert!(
        asked(&["__lsn"], Format::Json)
            .unwrap_err()
            .what
            .contains("only in events of Debezium")
    );
    assert_eq!(asked(&["__lsn"], Format::DebeziumJson).unwrap(), 1);
    assert!(asked(&["__ofset"], Format::Json).unwrap_err().what.contains("__offset"));
    let schema = r#"{"type":"object","properties":{"__Offset":{"type":"integer"}}}"#;
    let mut clash = spec(Format::Json, from_json_schema(schema).unwrap());
    clash.metadata = vec!["__offset".to_owned()];
    assert!(decoder(&clash).err().unwrap().what.contains("__offset"));
}

#[test]
fn a_key_that_is_no_column_is_refused_with_the_columns_that_there_are() {
    let error = decoder(&upsert(spec(Format::Json, order("order.avsc")), &["ident"])).err().unwrap();
    assert!(error.what.contains("`ident`") && error.what.contains("customer"), "{}", error.what);
    let error = decoder(&upsert(spec(Format::Json, order("order.avsc")), &["items"])).err().unwrap();
    assert!(error.what.contains("plain value"), "{}", error.what);
}

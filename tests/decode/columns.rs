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
        (r#"{"allOf":[{"type":"string"}]}"#, "`allOf` is not supported"),
        (r#"{"oneOf":[{"type":"string"},{"type":"integer"}]}"#, "one other schema"),
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
    let unknown = r#"{"$schema":"https://example.com/own","type":"object","properties":{"a":{"type":"integer"}}}"#;
    assert_eq!(from_json_schema(unknown).unwrap_err().kind, Kind::Config);
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

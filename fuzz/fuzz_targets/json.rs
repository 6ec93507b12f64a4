//! Lines of bytes as messages of plain JSON: none may panic, and each is accounted for.
#![no_main]

use alluvium::config::{Format, KeyFrom, Tombstones};
use alluvium::sources::decode::{DecodeSpec, Headers, Message, NewColumns, columns, decoder};
use libfuzzer_sys::fuzz_target;

const SCHEMA: &str = r#"{"type":"object","required":["id"],"properties":{
    "id":{"type":"integer"},"i":{"type":"integer","format":"int32"},"f":{"type":"number","format":"float"},"d":{"type":"number"},
    "b":{"type":"boolean"},"s":{"type":"string"},"raw":{"type":"string","contentEncoding":"base64"},"any":{"format":"json"},
    "n":{"type":"string","format":"decimal","precision":38,"scale":4},"day":{"type":"string","format":"date"},
    "at":{"type":"string","format":"date-time"},"ms":{"type":"integer","format":"local-timestamp-millis"},
    "o":{"type":"object","properties":{"x":{"type":"integer"},"l":{"type":"array","items":{"type":"string"}}}},
    "m":{"type":"object","additionalProperties":{"type":"number"}}}}"#;

fuzz_target!(|bytes: &[u8]| {
    let columns = columns::from_json_schema(SCHEMA).expect("the schema is right");
    for (key, key_from) in [
        (vec![], KeyFrom::Value),
        (vec!["id".to_owned()], KeyFrom::Value),
        (vec!["s".to_owned()], KeyFrom::MessageKey),
    ] {
        let metadata = vec!["__key".to_owned(), "__timestamp".to_owned()];
        let spec = DecodeSpec {
            format: Format::Json,
            columns: columns.clone(),
            new_columns: NewColumns::Ignore,
            key,
            key_from,
            tombstones: Tombstones::Keep,
            metadata,
        };
        let mut decoder = decoder(&spec).expect("the spec is right");
        let messages: Vec<Message<'_>> = bytes.split(|byte| *byte == b'\n').map(message).collect();
        let decoded = decoder.decode(&messages).expect("nothing but rejects comes of bad messages");
        assert_eq!(
            decoded.rows.num_rows() + decoded.rejects.len() + decoded.tombstones + decoded.filtered,
            messages.len()
        );
    }
});

/// A line is a value, or a key and a value with a tab between.
fn message(line: &[u8]) -> Message<'_> {
    let mut parts = line.splitn(2, |byte| *byte == b'\t');
    let (first, second) = (parts.next(), parts.next());
    let (key, value) = if second.is_some() { (first, second) } else { (None, first) };
    let value = value.filter(|value| !value.is_empty());
    Message {
        topic: "t",
        partition: 0,
        offset: 0,
        timestamp_ms: Some(line.len() as i64),
        key,
        value,
        headers: Headers(None),
    }
}

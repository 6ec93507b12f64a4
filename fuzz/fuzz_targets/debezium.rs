//! Lines of bytes as Debezium's events, in tables of both kinds; and as samples to find the columns in.
#![no_main]

use alluvium::config::{Format, KeyFrom, Tombstones};
use alluvium::sources::decode::{DecodeSpec, Headers, Message, NewColumns, columns, decoder, discover};
use libfuzzer_sys::fuzz_target;

const SCHEMA: &str = r#"{"type":"record","name":"rich","fields":[
    {"name":"id","type":"long"},{"name":"i2","type":["null","int"]},{"name":"f8","type":["null","double"]},{"name":"tx","type":["null","string"]},
    {"name":"n","type":["null",{"type":"bytes","logicalType":"decimal","precision":20,"scale":5}]},{"name":"by","type":["null","bytes"]},
    {"name":"nu","type":["null","string"],"encoding":"variable-scale"},{"name":"d","type":["null",{"type":"int","logicalType":"date"}]},
    {"name":"ts","type":["null",{"type":"long","logicalType":"local-timestamp-micros"}]},{"name":"ta","type":["null",{"type":"array","items":["null","string"]}]}]}"#;

fuzz_target!(|bytes: &[u8]| {
    let messages: Vec<Message<'_>> = bytes.split(|byte| *byte == b'\n').map(message).collect();
    let found = discover(Format::DebeziumJson, &messages).ok().flatten();
    for columns in [Some(columns::from_avro(SCHEMA).expect("the schema is right")), found]
        .into_iter()
        .flatten()
    {
        let keys = [vec![], vec!["id".to_owned()]];
        let each = keys.into_iter().flat_map(|key| [(key.clone(), NewColumns::Ignore), (key, NewColumns::Add)]);
        for (key, new_columns) in each {
            let spec = DecodeSpec {
                format: Format::DebeziumJson,
                columns: columns.clone(),
                new_columns,
                key,
                key_from: KeyFrom::Value,
                tombstones: Tombstones::Skip,
                metadata: ["__op", "__unchanged", "__lsn", "__ts_ms", "__deleted"].map(str::to_owned).to_vec(),
            };
            let Ok(mut decoder) = decoder(&spec) else { continue };
            // A schema inside of the messages may not fit the table; that is an error, and no panic.
            if let Ok(decoded) = decoder.decode(&messages) {
                assert_eq!(
                    decoded.written() + decoded.rejects.len() + decoded.tombstones + decoded.filtered,
                    messages.len()
                );
            }
        }
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
        timestamp_ms: None,
        key,
        value,
        headers: Headers(None),
    }
}

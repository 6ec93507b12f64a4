//! Bytes as schema files: columns or a refusal, and no panic. Columns that come out are such as a decoder can be made of.
#![no_main]

use alluvium::config::{Format, KeyFrom, Tombstones};
use alluvium::sources::decode::{DecodeSpec, NewColumns, columns, decoder};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    for columns in [columns::from_avro(text), columns::from_json_schema(text)].into_iter().flatten() {
        let spec = DecodeSpec {
            format: Format::Json,
            columns,
            new_columns: NewColumns::Ignore,
            key: Vec::new(),
            key_from: KeyFrom::Value,
            tombstones: Tombstones::Skip,
            metadata: Vec::new(),
        };
        assert!(decoder(&spec).is_ok(), "columns of a schema are columns of a table");
    }
});

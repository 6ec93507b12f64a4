//! What must hold for any bytes at all: no panic, no error that calls itself a bug, every message accounted for.
//!
//! The same functions run for seconds within the tests (`tests/fuzz.rs`) and for as long as one likes with libFuzzer (`make fuzz`).

use std::collections::VecDeque;
use std::fmt::Debug;
use std::path::Path;
use std::sync::Arc;

use alluvium::batch::Flow;
use alluvium::config::{Document, Format, KeyFrom, Reach, Tombstones};
use alluvium::error::Kind;
use alluvium::log::{Log, When};
use alluvium::position::Lane;
use alluvium::sources::decode::{self, DecodeSpec, Decoded, Headers, NewColumns, columns, decoder, discover};
use alluvium::sources::postgres::catalog::{Column, Identity, PgTable};
use alluvium::sources::postgres::changes::{Begin, Changes, Known, Reading, Transaction};
use alluvium::sources::postgres::copying::CopyReader;
use alluvium::sources::postgres::followed::{Followed, Metadata};
use alluvium::sources::postgres::learned::Learned;
use alluvium::sources::postgres::pgoutput::{self, Message};
use alluvium::sources::postgres::rows::{Event, Rows};
use alluvium::sources::postgres::types::{TypeRow, Types};
use alluvium::sources::postgres::values::Specials;
use alluvium::table::TableId;
use object_store::memory::InMemory;
use object_store::{ObjectStore, ObjectStoreExt};

/// Panics where bytes are not met as they must be.
pub type Body = fn(&[u8]);

/// The bodies, by the names of their targets and of their folders in `fuzz/seeds`.
pub const BODIES: [(&str, Body); 7] = [
    ("config", config),
    ("copy", copy),
    ("debezium", debezium),
    ("json", json),
    ("log", log),
    ("pgoutput", pgoutput),
    ("schema", schema),
];

/// Lines of bytes as messages of plain JSON.
pub fn json(bytes: &[u8]) {
    const SCHEMA: &str = r#"{"type":"object","required":["id"],"properties":{
        "id":{"type":"integer"},"i":{"type":"integer","format":"int32"},"f":{"type":"number","format":"float"},"d":{"type":"number"},
        "b":{"type":"boolean"},"s":{"type":"string"},"raw":{"type":"string","contentEncoding":"base64"},"any":{"format":"json"},
        "n":{"type":"string","format":"decimal","precision":38,"scale":4},"day":{"type":"string","format":"date"},
        "at":{"type":"string","format":"date-time"},"ms":{"type":"integer","format":"local-timestamp-millis"},
        "o":{"type":"object","properties":{"x":{"type":"integer"},"l":{"type":"array","items":{"type":"string"}}}},
        "m":{"type":"object","additionalProperties":{"type":"number"}}}}"#;
    let messages = messages(bytes);
    let columns = columns::from_json_schema(SCHEMA).expect("the schema is right");
    for (key, key_from) in [
        (vec![], KeyFrom::Value),
        (vec!["id".to_owned()], KeyFrom::Value),
        (vec!["s".to_owned()], KeyFrom::MessageKey),
    ] {
        let spec = DecodeSpec {
            format: Format::Json,
            columns: columns.clone(),
            new_columns: NewColumns::Ignore,
            key,
            key_from,
            tombstones: Tombstones::Keep,
            metadata: vec!["__key".to_owned(), "__timestamp".to_owned()],
            partition_by: vec!["__key".to_owned(), "__timestamp".to_owned()],
        };
        let mut decoder = decoder(&spec).expect("the spec is right");
        let decoded = decoder.decode(&messages).expect("nothing but rejects comes of bad messages");
        account(&decoded, messages.len());
    }
}

/// Lines of bytes as Debezium's events, for tables of both kinds; and as samples to find the columns in.
pub fn debezium(bytes: &[u8]) {
    const SCHEMA: &str = r#"{"type":"record","name":"rich","fields":[
        {"name":"id","type":"long"},{"name":"i2","type":["null","int"]},{"name":"f8","type":["null","double"]},
        {"name":"tx","type":["null","string"]},{"name":"by","type":["null","bytes"]},
        {"name":"n","type":["null",{"type":"bytes","logicalType":"decimal","precision":20,"scale":5}]},
        {"name":"nu","type":["null","string"],"encoding":"variable-scale"},{"name":"d","type":["null",{"type":"int","logicalType":"date"}]},
        {"name":"ts","type":["null",{"type":"long","logicalType":"local-timestamp-micros"}]},
        {"name":"ta","type":["null",{"type":"array","items":["null","string"]}]}]}"#;
    let messages = messages(bytes);
    let found = discover(Format::DebeziumJson, &messages).ok().flatten();
    let written = columns::from_avro(SCHEMA).expect("the schema is right");
    for (columns, new_columns) in std::iter::once((written, NewColumns::Ignore)).chain(found.map(|found| (found, NewColumns::Add))) {
        for key in [vec![], vec!["id".to_owned()]] {
            let spec = DecodeSpec {
                format: Format::DebeziumJson,
                columns: columns.clone(),
                new_columns,
                key,
                key_from: KeyFrom::Value,
                tombstones: Tombstones::Skip,
                metadata: ["__op", "__unchanged", "__lsn", "__ts_ms", "__deleted"].map(str::to_owned).to_vec(),
                partition_by: vec!["by".to_owned(), "d".to_owned(), "ts".to_owned()],
            };
            // Columns that were found need not have the key.
            let Ok(mut decoder) = decoder(&spec) else { continue };
            // A schema inside of the messages may not fit the table: that is an error of the data.
            match decoder.decode(&messages) {
                Ok(decoded) => account(&decoded, messages.len()),
                Err(error) => assert_ne!(error.kind, Kind::Bug, "{error}"),
            }
        }
    }
}

/// Text as a schema file. Columns that come out are such as a decoder can be made of.
pub fn schema(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    for columns in [columns::from_avro(text), columns::from_json_schema(text)].into_iter().flatten() {
        let spec = DecodeSpec {
            format: Format::Json,
            columns,
            new_columns: NewColumns::Ignore,
            key: Vec::new(),
            key_from: KeyFrom::Value,
            tombstones: Tombstones::Skip,
            metadata: Vec::new(),
            partition_by: Vec::new(),
        };
        if let Err(error) = decoder(&spec) {
            panic!("columns of a schema are columns of a table: {error}");
        }
    }
}

/// Text as a configuration: a configuration, or problems with their places, which can be shown.
pub fn config(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let document = Document::parse(Path::new("alluvium.toml"), text.to_owned(), Reach::All);
    if let Err(problems) = document.into_config() {
        assert!(!problems.to_string().is_empty());
    }
}

/// Bytes as what another program has written into a log: a commit behind a good one, and a hint.
pub fn log(bytes: &[u8]) {
    const FIRST: &str = concat!(
        r#"{"protocol":{"minReaderVersion":1,"minWriterVersion":2}}"#,
        "\n",
        r#"{"metaData":{"id":"5fba94ed-9794-4965-ba6e-6ee3c0d22af9","format":{"provider":"parquet","options":{}},"schemaString":"{\"type\":\"struct\",\"fields\":[{\"name\":\"id\",\"type\":\"long\",\"nullable\":true,\"metadata\":{}}]}","partitionColumns":[],"configuration":{},"createdTime":1}}"#,
    );
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let url = "memory://lake/t/".parse().expect("a URL");
    runtime.block_on(async {
        let put = async |name: &str, bytes: &[u8]| {
            let path = object_store::path::Path::from(format!("_delta_log/{name}"));
            store.put(&path, bytes.to_vec().into()).await.expect("memory takes it");
        };
        put("00000000000000000000.json", FIRST.as_bytes()).await;
        put("00000000000000000001.json", bytes).await;
        put("_last_checkpoint", bytes).await;
        match Log::open(&url, Arc::clone(&store), "p").await {
            Ok(log) => {
                let log = log.expect("there is a table");
                for when in [When::Version(0), When::Version(1), When::Time(1), When::Mark(log.checkpoint())] {
                    assert!(
                        log.at(when.clone()).await.map_or_else(|e| e.kind != Kind::Bug, |_| true),
                        "{when:?}"
                    );
                }
            }
            Err(error) => assert_ne!(error.kind, Kind::Bug, "{error}"),
        }
    });
}

/// The columns of a table of Postgres, by type and modifier.
const PG_COLUMNS: [(&str, u32, i32); 14] = [
    ("id", 23, -1),
    ("b", 16, -1),
    ("s", 25, -1),
    ("n", 1700, (12 << 16 | 4) + 4),
    ("f", 701, -1),
    ("d", 1082, -1),
    ("ts", 1184, -1),
    ("raw", 17, -1),
    ("ints", 1007, -1),
    ("j", 3802, -1),
    ("m", 1700, -1),
    ("iv", 1186, -1),
    ("u", 2950, -1),
    ("body", 25, -1),
];

fn pg_types() -> Types {
    Types::new([TypeRow {
        oid: 1007,
        name: "_int4".to_owned(),
        typtype: b'b',
        category: b'A',
        element: 23,
        delimiter: b',',
        base: 0,
        base_modifier: -1,
        range_of: 0,
        fields: Vec::new(),
    }])
}

/// The table as it stands, or its changes.
fn pg_table(id: &str, append: bool) -> Followed {
    let source = PgTable {
        relation: 1,
        oid: 16_384,
        schema: "public".to_owned(),
        name: "t".to_owned(),
        columns: PG_COLUMNS
            .iter()
            .map(|&(name, type_oid, type_modifier)| Column {
                name: name.to_owned(),
                number: 1,
                type_oid,
                type_modifier,
                has_default: false,
            })
            .collect(),
        identity: Identity::Default,
        primary_key: vec!["id".to_owned()],
        identity_index: Vec::new(),
        unique: Vec::new(),
        untold: Vec::new(),
    };
    let metadata = Metadata::ALL.iter().map(|(_, metadata)| *metadata).collect();
    let key = if append { Vec::new() } else { vec!["id".to_owned()] };
    Followed::new(TableId::new(id), &source, &pg_types(), &key, append, metadata).expect("the table can be followed")
}

/// Messages of pgoutput, each behind its length in two bytes: of transactions that a table takes, and another as changes.
pub fn pgoutput(bytes: &[u8]) {
    let tables = [("state", false), ("changes", true)].map(|(id, append)| Begin {
        followed: pg_table(id, append),
        held: 0,
        known: Known::default(),
    });
    let letters = TableId::new("letters");
    let (lane, pipeline) = (Lane::new("slot@1"), Arc::from("p"));
    let rejected = alluvium::reject::DeadLetters::new(&pipeline, &Default::default());
    let reading = Reading {
        types: pg_types(),
        binary: true,
        specials: Specials::Reject,
        learned: Learned::default(),
    };
    let mut changes = Changes::new(lane, tables.to_vec(), reading, rejected, letters);
    let (mut of, mut in_stream, mut rest, mut ready) = (Transaction::default(), false, bytes, VecDeque::new());
    while let Some((length, behind)) = rest.split_first_chunk() {
        let (message, behind) = behind.split_at(behind.len().min(usize::from(u16::from_be_bytes(*length))));
        rest = behind;
        let (message, xid) = match pgoutput::message(message, in_stream) {
            Ok(read) => read,
            Err(malformed) => {
                assert!(!malformed.to_string().is_empty());
                continue;
            }
        };
        match &message {
            Message::Insert { new, .. } | Message::Update { new, .. } => assert_eq!(new.cells().count(), new.len()),
            Message::Delete { old, .. } => assert_eq!(old.tuple().cells().count(), old.tuple().len()),
            _ => {}
        }
        match message {
            Message::Begin { final_lsn, time, xid } => {
                of = Transaction {
                    commit_lsn: final_lsn,
                    xid,
                    time,
                };
            }
            Message::StreamStart { .. } => in_stream = true,
            Message::StreamStop => in_stream = false,
            Message::Commit { .. } | Message::StreamCommit { .. } | Message::StreamAbort { .. } => {
                changes.drain(&mut ready).expect("rows fit their columns");
            }
            _ => {
                of.xid = xid.unwrap_or(of.xid);
                // A stream ends with the first error.
                if changes.take(&message, &of, of.commit_lsn).is_err() {
                    break;
                }
            }
        }
    }
    changes.drain(&mut ready).expect("rows fit their columns");
    for flow in ready {
        let Flow::Rows(batch) = flow else {
            panic!("only rows come of changes")
        };
        assert_eq!(batch.ops.len(), batch.rows.num_rows());
        let cells = batch.unchanged.iter().flat_map(|unchanged| unchanged.0.values());
        cells.for_each(|cells| assert_eq!(cells.len(), batch.rows.num_rows()));
    }
}

/// What COPY sends in its binary form. The first byte says where it is cut in two: the rows are the same as of the whole.
pub fn copy(bytes: &[u8]) {
    let Some((&cut, bytes)) = bytes.split_first() else { return };
    let (first, second) = bytes.split_at(usize::from(cut).min(bytes.len()));
    assert_eq!(copied(&[first, second]), copied(&[bytes]));
}

/// The rows of a COPY that came in these parts, and how many could not be read; and whether it ended well.
fn copied(parts: &[&[u8]]) -> impl PartialEq + Debug + use<> {
    let (followed, mut reader, mut bad) = (pg_table("t", false), CopyReader::default(), 0);
    let mut rows = Rows::new(&followed, Specials::Reject);
    let event = Event {
        op: "r",
        lsn: 1,
        xid: None,
        committed_ms: None,
    };
    let ended = parts.iter().try_for_each(|part| {
        reader.take(part, followed.columns.len(), |values| {
            bad += usize::from(rows.append_copied(&followed, values, &event).is_err());
        })
    });
    let batch = rows.take(&followed).expect("rows fit their columns");
    let rows = batch.map(|batch| {
        assert_eq!(batch.ops.len(), batch.rows.num_rows());
        batch.rows
    });
    (rows, bad, ended.map(|()| reader.is_at_its_end()))
}

fn account(decoded: &Decoded, messages: usize) {
    assert_eq!(
        decoded.written() + decoded.rejects.len() + decoded.tombstones + decoded.filtered,
        messages
    );
    assert_eq!(decoded.ops.len(), decoded.rows.num_rows());
    assert_eq!(decoded.origins.len(), decoded.rows.num_rows());
}

fn messages(bytes: &[u8]) -> Vec<decode::Message<'_>> {
    bytes.split(|byte| *byte == b'\n').map(message).collect()
}

/// A line is a value, or a key and a value with a tab between.
fn message(line: &[u8]) -> decode::Message<'_> {
    let mut parts = line.splitn(2, |byte| *byte == b'\t');
    let (first, second) = (parts.next(), parts.next());
    let (key, value) = if second.is_some() { (first, second) } else { (None, first) };
    decode::Message {
        topic: "t",
        partition: 0,
        offset: 0,
        timestamp_ms: Some(line.len() as i64),
        key,
        value: value.filter(|value| !value.is_empty()),
        headers: Headers(None),
    }
}

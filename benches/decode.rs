//! How fast messages become columns: rows and bytes per second of one core's CPU time, beside arrow-json's own reader.
//!
//! `cargo bench --bench decode`, or `… -- envelope` for those whose name has the word. Runs of 8,192 messages, as the Kafka source hands them over; the same input in every round. CPU time
//! rather than the clock, so that a busy machine says the same.

use std::sync::Arc;

use alluvium::config::{Format, KeyFrom, Tombstones};
use alluvium::sources::decode::{DecodeSpec, Headers, Message, NewColumns, decoder};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};

const RUN: usize = 8192;
const ROUNDS: usize = 60;

fn main() {
    println!("{:<44} {:>12} {:>10} {:>8}", "messages", "rows/s", "MB/s", "bytes");
    let order = texts(order);
    report("order, 200 bytes, JSON", &order, |runs| {
        decode(&spec(Format::Json, order_columns()), runs)
    });
    report("order, 200 bytes, arrow-json (not strict)", &order, |runs| {
        arrow_json(order_columns(), runs)
    });
    let flat = order.clone();
    report("order, 200 bytes, flattened Debezium", &flat, |runs| {
        decode(&spec(Format::DebeziumJson, order_columns()), runs)
    });
    let events = texts(event);
    report("order, Debezium's envelope", &events, |runs| {
        decode(&spec(Format::DebeziumJson, order_columns()), runs)
    });
    let events = texts(event_with_schema);
    report("order, Debezium's envelope with schema", &events, |runs| {
        decode(&spec(Format::DebeziumJson, order_columns()), runs)
    });
    let wide = texts(wide);
    report("60 columns, JSON", &wide, |runs| decode(&spec(Format::Json, wide_columns()), runs));
    report("60 columns, arrow-json (not strict)", &wide, |runs| {
        arrow_json(wide_columns(), runs)
    });
}

/// Debezium's event for an order: an update without its old row, as PostgreSQL's default replica identity has it.
fn event(index: usize) -> String {
    let source = format!(
        r#"{{"version":"3.7.0.Final","connector":"postgresql","name":"shop","ts_ms":1795428706318,"snapshot":"false","db":"shop","sequence":"[\"190536672\",\"190536800\"]","ts_us":1795428706318440,"ts_ns":1795428706318440000,"schema":"public","table":"orders","txId":{index},"lsn":{},"xmin":null}}"#,
        190_536_672 + index
    );
    format!(
        r#"{{"before":null,"after":{},"source":{source},"transaction":null,"op":"u","ts_ms":1795428706846,"ts_us":1795428706846610,"ts_ns":1795428706846610995}}"#,
        order(index)
    )
}

/// The same with its schema in front, as the JSON converter writes it by default.
fn event_with_schema(index: usize) -> String {
    let field = |name: &str, kind: &str| format!(r#"{{"type":"{kind}","optional":true,"field":"{name}"}}"#);
    let zoned = r#"{"type":"string","optional":true,"name":"io.debezium.time.ZonedTimestamp","version":1,"field":"ts"}"#.to_owned();
    let row = [
        field("id", "int64"),
        field("customer", "string"),
        field("amount", "double"),
        field("status", "string"),
        zoned,
        field("note", "string"),
    ];
    let row = |member: &str| {
        format!(
            r#"{{"type":"struct","fields":[{}],"optional":true,"name":"shop.Value","field":"{member}"}}"#,
            row.join(",")
        )
    };
    let source: Vec<String> = ["version", "connector", "name", "db", "sequence", "schema", "table"]
        .map(|name| field(name, "string"))
        .to_vec();
    let source = format!(
        r#"{{"type":"struct","fields":[{}],"optional":false,"name":"io.debezium.connector.postgresql.Source","field":"source"}}"#,
        source.join(",")
    );
    let fields = [row("before"), row("after"), source, field("op", "string"), field("ts_ms", "int64")].join(",");
    format!(
        r#"{{"schema":{{"type":"struct","fields":[{fields}],"optional":false,"name":"shop.Envelope","version":2}},"payload":{}}}"#,
        event(index)
    )
}

fn spec(format: Format, columns: SchemaRef) -> DecodeSpec {
    DecodeSpec {
        format,
        columns,
        new_columns: NewColumns::Ignore,
        key: vec!["id".to_owned()],
        key_from: KeyFrom::Value,
        tombstones: Tombstones::Skip,
        metadata: Vec::new(),
        partition_by: Vec::new(),
    }
}

fn texts(text: impl Fn(usize) -> String) -> Vec<String> {
    (0..RUN).map(text).collect()
}

fn decode(spec: &DecodeSpec, texts: &[String]) -> usize {
    let mut decoder = decoder(spec).expect("the spec is right");
    let messages: Vec<Message<'_>> = texts.iter().map(|text| message(text)).collect();
    let mut rows = 0;
    for _ in 0..ROUNDS {
        // The source looks for schemas that are new: a run of its own begins with each.
        std::hint::black_box(messages.iter().filter(|message| decoder.is_new(message)).count());
        let decoded = decoder.decode(&messages).expect("the messages are of the columns");
        assert_eq!(decoded.rejects, []);
        rows += decoded.rows.num_rows();
    }
    rows
}

fn arrow_json(columns: SchemaRef, texts: &[String]) -> usize {
    let mut decoder = arrow_json::ReaderBuilder::new(columns)
        .with_batch_size(RUN)
        .build_decoder()
        .expect("the schema is right");
    let mut rows = 0;
    for _ in 0..ROUNDS {
        for text in texts {
            decoder.decode(text.as_bytes()).expect("the messages are JSON");
        }
        rows += decoder
            .flush()
            .expect("the messages are of the columns")
            .map_or(0, |batch| batch.num_rows());
    }
    rows
}

fn message(text: &str) -> Message<'_> {
    Message {
        topic: "orders",
        partition: 0,
        offset: 0,
        timestamp_ms: None,
        key: None,
        value: Some(text.as_bytes()),
        headers: Headers(None),
    }
}

fn report(name: &str, texts: &[String], decode: impl Fn(&[String]) -> usize) {
    if std::env::args()
        .skip(1)
        .any(|word| !word.starts_with("--") && !name.contains(&word))
    {
        return;
    }
    decode(texts); // Warm: the buffers have their size, the names their order.
    let bytes = texts.iter().map(String::len).sum::<usize>() / texts.len();
    let start = cpu_seconds();
    let rows = decode(texts);
    let rate = rows as f64 / (cpu_seconds() - start);
    println!("{name:<44} {rate:>12.0} {:>10.0} {bytes:>8}", rate * bytes as f64 / 1e6);
}

fn cpu_seconds() -> f64 {
    // SAFETY: getrusage fills the struct that it is given.
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        libc::getrusage(libc::RUSAGE_SELF, &mut usage);
        usage
    };
    let seconds = |time: libc::timeval| time.tv_sec as f64 + time.tv_usec as f64 / 1e6;
    seconds(usage.ru_utime) + seconds(usage.ru_stime)
}

/// The record that the project's other figures are about.
fn order(index: usize) -> String {
    format!(
        r#"{{"id":{index},"customer":"customer-{:06}","amount":{}.{:02},"status":"shipped","ts":"2026-11-{:02}T10:{:02}:54.040279Z","note":"{}"}}"#,
        index * 7919 % 1_000_000,
        index % 5000,
        index % 100,
        index % 28 + 1,
        index % 60,
        "the quick brown fox jumps over the lazy dog, and then again: over it"
    )
}

fn order_columns() -> SchemaRef {
    let utc = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    columns([
        ("id", DataType::Int64),
        ("customer", DataType::Utf8),
        ("amount", DataType::Float64),
        ("status", DataType::Utf8),
        ("ts", utc),
        ("note", DataType::Utf8),
    ])
}

fn wide(index: usize) -> String {
    let mut text = format!(r#"{{"id":{index}"#);
    for column in 0..59 {
        text += &match column % 4 {
            0 => format!(r#","c{column}":{}"#, index * 31 + column),
            1 => format!(r#","c{column}":"value {}""#, index % 977 + column),
            2 => format!(r#","c{column}":{}.{}"#, index % 1000, column),
            _ => format!(r#","c{column}":{}"#, if index.is_multiple_of(3) { "null" } else { "true" }),
        };
    }
    text + "}"
}

fn wide_columns() -> SchemaRef {
    let mut fields = vec![Field::new("id", DataType::Int64, true)];
    let kinds = [DataType::Int64, DataType::Utf8, DataType::Float64, DataType::Boolean];
    fields.extend((0..59).map(|column| Field::new(format!("c{column}"), kinds[column % 4].clone(), true)));
    Arc::new(Schema::new(fields))
}

fn columns<const N: usize>(columns: [(&str, DataType); N]) -> SchemaRef {
    Arc::new(Schema::new(columns.map(|(name, kind)| Field::new(name, kind, true)).to_vec()))
}

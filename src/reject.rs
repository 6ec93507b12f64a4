//! Records that cannot be read, and the table that keeps them.
//!
//! A reject becomes a row of the pipeline's dead-letter table, which is one more append-only table of the flow. It is committed
//! before the data, so a mark never passes a record that is nowhere.

pub mod delivered;

use std::sync::Arc;

use arrow::array::{ArrayRef, BinaryBuilder, Int32Builder, Int64Builder, RecordBatch, StringBuilder, TimestampMicrosecondBuilder};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use metrics::counter;
use serde_json::{Value, json};

use self::delivered::Delivered;
use crate::error::{Error, Result};
use crate::position::Lane;
use crate::telemetry;

/// Longest key or value kept in a dead letter; more is cut, and `key_bytes` and `value_bytes` tell the true sizes.
pub const PAYLOAD_BYTES_MAX: usize = 64 << 10; // Enough to see what is wrong, small enough that a bad topic does not fill a disk.

/// Why a message could not become a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reject {
    /// Which of the messages handed to the decoder.
    pub index: usize,
    /// "decode", "key", "value" …: where it failed.
    pub stage: &'static str,
    /// A word of a small fixed set, for `dead_letters_total{reason}`: "malformed", "missing_key", "type_mismatch" …
    pub code: &'static str,
    /// What is wrong, for a person; names the column, never prints the value.
    pub message: String,
}

/// What tells a record from the others for the same table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Its position, which no other has.
    Position,
    /// Its number among those of the position: a transaction of Postgres.
    Ordinal(u64),
    /// Of a copy, which is taken at another position each time: what it holds (a hash), and its number among those that hold the same.
    Content { hash: u128, number: u64 },
}

/// One record that could not be read, with its coordinates.
#[derive(Clone, Debug)]
pub struct DeadLetter<'a> {
    pub lane: &'a Lane,
    pub position: u64,
    pub place: Place,
    pub table: &'a str,
    /// Like the value, as the record has it; of a row of a database, its columns as JSON.
    pub key: Option<&'a [u8]>,
    pub value: Option<&'a [u8]>,
    /// Names and values as JSON: a list of `[name, value]`, where a value is a text, null, or `{"hex": "00ff"}` for bytes that are no text.
    pub headers: Option<String>,
    pub timestamp_us: Option<i64>,
    pub schema_id: Option<i32>,
    pub reject: &'a Reject,
}

impl DeadLetter<'_> {
    /// What tells it from all other letters: a record is one of each table that it feeds. The lane is written with its incarnation: offsets
    /// of a topic that was made anew mean other records.
    fn id(&self) -> String {
        let (table, lane, position) = (self.table, self.lane.as_str(), self.position);
        match self.place {
            Place::Position => format!("{table}/{lane}/{position}"),
            Place::Ordinal(ordinal) => format!("{table}/{lane}/{position}/{ordinal}"),
            Place::Content { hash, number } => format!("{}{hash:032x}/{number}", of_copies(table, self.lane)),
        }
    }
}

/// How the ids of letters begin that copies of a table have made.
pub fn of_copies(table: &str, lane: &Lane) -> String {
    format!("{table}/{}/copy/", lane.as_str())
}

/// The columns of the dead-letter table.
pub fn dead_letter_schema() -> SchemaRef {
    let utc = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    let column = |name: &str, kind: DataType, nullable: bool| Field::new(name, kind, nullable);
    Arc::new(Schema::new(vec![
        // table/topic/partition@topic_id/offset, table/slot@system/commit_lsn/ordinal, or table/slot@system/copy/hash/number: the same at
        // every reading
        column("id", DataType::Utf8, false),
        column("lane", DataType::Utf8, false),
        column("position", DataType::Int64, false),
        column("table", DataType::Utf8, false),
        column("stage", DataType::Utf8, false),
        column("code", DataType::Utf8, false),
        column("message", DataType::Utf8, false),
        column("key", DataType::Binary, true),
        column("key_bytes", DataType::Int64, true),
        column("value", DataType::Binary, true),
        column("value_bytes", DataType::Int64, true),
        column("headers", DataType::Utf8, true),
        column("timestamp", utc.clone(), true),
        column("schema_id", DataType::Int32, true),
        column("pipeline", DataType::Utf8, false),
        column("program", DataType::Utf8, false),
        column("rejected_at", utc, false),
    ]))
}

/// Bytes in the JSON of a letter: the text that they are, or an object, `{"hex": "00ff"}`, which no text looks like.
pub fn text_or_hex(bytes: &[u8]) -> Value {
    std::str::from_utf8(bytes).map_or_else(|_| hex(bytes), Value::from)
}

/// Bytes that are no text.
pub fn hex(bytes: &[u8]) -> Value {
    json!({ "hex": bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>() })
}

/// Collects dead letters as columns, each that is not in its table yet.
#[derive(Debug)]
pub struct DeadLetters {
    pipeline: Arc<str>,
    delivered: Arc<Delivered>,
    text: [StringBuilder; 6], // id, lane, table, stage, code, message
    position: Int64Builder,
    key: BinaryBuilder,
    key_bytes: Int64Builder,
    value: BinaryBuilder,
    value_bytes: Int64Builder,
    headers: StringBuilder,
    timestamp: TimestampMicrosecondBuilder,
    schema_id: Int32Builder,
}

impl DeadLetters {
    pub fn new(pipeline: &Arc<str>, delivered: &Arc<Delivered>) -> Self {
        Self {
            pipeline: Arc::clone(pipeline),
            delivered: Arc::clone(delivered),
            text: Default::default(),
            position: Int64Builder::new(),
            key: BinaryBuilder::new(),
            key_bytes: Int64Builder::new(),
            value: BinaryBuilder::new(),
            value_bytes: Int64Builder::new(),
            headers: StringBuilder::new(),
            timestamp: TimestampMicrosecondBuilder::new(),
            schema_id: Int32Builder::new(),
        }
    }

    pub fn len(&self) -> usize {
        use arrow::array::ArrayBuilder;
        self.position.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What they weigh in memory, about.
    pub fn bytes(&self) -> usize {
        let texts: usize = self.text.iter().map(|text| text.values_slice().len()).sum();
        texts + self.key.values_slice().len() + self.value.values_slice().len()
    }

    /// Takes a letter, unless it has been delivered.
    pub fn push(&mut self, letter: &DeadLetter<'_>) {
        let id = letter.id();
        if self.delivered.has(&id) {
            return;
        }
        let reject = letter.reject;
        let texts = [
            id.as_str(),
            letter.lane.name(),
            letter.table,
            reject.stage,
            reject.code,
            reject.message.as_str(),
        ];
        for (builder, text) in self.text.iter_mut().zip(texts) {
            builder.append_value(text);
        }
        let cut = |bytes: &[u8]| bytes[..bytes.len().min(PAYLOAD_BYTES_MAX)].to_vec();
        let size = |bytes: &[u8]| bytes.len() as i64;
        self.position.append_value(letter.position as i64);
        self.key.append_option(letter.key.map(cut));
        self.key_bytes.append_option(letter.key.map(size));
        self.value.append_option(letter.value.map(cut));
        self.value_bytes.append_option(letter.value.map(size));
        self.headers.append_option(letter.headers.as_deref());
        self.timestamp.append_option(letter.timestamp_us);
        self.schema_id.append_option(letter.schema_id);
    }

    /// The rows collected so far, which are counted, or None when there are none. `now_us`: microseconds since 1970.
    pub fn take(&mut self, now_us: i64) -> Result<Option<RecordBatch>> {
        let rows = self.len();
        if rows == 0 {
            return Ok(None);
        }
        let [id, lane, table, stage, code, message] = &mut self.text;
        let (table, code) = (table.finish(), code.finish());
        for (table, reason) in table.iter().flatten().zip(code.iter().flatten()) {
            let (pipeline, table, reason) = (self.pipeline.to_string(), table.to_owned(), reason.to_owned());
            counter!(telemetry::DEAD_LETTERS, "pipeline" => pipeline, "table" => table, "reason" => reason).increment(1);
        }
        let same = |text: &str| -> ArrayRef { Arc::new(arrow::array::StringArray::from_iter_values(std::iter::repeat_n(text, rows))) };
        let now = arrow::array::TimestampMicrosecondArray::from_value(now_us, rows).with_timezone("UTC");
        let columns: Vec<ArrayRef> = vec![
            Arc::new(id.finish()),
            Arc::new(lane.finish()),
            Arc::new(self.position.finish()),
            Arc::new(table),
            Arc::new(stage.finish()),
            Arc::new(code),
            Arc::new(message.finish()),
            Arc::new(self.key.finish()),
            Arc::new(self.key_bytes.finish()),
            Arc::new(self.value.finish()),
            Arc::new(self.value_bytes.finish()),
            Arc::new(self.headers.finish()),
            Arc::new(self.timestamp.finish().with_timezone("UTC")),
            Arc::new(self.schema_id.finish()),
            same(&self.pipeline),
            same(concat!("alluvium/", env!("CARGO_PKG_VERSION"))),
            Arc::new(now),
        ];
        let batch = RecordBatch::try_new(dead_letter_schema(), columns);
        batch
            .map(Some)
            .map_err(|e| Error::bug("dead letters do not fit their schema").because(e))
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::AsArray;
    use arrow::datatypes::Int64Type;

    use super::*;

    #[test]
    fn a_bad_record_is_one_letter_for_each_of_its_tables_and_says_how_long_it_was() {
        let lane = Lane::kafka("orders", 0, Some("A"));
        let reject = Reject {
            index: 0,
            stage: "decode",
            code: "malformed",
            message: "no JSON".to_owned(),
        };
        let value = vec![b'x'; PAYLOAD_BYTES_MAX + 1];
        let mut delivered = Delivered::default();
        delivered.insert("first/orders/0@A/7");
        let mut letters = DeadLetters::new(&"shop".into(), &Arc::new(delivered));
        for (table, position) in [("first", 7), ("second", 7), ("first", 8)] {
            letters.push(&DeadLetter {
                lane: &lane,
                position,
                place: Place::Position,
                table,
                key: Some(b"k"),
                value: Some(&value),
                headers: None,
                timestamp_us: None,
                schema_id: None,
                reject: &reject,
            });
        }
        let rows = letters.take(0).unwrap().unwrap();
        let column = |name: &str| rows.column_by_name(name).unwrap();
        let ids: Vec<_> = column("id").as_string::<i32>().iter().flatten().collect();
        assert_eq!(ids, ["second/orders/0@A/7", "first/orders/0@A/8"], "the first was there already");
        let numbers = |name: &str| column(name).as_primitive::<Int64Type>().values().to_vec();
        assert_eq!(column("value").as_binary::<i32>().value(0).len(), PAYLOAD_BYTES_MAX);
        assert_eq!(numbers("value_bytes"), [value.len() as i64; 2]);
        assert_eq!(numbers("key_bytes"), [1, 1]);
    }
}

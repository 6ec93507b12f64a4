//! Columns beside the record's own: where it came from, and what happened to it. Their names are those that Debezium gives them.
//!
//! | name | type | what |
//! |---|---|---|
//! | `__topic`, `__partition`, `__offset` | string, int, long | where the message stands |
//! | `__timestamp` | timestamp | the message's time, null where it has none |
//! | `__key` | binary | the message's key as it is |
//! | `__headers` | array of (key string, value binary) | in their order, repeated names included |
//! | `__deleted` | boolean | whether the event deletes its row, or the message has no value |
//!
//! Of Debezium's events only:
//!
//! | name | type | what |
//! |---|---|---|
//! | `__op` | string | c, u, d, r (read by a snapshot) or t (truncate) |
//! | `__unchanged` | array of string | columns that the event does not bring, because they are large and did not change |
//! | `__ts_ms` | long | when the connector saw the change, in milliseconds since 1970 |
//! | `__source_ts_ms` | long | when the database made it |
//! | `__lsn`, `__txId` | long | of PostgreSQL |
//! | `__sequence`, `__db`, `__schema`, `__table`, `__snapshot` | string | as they stand in `source` |

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryBuilder, BooleanBuilder, Int32Builder, Int64Builder, ListBuilder, StringBuilder, StructBuilder,
    TimestampMicrosecondBuilder,
};
use arrow::datatypes::{DataType, Field, FieldRef, Fields, TimeUnit};

use super::Message;
use super::encoding::Encoding;
use super::fault::{Fault, Read};
use super::partition;
use crate::config::Format;
use crate::error::{Error, Result};

/// Columns that are read out of Debezium's event: (column, member of `source` or of the event itself).
pub(super) const FROM_SOURCE: [(&str, &str, DataType); 8] = [
    ("__db", "db", DataType::Utf8),
    ("__schema", "schema", DataType::Utf8),
    ("__table", "table", DataType::Utf8),
    ("__txId", "txId", DataType::Int64),
    ("__lsn", "lsn", DataType::Int64),
    ("__sequence", "sequence", DataType::Utf8),
    ("__snapshot", "snapshot", DataType::Utf8),
    ("__source_ts_ms", "ts_ms", DataType::Int64),
];
pub(super) const OP: &str = "__op";
pub(super) const TS_MS: &str = "__ts_ms";
pub(super) const UNCHANGED: &str = "__unchanged";
pub(super) const DELETED: &str = "__deleted";

/// The fields of the metadata columns that a table asks for, in its order.
pub fn fields(names: &[String], format: Format) -> Result<Vec<FieldRef>> {
    names.iter().map(|name| field(name, format)).collect()
}

/// A table without a key gets deletes of Debezium as rows: one of its metadata columns has to say so.
pub fn must_tell_deletes(names: &[String], format: Format, key: &[String]) -> Result<()> {
    if format != Format::DebeziumJson || !key.is_empty() || names.iter().any(|name| name == OP || name == DELETED) {
        return Ok(());
    }
    let what = "a table without a key gets deletes of Debezium as rows: add `__op` or `__deleted` to its `metadata`, or nobody can tell them from the others";
    Err(Error::config("metadata", what))
}

fn field(name: &str, format: Format) -> Result<FieldRef> {
    let from_message = match name {
        "__topic" => Some((DataType::Utf8, false)),
        "__partition" => Some((DataType::Int32, false)),
        "__offset" => Some((DataType::Int64, false)),
        "__timestamp" => Some((DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())), true)),
        "__key" => Some((DataType::Binary, true)),
        "__headers" => Some((DataType::List(header_item()), true)),
        DELETED => Some((DataType::Boolean, false)),
        _ => None,
    };
    let from_event = match name {
        OP => Some(DataType::Utf8),
        TS_MS => Some(DataType::Int64),
        UNCHANGED => Some(DataType::List(text_item())),
        _ => FROM_SOURCE
            .iter()
            .find(|(column, ..)| *column == name)
            .map(|(_, _, kind)| kind.clone()),
    };
    match (from_message, from_event) {
        (Some((kind, nullable)), _) => Ok(Arc::new(Field::new(name, kind, nullable))),
        (None, Some(kind)) if format == Format::DebeziumJson => Ok(Arc::new(Field::new(name, kind, true))),
        (None, Some(_)) => Err(Error::config(
            "metadata",
            format!("metadata column `{name}` exists only in events of Debezium: take it out, or set format = \"debezium-json\""),
        )),
        (None, None) => {
            let source = FROM_SOURCE.iter().map(|(column, ..)| *column);
            let all = [
                "__topic",
                "__partition",
                "__offset",
                "__timestamp",
                "__key",
                "__headers",
                DELETED,
                OP,
                TS_MS,
                UNCHANGED,
            ];
            let known: Vec<&str> = all.into_iter().chain(source).collect();
            Err(Error::config(
                "metadata",
                format!("there is no metadata column `{name}`; there are {}", known.join(", ")),
            ))
        }
    }
}

/// Columns that are read out of the event beside the record: always the two that flattened rows tell a delete by, and those that the
/// table asks for. With the members of `source` among them, by their place behind `first`.
pub(super) fn beside_record(asked: &[String], first: usize) -> (Vec<FieldRef>, Vec<(&'static str, usize)>) {
    let text = |name: &str| Field::new(name, DataType::Utf8, true);
    // Whatever stands there is judged: a source may have a column of its own that is called so.
    let deleted = Encoding::Json.mark(text(DELETED));
    let mut extra = vec![Arc::new(text(OP)), Arc::new(deleted)];
    let mut source = Vec::new();
    for name in asked {
        if name == TS_MS {
            extra.push(Arc::new(Field::new(name, DataType::Int64, true)));
        }
        if let Some((column, member, kind)) = FROM_SOURCE.iter().find(|(column, ..)| column == name) {
            source.push((*member, first + extra.len()));
            extra.push(Arc::new(Field::new(*column, kind.clone(), true)));
        }
    }
    (extra, source)
}

fn text_item() -> FieldRef {
    Arc::new(Field::new("element", DataType::Utf8, false))
}

fn header_item() -> FieldRef {
    Arc::new(Field::new("element", DataType::Struct(header_pair()), false))
}

fn header_pair() -> Fields {
    Fields::from(vec![
        Field::new("key", DataType::Utf8, false),
        Field::new("value", DataType::Binary, true),
    ])
}

/// The metadata columns that do not stand in the message's value.
#[derive(Debug, Default)]
pub(super) struct Metadata {
    columns: Vec<(String, Builder)>,
    /// Whether the table is partitioned by the message's time or key.
    by_time: bool,
    by_key: bool,
}

#[derive(Debug)]
enum Builder {
    Topic(StringBuilder),
    Partition(Int32Builder),
    Offset(Int64Builder),
    Timestamp(TimestampMicrosecondBuilder),
    Key(BinaryBuilder),
    Headers(ListBuilder<StructBuilder>),
    Deleted(BooleanBuilder),
    Unchanged(ListBuilder<StringBuilder>),
}

impl Metadata {
    /// Of these names, those that are this file's to fill.
    pub fn new(names: &[String], partition_by: &[String]) -> Self {
        let builder = |name: &str| {
            Some(match name {
                "__topic" => Builder::Topic(StringBuilder::new()),
                "__partition" => Builder::Partition(Int32Builder::new()),
                "__offset" => Builder::Offset(Int64Builder::new()),
                "__timestamp" => Builder::Timestamp(TimestampMicrosecondBuilder::new()),
                "__key" => Builder::Key(BinaryBuilder::new()),
                "__headers" => Builder::Headers(header_builder()),
                DELETED => Builder::Deleted(BooleanBuilder::new()),
                UNCHANGED => Builder::Unchanged(ListBuilder::new(StringBuilder::new()).with_field(text_item())),
                _ => return None,
            })
        };
        let by = |name: &str| partition_by.iter().any(|column| column == name);
        Self {
            columns: names.iter().filter_map(|name| Some((name.clone(), builder(name)?))).collect(),
            by_time: by("__timestamp"),
            by_key: by("__key"),
        }
    }

    /// Whether the message's own data fit these columns: to be asked before `push`.
    #[inline]
    pub fn check(&self, message: &Message<'_>) -> Read {
        let asked = self.columns.iter().any(|(_, builder)| matches!(builder, Builder::Timestamp(_)));
        if let Some(key) = message.key.filter(|_| self.by_key) {
            partition::check_bytes(key).map_err(|fault| fault.within("__key"))?;
        }
        match timestamp_us(message) {
            None if asked => Err(Fault::range("the message's time does not fit into 64 bits of microseconds").within("__timestamp")),
            Some(Some(time_us)) if self.by_time => partition::check_time(time_us).map_err(|fault| fault.within("__timestamp")),
            _ => Ok(()),
        }
    }

    /// Appends a row. `unchanged`: names of columns that the event did not bring.
    #[inline]
    pub fn push<'a>(&mut self, message: &Message<'_>, deleted: bool, unchanged: impl Iterator<Item = &'a str> + Clone) {
        for (_, builder) in &mut self.columns {
            match builder {
                Builder::Topic(cells) => cells.append_value(message.topic),
                Builder::Partition(cells) => cells.append_value(message.partition),
                Builder::Offset(cells) => cells.append_value(message.offset),
                Builder::Timestamp(cells) => cells.append_option(timestamp_us(message).flatten()),
                Builder::Key(cells) => cells.append_option(message.key),
                Builder::Headers(cells) => append_headers(cells, message),
                Builder::Deleted(cells) => cells.append_value(deleted),
                Builder::Unchanged(cells) => {
                    unchanged.clone().for_each(|name| cells.values().append_value(name));
                    cells.append(true);
                }
            }
        }
    }

    /// The columns by name; all is empty then.
    pub fn finish(&mut self) -> Vec<(&str, ArrayRef)> {
        let finish = |builder: &mut Builder| -> ArrayRef {
            match builder {
                Builder::Topic(cells) => Arc::new(cells.finish()),
                Builder::Partition(cells) => Arc::new(cells.finish()),
                Builder::Offset(cells) => Arc::new(cells.finish()),
                Builder::Timestamp(cells) => Arc::new(cells.finish().with_timezone("UTC")),
                Builder::Key(cells) => Arc::new(cells.finish()),
                Builder::Headers(cells) => Arc::new(cells.finish()),
                Builder::Deleted(cells) => Arc::new(cells.finish()),
                Builder::Unchanged(cells) => Arc::new(cells.finish()),
            }
        };
        self.columns
            .iter_mut()
            .map(|(name, builder)| (name.as_str(), finish(builder)))
            .collect()
    }
}

/// The message's time, if it has one; None if it has one that does not fit.
fn timestamp_us(message: &Message<'_>) -> Option<Option<i64>> {
    match message.timestamp_ms {
        // Kafka writes -1 where there is no time.
        None | Some(-1) => Some(None),
        Some(ms) => ms.checked_mul(1000).map(Some),
    }
}

fn header_builder() -> ListBuilder<StructBuilder> {
    let pairs = StructBuilder::new(header_pair(), vec![Box::new(StringBuilder::new()), Box::new(BinaryBuilder::new())]);
    ListBuilder::new(pairs).with_field(header_item())
}

fn append_headers(cells: &mut ListBuilder<StructBuilder>, message: &Message<'_>) {
    if let Some(headers) = message.headers.0 {
        for index in 0..headers.count() {
            let (name, value) = headers.header(index);
            let pair = cells.values();
            if let Some(names) = pair.field_builder::<StringBuilder>(0) {
                names.append_value(name);
            }
            if let Some(values) = pair.field_builder::<BinaryBuilder>(1) {
                values.append_option(value);
            }
            pair.append(true);
        }
    }
    cells.append(true);
}

//! Decoders: messages in, Arrow columns out. Pure, sync, fuzzed.
//!
//! ```text
//! message ─► scanner (strict JSON) ─► rows ─► columns ─► RecordBatch
//!               └ names: which column       └ or taken back: a reject with the column's name
//! ```
//! A message that cannot be read leaves no trace in the columns, so exactly the bad ones become rejects, and nothing is decoded twice.

mod adopt;
mod column;
pub mod columns;
mod debezium;
mod decimal;
mod encoding;
mod event;
mod fault;
mod json;
mod key_writers;
mod marks;
pub mod metadata;
mod names;
mod partition;
mod placeholder;
mod read;
mod rows;
mod scanner;
mod text;
mod time;
mod widen;
mod wrapper;
mod writer;

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{Field, FieldRef, Schema, SchemaRef};

use self::fault::{Fault, Read};
use crate::batch::{Op, Unchanged};
use crate::config::{Format, KeyFrom, Tombstones};
use crate::error::{Error, Result};
use crate::reject::Reject;

/// All that decides how messages become rows. Tables with equal specs can share a decoder, and each message is read once.
#[derive(Clone, Debug, PartialEq)]
pub struct DecodeSpec {
    pub format: Format,
    /// The record's columns as a schema file or [`discover`] gave them: with metadata of alluvium's own, which the table does not have.
    pub columns: SchemaRef,
    /// What to do about columns that the schema inside of the messages has and `columns` has not.
    pub new_columns: NewColumns,
    /// Key columns. Without them every change is a row; with them a row is put or deleted.
    pub key: Vec<String>,
    pub key_from: KeyFrom,
    pub tombstones: Tombstones,
    /// Names of metadata columns; they follow the record's columns.
    pub metadata: Vec<String>,
    /// Columns of either kind that the table is partitioned by: not all values can be a partition's.
    pub partition_by: Vec<String>,
}

/// What to do about columns that the table does not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NewColumns {
    /// Pass over them: somebody wrote down the columns that the table shall have.
    Ignore,
    /// Add them: the columns came from the messages, so the table follows them.
    Add,
}

/// What a flow tells its decoders, beside what the messages mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// Of a record of more bytes no row is made.
    pub record_bytes_max: usize,
    /// Whether all of the table's records are of one partition, and so in one order.
    pub in_one_order: bool,
}

impl Default for Terms {
    fn default() -> Self {
        Self {
            record_bytes_max: usize::MAX,
            in_one_order: true,
        }
    }
}

impl Terms {
    /// Refuses so many bytes, if they are more than rows are made of.
    fn admit(self, bytes: usize) -> Read {
        match bytes <= self.record_bytes_max {
            true => Ok(()),
            false => Err(Fault::too_large(bytes, self.record_bytes_max)),
        }
    }
}

/// A decoder for records of any size in one order. Its [`Decoder::schema`] is the table's: the record's columns and the metadata columns.
pub fn decoder(spec: &DecodeSpec) -> Result<Box<dyn Decoder>> {
    decoder_under(spec, Terms::default())
}

/// The same for a flow of such terms.
pub fn decoder_under(spec: &DecodeSpec, terms: Terms) -> Result<Box<dyn Decoder>> {
    match spec.format {
        Format::Json => Ok(Box::new(json::JsonDecoder::new(spec, terms)?)),
        Format::DebeziumJson => Ok(Box::new(debezium::DebeziumDecoder::new(spec, terms)?)),
    }
}

/// The record's columns, out of the schema inside of some messages; None if they carry none, or describe no rows.
pub fn discover(format: Format, samples: &[Message<'_>]) -> Result<Option<SchemaRef>> {
    match format {
        Format::Json => Ok(None),
        Format::DebeziumJson => {
            let columns = |message: &Message<'_>| {
                let fields = writer::columns_of(message.value?).transpose()?;
                let topic = message.topic;
                let unfit = |error| {
                    let what = format!("the schema inside of the messages of topic {topic} is of no use for a table");
                    Error::data("schema", what).because(error)
                };
                Some(fields.and_then(columns::checked).map_err(unfit))
            };
            samples.iter().find_map(columns).transpose()
        }
    }
}

/// What is among some messages.
#[derive(Debug, Default)]
pub struct Among {
    /// Rows, or what cannot be read. Tombstones, deletes and heartbeats need not carry a schema where rows do.
    pub rows: bool,
    /// Why the first that cannot be read cannot be, with its schema.
    pub unreadable: Option<String>,
}

/// Looks for rows among some messages.
pub fn rows_among(messages: &[Message<'_>]) -> Among {
    let mut among = Among::default();
    for value in messages.iter().filter_map(|message| message.value) {
        match writer::is_row(value) {
            Ok(is_row) => among.rows |= is_row,
            Err(fault) => {
                among.rows = true;
                among.unreadable.get_or_insert_with(|| fault.into_reject(0).message);
            }
        }
    }
    among
}

/// One record as the broker handed it over; borrowed from the client's buffers.
#[derive(Clone, Copy, Debug)]
pub struct Message<'a> {
    pub topic: &'a str,
    pub partition: i32,
    pub offset: i64,
    /// Milliseconds since 1970, where the record has one.
    pub timestamp_ms: Option<i64>,
    pub key: Option<&'a [u8]>,
    pub value: Option<&'a [u8]>,
    /// Read only where a table asks for `__headers` or a dead letter keeps them.
    pub headers: Headers<'a>,
}

impl Message<'_> {
    /// Of key and value.
    pub fn bytes(&self) -> usize {
        self.key_bytes() + self.value.map_or(0, <[u8]>::len)
    }

    fn key_bytes(&self) -> usize {
        self.key.map_or(0, <[u8]>::len)
    }
}

/// Headers of a record, read on demand.
#[derive(Clone, Copy, Default)]
pub struct Headers<'a>(pub Option<&'a dyn ReadHeaders>);

impl std::fmt::Debug for Headers<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.0.is_some() { "Headers(..)" } else { "Headers(none)" })
    }
}

/// A list of names and values.
pub trait ReadHeaders {
    fn count(&self) -> usize;
    fn header(&self, index: usize) -> (&str, Option<&[u8]>);
}

/// What became of a run of messages: each is a reject, a tombstone, filtered, or else one of those that `origins` names.
#[derive(Debug)]
pub struct Decoded {
    /// The decoder's columns, and those that the messages have brought since it was made.
    pub rows: RecordBatch,
    /// One per row.
    pub ops: Vec<Op>,
    /// For each row, which message it came from. They never fall; a message whose row moves to another key is two rows. The rows of a
    /// reject are deleted ones: what its change left of them.
    pub origins: Vec<u32>,
    pub unchanged: Option<Unchanged>,
    pub rejects: Vec<Reject>,
    /// Messages without a value that are not rows.
    pub tombstones: usize,
    /// Messages that are not changes: heartbeats, transaction marks, logical messages.
    pub filtered: usize,
    /// Members of the messages' records that are no columns, and were passed over.
    pub unknown_members: u64,
}

impl Decoded {
    /// How many of the messages are rows, and nothing else.
    pub fn written(&self) -> usize {
        let messages = self.rows.num_rows() - self.origins.windows(2).filter(|pair| pair[0] == pair[1]).count();
        let is_row = |reject: &&Reject| self.origins.binary_search(&(reject.index as u32)).is_ok();
        messages - self.rejects.iter().filter(is_row).count()
    }
}

/// Decodes for one table. A message that cannot be read becomes a [`Reject`]; it does not fail the batch. An error is a fault that is not
/// one message's: the schema inside of the messages no longer fits the table, for example.
pub trait Decoder: Send {
    /// The columns that `decode` returns so far: messages may bring more, where the spec says to add them.
    fn schema(&self) -> &SchemaRef;
    fn decode(&mut self, messages: &[Message<'_>]) -> Result<Decoded>;

    /// Whether a message has a schema that was not read yet. The table may have no place for such a row: what comes before it is better
    /// decoded by itself.
    fn is_new(&self, _message: &Message<'_>) -> bool {
        false
    }
}

/// The record's fields; all nullable where rows exist that bring none of them.
fn record_fields(columns: &Schema, nullable: bool) -> Vec<FieldRef> {
    let field = |field: &FieldRef| match nullable {
        true => Arc::new(field.as_ref().clone().with_nullable(true)),
        false => Arc::clone(field),
    };
    columns.fields().iter().map(field).collect()
}

/// The table's columns: the record's without encodings, then the metadata columns.
fn table_schema(record: &[FieldRef], metadata: &[FieldRef]) -> Result<SchemaRef> {
    let mut fields: Vec<Field> = record.iter().map(|field| encoding::plain(field)).collect();
    fields.extend(metadata.iter().map(|field| field.as_ref().clone()));
    columns::checked(fields)
}

/// A message's place in its run, as rows remember it.
fn origin(index: usize) -> Result<u32> {
    u32::try_from(index).map_err(|_| Error::bug("a run of more than 4 billion messages"))
}

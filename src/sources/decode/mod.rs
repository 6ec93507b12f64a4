//! Decoders: messages in, Arrow columns out. Pure, sync, fuzzed.

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;

use crate::batch::{Op, Unchanged};
use crate::error::Result;
use crate::reject::Reject;

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

/// What became of a run of messages: `messages = rows + rejects + tombstones + filtered`.
#[derive(Debug)]
pub struct Decoded {
    /// The table's columns.
    pub rows: RecordBatch,
    /// One per row.
    pub ops: Vec<Op>,
    /// For each row, which message it came from; rising.
    pub origins: Vec<u32>,
    pub unchanged: Option<Unchanged>,
    pub rejects: Vec<Reject>,
    /// Messages without a value that are not rows.
    pub tombstones: usize,
    /// Messages that are not changes: heartbeats, transaction marks, logical messages.
    pub filtered: usize,
}

/// Decodes for one table. A message that cannot be read becomes a [`Reject`]; it does not fail the batch. An error is a fault that is not
/// one message's: the schema inside of the messages no longer fits the table, for example.
pub trait Decoder: Send {
    /// The columns that `decode` returns.
    fn schema(&self) -> &SchemaRef;
    fn decode(&mut self, messages: &[Message<'_>]) -> Result<Decoded>;
}

//! Debezium's change events as JSON: in their envelope, with or without the schema around it, or flattened to rows.
//!
//! A table with a key gets puts and deletes. A tombstone behind a delete deletes once more, which changes nothing, and so does a
//! tombstone whose delete was compacted away. A table without a key gets every event as a row: what is after the change, or what was
//! before a delete; `__op` or `__deleted` says which, so one of them must be asked for.
//!
//! An update that changes the table's key is two rows: the new one is put, the old key is deleted.

use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::{DataType, Field, FieldRef, SchemaRef};
use std::sync::Arc;

use super::column::{Cells, Dialect};
use super::event::{self, Action, Envelope, Event};
use super::fault::{Code, Fault, Read};
use super::metadata::{self, Metadata};
use super::names::Names;
use super::rows::Rows;
use super::scanner::Scanner;
use super::writer::Writers;
use super::{DecodeSpec, Decoded, Decoder, Message, wrapper};
use crate::batch::Op;
use crate::config::{KeyFrom, Tombstones};
use crate::error::{Error, Result};

pub(super) struct DebeziumDecoder {
    schema: SchemaRef,
    /// The last of the schema's columns.
    metadata_fields: Vec<FieldRef>,
    rows: Rows,
    metadata: Metadata,
    writers: Writers,
    /// The members of an event's `source` that are columns.
    source: Names,
    /// Those members, and the places of their columns.
    source_members: Vec<(&'static str, usize)>,
    /// Columns that the event itself brings, by place in `rows`.
    op: usize,
    deleted: usize,
    ts_ms: Option<usize>,
    /// How many columns the record has, and where the rest of the table's come from.
    record_columns: usize,
    upsert: bool,
    key_from: KeyFrom,
    tombstones: Tombstones,
    reports_unchanged: bool,
}

/// What a message is to the table.
enum Outcome {
    Row {
        op: Op,
        deleted: bool,
    },
    /// The row is put under its key, and the row behind it says the key that it had before.
    Moved,
    Tombstone,
    Filtered,
}

/// What ends the reading of a message.
enum Trouble {
    Reject(Box<Fault>),
    Stop(Error),
}

impl From<Box<Fault>> for Trouble {
    fn from(fault: Box<Fault>) -> Self {
        Trouble::Reject(fault)
    }
}

impl DebeziumDecoder {
    pub fn new(spec: &DecodeSpec) -> Result<Self> {
        let upsert = !spec.key.is_empty();
        let asked = |name: &str| spec.metadata.iter().any(|column| column == name);
        if !upsert && !asked(metadata::OP) && !asked(metadata::DELETED) {
            let what = "a table without a key gets deletes of Debezium as rows: add `__op` or `__deleted` to its `metadata`, or nobody can tell them from the others";
            return Err(Error::config("metadata", what));
        }
        // Deletes bring only the key, and truncates nothing: in a table of events they are rows.
        let fields = super::record_fields(&spec.columns, !upsert);
        let metadata_fields = metadata::fields(&spec.metadata, spec.format)?;
        let schema = super::table_schema(&fields, &metadata_fields)?;
        let (extra, source) = extra_columns(&spec.metadata, fields.len());
        let place = |name: &str| {
            extra
                .iter()
                .position(|field| field.name() == name)
                .map(|index| fields.len() + index)
        };
        let unplaced = || Error::bug("the decoder's own columns are not where they should be");
        Ok(Self {
            rows: Rows::new(&fields, &extra, &spec.key, spec.key_from, Dialect::Debezium)?,
            schema,
            metadata: Metadata::new(&spec.metadata),
            writers: Writers::new(spec.new_columns),
            source: Names::new(source.iter().copied()),
            source_members: source,
            metadata_fields,
            op: place(metadata::OP).ok_or_else(unplaced)?,
            deleted: place(metadata::DELETED).ok_or_else(unplaced)?,
            ts_ms: place(metadata::TS_MS),
            record_columns: fields.len(),
            upsert,
            key_from: spec.key_from,
            tombstones: spec.tombstones,
            reports_unchanged: asked(metadata::UNCHANGED),
        })
    }

    /// Reads a message as the next row, which the caller keeps or takes back.
    fn read(&mut self, message: &Message<'_>) -> Result<Outcome, Trouble> {
        self.metadata.check(message)?;
        let Some(value) = message.value else {
            return Ok(self.read_tombstone(message)?);
        };
        if value.is_empty() {
            return Err(Fault::malformed("the value is empty").into());
        }
        let opened = self.writers.open(value)?;
        let mut scanner = opened.payload.clone();
        let event = event::read(&mut scanner)?;
        if matches!(event, Event::Change(_) | Event::Row) && !matches!(&event, Event::Change(e) if e.action == Action::Message) {
            let (record, key) = self.rows.record(self.record_columns);
            let adopted = self.writers.adopt(&opened, &event, record, key, message.topic);
            if let Some(added) = adopted.map_err(Trouble::Stop)? {
                self.grow(&added, message.topic).map_err(Trouble::Stop)?;
            }
        }
        let outcome = match event {
            Event::Change(envelope) => self.read_change(message, &envelope)?,
            Event::Row => self.read_row(message, &mut scanner)?,
            Event::NoChange => Outcome::Filtered,
            Event::Nothing => self.read_tombstone(message)?,
        };
        match opened.wrapped {
            true => wrapper::close(&mut scanner)?,
            false => scanner.end()?,
        }
        Ok(outcome)
    }

    /// Takes the columns that a writer has and the table has not, and nulls where there were none.
    fn grow(&mut self, added: &[Field], topic: &str) -> Result<()> {
        let own = self
            .rows
            .columns
            .iter()
            .take(self.record_columns)
            .map(|column| Arc::clone(&column.field));
        let fields: Vec<FieldRef> = own.chain(added.iter().cloned().map(Arc::new)).collect();
        let grown = super::table_schema(&fields, &self.metadata_fields).and_then(|schema| {
            self.rows.grow(self.record_columns, added)?;
            Ok(schema)
        });
        self.schema = grown.map_err(|error| {
            self.writers.forget();
            let what = format!("the messages of topic {topic} have columns that the table cannot have: rename them at the source");
            Error::data("schema_changed", what).because(error)
        })?;
        self.record_columns += added.len();
        self.op += added.len();
        self.deleted += added.len();
        self.ts_ms = self.ts_ms.map(|column| column + added.len());
        self.source_members.iter_mut().for_each(|(_, column)| *column += added.len());
        self.source = Names::new(self.source_members.iter().copied());
        Ok(())
    }

    fn read_change(&mut self, message: &Message<'_>, event: &Envelope<'_>) -> Read<Outcome> {
        let deleted = matches!(event.action, Action::Delete | Action::Truncate);
        match (event.action, self.upsert) {
            (Action::Message, _) => Ok(Outcome::Filtered),
            (Action::Truncate, true) => {
                self.rows.close_void();
                Ok(Outcome::Row { op: Op::Truncate, deleted })
            }
            (Action::Delete, true) => {
                if let (Some(before), KeyFrom::Value) = (event.before, self.key_from) {
                    self.rows.read_key_of(&mut Scanner::new(before))?;
                }
                self.close_delete(message)
            }
            (Action::Create | Action::Read | Action::Update, _) => {
                let missing = || Fault::new(Code::Unexpected, "the event has no row").within("after");
                self.read_record(message, event.after.ok_or_else(missing)?)?;
                self.read_event_columns(event)?;
                let outcome = self.close_put(deleted)?;
                if !self.upsert {
                    return Ok(outcome);
                }
                // A key that changes without a delete of the old one: the table's key need not be the database's.
                let moves = match (event.action, event.before, self.key_from) {
                    (Action::Update, Some(before), KeyFrom::Value) => {
                        self.rows.moved_from(before).map_err(|fault| fault.within("before"))?
                    }
                    _ => false,
                };
                if moves || event.action != Action::Update {
                    self.must_be_whole()?;
                }
                Ok(if moves { Outcome::Moved } else { outcome })
            }
            (Action::Delete | Action::Truncate, false) => {
                if let Some(before) = event.before {
                    self.read_record(message, before)?;
                }
                self.read_event_columns(event)?;
                self.close_put(deleted)
            }
        }
    }

    /// Reads a flattened row, which says in its own columns that it is a deleted one.
    fn read_row(&mut self, message: &Message<'_>, scanner: &mut Scanner<'_>) -> Read<Outcome> {
        if self.upsert && self.key_from == KeyFrom::MessageKey {
            self.rows.read_message_key(message.key)?;
        }
        self.rows.read(scanner)?;
        let deleted = self.last_text(self.deleted) == Some(b"true") || self.last_text(self.op) == Some(b"d");
        match deleted && self.upsert {
            true => self.close_delete(message),
            false => {
                let is_new = matches!(self.last_text(self.op), Some(b"c" | b"r"));
                let outcome = self.close_put(deleted)?;
                if is_new && self.upsert {
                    self.must_be_whole()?;
                }
                Ok(outcome)
            }
        }
    }

    /// A row of a key that is new has no older row to take a cell from that the event does not bring: that is how the database's own key
    /// changes, with a delete and a create.
    fn must_be_whole(&self) -> Read {
        let what =
            "the event makes a row and does not bring it, because it is large and did not change: set REPLICA IDENTITY FULL at the source";
        let missing = self.rows.unchanged().first();
        missing.map_or(Ok(()), |&column| {
            Err(Fault::new(Code::Unavailable, what).within(self.rows.columns[column].name()))
        })
    }

    fn read_tombstone(&mut self, message: &Message<'_>) -> Read<Outcome> {
        match (self.upsert, self.tombstones) {
            // Of a table without a key: its delete came right before.
            (true, _) if message.key.is_none() => Ok(Outcome::Tombstone),
            (true, _) => {
                self.rows.read_message_key(message.key)?;
                self.rows.close_key()?;
                Ok(Outcome::Row {
                    op: Op::Delete,
                    deleted: true,
                })
            }
            (false, Tombstones::Skip) => Ok(Outcome::Tombstone),
            (false, Tombstones::Keep) => {
                self.rows.close_void();
                Ok(Outcome::Row {
                    op: Op::Put,
                    deleted: true,
                })
            }
        }
    }

    fn read_record(&mut self, message: &Message<'_>, text: &[u8]) -> Read {
        if self.upsert && self.key_from == KeyFrom::MessageKey {
            self.rows.read_message_key(message.key)?;
        }
        self.rows.read(&mut Scanner::new(text))
    }

    fn read_event_columns(&mut self, event: &Envelope<'_>) -> Read {
        if let (Some(source), true) = (event.source, !self.source_members.is_empty()) {
            self.rows
                .read_beside(&mut self.source, &mut Scanner::new(source))
                .map_err(|fault| fault.within("source"))?;
        }
        if let (Some(ts_ms), Some(column)) = (event.ts_ms, self.ts_ms) {
            self.rows.read_cell(column, &mut Scanner::new(ts_ms))?;
        }
        self.rows.write_text(self.op, event.action.letter())
    }

    fn close_put(&mut self, deleted: bool) -> Read<Outcome> {
        self.rows.close()?;
        match self.rows.unchanged().first() {
            Some(&column) if !self.upsert && !self.reports_unchanged => {
                let what = "the event does not bring it, because it is large and did not change: add `__unchanged` to the table's `metadata`, or set \
                            REPLICA IDENTITY FULL at the source";
                Err(Fault::new(Code::Unavailable, what).within(self.rows.columns[column].name()))
            }
            _ => Ok(Outcome::Row { op: Op::Put, deleted }),
        }
    }

    /// A delete by what was read of the key; or, where that is not whole, by the message's key.
    fn close_delete(&mut self, message: &Message<'_>) -> Read<Outcome> {
        if !self.rows.has_key() {
            self.rows.take_back();
            self.rows.read_message_key(message.key)?;
        }
        self.rows.close_key()?;
        Ok(Outcome::Row {
            op: Op::Delete,
            deleted: true,
        })
    }

    /// The cell of the row at hand in a column of text.
    fn last_text(&self, column: usize) -> Option<&[u8]> {
        match &self.rows.columns[column].cells {
            Cells::Text(cells) if self.rows.columns[column].len() > self.rows.len() => Some(cells.get(self.rows.len())),
            _ => None,
        }
    }

    /// The table's columns in its order.
    fn assemble(&mut self, mut arrays: Vec<ArrayRef>) -> Result<RecordBatch> {
        let extra = arrays.split_off(self.record_columns);
        let extra = extra
            .into_iter()
            .zip(self.rows.columns.get(self.record_columns..).unwrap_or_default());
        // The text of a flattened row's `__deleted` has been read for what it says; the table's column is a boolean.
        let extra = extra.filter(|(_, column)| column.name() != metadata::DELETED);
        let mut beside: Vec<(&str, ArrayRef)> = extra.map(|(array, column)| (column.name(), array)).collect();
        beside.extend(self.metadata.finish());
        for field in self.schema.fields().iter().skip(self.record_columns) {
            let array = beside
                .iter()
                .find(|(name, _)| *name == field.name())
                .map(|(_, array)| Arc::clone(array));
            arrays.push(array.ok_or_else(|| Error::bug(format!("nobody fills the metadata column {}", field.name())))?);
        }
        RecordBatch::try_new(Arc::clone(&self.schema), arrays).map_err(|e| Error::bug("decoded rows do not fit their schema").because(e))
    }
}

/// Columns that are read out of the event beside the record: always the two that flattened rows tell a delete by, and those that the
/// table asks for. With the members of `source` among them, by their place behind `first`.
fn extra_columns(asked: &[String], first: usize) -> (Vec<FieldRef>, Vec<(&'static str, usize)>) {
    let text = |name: &str| Arc::new(Field::new(name, DataType::Utf8, true));
    let mut extra = vec![text(metadata::OP), text(metadata::DELETED)];
    let mut source = Vec::new();
    for name in asked {
        if name == metadata::TS_MS {
            extra.push(Arc::new(Field::new(name, DataType::Int64, true)));
        }
        if let Some((column, member, kind)) = metadata::FROM_SOURCE.iter().find(|(column, ..)| column == name) {
            source.push((*member, first + extra.len()));
            extra.push(Arc::new(Field::new(*column, kind.clone(), true)));
        }
    }
    (extra, source)
}

impl Decoder for DebeziumDecoder {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn decode(&mut self, messages: &[Message<'_>]) -> Result<Decoded> {
        let mut ops = Vec::with_capacity(messages.len());
        let mut origins = Vec::with_capacity(messages.len());
        let (mut rejects, mut tombstones, mut filtered) = (Vec::new(), 0, 0);
        for (index, message) in messages.iter().enumerate() {
            match self.read(message) {
                Ok(Outcome::Row { op, deleted }) => {
                    let columns = &self.rows.columns;
                    self.metadata
                        .push(message, deleted, self.rows.unchanged().iter().map(|column| columns[*column].name()));
                    self.rows.keep();
                    ops.push(op);
                    origins.push(super::origin(index)?);
                }
                Ok(Outcome::Moved) => {
                    for (op, deleted) in [(Op::Put, false), (Op::Delete, true)] {
                        self.metadata.push(message, deleted, std::iter::empty());
                        self.rows.keep();
                        ops.push(op);
                        origins.push(super::origin(index)?);
                    }
                }
                Ok(Outcome::Tombstone) => tombstones += 1,
                Ok(Outcome::Filtered) => filtered += 1,
                Err(Trouble::Reject(fault)) => {
                    self.rows.take_back();
                    rejects.push(fault.into_reject(index));
                }
                Err(Trouble::Stop(error)) => {
                    // Nothing of this run is handed over, so nothing of it may be left for the next.
                    self.rows.take_back();
                    self.rows.finish()?;
                    self.metadata.finish();
                    return Err(error);
                }
            }
        }
        let (arrays, unchanged) = self.rows.finish()?;
        let rows = self.assemble(arrays)?;
        // In a table of events there is no older row to take the cell from: it is null, and `__unchanged` says so.
        let unchanged = unchanged.filter(|_| self.upsert);
        Ok(Decoded {
            rows,
            ops,
            origins,
            unchanged,
            rejects,
            tombstones,
            filtered,
        })
    }
}

//! Debezium's change events as JSON: in their envelope, with or without the schema around it, or flattened to rows.
//!
//! A table with a key gets puts and deletes. A tombstone behind a delete deletes once more, which changes nothing, and so does a
//! tombstone whose delete was compacted away. A table without a key gets every event as a row: what is after the change, or what was
//! before a delete; `__op` or `__deleted` says which, so one of them must be asked for.
//!
//! An update that changes the table's key is two rows: the new one is put, the old key is deleted.
//!
//! A change that is a reject because the table cannot hold some cell of it, or all of them together, leaves a mark all the same: the row
//! of its key is deleted. What was there is no longer so, and no later event that leaves an unchanged cell out may be filled from it.
//!
//! Where a table's records are of several partitions, nobody knows which rows were there before a truncate: there it is a reject.

use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::{Field, FieldRef, SchemaRef};
use std::sync::Arc;

use super::column::Dialect;
use super::event::{self, Action, Envelope, Event};
use super::fault::{Code, Fault, Read, Trouble};
use super::marks::Marks;
use super::metadata::{self, Metadata};
use super::names::Names;
use super::rows::Rows;
use super::scanner::Scanner;
use super::writer::{Opened, Writers};
use super::{DecodeSpec, Decoded, Decoder, Message, NewColumns, Terms};
use crate::batch::Op;
use crate::config::{KeyFrom, Tombstones};
use crate::error::{Error, Result};

pub(super) struct DebeziumDecoder {
    terms: Terms,
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
    ts_ms: Option<usize>,
    /// What flattened rows say of themselves.
    marks: Marks,
    /// How many columns the record has, and where the rest of the table's come from.
    record_columns: usize,
    upsert: bool,
    key_from: KeyFrom,
    tombstones: Tombstones,
    reports_unchanged: bool,
    /// Whether events in envelopes have come.
    enveloped: bool,
}

/// What a message is to the table.
enum Outcome {
    /// The rows that have been read, and whether those that are put were deleted at the source. An update that moves a row to another key
    /// is two: the new one, and one that says the old key.
    Rows {
        ops: &'static [Op],
        deleted: bool,
    },
    Tombstone,
    Filtered,
}

const NO_ROWS: Outcome = Outcome::Rows { ops: &[], deleted: false };
const PUT: &[Op] = &[Op::Put];
const DELETE: &[Op] = &[Op::Delete];
const TRUNCATE: &[Op] = &[Op::Truncate];
const MOVE: &[Op] = &[Op::Put, Op::Delete];
const DELETE_BOTH: &[Op] = &[Op::Delete, Op::Delete];

impl DebeziumDecoder {
    pub fn new(spec: &DecodeSpec, terms: Terms) -> Result<Self> {
        let upsert = !spec.key.is_empty();
        let asked = |name: &str| spec.metadata.iter().any(|column| column == name);
        metadata::must_tell_deletes(&spec.metadata, spec.format, &spec.key)?;
        // Deletes bring only the key, and truncates nothing: in a table of events they are rows.
        let fields = super::record_fields(&spec.columns, !upsert);
        let metadata_fields = metadata::fields(&spec.metadata, spec.format)?;
        let schema = super::table_schema(&fields, &metadata_fields)?;
        let (extra, source) = metadata::beside_record(&spec.metadata, fields.len());
        let place = |name: &str| {
            extra
                .iter()
                .position(|field| field.name() == name)
                .map(|index| fields.len() + index)
        };
        let unplaced = || Error::bug("the decoder's own columns are not where they should be");
        let mut rows = Rows::new(&fields, &extra, &spec.key, spec.key_from, Dialect::Debezium)?;
        rows.partition_by(&spec.partition_by, fields.len());
        if !upsert && spec.new_columns == NewColumns::Ignore {
            rows.require(&spec.columns);
        }
        Ok(Self {
            terms,
            marks: Marks::new(&rows)?,
            rows,
            schema,
            metadata: Metadata::new(&spec.metadata, &spec.partition_by),
            writers: Writers::new(spec.new_columns),
            source: Names::new(source.iter().copied()),
            source_members: source,
            metadata_fields,
            op: place(metadata::OP).ok_or_else(unplaced)?,
            ts_ms: place(metadata::TS_MS),
            record_columns: fields.len(),
            upsert,
            key_from: spec.key_from,
            tombstones: spec.tombstones,
            reports_unchanged: asked(metadata::UNCHANGED),
            enveloped: false,
        })
    }

    /// Reads a message as the next rows, which the caller keeps; and why it is a reject, if it is one.
    fn read(&mut self, message: &Message<'_>, earlier: &[Message<'_>]) -> Result<(Outcome, Option<Box<Fault>>)> {
        let fault = match self.read_whole(message, earlier) {
            Ok(outcome) => return Ok((outcome, None)),
            Err(Trouble::Reject(fault)) => fault,
            Err(Trouble::Stop(error)) => return Err(error),
        };
        self.rows.take_back();
        if self.upsert
            && let Some((ops, is_delete)) = self.read_key_alone(message)
        {
            return Ok((Outcome::Rows { ops, deleted: true }, Some(fault).filter(|_| !is_delete)));
        }
        self.rows.take_back();
        Ok((NO_ROWS, Some(fault)))
    }

    fn read_whole(&mut self, message: &Message<'_>, earlier: &[Message<'_>]) -> Result<Outcome, Trouble> {
        self.terms.admit(message.key_bytes())?;
        let Some(value) = message.value else {
            return Ok(self.read_tombstone(message, earlier)?);
        };
        if value.is_empty() {
            return Err(Fault::malformed("the value is empty").into());
        }
        let opened = self.writers.open(value)?;
        let mut scanner = opened.payload.clone();
        let event = event::read(&mut scanner)?;
        if event.is_of_row() {
            let (record, key) = self.rows.record(self.record_columns);
            if let Some(added) = self.writers.adopt(&opened, &event, record, key, message.topic)? {
                self.grow(&added, message.topic).map_err(Trouble::Stop)?;
            }
        }
        let outcome = match event {
            Event::Change(envelope) => {
                self.enveloped = true;
                self.read_change(message, &envelope)?
            }
            Event::Row => self.read_row(message, &mut scanner)?,
            Event::NoChange => Outcome::Filtered,
            Event::Nothing => self.read_tombstone(message, earlier)?,
        };
        opened.close(&mut scanner)?;
        Ok(outcome)
    }

    /// Reads only the key of a change whose row cannot be read, and what becomes of the row under it: deletes, if the message is good
    /// otherwise. True if that is all that it says, whatever else stands in it: of a deleted row only the key is read.
    fn read_key_alone(&mut self, message: &Message<'_>) -> Option<(&'static [Op], bool)> {
        self.terms.admit(message.key_bytes()).ok()?;
        // A schema that is still unknown is one that has been refused.
        let opened = self.writers.open(message.value?).ok().filter(Opened::is_known)?;
        let mut scanner = opened.payload.clone();
        let event = event::read(&mut scanner).ok()?;
        if self.key_from == KeyFrom::MessageKey {
            self.rows.read_message_key(message.key).ok()?;
        }
        let known = match event {
            Event::Change(Envelope {
                action: action @ (Action::Create | Action::Read | Action::Update),
                after: Some(after),
                before,
                ..
            }) => {
                if self.key_from == KeyFrom::Value {
                    self.rows.read_key_of(&mut Scanner::new(after)).ok()?;
                }
                self.rows.close_key().ok()?;
                match self.moves(action, before).ok()? {
                    true => (DELETE_BOTH, false),
                    false => (DELETE, false),
                }
            }
            Event::Row => {
                let row = scanner.clone();
                self.rows.read_beside(&mut self.marks.names, &mut scanner).ok()?;
                let is_delete = self.marks.say_deleted(&self.rows).ok()?;
                if is_delete {
                    self.close_delete(message).map(drop).ok()?;
                } else {
                    self.rows.must_bring_any(self.record_columns, &row).ok()?;
                    self.rows.close_key().ok()?;
                }
                (DELETE, is_delete)
            }
            _ => return None,
        };
        opened.close(&mut scanner).ok()?;
        Some(known)
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
        self.ts_ms = self.ts_ms.map(|column| column + added.len());
        self.source_members.iter_mut().for_each(|(_, column)| *column += added.len());
        self.source = Names::new(self.source_members.iter().copied());
        self.marks = Marks::new(&self.rows)?;
        Ok(())
    }

    fn read_change(&mut self, message: &Message<'_>, event: &Envelope<'_>) -> Read<Outcome> {
        let deleted = matches!(event.action, Action::Delete | Action::Truncate);
        match (event.action, self.upsert) {
            (Action::Message, _) => Ok(Outcome::Filtered),
            (Action::Truncate, true) if !self.terms.in_one_order => Err(Fault::truncate_over_partitions()),
            (Action::Truncate, true) => {
                self.rows.close_void();
                Ok(Outcome::Rows { ops: TRUNCATE, deleted })
            }
            (Action::Delete, true) => {
                if let (Some(before), KeyFrom::Value) = (event.before, self.key_from) {
                    self.rows.read_key_of(&mut Scanner::new(before))?;
                }
                self.close_delete(message)
            }
            (Action::Create | Action::Read | Action::Update, _) => {
                self.terms.admit(message.bytes())?;
                let missing = || Fault::new(Code::Unexpected, "the event has no row").within("after");
                self.read_record(message, event.after.ok_or_else(missing)?)?;
                self.read_event_columns(event)?;
                let outcome = self.close_put(message, deleted)?;
                if !self.upsert {
                    return Ok(outcome);
                }
                let moves = self.moves(event.action, event.before)?;
                if moves || event.action != Action::Update {
                    self.must_be_whole()?;
                }
                Ok(if moves { Outcome::Rows { ops: MOVE, deleted } } else { outcome })
            }
            (Action::Delete | Action::Truncate, false) => {
                self.terms.admit(message.bytes())?;
                if let Some(before) = event.before {
                    self.read_record(message, before)?;
                }
                self.read_event_columns(event)?;
                self.close_put(message, deleted)
            }
        }
    }

    /// Whether the closed row at hand had another key before the event; that is a row behind it then. Debezium writes a delete only where
    /// the database's key changes, and the table's may be another.
    fn moves(&mut self, action: Action, before: Option<&[u8]>) -> Read<bool> {
        match (action, before, self.key_from) {
            (Action::Update, Some(before), KeyFrom::Value) => self.rows.moved_from(before).map_err(|fault| fault.within("before")),
            _ => Ok(false),
        }
    }

    /// Reads a flattened row, which says in its own columns that it is a deleted one.
    fn read_row(&mut self, message: &Message<'_>, scanner: &mut Scanner<'_>) -> Read<Outcome> {
        self.terms.admit(message.bytes())?;
        if self.upsert && self.key_from == KeyFrom::MessageKey {
            self.rows.read_message_key(message.key)?;
        }
        let row = scanner.clone();
        self.rows.read(scanner)?;
        let deleted = self.marks.say_deleted(&self.rows)?;
        if !deleted {
            self.rows.must_bring_any(self.record_columns, &row)?;
        }
        match deleted && self.upsert {
            true => self.close_delete(message),
            false => {
                let is_new = self.marks.say_new(&self.rows)?;
                let outcome = self.close_put(message, deleted)?;
                let lacks_cells = self.upsert && !self.rows.unchanged().is_empty();
                if lacks_cells && (is_new || event::had_another_key(message)) {
                    self.must_be_whole()?;
                }
                Ok(outcome)
            }
        }
    }

    /// A row of a key that is new has no older row to take a cell from that the event does not bring. That is how the database's own key
    /// changes, too, with a delete and a create: but the old key's row, which has the cell, is gone with the delete, which a version may
    /// end with; and in another partition it may be an older one still.
    fn must_be_whole(&self) -> Read {
        let what = "the event makes a row, or gives it another key, and does not bring it, because it is large and did not change: set \
                    REPLICA IDENTITY FULL at the source";
        let missing = self.rows.unchanged().first();
        missing.map_or(Ok(()), |&column| {
            Err(Fault::new(Code::Unavailable, what).within(self.rows.columns[column].name()))
        })
    }

    fn read_tombstone(&mut self, message: &Message<'_>, earlier: &[Message<'_>]) -> Read<Outcome> {
        match (self.upsert, self.tombstones) {
            // Of a table without a key: its delete came right before.
            (true, _) if message.key.is_none() => Ok(Outcome::Tombstone),
            (true, _) => {
                self.rows.read_message_key(message.key)?;
                if self.rows.lacks_key() && self.key_from == KeyFrom::Value && self.follows_its_delete(message, earlier) {
                    return Ok(Outcome::Tombstone);
                }
                self.rows.close_key()?;
                Ok(Outcome::Rows {
                    ops: DELETE,
                    deleted: true,
                })
            }
            (false, Tombstones::Skip) => Ok(Outcome::Tombstone),
            (false, Tombstones::Keep) => {
                self.rows.close_void();
                self.metadata.check(message)?;
                Ok(Outcome::Rows { ops: PUT, deleted: true })
            }
        }
    }

    /// Whether a tombstone comes right behind the delete that has said the table's key, which is another one than the database's. Where the
    /// run begins with it, the delete was in the one before: a topic of envelopes has one in front of every tombstone.
    fn follows_its_delete(&self, tombstone: &Message<'_>, earlier: &[Message<'_>]) -> bool {
        let lane = |message: &Message<'_>| message.topic == tombstone.topic && message.partition == tombstone.partition;
        let Some(last) = earlier.iter().rev().find(|message| lane(message)) else {
            return self.enveloped;
        };
        let opened = last.value.and_then(|value| self.writers.open(value).ok());
        let event = opened.and_then(|opened| event::read(&mut opened.payload.clone()).ok());
        last.key == tombstone.key && matches!(event, Some(Event::Change(envelope)) if envelope.action == Action::Delete)
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

    fn close_put(&mut self, message: &Message<'_>, deleted: bool) -> Read<Outcome> {
        self.rows.close()?;
        self.rows.must_have_partition()?;
        self.metadata.check(message)?;
        if !deleted {
            self.rows.must_have_required()?;
        }
        match self.rows.unchanged().first() {
            Some(&column) if !self.upsert && !self.reports_unchanged => {
                let what = "the event does not bring it, because it is large and did not change: add `__unchanged` to the table's `metadata`, or set \
                            REPLICA IDENTITY FULL at the source";
                Err(Fault::new(Code::Unavailable, what).within(self.rows.columns[column].name()))
            }
            _ => Ok(Outcome::Rows { ops: PUT, deleted }),
        }
    }

    /// A delete by what was read of the key; or, where that is not whole, by the message's key.
    fn close_delete(&mut self, message: &Message<'_>) -> Read<Outcome> {
        if !self.rows.has_key() {
            self.rows.take_back();
            self.rows.read_message_key(message.key)?;
        }
        self.rows.close_key()?;
        Ok(Outcome::Rows {
            ops: DELETE,
            deleted: true,
        })
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

impl Decoder for DebeziumDecoder {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn is_new(&self, message: &Message<'_>) -> bool {
        message.value.is_some_and(|value| self.writers.is_new(value))
    }

    fn decode(&mut self, messages: &[Message<'_>]) -> Result<Decoded> {
        let mut ops = Vec::with_capacity(messages.len());
        let mut origins = Vec::with_capacity(messages.len());
        let (mut rejects, mut tombstones, mut filtered) = (Vec::new(), 0, 0);
        for (index, message) in messages.iter().enumerate() {
            let (outcome, fault) = match self.read(message, &messages[..index]) {
                Ok(read) => read,
                Err(error) => {
                    // Nothing of this run is handed over, so nothing of it may be left for the next.
                    self.rows.take_back();
                    self.rows.finish()?;
                    self.metadata.finish();
                    return Err(error);
                }
            };
            match outcome {
                Outcome::Rows { ops: those, deleted } => {
                    for &op in those {
                        let unchanged = self.rows.unchanged().iter().map(|column| self.rows.columns[*column].name());
                        self.metadata.push(message, deleted || op != Op::Put, unchanged);
                        self.rows.keep();
                        ops.push(op);
                        origins.push(super::origin(index)?);
                    }
                }
                Outcome::Tombstone => tombstones += 1,
                Outcome::Filtered => filtered += 1,
            }
            rejects.extend(fault.map(|fault| fault.into_reject(index)));
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
            unknown_members: self.rows.take_unknown(),
        })
    }
}

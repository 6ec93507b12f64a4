//! The rows of a run: a message's object is read into them, and then the row is closed as what it means, or taken back.

use std::collections::BTreeMap;

use arrow::array::{ArrayRef, BooleanBufferBuilder};
use arrow::datatypes::{Field, FieldRef, Schema};

use super::column::{Cells, Column, Dialect, read_members};
use super::fault::{Code, Fault, Read};
use super::key_writers::KeyWriters;
use super::names::Names;
use super::partition;
use super::placeholder;
use super::scanner::Scanner;
use super::wrapper;
use crate::batch::Unchanged;
use crate::config::KeyFrom;
use crate::error::{Error, Result};

#[derive(Debug)]
pub(super) struct Rows {
    /// The record's columns, then those that are read out of the message beside it.
    pub columns: Vec<Column>,
    /// What the members of a value mean, and those of a key.
    value: Names,
    key: Names,
    key_columns: Vec<usize>,
    /// Columns whose cells may be Debezium's placeholder.
    suspects: Vec<usize>,
    unchanged: BTreeMap<usize, Vec<usize>>,
    /// Of the row at hand.
    unchanged_now: Vec<usize>,
    rows: usize,
    dialect: Dialect,
    key_from: KeyFrom,
    /// Columns that the record must have, though the table's may be null: of rows that are no record.
    required: Vec<usize>,
    /// Columns that the table is partitioned by.
    partitioned: Vec<usize>,
    key_writers: KeyWriters,
}

impl Rows {
    /// `fields` are the record's columns and `extra` further ones that a value may bring; `key` names some of the former.
    pub fn new(fields: &[FieldRef], extra: &[FieldRef], key: &[String], key_from: KeyFrom, dialect: Dialect) -> Result<Self> {
        let columns = fields.iter().chain(extra).map(|field| Column::new(field, dialect, field.name()));
        let mut columns = columns.collect::<Result<Vec<_>>>()?;
        let mut key_columns = Vec::new();
        for name in key {
            let Some(index) = fields.iter().position(|field| field.name() == name) else {
                let known: Vec<&str> = fields.iter().map(|f| f.name().as_str()).collect();
                return Err(Error::config(
                    "schema",
                    format!("key column `{name}` is not among the columns: {}", known.join(", ")),
                ));
            };
            if fields[index].data_type().is_nested() {
                return Err(Error::config(
                    "schema",
                    format!(
                        "key column `{name}` is of type {}: a key is a plain value",
                        fields[index].data_type()
                    ),
                ));
            }
            // A null key is a message without a key, whatever the column says of nulls.
            columns[index].nullable = true;
            key_columns.push(index);
        }
        let suspects = match dialect {
            Dialect::Plain => Vec::new(),
            Dialect::Debezium => (0..fields.len()).filter(|index| placeholder::possible(&columns[*index])).collect(),
        };
        let (value, key) = names(&columns, &key_columns, key_from);
        Ok(Self {
            columns,
            value,
            key,
            key_columns,
            suspects,
            unchanged: BTreeMap::new(),
            unchanged_now: Vec::new(),
            rows: 0,
            dialect,
            key_from,
            required: Vec::new(),
            partitioned: Vec::new(),
            key_writers: KeyWriters::default(),
        })
    }

    /// Remembers which of the record's first columns these say are never null.
    pub fn require(&mut self, columns: &Schema) {
        let is_required = |column: &usize| !columns.field(*column).is_nullable();
        self.required = (0..columns.fields().len()).filter(is_required).collect();
    }

    /// Remembers which of the record's first columns, so many there are, the table is partitioned by.
    pub fn partition_by(&mut self, names: &[String], record: usize) {
        let place = |name: &String| self.columns.iter().take(record).position(|column| column.name() == name);
        self.partitioned = names.iter().filter_map(place).collect();
    }

    /// Adds columns behind the first `record` ones, between two rows. They are null in the rows so far.
    pub fn grow(&mut self, record: usize, fields: &[Field]) -> Result<()> {
        let mut added = Vec::with_capacity(fields.len());
        for field in fields {
            let mut column = Column::new(field, self.dialect, field.name())?;
            (0..self.rows).for_each(|_| column.push_void());
            added.push(column);
        }
        self.columns.splice(record..record, added);
        let possible = (record..record + fields.len()).filter(|index| placeholder::possible(&self.columns[*index]));
        if self.dialect == Dialect::Debezium {
            self.suspects.extend(possible);
        }
        (self.value, self.key) = names(&self.columns, &self.key_columns, self.key_from);
        self.key_writers.forget();
        Ok(())
    }

    /// The first columns, so many are the record's, and the places of the key among them.
    pub fn record(&mut self, columns: usize) -> (&mut [Column], &[usize]) {
        (self.columns.get_mut(..columns).unwrap_or_default(), &self.key_columns)
    }

    /// The places of the key's columns among those that are read out of a value.
    pub fn key_in_value(&self) -> &[usize] {
        match self.key_from {
            KeyFrom::Value => &self.key_columns,
            KeyFrom::MessageKey => &[],
        }
    }

    /// Whether the closed row at hand had another key before, which `before` says as far as the source sent it. Then that key is a
    /// row behind the one at hand: [`Self::keep`] counts first the one, then the other.
    pub fn moved_from(&mut self, before: &[u8]) -> Read<bool> {
        self.rows += 1;
        let moved = self.read_other_key(&mut Scanner::new(before));
        if !matches!(moved, Ok(true)) {
            let rows = self.rows;
            self.columns.iter_mut().for_each(|column| column.truncate(rows));
        }
        self.rows -= 1;
        moved
    }

    /// Reads the key out of a row's object, and only as far as it must.
    fn read_other_key(&mut self, scanner: &mut Scanner<'_>) -> Read<bool> {
        scanner.open(b'{', "an object is expected")?;
        let (mut last, mut missing) = (0, self.key_columns.len());
        let mut more = !scanner.closes(b'}');
        while more && missing > 0 {
            match self.key.find(scanner, &mut last)? {
                Some(index) => {
                    self.read_cell(index, scanner)?;
                    missing -= 1;
                }
                None => drop(scanner.skip()?),
            }
            more = scanner.more(b'}')?;
        }
        let (old, new) = (self.rows, self.rows - 1);
        if !self.has_key() || self.key_columns.iter().all(|&index| self.columns[index].same_cells(old, new)) {
            return Ok(false);
        }
        self.close_key()?;
        Ok(true)
    }

    pub fn len(&self) -> usize {
        self.rows
    }

    /// Reads an object with the row's columns.
    #[inline]
    pub fn read(&mut self, scanner: &mut Scanner<'_>) -> Read {
        read_members(&mut self.columns, &mut self.value, scanner, self.rows)
    }

    /// That an object that has been read, `row`, brings any of the first columns, so many are the record's: one that brings none is something
    /// else. Where the key stands in it, the key says as much.
    #[inline]
    pub fn must_bring_any(&self, record: usize, row: &Scanner<'_>) -> Read {
        let is_read = |(place, column): (usize, &Column)| column.len() > self.rows && !self.key_columns.contains(&place);
        match !self.key_in_value().is_empty() || self.columns.iter().take(record).enumerate().any(is_read) {
            true => Ok(()),
            false => self.must_name_any(record, row.clone()),
        }
    }

    /// The same by its names: those of a key that stands in the message's are not read out of it.
    #[cold]
    fn must_name_any(&self, record: usize, mut row: Scanner<'_>) -> Read {
        let mut scratch = Vec::new();
        row.open(b'{', "an object is expected")?;
        let mut more = !row.closes(b'}');
        while more {
            let name = row.key()?.read(&mut scratch)?;
            if self.columns.iter().take(record).any(|column| column.name().as_bytes() == name) {
                return Ok(());
            }
            row.skip()?;
            more = row.more(b'}')?;
        }
        Err(Fault::new(Code::Unexpected, "none of its members is a column of the table"))
    }

    /// Reads only the key columns out of such an object.
    pub fn read_key_of(&mut self, scanner: &mut Scanner<'_>) -> Read {
        read_members(&mut self.columns, &mut self.key, scanner, self.rows)
    }

    /// Reads an object that is none of the row's, by names of its own.
    pub fn read_beside(&mut self, names: &mut Names, scanner: &mut Scanner<'_>) -> Read {
        read_members(&mut self.columns, names, scanner, self.rows)
    }

    /// Reads the key columns out of a message's key: an object; or, for one column, the bare value as JSON; or, for one column of
    /// text, the text itself. Kafka Connect's wrapper of schema and payload may be around it, and says how they are written.
    pub fn read_message_key(&mut self, key: Option<&[u8]>) -> Read {
        let missing = || Fault::new(Code::MissingKey, "the message has no key");
        let key = key.ok_or_else(missing)?;
        self.read_key(key).map_err(Fault::in_key)
    }

    fn read_key(&mut self, key: &[u8]) -> Read {
        if let Some(wrapped) = wrapper::open(key)? {
            let writer = self.key_writers.writer(wrapped.schema, &self.columns, &self.key_columns);
            self.key_writers.exchange(writer, &mut self.columns);
            let read = self.read_wrapped_key(wrapped.payload);
            self.key_writers.exchange(writer, &mut self.columns);
            return read;
        }
        let mut scanner = Scanner::new(key);
        match (scanner.peek(), self.key_columns.as_slice()) {
            (b'{', _) => self.read_key_of(&mut scanner)?,
            // Many writers put the text itself there, without quotes.
            (first, &[column]) if first != b'"' && key != b"null" && matches!(self.columns[column].cells, Cells::Text(_)) => {
                return self.write_text(column, key);
            }
            (_, &[column]) => self.read_cell(column, &mut scanner)?,
            _ => return Err(scanner.other("an object with the key columns is expected")),
        }
        scanner.end()
    }

    fn read_wrapped_key(&mut self, mut payload: Scanner<'_>) -> Read {
        match (payload.peek(), self.key_columns.as_slice()) {
            (b'{', _) => self.read_key_of(&mut payload)?,
            (_, &[column]) => self.read_cell(column, &mut payload)?,
            _ => return Err(payload.other("an object with the key columns is expected")),
        }
        wrapper::close(&mut payload)
    }

    /// Reads one cell of the row at hand.
    pub fn read_cell(&mut self, column: usize, scanner: &mut Scanner<'_>) -> Read {
        let column = &mut self.columns[column];
        match column.len() > self.rows {
            true => Ok(()), // The record has brought it already.
            false => column.read(scanner).map_err(|fault| fault.within(column.field.name())),
        }
    }

    /// Writes one cell of text of the row at hand.
    pub fn write_text(&mut self, column: usize, text: &[u8]) -> Read {
        let column = &mut self.columns[column];
        match column.len() > self.rows {
            true => Ok(()),
            false => column.push_raw_text(text).map_err(|fault| fault.within(column.field.name())),
        }
    }

    /// Whether the row at hand has none of its key columns, not even as nulls.
    pub fn lacks_key(&self) -> bool {
        self.key_columns.iter().all(|&index| self.columns[index].len() == self.rows)
    }

    /// Whether the row at hand has all its key columns.
    pub fn has_key(&self) -> bool {
        self.key_columns
            .iter()
            .all(|&index| self.columns[index].len() > self.rows && !self.columns[index].ends_with_null())
    }

    /// Forgets what has been read of the row at hand.
    pub fn take_back(&mut self) {
        let rows = self.rows;
        self.columns.iter_mut().for_each(|column| column.truncate(rows));
        self.unchanged_now.clear();
    }

    /// The row is what has been read; what was not read is null. Tells which columns the source did not send.
    #[inline]
    pub fn close(&mut self) -> Read {
        if !self.has_key() {
            return Err(self.missing_key());
        }
        for column in &mut self.columns {
            if column.len() == self.rows {
                column.push_null().map_err(|fault| fault.within(column.field.name()))?;
            }
        }
        for index in 0..self.suspects.len() {
            let index = self.suspects[index];
            if placeholder::is_last_cell_of(&self.columns[index]) {
                self.columns[index].truncate(self.rows);
                self.columns[index].push_void();
                self.unchanged_now.push(index);
            }
        }
        Ok(())
    }

    /// That the closed row at hand has all that the record must have; cells that the source did not send are there.
    #[inline]
    pub fn must_have_required(&self) -> Read {
        let is_missing = |column: &&usize| self.columns[**column].ends_with_null() && !self.unchanged_now.contains(*column);
        match self.required.iter().find(is_missing) {
            Some(&column) => Err(Fault::missing().within(self.columns[column].name())),
            None => Ok(()),
        }
    }

    /// That the closed row at hand can be in a partition.
    #[inline]
    pub fn must_have_partition(&self) -> Read {
        self.partitioned
            .iter()
            .try_for_each(|&column| partition::check(&self.columns[column]))
    }

    /// The row is only a key; the rest of it is never read.
    pub fn close_key(&mut self) -> Read {
        if !self.has_key() {
            return Err(self.missing_key());
        }
        for index in 0..self.columns.len() {
            if !self.key_columns.contains(&index) {
                self.columns[index].truncate(self.rows);
                self.columns[index].push_void();
            }
        }
        Ok(())
    }

    /// The row says nothing at all.
    pub fn close_void(&mut self) {
        self.take_back();
        self.columns.iter_mut().for_each(Column::push_void);
    }

    /// The columns of the row at hand that the source did not send.
    pub fn unchanged(&self) -> &[usize] {
        &self.unchanged_now
    }

    /// The closed row counts.
    #[inline]
    pub fn keep(&mut self) {
        for index in self.unchanged_now.drain(..) {
            self.unchanged.entry(index).or_default().push(self.rows);
        }
        self.rows += 1;
    }

    /// How many members of values, since this was asked last, are no columns.
    pub fn take_unknown(&mut self) -> u64 {
        self.value.take_unknown()
    }

    /// All columns, and which of their cells were not sent. All is empty then.
    pub fn finish(&mut self) -> Result<(Vec<ArrayRef>, Option<Unchanged>)> {
        let rows = std::mem::take(&mut self.rows);
        let arrays = self.columns.iter_mut().map(Column::finish).collect::<Result<Vec<_>>>()?;
        let masks = std::mem::take(&mut self.unchanged).into_iter().map(|(index, cells)| {
            let mut mask = BooleanBufferBuilder::new(rows);
            mask.append_n(rows, false);
            cells.into_iter().for_each(|row| mask.set_bit(row, true));
            (index, mask.finish())
        });
        let masks: BTreeMap<_, _> = masks.collect();
        Ok((arrays, (!masks.is_empty()).then_some(Unchanged(masks))))
    }

    #[cold]
    fn missing_key(&self) -> Box<Fault> {
        let missing = self
            .key_columns
            .iter()
            .find(|index| self.columns[**index].len() == self.rows || self.columns[**index].ends_with_null());
        let name = missing.map_or("", |index| self.columns[*index].name());
        Fault::new(Code::MissingKey, "it is part of the key, and it is null or not there").within(name)
    }
}

/// What the members of a value and those of a key mean.
fn names(columns: &[Column], key_columns: &[usize], key_from: KeyFrom) -> (Names, Names) {
    let those = |keep: &dyn Fn(usize) -> bool| Names::new((0..columns.len()).filter(|i| keep(*i)).map(|i| (columns[i].name(), i)));
    let value = those(&|index| key_from == KeyFrom::Value || !key_columns.contains(&index));
    // A key that stands in the value, too, is believed where it counts.
    let value = value.and_elsewhere(key_columns.iter().map(|&index| columns[index].name()));
    (value, those(&|index| key_columns.contains(&index)))
}

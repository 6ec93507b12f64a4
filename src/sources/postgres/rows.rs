//! Rows of one table in the making: values go straight into columns.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, BooleanBufferBuilder, BooleanBuilder, Int64Builder, ListBuilder, RecordBatch, StringBuilder};
use arrow::buffer::BooleanBuffer;
use arrow::compute::filter_record_batch;
use arrow::datatypes::{DataType, Field, SchemaRef};

use super::followed::{Followed, FollowedColumn, Metadata};
use super::pgoutput::{Cell, Relation, Tuple};
use super::values::{BadValue, ColumnBuilder, Specials};
use crate::batch::{ChangeBatch, Op, Unchanged};
use crate::error::{Error, Result};

/// What a change says of itself, for the metadata columns.
#[derive(Clone, Copy, Debug)]
pub struct Event {
    /// c, u, d, r or t.
    pub op: &'static str,
    pub lsn: u64,
    pub xid: Option<u32>,
    pub committed_ms: Option<i64>,
}

/// Why a row could not be taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadRow {
    pub column: String,
    pub bad: BadValue,
}

/// See the head of the file.
pub struct Rows {
    schema: SchemaRef,
    columns: Vec<ColumnBuilder>,
    metadata: Vec<(Metadata, MetadataBuilder)>,
    /// A cell that was not sent can neither be filled nor told from one that is null.
    must_be_sent: bool,
    ops: Vec<Op>,
    /// By column, where cells were not sent.
    unchanged: BTreeMap<usize, BooleanBufferBuilder>,
    /// Rows that are to be left out, by their numbers.
    bad: Vec<usize>,
    /// When the newest of the rows was committed.
    newest_ms: Option<i64>,
}

/// How tuples of a relation are laid into the columns of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Places {
    /// By place in the tuple: the column; none where the table does not have it.
    columns: Vec<Option<usize>>,
    /// Columns that the tuple does not have.
    absent: Vec<usize>,
}

impl Places {
    /// By their names.
    pub fn of(relation: &Relation, followed: &Followed) -> Self {
        let column = |name: &str| followed.columns.iter().position(|column| column.name == name);
        let columns: Vec<_> = relation.columns.iter().map(|sent| column(&sent.name)).collect();
        let absent = (0..followed.columns.len()).filter(|column| !columns.contains(&Some(*column)));
        Self {
            absent: absent.collect(),
            columns,
        }
    }

    /// The cells of a tuple that the table has columns for, with the numbers of these.
    pub fn cells<'t>(&'t self, tuple: Tuple<'t>) -> impl Iterator<Item = (usize, Cell<'t>)> {
        let cells = tuple.cells().zip(&self.columns);
        cells.filter_map(|(cell, column)| Some(((*column)?, cell)))
    }

    /// How many columns the relation has.
    pub fn len(&self) -> usize {
        self.columns.len()
    }

    pub fn is_empty(&self) -> bool {
        self.columns.is_empty()
    }
}

/// Copied values, in the order of the columns, with the numbers of these; None is null.
pub fn copied_cells<'v>(followed: &Followed, values: impl Iterator<Item = Option<&'v [u8]>>) -> impl Iterator<Item = (usize, Cell<'v>)> {
    let cells = values.zip(&followed.columns).map(|(value, column)| match value {
        None => Cell::Null,
        Some(value) if column.kind.reads_binary() => Cell::Binary(value),
        Some(value) => Cell::Text(value),
    });
    cells.enumerate()
}

impl Rows {
    pub fn new(followed: &Followed, specials: Specials) -> Self {
        let builder = |metadata: &Metadata| (*metadata, MetadataBuilder::new(*metadata));
        let builder_of = |(number, column): (usize, &FollowedColumn)| {
            // Nothing would tell a row apart whose key became null.
            let specials = if followed.is_key(number) { Specials::Reject } else { specials };
            let builder = ColumnBuilder::new(&column.kind, specials);
            match followed.partitioned.contains(&number) {
                true => builder.of_partition(),
                false => builder,
            }
        };
        Self {
            schema: followed.arrow_schema(),
            columns: followed.columns.iter().enumerate().map(builder_of).collect(),
            metadata: followed.metadata.iter().map(builder).collect(),
            must_be_sent: followed.only_grows() && !followed.metadata.contains(&Metadata::Unchanged),
            ops: Vec::new(),
            unchanged: BTreeMap::new(),
            bad: Vec::new(),
            newest_ms: None,
        }
    }

    /// As they weigh in memory.
    pub fn bytes(&self) -> usize {
        self.columns.iter().map(ColumnBuilder::bytes).sum::<usize>() + self.ops.len() * (1 + 8 * self.metadata.len())
    }

    /// Appends one row. `before` fills cells that were not sent. Of a row that goes, a state needs the key alone. After an error the row is
    /// left out.
    pub fn append(
        &mut self,
        followed: &Followed,
        places: &Places,
        tuple: Tuple<'_>,
        before: Option<Tuple<'_>>,
        op: Op,
        event: &Event,
    ) -> Result<(), BadRow> {
        let mut before = before.map(|tuple| tuple.cells());
        let sent = tuple.cells().zip(places.columns.iter()).filter_map(|(cell, column)| {
            let cell = match (cell, before.as_mut().and_then(Iterator::next)) {
                (Cell::Unchanged, Some(there)) if there != Cell::Null => there,
                _ => cell,
            };
            let column = (*column)?;
            let is_read = op != Op::Delete || followed.is_key(column);
            Some((column, if is_read { cell } else { Cell::Null }))
        });
        let not_sent = places.absent.iter().map(|&column| (column, Cell::Null));
        self.row(followed, sent.chain(not_sent), op, event)
    }

    /// Appends a copied row, whose values are in the order of the columns; None is null.
    pub fn append_copied<'v>(
        &mut self,
        followed: &Followed,
        values: impl Iterator<Item = Option<&'v [u8]>>,
        event: &Event,
    ) -> Result<(), BadRow> {
        self.row(followed, copied_cells(followed, values), Op::Put, event)
    }

    /// All rows of the table are gone.
    pub fn truncate(&mut self, followed: &Followed, op: Op, event: &Event) {
        let row = self.ops.len();
        self.columns.iter_mut().for_each(ColumnBuilder::append_null);
        self.finish_row(followed, row, op, event, &[]);
    }

    /// `cells`: one for each column, with its number.
    fn row<'v>(
        &mut self,
        followed: &Followed,
        cells: impl Iterator<Item = (usize, Cell<'v>)>,
        op: Op,
        event: &Event,
    ) -> Result<(), BadRow> {
        let (row, mut missing, mut failed) = (self.ops.len(), Vec::new(), None);
        for (number, cell) in cells {
            let column = &mut self.columns[number];
            let taken = match cell {
                Cell::Binary(value) if failed.is_none() => column.append_binary(value),
                Cell::Text(value) if failed.is_none() => column.append_text(value),
                Cell::Null if failed.is_none() && followed.is_key(number) => Err(BadValue::missing_key()),
                Cell::Unchanged if failed.is_none() && self.must_be_sent => Err(BadValue::unavailable()),
                _ => {
                    column.append_null();
                    if cell == Cell::Unchanged {
                        missing.push(number);
                    }
                    Ok(())
                }
            };
            if let Err(bad) = taken {
                column.append_null();
                let column = followed.columns[number].name.clone();
                failed = Some(BadRow { column, bad });
            }
        }
        self.finish_row(followed, row, op, event, &missing);
        match failed {
            None => Ok(()),
            Some(bad) => {
                self.bad.push(row);
                Err(bad)
            }
        }
    }

    /// The last row is that of the delete before it, under another key: cells that were not sent are as they were there.
    pub fn moved(&mut self) {
        let Some(deleted) = self.ops.len().checked_sub(2) else { return };
        for cells in self.unchanged.values_mut().filter(|cells| cells.len() == deleted + 2) {
            cells.set_bit(deleted, true);
        }
    }

    fn finish_row(&mut self, followed: &Followed, row: usize, op: Op, event: &Event, missing: &[usize]) {
        for (metadata, builder) in &mut self.metadata {
            builder.append(*metadata, followed, event, missing);
        }
        self.ops.push(op);
        self.newest_ms = self.newest_ms.max(event.committed_ms);
        // A row of changes says by itself what it lacks; only a state is filled.
        if !missing.is_empty() && !followed.only_grows() && op == Op::Put {
            for &column in missing {
                let cells = self.unchanged.entry(column).or_insert_with(|| BooleanBufferBuilder::new(0));
                cells.append_n(row - cells.len(), false);
                cells.append(true);
            }
        }
    }

    /// The rows so far, or None where there are none; the bad ones are not among them.
    pub fn take(&mut self, followed: &Followed) -> Result<Option<ChangeBatch>> {
        let rows = self.ops.len();
        if rows == 0 {
            return Ok(None);
        }
        let own = self.columns.iter_mut().map(ColumnBuilder::finish);
        let metadata = self.metadata.iter_mut().map(|(_, builder)| Ok(builder.finish()));
        let columns: Vec<ArrayRef> = own.chain(metadata).collect::<Result<_>>()?;
        let misfit = |e| Error::bug(format!("the rows of {} do not fit its columns", followed.source())).because(e);
        let mut batch = RecordBatch::try_new(Arc::clone(&self.schema), columns).map_err(misfit)?;
        let mut ops = std::mem::take(&mut self.ops);
        let mut unchanged = Unchanged::default();
        for (column, mut cells) in std::mem::take(&mut self.unchanged) {
            cells.append_n(rows - cells.len(), false);
            unchanged.0.insert(column, cells.finish());
        }
        let (bad, newest_ms) = (std::mem::take(&mut self.bad), self.newest_ms.take());
        if !bad.is_empty() {
            let mut keep = vec![true; rows];
            bad.iter().for_each(|&row| keep[row] = false);
            batch = filter_record_batch(&batch, &BooleanArray::from(keep.clone())).map_err(misfit)?;
            let mut kept = keep.iter();
            ops.retain(|_| kept.next().copied().unwrap_or(false));
            for cells in unchanged.0.values_mut() {
                *cells = keep
                    .iter()
                    .zip(cells.iter())
                    .filter(|(kept, _)| **kept)
                    .map(|(_, cell)| cell)
                    .collect::<BooleanBuffer>();
            }
        }
        unchanged.0.retain(|_, cells| cells.count_set_bits() > 0);
        Ok((!ops.is_empty()).then(|| ChangeBatch {
            table: followed.id.clone(),
            rows: batch,
            ops,
            unchanged: (!unchanged.0.is_empty()).then_some(unchanged),
            newest_ms,
            permit: None,
        }))
    }
}

enum MetadataBuilder {
    Text(StringBuilder),
    Flag(BooleanBuilder),
    Number(Int64Builder),
    Names(ListBuilder<StringBuilder>),
}

impl MetadataBuilder {
    fn new(metadata: Metadata) -> Self {
        match metadata.data_type() {
            DataType::Utf8 => Self::Text(StringBuilder::new()),
            DataType::Boolean => Self::Flag(BooleanBuilder::new()),
            DataType::Int64 => Self::Number(Int64Builder::new()),
            _ => {
                let element = Field::new("element", DataType::Utf8, false);
                Self::Names(ListBuilder::new(StringBuilder::new()).with_field(element))
            }
        }
    }

    fn append(&mut self, metadata: Metadata, followed: &Followed, event: &Event, missing: &[usize]) {
        match (self, metadata) {
            (Self::Text(builder), Metadata::Op) => builder.append_value(event.op),
            (Self::Text(builder), Metadata::Schema) => builder.append_value(&followed.schema),
            (Self::Text(builder), _) => builder.append_value(&followed.table),
            (Self::Flag(builder), _) => builder.append_value(matches!(event.op, "d" | "t")),
            // LSNs that a server can reach in practice are far below the sign.
            (Self::Number(builder), Metadata::Lsn) => builder.append_value(event.lsn.cast_signed()),
            (Self::Number(builder), Metadata::TxId) => builder.append_option(event.xid.map(i64::from)),
            (Self::Number(builder), _) => builder.append_option(event.committed_ms),
            (Self::Names(builder), _) => {
                for &column in missing {
                    builder.values().append_value(&followed.columns[column].name);
                }
                builder.append(true);
            }
        }
    }

    fn finish(&mut self) -> ArrayRef {
        match self {
            Self::Text(builder) => Arc::new(builder.finish()),
            Self::Flag(builder) => Arc::new(builder.finish()),
            Self::Number(builder) => Arc::new(builder.finish()),
            Self::Names(builder) => Arc::new(builder.finish()),
        }
    }
}

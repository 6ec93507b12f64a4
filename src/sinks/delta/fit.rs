//! Rows of a source, made to fit the table's columns by their names.
//!
//! Sources change while they flow, and several producers change at different times: one batch has a column more than the table, the next
//! one lacks some. So the sink follows: `Columns` are the table's and, behind them, those that staged rows have brought; every batch is
//! arranged in their order, null where it has no such column. The commit that publishes the rows gives the table the columns, too.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, RecordBatch};
use arrow::datatypes::{Field, Schema, SchemaRef};

use super::conform::conform;
use crate::batch::{ChangeBatch, Op, Unchanged};
use crate::error::{Error, Result};
use crate::log::columns::{Growth, Widening};
use crate::table::Table;

/// The columns that a sink writes.
#[derive(Clone, Debug)]
pub struct Columns {
    /// The table's name.
    name: Arc<str>,
    widening: Widening,
    /// The table's, as the log last said.
    table: SchemaRef,
    /// With those that staged rows need: what data files have.
    pub written: SchemaRef,
    /// The same for rows in memory: of a row that is deleted there may be only the key.
    pub staged: SchemaRef,
}

impl Columns {
    /// `columns`: the table's, as the log says.
    pub fn of(table: &Table, columns: &SchemaRef) -> Self {
        Self {
            name: table.id.as_str().into(),
            widening: Widening::of(table),
            table: Arc::clone(columns),
            written: Arc::clone(columns),
            staged: nullable(columns),
        }
    }

    /// What the next commit has to give the table; None where it has all.
    pub fn wanted(&self) -> Option<SchemaRef> {
        (self.table != self.written).then(|| Arc::clone(&self.written))
    }

    /// Follows the log, where others may have added columns. True: rows and files are of other columns from now on.
    pub fn follow(&mut self, table: &SchemaRef) -> Result<bool> {
        if Arc::ptr_eq(&self.table, table) {
            return Ok(false);
        }
        self.table = Arc::clone(table);
        self.set(Growth::for_rows(&self.name, table, &self.written, &self.widening)?.applied_to(table))
    }

    /// Takes the columns of a batch in. True: rows and files are of other columns from now on.
    pub fn take_in(&mut self, batch: &ChangeBatch) -> Result<bool> {
        let theirs = batch.rows.schema_ref();
        if same(theirs, &self.written)
            && !self
                .written
                .fields()
                .iter()
                .enumerate()
                .any(|(place, field)| must_relax(field, Some(place), batch))
        {
            return Ok(false);
        }
        // Whether a column may be null is asked of the rows, not of the batch's schema: a source may not know.
        let theirs = Schema::new(
            theirs
                .fields()
                .iter()
                .map(|field| Arc::new(field.as_ref().clone().with_nullable(false)))
                .collect::<Vec<_>>(),
        );
        let growth = Growth::for_rows(&self.name, &self.written, &theirs, &self.widening)?;
        let mut grown = growth.applied_to(&self.written);
        let nullable = grown
            .fields()
            .iter()
            .filter(|field| must_relax(field, theirs.index_of(field.name()).ok(), batch))
            .map(|field| field.name().clone());
        let nullable = Growth {
            nullable: nullable.collect(),
            ..Growth::default()
        };
        grown = nullable.applied_to(&grown);
        self.set(grown)
    }

    /// Arranges a batch, of which [`Self::take_in`] has seen the columns.
    pub fn arrange(&self, batch: &mut ChangeBatch) -> Result<()> {
        arrange(&mut batch.rows, &mut batch.unchanged, &self.staged)
    }

    fn set(&mut self, written: SchemaRef) -> Result<bool> {
        let other = written != self.written;
        if other {
            self.staged = nullable(&written);
        }
        self.written = written;
        Ok(other)
    }
}

/// Brings rows into the order of `columns`, by name. What they have no column for is null.
pub fn arrange(rows: &mut RecordBatch, unchanged: &mut Option<Unchanged>, columns: &SchemaRef) -> Result<()> {
    let misfit = |e| Error::bug("rows do not fit the columns that were made of theirs").because(e);
    let theirs = rows.schema();
    if !Arc::ptr_eq(&theirs, columns) {
        if let Some(Unchanged(cells)) = unchanged {
            let moved = std::mem::take(cells).into_iter().filter_map(|(place, cells)| {
                let name = theirs.fields().get(place)?.name();
                Some((columns.index_of(name).ok()?, cells))
            });
            *cells = moved.collect::<BTreeMap<_, _>>();
        }
        *rows = conform(rows, columns).map_err(misfit)?;
    }
    Ok(())
}

/// Whether both have the same columns, nulls aside.
fn same(one: &SchemaRef, other: &SchemaRef) -> bool {
    Arc::ptr_eq(one, other)
        || one.fields().len() == other.fields().len()
            && one
                .fields()
                .iter()
                .zip(other.fields())
                .all(|(a, b)| a.name() == b.name() && a.data_type() == b.data_type())
}

/// Whether rows that are put have nulls, or nothing at all, in a column that has none so far. `place`: the column's in the batch.
fn must_relax(field: &Field, place: Option<usize>, batch: &ChangeBatch) -> bool {
    if field.is_nullable() {
        return false;
    }
    let puts = || batch.ops.iter().enumerate().filter(|(_, op)| **op == Op::Put);
    match place.map(|place| (place, batch.rows.column(place))) {
        None => puts().next().is_some(),
        Some((_, values)) if values.null_count() == 0 => false,
        Some((place, values)) => {
            // What stands in a cell that was not sent is never written.
            let unsent = batch.unchanged.as_ref().and_then(|unchanged| unchanged.0.get(&place));
            puts().any(|(row, _)| values.is_null(row) && !unsent.is_some_and(|cells| cells.value(row)))
        }
    }
}

fn nullable(columns: &SchemaRef) -> SchemaRef {
    let fields = columns
        .fields()
        .iter()
        .map(|field| Arc::new(field.as_ref().clone().with_nullable(true)));
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}

//! Reading data files back: the key columns of a whole file, or some columns of some rows.

use std::sync::Arc;

use arrow::array::{BooleanArray, BooleanBufferBuilder, RecordBatch};
use arrow::buffer::BooleanBuffer;
use arrow::compute::{concat_batches, filter_record_batch};
use arrow::datatypes::{Fields, Schema, SchemaRef};
use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ArrowReaderOptions, RowSelection, RowSelector};
use parquet::arrow::async_reader::{ParquetRecordBatchStream, ParquetRecordBatchStreamBuilder};
use parquet::errors::ParquetError;
use parquet::file::metadata::PageIndexPolicy;
use roaring::RoaringTreemap;

use super::object::Object;
use crate::error::{Error, Result};
use crate::log::store::fault;
use crate::sinks::delta::conform::conform;

/// Rows of a batch that is read: large enough for the cost of a batch to vanish, small enough to stay in the processor's cache.
const BATCH_ROWS: usize = 32 << 10;

type Builder = ParquetRecordBatchStreamBuilder<Object>;

/// Reads columns of a file, by name and with these types, batch by batch in the order of its rows.
pub struct Rows {
    stream: ParquetRecordBatchStream<Object>,
    schema: SchemaRef,
    path: Path,
    /// How many rows were read so far.
    pub read: u64,
}

impl Rows {
    /// All rows. A column that the file does not have is null: it was added to the table later.
    pub async fn all(object: &Object, schema: &SchemaRef) -> Result<Self> {
        let builder = open(object, PageIndexPolicy::Skip).await?;
        Self::of(object, schema, builder)
    }

    /// The rows of these places, which rise.
    pub async fn at(object: &Object, schema: &SchemaRef, rows: &[u32]) -> Result<Self> {
        let builder = open(object, PageIndexPolicy::Optional).await?;
        let builder = builder.with_row_selection(selection(rows));
        Self::of(object, schema, builder)
    }

    fn of(object: &Object, schema: &SchemaRef, builder: Builder) -> Result<Self> {
        let roots = builder.schema().fields().iter().enumerate();
        let wanted = roots
            .filter(|(_, field)| schema.column_with_name(field.name()).is_some())
            .map(|(root, _)| root);
        let mask = ProjectionMask::roots(builder.parquet_schema(), wanted);
        let stream = builder.with_projection(mask).with_batch_size(BATCH_ROWS).build();
        Ok(Self {
            stream: stream.map_err(|e| unreadable(&object.path, e))?,
            schema: Arc::clone(schema),
            path: object.path.clone(),
            read: 0,
        })
    }

    pub async fn next(&mut self) -> Result<Option<RecordBatch>> {
        let Some(rows) = self.stream.next().await.transpose().map_err(|e| unreadable(&self.path, e))? else {
            return Ok(None);
        };
        self.read += rows.num_rows() as u64;
        conform(&rows, &self.schema).map(Some).map_err(|e| misfit(&self.path, e))
    }

    /// The next rows without those that are dead, where all are read. A batch may have none.
    pub async fn next_alive(&mut self, dead: &RoaringTreemap) -> Result<Option<RecordBatch>> {
        let first = self.read;
        let Some(rows) = self.next().await? else { return Ok(None) };
        let alive = BooleanArray::new(alive(dead, first, rows.num_rows()), None);
        let live = filter_record_batch(&rows, &alive);
        live.map(Some).map_err(|e| Error::bug("a mask does not fit its rows").because(e))
    }

    /// All that is left, as one batch.
    pub async fn collect(self) -> Result<RecordBatch> {
        let (schema, path) = (Arc::clone(&self.schema), self.path.clone());
        let batches: Vec<RecordBatch> = self.stream.try_collect().await.map_err(|e| unreadable(&path, e))?;
        let fitted = batches.iter().map(|rows| conform(rows, &schema)).collect::<Result<Vec<_>, _>>();
        fitted
            .and_then(|batches| concat_batches(&schema, &batches))
            .map_err(|e| misfit(&path, e))
    }
}

async fn open(object: &Object, offsets: PageIndexPolicy) -> Result<Builder> {
    // Arrow's schema in the file's metadata is that of its writer; the types that count are the table's.
    let options = ArrowReaderOptions::new()
        .with_skip_arrow_metadata(true)
        .with_offset_index_policy(offsets);
    Builder::new_with_options(object.clone(), options)
        .await
        .map_err(|e| unreadable(&object.path, e))
}

/// Runs of rows to take and to skip. The last run to skip may be left out.
fn selection(rows: &[u32]) -> RowSelection {
    let mut runs: Vec<RowSelector> = Vec::new();
    let mut next = 0;
    for &row in rows {
        let row = row as usize;
        if row > next {
            runs.push(RowSelector::skip(row - next));
        }
        runs.push(RowSelector::select(1));
        next = row + 1;
    }
    // Runs of single rows are joined here.
    runs.into()
}

/// Which of the rows from `first` on are not dead.
fn alive(dead: &RoaringTreemap, first: u64, rows: usize) -> BooleanBuffer {
    let mut bits = BooleanBufferBuilder::new(rows);
    bits.append_n(rows, true);
    let mut dead = dead.iter();
    dead.advance_to(first);
    for row in dead.take_while(|&row| row < first + rows as u64) {
        bits.set_bit((row - first) as usize, false);
    }
    bits.finish()
}

/// Some columns of a schema, in the order of their names here.
pub fn columns<'a>(schema: &Schema, names: impl IntoIterator<Item = &'a String>) -> SchemaRef {
    let fields = names
        .into_iter()
        .filter_map(|name| schema.fields().find(name))
        .map(|(_, field)| Arc::clone(field));
    Arc::new(Schema::new(fields.collect::<Fields>()))
}

fn unreadable(path: &Path, error: ParquetError) -> Error {
    match error {
        // The store's own error says whether waiting helps.
        ParquetError::External(inner) => match inner.downcast::<object_store::Error>() {
            Ok(store) => fault(*store, &format!("read the data file {path}")),
            Err(other) => Error::data("bad_file", format!("the data file {path} cannot be read; restore it")).because(other),
        },
        other => Error::data(
            "bad_file",
            format!("the data file {path} is not the Parquet file that the table takes it for; restore it"),
        )
        .because(other),
    }
}

fn misfit(path: &Path, error: arrow::error::ArrowError) -> Error {
    Error::data(
        "bad_file",
        format!("the columns of the data file {path} do not fit the table's; rewrite or restore it"),
    )
    .because(error)
}

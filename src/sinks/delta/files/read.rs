//! Reading data files back: the key columns of a whole file, or some columns of some rows.

use std::sync::Arc;

use arrow::array::{BooleanArray, BooleanBufferBuilder, RecordBatch};
use arrow::buffer::BooleanBuffer;
use arrow::compute::{concat_batches, filter_record_batch};
use arrow::datatypes::{DataType, FieldRef, Fields, Schema, SchemaRef, TimeUnit};
use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions, RowSelection, RowSelector};
use parquet::arrow::async_reader::{ParquetRecordBatchStream, ParquetRecordBatchStreamBuilder};
use parquet::basic::Type as PhysicalType;
use parquet::errors::ParquetError;
use parquet::file::metadata::PageIndexPolicy;
use roaring::RoaringTreemap;

use super::object::Object;
use crate::error::{Error, Result};
use crate::sinks::delta::conform::conform;

/// Rows of a batch that is read: large enough for the cost of a batch to vanish, small enough to stay in the processor's cache.
const BATCH_ROWS: usize = 32 << 10;

type Builder = ParquetRecordBatchStreamBuilder<Object>;

/// Reads columns of a file, by name and with these types, batch by batch in the order of its rows.
pub struct Rows {
    stream: ParquetRecordBatchStream<Object>,
    schema: SchemaRef,
    object: Object,
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
            stream: stream.map_err(|e| unfit(&object.path, e))?,
            schema: Arc::clone(schema),
            object: object.clone(),
            read: 0,
        })
    }

    pub async fn next(&mut self) -> Result<Option<RecordBatch>> {
        let rows = match self.stream.next().await {
            None => return Ok(None),
            Some(Ok(rows)) => rows,
            Some(Err(e)) => return Err(unreadable(&self.object, e).await),
        };
        self.read += rows.num_rows() as u64;
        conform(&rows, &self.schema).map(Some).map_err(|e| misfit(&self.object.path, e))
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
        let Self {
            stream, schema, object, ..
        } = self;
        let batches: Vec<RecordBatch> = match stream.try_collect().await {
            Ok(batches) => batches,
            Err(e) => return Err(unreadable(&object, e).await),
        };
        let fitted = batches.iter().map(|rows| conform(rows, &schema)).collect::<Result<Vec<_>, _>>();
        fitted
            .and_then(|batches| concat_batches(&schema, &batches))
            .map_err(|e| misfit(&object.path, e))
    }
}

async fn open(object: &Object, offsets: PageIndexPolicy) -> Result<Builder> {
    // Arrow's schema in the file's metadata is that of its writer; the types that count are the table's.
    let options = ArrowReaderOptions::new()
        .with_skip_arrow_metadata(true)
        .with_offset_index_policy(offsets);
    let mut metadata = match ArrowReaderMetadata::load_async(&mut object.clone(), options.clone()).await {
        Ok(metadata) => metadata,
        Err(e) => return Err(unreadable(object, e).await),
    };
    if let Some(schema) = micros_of_int96(&metadata) {
        metadata = ArrowReaderMetadata::try_new(Arc::clone(metadata.metadata()), options.with_schema(schema))
            .map_err(|e| unfit(&object.path, e))?;
    }
    Ok(Builder::new_with_metadata(object.clone(), metadata))
}

/// The columns of a file with Parquet's old timestamps of 96 bits (Spark writes them unless it is told otherwise) read as microseconds.
/// The Parquet library takes them for nanoseconds, which wrap around outside of the years 1677 to 2262. None where the file has none.
fn micros_of_int96(metadata: &ArrowReaderMetadata) -> Option<SchemaRef> {
    let mut leaves = metadata.parquet_schema().columns().iter().map(|column| column.physical_type());
    if !leaves.clone().any(|kind| kind == PhysicalType::INT96) {
        return None;
    }
    // The leaves of both schemas stand in one order.
    let fields: Option<Fields> = metadata
        .schema()
        .fields()
        .iter()
        .map(|field| with_micros(field, &mut leaves))
        .collect();
    fields.map(|fields| Arc::new(Schema::new(fields)))
}

fn with_micros(field: &FieldRef, leaves: &mut impl Iterator<Item = PhysicalType>) -> Option<FieldRef> {
    let kind = match field.data_type() {
        DataType::Struct(fields) => DataType::Struct(fields.iter().map(|field| with_micros(field, leaves)).collect::<Option<Fields>>()?),
        DataType::List(item) => DataType::List(with_micros(item, leaves)?),
        DataType::Map(entries, sorted) => DataType::Map(with_micros(entries, leaves)?, *sorted),
        kind => match leaves.next()? {
            PhysicalType::INT96 => DataType::Timestamp(TimeUnit::Microsecond, None),
            _ => kind.clone(),
        },
    };
    Some(Arc::new(field.as_ref().clone().with_data_type(kind)))
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

async fn unreadable(object: &Object, error: ParquetError) -> Error {
    match error {
        // The store's own error says whether waiting helps.
        ParquetError::External(inner) => match inner.downcast::<object_store::Error>() {
            Ok(store) => object.fault(*store).await,
            Err(other) => Error::data("bad_file", format!("the data file {} cannot be read; restore it", object.path)).because(other),
        },
        other => unfit(&object.path, other),
    }
}

fn unfit(path: &Path, error: ParquetError) -> Error {
    Error::data(
        "bad_file",
        format!("the data file {path} is not the Parquet file that the table takes it for; restore it"),
    )
    .because(error)
}

fn misfit(path: &Path, error: arrow::error::ArrowError) -> Error {
    Error::data(
        "bad_file",
        format!("the columns of the data file {path} do not fit the table's; rewrite or restore it"),
    )
    .because(error)
}

#[cfg(test)]
mod tests {
    use arrow::array::{AsArray, StructArray};
    use arrow::datatypes::{Field, TimestampMicrosecondType};
    use object_store::ObjectStoreExt;
    use object_store::memory::InMemory;
    use parquet::data_type::{Int64Type, Int96, Int96Type};
    use parquet::file::writer::SerializedFileWriter;
    use parquet::schema::parser::parse_message_type;

    use super::*;

    /// Midnight of a day since 1970, and so many nanoseconds.
    fn int96(day: i64, nanos: u64) -> Int96 {
        Int96::from(vec![nanos as u32, (nanos >> 32) as u32, (2_440_588 + day) as u32])
    }

    #[tokio::test]
    async fn v2_timestamps_of_96_bits_are_what_they_say_in_any_year() {
        let message = "message m { required int96 t; required group s { required int64 n; required int96 t; } }";
        let schema = Arc::new(parse_message_type(message).unwrap());
        // The first and the last moment that SQL knows, and one that nanoseconds hold.
        let moments = [(-719_162, 0), (2_932_896, 86_399_999_999_000), (1, 1_000)];
        let values: Vec<Int96> = moments.iter().map(|&(day, nanos)| int96(day, nanos)).collect();
        let mut writer = SerializedFileWriter::new(Vec::new(), schema, Default::default()).unwrap();
        let mut group = writer.next_row_group().unwrap();
        for place in 0..3 {
            let mut column = group.next_column().unwrap().unwrap();
            match place {
                1 => column.typed::<Int64Type>().write_batch(&[1, 2, 3], None, None).map(drop).unwrap(),
                _ => column.typed::<Int96Type>().write_batch(&values, None, None).map(drop).unwrap(),
            }
            column.close().unwrap();
        }
        group.close().unwrap();
        let body = writer.into_inner().unwrap();
        let object = Object {
            store: Arc::new(InMemory::new()),
            path: Path::from("x"),
            size: body.len() as u64,
            held_at: None,
        };
        object.store.put(&object.path, body.into()).await.unwrap();
        let utc = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
        let inner = Fields::from(vec![Field::new("n", DataType::Int64, true), Field::new("t", utc.clone(), true)]);
        let columns = Schema::new(vec![Field::new("t", utc, true), Field::new("s", DataType::Struct(inner), true)]);
        let rows = Rows::all(&object, &Arc::new(columns)).await.unwrap().collect().await.unwrap();
        let within: &StructArray = rows.column(1).as_struct();
        for column in [rows.column(0), within.column(1)] {
            let read = column.as_primitive::<TimestampMicrosecondType>().values();
            let expected = moments.map(|(day, nanos)| day * 86_400_000_000 + (nanos / 1000) as i64);
            assert_eq!(read.to_vec(), expected);
        }
    }
}

//! Data files: rows to Parquet in the object store, with the statistics that the log will tell of them.
//!
//! A file is encoded as its rows come and goes to the store in parts, so that it costs the memory of one row group, whatever its size.
//! Nobody sees it before it is finished, and it is no part of the table before a commit says so: after an error it is an orphan at
//! worst, and vacuum takes it.

mod object;
mod pieces;
pub mod read;

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use object_store::ObjectStore;
use object_store::path::Path;
use parquet::arrow::arrow_writer::ArrowWriterOptions;
use parquet::arrow::{ArrowSchemaConverter, ArrowWriter};
use parquet::basic::{Compression, Type as PhysicalType, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::schema::types::ColumnPath;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use roaring::RoaringTreemap;
use uuid::Uuid;

pub use object::Object;
use pieces::Pieces;

use super::stats::Statistics;
use super::upload::Upload;
use crate::error::{Error, Result};
use crate::log::store::fault;
use crate::log::{Indexed, NewFile};

/// Encoded bytes of a row group: what a file in the making costs in memory, and what a reader takes at once.
const ROW_GROUP_BYTES_MAX: usize = 32 << 20;
/// A row group is such a part of what a table may take: one is written for the next commit, compaction reads one, which is larger when it is
/// unpacked, and writes one, and of each file that is written, parts are on their way to the store.
const ROW_GROUP_PART: usize = 8;
/// Below it row groups are all headers and no compression, however small the budget.
const ROW_GROUP_BYTES_MIN: usize = 1 << 20;
/// Rows of a row group: what other writers take.
const ROW_GROUP_ROWS: usize = 1 << 20;

/// Null as the value of a partition's folder, since Hive.
const NULL_VALUE: &str = "__HIVE_DEFAULT_PARTITION__";
/// Bytes of a name that every file system takes.
const FOLDER_BYTES_MAX: usize = 255;
/// All but what RFC 3986 calls unreserved.
const IN_NAMES: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// The store of a table and how its data files are written.
#[derive(Clone, Debug)]
pub struct Files {
    pub store: Arc<dyn ObjectStore>,
    /// The table's name and place, for messages.
    pub table: Arc<str>,
    /// The columns of a data file: the table's without those that it is partitioned by.
    pub schema: SchemaRef,
    /// Bytes at which a file is full.
    target: u64,
    properties: WriterProperties,
    blank: Statistics,
}

impl Files {
    /// `indexed`: which columns get statistics. `target`: bytes at which a file is full. `memory`: bytes that a table may take, for files
    /// that are written and read at once.
    pub fn new(
        store: Arc<dyn ObjectStore>,
        table: Arc<str>,
        schema: SchemaRef,
        indexed: &Indexed,
        target: u64,
        memory: usize,
    ) -> Result<Self> {
        let level = ZstdLevel::try_new(1).map_err(|e| Error::bug("zstd has a level 1").because(e))?;
        let mut properties = WriterProperties::builder()
            .set_compression(Compression::ZSTD(level))
            .set_max_row_group_row_count(Some(ROW_GROUP_ROWS))
            .set_max_row_group_bytes(Some((memory / ROW_GROUP_PART).clamp(ROW_GROUP_BYTES_MIN, ROW_GROUP_BYTES_MAX)))
            // Bounds of row groups are for readers that skip them; bounds of single pages cost more than they save.
            .set_statistics_enabled(EnabledStatistics::Chunk)
            .set_created_by(concat!("alluvium/", env!("CARGO_PKG_VERSION")).to_owned());
        for path in floats(&schema)? {
            properties = properties.set_column_statistics_enabled(path, EnabledStatistics::None);
        }
        let properties = properties.build();
        let blank = Statistics::new(schema.fields(), indexed);
        Ok(Self {
            store,
            table,
            schema,
            target,
            properties,
            blank,
        })
    }

    /// Begins a file, in the folder of its partition if it has one.
    pub fn begin(&self, partition_values: BTreeMap<String, Option<String>>) -> Result<FileWriter> {
        let name = format!("part-{}.zstd.parquet", Uuid::new_v4());
        let key = format!("{}{name}", folder(&partition_values));
        let location = Path::parse(&key).map_err(|e| Error::bug(format!("{key} is no path in a store")).because(e))?;
        // Readers take the types from Parquet's own schema; Arrow's beside it would only be one more thing to disagree with.
        let options = ArrowWriterOptions::new()
            .with_properties(self.properties.clone())
            .with_skip_arrow_metadata(true);
        let encoder = ArrowWriter::try_new_with_options(Pieces::default(), Arc::clone(&self.schema), options);
        Ok(FileWriter {
            upload: Upload::new(Arc::clone(&self.store), location),
            encoder: encoder.map_err(|e| self.unencodable(e))?,
            uploaded: 0,
            statistics: self.blank.clone(),
            partition_values,
            // The log tells paths as they stand in a URL.
            path: key.replace('%', "%25").into(),
            files: self.clone(),
        })
    }

    fn unencodable(&self, error: ParquetError) -> Error {
        Error::bug(format!("rows of {} cannot be written as Parquet", self.table)).because(error)
    }
}

/// The columns of floating point numbers. Parquet's bounds pass over NaN, which is larger than any number to most readers: so they would
/// pass over row groups with NaN in them. Delta's statistics, which know of it, bound the file.
fn floats(schema: &SchemaRef) -> Result<Vec<ColumnPath>> {
    let parquet = ArrowSchemaConverter::new().convert(schema);
    let parquet = parquet.map_err(|e| Error::bug("a table has columns that Parquet has not").because(e))?;
    let floats = parquet
        .columns()
        .iter()
        .filter(|column| matches!(column.physical_type(), PhysicalType::FLOAT | PhysicalType::DOUBLE));
    Ok(floats.map(|column| column.path().clone()).collect())
}

/// The folder of a partition, `column=value/` for each column, percent-encoded where a name of a folder or a URL would not take it: Polars takes
/// the values from nowhere else. It was also seen to pass over deletion vectors where such a name is encoded; that harms no table here, for only
/// append tables have partitions, and no row of theirs is ever deleted. Where it makes a longer name than file systems have, the file lies at
/// the table's root.
fn folder(partition_values: &BTreeMap<String, Option<String>>) -> String {
    let names = partition_values.iter().map(|(column, value)| {
        let value = value.as_deref().unwrap_or(NULL_VALUE);
        format!("{}={}", utf8_percent_encode(column, IN_NAMES), utf8_percent_encode(value, IN_NAMES))
    });
    let names: Vec<String> = names.collect();
    if names.iter().any(|name| name.len() > FOLDER_BYTES_MAX) {
        return String::new();
    }
    names.iter().map(|name| format!("{name}/")).collect()
}

/// One data file in the making.
pub struct FileWriter {
    files: Files,
    path: Arc<str>,
    partition_values: BTreeMap<String, Option<String>>,
    encoder: ArrowWriter<Pieces>,
    statistics: Statistics,
    upload: Upload,
    uploaded: usize,
}

impl FileWriter {
    pub fn path(&self) -> &Arc<str> {
        &self.path
    }

    /// Rows written so far: the place of the next one.
    pub fn rows(&self) -> u64 {
        self.statistics.rows()
    }

    /// Whether the file has come to its size, rows that are not yet encoded estimated: then it is to be finished, and the next one begun.
    pub fn is_full(&self) -> bool {
        (self.uploaded + self.encoder.in_progress_size()) as u64 >= self.files.target
    }

    /// Bytes that the file holds in memory.
    pub fn memory(&self) -> usize {
        self.encoder.memory_size()
    }

    /// Appends rows of the file's columns.
    pub async fn write(&mut self, rows: &RecordBatch) -> Result<()> {
        self.statistics.update(rows)?;
        self.encoder.write(rows).map_err(|e| self.files.unencodable(e))?;
        self.drain().await
    }

    /// Ends the row group, which frees the memory that it takes.
    pub async fn flush(&mut self) -> Result<()> {
        self.encoder.flush().map_err(|e| self.files.unencodable(e))?;
        self.drain().await
    }

    /// Makes the file visible in the store, and tells what the log has to say of it.
    pub async fn finish(mut self) -> Result<NewFile> {
        self.encoder.finish().map_err(|e| self.files.unencodable(e))?;
        self.drain().await?;
        self.upload
            .finish()
            .await
            .map_err(|e| fault(e, &format!("write {} of {}", self.path, self.files.table)))?;
        Ok(NewFile {
            path: self.path,
            size: self.uploaded as u64,
            rows: self.statistics.rows(),
            partition_values: self.partition_values,
            stats: self.statistics.to_json().into(),
            deleted: RoaringTreemap::new(),
        })
    }

    /// Gives the file up.
    pub async fn abandon(self) {
        self.upload.abandon().await;
    }

    /// Hands what is encoded to the upload.
    async fn drain(&mut self) -> Result<()> {
        for encoded in self.encoder.inner_mut().take() {
            self.uploaded += encoded.len();
            let sent = self.upload.write(encoded).await;
            sent.map_err(|e| fault(e, &format!("write {} of {}", self.path, self.files.table)))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{Float32Array, Float64Array, Int64Array, ListArray, StructArray};
    use arrow::datatypes::{DataType, Field, Float64Type, Schema};
    use object_store::ObjectStoreExt;
    use object_store::memory::InMemory;
    use parquet::file::reader::{FileReader, SerializedFileReader};

    use super::*;

    #[tokio::test]
    async fn v6_parquet_says_nothing_of_floating_point_numbers_at_any_depth() {
        let list = ListArray::from_iter_primitive::<Float64Type, _, _>([Some([Some(f64::NAN)]), Some([Some(1.0)])]);
        let within: StructArray = vec![(
            Arc::new(Field::new("d", DataType::Float64, true)),
            Arc::new(Float64Array::from(vec![f64::NAN, 1.0])) as arrow::array::ArrayRef,
        )]
        .into();
        let rows = RecordBatch::try_from_iter([
            ("n", Arc::new(Int64Array::from(vec![1, 2])) as arrow::array::ArrayRef),
            ("f", Arc::new(Float32Array::from(vec![f32::NAN, 1.0]))),
            ("s", Arc::new(within)),
            ("l", Arc::new(list)),
        ])
        .unwrap();
        let schema: Schema = rows.schema().as_ref().clone();
        let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        let files = Files::new(
            Arc::clone(&store),
            "t".into(),
            Arc::new(schema),
            &Indexed::First(32),
            1 << 20,
            1 << 20,
        )
        .unwrap();
        let mut writer = files.begin(BTreeMap::new()).unwrap();
        writer.write(&rows).await.unwrap();
        let file = writer.finish().await.unwrap();
        let body = store.get(&Path::from(&*file.path)).await.unwrap().bytes().await.unwrap();
        let reader = SerializedFileReader::new(body).unwrap();
        let bounded: Vec<bool> = reader
            .metadata()
            .row_group(0)
            .columns()
            .iter()
            .map(|column| column.statistics().is_some())
            .collect();
        assert_eq!(bounded, [true, false, false, false]);
    }

    #[test]
    fn v18_a_value_that_makes_no_name_of_a_folder_lies_at_the_root() {
        let of = |value: &str| folder(&BTreeMap::from([("p".to_owned(), Some(value.to_owned()))]));
        assert_eq!(of("a b/c"), "p=a%20b%2Fc/");
        assert_eq!(of(&"x".repeat(253)).len(), 256);
        assert_eq!(of(&"x".repeat(254)), "");
        assert_eq!(folder(&BTreeMap::new()), "");
    }
}

//! The rows of an answer as a Parquet file.

use std::io::Write;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use deltalake::datafusion::parquet::arrow::ArrowWriter;
use deltalake::datafusion::parquet::basic::Compression;
use deltalake::datafusion::parquet::file::properties::WriterProperties;

use crate::error::{Error, Result};

/// Writes one file; only `finish` makes it whole.
pub struct ParquetWriter<W: Write + Send>(ArrowWriter<W>);

impl<W: Write + Send> ParquetWriter<W> {
    pub fn new(out: W, schema: SchemaRef) -> Result<Self> {
        let properties = WriterProperties::builder().set_compression(Compression::SNAPPY).build();
        let unfit = |e| Error::config("usage", "the answer has a column that Parquet cannot hold: cast it").because(e);
        ArrowWriter::try_new(out, schema, Some(properties)).map(Self).map_err(unfit)
    }

    pub fn write(&mut self, batch: &RecordBatch) -> Result<(), ArrowError> {
        Ok(self.0.write(batch)?)
    }

    pub fn finish(self) -> Result<(), ArrowError> {
        let mut out = self.0.into_inner()?;
        Ok(out.flush()?)
    }
}

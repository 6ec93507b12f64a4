//! `alluvium query`: SQL over the tables at a moment.

use std::fs::File;
use std::io::{self, BufWriter, IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use arrow::array::RecordBatch;
use arrow::csv;
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use arrow::json::LineDelimitedWriter;
use arrow::util::pretty::pretty_format_batches_with_schema;
use clap::{Args, ValueEnum};

use super::moment::{Moment, Tables};
use crate::error::{Error, Result};
use crate::query::{self, Rows, parquet::ParquetWriter};

#[derive(Debug, Args)]
pub(super) struct QueryArguments {
    /// One statement. The tables have their names of the configuration; in quotes where they are not plain
    #[arg(value_name = "SQL")]
    sql: String,
    #[command(flatten)]
    moment: Moment,
    #[command(flatten)]
    tables: Tables,
    /// How the rows are written
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    /// Where to write them [default: stdout]
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Format {
    #[default]
    Table,
    /// One JSON object a line
    Json,
    Csv,
    Parquet,
}

pub(super) async fn query(arguments: &QueryArguments) -> Result<ExitCode> {
    let when = arguments.moment.when()?;
    if arguments.format == Format::Parquet && arguments.output.is_none() && io::stdout().is_terminal() {
        return Err(Error::config("usage", "Parquet is not for a terminal: name a file with --output"));
    }
    let rows = query::query(&arguments.sql, &arguments.tables.open().await?, &when).await?;
    match &arguments.output {
        None => write(rows, arguments.format, io::stdout()).await,
        Some(file) => {
            let cannot = |e| Error::config("cannot_create", format!("{} cannot be written", file.display())).because(e);
            write(rows, arguments.format, BufWriter::new(File::create(file).map_err(cannot)?)).await
        }
    }
    .map(|()| ExitCode::SUCCESS)
}

/// Writes rows as they come; only a table for people must know all of them to be as wide as they are.
async fn write(mut rows: Rows, format: Format, out: impl Write + Send) -> Result<()> {
    let schema = rows.schema.clone();
    let mut writer = Writer::new(format, schema, out)?;
    while let Some(batch) = rows.next().await? {
        match writer.write(&batch) {
            Err(failure) if is_broken_pipe(&failure) => return Ok(()),
            written => written.map_err(unwritten)?,
        }
    }
    match writer.finish() {
        Err(failure) if is_broken_pipe(&failure) => Ok(()),
        finished => finished.map_err(unwritten),
    }
}

enum Writer<W: Write + Send> {
    Table(SchemaRef, Vec<RecordBatch>, W),
    Json(LineDelimitedWriter<W>),
    Csv(csv::Writer<W>),
    Parquet(ParquetWriter<W>),
}

impl<W: Write + Send> Writer<W> {
    fn new(format: Format, schema: SchemaRef, out: W) -> Result<Self> {
        Ok(match format {
            Format::Table => Writer::Table(schema, Vec::new(), out),
            Format::Json => Writer::Json(LineDelimitedWriter::new(out)),
            Format::Csv => Writer::Csv(csv::Writer::new(out)),
            Format::Parquet => Writer::Parquet(ParquetWriter::new(out, schema)?),
        })
    }

    fn write(&mut self, batch: &RecordBatch) -> Result<(), ArrowError> {
        match self {
            Writer::Table(_, batches, _) => {
                batches.push(batch.clone());
                Ok(())
            }
            Writer::Json(writer) => writer.write(batch),
            Writer::Csv(writer) => writer.write(batch),
            Writer::Parquet(writer) => writer.write(batch),
        }
    }

    fn finish(self) -> Result<(), ArrowError> {
        match self {
            Writer::Table(schema, batches, mut out) => {
                let text = pretty_format_batches_with_schema(schema, &batches)?;
                writeln!(out, "{text}").and_then(|()| out.flush()).map_err(ArrowError::from)
            }
            Writer::Json(mut writer) => writer.finish().and_then(|()| writer.into_inner().flush().map_err(ArrowError::from)),
            Writer::Csv(writer) => writer.into_inner().flush().map_err(ArrowError::from),
            Writer::Parquet(writer) => writer.finish(),
        }
    }
}

/// The reader of a pipe went away: it has seen what it wanted.
fn is_broken_pipe(failure: &ArrowError) -> bool {
    matches!(failure, ArrowError::IoError(_, e) if e.kind() == io::ErrorKind::BrokenPipe)
}

fn unwritten(failure: ArrowError) -> Error {
    Error::config("cannot_create", "the result cannot be written").because(failure)
}

//! `alluvium query`: SQL over the tables at a moment.

mod json;
mod lines;
mod times;

use std::fs::{self, File};
use std::io::{self, BufWriter, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arrow::array::RecordBatch;
use arrow::csv;
use arrow::datatypes::{DataType, SchemaRef};
use arrow::error::ArrowError;
use arrow::json::LineDelimitedWriter;
use clap::{Args, ValueEnum};

use self::lines::Lines;
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
    /// Null and an empty text are alike in it
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
        Some(file) => write_to(rows, arguments.format, file).await,
    }
    .map(|()| ExitCode::SUCCESS)
}

/// Writes a file beside its place, and gives it its name when it is whole: what fails half-way leaves what was there.
async fn write_to(rows: Rows, format: Format, file: &Path) -> Result<()> {
    let cannot = |e| Error::config("cannot_create", format!("{} cannot be written", file.display())).because(e);
    // A pipe or a device is written to as it is.
    let is_plain = fs::metadata(file).map_or(true, |found| found.is_file());
    if !is_plain {
        return write(rows, format, BufWriter::new(File::create(file).map_err(cannot)?)).await;
    }
    let part = file.with_added_extension("part");
    let out = BufWriter::new(File::create(&part).map_err(cannot)?);
    let written = match write(rows, format, out).await {
        Ok(()) => fs::rename(&part, file).map_err(cannot),
        Err(failure) => Err(failure),
    };
    if written.is_err() {
        // What is left behind says by its name that it is not whole.
        let _ = fs::remove_file(&part);
    }
    written
}

/// Writes rows as they come.
async fn write(mut rows: Rows, format: Format, out: impl Write + Send) -> Result<()> {
    let gone = Arc::new(AtomicBool::new(false));
    let out = Pipe {
        out,
        gone: Arc::clone(&gone),
    };
    let mut writer = Writer::new(format, rows.schema.clone(), out)?;
    while let Some(batch) = rows.next().await? {
        if format != Format::Parquet {
            times::must_be_written(&batch)?;
        }
        writer.write(&batch).map_err(unwritten)?;
        if gone.load(Ordering::Relaxed) {
            return Ok(());
        }
    }
    writer.finish().map_err(unwritten)
}

/// A place to write to whose reader may go away (`| head`): it has seen what it wanted then, and the rest goes nowhere.
struct Pipe<W> {
    out: W,
    gone: Arc<AtomicBool>,
}

impl<W> Pipe<W> {
    fn unless_gone<T>(&self, done: io::Result<T>, instead: T) -> io::Result<T> {
        match done {
            Err(failure) if failure.kind() == io::ErrorKind::BrokenPipe => {
                self.gone.store(true, Ordering::Relaxed);
                Ok(instead)
            }
            done => done,
        }
    }
}

impl<W: Write> Write for Pipe<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.out.write(bytes);
        self.unless_gone(written, bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        let flushed = self.out.flush();
        self.unless_gone(flushed, ())
    }
}

enum Writer<W: Write + Send> {
    Table(Lines<W>),
    Json(LineDelimitedWriter<W>),
    Csv(csv::Writer<W>),
    Parquet(ParquetWriter<W>),
}

impl<W: Write + Send> Writer<W> {
    fn new(format: Format, schema: SchemaRef, out: W) -> Result<Self> {
        Ok(match format {
            Format::Table => Writer::Table(Lines::new(schema, out)),
            Format::Json => Writer::Json(json::writer(&schema, out)?),
            Format::Csv => Writer::Csv(csv_writer(schema, out)?),
            Format::Parquet => Writer::Parquet(ParquetWriter::new(out, schema)?),
        })
    }

    fn write(&mut self, batch: &RecordBatch) -> Result<(), ArrowError> {
        match self {
            Writer::Table(lines) => lines.write(batch),
            Writer::Json(writer) => writer.write(batch),
            Writer::Csv(writer) => writer.write(batch),
            Writer::Parquet(writer) => writer.write(batch),
        }
    }

    fn finish(self) -> Result<(), ArrowError> {
        match self {
            Writer::Table(lines) => lines.finish(),
            Writer::Json(mut writer) => writer.finish().and_then(|()| writer.into_inner().flush().map_err(ArrowError::from)),
            Writer::Csv(writer) => writer.into_inner().flush().map_err(ArrowError::from),
            Writer::Parquet(writer) => writer.finish(),
        }
    }
}

/// The header is there before the first row, and without any.
fn csv_writer<W: Write>(schema: SchemaRef, out: W) -> Result<csv::Writer<W>> {
    if let Some(nested) = schema.fields().iter().find(|field| field.data_type().is_nested()) {
        let name = nested.name();
        let part = match nested.data_type() {
            DataType::Struct(_) | DataType::Map(..) => "'part'",
            _ => "1",
        };
        let what =
            format!("column `{name}` has parts, which CSV cannot hold: ask for them one by one (`{name}[{part}]`), or use --format json");
        return Err(Error::config("usage", what));
    }
    let mut writer = csv::Writer::new(out);
    writer.write(&RecordBatch::new_empty(schema)).map_err(unwritten)?;
    Ok(writer)
}

fn unwritten(failure: ArrowError) -> Error {
    Error::config("cannot_create", "the result cannot be written").because(failure)
}

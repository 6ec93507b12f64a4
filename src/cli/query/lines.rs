//! An answer as a table for people: columns as wide as what stands in them.
//!
//! How wide that is, only the last row tells. So a long answer is written in parts, each with a head and widths of its own: the first rows are
//! there before the last are read, and memory holds one part.

use std::io::Write;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use arrow::util::pretty::pretty_format_batches_with_schema;

/// Rows after which a part ends, with the batch that they are in.
const ROWS_OF_A_PART: usize = 10_000; // More than people look at, and few enough to be kept.

pub(super) struct Lines<W> {
    schema: SchemaRef,
    part: Vec<RecordBatch>,
    rows: usize,
    any_written: bool,
    out: W,
}

impl<W: Write> Lines<W> {
    pub(super) fn new(schema: SchemaRef, out: W) -> Self {
        Self {
            schema,
            part: Vec::new(),
            rows: 0,
            any_written: false,
            out,
        }
    }

    pub(super) fn write(&mut self, batch: &RecordBatch) -> Result<(), ArrowError> {
        self.part.push(batch.clone());
        self.rows += batch.num_rows();
        if self.rows < ROWS_OF_A_PART { Ok(()) } else { self.write_part() }
    }

    fn write_part(&mut self) -> Result<(), ArrowError> {
        let text = pretty_format_batches_with_schema(Arc::clone(&self.schema), &self.part)?;
        writeln!(self.out, "{text}")?;
        self.part.clear();
        (self.rows, self.any_written) = (0, true);
        Ok(())
    }

    /// Without any row there is a head all the same.
    pub(super) fn finish(mut self) -> Result<(), ArrowError> {
        if self.rows > 0 || !self.any_written {
            self.write_part()?;
        }
        Ok(self.out.flush()?)
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{Int64Array, RecordBatchOptions};
    use arrow::datatypes::{DataType, Field, Schema};

    use super::*;

    fn written(batches: &[usize]) -> String {
        let schema = Arc::new(Schema::new(vec![Field::new("n", DataType::Int64, false)]));
        let mut text = Vec::new();
        let mut lines = Lines::new(Arc::clone(&schema), &mut text);
        for &rows in batches {
            let column = Arc::new(Int64Array::from_iter_values(0..rows as i64));
            let options = RecordBatchOptions::new().with_row_count(Some(rows));
            lines
                .write(&RecordBatch::try_new_with_options(Arc::clone(&schema), vec![column], &options).unwrap())
                .unwrap();
        }
        lines.finish().unwrap();
        String::from_utf8(text).unwrap()
    }

    #[test]
    fn a_long_table_is_written_in_parts_and_an_empty_one_has_its_head() {
        let full = ROWS_OF_A_PART;
        for (batches, heads) in [
            (&[][..], 1),
            (&[0], 1),
            (&[3, 4], 1),
            (&[full], 1),
            (&[full, 0], 1),
            (&[full - 1, 1, 1], 2),
            (&[full, full, 1], 3),
        ] {
            let text = written(batches);
            let rows = text
                .lines()
                .filter(|line| line.starts_with("| ") && !line.starts_with("| n "))
                .count();
            assert_eq!(text.lines().filter(|line| line.starts_with("| n ")).count(), heads, "{batches:?}");
            assert_eq!(rows, batches.iter().sum::<usize>(), "{batches:?}");
        }
    }
}

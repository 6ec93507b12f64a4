//! Values of one type as values of another that holds them: what a file of older columns, or a source with fewer, has for the table.
//!
//! Fields of structs are matched by their names at any depth, and one that is not there is null. Everything else is cast strictly: a value
//! that does not fit is an error.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, ListArray, MapArray, RecordBatch, RecordBatchOptions, StructArray, new_null_array};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, Fields, SchemaRef};
use arrow::error::ArrowError;

/// The columns of a schema out of rows, by their names. What the rows have no column for is null.
pub fn conform(rows: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch, ArrowError> {
    let columns = fields(rows.schema_ref().fields(), rows.columns(), schema.fields(), rows.num_rows())?;
    let options = RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
    RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options)
}

fn fields(own: &Fields, values: &[ArrayRef], to: &Fields, rows: usize) -> Result<Vec<ArrayRef>, ArrowError> {
    let column = |to: &arrow::datatypes::FieldRef| match own.find(to.name()) {
        Some((place, _)) => array(&values[place], to.data_type()),
        None => Ok(new_null_array(to.data_type(), rows)),
    };
    to.iter().map(column).collect()
}

fn array(values: &ArrayRef, to: &DataType) -> Result<ArrayRef, ArrowError> {
    let strict = CastOptions {
        safe: false,
        ..CastOptions::default()
    };
    match (values.data_type(), to) {
        (own, to) if own == to => Ok(Arc::clone(values)),
        (DataType::Struct(own), DataType::Struct(to)) => {
            let values = values.as_struct();
            let columns = fields(own, values.columns(), to, values.len())?;
            let array = StructArray::try_new_with_length(to.clone(), columns, values.nulls().cloned(), values.len())?;
            Ok(Arc::new(array))
        }
        (DataType::List(_), DataType::List(item)) => {
            let values = values.as_list::<i32>();
            let items = array(values.values(), item.data_type())?;
            let array = ListArray::try_new(Arc::clone(item), values.offsets().clone(), items, values.nulls().cloned())?;
            Ok(Arc::new(array))
        }
        // The names of a map's two fields are the writer's own affair: by place.
        (DataType::Map(..), DataType::Map(entries, sorted)) if let DataType::Struct(pair) = entries.data_type() => {
            let values = values.as_map();
            let columns = values
                .entries()
                .columns()
                .iter()
                .zip(pair.iter())
                .map(|(values, to)| array(values, to.data_type()));
            let pairs = StructArray::try_new(pair.clone(), columns.collect::<Result<_, _>>()?, None)?;
            let array = MapArray::try_new(
                Arc::clone(entries),
                values.offsets().clone(),
                pairs,
                values.nulls().cloned(),
                *sorted,
            )?;
            Ok(Arc::new(array))
        }
        _ => cast_with_options(values, to, &strict),
    }
}

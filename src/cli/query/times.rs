//! Dates and times that can be written as text. Postgres has some beyond the year 262142, and the tables hold them, but the library that writes
//! them puts the words of its error in their place, as if these were the value.

use arrow::array::{Array, ArrowNumericType, AsArray, PrimitiveArray, RecordBatch};
use arrow::compute::{max, min};
use arrow::datatypes::{
    DataType, Date32Type, Date64Type, TimeUnit, TimestampMicrosecondType, TimestampMillisecondType, TimestampNanosecondType,
    TimestampSecondType,
};
use arrow::temporal_conversions::as_datetime;

use crate::error::{Error, Result};

/// Refuses rows with one that cannot.
pub(super) fn must_be_written(batch: &RecordBatch) -> Result<()> {
    let schema = batch.schema();
    let mut columns = schema.fields().iter().zip(batch.columns());
    let Some((field, _)) = columns.find(|(_, column)| !can_be_written(column.as_ref())) else {
        return Ok(());
    };
    let what = format!(
        "column `{}` has a time beyond the years that can be written as text, which end in 262142: leave it out with WHERE, or use --format \
         parquet",
        field.name()
    );
    Err(Error::config("usage", what))
}

fn can_be_written(array: &dyn Array) -> bool {
    match array.data_type() {
        DataType::Date32 => ends_can::<Date32Type>(array.as_primitive()),
        DataType::Date64 => ends_can::<Date64Type>(array.as_primitive()),
        DataType::Timestamp(TimeUnit::Second, _) => ends_can::<TimestampSecondType>(array.as_primitive()),
        DataType::Timestamp(TimeUnit::Millisecond, _) => ends_can::<TimestampMillisecondType>(array.as_primitive()),
        DataType::Timestamp(TimeUnit::Microsecond, _) => ends_can::<TimestampMicrosecondType>(array.as_primitive()),
        DataType::Timestamp(TimeUnit::Nanosecond, _) => ends_can::<TimestampNanosecondType>(array.as_primitive()),
        DataType::Struct(_) => array.as_struct().columns().iter().all(|column| can_be_written(column.as_ref())),
        DataType::List(_) => part_can(array.as_list::<i32>().values().as_ref(), array.as_list::<i32>().value_offsets()),
        DataType::Map(..) => part_can(array.as_map().entries(), array.as_map().value_offsets()),
        _ => true,
    }
}

/// The earliest and the latest stand for all between.
fn ends_can<T: ArrowNumericType>(array: &PrimitiveArray<T>) -> bool
where
    T::Native: Into<i64>,
{
    let ends = [min(array), max(array)];
    ends.into_iter().flatten().all(|end| as_datetime::<T>(end.into()).is_some())
}

/// Of the elements, those that the rows have.
fn part_can(elements: &dyn Array, offsets: &[i32]) -> bool {
    let (Some(&first), Some(&last)) = (offsets.first(), offsets.last()) else {
        return true;
    };
    can_be_written(elements.slice(first as usize, (last - first) as usize).as_ref())
}

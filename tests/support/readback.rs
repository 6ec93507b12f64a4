//! Rows of orders as some reader wrote them down, and what differs from what they must be.

use std::collections::BTreeMap;
use std::fs::File;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, StringArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Decimal128Type, Float64Type, Int32Type, Int64Type, TimeUnit, TimestampMicrosecondType};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use super::bank;
use super::changes::Order;
use super::model::Model;

/// Offsets, by partition.
pub type Ranges = BTreeMap<i32, RangeInclusive<u64>>;

/// The rows of a Parquet file.
pub fn batches(file: &Path) -> impl Iterator<Item = RecordBatch> {
    let open = File::open(file).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
    ParquetRecordBatchReaderBuilder::try_new(open)
        .unwrap()
        .build()
        .unwrap()
        .map(Result::unwrap)
}

/// These columns of each row as one text, sorted. A column that is not there is `-`.
pub fn texts(files: &[PathBuf], columns: &[&str]) -> Vec<String> {
    let chosen = files.iter().flat_map(|file| batches(file)).map(|batch| {
        let missing: ArrayRef = Arc::new(StringArray::from(vec!["-"; batch.num_rows()]));
        let column = |name: &str| Arc::clone(batch.column_by_name(name).unwrap_or(&missing));
        RecordBatch::try_from_iter(columns.iter().map(|name| (name, column(name)))).unwrap()
    });
    let mut rows: Vec<String> = bank::rows(&chosen.collect::<Vec<_>>())
        .iter()
        .map(|cells| cells.join("|"))
        .collect();
    rows.sort();
    rows
}

/// Readers have their own kinds of text and of time zone; the values must be the same.
fn column(batch: &RecordBatch, name: &str, kind: &DataType) -> ArrayRef {
    let column = batch
        .column_by_name(name)
        .unwrap_or_else(|| panic!("no column {name} in {:?}", batch.schema()));
    cast(column, kind).unwrap_or_else(|e| panic!("column {name}: {e}"))
}

/// Compares the rows of one batch with orders: `expected` gives the id and the order that a row must be. The first difference comes back as
/// a sentence.
fn difference(batch: &RecordBatch, mut expected: impl FnMut(usize) -> Result<(Option<i64>, Option<Order>), String>) -> Result<(), String> {
    let id = column(batch, "id", &DataType::Int64);
    let customer = column(batch, "customer", &DataType::Utf8);
    let amount = column(batch, "amount", &DataType::Decimal128(12, 2));
    let weight = column(batch, "weight", &DataType::Float64);
    let status = column(batch, "status", &DataType::Utf8);
    let placed = column(batch, "placed", &DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())));
    let note = column(batch, "note", &DataType::Utf8);
    fn cell<T>(column: &dyn Array, row: usize, value: impl FnOnce(usize) -> T) -> Option<T> {
        column.is_valid(row).then(|| value(row))
    }
    for row in 0..batch.num_rows() {
        let (key, order) = expected(row)?;
        let read = (
            cell(&id, row, |i| id.as_primitive::<Int64Type>().value(i)),
            cell(&customer, row, |i| customer.as_string::<i32>().value(i).to_owned()),
            cell(&amount, row, |i| amount.as_primitive::<Decimal128Type>().value(i)),
            cell(&weight, row, |i| weight.as_primitive::<Float64Type>().value(i)),
            cell(&status, row, |i| status.as_string::<i32>().value(i).to_owned()),
            cell(&placed, row, |i| placed.as_primitive::<TimestampMicrosecondType>().value(i)),
            cell(&note, row, |i| note.as_string::<i32>().value(i).to_owned()),
        );
        let right = (
            key,
            order.map(Order::customer),
            order.map(Order::cents),
            order.map(Order::weight),
            order.map(|order| order.status().to_owned()),
            order.map(Order::placed_us),
            order.and_then(Order::note),
        );
        if read != right {
            return Err(format!("a row reads as {read:?}, but is {right:?}"));
        }
    }
    Ok(())
}

/// Compares a table as a reader wrote it down with what it must be.
pub fn check_orders(files: &[PathBuf], expected: &BTreeMap<i64, Order>) -> Result<(), String> {
    let mut missing = expected.clone();
    let mut rows = 0;
    for batch in files.iter().flat_map(|file| batches(file)) {
        let ids = column(&batch, "id", &DataType::Int64);
        difference(&batch, |row| {
            let id = ids.as_primitive::<Int64Type>().value(row);
            let order = missing.remove(&id);
            let why = if expected.contains_key(&id) {
                "stands there twice"
            } else {
                "should not be there"
            };
            Ok((Some(id), Some(order.ok_or_else(|| format!("order {id} {why}"))?)))
        })?;
        rows += batch.num_rows();
    }
    match missing.keys().next() {
        Some(id) => Err(format!(
            "order {id} is missing, and {} others: {rows} rows instead of {}",
            missing.len() - 1,
            expected.len()
        )),
        None => Ok(()),
    }
}

/// Compares rows of an audit table with the topic: each record in `ranges` once, as it was produced, and no other. The table must have the
/// columns `__partition` and `__offset`.
pub fn check_records(files: &[PathBuf], ranges: &Ranges, model: &Model) -> Result<(), String> {
    let unseen = |range: &RangeInclusive<u64>| vec![true; (range.end() + 1 - range.start()) as usize];
    let mut missing: BTreeMap<i32, Vec<bool>> = ranges.iter().map(|(partition, range)| (*partition, unseen(range))).collect();
    for batch in files.iter().flat_map(|file| batches(file)) {
        let partitions = column(&batch, "__partition", &DataType::Int32);
        let offsets = column(&batch, "__offset", &DataType::Int64);
        difference(&batch, |row| {
            let partition = partitions.as_primitive::<Int32Type>().value(row);
            let offset = offsets.as_primitive::<Int64Type>().value(row) as u64;
            let outside = || format!("{partition}/{offset} should not be there: {ranges:?}");
            let range = ranges.get(&partition).filter(|range| range.contains(&offset)).ok_or_else(outside)?;
            let missing = missing.get_mut(&partition).expect("there is one for each range");
            if !std::mem::replace(&mut missing[(offset - range.start()) as usize], false) {
                return Err(format!("{partition}/{offset} stands there twice"));
            }
            let record = model.partition(partition)[offset as usize];
            // A tombstone has no value to read an id from.
            Ok((record.order.map(|_| record.id), record.order))
        })?;
    }
    for (partition, missing) in missing {
        let lost = missing.iter().filter(|missing| **missing).count();
        if lost > 0 {
            return Err(format!("{lost} records of partition {partition} are missing of {ranges:?}"));
        }
    }
    Ok(())
}

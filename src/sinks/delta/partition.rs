//! Partition values: which rows of a batch share them, and how Delta writes them.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch, UInt32Array};
use arrow::compute::kernels::length::length;
use arrow::compute::{nullif, take_record_batch};
use arrow::datatypes::{
    DataType, Date32Type, Decimal128Type, Float32Type, Float64Type, Int32Type, Int64Type, Schema, SchemaRef, TimeUnit,
    TimestampMicrosecondType,
};
use arrow::row::{RowConverter, SortField};
use chrono::{DateTime, Datelike, NaiveDate, Utc};

use super::stats::decimal;
use crate::error::{Error, Result};
use crate::table::TableId;

/// Values of the partition columns, in their order. None is null.
pub type Values = Vec<Option<String>>;

/// Splits batches by the table's partition columns.
#[derive(Debug)]
pub struct Partitions {
    table: TableId,
    /// Places of the partition columns among the table's, and of all others.
    by: Vec<usize>,
    rest: Vec<usize>,
    converter: RowConverter,
}

impl Partitions {
    pub fn new(table: &TableId, schema: &SchemaRef, by: &[String]) -> Result<Self> {
        let (by, rest): (Vec<usize>, Vec<usize>) = {
            let place = |name: &String| {
                let unknown = || {
                    Error::config(
                        "partition_columns",
                        format!("table `{table}` has no column `{name}`, which its `partition_by` names"),
                    )
                };
                schema.column_with_name(name).map(|(place, _)| place).ok_or_else(unknown)
            };
            let by = by.iter().map(place).collect::<Result<Vec<_>>>()?;
            let rest = (0..schema.fields().len()).filter(|place| !by.contains(place)).collect();
            (by, rest)
        };
        if let Some(field) = by
            .iter()
            .map(|&place| schema.field(place))
            .find(|field| field.data_type().is_nested())
        {
            let (name, kind) = (field.name(), field.data_type());
            return Err(Error::config(
                "partition_columns",
                format!("table `{table}` cannot be partitioned by `{name}`, because its type is {kind}"),
            ));
        }
        let fields = by
            .iter()
            .map(|&place| SortField::new(schema.field(place).data_type().clone()))
            .collect();
        let converter = RowConverter::new(fields).map_err(|e| Error::bug("a partition column has no row format").because(e))?;
        Ok(Self {
            table: table.clone(),
            by,
            rest,
            converter,
        })
    }

    /// Places of the columns that stand in data files.
    pub fn stored(&self) -> &[usize] {
        &self.rest
    }

    /// The rows of each partition in their order, without the partition columns.
    pub fn split(&self, rows: &RecordBatch) -> Result<Vec<(Values, RecordBatch)>> {
        let misfit = |e| Error::bug(format!("rows of `{}` do not have its columns", self.table)).because(e);
        let stored = rows.project(&self.rest).map_err(misfit)?;
        let columns: Vec<ArrayRef> = self.by.iter().map(|&place| Arc::clone(rows.column(place))).collect();
        let keys = self.converter.convert_columns(&columns).map_err(misfit)?;
        let mut groups: HashMap<&[u8], Vec<u32>> = HashMap::new();
        for row in 0..keys.num_rows() {
            groups.entry(keys.row(row).data()).or_default().push(row as u32);
        }
        // In the order in which the partitions first appear, so that the same rows make the same files.
        let mut groups: Vec<Vec<u32>> = groups.into_values().collect();
        groups.sort_unstable();
        let mut split = Vec::with_capacity(groups.len());
        for group in groups {
            let values = self.values(rows, group[0] as usize)?;
            let all = group.len() == rows.num_rows();
            let part = if all {
                stored.clone()
            } else {
                take_record_batch(&stored, &UInt32Array::from(group)).map_err(misfit)?
            };
            split.push((values, part));
        }
        Ok(split)
    }

    fn values(&self, rows: &RecordBatch, row: usize) -> Result<Values> {
        let value = |&place: &usize| {
            let schema = rows.schema();
            value(rows.column(place), row).ok_or_else(|| {
                let name = schema.field(place).name();
                Error::data("partition_value", format!("a value of column `{name}` of table `{}` cannot be written as a partition value: a time outside of the years 0001 to 9999, or bytes that are no text", self.table))
            })
        };
        self.by.iter().map(value).collect()
    }
}

/// Makes the empty texts of these columns null: as a partition's value Delta writes both alike, and readers take it for null.
pub fn nulls_for_empty(rows: &mut RecordBatch, by: &[String]) -> Result<()> {
    for name in by {
        let Some((place, field)) = rows.schema_ref().column_with_name(name) else {
            continue;
        };
        let values = rows.column(place);
        if !matches!(field.data_type(), DataType::Utf8 | DataType::Binary) {
            continue;
        }
        let misfit = |e| Error::bug(format!("the empty values of partition column `{name}` cannot be null")).because(e);
        let is_empty = match length(values).map_err(misfit)?.as_primitive_opt::<Int32Type>() {
            Some(lengths) => BooleanArray::from_unary(lengths, |length| length == 0),
            None => continue,
        };
        if is_empty.true_count() == 0 {
            continue;
        }
        let (mut fields, mut columns) = (rows.schema_ref().fields().to_vec(), rows.columns().to_vec());
        fields[place] = Arc::new(field.clone().with_nullable(true));
        columns[place] = nullif(values, &is_empty).map_err(misfit)?;
        *rows = RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).map_err(misfit)?;
    }
    Ok(())
}

/// A value, which is no empty text, as Delta's protocol writes it; the outer None where it cannot.
fn value(column: &ArrayRef, row: usize) -> Option<Option<String>> {
    if column.is_null(row) {
        return Some(None);
    }
    let text = match column.data_type() {
        DataType::Boolean => column.as_boolean().value(row).to_string(),
        DataType::Int32 => column.as_primitive::<Int32Type>().value(row).to_string(),
        DataType::Int64 => column.as_primitive::<Int64Type>().value(row).to_string(),
        DataType::Float32 => {
            let value = column.as_primitive::<Float32Type>().value(row);
            float(f64::from(value), &value.to_string(), &format!("{value:e}"))
        }
        DataType::Float64 => {
            let value = column.as_primitive::<Float64Type>().value(row);
            float(value, &value.to_string(), &format!("{value:e}"))
        }
        DataType::Decimal128(_, scale) => decimal(column.as_primitive::<Decimal128Type>().value(row), *scale),
        DataType::Utf8 => column.as_string::<i32>().value(row).to_owned(),
        DataType::Binary => std::str::from_utf8(column.as_binary::<i32>().value(row)).ok()?.to_owned(),
        DataType::Date32 => {
            let date = NaiveDate::from_epoch_days(column.as_primitive::<Date32Type>().value(row))?;
            written_year(&date).then(|| date.format("%Y-%m-%d").to_string())?
        }
        DataType::Timestamp(TimeUnit::Microsecond, zone) => {
            let at: DateTime<Utc> = DateTime::from_timestamp_micros(column.as_primitive::<TimestampMicrosecondType>().value(row))?;
            // With its zone a reader cannot take it for its own.
            let format = if zone.is_some() {
                "%Y-%m-%dT%H:%M:%S%.6fZ"
            } else {
                "%Y-%m-%d %H:%M:%S%.6f"
            };
            written_year(&at).then(|| at.format(format).to_string())?
        }
        _ => return None,
    };
    Some(Some(text))
}

fn written_year(at: &impl Datelike) -> bool {
    (1..=9999).contains(&at.year())
}

/// The fewest digits that read back as the value, with an exponent where Java writes one, and the names that Java has for what is no number:
/// all readers take these. Both zeros are one partition: they are equal to whoever asks for one of them.
fn float(value: f64, plain: &str, scientific: &str) -> String {
    match value {
        0.0 => "0".to_owned(),
        value if value.is_nan() => "NaN".to_owned(),
        f64::INFINITY => "Infinity".to_owned(),
        f64::NEG_INFINITY => "-Infinity".to_owned(),
        value if (1e-3..1e7).contains(&value.abs()) => plain.to_owned(),
        _ => {
            let (digits, exponent) = scientific.split_once('e').unwrap_or((scientific, "0"));
            let fraction = if digits.contains('.') { "" } else { ".0" };
            format!("{digits}{fraction}E{exponent}")
        }
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{
        BinaryArray, BooleanArray, Date32Array, Decimal128Array, Float32Array, Float64Array, Int32Array, StringArray,
        TimestampMicrosecondArray,
    };
    use arrow::datatypes::Field;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn v18_values_are_written_as_deltas_protocol_says() {
        let some = |text: &str| Some(Some(text.to_owned()));
        let day = 86_400_000_000;
        let cases: Vec<(ArrayRef, Option<Option<String>>)> = vec![
            (Arc::new(StringArray::from(vec![None::<&str>])), Some(None)),
            (Arc::new(StringArray::from(vec!["a/b=%20 é"])), some("a/b=%20 é")),
            (Arc::new(Int32Array::from(vec![-7])), some("-7")),
            (Arc::new(BooleanArray::from(vec![true])), some("true")),
            (Arc::new(Float64Array::from(vec![f64::NAN])), some("NaN")),
            (Arc::new(Float64Array::from(vec![f64::NEG_INFINITY])), some("-Infinity")),
            (Arc::new(Float64Array::from(vec![0.1])), some("0.1")),
            (Arc::new(Float64Array::from(vec![1e300])), some("1.0E300")),
            (Arc::new(Float64Array::from(vec![-1.25e-10])), some("-1.25E-10")),
            (Arc::new(Float64Array::from(vec![9_999_999.5])), some("9999999.5")),
            (Arc::new(Float64Array::from(vec![12_345_678.0])), some("1.2345678E7")),
            (Arc::new(Float64Array::from(vec![0.001])), some("0.001")),
            (
                Arc::new(Float64Array::from(vec![f64::MIN_POSITIVE])),
                some("2.2250738585072014E-308"),
            ),
            (Arc::new(Float32Array::from(vec![0.001])), some("0.001")),
            (Arc::new(Float32Array::from(vec![f32::MAX])), some("3.4028235E38")),
            (Arc::new(Float64Array::from(vec![0.0])), some("0")),
            (Arc::new(Float64Array::from(vec![-0.0])), some("0")),
            (
                Arc::new(Decimal128Array::from(vec![-1234]).with_precision_and_scale(9, 2).unwrap()),
                some("-12.34"),
            ),
            (Arc::new(Date32Array::from(vec![-1])), some("1969-12-31")),
            (Arc::new(Date32Array::from(vec![i32::MAX])), None),
            (
                Arc::new(TimestampMicrosecondArray::from(vec![day + 1]).with_timezone("UTC")),
                some("1970-01-02T00:00:00.000001Z"),
            ),
            (
                Arc::new(TimestampMicrosecondArray::from(vec![day])),
                some("1970-01-02 00:00:00.000000"),
            ),
            (Arc::new(TimestampMicrosecondArray::from(vec![i64::MIN])), None),
            (Arc::new(BinaryArray::from(vec![&b"\x01\x02"[..]])), some("\u{1}\u{2}")),
            (Arc::new(BinaryArray::from(vec![&b"\xff"[..]])), None),
        ];
        for (column, expected) in cases {
            assert_eq!(value(&column, 0), expected, "{column:?}");
        }
    }

    proptest! {
        #[test]
        fn v18_a_partitions_number_reads_back(bits in any::<u64>()) {
            let value = f64::from_bits(bits);
            prop_assume!(value.is_finite());
            let text = self::value(&(Arc::new(Float64Array::from(vec![value])) as ArrayRef), 0).flatten().unwrap();
            prop_assert_eq!(text.parse::<f64>().unwrap(), value, "{}", text);
            prop_assert!(text.len() < 25, "{}", text);
        }
    }

    #[test]
    fn v18_the_empty_value_of_a_partition_is_null() {
        let text = |values: Vec<Option<&str>>| Arc::new(StringArray::from(values)) as ArrayRef;
        let bytes: ArrayRef = Arc::new(BinaryArray::from(vec![&b"x"[..], b"", b"y"]));
        let number: ArrayRef = Arc::new(Int32Array::from(vec![1, 2, 3]));
        let field = |name: &str, column: &ArrayRef| Field::new(name, column.data_type().clone(), column.is_nullable());
        let columns = [
            ("p", text(vec![Some(""), Some("a"), None])),
            ("q", bytes),
            ("r", number),
            ("v", text(vec![Some(""); 3])),
        ];
        let schema = Schema::new(columns.iter().map(|(name, column)| field(name, column)).collect::<Vec<_>>());
        let mut rows = RecordBatch::try_new(Arc::new(schema), columns.into_iter().map(|(_, column)| column).collect()).unwrap();
        nulls_for_empty(&mut rows, &["p", "q", "r", "elsewhere"].map(str::to_owned)).unwrap();
        let nulls = |place: usize| (0..3).map(|row| rows.column(place).is_null(row)).collect::<Vec<_>>();
        assert_eq!(nulls(0), [true, false, true]);
        assert_eq!(nulls(1), [false, true, false]);
        assert_eq!([nulls(2), nulls(3)], [[false; 3], [false; 3]]);
    }

    #[test]
    fn rows_are_split_by_value_in_their_order_and_lose_the_column() {
        let schema = Arc::new(Schema::new(vec![
            Field::new("p", DataType::Utf8, true),
            Field::new("v", DataType::Int32, true),
        ]));
        let p: ArrayRef = Arc::new(StringArray::from(vec![Some("b"), Some("a"), None, Some("b")]));
        let rows = RecordBatch::try_new(Arc::clone(&schema), vec![p, Arc::new(Int32Array::from(vec![1, 2, 3, 4]))]).unwrap();
        let split = Partitions::new(&TableId::new("t"), &schema, &["p".to_owned()])
            .unwrap()
            .split(&rows)
            .unwrap();
        let split: Vec<_> = split
            .iter()
            .map(|(values, rows)| {
                (
                    values[0].as_deref(),
                    rows.num_columns(),
                    rows.column(0).as_primitive::<Int32Type>().values().to_vec(),
                )
            })
            .collect();
        assert_eq!(split, [(Some("b"), 1, vec![1, 4]), (Some("a"), 1, vec![2]), (None, 1, vec![3])]);
    }
}

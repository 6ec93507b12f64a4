//! Key columns to keys.
//!
//! One column of a fixed width up to eight bytes is its own key. Everything else is hashed to 128 bits: at ten thousand million keys the
//! chance that any two share a hash is below 10⁻¹⁸. A key does not depend on the width of its type: the same number as Int32 or Int64
//! is the same key, so that widening a column leaves the keys as they are.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::buffer::NullBuffer;
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int64Type, Schema, TimeUnit};
use arrow::row::{RowConverter, SortField};
use arrow::util::display::array_value_to_string;
use xxhash_rust::xxh3::xxh3_128;

use super::table::{Key, Shape};
use crate::error::{Error, Result};
use crate::table::TableId;

/// Turns the key columns of one table into keys.
#[derive(Debug)]
pub struct KeyEncoder {
    table: TableId,
    names: Vec<String>,
    /// Places of the key columns among the table's columns.
    columns: Vec<usize>,
    /// What each key column is cast to before it is encoded.
    types: Vec<DataType>,
    how: How,
}

#[derive(Debug)]
enum How {
    /// One column that casts to Int64.
    Value,
    /// One column of text or bytes: the hash of the bytes.
    Bytes,
    /// The hash of the columns in Arrow's row format, which tells ("a", "bc") from ("ab", "c").
    Rows(RowConverter),
}

impl KeyEncoder {
    /// Refuses columns that cannot be keys: numbers that need not equal themselves (NaN), and nested values.
    pub fn new(table: &TableId, schema: &Schema, key: &[String]) -> Result<Self> {
        if key.is_empty() {
            return Err(Error::config(
                "key_columns",
                format!("table `{table}`: an upsert table needs at least one key column"),
            ));
        }
        let mut columns = Vec::with_capacity(key.len());
        let mut types = Vec::with_capacity(key.len());
        for name in key {
            let (place, field) = schema.column_with_name(name).ok_or_else(|| {
                Error::config(
                    "key_columns",
                    format!("table `{table}` has no column `{name}`, which its `key` names"),
                )
            })?;
            types.push(canonical(field.data_type()).ok_or_else(|| {
                let kind = field.data_type();
                Error::config("key_columns", format!("table `{table}`: column `{name}` cannot be a key, because its type is {kind}; use integers, decimals, text, bytes, dates, timestamps or booleans"))
            })?);
            columns.push(place);
        }
        let how = match types.as_slice() {
            [DataType::Int64] => How::Value,
            [DataType::Utf8 | DataType::Binary] => How::Bytes,
            _ => How::Rows(RowConverter::new(types.iter().cloned().map(SortField::new).collect()).map_err(unfit)?),
        };
        Ok(Self {
            table: table.clone(),
            names: key.to_vec(),
            columns,
            types,
            how,
        })
    }

    pub fn shape(&self) -> Shape {
        match self.how {
            How::Value => Shape::Exact,
            How::Bytes | How::Rows(_) => Shape::Hashed,
        }
    }

    pub fn table(&self) -> &TableId {
        &self.table
    }

    /// The key columns' names.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// What tells these keys from those of other columns: an index of one is of no use to the other.
    pub fn fingerprint(&self) -> String {
        let columns: Vec<String> = self
            .names
            .iter()
            .zip(&self.types)
            .map(|(name, kind)| format!("{name}\u{1f}{kind}"))
            .collect();
        columns.join("\u{1e}")
    }

    /// The key columns of a batch that has all columns of the table.
    pub fn columns_of(&self, rows: &RecordBatch) -> Vec<ArrayRef> {
        self.columns.iter().map(|&place| Arc::clone(rows.column(place))).collect()
    }

    /// The key of a row as a person reads it.
    pub fn printed(&self, rows: &RecordBatch, row: usize) -> Result<String> {
        let columns = self.columns_of(rows);
        let named = self.names.iter().zip(&columns).map(|(name, column)| {
            let value = array_value_to_string(column, row).map_err(|e| self.misfit(e))?;
            Ok(format!("`{name}` = {value}"))
        });
        Ok(named.collect::<Result<Vec<_>>>()?.join(", "))
    }

    /// Rows of which a key column is null.
    pub fn nulls(columns: &[ArrayRef]) -> Option<NullBuffer> {
        columns
            .iter()
            .fold(None, |nulls, column| NullBuffer::union(nulls.as_ref(), column.nulls()))
    }

    /// The keys of rows given by their key columns. The key of a row with a null in them means nothing.
    pub fn encode(&self, columns: &[ArrayRef]) -> Result<Vec<Key>> {
        let columns = columns.iter().zip(&self.types).map(|(column, kind)| widen(column, kind));
        let columns: Vec<ArrayRef> = columns.collect::<Result<_, _>>().map_err(|e| self.misfit(e))?;
        let keys = match &self.how {
            How::Value => columns[0]
                .as_primitive::<Int64Type>()
                .values()
                .iter()
                .map(|&value| Key([value as u64, 0]))
                .collect(),
            How::Bytes => match columns[0].data_type() {
                DataType::Utf8 => hash_slices(
                    columns[0].as_string::<i32>().value_offsets(),
                    columns[0].as_string::<i32>().value_data(),
                ),
                _ => hash_slices(
                    columns[0].as_binary::<i32>().value_offsets(),
                    columns[0].as_binary::<i32>().value_data(),
                ),
            },
            How::Rows(converter) => {
                let rows = converter.convert_columns(&columns).map_err(|e| self.misfit(e))?;
                rows.iter().map(|row| hashed(row.as_ref())).collect()
            }
        };
        Ok(keys)
    }

    fn misfit(&self, error: arrow::error::ArrowError) -> Error {
        let (table, names) = (&self.table, self.names.join("`, `"));
        Error::config(
            "key_columns",
            format!("table `{table}`: the key columns `{names}` do not have the types that the table has"),
        )
        .because(error)
    }
}

fn unfit(error: arrow::error::ArrowError) -> Error {
    Error::bug("a key column's type has no row format").because(error)
}

fn hashed(bytes: &[u8]) -> Key {
    let hash = xxh3_128(bytes);
    Key([hash as u64, (hash >> 64) as u64])
}

fn hash_slices(offsets: &[i32], bytes: &[u8]) -> Vec<Key> {
    offsets
        .windows(2)
        .map(|ends| hashed(&bytes[ends[0] as usize..ends[1] as usize]))
        .collect()
}

/// The one type that all widths of a key column are cast to, or None where the type cannot be a key.
fn canonical(kind: &DataType) -> Option<DataType> {
    Some(match kind {
        DataType::Boolean
        | DataType::Int8
        | DataType::Int16
        | DataType::Int32
        | DataType::Int64
        | DataType::Date32
        | DataType::Timestamp(TimeUnit::Microsecond, _) => DataType::Int64,
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => DataType::Utf8,
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView => DataType::Binary,
        // The scale belongs to the value's meaning, the precision does not.
        DataType::Decimal128(_, scale) => DataType::Decimal128(38, *scale),
        _ => return None,
    })
}

/// Casts a column to its canonical type; a value that does not fit is an error.
fn widen(column: &ArrayRef, kind: &DataType) -> Result<ArrayRef, arrow::error::ArrowError> {
    let strict = arrow::compute::CastOptions {
        safe: false,
        ..Default::default()
    };
    match (column.data_type(), kind) {
        (is, wanted) if is == wanted => Ok(Arc::clone(column)),
        (DataType::Date32, DataType::Int64) => cast(&cast(column, &DataType::Int32)?, kind),
        // Files of other writers may hold other units than the table's microseconds.
        (DataType::Timestamp(unit, zone), DataType::Int64) if *unit != TimeUnit::Microsecond => {
            let micros = arrow::compute::cast_with_options(column, &DataType::Timestamp(TimeUnit::Microsecond, zone.clone()), &strict)?;
            cast(&micros, kind)
        }
        _ => arrow::compute::cast_with_options(column, kind, &strict),
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{BooleanArray, Date32Array, Decimal128Array, Int32Array, Int64Array, StringArray, TimestampMicrosecondArray};
    use arrow::datatypes::Field;
    use proptest::prelude::*;

    use super::*;

    fn encoder(fields: &[(&str, DataType)]) -> Result<KeyEncoder> {
        let schema = Schema::new(
            fields
                .iter()
                .map(|(name, kind)| Field::new(*name, kind.clone(), true))
                .collect::<Vec<_>>(),
        );
        let names: Vec<String> = fields.iter().map(|(name, _)| (*name).to_owned()).collect();
        KeyEncoder::new(&TableId::new("orders"), &schema, &names)
    }

    #[test]
    fn u10_a_float_or_nested_key_is_refused_by_name() {
        let list = DataType::List(Arc::new(Field::new("element", DataType::Int32, true)));
        for kind in [
            DataType::Float32,
            DataType::Float64,
            list,
            DataType::Struct(vec![Field::new("a", DataType::Int32, true)].into()),
        ] {
            let error = encoder(&[("id", DataType::Int64), ("price", kind)]).unwrap_err().to_string();
            assert!(error.contains("`orders`") && error.contains("`price`"), "{error}");
        }
    }

    #[test]
    fn u11_the_same_number_is_the_same_key_in_every_width() {
        let (narrow, wide) = (
            encoder(&[("id", DataType::Int32)]).unwrap(),
            encoder(&[("id", DataType::Int64)]).unwrap(),
        );
        let numbers = [i32::MIN, -1, 0, 1, 7, i32::MAX];
        let small: ArrayRef = Arc::new(Int32Array::from(numbers.to_vec()));
        let large: ArrayRef = Arc::new(Int64Array::from_iter_values(numbers.map(i64::from)));
        assert_eq!(
            narrow.encode(&[Arc::clone(&small)]).unwrap(),
            wide.encode(&[Arc::clone(&large)]).unwrap()
        );
        assert_eq!(narrow.fingerprint(), wide.fingerprint());
        let (narrow, wide) = (
            encoder(&[("id", DataType::Int32), ("n", DataType::Utf8)]).unwrap(),
            encoder(&[("id", DataType::Int64), ("n", DataType::Utf8)]).unwrap(),
        );
        let text: ArrayRef = Arc::new(StringArray::from(vec!["a"; numbers.len()]));
        assert_eq!(
            narrow.encode(&[small, Arc::clone(&text)]).unwrap(),
            wide.encode(&[large, text]).unwrap()
        );
    }

    #[test]
    fn one_fixed_column_is_its_own_key_and_all_else_is_hashed() {
        let days: ArrayRef = Arc::new(Date32Array::from(vec![-3]));
        assert_eq!(
            encoder(&[("d", DataType::Date32)]).unwrap().encode(&[days]).unwrap(),
            [Key([-3i64 as u64, 0])]
        );
        let utc = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
        let time: ArrayRef = Arc::new(TimestampMicrosecondArray::from(vec![5]).with_timezone("UTC"));
        assert_eq!(encoder(&[("t", utc)]).unwrap().encode(&[time]).unwrap(), [Key([5, 0])]);
        let yes: ArrayRef = Arc::new(BooleanArray::from(vec![true]));
        assert_eq!(encoder(&[("b", DataType::Boolean)]).unwrap().encode(&[yes]).unwrap(), [Key([1, 0])]);
        let text = encoder(&[("s", DataType::Utf8)]).unwrap();
        assert_eq!(text.shape(), Shape::Hashed);
        let part: ArrayRef = Arc::new(StringArray::from(vec!["x", "ab"]).slice(1, 1));
        assert_eq!(
            text.encode(&[part]).unwrap(),
            [hashed(b"ab")],
            "a slice of an array is read from where it begins"
        );
        let price: ArrayRef = Arc::new(Decimal128Array::from(vec![12345]).with_precision_and_scale(9, 2).unwrap());
        let wide: ArrayRef = Arc::new(Decimal128Array::from(vec![12345]).with_precision_and_scale(20, 2).unwrap());
        assert_eq!(
            encoder(&[("p", DataType::Decimal128(9, 2))]).unwrap().encode(&[price]).unwrap(),
            encoder(&[("p", DataType::Decimal128(20, 2))]).unwrap().encode(&[wide]).unwrap()
        );
    }

    #[test]
    fn keys_of_several_columns_are_made_as_those_that_caches_hold() {
        let number: ArrayRef = Arc::new(Int64Array::from(vec![7]));
        let text: ArrayRef = Arc::new(StringArray::from(vec!["a"]));
        let encoder = encoder(&[("n", DataType::Int64), ("s", DataType::Utf8)]).unwrap();
        // Arrow does not promise its row format to stay: where it is another, so must be the `MAGIC` of caches.
        let row = b"\x01\x80\0\0\0\0\0\0\x07\x02a\0\0\0\0\0\0\0\x01";
        assert_eq!(encoder.encode(&[number, text]).unwrap(), [hashed(row)]);
    }

    proptest! {
        #[test]
        fn keys_are_equal_where_rows_are(rows in prop::collection::vec(("[ab]{0,3}", "[ab]{0,3}", -2..2i64), 2..60)) {
            let encoder = encoder(&[("x", DataType::Utf8), ("y", DataType::Utf8), ("z", DataType::Int64)]).unwrap();
            let x: ArrayRef = Arc::new(StringArray::from_iter_values(rows.iter().map(|r| &r.0)));
            let y: ArrayRef = Arc::new(StringArray::from_iter_values(rows.iter().map(|r| &r.1)));
            let z: ArrayRef = Arc::new(Int64Array::from_iter_values(rows.iter().map(|r| r.2)));
            let keys = encoder.encode(&[x, y, z]).unwrap();
            for (a, left) in rows.iter().enumerate() {
                for (b, right) in rows.iter().enumerate() {
                    prop_assert_eq!(keys[a] == keys[b], left == right);
                }
            }
        }
    }
}

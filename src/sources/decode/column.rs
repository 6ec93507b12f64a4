//! One column: reads the JSON of a cell and appends it, in one step. A cell that fails leaves nothing behind once it is cut off.
//!
//! Measured against arrow-json's tape, which parses all cells of a run first and turns them into columns then: this is as vectorised
//! as text can be, reads every byte once, and knows at the very cell which message is to blame (`benches/decode.rs`).

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanArray, BooleanBufferBuilder, Date32Array, Decimal128Array, Float32Array, Float64Array, Int32Array, Int64Array,
    ListArray, MapArray, StructArray, TimestampMicrosecondArray,
};
use arrow::buffer::{NullBuffer, ScalarBuffer};
use arrow::datatypes::{DataType, Field, FieldRef, Fields, TimeUnit};

use super::encoding::{self, Encoding};
use super::fault::{Code, Fault, Read};
use super::names::Names;
use super::scanner::Scanner;
use super::time::Zone;
use super::{decimal, read, widen};
use crate::error::{Error, Result};
use crate::sources::cells::{Bytes, Ends, Validity};

/// Whose habits the JSON follows where a schema leaves it open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dialect {
    Plain,
    /// Days and unscaled decimals as Debezium writes them, and NaN and the infinities as text.
    Debezium,
}

#[derive(Debug)]
pub(super) struct Column {
    pub field: FieldRef,
    pub dialect: Dialect,
    /// Whether a null is let in. The root lets nulls into its key columns, to tell a missing key from a missing value.
    pub nullable: bool,
    pub encoding: Encoding,
    pub cells: Cells,
    nulls: Validity,
}

#[derive(Debug)]
pub(super) enum Cells {
    Boolean(BooleanBufferBuilder),
    Int32(Vec<i32>),
    Int64(Vec<i64>),
    Float32(Vec<f32>),
    Float64(Vec<f64>),
    Decimal(decimal::Shape, Vec<i128>),
    Text(Bytes),
    Binary(Bytes),
    Date(Vec<i32>),
    Timestamp(Zone, Vec<i64>),
    Struct(Record),
    List(Ends, Box<Column>),
    Map { ends: Ends, keys: Bytes, values: Box<Column> },
}

/// The columns of an object.
#[derive(Debug)]
pub(super) struct Record {
    pub columns: Vec<Column>,
    names: Names,
}

impl Column {
    /// A column for a field whose type a table can have; `path` names it in the error otherwise.
    pub fn new(field: &Field, dialect: Dialect, path: &str) -> Result<Self> {
        let unfit = |what: &str| {
            Err(Error::config(
                "schema",
                format!("column `{path}` is of type {}: {what}", field.data_type()),
            ))
        };
        let within = |inner: &Field| Self::new(inner, dialect, &format!("{path}.{}", inner.name()));
        let cells = match field.data_type() {
            DataType::Boolean => Cells::Boolean(BooleanBufferBuilder::new(0)),
            DataType::Int32 => Cells::Int32(Vec::new()),
            DataType::Int64 => Cells::Int64(Vec::new()),
            DataType::Float32 => Cells::Float32(Vec::new()),
            DataType::Float64 => Cells::Float64(Vec::new()),
            DataType::Decimal128(precision, scale) if *scale >= 0 && *scale as u8 <= *precision => Cells::Decimal(
                decimal::Shape {
                    precision: *precision,
                    scale: *scale,
                },
                Vec::new(),
            ),
            DataType::Utf8 => Cells::Text(Bytes::new()),
            DataType::Binary => Cells::Binary(Bytes::new()),
            DataType::Date32 => Cells::Date(Vec::new()),
            DataType::Timestamp(TimeUnit::Microsecond, Some(zone)) if zone.as_ref() == "UTC" => {
                Cells::Timestamp(Zone::Required, Vec::new())
            }
            DataType::Timestamp(TimeUnit::Microsecond, None) => Cells::Timestamp(Zone::Forbidden, Vec::new()),
            DataType::Struct(fields) if !fields.is_empty() => Cells::Struct(Record::new(fields, dialect, path)?),
            DataType::List(item) => Cells::List(Ends::new(), Box::new(within(item)?)),
            DataType::Map(entries, _) => match entries.data_type() {
                DataType::Struct(pair) if pair.len() == 2 && pair[0].data_type() == &DataType::Utf8 => Cells::Map {
                    ends: Ends::new(),
                    keys: Bytes::new(),
                    values: Box::new(within(&pair[1])?),
                },
                _ => return unfit("the keys of a map must be text"),
            },
            _ => return unfit("a table has no such type"),
        };
        let encoding = match (Encoding::of(field), dialect, field.data_type()) {
            (Encoding::Natural, Dialect::Debezium, DataType::Decimal128(_, scale)) => Encoding::Unscaled(i64::from(*scale)),
            (Encoding::Natural, Dialect::Debezium, DataType::Date32) => Encoding::Days,
            (encoding, ..) => encoding,
        };
        Ok(Self {
            field: Arc::new(encoding::plain(field)),
            dialect,
            nullable: field.is_nullable(),
            encoding,
            cells,
            nulls: Validity::default(),
        })
    }

    pub fn name(&self) -> &str {
        self.field.name()
    }

    /// The column may be null from now on.
    pub fn let_nulls_in(&mut self) {
        self.nullable = true;
        if !self.field.is_nullable() {
            self.field = Arc::new(self.field.as_ref().clone().with_nullable(true));
        }
    }

    /// The column has a wider type from now on, the cells so far included.
    pub fn widen(&mut self, to: &DataType) -> std::result::Result<(), String> {
        let cells = std::mem::replace(&mut self.cells, Cells::Int32(Vec::new()));
        self.cells = widen::widen(cells, to)?;
        self.field = Arc::new(self.field.as_ref().clone().with_data_type(to.clone()));
        Ok(())
    }

    /// The columns within have other types than before, and so has this one.
    pub fn follow_inner_types(&mut self) {
        let kind = match (&self.cells, self.field.data_type()) {
            (Cells::Struct(record), _) => DataType::Struct(record.columns.iter().map(|column| Arc::clone(&column.field)).collect()),
            (Cells::List(_, item), _) => DataType::List(Arc::clone(&item.field)),
            (Cells::Map { values, .. }, DataType::Map(entries, sorted)) => match entries.data_type() {
                DataType::Struct(pair) if pair.len() == 2 => {
                    let pair = vec![Arc::clone(&pair[0]), Arc::clone(&values.field)];
                    let entries = entries.as_ref().clone().with_data_type(DataType::Struct(pair.into()));
                    DataType::Map(Arc::new(entries), *sorted)
                }
                _ => return,
            },
            _ => return,
        };
        if kind != *self.field.data_type() {
            self.field = Arc::new(self.field.as_ref().clone().with_data_type(kind));
        }
    }

    /// Whether two cells that are not null have the same value; of types that a key can have.
    pub fn same_cells(&self, one: usize, other: usize) -> bool {
        match &self.cells {
            Cells::Boolean(cells) => cells.get_bit(one) == cells.get_bit(other),
            Cells::Int32(cells) | Cells::Date(cells) => cells[one] == cells[other],
            Cells::Int64(cells) | Cells::Timestamp(_, cells) => cells[one] == cells[other],
            Cells::Decimal(_, cells) => cells[one] == cells[other],
            Cells::Text(cells) | Cells::Binary(cells) => cells.get(one) == cells.get(other),
            Cells::Float32(_) | Cells::Float64(_) | Cells::Struct(_) | Cells::List(..) | Cells::Map { .. } => false,
        }
    }

    /// Cells so far.
    #[inline]
    pub fn len(&self) -> usize {
        self.nulls.len()
    }

    /// Whether the last cell is null.
    pub fn ends_with_null(&self) -> bool {
        self.nulls.ends_with_null()
    }

    /// Reads a cell.
    #[inline]
    pub fn read(&mut self, scanner: &mut Scanner<'_>) -> Read {
        if scanner.null()? {
            return self.push_null();
        }
        self.read_value(scanner)?;
        self.nulls.push(true);
        Ok(())
    }

    #[inline]
    fn read_value(&mut self, scanner: &mut Scanner<'_>) -> Read {
        let encoding = self.encoding;
        match &mut self.cells {
            Cells::Boolean(cells) => cells.append(scanner.boolean()?),
            Cells::Int32(cells) => cells.push(read::int32(scanner)?),
            Cells::Int64(cells) => cells.push(read::int64(scanner, encoding)?),
            Cells::Float32(cells) => cells.push(read::float32(scanner, self.dialect)?),
            Cells::Float64(cells) => cells.push(read::float64(scanner, self.dialect)?),
            Cells::Decimal(shape, cells) => cells.push(read::decimal(scanner, *shape, encoding, self.dialect)?),
            Cells::Text(cells) => {
                read::text(scanner, encoding, &mut cells.data)?;
                cells.close()?;
            }
            Cells::Binary(cells) => {
                read::base64(scanner, &mut cells.data)?;
                cells.close()?;
            }
            Cells::Date(cells) => cells.push(read::date(scanner, encoding, self.dialect)?),
            Cells::Timestamp(zone, cells) => cells.push(read::timestamp(scanner, *zone, encoding)?),
            Cells::Struct(record) => record.read(scanner, self.nulls.len())?,
            Cells::List(ends, item) => {
                scanner.open(b'[', "an array is expected")?;
                let mut more = !scanner.closes(b']');
                while more {
                    item.read(scanner).map_err(|fault| fault.within("element"))?;
                    more = scanner.more(b']')?;
                }
                ends.push(item.len())?;
            }
            Cells::Map { ends, keys, values } => {
                scanner.open(b'{', "an object is expected")?;
                let mut more = !scanner.closes(b'}');
                while more {
                    scanner.key()?.append_to(&mut keys.data)?;
                    keys.close()?;
                    values.read(scanner).map_err(|fault| fault.within("value"))?;
                    more = scanner.more(b'}')?;
                }
                if read::repeats(keys, ends.last()..values.len()) {
                    return Err(Fault::new(Code::DuplicateColumn, "the same key stands twice in one map"));
                }
                ends.push(values.len())?;
            }
        }
        Ok(())
    }

    /// Appends a cell of text as it is.
    pub fn push_raw_text(&mut self, text: &[u8]) -> Read {
        let Cells::Text(cells) = &mut self.cells else {
            return Err(Fault::mismatch("text has no place in this column"));
        };
        if std::str::from_utf8(text).is_err() {
            return Err(Fault::malformed("not UTF-8"));
        }
        cells.data.extend_from_slice(text);
        cells.close()?;
        self.nulls.push(true);
        Ok(())
    }

    /// A null, where the column takes one.
    pub fn push_null(&mut self) -> Read {
        if !self.nullable {
            return Err(Fault::missing());
        }
        self.push_zero();
        self.nulls.push(false);
        Ok(())
    }

    /// A cell that nobody reads: null, or the type's zero where the table takes no null.
    pub fn push_void(&mut self) {
        self.push_zero();
        self.nulls.push(!self.field.is_nullable());
    }

    fn push_zero(&mut self) {
        match &mut self.cells {
            Cells::Boolean(cells) => cells.append(false),
            Cells::Int32(cells) | Cells::Date(cells) => cells.push(0),
            Cells::Int64(cells) | Cells::Timestamp(_, cells) => cells.push(0),
            Cells::Float32(cells) => cells.push(0.0),
            Cells::Float64(cells) => cells.push(0.0),
            Cells::Decimal(_, cells) => cells.push(0),
            Cells::Text(cells) | Cells::Binary(cells) => cells.ends.push_empty(),
            Cells::Struct(record) => record.columns.iter_mut().for_each(Column::push_void),
            Cells::List(ends, _) | Cells::Map { ends, .. } => ends.push_empty(),
        }
    }

    /// Cuts back to so many cells, and whatever of a further one was begun.
    pub fn truncate(&mut self, len: usize) {
        self.nulls.truncate(len);
        match &mut self.cells {
            Cells::Boolean(cells) => cells.truncate(len),
            Cells::Int32(cells) | Cells::Date(cells) => cells.truncate(len),
            Cells::Int64(cells) | Cells::Timestamp(_, cells) => cells.truncate(len),
            Cells::Float32(cells) => cells.truncate(len),
            Cells::Float64(cells) => cells.truncate(len),
            Cells::Decimal(_, cells) => cells.truncate(len),
            Cells::Text(cells) | Cells::Binary(cells) => cells.truncate(len),
            Cells::Struct(record) => record.columns.iter_mut().for_each(|column| column.truncate(len)),
            Cells::List(ends, item) => {
                ends.truncate(len);
                item.truncate(ends.last());
            }
            Cells::Map { ends, keys, values } => {
                ends.truncate(len);
                keys.truncate(ends.last());
                values.truncate(ends.last());
            }
        }
    }

    /// The cells so far as an array; the column is empty then.
    pub fn finish(&mut self) -> Result<ArrayRef> {
        let nulls = self.nulls.finish();
        let array: ArrayRef = match &mut self.cells {
            Cells::Boolean(cells) => Arc::new(BooleanArray::new(cells.finish(), nulls)),
            Cells::Int32(cells) => Arc::new(Int32Array::new(taken(cells), nulls)),
            Cells::Int64(cells) => Arc::new(Int64Array::new(taken(cells), nulls)),
            Cells::Float32(cells) => Arc::new(Float32Array::new(taken(cells), nulls)),
            Cells::Float64(cells) => Arc::new(Float64Array::new(taken(cells), nulls)),
            Cells::Decimal(_, cells) => Arc::new(Decimal128Array::new(taken(cells), nulls).with_data_type(self.field.data_type().clone())),
            Cells::Text(cells) => cells.finish_text(nulls)?,
            Cells::Binary(cells) => cells.finish_binary(nulls)?,
            Cells::Date(cells) => Arc::new(Date32Array::new(taken(cells), nulls)),
            Cells::Timestamp(zone, cells) => {
                let array = TimestampMicrosecondArray::new(taken(cells), nulls);
                Arc::new(if *zone == Zone::Required {
                    array.with_timezone("UTC")
                } else {
                    array
                })
            }
            Cells::Struct(record) => Arc::new(record.finish(nulls)?),
            Cells::List(ends, item) => {
                let array = ListArray::try_new(Arc::clone(&item.field), ends.finish(), item.finish()?, nulls);
                Arc::new(array.map_err(|e| Error::bug("a decoded column of arrays is none").because(e))?)
            }
            Cells::Map { ends, keys, values } => {
                let DataType::Map(entries, sorted) = self.field.data_type() else {
                    return Err(Error::bug("a map is of no map type"));
                };
                let DataType::Struct(pair) = entries.data_type() else {
                    return Err(Error::bug("a map has no entries"));
                };
                let columns = vec![keys.finish_text(None)?, values.finish()?];
                let array = StructArray::try_new(pair.clone(), columns, None)
                    .and_then(|pairs| MapArray::try_new(Arc::clone(entries), ends.finish(), pairs, nulls, *sorted));
                Arc::new(array.map_err(|e| Error::bug("a decoded column of maps is none").because(e))?)
            }
        };
        Ok(array)
    }
}

/// The cells as a buffer, with room for as many in the next run.
fn taken<T: arrow::datatypes::ArrowNativeType>(cells: &mut Vec<T>) -> ScalarBuffer<T> {
    let room = Vec::with_capacity(cells.len());
    ScalarBuffer::from(std::mem::replace(cells, room))
}

impl Record {
    pub fn new(fields: &Fields, dialect: Dialect, path: &str) -> Result<Self> {
        let columns: Vec<Column> = fields
            .iter()
            .map(|field| Column::new(field, dialect, &format!("{path}.{}", field.name())))
            .collect::<Result<_>>()?;
        let names = names(&columns);
        Ok(Self { columns, names })
    }

    /// Adds columns behind the others, null in so many cells so far.
    pub fn grow(&mut self, fields: &[Field], dialect: Dialect, path: &str, cells: usize) -> Result<()> {
        for field in fields {
            let mut column = Column::new(field, dialect, &format!("{path}.{}", field.name()))?;
            (0..cells).for_each(|_| column.push_void());
            self.columns.push(column);
        }
        self.names = names(&self.columns);
        Ok(())
    }

    /// Reads an object as the cells of `row`.
    fn read(&mut self, scanner: &mut Scanner<'_>, row: usize) -> Read {
        read_members(&mut self.columns, &mut self.names, scanner, row)?;
        for column in &mut self.columns {
            if column.len() == row {
                column.push_null().map_err(|fault| fault.within(column.field.name()))?;
            }
        }
        Ok(())
    }

    fn finish(&mut self, nulls: Option<NullBuffer>) -> Result<StructArray> {
        let fields: Fields = self.columns.iter().map(|column| Arc::clone(&column.field)).collect();
        let columns = self.columns.iter_mut().map(Column::finish).collect::<Result<Vec<_>>>()?;
        StructArray::try_new(fields, columns, nulls).map_err(|e| Error::bug("a decoded column of objects is none").because(e))
    }
}

fn names(columns: &[Column]) -> Names {
    Names::new(columns.iter().enumerate().map(|(index, column)| (column.name(), index)))
}

/// Reads an object's members into the cells of `row`; those that mean no column are checked and passed over.
pub(super) fn read_members(columns: &mut [Column], names: &mut Names, scanner: &mut Scanner<'_>, row: usize) -> Read {
    scanner.open(b'{', "an object is expected")?;
    let mut last = 0;
    let mut more = !scanner.closes(b'}');
    while more {
        match names.find(scanner, &mut last)? {
            Some(index) => {
                let column = &mut columns[index];
                if column.len() > row {
                    return Err(Fault::new(Code::DuplicateColumn, "it stands twice in one object").within(column.name()));
                }
                column.read(scanner).map_err(|fault| fault.within(column.field.name()))?;
            }
            None => {
                scanner.skip()?;
            }
        }
        more = scanner.more(b'}')?;
    }
    Ok(())
}

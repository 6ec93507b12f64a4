//! One column: reads a value and appends it, in one step. Each kind of cell has its own way to read both forms.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanArray, BooleanBufferBuilder, Date32Array, Decimal128Array, Float32Array, Float64Array, Int32Array, Int64Array,
    ListArray, MapArray, StructArray, TimestampMicrosecondArray,
};
use arrow::buffer::ScalarBuffer;
use arrow::datatypes::{DataType, Field};

use super::ColumnType;
use super::literal::{self, Elements};
use super::print::{print, print_char, utf8};
use super::wire::{Wire, fixed};
use super::{BadValue, Element, Kind, Read, Shape, Specials, float, nested, numeric, time};
use crate::error::{Error, Result};
use crate::sources::cells::{Bytes, Ends, Validity};
use crate::sources::partition::{has_bytes, has_day, has_time};

/// Collects the values of a column. A value that is refused leaves nothing behind.
#[derive(Debug)]
pub struct ColumnBuilder {
    cells: Cells,
    nulls: Validity,
    specials: Specials,
    is_partition: bool,
}

#[derive(Debug)]
enum Cells {
    Boolean(BooleanBufferBuilder),
    Int2(Vec<i32>),
    Int4(Vec<i32>),
    Int8(Vec<i64>),
    Oid(Vec<i64>),
    Float4(Vec<f32>),
    Float8(Vec<f64>),
    Decimal(Shape, Vec<i128>),
    Money(Shape, Vec<i128>),
    Date(Vec<i32>),
    Timestamp {
        zoned: bool,
        cells: Vec<i64>,
    },
    Bytea(Bytes),
    /// Both forms are the text itself.
    Text(Bytes),
    /// The text form is the text, the binary form is printed.
    Printed(Kind, Bytes),
    List {
        element: Arc<Element>,
        ends: Ends,
        elements: Box<ColumnBuilder>,
    },
    Map {
        ends: Ends,
        keys: Bytes,
        values: Bytes,
        present: Validity,
    },
}

impl ColumnBuilder {
    pub fn new(column: &ColumnType, specials: Specials) -> Self {
        Self::of(&column.kind, specials)
    }

    /// The same of a column that its table is partitioned by: what cannot be written as a partition's value, it does not hold.
    pub fn of_partition(self) -> Self {
        Self {
            is_partition: true,
            ..self
        }
    }

    fn of(kind: &Kind, specials: Specials) -> Self {
        let cells = match kind {
            Kind::Boolean => Cells::Boolean(BooleanBufferBuilder::new(0)),
            Kind::Int2 => Cells::Int2(Vec::new()),
            Kind::Int4 => Cells::Int4(Vec::new()),
            Kind::Int8 => Cells::Int8(Vec::new()),
            Kind::Oid => Cells::Oid(Vec::new()),
            Kind::Float4 => Cells::Float4(Vec::new()),
            Kind::Float8 => Cells::Float8(Vec::new()),
            Kind::Decimal(shape) => Cells::Decimal(*shape, Vec::new()),
            Kind::Money(digits) => Cells::Money(
                Shape {
                    precision: 19,
                    scale: *digits,
                },
                Vec::new(),
            ),
            Kind::Date => Cells::Date(Vec::new()),
            Kind::Timestamp | Kind::Timestamptz => Cells::Timestamp {
                zoned: *kind == Kind::Timestamptz,
                cells: Vec::new(),
            },
            Kind::Bytea => Cells::Bytea(Bytes::new()),
            Kind::Text => Cells::Text(Bytes::new()),
            Kind::Array(element) => Cells::List {
                element: Arc::clone(element),
                ends: Ends::new(),
                elements: Box::new(Self::of(&element.kind, specials)),
            },
            Kind::Hstore => Cells::Map {
                ends: Ends::new(),
                keys: Bytes::new(),
                values: Bytes::new(),
                present: Validity::default(),
            },
            printed => Cells::Printed(printed.clone(), Bytes::new()),
        };
        Self {
            cells,
            nulls: Validity::default(),
            specials,
            is_partition: false,
        }
    }

    /// Values so far.
    #[inline]
    pub fn len(&self) -> usize {
        self.nulls.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What the values weigh in memory, about.
    pub fn bytes(&self) -> usize {
        let len = self.len();
        match &self.cells {
            Cells::Boolean(_) => len / 8,
            Cells::Int2(_) | Cells::Int4(_) | Cells::Float4(_) | Cells::Date(_) => 4 * len,
            Cells::Int8(_) | Cells::Oid(_) | Cells::Float8(_) | Cells::Timestamp { .. } => 8 * len,
            Cells::Decimal(..) | Cells::Money(..) => 16 * len,
            Cells::Bytea(cells) | Cells::Text(cells) | Cells::Printed(_, cells) => 4 * len + cells.data.len(),
            Cells::List { elements, .. } => 4 * len + elements.bytes(),
            Cells::Map { keys, values, present, .. } => 4 * len + 8 * present.len() + keys.data.len() + values.data.len(),
        }
    }

    pub fn append_null(&mut self) {
        match &mut self.cells {
            Cells::Boolean(cells) => cells.append(false),
            Cells::Int2(cells) | Cells::Int4(cells) | Cells::Date(cells) => cells.push(0),
            Cells::Int8(cells) | Cells::Oid(cells) | Cells::Timestamp { cells, .. } => cells.push(0),
            Cells::Float4(cells) => cells.push(0.0),
            Cells::Float8(cells) => cells.push(0.0),
            Cells::Decimal(_, cells) | Cells::Money(_, cells) => cells.push(0),
            Cells::Bytea(cells) | Cells::Text(cells) | Cells::Printed(_, cells) => cells.ends.push_empty(),
            Cells::List { ends, .. } | Cells::Map { ends, .. } => ends.push_empty(),
        }
        self.nulls.push(false);
    }

    /// Appends a value in binary form, as `COPY … (FORMAT binary)` and pgoutput with `binary 'true'` send it.
    #[inline]
    pub fn append_binary(&mut self, value: &[u8]) -> Result<(), BadValue> {
        let read = self.cells.read_binary(value);
        self.done(read)
    }

    /// Appends a value in text form, as the server prints it.
    #[inline]
    pub fn append_text(&mut self, value: &[u8]) -> Result<(), BadValue> {
        let read = self.cells.read_text(value);
        self.done(read)
    }

    #[inline]
    fn done(&mut self, read: Read) -> Read {
        let read = match read {
            Ok(()) if self.is_partition => self.cells.must_fit_partition(self.len()),
            read => read,
        };
        match read {
            Ok(()) => {
                self.nulls.push(true);
                Ok(())
            }
            Err(bad) => self.refused(bad),
        }
    }

    #[cold]
    fn refused(&mut self, bad: BadValue) -> Read {
        self.truncate(self.len());
        match self.specials {
            Specials::Null if bad.is_special() => {
                self.append_null();
                Ok(())
            }
            _ => Err(bad),
        }
    }

    /// Cuts back to so many values, and whatever of a further one was begun.
    pub fn truncate(&mut self, len: usize) {
        self.nulls.truncate(len);
        match &mut self.cells {
            Cells::Boolean(cells) => cells.truncate(len),
            Cells::Int2(cells) | Cells::Int4(cells) | Cells::Date(cells) => cells.truncate(len),
            Cells::Int8(cells) | Cells::Oid(cells) | Cells::Timestamp { cells, .. } => cells.truncate(len),
            Cells::Float4(cells) => cells.truncate(len),
            Cells::Float8(cells) => cells.truncate(len),
            Cells::Decimal(_, cells) | Cells::Money(_, cells) => cells.truncate(len),
            Cells::Bytea(cells) | Cells::Text(cells) | Cells::Printed(_, cells) => cells.truncate(len),
            Cells::List { ends, elements, .. } => {
                ends.truncate(len);
                elements.truncate(ends.last());
            }
            Cells::Map {
                ends,
                keys,
                values,
                present,
            } => {
                ends.truncate(len);
                keys.truncate(ends.last());
                values.truncate(ends.last());
                present.truncate(ends.last());
            }
        }
    }

    /// The values so far as an array of the column's [`ColumnType::data_type`]; the column is empty then. Fails only on a bug.
    pub fn finish(&mut self) -> Result<ArrayRef> {
        let nulls = self.nulls.finish();
        let array: ArrayRef = match &mut self.cells {
            Cells::Boolean(cells) => Arc::new(BooleanArray::new(cells.finish(), nulls)),
            Cells::Int2(cells) | Cells::Int4(cells) => Arc::new(Int32Array::new(taken(cells), nulls)),
            Cells::Int8(cells) | Cells::Oid(cells) => Arc::new(Int64Array::new(taken(cells), nulls)),
            Cells::Float4(cells) => Arc::new(Float32Array::new(taken(cells), nulls)),
            Cells::Float8(cells) => Arc::new(Float64Array::new(taken(cells), nulls)),
            Cells::Decimal(shape, cells) | Cells::Money(shape, cells) => {
                let kind = DataType::Decimal128(shape.precision, shape.scale as i8);
                Arc::new(Decimal128Array::new(taken(cells), nulls).with_data_type(kind))
            }
            Cells::Date(cells) => Arc::new(Date32Array::new(taken(cells), nulls)),
            Cells::Timestamp { zoned, cells } => {
                let array = TimestampMicrosecondArray::new(taken(cells), nulls);
                Arc::new(if *zoned { array.with_timezone("UTC") } else { array })
            }
            Cells::Bytea(cells) => cells.finish_binary(nulls)?,
            Cells::Text(cells) | Cells::Printed(_, cells) => cells.finish_text(nulls)?,
            Cells::List { element, ends, elements } => {
                let field = Arc::new(Field::new("element", element.kind.data_type(), true));
                let array = ListArray::try_new(field, ends.finish(), elements.finish()?, nulls);
                Arc::new(array.map_err(|e| Error::bug("a column of arrays is none").because(e))?)
            }
            Cells::Map {
                ends,
                keys,
                values,
                present,
            } => {
                let DataType::Map(entries, sorted) = Kind::Hstore.data_type() else {
                    return Err(Error::bug("an hstore is no map"));
                };
                let DataType::Struct(pair) = entries.data_type() else {
                    return Err(Error::bug("a map has no pairs"));
                };
                let columns = vec![keys.finish_text(None)?, values.finish_text(present.finish())?];
                let array = StructArray::try_new(pair.clone(), columns, None)
                    .and_then(|pairs| MapArray::try_new(Arc::clone(&entries), ends.finish(), pairs, nulls, sorted));
                Arc::new(array.map_err(|e| Error::bug("a column of maps is none").because(e))?)
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

impl Cells {
    /// That this cell can be written as a partition's value.
    fn must_fit_partition(&self, cell: usize) -> Read {
        const YEARS: &str = "the table is partitioned by it, and a partition cannot be outside of the years 0001 to 9999. With `special_values = \
                             \"null\"` the row is in the table, and has a null there";
        const TEXT: &str = "the table is partitioned by it, and bytes of a partition must be text in UTF-8. With `special_values = \"null\"` the \
                            row is in the table, and has a null there";
        match self {
            Cells::Date(cells) if !has_day(cells[cell].into()) => Err(BadValue::out_of_range(YEARS)),
            Cells::Timestamp { cells, .. } if !has_time(cells[cell]) => Err(BadValue::out_of_range(YEARS)),
            Cells::Bytea(cells) if !has_bytes(cells.get(cell)) => Err(BadValue::out_of_range(TEXT)),
            _ => Ok(()),
        }
    }

    #[inline]
    fn read_binary(&mut self, value: &[u8]) -> Read {
        match self {
            Cells::Boolean(cells) => match value {
                [0] => cells.append(false),
                [1] => cells.append(true),
                _ => return Err(BadValue::malformed("a boolean is neither true nor false")),
            },
            Cells::Int2(cells) => cells.push(i16::from_be_bytes(fixed(value)?).into()),
            Cells::Int4(cells) => cells.push(i32::from_be_bytes(fixed(value)?)),
            Cells::Int8(cells) => cells.push(i64::from_be_bytes(fixed(value)?)),
            Cells::Oid(cells) => cells.push(u32::from_be_bytes(fixed(value)?).into()),
            Cells::Float4(cells) => cells.push(f32::from_be_bytes(fixed(value)?)),
            Cells::Float8(cells) => cells.push(f64::from_be_bytes(fixed(value)?)),
            Cells::Decimal(shape, cells) => cells.push(numeric::decimal(value, *shape)?),
            Cells::Money(_, cells) => cells.push(i64::from_be_bytes(fixed(value)?).into()),
            Cells::Date(cells) => cells.push(time::date(i32::from_be_bytes(fixed(value)?))?),
            Cells::Timestamp { cells, .. } => cells.push(time::timestamp(i64::from_be_bytes(fixed(value)?))?),
            Cells::Bytea(cells) => push(cells, value)?,
            Cells::Text(cells) => push(cells, utf8(value)?)?,
            Cells::Printed(kind, cells) => {
                print(kind, value, &mut cells.data)?;
                cells.close()?;
            }
            Cells::List { element, ends, elements } => {
                let mut head = nested::array_head(value, element)?;
                let count = match *head.dimensions {
                    [] => 0,
                    [(count, _)] => count,
                    _ => return Err(nested::too_many_dimensions()),
                };
                for _ in 0..count {
                    match head.elements.value()? {
                        None => elements.append_null(),
                        Some(element) => elements.append_binary(element)?,
                    }
                }
                head.elements.end()?;
                ends.push(elements.len())?;
            }
            Cells::Map {
                ends,
                keys,
                values,
                present,
            } => {
                let mut wire = Wire(value);
                for _ in 0..wire.count()? {
                    push(keys, utf8(wire.present()?)?)?;
                    let value = wire.value()?;
                    push(values, utf8(value.unwrap_or_default())?)?;
                    present.push(value.is_some());
                }
                wire.end()?;
                ends.push(present.len())?;
            }
        }
        Ok(())
    }

    #[inline]
    fn read_text(&mut self, value: &[u8]) -> Read {
        match self {
            Cells::Boolean(cells) => match value {
                b"t" => cells.append(true),
                b"f" => cells.append(false),
                _ => return Err(BadValue::malformed("a boolean is neither t nor f")),
            },
            Cells::Int2(cells) => cells.push(integer::<i16>(value)?.into()),
            Cells::Int4(cells) => cells.push(integer(value)?),
            Cells::Int8(cells) => cells.push(integer(value)?),
            Cells::Oid(cells) => cells.push(integer::<u32>(value)?.into()),
            Cells::Float4(cells) => cells.push(float::parse(value)?),
            Cells::Float8(cells) => cells.push(float::parse(value)?),
            Cells::Decimal(shape, cells) => cells.push(numeric::decimal_text(value, *shape)?),
            Cells::Money(_, cells) => cells.push(numeric::money_text(value)?),
            Cells::Date(cells) => cells.push(time::date_text(value)?),
            Cells::Timestamp { zoned, cells } => cells.push(time::timestamp_text(value, *zoned)?),
            Cells::Bytea(cells) => {
                read_hex(value, &mut cells.data)?;
                cells.close()?;
            }
            Cells::Printed(Kind::Char, cells) => match value {
                [byte] => {
                    print_char(*byte, &mut cells.data);
                    cells.close()?;
                }
                text => push(cells, utf8(text)?)?,
            },
            Cells::Text(cells) | Cells::Printed(_, cells) => push(cells, utf8(value)?)?,
            Cells::List { element, ends, elements } => {
                let mut texts = Elements::new(value, element.delimiter)?;
                while let Some(text) = texts.next()? {
                    match text {
                        None => elements.append_null(),
                        Some(text) => elements.append_text(text)?,
                    }
                }
                ends.push(elements.len())?;
            }
            Cells::Map {
                ends,
                keys,
                values,
                present,
            } => {
                literal::pairs(value, |key, value| {
                    push(keys, utf8(key)?)?;
                    push(values, utf8(value.unwrap_or_default())?)?;
                    present.push(value.is_some());
                    Ok(())
                })?;
                ends.push(present.len())?;
            }
        }
        Ok(())
    }
}

#[inline]
fn push(cells: &mut Bytes, value: &[u8]) -> Read {
    cells.data.extend_from_slice(value);
    Ok(cells.close()?)
}

/// Digits with a minus at most, as the server prints them.
#[inline]
fn integer<T: std::str::FromStr>(text: &[u8]) -> Read<T> {
    let wrong = || BadValue::malformed("a whole number within its type is expected");
    if text.first() == Some(&b'+') {
        return Err(wrong());
    }
    std::str::from_utf8(text).ok().and_then(|text| text.parse().ok()).ok_or_else(wrong)
}

/// `\xdeadbeef`
fn read_hex(text: &[u8], out: &mut Vec<u8>) -> Read {
    let wrong = || BadValue::malformed("bytes in hex are expected: the server's `bytea_output` must be `hex`");
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Ok(byte - b'0'),
        b'a'..=b'f' => Ok(byte - b'a' + 10),
        _ => Err(wrong()),
    };
    let (pairs, odd) = text.strip_prefix(b"\\x").ok_or_else(wrong)?.as_chunks::<2>();
    if !odd.is_empty() {
        return Err(wrong());
    }
    out.reserve(pairs.len());
    for [high, low] in pairs {
        out.push(digit(*high)? << 4 | digit(*low)?);
    }
    Ok(())
}

//! The schema inside of the messages against the columns of the table.
//!
//! A writer may write the table's columns otherwise than before (milliseconds for microseconds, a decimal with its scale), and then they
//! are read otherwise. Columns that it has no more are null; where the table's columns come from the messages, those that the table has
//! not yet are added, and fields within them too, and those that it has get a wider type with their writer. Whether the table may have that
//! is its sink's to say. What does not fit the table stops it.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef, Fields};

use super::NewColumns;
use super::column::{Cells, Column};
use super::columns::{self, connect::ConnectSchema};
use super::encoding::Encoding;
use super::event::{self, Event};
use super::fault::{Code, Fault, Read};
use crate::error::{Error, Result};
use crate::widening::widened;

/// The part of a schema inside of a message that is about its row; a schema of nothing like that is not this message's.
pub(super) fn row_of<'a>(schema: &'a ConnectSchema, event: &Event<'_>) -> Read<&'a ConnectSchema> {
    let row = match event {
        Event::Change(_) => schema.member("after").or_else(|| schema.member("before")),
        // Its members are no columns, whatever the payload is.
        _ => Some(schema).filter(|schema| !schema.is_envelope()),
    };
    if row.is_some_and(ConnectSchema::is_text) {
        return Err(event::no_image("after", true));
    }
    let what = "the schema around the payload describes no row";
    row.filter(|row| row.is_row()).ok_or_else(|| Fault::new(Code::Unexpected, what))
}

/// The columns that such a part describes, as far as they are wanted. What the flattening adds to a row is not the table's: columns of that
/// kind are asked for as metadata.
pub(super) fn columns_of(row: &ConnectSchema, event: &Event<'_>, wanted: &dyn Fn(&str) -> bool) -> Result<Vec<Field>> {
    let is_flattened = matches!(event, Event::Row);
    row.columns(&|name| wanted(name) && !(is_flattened && name.starts_with("__")))
}

/// Those that columns with a schema of their own need to know: none that the table leaves out, or keeps as JSON of whatever type.
pub(super) fn is_wanted(columns: &[Column], new_columns: NewColumns, name: &str) -> bool {
    let own = columns.iter().find(|column| column.name() == name);
    own.map_or(new_columns == NewColumns::Add, |column| column.encoding != Encoding::Json)
}

/// Makes `columns` read what a writer with these fields writes. Tells the fields that they lack and are to have.
pub(super) fn adopt(columns: &mut [Column], key: &[usize], writer: &[Field], new_columns: NewColumns, topic: &str) -> Result<Vec<Field>> {
    for (place, column) in columns.iter_mut().enumerate() {
        let field = writer.iter().find(|field| field.name() == column.name());
        if let Some(field) = field {
            adopt_column(column, field, new_columns).map_err(|what| {
                let what = format!("the messages of topic {topic} have another type than the table: column {what}. {NEXT}");
                Error::data("schema_changed", what)
            })?;
        }
        // A column that this writer has no more, or of which it has nulls.
        if new_columns == NewColumns::Add && field.is_none_or(Field::is_nullable) && !key.contains(&place) {
            column.let_nulls_in();
        }
    }
    if new_columns == NewColumns::Ignore {
        return Ok(Vec::new());
    }
    let unknown = writer
        .iter()
        .filter(|field| columns.iter().all(|column| column.name() != field.name()));
    Ok(unknown.map(|field| field.clone().with_nullable(true)).collect())
}

const NEXT: &str = "Let a new table begin with it, or change it back at the source";

fn adopt_column(column: &mut Column, writer: &Field, new_columns: NewColumns) -> Result<(), String> {
    if column.encoding == Encoding::Json {
        return Ok(());
    }
    if let Some(wider) = wider(column.field.data_type(), writer.data_type()).filter(|_| new_columns == NewColumns::Add) {
        column.widen(&wider).map_err(|why| format!("`{}`: {why}", writer.name()))?;
    }
    let clash = || {
        format!(
            "`{}` is {} there and {} here",
            writer.name(),
            writer.data_type(),
            column.field.data_type()
        )
    };
    match (column.field.data_type(), writer.data_type()) {
        (DataType::Struct(_), DataType::Struct(fields)) => return adopt_struct(column, fields, new_columns),
        (DataType::List(_), DataType::List(item)) => match &mut column.cells {
            Cells::List(_, own) => adopt_inner(own, Some(item), new_columns)?,
            _ => return Err(clash()),
        },
        (DataType::Map(..), DataType::Map(entries, _)) => match (&mut column.cells, entries.data_type()) {
            (Cells::Map { values, .. }, DataType::Struct(pair)) if pair.len() == 2 => adopt_inner(values, Some(&pair[1]), new_columns)?,
            _ => return Err(clash()),
        },
        (table, _) => {
            column.encoding = written(table, writer, new_columns).ok_or_else(clash)?;
            return Ok(());
        }
    }
    column.follow_inner_types();
    Ok(())
}

/// How the cells of a key are written into a message's key, for a column of this type, if they fit.
pub(super) fn encoding(table: &DataType, writer: &Field) -> Option<Encoding> {
    written(table, writer, NewColumns::Ignore).or_else(|| written(table, writer, NewColumns::Add))
}

/// How a writer with this field writes the cells of a column of this type, if they fit: of types that are not nested.
fn written(table: &DataType, writer: &Field, new_columns: NewColumns) -> Option<Encoding> {
    let encoding = match (table, writer.data_type()) {
        (table, written) if !table.is_nested() && table == written => Encoding::of(writer),
        (table, _) if matches!(Encoding::of(writer), Encoding::NanoTimestamp | Encoding::NanoTime) => {
            return nanos(table, Encoding::of(writer), new_columns);
        }
        (DataType::Int64, DataType::Int32) | (DataType::Float64, DataType::Float32) => Encoding::of(writer),
        // Writers take turns: the table's columns may be wider than this one's.
        (DataType::Float64, DataType::Int32) | (DataType::Timestamp(_, None), DataType::Date32) if new_columns == NewColumns::Add => {
            Encoding::of(writer)
        }
        // What does not fit is refused cell by cell; where the table was made from the messages, it is refused at once.
        (DataType::Decimal128(p, s), DataType::Decimal128(wp, ws))
            if new_columns == NewColumns::Ignore || (ws <= s && i16::from(*wp) - i16::from(*ws) <= i16::from(*p) - i16::from(*s)) =>
        {
            Encoding::of(writer)
        }
        (DataType::Utf8, DataType::Decimal128(..)) => Encoding::of(writer),
        (DataType::Decimal128(..), DataType::Utf8) if Encoding::of(writer) != Encoding::Natural => Encoding::of(writer),
        (DataType::Decimal128(..), DataType::Utf8 | DataType::Float64 | DataType::Int32 | DataType::Int64) => Encoding::Text,
        (DataType::Date32 | DataType::Timestamp(..), DataType::Utf8) if Encoding::of(writer) == Encoding::Natural => Encoding::Text,
        // Whoever names the column a string gets the text as it comes.
        (DataType::Utf8, DataType::Timestamp(..)) if new_columns == NewColumns::Ignore && Encoding::of(writer) == Encoding::Natural => {
            Encoding::Text
        }
        (DataType::Timestamp(..), DataType::Timestamp(..)) if new_columns == NewColumns::Ignore => Encoding::of(writer),
        _ => return None,
    };
    Some(encoding)
}

/// The same of nanoseconds, for which a table made from the messages has text. Columns of microseconds hold those that are whole ones: what is
/// between two is refused cell by cell.
fn nanos(table: &DataType, written: Encoding, new_columns: NewColumns) -> Option<Encoding> {
    match (table, written) {
        (DataType::Timestamp(_, None), Encoding::NanoTimestamp) | (DataType::Int64, Encoding::NanoTime) => Some(Encoding::Nanos),
        (DataType::Timestamp(_, Some(_)), Encoding::NanoTimestamp) if new_columns == NewColumns::Ignore => Some(Encoding::Nanos),
        // As they come: a long of a schema file that is no time of a day.
        (DataType::Int64, Encoding::NanoTimestamp) if new_columns == NewColumns::Ignore => Some(Encoding::Natural),
        _ => None,
    }
}

/// The type that a column has to become for a writer, if another than its own.
fn wider(own: &DataType, writer: &DataType) -> Option<DataType> {
    match (own, writer) {
        // A number in a column of decimals is refused cell by cell where it does not fit.
        (DataType::Decimal128(..), writer) if writer.is_integer() => None,
        _ => widened(own, writer).filter(|wider| wider != own),
    }
}

fn adopt_struct(column: &mut Column, writer: &[FieldRef], new_columns: NewColumns) -> Result<(), String> {
    let (cells, name) = (column.len(), column.field.name().clone());
    let Cells::Struct(record) = &mut column.cells else { return Ok(()) };
    for own in &mut record.columns {
        let field = writer.iter().find(|field| field.name() == own.name());
        adopt_inner(own, field, new_columns).map_err(|what| format!("`{name}`: {what}"))?;
    }
    if new_columns == NewColumns::Add {
        let unknown = writer
            .iter()
            .filter(|field| record.columns.iter().all(|own| own.name() != field.name()));
        let added: Vec<Field> = unknown.map(|field| field.as_ref().clone().with_nullable(true)).collect();
        let all = record.columns.iter().map(|own| Arc::clone(&own.field));
        let all: Fields = all.chain(added.iter().cloned().map(Arc::new)).collect();
        columns::check_names(&all, &name).map_err(|error| error.to_string())?;
        record
            .grow(&added, column.dialect, &name, cells)
            .map_err(|error| error.to_string())?;
    }
    column.follow_inner_types();
    Ok(())
}

/// Makes a column within another read what the writer's field, if there is one, brings.
fn adopt_inner(column: &mut Column, field: Option<&FieldRef>, new_columns: NewColumns) -> Result<(), String> {
    if let Some(field) = field {
        adopt_column(column, field, new_columns)?;
    }
    if new_columns == NewColumns::Add && field.is_none_or(|field| field.is_nullable()) {
        column.let_nulls_in();
    }
    Ok(())
}

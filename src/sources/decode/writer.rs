//! The writers of a topic by the schemas that they put into their messages.
//!
//! The same schema stands in front of every message, some kilobytes of it: it is recognised by its bytes, and read only when it is new.

use arrow::datatypes::Field;

use super::NewColumns;
use super::adopt;
use super::column::Column;
use super::columns::connect::ConnectSchema;
use super::event::{self, Event};
use super::fault::{Code, Fault, Read, Trouble};
use super::marks;
use super::scanner::Scanner;
use super::wrapper;
use crate::error::{Error, Result};

/// How many schemas are remembered: shards of one table have one each, and a topic has some in its life.
const SCHEMAS_MAX: usize = 16;
/// Longest text of one: that of the 1,600 columns which a table of PostgreSQL has at most is a tenth of it.
const SCHEMA_BYTES_MAX: usize = 4 << 20;

#[derive(Debug)]
pub(super) struct Writers {
    new_columns: NewColumns,
    /// The one whose way of writing the columns have now is the first.
    known: Vec<Known>,
}

#[derive(Debug)]
struct Known {
    /// A message's text up to its payload.
    prefix: Vec<u8>,
    fields: Vec<Field>,
}

/// A message's value: where its payload begins, and the schema in front of it.
pub(super) struct Opened<'a> {
    pub payload: Scanner<'a>,
    wrapped: bool,
    schema: Option<Schema<'a>>,
}

enum Schema<'a> {
    Known(usize),
    New { prefix: &'a [u8], schema: ConnectSchema },
}

/// The columns that the schema in a message describes; None if it has none, or is about no row, or cannot be read.
pub(super) fn columns_of(value: &[u8]) -> Result<Option<Vec<Field>>> {
    let Ok(Some(mut wrapped)) = wrapper::open(value) else {
        return Ok(None);
    };
    let (Ok(event), Ok(schema)) = (event::read(&mut wrapped.payload), parse(wrapped.schema)) else {
        return Ok(None);
    };
    match adopt::row_of(&schema, &event) {
        Ok(row) if event.is_of_row() => adopt::columns_of(row, &event, &|_| true).map(Some),
        _ => Ok(None),
    }
}

/// Whether a message's value is a row, or a change that leaves one. Fails where that, or its schema, cannot be read.
pub(super) fn is_row(value: &[u8]) -> Read<bool> {
    let (mut payload, schema) = match wrapper::open(value)? {
        Some(wrapped) => (wrapped.payload, Some(wrapped.schema).filter(|schema| *schema != b"null")),
        None => (Scanner::new(value), None),
    };
    let event = event::read(&mut payload)?;
    if let Some(schema) = schema.filter(|_| event.is_of_row()) {
        adopt::row_of(&parse(schema)?, &event)?;
    }
    Ok(match event {
        Event::Change(envelope) => envelope.after.is_some(),
        Event::Row => !marks::is_deleted(&mut payload)?,
        Event::NoChange | Event::Nothing => false,
    })
}

/// One message's schema may be damaged like any other part of it.
fn parse(schema: &[u8]) -> Read<ConnectSchema> {
    if schema.len() > SCHEMA_BYTES_MAX {
        return Err(Fault::new(
            Code::TooLarge,
            "the schema around the payload is longer than any table's",
        ));
    }
    let parsed = serde_json::from_slice(schema).map(ConnectSchema::with_fine_times);
    parsed.map_err(|_| Fault::new(Code::Unexpected, "the schema around the payload is not one of Kafka Connect's"))
}

impl Opened<'_> {
    /// Whether the columns read what this message's writer writes, if they have been asked to.
    pub fn is_known(&self) -> bool {
        !matches!(self.schema, Some(Schema::New { .. }))
    }

    /// That the text ends where the payload has been read.
    pub fn close(&self, scanner: &mut Scanner<'_>) -> Read {
        match self.wrapped {
            true => wrapper::close(scanner),
            false => scanner.end(),
        }
    }
}

impl Writers {
    pub fn new(new_columns: NewColumns) -> Self {
        Self {
            new_columns,
            known: Vec::new(),
        }
    }

    pub fn open<'a>(&self, value: &'a [u8]) -> Read<Opened<'a>> {
        if let Some(index) = self.known.iter().position(|known| value.starts_with(&known.prefix)) {
            let mut payload = Scanner::new(value);
            payload.take(&self.known[index].prefix);
            return Ok(Opened {
                payload,
                wrapped: true,
                schema: Some(Schema::Known(index)),
            });
        }
        match wrapper::open(value)? {
            None => Ok(Opened {
                payload: Scanner::new(value),
                wrapped: false,
                schema: None,
            }),
            Some(wrapped) => {
                let prefix = value.get(..wrapped.payload.at()).unwrap_or_default();
                let schema = match wrapped.schema {
                    b"null" => None,
                    text => Some(Schema::New {
                        prefix,
                        schema: parse(text)?,
                    }),
                };
                Ok(Opened {
                    payload: wrapped.payload,
                    wrapped: true,
                    schema,
                })
            }
        }
    }

    /// Makes the columns read what this message's writer writes; `key` are the places of those of the key. Tells the fields that the
    /// columns lack; None where the writer is the last one's.
    pub fn adopt(
        &mut self,
        opened: &Opened<'_>,
        event: &Event<'_>,
        columns: &mut [Column],
        key: &[usize],
        topic: &str,
    ) -> std::result::Result<Option<Vec<Field>>, Trouble> {
        match &opened.schema {
            None | Some(Schema::Known(0)) => return Ok(None),
            Some(Schema::Known(index)) => {
                let known = self.known.remove(*index);
                self.known.insert(0, known);
            }
            Some(Schema::New { prefix, schema }) => {
                let row = adopt::row_of(schema, event)?;
                let wanted = |name: &str| adopt::is_wanted(columns, self.new_columns, name);
                let unfit = |error| {
                    let what = format!("the schema inside of the messages of topic {topic} is of no use for the table");
                    Trouble::Stop(Error::data("schema_changed", what).because(error))
                };
                let fields = adopt::columns_of(row, event, &wanted).map_err(unfit)?;
                self.known.insert(
                    0,
                    Known {
                        prefix: prefix.to_vec(),
                        fields,
                    },
                );
                self.known.truncate(SCHEMAS_MAX);
            }
        }
        let adopted = adopt::adopt(columns, key, &self.known[0].fields, self.new_columns, topic);
        if adopted.is_err() {
            self.forget();
        }
        adopted.map(Some).map_err(Trouble::Stop)
    }

    /// Whether a message has a schema in front that is not known.
    pub fn is_new(&self, value: &[u8]) -> bool {
        let is_known = self.known.iter().any(|known| value.starts_with(&known.prefix));
        !is_known && matches!(wrapper::open(value), Ok(Some(wrapped)) if wrapped.schema != b"null")
    }

    /// Knows no writer any more: the next message's schema is looked at anew.
    pub fn forget(&mut self) {
        self.known.clear();
    }
}

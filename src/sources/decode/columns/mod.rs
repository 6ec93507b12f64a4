//! The columns of a table, out of a schema in one of the standard forms: an Avro schema, a JSON Schema, or the schema that Kafka
//! Connect puts into its messages.
//!
//! Each form becomes Arrow fields of the types that a table can have. What has no such type, and what could mean several things, is
//! refused with the path of the field: a guess here would be a guess about every row.

mod avro;
pub(super) mod connect;
mod json_schema;
mod merge;
mod ordered;

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Fields, Schema, SchemaRef, TimeUnit};

use super::encoding::Encoding;
use crate::error::{Error, Result};

/// The key in a field's metadata under which Delta and its readers look for a column's comment.
pub const COMMENT: &str = "comment";

/// Reads the columns out of a schema file: Avro if its name ends with `.avsc`, JSON Schema if with `.json`.
pub fn from_file(path: &Path) -> Result<SchemaRef> {
    let name = path.display();
    let text = std::fs::read_to_string(path).map_err(|e| {
        Error::config(
            "schema",
            format!("cannot read the schema file {name}: check the path and its permissions"),
        )
        .because(e)
    })?;
    // Some editors begin every file with a byte order mark.
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    match path.extension().and_then(|e| e.to_str()) {
        Some("avsc") => from_avro(text),
        Some("json") => from_json_schema(text),
        _ => {
            return Err(Error::config(
                "schema",
                format!("the schema file {name} is of no known form: it must end with .avsc or .json"),
            ));
        }
    }
    .map_err(|error| Error::config("schema", format!("schema file {name}")).because(error))
}

/// Columns of an Avro schema, whose root is a record.
///
/// Times of day become longs of microseconds since midnight; fixed and bytes become binary, written in JSON as base64; an enum and a
/// uuid become strings, whatever they say. A number for a date or a timestamp is of the logical type's unit; text is ISO 8601. A decimal is
/// a number or its text; in Debezium's messages it is a number or base64 of its bytes, unless the field has `"encoding": "text"`. A value of
/// a union stands there as it is. Defaults and aliases are for readers of Avro's own form: a member that is not there is null or missing,
/// and one of another name is passed over. Logical types that Avro does not know say nothing.
pub fn from_avro(text: &str) -> Result<SchemaRef> {
    checked(avro::fields(text)?)
}

/// Columns of a JSON Schema, whose root is an object; see `columns/json_schema.rs` for what it may say.
pub fn from_json_schema(text: &str) -> Result<SchemaRef> {
    checked(json_schema::fields(text)?)
}

/// A schema of these columns, if a table can have such names.
pub(super) fn checked(fields: Vec<Field>) -> Result<SchemaRef> {
    let fields = Fields::from(fields);
    check_names(&fields, "")?;
    Ok(Arc::new(Schema::new(fields)))
}

/// Refuses names that Delta or Parquet cannot hold, at every level.
pub(super) fn check_names(fields: &Fields, path: &str) -> Result<()> {
    if fields.is_empty() {
        return Err(refuse(path, "it has no fields, and a table has at least one column".to_owned()));
    }
    let mut seen: HashMap<String, &str> = HashMap::new();
    for field in fields {
        let path = join(path, field.name());
        if field.name().is_empty() {
            return Err(refuse(&path, "a name is empty".to_owned()));
        }
        if let Some(bad) = field.name().chars().find(|c| " ,;{}()\n\t=".contains(*c)) {
            return Err(refuse(
                &path,
                format!("its name has a {bad:?}, which Delta and Parquet do not allow: rename the field"),
            ));
        }
        if let Some(other) = seen.insert(field.name().to_lowercase(), field.name()) {
            let how = if other == field.name() {
                "there are two of it".to_owned()
            } else {
                format!("it differs from `{other}` in case only")
            };
            return Err(refuse(&path, format!("{how}, and Delta takes them for one: rename one of them")));
        }
        check_type_names(field.data_type(), &path)?;
    }
    Ok(())
}

fn check_type_names(kind: &DataType, path: &str) -> Result<()> {
    match kind {
        DataType::Struct(fields) => check_names(fields, path),
        DataType::List(item) => check_type_names(item.data_type(), &join(path, "element")),
        DataType::Map(entries, _) => match entries.data_type() {
            DataType::Struct(pair) => pair
                .iter()
                .try_for_each(|field| check_type_names(field.data_type(), &join(path, field.name()))),
            _ => Ok(()),
        },
        _ => Ok(()),
    }
}

/// A column that cannot be one.
fn refuse(path: &str, why: impl std::fmt::Display) -> Error {
    let place = if path.is_empty() {
        "the schema".to_owned()
    } else {
        format!("field `{path}`")
    };
    Error::config("schema", format!("{place}: {why}"))
}

fn join(path: &str, name: &str) -> String {
    if path.is_empty() {
        name.to_owned()
    } else {
        format!("{path}.{name}")
    }
}

/// A type, how JSON writes it, and whether it may be null: what every form has to say of a field.
#[derive(Clone, Debug)]
struct Kind {
    data: DataType,
    encoding: Encoding,
    nullable: bool,
}

impl Kind {
    fn new(data: DataType) -> Self {
        Self {
            data,
            encoding: Encoding::Natural,
            nullable: false,
        }
    }

    fn written(data: DataType, encoding: Encoding) -> Self {
        Self {
            data,
            encoding,
            nullable: false,
        }
    }

    fn field(self, name: &str, comment: Option<&str>) -> Field {
        let field = Field::new(name, self.data, self.nullable);
        let field = match comment.map(str::trim).filter(|text| !text.is_empty()) {
            Some(text) => field.with_metadata(HashMap::from([(COMMENT.to_owned(), text.to_owned())])),
            None => field,
        };
        self.encoding.mark(field)
    }

    /// An array of these.
    fn list(self) -> Self {
        Self::new(DataType::List(Arc::new(self.field("element", None))))
    }

    /// A map from text to these.
    fn map(self) -> Self {
        let pair = vec![Field::new("key", DataType::Utf8, false), self.field("value", None)];
        Self::new(DataType::Map(
            Arc::new(Field::new("key_value", DataType::Struct(pair.into()), false)),
            false,
        ))
    }

    /// Written as a word of the schema file says, where the type has such a form.
    fn encoded(mut self, word: Option<&str>, path: &str) -> Result<Self> {
        let Some(word) = word else { return Ok(self) };
        let fits: &[Encoding] = match &self.data {
            DataType::Decimal128(_, scale) => &[Encoding::Text, Encoding::Unscaled(i64::from(*scale)), Encoding::VariableScale],
            DataType::Timestamp(..) => &[Encoding::Text, Encoding::Millis, Encoding::Micros, Encoding::Nanos],
            DataType::Date32 => &[Encoding::Text, Encoding::Days],
            DataType::Int64 => &[Encoding::Millis, Encoding::Micros, Encoding::Nanos],
            DataType::Utf8 => &[
                Encoding::Text,
                Encoding::VariableScale,
                Encoding::NanoTimestamp,
                Encoding::NanoTime,
                Encoding::Json,
            ],
            _ => &[],
        };
        let Some(encoding) = fits.iter().find(|e| e.name() == word) else {
            let names: Vec<&str> = fits.iter().map(|e| e.name()).collect();
            let known = if names.is_empty() {
                "this type has only one".to_owned()
            } else {
                format!("for this type there are {}", names.join(", "))
            };
            return Err(refuse(path, format!("there is no encoding `{word}`: {known}")));
        };
        self.encoding = *encoding;
        Ok(self)
    }
}

fn instant() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))
}

fn local_time() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, None)
}

/// A decimal, if Delta has one of this precision and scale.
fn decimal(precision: u64, scale: u64, path: &str) -> Result<DataType> {
    match (u8::try_from(precision), i8::try_from(scale)) {
        (Ok(p @ 1..=38), Ok(s)) if s as u8 <= p => Ok(DataType::Decimal128(p, s)),
        _ => Err(refuse(
            path,
            format!("a decimal has 1 to 38 digits, and no more of them behind the point: not ({precision}, {scale})"),
        )),
    }
}

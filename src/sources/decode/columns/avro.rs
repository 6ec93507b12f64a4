//! Avro schemas. Messages in JSON may be described by them; the wire form of Avro is another matter.

use std::collections::HashMap;

use apache_avro::Schema;
use apache_avro::schema::{RecordField, RecordSchema};
use arrow::datatypes::{DataType, Field};
use serde_json::Value;

use super::{Kind, decimal, instant, join, local_time, refuse};
use crate::error::{Error, Result};
use crate::sources::decode::encoding::Encoding;

/// The columns of a schema whose root is a record, or a union of null and one.
pub(super) fn fields(text: &str) -> Result<Vec<Field>> {
    let invalid = || Error::config("schema", "not a valid Avro schema");
    let schema = Schema::parse_str(text).map_err(|e| invalid().because(e))?;
    must_be_understood(&serde_json::from_str(text).map_err(|e| invalid().because(e))?, "")?;
    let mut reader = Reader {
        named: HashMap::new(),
        open: Vec::new(),
    };
    let root = match &schema {
        Schema::Union(union) => one_of(union.variants(), "")?.0,
        other => other,
    };
    match root {
        Schema::Record(record) => {
            reader.named.insert(record.name.fullname(None), root);
            reader.record(record, "")
        }
        _ => Err(refuse("", "its root must be a record, whose fields are the columns")),
    }
}

struct Reader<'a> {
    /// Types by their full names, as they are met: later fields refer to them.
    named: HashMap<String, &'a Schema>,
    /// Records that contain the place at hand.
    open: Vec<String>,
}

impl<'a> Reader<'a> {
    fn record(&mut self, record: &'a RecordSchema, path: &str) -> Result<Vec<Field>> {
        let name = record.name.fullname(None);
        if self.open.contains(&name) {
            return Err(refuse(
                path,
                format!("record `{name}` contains itself, and a table's type ends somewhere"),
            ));
        }
        self.open.push(name);
        let fields = record
            .fields
            .iter()
            .map(|field| self.field(field, &join(path, &field.name)))
            .collect();
        self.open.pop();
        fields
    }

    fn field(&mut self, field: &'a RecordField, path: &str) -> Result<Field> {
        let word = field
            .custom_attributes
            .get("encoding")
            .map(|word| word.as_str().ok_or_else(|| refuse(path, "`encoding` must be text")));
        let kind = self.kind(&field.schema, path)?.encoded(word.transpose()?, path)?;
        Ok(kind.field(&field.name, field.doc.as_deref()))
    }

    fn kind(&mut self, schema: &'a Schema, path: &str) -> Result<Kind> {
        if let Some(name) = schema.name().filter(|_| !matches!(schema, Schema::Ref { .. })) {
            self.named.insert(name.fullname(None), schema);
        }
        Ok(match schema {
            Schema::Union(union) => {
                let (schema, nullable) = one_of(union.variants(), path)?;
                Kind {
                    nullable,
                    ..self.kind(schema, path)?
                }
            }
            Schema::Ref { name } => {
                let name = name.fullname(None);
                let Some(schema) = self.named.get(&name).copied() else {
                    return Err(refuse(path, format!("type `{name}` is not defined before it is used")));
                };
                self.kind(schema, path)?
            }
            Schema::Record(record) => Kind::new(DataType::Struct(self.record(record, path)?.into())),
            Schema::Array(array) => self.kind(&array.items, &join(path, "element"))?.list(),
            Schema::Map(map) => self.kind(&map.types, &join(path, "value"))?.map(),
            Schema::Null => return Err(refuse(path, "a type of nothing but null is no column")),
            Schema::Duration(_) => return Err(refuse(path, "a table has no type for a duration: use a long or a string")),
            Schema::BigDecimal => {
                return Err(refuse(
                    path,
                    "a decimal needs a precision and a scale: use logicalType \"decimal\", or a string",
                ));
            }
            other => plain(other, path)?,
        })
    }
}

/// Types without parts.
fn plain(schema: &Schema, path: &str) -> Result<Kind> {
    Ok(match schema {
        Schema::Boolean => Kind::new(DataType::Boolean),
        Schema::Int => Kind::new(DataType::Int32),
        Schema::Long => Kind::new(DataType::Int64),
        Schema::Float => Kind::new(DataType::Float32),
        Schema::Double => Kind::new(DataType::Float64),
        Schema::Bytes | Schema::Fixed(_) => Kind::new(DataType::Binary),
        Schema::String | Schema::Uuid(_) | Schema::Enum(_) => Kind::new(DataType::Utf8),
        Schema::Decimal(shape) => Kind::new(decimal(shape.precision as u64, shape.scale as u64, path)?),
        Schema::Date => Kind::written(DataType::Date32, Encoding::Days),
        Schema::TimeMillis => Kind::written(DataType::Int64, Encoding::Millis),
        Schema::TimeMicros => Kind::written(DataType::Int64, Encoding::Micros),
        Schema::TimestampMillis => Kind::written(instant(), Encoding::Millis),
        Schema::TimestampMicros => Kind::written(instant(), Encoding::Micros),
        Schema::TimestampNanos => Kind::written(instant(), Encoding::Nanos),
        Schema::LocalTimestampMillis => Kind::written(local_time(), Encoding::Millis),
        Schema::LocalTimestampMicros => Kind::written(local_time(), Encoding::Micros),
        Schema::LocalTimestampNanos => Kind::written(local_time(), Encoding::Nanos),
        _ => return Err(refuse(path, "a type that no table has")),
    })
}

/// Avro has readers ignore a logical type that does not fit its type, or that they do not know. Of one that everybody knows the column would
/// be another than its author thinks.
const LOGICAL: [&str; 13] = [
    "decimal",
    "big-decimal",
    "uuid",
    "date",
    "time-millis",
    "time-micros",
    "timestamp-millis",
    "timestamp-micros",
    "timestamp-nanos",
    "local-timestamp-millis",
    "local-timestamp-micros",
    "local-timestamp-nanos",
    "duration",
];

/// Refuses logical types that were ignored.
fn must_be_understood(schema: &Value, path: &str) -> Result<()> {
    if let Value::Array(variants) = schema {
        return variants.iter().try_for_each(|variant| must_be_understood(variant, path));
    }
    let Value::Object(members) = schema else { return Ok(()) };
    let logical = |schema: &Value| {
        schema["logicalType"]
            .as_str()
            .filter(|name| LOGICAL.contains(name))
            .map(str::to_owned)
    };
    if let Some(name) = logical(schema).filter(|_| !Schema::parse(schema).is_ok_and(|parsed| is_logical(&parsed))) {
        let what = "it does not fit its type, or lacks what it needs, as in {\"type\": \"bytes\", \"logicalType\": \"decimal\", \"precision\": 12, \"scale\": 2}";
        return Err(refuse(path, format!("logicalType `{name}`: {what}")));
    }
    for (member, part) in [("type", ""), ("items", "element"), ("values", "value")] {
        if let Some(inner) = members.get(member) {
            must_be_understood(inner, &if part.is_empty() { path.to_owned() } else { join(path, part) })?;
        }
    }
    for field in members.get("fields").and_then(Value::as_array).into_iter().flatten() {
        let path = join(path, field["name"].as_str().unwrap_or_default());
        if let Some(name) = logical(field) {
            let what = format!(
                "logicalType `{name}` stands beside the type, where Avro passes over it: write \"type\": {{\"type\": …, \"logicalType\": \"{name}\"}}"
            );
            return Err(refuse(&path, what));
        }
        must_be_understood(&field["type"], &path)?;
    }
    Ok(())
}

/// Whether it is more than one of Avro's own types.
fn is_logical(schema: &Schema) -> bool {
    use Schema::*;
    let own = matches!(
        schema,
        Null | Boolean | Int | Long | Float | Double | Bytes | String | Fixed(_) | Enum(_)
    );
    !own && !matches!(schema, Array(_) | Map(_) | Union(_) | Record(_) | Ref { .. })
}

/// The one type of a union beside null, and whether null is in it.
fn one_of<'a>(variants: &'a [Schema], path: &str) -> Result<(&'a Schema, bool)> {
    let mut types = variants.iter().filter(|schema| !matches!(schema, Schema::Null));
    match (types.next(), types.next()) {
        (Some(one), None) => Ok((one, variants.len() > 1)),
        _ => Err(refuse(path, "a union may be of null and one other type: a column has one type")),
    }
}

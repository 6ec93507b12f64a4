//! Arrow schemas as Delta writes them, and back.
//!
//! Only types whose values both sides hold exactly are translated; any other is refused with the name of its column.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Fields, Schema, TimeUnit};
use serde_json::{Map, Value, json};

use crate::error::{Error, Result};

/// Key of a column's description in Arrow's and in Delta's metadata alike.
const COMMENT: &str = "comment";
/// Of Delta's `timestamp`, whose values are moments.
const UTC: &str = "UTC";

/// `metaData.schemaString` for these columns.
pub(crate) fn to_delta(schema: &Schema) -> Result<String> {
    Ok(struct_to_delta(schema.fields(), "")?.to_string())
}

/// The columns of a `metaData.schemaString`.
pub(crate) fn from_delta(text: &str) -> Result<Schema> {
    let value: Value = serde_json::from_str(text).map_err(|e| Error::data("bad_log", "the table's schema is not JSON").because(e))?;
    Ok(Schema::new(fields_from_delta(&value, "")?))
}

/// Whether any column, at any depth, is a timestamp without a zone: Delta asks for a feature then.
pub(crate) fn has_timestamp_ntz(fields: &Fields) -> bool {
    fn within(kind: &DataType) -> bool {
        match kind {
            DataType::Timestamp(_, None) => true,
            DataType::Struct(fields) => has_timestamp_ntz(fields),
            DataType::List(item) | DataType::Map(item, _) => within(item.data_type()),
            _ => false,
        }
    }
    fields.iter().any(|field| within(field.data_type()))
}

fn struct_to_delta(fields: &Fields, path: &str) -> Result<Value> {
    let fields: Vec<Value> = fields.iter().map(|field| field_to_delta(field, path)).collect::<Result<_>>()?;
    Ok(json!({ "type": "struct", "fields": fields }))
}

pub(super) fn field_to_delta(field: &Field, path: &str) -> Result<Value> {
    let kind = type_to_delta(field.data_type(), &join(path, field.name()))?;
    let metadata: Map<String, Value> = field
        .metadata()
        .get(COMMENT)
        .map(|text| (COMMENT.to_owned(), json!(text)))
        .into_iter()
        .collect();
    Ok(json!({ "name": field.name(), "type": kind, "nullable": field.is_nullable(), "metadata": metadata }))
}

pub(super) fn type_to_delta(kind: &DataType, path: &str) -> Result<Value> {
    Ok(match kind {
        DataType::Boolean => json!("boolean"),
        DataType::Int32 => json!("integer"),
        DataType::Int64 => json!("long"),
        DataType::Float32 => json!("float"),
        DataType::Float64 => json!("double"),
        DataType::Decimal128(precision, scale) if *scale >= 0 => json!(format!("decimal({precision},{scale})")),
        DataType::Utf8 => json!("string"),
        DataType::Binary => json!("binary"),
        DataType::Date32 => json!("date"),
        DataType::Timestamp(TimeUnit::Microsecond, Some(zone)) if zone.as_ref() == UTC => json!("timestamp"),
        DataType::Timestamp(TimeUnit::Microsecond, None) => json!("timestamp_ntz"),
        DataType::Struct(fields) => struct_to_delta(fields, path)?,
        DataType::List(item) => json!({
            "type": "array",
            "elementType": type_to_delta(item.data_type(), &join(path, "element"))?,
            "containsNull": item.is_nullable(),
        }),
        DataType::Map(entries, _) => match entries.data_type() {
            DataType::Struct(pair) if pair.len() == 2 => json!({
                "type": "map",
                "keyType": type_to_delta(pair[0].data_type(), &join(path, "key"))?,
                "valueType": type_to_delta(pair[1].data_type(), &join(path, "value"))?,
                "valueContainsNull": pair[1].is_nullable(),
            }),
            _ => return Err(Error::bug(format!("the map `{path}` has no pair of key and value"))),
        },
        other => {
            return Err(Error::config(
                "bad_schema",
                format!("column `{path}` has the type {other}, which a Delta table does not hold"),
            ));
        }
    })
}

fn fields_from_delta(value: &Value, path: &str) -> Result<Vec<Field>> {
    let fields = value["fields"].as_array().ok_or_else(|| strange(path, value))?;
    fields.iter().map(|field| field_from_delta(field, path)).collect()
}

fn field_from_delta(value: &Value, path: &str) -> Result<Field> {
    let name = value["name"].as_str().ok_or_else(|| strange(path, value))?;
    let kind = type_from_delta(&value["type"], &join(path, name))?;
    let field = Field::new(name, kind, nullable(&value["nullable"], path)?);
    // Numbers and booleans stand bare in Delta's metadata; Arrow's holds texts.
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let metadata: HashMap<String, String> = value["metadata"]
        .as_object()
        .into_iter()
        .flatten()
        .map(|(key, value)| (key.clone(), text(value)))
        .collect();
    Ok(field.with_metadata(metadata))
}

pub(super) fn type_from_delta(value: &Value, path: &str) -> Result<DataType> {
    if let Some(name) = value.as_str() {
        return primitive_from_delta(name, path);
    }
    Ok(match value["type"].as_str() {
        Some("struct") => DataType::Struct(fields_from_delta(value, path)?.into()),
        Some("array") => {
            let element = type_from_delta(&value["elementType"], &join(path, "element"))?;
            DataType::List(Arc::new(Field::new("element", element, nullable(&value["containsNull"], path)?)))
        }
        Some("map") => {
            let key = Field::new("key", type_from_delta(&value["keyType"], &join(path, "key"))?, false);
            let optional = nullable(&value["valueContainsNull"], path)?;
            let value = Field::new("value", type_from_delta(&value["valueType"], &join(path, "value"))?, optional);
            let pair = DataType::Struct(vec![key, value].into());
            DataType::Map(Arc::new(Field::new("key_value", pair, false)), false)
        }
        _ => return Err(strange(path, value)),
    })
}

fn primitive_from_delta(name: &str, path: &str) -> Result<DataType> {
    Ok(match name {
        "boolean" => DataType::Boolean,
        "byte" => DataType::Int8,
        "short" => DataType::Int16,
        "integer" => DataType::Int32,
        "long" => DataType::Int64,
        "float" => DataType::Float32,
        "double" => DataType::Float64,
        "string" => DataType::Utf8,
        "binary" => DataType::Binary,
        "date" => DataType::Date32,
        "timestamp" => DataType::Timestamp(TimeUnit::Microsecond, Some(UTC.into())),
        "timestamp_ntz" => DataType::Timestamp(TimeUnit::Microsecond, None),
        other => {
            let unknown = || {
                Error::config(
                    "bad_schema",
                    format!("column `{path}` of the table has the type `{other}`, which alluvium does not know"),
                )
            };
            let numbers = other
                .strip_prefix("decimal(")
                .and_then(|rest| rest.strip_suffix(')'))
                .ok_or_else(unknown)?;
            let (precision, scale) = numbers.split_once(',').ok_or_else(unknown)?;
            let precision = precision.trim().parse().map_err(|_| unknown())?;
            DataType::Decimal128(precision, scale.trim().parse().map_err(|_| unknown())?)
        }
    })
}

fn nullable(value: &Value, path: &str) -> Result<bool> {
    value.as_bool().ok_or_else(|| strange(path, value))
}

fn strange(path: &str, value: &Value) -> Error {
    Error::data("bad_log", format!("the table's schema cannot be read at column `{path}`: {value}"))
}

pub(super) fn join(path: &str, name: &str) -> String {
    if path.is_empty() {
        name.to_owned()
    } else {
        format!("{path}.{name}")
    }
}

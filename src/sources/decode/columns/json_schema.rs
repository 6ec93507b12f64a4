//! JSON Schema, as far as it describes a table.
//!
//! | `type` | with | column |
//! |---|---|---|
//! | string | `format` date, date-time, local-date-time | date, timestamp, timestamp_ntz |
//! | string, number, or both | `"format": "decimal", "precision": 12, "scale": 2` | decimal(12, 2): a number or its text |
//! | string | `"contentEncoding": "base64"` | binary |
//! | string | any other format, or `enum` | string |
//! | integer | `format` int32, int64 (also without) | int, long |
//! | integer | `format` date; timestamp-, local-timestamp- or time- with millis, micros or nanos | as Avro's logical types |
//! | number | `format` float, double (also without) | float, double |
//! | boolean | | boolean |
//! | array | `items` | array |
//! | object | `properties`, or `additionalProperties` with a schema | struct, map |
//! | any or none | `"format": "json"` | string: the value's JSON text |
//!
//! A column takes null unless it is `required` and its type does not name null. `description` is the column's comment. `encoding` says
//! how a value is written where that is not clear, as in Avro schemas. `$ref` may point within the file only: nothing is fetched.
//! Constraints (`minimum`, `pattern`, the values of an `enum` …) are not checked: the schema says what the columns are.

use arrow::datatypes::{DataType, Field};

use super::ordered::Node;
use super::{Kind, decimal, instant, join, local_time, refuse};
use crate::error::{Error, Result};
use crate::sources::decode::encoding::Encoding;

/// What says something about the type of a value that the table above does not know.
const UNSUPPORTED: [&str; 8] = [
    "allOf",
    "not",
    "if",
    "patternProperties",
    "prefixItems",
    "$dynamicRef",
    "$recursiveRef",
    "dependentSchemas",
];

pub(super) fn fields(text: &str) -> Result<Vec<Field>> {
    let invalid = || Error::config("schema", "not a valid JSON Schema");
    let root: Node = serde_json::from_str(text).map_err(|e| invalid().because(e))?;
    let value: serde_json::Value = serde_json::from_str(text).map_err(|e| invalid().because(e))?;
    jsonschema::meta::validate(&value).map_err(|e| invalid().because(e.to_string()))?;
    let mut reader = Reader {
        root: &root,
        open: Vec::new(),
    };
    let kind = reader.kind(&root, "")?;
    match kind.data {
        DataType::Struct(fields) => Ok(fields.iter().map(|field| field.as_ref().clone()).collect()),
        _ => Err(refuse("", "its root must be an object, whose properties are the columns")),
    }
}

struct Reader<'a> {
    root: &'a Node,
    /// References that led to the place at hand.
    open: Vec<&'a str>,
}

impl<'a> Reader<'a> {
    fn kind(&mut self, schema: &'a Node, path: &str) -> Result<Kind> {
        if let Some(word) = UNSUPPORTED.iter().find(|word| schema.get(word).is_some()) {
            return Err(refuse(path, format!("`{word}` is not supported: a column has one plain type")));
        }
        if let Some(target) = schema.get("$ref") {
            return self.reference(target, path);
        }
        if let Some(variants) = schema.get("anyOf").or_else(|| schema.get("oneOf")).and_then(Node::list) {
            return self.variants(variants, path);
        }
        let (types, nullable) = types(schema, path)?;
        let format = schema.get("format").and_then(Node::text);
        let kind = match types.as_slice() {
            _ if format == Some("json") => Kind::written(DataType::Utf8, Encoding::Json),
            _ if format == Some("decimal") => self.decimal(schema, &types, path)?,
            ["string"] => string(schema, format, path)?,
            ["integer"] => integer(format, path)?,
            ["number"] | ["integer", "number"] | ["number", "integer"] => number(format, path)?,
            ["boolean"] => Kind::new(DataType::Boolean),
            ["array"] => self.array(schema, path)?,
            ["object"] => self.object(schema, path)?,
            [] => {
                return Err(refuse(
                    path,
                    "it needs a `type` (or \"format\": \"json\" to keep any value as text)",
                ));
            }
            _ => {
                return Err(refuse(
                    path,
                    "several types: a column has one (or \"format\": \"json\" to keep any value as text)",
                ));
            }
        };
        Ok(Kind { nullable, ..kind })
    }

    fn reference(&mut self, target: &'a Node, path: &str) -> Result<Kind> {
        let target = target.text().ok_or_else(|| refuse(path, "`$ref` must be text"))?;
        let Some(pointer) = target.strip_prefix('#') else {
            return Err(refuse(
                path,
                format!("`$ref` to `{target}`: only references within the file (`#/$defs/…`) are followed"),
            ));
        };
        if self.open.contains(&target) {
            return Err(refuse(
                path,
                format!("`{target}` contains itself, and a table's type ends somewhere"),
            ));
        }
        if !pointer.is_empty() && !pointer.starts_with('/') {
            let what = format!("`$ref` to `{target}`: only pointers (`#/$defs/…`) are followed, no anchors");
            return Err(refuse(path, what));
        }
        let mut node = self.root;
        for part in pointer.split('/').skip(1) {
            let part = part.replace("~1", "/").replace("~0", "~");
            node = node
                .get(&part)
                .ok_or_else(|| refuse(path, format!("`$ref` to `{target}`: there is nothing")))?;
        }
        self.open.push(target);
        let kind = self.kind(node, path);
        self.open.pop();
        kind
    }

    /// One schema, and perhaps null beside it.
    fn variants(&mut self, variants: &'a [Node], path: &str) -> Result<Kind> {
        let is_null = |schema: &&Node| schema.get("type").and_then(Node::text) == Some("null");
        let mut others = variants.iter().filter(|schema| !is_null(schema));
        match (others.next(), others.next()) {
            (Some(one), None) => {
                let kind = self.kind(one, path)?;
                Ok(Kind {
                    nullable: kind.nullable || variants.iter().any(|v| is_null(&v)),
                    ..kind
                })
            }
            _ => Err(refuse(path, "alternatives may be null and one other schema: a column has one type")),
        }
    }

    fn decimal(&self, schema: &Node, types: &[&str], path: &str) -> Result<Kind> {
        if types.is_empty() || types.iter().any(|kind| !["string", "number", "integer"].contains(kind)) {
            return Err(refuse(path, "a decimal is of type string or number"));
        }
        let count = |name: &str| {
            let node = schema.get(name).and_then(Node::count);
            node.ok_or_else(|| refuse(path, format!("a decimal needs `{name}`, as in \"precision\": 12, \"scale\": 2")))
        };
        Kind::new(decimal(count("precision")?, count("scale")?, path)?).encoded(encoding(schema, path)?, path)
    }

    fn array(&mut self, schema: &'a Node, path: &str) -> Result<Kind> {
        let items = schema.get("items").filter(|items| matches!(items, Node::Object(_)));
        let items = items.ok_or_else(|| refuse(path, "an array needs one schema as its `items`"))?;
        Ok(self.kind(items, &join(path, "element"))?.list())
    }

    fn object(&mut self, schema: &'a Node, path: &str) -> Result<Kind> {
        let properties = schema.get("properties").map(Node::members).unwrap_or_default();
        // An empty schema says as little as `true`.
        let additional = schema.get("additionalProperties").filter(|schema| !schema.members().is_empty());
        match (properties, additional) {
            ([], Some(values)) => Ok(self.kind(values, &join(path, "value"))?.map()),
            ([], None) => Err(refuse(
                path,
                "an object needs `properties` (a struct), a schema as `additionalProperties` (a map), or \"format\": \"json\"",
            )),
            (_, Some(_)) => Err(refuse(
                path,
                "an object is a struct with `properties` or a map with `additionalProperties`, not both",
            )),
            (properties, None) => {
                let required: Vec<&str> = schema
                    .get("required")
                    .and_then(Node::list)
                    .unwrap_or_default()
                    .iter()
                    .filter_map(Node::text)
                    .collect();
                if let Some(unknown) = required
                    .iter()
                    .find(|name| properties.iter().all(|(property, _)| property != *name))
                {
                    return Err(refuse(path, format!("`{unknown}` is required and not among the properties")));
                }
                let field = |(name, schema): &'a (String, Node)| -> Result<Field> {
                    let kind = self.kind(schema, &join(path, name))?;
                    let nullable = kind.nullable || !required.contains(&name.as_str());
                    Ok(Kind { nullable, ..kind }.field(name, schema.get("description").and_then(Node::text)))
                };
                Ok(Kind::new(DataType::Struct(
                    properties.iter().map(field).collect::<Result<Vec<_>>>()?.into(),
                )))
            }
        }
    }
}

/// The types that a schema names beside null, and whether it names null. An `enum` of texts is of type string.
fn types<'a>(schema: &'a Node, path: &str) -> Result<(Vec<&'a str>, bool)> {
    let values = schema.get("enum").and_then(Node::list).unwrap_or_default();
    let null_value = values.contains(&Node::Null);
    let mut types: Vec<&str> = match schema.get("type") {
        None if values.iter().any(|v| v.text().is_some()) => match values.iter().all(|v| v.text().is_some() || *v == Node::Null) {
            true => return Ok((vec!["string"], null_value)),
            false => return Err(refuse(path, "the values of an enum must be of one type")),
        },
        None => Vec::new(),
        Some(Node::Text(one)) => vec![one],
        Some(many) => many.list().unwrap_or_default().iter().filter_map(Node::text).collect(),
    };
    let nullable = types.contains(&"null") || null_value;
    types.retain(|kind| *kind != "null");
    Ok((types, nullable))
}

fn encoding<'a>(schema: &'a Node, path: &str) -> Result<Option<&'a str>> {
    schema
        .get("encoding")
        .map(|word| word.text().ok_or_else(|| refuse(path, "`encoding` must be text")))
        .transpose()
}

fn string(schema: &Node, format: Option<&str>, path: &str) -> Result<Kind> {
    match schema.get("contentEncoding").and_then(Node::text) {
        None => {}
        Some("base64") => return Ok(Kind::new(DataType::Binary)),
        Some(other) => return Err(refuse(path, format!("contentEncoding `{other}` is not supported: use base64"))),
    }
    let data = match format {
        Some("date") => DataType::Date32,
        Some("date-time") => instant(),
        Some("local-date-time") => local_time(),
        _ => DataType::Utf8,
    };
    Kind::new(data).encoded(encoding(schema, path)?, path)
}

fn integer(format: Option<&str>, path: &str) -> Result<Kind> {
    Ok(match format {
        None | Some("int64" | "uint32") => Kind::new(DataType::Int64),
        Some("int32" | "int16" | "int8" | "uint16" | "uint8") => Kind::new(DataType::Int32),
        Some("date") => Kind::written(DataType::Date32, Encoding::Days),
        Some("timestamp-millis") => Kind::written(instant(), Encoding::Millis),
        Some("timestamp-micros") => Kind::written(instant(), Encoding::Micros),
        Some("timestamp-nanos") => Kind::written(instant(), Encoding::Nanos),
        Some("local-timestamp-millis") => Kind::written(local_time(), Encoding::Millis),
        Some("local-timestamp-micros") => Kind::written(local_time(), Encoding::Micros),
        Some("local-timestamp-nanos") => Kind::written(local_time(), Encoding::Nanos),
        Some("time-millis") => Kind::written(DataType::Int64, Encoding::Millis),
        Some("time-micros") => Kind::written(DataType::Int64, Encoding::Micros),
        Some("time-nanos") => Kind::written(DataType::Int64, Encoding::Nanos),
        Some(other) => {
            return Err(refuse(
                path,
                format!("an integer has no format `{other}`: see int32, int64, date, timestamp-micros, decimal …"),
            ));
        }
    })
}

fn number(format: Option<&str>, path: &str) -> Result<Kind> {
    match format {
        None | Some("double") => Ok(Kind::new(DataType::Float64)),
        Some("float") => Ok(Kind::new(DataType::Float32)),
        Some(other) => Err(refuse(
            path,
            format!("a number has no format `{other}`: there are float, double and decimal"),
        )),
    }
}

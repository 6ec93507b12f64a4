//! JSON Schema, as far as it describes a table.
//!
//! | `type` | with | column |
//! |---|---|---|
//! | string | `format` date, date-time, local-date-time | date, timestamp, timestamp_ntz |
//! | string, number, or both | `"format": "decimal", "precision": 12, "scale": 2` | decimal(12, 2): a number or its text |
//! | string | `"contentEncoding": "base64"` | binary |
//! | string | any other format | string |
//! | integer | `format` int32, int64 (also without) | int, long |
//! | integer | `format` date; timestamp-, local-timestamp- or time- with millis, micros or nanos; utc-millisec | as Avro's logical types |
//! | number | `format` float, double (also without) | float, double |
//! | boolean | | boolean |
//! | array | `items` | array |
//! | object | `properties`, or `additionalProperties` with a schema | struct, map |
//! | any or none | `"format": "json"` | string: the value's JSON text |
//!
//! Without `type`, the values of `enum` or `const` say it, or `properties` and `items` do. A column takes null unless it is `required` and
//! neither its type nor `nullable` names null. `description` is the column's comment. `encoding` says how a value is written where that is
//! not clear, as in Avro schemas: a decimal with `"encoding": "base64"` (or `contentEncoding`) is the bytes of its unscaled value.
//! Constraints (`minimum`, `pattern`, the values of an `enum` …) are not checked: the schema says what the columns are.
//!
//! `$ref` may point within the file only: nothing is fetched. What stands beside it, and all of `allOf`, holds together. Alternatives
//! (`anyOf`, `oneOf`) may be null and schemas that make the same column.

use std::borrow::Cow;

use arrow::datatypes::{DataType, Field};
use percent_encoding::percent_decode_str;

use super::merge::{OF_TYPE, merge};
use super::ordered::Node;
use super::{Kind, decimal, instant, join, local_time, refuse};
use crate::error::{Error, Result};
use crate::sources::decode::encoding::Encoding;

/// What says something about the type of a value that the table above does not know.
const UNSUPPORTED: [&str; 7] = [
    "not",
    "if",
    "patternProperties",
    "prefixItems",
    "$dynamicRef",
    "$recursiveRef",
    "dependentSchemas",
];

/// References to schemas of references may make any number of a few lines. No table has a hundredth of this.
const SCHEMAS_MAX: usize = 100_000;

pub(super) fn fields(text: &str) -> Result<Vec<Field>> {
    let invalid = || Error::config("schema", "not a valid JSON Schema");
    let root: Node = serde_json::from_str(text).map_err(|e| invalid().because(e))?;
    let value: serde_json::Value = serde_json::from_str(text).map_err(|e| invalid().because(e))?;
    jsonschema::meta::validate(&value).map_err(|e| invalid().because(e.to_string()))?;
    let mut reader = Reader {
        root: &root,
        open: Vec::new(),
        read: 0,
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
    open: Vec<String>,
    /// How many schemas were read.
    read: usize,
}

impl<'a> Reader<'a> {
    fn kind(&mut self, schema: &Node, path: &str) -> Result<Kind> {
        if says_json(schema) {
            return self.merged_kind(schema, path); // Whatever else it says.
        }
        let (opened, mut followed) = (self.open.len(), Vec::new());
        let merged = self.merged(schema, &mut followed, path)?;
        self.open.append(&mut followed);
        let kind = self.merged_kind(&merged, path);
        self.open.truncate(opened);
        kind
    }

    /// A schema with what `$ref` and `allOf` add to it. Tells the references.
    fn merged<'s>(&mut self, schema: &'s Node, followed: &mut Vec<String>, path: &str) -> Result<Cow<'s, Node>> {
        self.read += 1;
        if self.read > SCHEMAS_MAX {
            return Err(refuse(
                path,
                format!("there are more than {SCHEMAS_MAX} schemas where all references are followed"),
            ));
        }
        let (target, parts) = (schema.get("$ref"), schema.get("allOf").and_then(Node::list).unwrap_or_default());
        if target.is_none() && parts.is_empty() {
            return Ok(Cow::Borrowed(schema));
        }
        let mut whole = schema.without(&["$ref", "allOf"]);
        let mut add = |part: &Node| {
            let clash = |word| refuse(path, format!("`allOf` or `$ref` gives it a second `{word}`: a column has one type"));
            merge(&mut whole, part).map_err(clash)
        };
        if let Some(target) = target {
            let target = target.text().ok_or_else(|| refuse(path, "`$ref` must be text"))?;
            let node = self.target(target, path)?;
            self.open.push(target.to_owned());
            let part = self.merged(node, followed, path)?;
            add(&part)?;
            followed.extend(self.open.pop());
        }
        for part in parts {
            let part = self.merged(part, followed, path)?;
            add(&part)?;
        }
        Ok(Cow::Owned(Node::Object(whole)))
    }

    /// Without `$ref` and `allOf`.
    fn merged_kind(&mut self, schema: &Node, path: &str) -> Result<Kind> {
        if let Some(word) = UNSUPPORTED
            .iter()
            .find(|word| schema.get(word).is_some())
            .filter(|_| !says_json(schema))
        {
            return Err(refuse(
                path,
                format!("`{word}` is not supported: a column has one plain type (or \"format\": \"json\" to keep any value as text)"),
            ));
        }
        for word in ["anyOf", "oneOf"] {
            if let Some(variants) = schema.get(word).and_then(Node::list).filter(|_| !says_json(schema)) {
                return self.alternatives(Node::Object(schema.without(&[word])), variants, path);
            }
        }
        let (types, nullable) = types(schema);
        let format = schema.get("format").and_then(Node::text);
        let kind = match types.as_slice() {
            _ if says_json(schema) => Kind::written(DataType::Utf8, Encoding::Json),
            _ if format == Some("decimal") => self.decimal(schema, &types, path)?,
            ["string"] => string(schema, format, path)?,
            ["integer"] => integer(format, path)?,
            ["number"] | ["integer", "number"] => number(format, path)?,
            ["boolean"] => Kind::new(DataType::Boolean),
            ["array"] => self.array(schema, path)?,
            ["object"] => self.object(schema, path)?,
            [] => {
                return Err(refuse(
                    path,
                    "it needs a `type` (or \"format\": \"json\" to keep any value as text)",
                ));
            }
            _ if schema.get("type").is_none() => {
                return Err(refuse(
                    path,
                    "the values of an enum must be of one type (or \"format\": \"json\" to keep any value as text)",
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

    /// What a reference points to.
    fn target(&self, target: &str, path: &str) -> Result<&'a Node> {
        let Some(pointer) = target.strip_prefix('#') else {
            return Err(refuse(
                path,
                format!("`$ref` to `{target}`: only references within the file (`#/$defs/…`) are followed"),
            ));
        };
        if self.open.iter().any(|open| open == target) {
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
            // It is part of a URI, in which not all characters stand for themselves.
            let decoded = percent_decode_str(&part).decode_utf8_lossy();
            node = node
                .get(&part)
                .or_else(|| node.get(&decoded))
                .ok_or_else(|| refuse(path, format!("`$ref` to `{target}`: there is nothing")))?;
        }
        Ok(node)
    }

    /// The one column that all alternatives make, be it by what stands beside them, and perhaps null.
    fn alternatives(&mut self, beside: Node, variants: &[Node], path: &str) -> Result<Kind> {
        let (mut nullable, mut column): (bool, Option<Kind>) = (false, None);
        for variant in variants {
            if is_null(variant) {
                nullable = true;
                continue;
            }
            let kind = match says_type(variant) {
                false => self.kind(&beside, path)?,
                true => {
                    let both = ("allOf".to_owned(), Node::List(vec![beside.clone(), variant.clone()]));
                    self.kind(&Node::Object(vec![both]), path)?
                }
            };
            nullable |= kind.nullable;
            match &column {
                None => column = Some(kind),
                Some(other) if other.data == kind.data && other.encoding == kind.encoding => {}
                Some(_) => {
                    let what = "alternatives may be null and one other schema: a column has one type (or \"format\": \"json\" to keep any value as text)";
                    return Err(refuse(path, what));
                }
            }
        }
        let column = column.ok_or_else(|| refuse(path, "a type of nothing but null is no column"))?;
        Ok(Kind { nullable, ..column })
    }

    fn decimal(&self, schema: &Node, types: &[&str], path: &str) -> Result<Kind> {
        if types.is_empty() || types.iter().any(|kind| !["string", "number", "integer"].contains(kind)) {
            return Err(refuse(path, "a decimal is of type string or number"));
        }
        let count = |name: &str| {
            let node = schema.get(name).and_then(Node::count);
            node.ok_or_else(|| refuse(path, format!("a decimal needs `{name}`, as in \"precision\": 12, \"scale\": 2")))
        };
        let (precision, scale) = (count("precision")?, count("scale")?);
        // Whoever says number or string means its digits, whatever the habit of the messages' format is.
        let habit = match is_base64(schema, path)? {
            true => Encoding::Unscaled(i64::try_from(scale).unwrap_or_default()),
            false => Encoding::Text,
        };
        Kind::written(decimal(precision, scale, path)?, habit).encoded(encoding(schema, path)?, path)
    }

    fn array(&mut self, schema: &Node, path: &str) -> Result<Kind> {
        let items = schema.get("items").filter(|items| matches!(items, Node::Object(_)));
        let items = items.ok_or_else(|| refuse(path, "an array needs one schema as its `items`"))?;
        Ok(self.kind(items, &join(path, "element"))?.list())
    }

    fn object(&mut self, schema: &Node, path: &str) -> Result<Kind> {
        let properties = schema.get("properties").map(Node::members).unwrap_or_default();
        let additional = schema.get("additionalProperties").filter(|_| says_values(schema));
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
                let field = |(name, schema): &(String, Node)| -> Result<Field> {
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

/// The types that a schema names beside null, and whether it names null. Where it has no `type`, its values have one, or its parts.
fn types(schema: &Node) -> (Vec<&str>, bool) {
    let constant = schema.get("const").map(std::slice::from_ref);
    let values = schema.get("enum").and_then(Node::list).or(constant).unwrap_or_default();
    let mut types: Vec<&str> = match schema.get("type") {
        Some(Node::Text(one)) => vec![one],
        Some(many) => many.list().unwrap_or_default().iter().filter_map(Node::text).collect(),
        None => values.iter().map(type_of).collect(),
    };
    if types.is_empty() && (schema.get("properties").is_some() || says_values(schema)) {
        types.push("object");
    }
    if types.is_empty() && schema.get("items").is_some() {
        types.push("array");
    }
    let nullable = types.contains(&"null") || values.contains(&Node::Null) || schema.get("nullable") == Some(&Node::Boolean(true));
    types.sort_unstable();
    types.dedup();
    types.retain(|kind| *kind != "null");
    (types, nullable)
}

/// The type of a value, as schemas name it.
fn type_of(value: &Node) -> &'static str {
    match value {
        Node::Null => "null",
        Node::Boolean(_) => "boolean",
        Node::Number(number) if number.fract() == 0.0 => "integer",
        Node::Number(_) => "number",
        Node::Text(_) => "string",
        Node::List(_) => "array",
        Node::Object(_) => "object",
    }
}

fn says_json(schema: &Node) -> bool {
    schema.get("format").and_then(Node::text) == Some("json")
}

/// Whether it describes the values of a map. An empty schema says as little as `true`.
fn says_values(schema: &Node) -> bool {
    schema
        .get("additionalProperties")
        .is_some_and(|values| !values.members().is_empty())
}

/// Whether it says more of a value than constraints do.
fn says_type(schema: &Node) -> bool {
    let further = ["$ref", "allOf", "enum", "const", "properties"];
    let mut words = OF_TYPE.iter().chain(&UNSUPPORTED).chain(&further);
    words.any(|word| schema.get(word).is_some())
}

/// Whether null alone fits.
fn is_null(schema: &Node) -> bool {
    let says = ["type", "enum", "const"].iter().any(|word| schema.get(word).is_some());
    says && types(schema).0.is_empty()
}

fn encoding<'a>(schema: &'a Node, path: &str) -> Result<Option<&'a str>> {
    schema
        .get("encoding")
        .map(|word| word.text().ok_or_else(|| refuse(path, "`encoding` must be text")))
        .transpose()
}

/// Whether the text of a value stands for bytes.
fn is_base64(schema: &Node, path: &str) -> Result<bool> {
    match schema.get("contentEncoding").and_then(Node::text) {
        None => Ok(false),
        Some("base64") => Ok(true),
        Some(other) => Err(refuse(path, format!("contentEncoding `{other}` is not supported: use base64"))),
    }
}

fn string(schema: &Node, format: Option<&str>, path: &str) -> Result<Kind> {
    if is_base64(schema, path)? {
        return Ok(Kind::new(DataType::Binary));
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
        Some("timestamp-millis" | "utc-millisec") => Kind::written(instant(), Encoding::Millis),
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

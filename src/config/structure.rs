//! A tree held against a JSON Schema, with answers for people: unknown and missing keys, wrong types, words that are no choice.
//!
//! A general validator says of an option with several shapes only that none of them fits; and serde stops at the first error. This one
//! knows the part of JSON Schema that our own types produce, says what was expected, and mends the tree as it goes: what cannot stand is
//! removed, and what is required is replaced by something of the right type, so that the next step can look for further problems.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::problem::suggestion;
use super::{Bytes, KeyPath, Span};

/// What is wrong with `tree`, by key; the tree is mended.
pub(super) fn check(schema: &Value, tree: &mut Value) -> Vec<(KeyPath, String)> {
    let mut walk = Walk {
        root: schema,
        problems: Vec::new(),
    };
    walk.value(schema, tree, &KeyPath::default());
    walk.problems
}

struct Walk<'s> {
    root: &'s Value,
    problems: Vec<(KeyPath, String)>,
}

impl<'s> Walk<'s> {
    /// Whether the value can stand where it is; why not is among the problems.
    fn value(&mut self, schema: &'s Value, value: &mut Value, at: &KeyPath) -> bool {
        let shapes = self.shapes(schema);
        let words: Vec<&str> = shapes.iter().flat_map(|shape| words(shape)).collect();
        if !words.is_empty() {
            return self.word(&words, value, at);
        }
        let mut fitting = shapes.iter().filter(|shape| has_type(shape, value) && has_required(shape, value));
        let only_table = || shapes.iter().find(|_| shapes.len() == 1 && value.is_object());
        let Some(shape) = fitting.next().or_else(only_table) else {
            let expected: Vec<String> = shapes.iter().map(|shape| describe(shape)).collect();
            return self.wrong(at, format!("expected {}, found {}", expected.join(" or "), found(value)));
        };
        match value {
            Value::Object(table) => self.table(shape, table, at),
            Value::Array(items) => self.list(shape, items, at),
            Value::String(text) => self.text(shape, text, at),
            Value::Number(number) if number.as_i64().is_some_and(|n| Some(n) < shape["minimum"].as_i64()) => {
                self.wrong(at, format!("{number} is less than {}", shape["minimum"]))
            }
            _ => true,
        }
    }

    fn wrong(&mut self, at: &KeyPath, what: String) -> bool {
        self.problems.push((at.clone(), what));
        false
    }

    fn table(&mut self, shape: &'s Value, table: &mut Map<String, Value>, at: &KeyPath) -> bool {
        let properties = shape["properties"].as_object();
        let others = Some(&shape["additionalProperties"]).filter(|schema| schema.is_object());
        let mut refused = BTreeSet::new();
        for (name, value) in table.iter_mut() {
            let here = at.key(name);
            let stands = match properties.and_then(|known| known.get(name)).or(others) {
                Some(schema) => self.value(schema, value, &here),
                None => {
                    let known = properties.into_iter().flat_map(Map::keys).map(String::as_str);
                    self.wrong(&here, format!("unknown key{}", suggestion(name, known)))
                }
            };
            if !stands {
                refused.insert(name.clone());
            }
        }
        for name in shape["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            let schema = &shape["properties"][name];
            if !table.contains_key(name) {
                let expected: Vec<String> = self.shapes(schema).iter().map(|shape| describe(shape)).collect();
                self.wrong(&at.key(name), format!("missing: expected {}", expected.join(" or ")));
            } else if !refused.remove(name) {
                continue;
            }
            table.insert(name.to_owned(), self.placeholder(schema));
        }
        table.retain(|name, _| !refused.contains(name));
        true
    }

    fn list(&mut self, shape: &'s Value, items: &mut Vec<Value>, at: &KeyPath) -> bool {
        let mut index = 0;
        items.retain_mut(|item| {
            let stands = self.value(&shape["items"], item, &at.index(index));
            index += 1;
            stands
        });
        true
    }

    fn text(&mut self, shape: &Value, text: &str, at: &KeyPath) -> bool {
        let read = match shape["format"].as_str() {
            Some("size") => Bytes::parse(text).map(drop),
            Some("time") => Span::parse(text).map(drop),
            _ => Ok(()),
        };
        read.map_or_else(|what| self.wrong(at, what), |()| true)
    }

    fn word(&mut self, words: &[&str], value: &Value, at: &KeyPath) -> bool {
        match value.as_str() {
            Some(word) if words.contains(&word) => true,
            Some(word) => {
                let near = suggestion(word, words.iter().copied());
                self.wrong(at, format!("`{word}` is not one of {}{near}", quoted(words)))
            }
            None => self.wrong(at, format!("expected one of {}, found {}", quoted(words), found(value))),
        }
    }

    /// The shapes that a value may have, references followed and null left out: TOML has none.
    fn shapes(&self, schema: &'s Value) -> Vec<&'s Value> {
        if let Some(name) = schema["$ref"].as_str().and_then(|target| target.strip_prefix("#/$defs/")) {
            return self.shapes(&self.root["$defs"][name]);
        }
        let several = schema["anyOf"].as_array().or_else(|| schema["oneOf"].as_array());
        match several {
            Some(several) => several.iter().flat_map(|schema| self.shapes(schema)).collect(),
            None if schema["type"] == "null" => Vec::new(),
            None => vec![schema],
        }
    }

    /// Something of the right type, so that the rest of the file can be looked at.
    fn placeholder(&self, schema: &'s Value) -> Value {
        let shapes = self.shapes(schema);
        let Some(shape) = shapes.first() else { return Value::Null };
        if let Some(word) = words(shape).first() {
            return json!(word);
        }
        match (shape["type"].as_str(), shape["format"].as_str()) {
            (Some("string"), Some("size")) => json!("1 MiB"),
            (Some("string"), Some("time")) => json!("1 s"),
            (Some("integer"), _) => shape["minimum"].clone(),
            (Some("boolean"), _) => json!(false),
            (Some("array"), _) => json!([]),
            (Some("object"), _) => {
                let required = shape["required"].as_array().into_iter().flatten().filter_map(Value::as_str);
                required
                    .map(|name| (name.to_owned(), self.placeholder(&shape["properties"][name])))
                    .collect()
            }
            _ => json!(""),
        }
    }
}

/// The words of a choice; none where the shape is not a choice.
fn words(shape: &Value) -> Vec<&str> {
    let several = shape["enum"].as_array().into_iter().flatten();
    several.chain(shape.get("const")).filter_map(Value::as_str).collect()
}

fn has_type(shape: &Value, value: &Value) -> bool {
    let is = |name: &Value| match name.as_str() {
        Some("string") => value.is_string(),
        Some("integer") => value.is_i64(),
        Some("number") => value.is_number(),
        Some("boolean") => value.is_boolean(),
        Some("array") => value.is_array(),
        Some("object") => value.is_object(),
        _ => false,
    };
    shape["type"]
        .as_array()
        .map_or_else(|| is(&shape["type"]), |names| names.iter().any(is))
}

fn has_required(shape: &Value, value: &Value) -> bool {
    let mut required = shape["required"].as_array().into_iter().flatten().filter_map(Value::as_str);
    value.as_object().is_none_or(|table| required.all(|name| table.contains_key(name)))
}

fn quoted(words: &[&str]) -> String {
    let quoted: Vec<String> = words.iter().map(|word| format!("`{word}`")).collect();
    quoted.join(", ")
}

/// What the shape is, in the words of TOML.
fn describe(shape: &Value) -> String {
    let words = words(shape);
    let name = shape["type"].as_array().and_then(|names| names.first()).unwrap_or(&shape["type"]);
    match (name.as_str(), shape["format"].as_str()) {
        _ if !words.is_empty() => quoted(&words),
        (Some("string"), Some("size")) => "a size like \"64 MiB\"".to_owned(),
        (Some("string"), Some("time")) => "a time like \"5 s\"".to_owned(),
        (Some("string"), _) => "a text in quotes".to_owned(),
        (Some("integer"), _) => "a whole number".to_owned(),
        (Some("boolean"), _) => "true or false".to_owned(),
        (Some("array"), _) => "a list".to_owned(),
        _ => match shape["required"].as_array().map(Vec::as_slice) {
            Some([only]) => format!("{{ {} = … }}", only.as_str().unwrap_or_default()),
            _ => "a table".to_owned(),
        },
    }
}

/// What the value is; its text only where it cannot be a secret put at the wrong place.
fn found(value: &Value) -> String {
    match value {
        Value::Null => "a date, a time, or a number that is too large".to_owned(),
        Value::Bool(truth) => truth.to_string(),
        Value::Number(number) => format!("the number {number}"),
        Value::String(_) => "a text".to_owned(),
        Value::Array(_) => "a list".to_owned(),
        Value::Object(_) => "a table".to_owned(),
    }
}

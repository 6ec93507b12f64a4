//! Columns of other types in a table's `schemaString`, wider ones or such with more fields within: what was there stays as it is written,
//! and each wider type is told beside its field.
//!
//! ```json
//! {"name": "n", "type": "long", "nullable": true, "metadata": {"delta.typeChanges": [{"fromType": "integer", "toType": "long"}]}}
//! ```
//! A change within an array or a map stands with the nearest field around it, with its path from there (`fieldPath`).

use std::collections::{BTreeMap, HashMap};

use arrow::datatypes::{DataType, Field, FieldRef, Fields};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::{RawValue, to_raw_value};

use crate::log::schema;
use crate::widening::widened;

/// The key in a field's metadata.
const TYPE_CHANGES: &str = "delta.typeChanges";

/// The members of a JSON object, as they are written.
pub(super) type Members = BTreeMap<String, Box<RawValue>>;

/// A change of a type, as a field tells of it.
#[derive(Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
struct TypeChange {
    from_type: Value,
    to_type: Value,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    field_path: String,
}

/// Gives a field, by its members in the schema, the types that it has in `to`.
pub(super) fn retype(members: &mut Members, to: &Field) -> serde_json::Result<()> {
    let Some(kind) = members.get("type") else { return Ok(()) };
    let mut changes = Vec::new();
    let kind = retype_part(kind, to.data_type(), "", &mut changes)?;
    members.insert("type".to_owned(), kind);
    if changes.is_empty() {
        return Ok(());
    }
    let mut metadata: Members = part(members, "metadata")?.unwrap_or_default();
    let mut told: Vec<Box<RawValue>> = part(&metadata, TYPE_CHANGES)?.unwrap_or_default();
    for change in &changes {
        told.push(to_raw_value(change)?);
    }
    metadata.insert(TYPE_CHANGES.to_owned(), to_raw_value(&told)?);
    members.insert("metadata".to_owned(), to_raw_value(&metadata)?);
    Ok(())
}

/// A type with the types that it has in `to`. `path`: from the field around it.
fn retype_part(kind: &RawValue, to: &DataType, path: &str, changes: &mut Vec<TypeChange>) -> serde_json::Result<Box<RawValue>> {
    let Ok(mut members) = serde_json::from_str::<Members>(kind.get()) else {
        let from: Value = serde_json::from_str(kind.get())?;
        let stays = schema::type_from_delta(&from, path).is_ok_and(|own| own == *to);
        return match schema::type_to_delta(to, path) {
            Ok(to) if !stays => {
                let written = to_raw_value(&to)?;
                changes.push(TypeChange {
                    from_type: from,
                    to_type: to,
                    field_path: path.to_owned(),
                });
                Ok(written)
            }
            _ => Ok(kind.to_owned()),
        };
    };
    match to {
        DataType::Struct(fields) => retype_fields(&mut members, fields)?,
        DataType::List(item) => {
            retype_member(&mut members, "elementType", item, &schema::join(path, "element"), changes)?;
            let_nulls_in(&mut members, "containsNull", item)?;
        }
        DataType::Map(entries, _) => {
            if let DataType::Struct(pair) = entries.data_type()
                && let [key, value] = pair.as_ref()
            {
                retype_member(&mut members, "keyType", key, &schema::join(path, "key"), changes)?;
                retype_member(&mut members, "valueType", value, &schema::join(path, "value"), changes)?;
                let_nulls_in(&mut members, "valueContainsNull", value)?;
            }
        }
        _ => {}
    }
    to_raw_value(&members)
}

fn retype_member(members: &mut Members, name: &str, to: &Field, path: &str, changes: &mut Vec<TypeChange>) -> serde_json::Result<()> {
    if let Some(kind) = members.get(name) {
        let kind = retype_part(kind, to.data_type(), path, changes)?;
        members.insert(name.to_owned(), kind);
    }
    Ok(())
}

fn let_nulls_in(members: &mut Members, name: &str, to: &Field) -> serde_json::Result<()> {
    if to.is_nullable() {
        members.insert(name.to_owned(), to_raw_value(&true)?);
    }
    Ok(())
}

/// The fields of a struct tell of their own changes. Those that it gains stand behind the others.
fn retype_fields(members: &mut Members, to: &Fields) -> serde_json::Result<()> {
    let mut fields: Vec<Members> = part(members, "fields")?.unwrap_or_default();
    let mut names: Vec<String> = Vec::with_capacity(fields.len());
    for field in &mut fields {
        let name: String = part(field, "name")?.unwrap_or_default();
        if let Some((_, to)) = to.find(&name) {
            retype(field, to)?;
            let_nulls_in(field, "nullable", to)?;
        }
        names.push(name);
    }
    let mut written: Vec<Box<RawValue>> = fields.iter().map(to_raw_value).collect::<serde_json::Result<_>>()?;
    for added in to.iter().filter(|field| !names.contains(field.name())) {
        let added = schema::field_to_delta(added, "").map_err(serde::ser::Error::custom)?;
        written.push(to_raw_value(&added)?);
    }
    members.insert("fields".to_owned(), to_raw_value(&written)?);
    Ok(())
}

pub(super) fn part<T: serde::de::DeserializeOwned>(members: &Members, name: &str) -> serde_json::Result<Option<T>> {
    members.get(name).map(|part| serde_json::from_str(part.get())).transpose()
}

/// The first change, if any, that is none of those which Delta allows: older files then have values that nobody can be sure to read
/// rightly.
pub(super) fn unknown(fields: &Fields) -> Option<String> {
    fields.iter().find_map(|field| {
        let told = field.metadata().get(TYPE_CHANGES).map_or("[]", String::as_str);
        let changes = serde_json::from_str::<Vec<TypeChange>>(told);
        if changes.is_ok_and(|changes| changes.iter().all(TypeChange::is_known)) {
            return unknown_within(field.data_type());
        }
        Some(format!("column `{}` tells of {told}", field.name()))
    })
}

fn unknown_within(kind: &DataType) -> Option<String> {
    match kind {
        DataType::Struct(fields) => unknown(fields),
        DataType::List(item) | DataType::Map(item, _) => unknown_within(item.data_type()),
        _ => None,
    }
}

impl TypeChange {
    fn is_known(&self) -> bool {
        let kind = |value| schema::type_from_delta(value, "").ok();
        match (kind(&self.from_type), kind(&self.to_type)) {
            (Some(from), Some(to)) => widened(&from, &to) == Some(to),
            _ => false,
        }
    }
}

/// A field with what it asks of a writer, all the way down: not what it tells of its changes, nor what people say of it.
pub(super) fn bare(field: &Field) -> Field {
    let inner = |field: &FieldRef| FieldRef::new(bare(field));
    let kind = match field.data_type() {
        DataType::Struct(fields) => DataType::Struct(fields.iter().map(inner).collect()),
        DataType::List(item) => DataType::List(inner(item)),
        DataType::Map(entries, sorted) => DataType::Map(inner(entries), *sorted),
        plain => plain.clone(),
    };
    let metadata = field
        .metadata()
        .iter()
        .filter(|(key, _)| key.starts_with("delta.") && *key != TYPE_CHANGES);
    let metadata: HashMap<String, String> = metadata.map(|(key, text)| (key.clone(), text.clone())).collect();
    Field::new(field.name(), kind, field.is_nullable()).with_metadata(metadata)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn s9_changes_that_delta_does_not_know_are_found_wherever_they_stand() {
        let schema = |from: &str, to: &str| {
            let change = format!(r#"{{"delta.typeChanges":[{{"fromType":"{from}","toType":"{to}","fieldPath":"element"}}]}}"#);
            let inner = format!(
                r#"{{"name":"a","type":{{"type":"array","elementType":"{to}","containsNull":true}},"nullable":true,"metadata":{change}}}"#
            );
            let object = format!(r#"{{"type":"struct","fields":[{inner}]}}"#);
            let list = format!(r#"{{"type":"array","elementType":{object},"containsNull":true}}"#);
            let text = format!(r#"{{"type":"struct","fields":[{{"name":"l","type":{list},"nullable":true,"metadata":{{}}}}]}}"#);
            schema::from_delta(&text).unwrap()
        };
        for (from, to) in [("byte", "long"), ("decimal(5,2)", "decimal(7,4)"), ("date", "timestamp_ntz")] {
            assert_eq!(unknown(schema(from, to).fields()), None, "{from} to {to}");
        }
        for (from, to) in [
            ("string", "integer"),
            ("long", "integer"),
            ("long", "double"),
            ("decimal(5,2)", "decimal(6,4)"),
            ("date", "timestamp"),
        ] {
            let found = unknown(schema(from, to).fields()).unwrap();
            assert!(found.contains("`a`") && found.contains(from), "{found}");
        }
    }
}

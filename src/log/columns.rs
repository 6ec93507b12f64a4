//! What the columns of a table may become while changes flow.
//!
//! Sources change: they gain columns, lose some, and let in nulls where there were none. A table follows where no row that it holds
//! changes its meaning: it gains nullable columns behind its own, and fields within them, a column may be null from now on, and, where the
//! configuration asks for it, a column gets a wider type (`type_widening`). Nothing is ever taken away or turned into another type; that
//! needs a person.

mod compare;

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::datatypes::{Field, FieldRef, Fields, Schema, SchemaRef};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use self::compare::Comparison;
use crate::error::{Error, Result};
use crate::log::actions::{MetaData, Protocol};
use crate::log::features::{CHANGE_DATA_FEED, ENABLE_TYPE_WIDENING, TIMESTAMP_NTZ, TYPE_WIDENING};
use crate::log::schema;
use crate::log::type_changes::{self, Members};
use crate::table::{Mode, NOT_IN_COLUMN_NAMES, Table};

/// What to do about rows that a table cannot hold.
const NEXT: &str = "Change it back at the source; or, where a new table can hold it, let one begin with it: name another `location`";

/// What a table needs to hold other columns than its own.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Growth {
    /// Columns that it gains. They are nullable whatever they are at the source: the rows before them have no value there.
    pub added: Vec<FieldRef>,
    /// Columns that may be null from now on.
    pub nullable: Vec<String>,
    /// Columns of another type than before, as they are from now on: of a wider one, or of one that grew within.
    pub retyped: Vec<FieldRef>,
    /// Which of them, or what within them, has a wider type: readers need a feature for that.
    pub widened: Vec<String>,
    /// Fields that are gained within columns, by their paths.
    pub fields_added: Vec<String>,
    /// Fields within columns that may be null from now on.
    pub fields_nullable: Vec<String>,
}

/// What changes within a column.
#[derive(Default)]
struct Within {
    widened: bool,
    added: Vec<String>,
    nullable: Vec<String>,
}

/// Whether columns of a table may get wider types, and which of them only if their values are still written alike.
#[derive(Clone, Debug, Default)]
pub struct Widening {
    allowed: bool,
    /// Key columns, whose values are hashed, and partition columns, whose values stand in the log as text.
    written: Vec<String>,
}

impl Widening {
    pub fn of(table: &Table) -> Self {
        let key = match &table.mode {
            Mode::Upsert { key, .. } => key.as_slice(),
            Mode::Append => &[],
        };
        Self {
            allowed: table.type_widening,
            written: key.iter().chain(&table.partition_by).cloned().collect(),
        }
    }
}

impl Growth {
    /// What the table `name` with the columns `table` needs to hold rows of the columns `rows` too.
    pub fn for_rows(name: &str, table: &Schema, rows: &Schema, widening: &Widening) -> Result<Self> {
        Self::between(table, rows, widening).map_err(|differences| {
            let differences = differences.join("; ");
            let what = format!("the rows for `{name}` do not fit the table: {differences}. {NEXT}");
            Error::data("schema_changed", what)
        })
    }

    /// The same, for any two schemas; columns are matched by their names. The error is all that cannot be held, one sentence each.
    pub(super) fn between(table: &Schema, rows: &Schema, widening: &Widening) -> Result<Self, Vec<String>> {
        let (mut growth, mut differences) = (Self::default(), Vec::new());
        for field in rows.fields() {
            match table.fields().find(field.name()) {
                Some((_, own)) => {
                    let mut comparison = Comparison::new(widening, field.name(), &mut differences);
                    let kind = comparison.grown(own.data_type(), field.data_type(), field.name());
                    let within = comparison.within;
                    if kind != *own.data_type() {
                        growth.retyped.push(Arc::new(own.as_ref().clone().with_data_type(kind)));
                    }
                    if within.widened {
                        growth.widened.push(field.name().clone());
                    }
                    growth.fields_added.extend(within.added);
                    growth.fields_nullable.extend(within.nullable);
                    if field.is_nullable() && !own.is_nullable() {
                        growth.nullable.push(field.name().clone());
                    }
                }
                None => match addable(table.fields().iter().chain(&growth.added), field) {
                    Ok(()) => growth.added.push(Arc::new(field.as_ref().clone().with_nullable(true))),
                    Err(why) => differences.push(why),
                },
            }
        }
        if differences.is_empty() { Ok(growth) } else { Err(differences) }
    }

    pub fn is_empty(&self) -> bool {
        self.added.is_empty() && self.nullable.is_empty() && self.retyped.is_empty()
    }

    /// The columns of the table once it has grown.
    pub fn applied_to(&self, table: &SchemaRef) -> SchemaRef {
        if self.is_empty() {
            return Arc::clone(table);
        }
        let own = table.fields().iter().map(|field| {
            let field = self.retyped(field.name()).unwrap_or(field);
            match self.nullable.contains(field.name()) {
                true => Arc::new(field.as_ref().clone().with_nullable(true)),
                false => Arc::clone(field),
            }
        });
        let fields: Vec<FieldRef> = own.chain(self.added.iter().cloned()).collect();
        Arc::new(Schema::new_with_metadata(fields, table.metadata().clone()))
    }

    /// As a commit tells of it.
    pub(super) fn notes(&self) -> Result<BTreeMap<String, serde_json::Value>> {
        let mut notes = BTreeMap::new();
        if !self.added.is_empty() {
            let columns: serde_json::Value = serde_json::from_str(&schema::to_delta(&Schema::new(self.added.clone()))?)
                .map_err(|e| Error::bug("columns are no JSON").because(e))?;
            notes.insert("columnsAdded".to_owned(), columns["fields"].clone());
        }
        let named = [
            ("fieldsAdded", &self.fields_added),
            ("columnsNullable", &self.nullable),
            ("fieldsNullable", &self.fields_nullable),
            ("columnsWidened", &self.widened),
        ];
        for (note, names) in named.into_iter().filter(|(_, names)| !names.is_empty()) {
            notes.insert(note.to_owned(), names.clone().into());
        }
        Ok(notes)
    }

    /// The table's `metaData` once it has grown. What is there stays as it is written.
    pub(super) fn metadata(&self, before: &MetaData) -> Result<MetaData> {
        let unreadable = |e| Error::data("bad_log", "the table's schema is not JSON").because(e);
        let mut root: Root = serde_json::from_str(&before.schema_string).map_err(unreadable)?;
        for column in &mut root.fields {
            let mut members: Members = serde_json::from_str(column.get()).map_err(unreadable)?;
            let name: String = type_changes::part(&members, "name").map_err(unreadable)?.unwrap_or_default();
            let (retyped, nullable) = (self.retyped(&name), self.nullable.contains(&name));
            if let Some(field) = retyped {
                type_changes::retype(&mut members, field).map_err(unreadable)?;
            }
            if nullable {
                members.insert("nullable".to_owned(), serde_json::value::to_raw_value(&true).map_err(unreadable)?);
            }
            if nullable || retyped.is_some() {
                *column = serde_json::value::to_raw_value(&members).map_err(unreadable)?;
            }
        }
        let added: Root = serde_json::from_str(&schema::to_delta(&Schema::new(self.added.clone()))?).map_err(unreadable)?;
        root.fields.extend(added.fields);
        let mut after = MetaData {
            schema_string: serde_json::to_string(&root).map_err(unreadable)?,
            ..before.clone()
        };
        if !self.widened.is_empty() {
            after.configuration.insert(ENABLE_TYPE_WIDENING.to_owned(), "true".to_owned());
        }
        Ok(after)
    }

    /// A column as it is from now on, if its type becomes another.
    fn retyped(&self, name: &str) -> Option<&FieldRef> {
        self.retyped.iter().find(|field| field.name() == name)
    }

    /// The protocol that the table needs once it has grown, if that is another.
    pub(super) fn protocol(&self, before: &Protocol) -> Option<Protocol> {
        let new: Fields = self.added.iter().chain(&self.retyped).cloned().collect();
        let local_times = schema::has_timestamp_ntz(&new).then_some(TIMESTAMP_NTZ);
        let wider = (!self.widened.is_empty()).then_some(TYPE_WIDENING);
        let needed: Vec<&str> = local_times.into_iter().chain(wider).filter(|name| !before.lists(name)).collect();
        if needed.is_empty() {
            return None;
        }
        let with = |features: &Option<Vec<String>>, legacy: &[&str]| {
            let listed = features
                .clone()
                .unwrap_or_else(|| legacy.iter().map(|name| (*name).to_owned()).collect());
            let others = listed.into_iter().filter(|feature| !needed.contains(&feature.as_str()));
            Some(others.chain(needed.iter().map(|name| (*name).to_owned())).collect())
        };
        Some(Protocol {
            min_reader_version: 3,
            min_writer_version: 7,
            reader_features: with(&before.reader_features, legacy_reader(before.min_reader_version)),
            writer_features: with(&before.writer_features, legacy_writer(before.min_writer_version)),
        })
    }
}

/// A table's `schemaString`, its columns as they are written.
#[derive(Deserialize, Serialize)]
struct Root {
    #[serde(rename = "type")]
    kind: String,
    fields: Vec<Box<RawValue>>,
}

/// Whether the columns `after` are those before, grown.
pub(super) fn grew(before: &SchemaRef, after: &Schema, widening: &Widening) -> Option<Growth> {
    let growth = Growth::between(before, after, widening).ok()?;
    let bare = |schema: &Schema| -> Vec<Field> { schema.fields().iter().map(|field| type_changes::bare(field)).collect() };
    (bare(&growth.applied_to(before)) == bare(after)).then_some(growth)
}

/// What a table's features were before they were listed by name, which the list then has to say.
fn legacy_writer(version: i32) -> &'static [&'static str] {
    const FEATURES: [&str; 7] = [
        "appendOnly",
        "invariants",
        "checkConstraints",
        CHANGE_DATA_FEED,
        "generatedColumns",
        "columnMapping",
        "identityColumns",
    ];
    match version {
        ..2 => &FEATURES[..0],
        2 => &FEATURES[..2],
        3 => &FEATURES[..3],
        4 => &FEATURES[..5],
        5 => &FEATURES[..6],
        6.. => &FEATURES,
    }
}

fn legacy_reader(version: i32) -> &'static [&'static str] {
    if version == 2 { &["columnMapping"] } else { &[] }
}

/// Whether a table, or a struct within it, that has these fields can gain this one.
fn addable<'a>(mut own: impl Iterator<Item = &'a FieldRef>, field: &Field) -> Result<(), String> {
    let name = field.name();
    if let Some(other) = own.find(|other| other.name().to_lowercase() == name.to_lowercase()) {
        return Err(format!(
            "column `{name}` differs from `{}` in case only, and Delta takes them for one",
            other.name()
        ));
    }
    if name.is_empty() || name.contains(NOT_IN_COLUMN_NAMES) {
        return Err(format!("column `{name}` has a name that Delta does not allow"));
    }
    schema::to_delta(&Schema::new(vec![field.clone()]))
        .map(drop)
        .map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests;

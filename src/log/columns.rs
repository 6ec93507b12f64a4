//! What the columns of a table may become while changes flow.
//!
//! Sources change: they gain columns, lose some, and let in nulls where there were none. A table follows where no row that it holds
//! changes its meaning: it gains nullable columns behind its own, and a column may be null from now on. Nothing is ever taken away or
//! turned into another type; that needs a person.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef, Fields, Schema, SchemaRef};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::error::{Error, Result};
use crate::log::actions::{MetaData, Protocol};
use crate::log::schema;
use crate::table::NOT_IN_COLUMN_NAMES;

/// The feature of tables with timestamps without a zone.
const TIMESTAMP_NTZ: &str = "timestampNtz";

/// What to do about rows that a table cannot hold.
pub const NEXT: &str = "Change it back at the source, or let a new table begin with it: name another `location`";

/// What a table needs to hold other columns than its own.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Growth {
    /// Columns that it gains. They are nullable whatever they are at the source: the rows before them have no value there.
    pub added: Vec<FieldRef>,
    /// Columns that may be null from now on.
    pub nullable: Vec<String>,
}

impl Growth {
    /// What a table with the columns `table` needs to hold rows of the columns `rows` too; columns are matched by their names. The
    /// error is all that it cannot hold, one sentence each.
    pub fn between(table: &Schema, rows: &Schema) -> Result<Self, Vec<String>> {
        let (mut growth, mut differences) = (Self::default(), Vec::new());
        for field in rows.fields() {
            match table.fields().find(field.name()) {
                Some((_, own)) => {
                    compare_types(own.data_type(), field.data_type(), field.name(), &mut differences);
                    if field.is_nullable() && !own.is_nullable() {
                        growth.nullable.push(field.name().clone());
                    }
                }
                None => match addable(table.fields(), &growth.added, field) {
                    Ok(()) => growth.added.push(Arc::new(field.as_ref().clone().with_nullable(true))),
                    Err(why) => differences.push(why),
                },
            }
        }
        if differences.is_empty() { Ok(growth) } else { Err(differences) }
    }

    pub fn is_empty(&self) -> bool {
        self.added.is_empty() && self.nullable.is_empty()
    }

    /// The columns of the table once it has grown.
    pub fn applied_to(&self, table: &SchemaRef) -> SchemaRef {
        if self.is_empty() {
            return Arc::clone(table);
        }
        let own = table.fields().iter().map(|field| match self.nullable.contains(field.name()) {
            true => Arc::new(field.as_ref().clone().with_nullable(true)),
            false => Arc::clone(field),
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
        if !self.nullable.is_empty() {
            notes.insert("columnsNullable".to_owned(), self.nullable.clone().into());
        }
        Ok(notes)
    }

    /// The table's `metaData` once it has grown. What is there stays as it is written.
    pub(super) fn metadata(&self, before: &MetaData) -> Result<MetaData> {
        let unreadable = |e| Error::data("bad_log", "the table's schema is not JSON").because(e);
        let mut root: Root = serde_json::from_str(&before.schema_string).map_err(unreadable)?;
        for column in &mut root.fields {
            let mut members: BTreeMap<String, Box<RawValue>> = serde_json::from_str(column.get()).map_err(unreadable)?;
            let name: String = members
                .get("name")
                .map(|name| serde_json::from_str(name.get()))
                .transpose()
                .map_err(unreadable)?
                .unwrap_or_default();
            if self.nullable.contains(&name) {
                members.insert("nullable".to_owned(), serde_json::value::to_raw_value(&true).map_err(unreadable)?);
                *column = serde_json::value::to_raw_value(&members).map_err(unreadable)?;
            }
        }
        let added: Root = serde_json::from_str(&schema::to_delta(&Schema::new(self.added.clone()))?).map_err(unreadable)?;
        root.fields.extend(added.fields);
        Ok(MetaData {
            schema_string: serde_json::to_string(&root).map_err(unreadable)?,
            ..before.clone()
        })
    }

    /// The protocol that the table needs once it has grown, if that is another.
    pub(super) fn protocol(&self, before: &Protocol) -> Option<Protocol> {
        let added: Fields = self.added.clone().into();
        let known = |features: &Option<Vec<String>>| features.iter().flatten().any(|feature| feature == TIMESTAMP_NTZ);
        if !schema::has_timestamp_ntz(&added) || (known(&before.reader_features) && known(&before.writer_features)) {
            return None;
        }
        let with = |features: &Option<Vec<String>>, legacy: &[&str]| {
            let listed = features
                .clone()
                .unwrap_or_else(|| legacy.iter().map(|name| (*name).to_owned()).collect());
            let others = listed.into_iter().filter(|feature| feature != TIMESTAMP_NTZ);
            Some(others.chain([TIMESTAMP_NTZ.to_owned()]).collect())
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
pub(super) fn grew(before: &Schema, after: &Schema) -> Option<Growth> {
    let growth = Growth::between(before, after).ok()?;
    let fields = after.fields().iter().enumerate();
    let same = |(place, field): (usize, &FieldRef)| match before.fields().get(place) {
        Some(own) => {
            let name_and_type = own.name() == field.name() && own.data_type() == field.data_type() && own.metadata() == field.metadata();
            name_and_type && (field.is_nullable() || !own.is_nullable())
        }
        None => field.is_nullable(),
    };
    (after.fields().len() >= before.fields().len() && fields.into_iter().all(same)).then_some(growth)
}

/// What a table's features were before they were listed by name, which the list then has to say.
fn legacy_writer(version: i32) -> &'static [&'static str] {
    const FEATURES: [&str; 7] = [
        "appendOnly",
        "invariants",
        "checkConstraints",
        "changeDataFeed",
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

/// Whether a table can gain this column.
fn addable(own: &Fields, added: &[FieldRef], field: &Field) -> Result<(), String> {
    let name = field.name();
    if let Some(other) = own
        .iter()
        .chain(added)
        .find(|other| other.name().to_lowercase() == name.to_lowercase())
    {
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

fn compare(there: &Fields, coming: &Fields, path: &str, differences: &mut Vec<String>) {
    for field in coming {
        let name = format!("{path}.{}", field.name());
        match there.find(field.name()) {
            Some((_, own)) => compare_inner(own, field, &name, differences),
            None => differences.push(format!("field `{name}` is not in the table")),
        }
    }
    for field in there.iter().filter(|field| coming.find(field.name()).is_none()) {
        differences.push(format!("field `{path}.{}` is in the table only", field.name()));
    }
}

fn compare_inner(there: &Field, coming: &Field, name: &str, differences: &mut Vec<String>) {
    if coming.is_nullable() && !there.is_nullable() {
        differences.push(format!("field `{name}` is never null in the table, and may be null here"));
    }
    compare_types(there.data_type(), coming.data_type(), name, differences);
}

/// Tells where values of a type cannot stand in a column. A narrower type of the same kind can: its values are all in the wider one.
fn compare_types(there: &DataType, coming: &DataType, name: &str, differences: &mut Vec<String>) {
    match (there, coming) {
        (DataType::Int64, DataType::Int32) | (DataType::Float64, DataType::Float32) => {}
        (DataType::Decimal128(p, s), DataType::Decimal128(own_p, own_s))
            if own_s <= s && i16::from(*own_p) - i16::from(*own_s) <= i16::from(*p) - i16::from(*s) => {}
        (DataType::Struct(there), DataType::Struct(coming)) => compare(there, coming, name, differences),
        (DataType::List(there), DataType::List(coming)) => compare_inner(there, coming, &format!("{name}.element"), differences),
        (DataType::Map(there, _), DataType::Map(coming, _)) => match (there.data_type(), coming.data_type()) {
            // The names inside of a map are Arrow's matter, not Delta's: by place.
            (DataType::Struct(there), DataType::Struct(coming)) if there.len() == 2 && coming.len() == 2 => {
                compare_types(there[0].data_type(), coming[0].data_type(), &format!("{name}.key"), differences);
                compare_inner(&there[1], &coming[1], &format!("{name}.value"), differences);
            }
            _ => differences.push(format!("column `{name}` is not a map of keys and values")),
        },
        _ if there != coming => differences.push(format!("column `{name}` is {there} in the table and {coming} here")),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn columns(fields: &[(&str, DataType, bool)]) -> Schema {
        Schema::new(
            fields
                .iter()
                .map(|(name, kind, nullable)| Field::new(*name, kind.clone(), *nullable))
                .collect::<Vec<_>>(),
        )
    }

    #[test]
    fn s5_s6_s11_columns_are_added_nullable_and_others_let_nulls_in() {
        let table = columns(&[
            ("id", DataType::Int64, false),
            ("v", DataType::Utf8, false),
            ("w", DataType::Utf8, true),
        ]);
        let rows = columns(&[
            ("n", DataType::Date32, false),
            ("v", DataType::Utf8, true),
            ("id", DataType::Int32, false),
            ("w", DataType::Utf8, false),
        ]);
        let growth = Growth::between(&table, &rows).unwrap();
        assert_eq!(growth.nullable, ["v"], "`w` stays nullable, `id` required");
        let grown = growth.applied_to(&Arc::new(table.clone()));
        let expected = columns(&[
            ("id", DataType::Int64, false),
            ("v", DataType::Utf8, true),
            ("w", DataType::Utf8, true),
            ("n", DataType::Date32, true),
        ]);
        assert_eq!(*grown, expected);
        assert!(Growth::between(&grown, &rows).unwrap().is_empty(), "a grown table needs no more");
        assert_eq!(grew(&table, &grown), Some(growth));
        assert_eq!(grew(&grown, &table), None, "nothing shrinks");
        assert_eq!(
            grew(
                &table,
                &columns(&[
                    ("v", DataType::Utf8, false),
                    ("id", DataType::Int64, false),
                    ("w", DataType::Utf8, true)
                ])
            ),
            None,
            "nor changes its order"
        );
    }

    #[test]
    fn s9_s10_v17_what_a_table_cannot_hold_is_told_in_full() {
        let inner = |kind: DataType| DataType::List(Arc::new(Field::new("element", kind, true)));
        let table = columns(&[
            ("id", DataType::Int32, false),
            ("d", DataType::Decimal128(10, 2), true),
            ("l", inner(DataType::Int32), true),
        ]);
        let cases = [
            (("id", DataType::Int64), "`id` is Int32 in the table and Int64 here"),
            (("d", DataType::Decimal128(11, 2)), "`d` is Decimal128(10, 2)"),
            (("l", inner(DataType::Utf8)), "`l.element` is Int32"),
            (("ID", DataType::Int32), "`ID` differs from `id` in case only"),
            (("a b", DataType::Int32), "`a b` has a name that Delta does not allow"),
            (("u", DataType::UInt64), "`u` has the type UInt64"),
        ];
        let all = columns(&cases.clone().map(|((name, kind), _)| (name, kind, true)));
        let differences = Growth::between(&table, &all).unwrap_err();
        assert_eq!(differences.len(), cases.len(), "{differences:?}");
        for ((_, part), difference) in cases.iter().zip(differences) {
            assert!(difference.contains(part), "{difference}");
        }
        let narrower = columns(&[("d", DataType::Decimal128(9, 1), true), ("l", inner(DataType::Int32), true)]);
        assert!(Growth::between(&table, &narrower).unwrap().is_empty());
    }

    #[test]
    fn what_is_written_of_the_columns_stays_as_it_is() {
        let text = r#"{"type":"struct","fields":[{"name":"id","type":"long","nullable":false,"metadata":{"delta.identity.start":1, "x":[1.50]}},{"name":"v","type":"string","nullable":false,"metadata":{}}]}"#;
        let before = MetaData {
            schema_string: text.to_owned(),
            ..MetaData::default()
        };
        let growth = Growth {
            added: vec![Arc::new(Field::new("n", DataType::Date32, true))],
            nullable: vec!["v".to_owned()],
        };
        let after = growth.metadata(&before).unwrap().schema_string;
        let expected = r#"{"type":"struct","fields":[{"name":"id","type":"long","nullable":false,"metadata":{"delta.identity.start":1, "x":[1.50]}},{"metadata":{},"name":"v","nullable":true,"type":"string"},{"metadata":{},"name":"n","nullable":true,"type":"date"}]}"#;
        assert_eq!(after, expected);
    }

    #[test]
    fn a_timestamp_without_zone_needs_its_feature_beside_those_that_were_unnamed() {
        let ntz = DataType::Timestamp(arrow::datatypes::TimeUnit::Microsecond, None);
        let growth = Growth {
            added: vec![Arc::new(Field::new("t", ntz, true))],
            nullable: Vec::new(),
        };
        let before: Protocol = serde_json::from_str(r#"{"minReaderVersion":1,"minWriterVersion":2}"#).unwrap();
        let after = growth.protocol(&before).unwrap();
        assert_eq!((after.min_reader_version, after.min_writer_version), (3, 7));
        assert_eq!(after.reader_features.as_deref(), Some(&["timestampNtz".to_owned()][..]));
        assert_eq!(
            after.writer_features.as_deref(),
            Some(&["appendOnly", "invariants", "timestampNtz"].map(str::to_owned)[..])
        );
        assert_eq!(growth.protocol(&after), None, "once is enough");
        assert_eq!(Growth::default().protocol(&before), None);
    }
}

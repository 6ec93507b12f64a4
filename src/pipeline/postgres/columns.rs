//! Which column of the database each column of a Delta table was copied from.
//!
//! A column that was dropped and added anew, or got the name of another, or another type, has the same name and other values, and no change
//! tells those of the rows that were there. The server tells such columns apart by their numbers and types; the Delta table keeps these in a
//! property.

use std::collections::{BTreeMap, BTreeSet};

use crate::error::{Error, Result};
use crate::sinks::delta::DeltaSink;
use crate::sources::postgres::catalog::{self, Origin, PgTable};
use crate::sources::postgres::changes::Known;
use crate::sources::postgres::followed::Metadata;
use crate::sources::postgres::types::Types;
use crate::table::{Mode, Table};

/// As JSON: by a column's name its number and type on the server. Of columns that have gone there, the last.
pub(super) const PROPERTY: &str = "alluvium.postgres.columns";

/// What a Delta table keeps.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Origins(BTreeMap<String, Origin>);

impl Origins {
    pub fn of(source: &PgTable) -> Self {
        Self(source.origins())
    }

    /// From the properties of a table. One that has none was not made by this program, or by an older one.
    pub fn kept(properties: &BTreeMap<String, String>, table: &str) -> Result<Self> {
        let Some(text) = properties.get(PROPERTY) else {
            return Ok(Self::default());
        };
        let origins = serde_json::from_str(text).map_err(|e| {
            let what = format!(
                "the property `{PROPERTY}` of `{table}` is not what alluvium writes: unset it, and unless it only grows, `alluvium resnapshot {table}`"
            );
            Error::data("bad_property", what).because(e)
        })?;
        Ok(Self(origins))
    }

    fn get(&self, column: &str) -> Option<Origin> {
        self.0.get(column).copied()
    }

    /// With those of `now`.
    pub fn and(&self, now: Self) -> Self {
        Self(self.0.clone().into_iter().chain(now.0).collect())
    }

    pub fn property(&self) -> Result<(String, String)> {
        let text = serde_json::to_string(&self.0).map_err(|e| Error::bug("origins of columns are no JSON").because(e))?;
        Ok((PROPERTY.to_owned(), text))
    }
}

/// A difference between a table and its source, with the types of the columns that have another one now, as the server names them.
/// `properties`: those of the table.
pub(super) fn in_types_of_server(error: Error, properties: &BTreeMap<String, String>, source: &PgTable, types: &Types) -> Error {
    let kept = Origins::kept(properties, "").unwrap_or_default();
    let retyped = source.columns.iter().filter_map(|column| {
        let now = types.column(column.type_oid, column.type_modifier);
        match kept.get(&column.name)? {
            Origin::Typed(_, oid, modifier) if (oid, modifier) != (column.type_oid, column.type_modifier) => {
                let was = types.column(oid, modifier);
                Some(format!("`{}` is {} now and was {}", column.name, now.name(), was.name()))
            }
            Origin::Typed(..) | Origin::Number(_) => None,
        }
    });
    let retyped: Vec<String> = retyped.collect();
    match error.code {
        "schema_mismatch" if !retyped.is_empty() => Error::new(error.kind, error.code, format!("{}: {error}", retyped.join(", "))),
        _ => error,
    }
}

/// The columns that the table has.
pub(super) fn known_columns(sink: &DeltaSink, kept: &Origins, source: &PgTable) -> Known {
    let fields = sink.log().snapshot().schema.fields();
    let own = fields.iter().map(|field| field.name().to_owned());
    let all: BTreeSet<String> = own.collect();
    let same = source.columns.iter().filter(|column| all.contains(&column.name));
    let same = same.filter(|column| kept.get(&column.name).map(Origin::number) == Some(column.number));
    Known {
        same: same.map(|column| column.name.clone()).collect(),
        all,
    }
}

/// The columns on the server of which the table's rows may have values that no change tells.
pub(super) fn untold_values<'c>(sink: &DeltaSink, kept: &'c Origins, source: &'c PgTable, table: &Table) -> Vec<&'c str> {
    let own = sink.log().snapshot().schema.fields();
    let own = own.iter().map(|field| field.name().as_str());
    // A column of the server's may have the name of a metadata column.
    let own = own.filter(|name| kept.get(name).is_some() || Metadata::ALL.iter().all(|(metadata, _)| metadata != name));
    // The rows of a table that only grows stay as they are, whatever column came with the last of them.
    let known = match table.mode {
        Mode::Append => kept.0.iter().map(|(name, origin)| (name.as_str(), Some(*origin))).collect(),
        Mode::Upsert { .. } => own.map(|name| (name, kept.get(name))).collect::<BTreeMap<_, _>>(),
    };
    catalog::untold_values(&known, &source.columns)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_older_program_has_kept_is_read_and_what_is_kept_is_read_back() {
        let read = |text: &str| Origins::kept(&BTreeMap::from([(PROPERTY.to_owned(), text.to_owned())]), "t").unwrap();
        let origins = read(r#"{"id":1,"v":[2,1043,9]}"#);
        assert_eq!(
            (origins.get("id"), origins.get("v")),
            (Some(Origin::Number(1)), Some(Origin::Typed(2, 1043, 9)))
        );
        assert_eq!(read(&origins.property().unwrap().1), origins);
        assert!(Origins::kept(&BTreeMap::from([(PROPERTY.to_owned(), "{\"v\":[2]}".to_owned())]), "t").is_err());
    }
}

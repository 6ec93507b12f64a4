//! Which column of the database each column of a Delta table was copied from.
//!
//! A column that was dropped and added anew, or got the name of another, has the same name and other values, and no change tells those of
//! the rows that were there. The server tells such columns apart by their numbers; the Delta table keeps them in a property.

use std::collections::{BTreeMap, BTreeSet};

use crate::error::{Error, Result};
use crate::sinks::delta::DeltaSink;
use crate::sources::postgres::catalog::{self, PgTable};
use crate::sources::postgres::changes::Known;
use crate::sources::postgres::followed::Metadata;
use crate::table::{Mode, Table};

/// As JSON: by a column's name its number on the server. Of columns that have gone there, the last.
pub(super) const PROPERTY: &str = "alluvium.postgres.columns";

/// What a Delta table keeps.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Numbers(BTreeMap<String, i16>);

impl Numbers {
    pub fn of(source: &PgTable) -> Self {
        Self(source.numbers())
    }

    /// From the properties of a table. One that has none was not made by this program, or by an older one.
    pub fn kept(properties: &BTreeMap<String, String>, table: &str) -> Result<Self> {
        let Some(text) = properties.get(PROPERTY) else {
            return Ok(Self::default());
        };
        let numbers = serde_json::from_str(text).map_err(|e| {
            let what =
                format!("the property `{PROPERTY}` of `{table}` is not what alluvium writes: unset it, and `alluvium resnapshot {table}`");
            Error::data("bad_property", what).because(e)
        })?;
        Ok(Self(numbers))
    }

    pub fn get(&self, column: &str) -> Option<i16> {
        self.0.get(column).copied()
    }

    /// With those of `now`.
    pub fn and(&self, now: Self) -> Self {
        Self(self.0.clone().into_iter().chain(now.0).collect())
    }

    pub fn property(&self) -> Result<(String, String)> {
        let text = serde_json::to_string(&self.0).map_err(|e| Error::bug("numbers of columns are no JSON").because(e))?;
        Ok((PROPERTY.to_owned(), text))
    }
}

/// The columns that the table has.
pub(super) fn known_columns(sink: &DeltaSink, kept: &Numbers, source: &PgTable) -> Known {
    let fields = sink.log().snapshot().schema.fields();
    let own = fields.iter().map(|field| field.name().to_owned());
    let all: BTreeSet<String> = own.collect();
    let same = source.columns.iter().filter(|column| all.contains(&column.name));
    let same = same.filter(|column| kept.get(&column.name) == Some(column.number));
    Known {
        same: same.map(|column| column.name.clone()).collect(),
        all,
    }
}

/// Whether the table has columns on the server of which its rows may have values that no change tells.
pub(super) fn has_untold_values(sink: &DeltaSink, kept: &Numbers, source: &PgTable, table: &Table) -> bool {
    let schema = &sink.log().snapshot().schema;
    let own = schema.fields().iter().map(|field| field.name().as_str());
    let known: BTreeMap<&str, Option<i16>> = own
        .filter(|name| Metadata::ALL.iter().all(|(metadata, _)| metadata != name))
        .map(|name| (name, kept.get(name)))
        .collect();
    !matches!(table.mode, Mode::Append) && catalog::has_untold_values(&known, &source.columns)
}

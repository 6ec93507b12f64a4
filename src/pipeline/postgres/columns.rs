//! Which column of the database each column of a Delta table was copied from.
//!
//! A column that was dropped and added anew, or got the name of another, has the same name and other values, and no change tells those of
//! the rows that were there. The server tells such columns apart by their numbers; the Delta table keeps them in a property.

use std::collections::BTreeMap;

use crate::error::{Error, Result};
use crate::sources::postgres::catalog::PgTable;

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

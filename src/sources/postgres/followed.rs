//! What one table follows of the database: which of its columns, how they are read, and what its changes become.

use std::sync::Arc;

use arrow::array::{Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};

use super::catalog::PgTable;
use super::connection::qualified;
use super::rewriting::Declared;
use super::types::{ColumnType, Types};
use crate::error::{Error, Result};
use crate::table::{NOT_IN_COLUMN_NAMES, TableId};

/// Columns beside the row's own, as Debezium names them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Metadata {
    /// c, u, d, r (copied) or t (truncate).
    Op,
    /// Whether the change deletes its row.
    Deleted,
    /// Where the change stands in the WAL; of a copied row, where the copy was made.
    Lsn,
    /// The transaction; null of a copied row.
    TxId,
    /// When the transaction was committed, in milliseconds since 1970; null of a copied row.
    SourceTsMs,
    Schema,
    Table,
    /// Columns that the change does not bring, because they are large and did not change.
    Unchanged,
}

impl Metadata {
    pub const ALL: [(&'static str, Metadata); 8] = [
        ("__op", Metadata::Op),
        ("__deleted", Metadata::Deleted),
        ("__lsn", Metadata::Lsn),
        ("__txId", Metadata::TxId),
        ("__source_ts_ms", Metadata::SourceTsMs),
        ("__schema", Metadata::Schema),
        ("__table", Metadata::Table),
        ("__unchanged", Metadata::Unchanged),
    ];

    pub fn named(name: &str) -> Result<Self> {
        let found = Self::ALL.iter().find(|(known, _)| *known == name);
        found.map(|(_, metadata)| *metadata).ok_or_else(|| {
            let known: Vec<_> = Self::ALL.iter().map(|(name, _)| *name).collect();
            let what = format!("there is no metadata column `{name}` with Postgres; there are {}", known.join(", "));
            Error::config("metadata", what)
        })
    }

    pub fn name(self) -> &'static str {
        Self::ALL
            .iter()
            .find(|(_, metadata)| *metadata == self)
            .map_or("", |(name, _)| name)
    }

    pub fn data_type(self) -> DataType {
        match self {
            Metadata::Op | Metadata::Schema | Metadata::Table => DataType::Utf8,
            Metadata::Deleted => DataType::Boolean,
            Metadata::Lsn | Metadata::TxId | Metadata::SourceTsMs => DataType::Int64,
            Metadata::Unchanged => DataType::List(Arc::new(Field::new("element", DataType::Utf8, false))),
        }
    }
}

/// What the changes of a table become.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Becomes {
    /// The row as it stands in Postgres, by these columns.
    State {
        key: Vec<usize>,
        /// The key was chosen; it is not the one that the server has.
        chosen: bool,
    },
    /// A row for each insert. Another change has no place in such a table.
    Inserts,
    /// A row for each change.
    Changes,
}

/// A column that is followed.
#[derive(Clone, Debug, PartialEq)]
pub struct FollowedColumn {
    pub name: String,
    /// Its type, as the server says it.
    pub declared: Declared,
    pub kind: ColumnType,
}

/// One table and what it follows.
#[derive(Clone, Debug, PartialEq)]
pub struct Followed {
    pub id: TableId,
    /// What tells the source from others of its name.
    pub oid: u32,
    pub schema: String,
    pub table: String,
    /// The row's own columns, in the table's order; metadata columns stand behind them.
    pub columns: Vec<FollowedColumn>,
    pub metadata: Vec<Metadata>,
    pub becomes: Becomes,
    /// Of the row's own columns, those that the Delta table is partitioned by.
    pub partitioned: Vec<usize>,
}

impl Followed {
    /// `key`: the key columns that were chosen; where there are none, those that the server has. With `append` there is no key.
    ///
    /// Errors: a key column that is not there, or of which updates and deletes do not tell what it was, or of a type that cannot be a key; or a
    /// key that two rows may have at once.
    pub fn new(id: TableId, source: &PgTable, types: &Types, key: &[String], append: bool, metadata: Vec<Metadata>) -> Result<Self> {
        let chosen = !key.is_empty();
        let key = if chosen { key } else { source.key() };
        let columns: Vec<_> = source
            .columns
            .iter()
            .map(|column| FollowedColumn {
                name: column.name.clone(),
                declared: (column.type_oid, column.type_modifier),
                kind: types.column(column.type_oid, column.type_modifier),
            })
            .collect();
        let becomes = if !append {
            Becomes::State {
                key: places(source, &columns, key)?,
                chosen,
            }
        } else if metadata.iter().any(|one| matches!(one, Metadata::Op | Metadata::Deleted)) {
            Becomes::Changes
        } else {
            Becomes::Inserts
        };
        let followed = Self {
            id,
            oid: source.oid,
            schema: source.schema.clone(),
            table: source.name.clone(),
            columns,
            metadata,
            becomes,
            partitioned: Vec::new(),
        };
        followed.distinct()?;
        Ok(followed)
    }

    /// The same with a Delta table that is partitioned by these columns. What metadata columns hold can always be written so.
    pub fn partitioned_by(mut self, names: &[String]) -> Self {
        let place = |name: &String| self.columns.iter().position(|column| column.name == *name);
        self.partitioned = names.iter().filter_map(place).collect();
        self
    }

    /// The names of the key columns.
    pub fn key(&self) -> impl Iterator<Item = &str> {
        let places: &[usize] = match &self.becomes {
            Becomes::State { key, .. } => key,
            Becomes::Inserts | Becomes::Changes => &[],
        };
        places.iter().map(|&place| self.columns[place].name.as_str())
    }

    /// Whether the column of this number is one of the key.
    pub fn is_key(&self, column: usize) -> bool {
        matches!(&self.becomes, Becomes::State { key, .. } if key.contains(&column))
    }

    /// Whether its rows stay as they are: it has one for each change, or for each insert.
    pub fn only_grows(&self) -> bool {
        !matches!(self.becomes, Becomes::State { .. })
    }

    /// As people write the source.
    pub fn source(&self) -> String {
        format!("{}.{}", self.schema, self.table)
    }

    /// The columns of the Delta table. All may be null: Postgres can drop a NOT NULL at any time, and Delta can not.
    pub fn arrow_schema(&self) -> SchemaRef {
        let own = self
            .columns
            .iter()
            .map(|column| Field::new(&column.name, column.kind.data_type(), true));
        let metadata = self.metadata.iter().map(|one| Field::new(one.name(), one.data_type(), true));
        Arc::new(Schema::new(own.chain(metadata).collect::<Vec<_>>()))
    }

    /// How many values there are in these rows of it that only the server can print.
    pub fn printed_by_server(&self, rows: &RecordBatch) -> u64 {
        let columns = self.columns.iter().zip(rows.columns());
        let printed = columns.filter(|(column, _)| !column.kind.reads_binary());
        printed.map(|(_, values)| (values.len() - values.null_count()) as u64).sum()
    }

    /// Delta knows no columns that differ by case alone, and Parquet's readers no such characters.
    fn distinct(&self) -> Result<()> {
        let mut seen = std::collections::BTreeMap::new();
        let names = self
            .columns
            .iter()
            .map(|column| column.name.as_str())
            .chain(self.metadata.iter().map(|one| one.name()));
        for name in names {
            if let Some(other) = seen.insert(name.to_lowercase(), name) {
                let what = format!(
                    "the columns `{other}` and `{name}` of {} differ by case alone, which a Delta table cannot hold: rename one, or leave one \
                     out of the publication (ALTER PUBLICATION … SET TABLE … (columns))",
                    self.source()
                );
                return Err(Error::config("column_name", what));
            }
            if let Some(character) = name.chars().find(|c| NOT_IN_COLUMN_NAMES.contains(c)) {
                let what = format!(
                    "the column `{name}` of {} has a {character:?} in its name, which a Delta table cannot hold without column mapping: rename \
                     it, or leave it out of the publication",
                    self.source()
                );
                return Err(Error::config("column_name", what));
            }
        }
        Ok(())
    }
}

fn places(source: &PgTable, columns: &[FollowedColumn], key: &[String]) -> Result<Vec<usize>> {
    let (name, in_sql) = (source.full_name(), qualified(&source.schema, &source.name));
    if key.is_empty() {
        let what = format!(
            "{name} has no key by which its rows could be told apart: add a primary key, or set `key` and ALTER TABLE {in_sql} REPLICA IDENTITY \
             FULL, or set `mode = \"append\"`"
        );
        return Err(Error::config("no_key", what));
    }
    if !source.tells(key) {
        let other = match source.key() {
            [] => String::new(),
            told => format!(", or take `{}` as the `key`", told.join("`, `")),
        };
        let what = format!(
            "updates and deletes of {name} do not tell what `{}` was: ALTER TABLE {in_sql} REPLICA IDENTITY FULL{other}",
            key.join("`, `"),
        );
        return Err(Error::config("replica_identity", what));
    }
    if source.is_deferrable(key) {
        let what = format!(
            "the key `{}` of {name} is deferrable: until its transaction ends, two rows may have the same, and their changes do not tell which \
             of them is meant. Let it hold at once (ALTER TABLE {in_sql} DROP CONSTRAINT …, ADD PRIMARY KEY …), set another `key`, or keep every \
             change (`mode = \"append\"` with `metadata = [\"__op\"]`)",
            key.join("`, `"),
        );
        return Err(Error::config("deferrable_key", what));
    }
    let place = |wanted: &String| {
        let known: Vec<_> = columns.iter().map(|column| column.name.as_str()).collect();
        let found = known.iter().position(|name| name == wanted);
        found.ok_or_else(|| {
            let what = format!(
                "{name} has no column `{wanted}` for the key; the publication shows {}",
                known.join(", ")
            );
            Error::config("no_column", what)
        })
    };
    let places = key.iter().map(place).collect::<Result<Vec<usize>>>()?;
    let mut own = places.iter().map(|&place| &columns[place]);
    if let Some(column) = own.find(|column| !tells_apart(&column.kind.data_type())) {
        let what = format!(
            "the key column `{}` of {name} is {}, by which a Delta table cannot tell rows apart: set another `key`, or keep every change \
             (`mode = \"append\"` with `metadata = [\"__op\"]`)",
            column.name,
            column.kind.name(),
        );
        return Err(Error::config("key_type", what));
    }
    Ok(places)
}

/// Numbers with fractions need not equal themselves (NaN), and what is made of values has several forms of one.
fn tells_apart(kind: &DataType) -> bool {
    !kind.is_floating() && !kind.is_nested()
}

//! A table that a relation feeds: where the values go, and whether changes still tell which row they mean.

use crate::error::{Error, Result};
use crate::sources::postgres::followed::{Becomes, Followed};
use crate::sources::postgres::pgoutput::{Cell, Relation, Tuple};
use crate::sources::postgres::rows::Places;

/// See the head of the file.
pub(super) struct Target {
    /// The table's number.
    pub table: usize,
    pub places: Places,
    /// In the tuple: the columns that the key is made of.
    key: Vec<usize>,
}

impl Target {
    /// Errors: the relation has not the key's columns, or no longer tells by them which row was changed.
    pub fn new(table: usize, followed: &Followed, relation: &Relation) -> Result<Self> {
        let place = |name: &str| relation.columns.iter().position(|column| column.name == name);
        let mut key = Vec::new();
        for name in followed.key() {
            key.push(place(name).ok_or_else(|| {
                let what = format!(
                    "the key column `{name}` of {} is no longer among its columns: table `{}` cannot tell rows apart any more. Choose another \
                     `key` for a new table",
                    followed.source(),
                    followed.id
                );
                Error::data("schema_changed", what)
            })?);
        }
        must_tell(followed, relation)?;
        Ok(Self {
            table,
            places: Places::of(relation, followed),
            key,
        })
    }

    /// Whether an update gives its row another key.
    pub fn another_key(&self, before: Tuple<'_>, after: Tuple<'_>) -> bool {
        self.key
            .iter()
            .any(|&place| match (before.cells().nth(place), after.cells().nth(place)) {
                (_, Some(Cell::Unchanged)) => false,
                (before, after) => before != after,
            })
    }
}

/// Of the row that was there, updates and deletes tell the columns of the replica identity, and these are all that keeps rows apart. A key
/// that was chosen has to be told; one that the server has must be the same. With the identity of all columns everything is told; whether
/// the key is the same, only the catalog knows then.
fn must_tell(followed: &Followed, relation: &Relation) -> Result<()> {
    let Becomes::State { chosen, .. } = followed.becomes else {
        return Ok(());
    };
    if relation.tells_all() {
        return Ok(());
    }
    let told = relation.columns.iter().filter(|column| column.key);
    let told: Vec<&str> = told.map(|column| column.name.as_str()).collect();
    let key: Vec<&str> = followed.key().collect();
    if key.iter().all(|name| told.contains(name)) && (chosen || told.len() == key.len()) {
        return Ok(());
    }
    let told = if told.is_empty() {
        "nothing".to_owned()
    } else {
        format!("`{}`", told.join("`, `"))
    };
    let (source, id, key) = (followed.source(), &followed.id, key.join("`, `"));
    let what = format!(
        "the key of {source} was changed: of the row that was there, changes tell {told} now, and table `{id}` holds one row per `{key}`. Make `{key}` \
         its primary key or its replica identity again (ALTER TABLE … REPLICA IDENTITY …), and `alluvium resnapshot {id}`; or let a new table \
         begin with a copy (name another `location`)"
    );
    Err(Error::data("schema_changed", what))
}

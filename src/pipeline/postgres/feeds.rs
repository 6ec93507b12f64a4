//! Which tables of a database are followed, and which Delta table each becomes: by name, or by pattern.

use std::time::Duration;

use object_store::ObjectStore;
use percent_encoding::percent_decode_str;
use url::Url;

use crate::config::{self, Config, schema_and_table, url_of};
use crate::error::{Error, Result};
use crate::log::store::fault;
use crate::pipeline::resolve::{Storage, limits};
use crate::pipeline::tables::open_store;
use crate::sources::postgres::catalog::PgTable;
use crate::sources::postgres::connection;
use crate::sources::postgres::selection::Selection;
use crate::table::{Limits, TableId, full_name};

use super::IDLE_POSTGRES;

/// No table's folder: it would be taken for the log of a table.
const LOG_FOLDER: &str = "_delta_log";

/// A database, and which of its tables are followed.
#[derive(Clone, Debug)]
pub struct PostgresFeeds {
    pub postgres: config::Postgres,
    /// Those that the configuration names, each with options of its own.
    pub named: Vec<PostgresFeed>,
    pub commit: config::Commit,
    /// Of tables that do not say otherwise.
    pub type_widening: bool,
    pub config: Config,
}

/// A table of the database and the Delta table that it feeds.
#[derive(Clone, Debug)]
pub struct PostgresFeed {
    pub(super) id: TableId,
    pub(super) location: Url,
    pub(super) schema: String,
    pub(super) table: String,
    pub(super) options: config::Table,
}

impl PostgresFeed {
    /// None where something is wrong that the document has.
    pub(in crate::pipeline) fn named(config: &Config, name: &str, options: &config::Table) -> Option<Self> {
        let (schema, table) = schema_and_table(options.table.as_deref()?)?;
        Some(Self {
            id: TableId::new(name),
            location: config.table_url(name, options.location.as_deref()).ok()?,
            schema,
            table,
            options: options.clone(),
        })
    }
}

impl PostgresFeed {
    fn is_of(&self, table: &PgTable) -> bool {
        table.schema == self.schema && table.name == self.table
    }

    /// The table of the database, as statements name it.
    pub(super) fn source(&self) -> String {
        connection::qualified(&self.schema, &self.table)
    }
}

impl PostgresFeeds {
    pub fn slot_name(&self, pipeline: &str) -> String {
        self.postgres.slot_name(pipeline)
    }

    /// When all tables are published.
    pub(super) fn limits(&self) -> Limits {
        limits(&self.commit, &config::TableCommit::default(), IDLE_POSTGRES)
    }

    /// After how long a mark that moved without rows is published.
    pub fn idle(&self) -> Duration {
        self.limits().idle
    }

    /// Whether this Delta table is one that the database feeds.
    pub fn feeds_table(&self, name: &str) -> bool {
        let followed = || schema_and_table(name).is_some_and(|(schema, table)| self.selection().follows(&schema, &table));
        self.named.iter().any(|feed| feed.id.as_str() == name) || followed()
    }

    /// Whether the configuration has a section for this table.
    pub(super) fn is_named(&self, id: &TableId) -> bool {
        self.named.iter().any(|feed| feed.id == *id)
    }

    /// Whether the configuration says what tells the rows of this table apart, or that nothing does.
    pub(super) fn chooses_key(&self, id: &TableId) -> bool {
        let mut of_it = self.named.iter().filter(|feed| feed.id == *id);
        of_it.any(|feed| !feed.options.key.is_empty() || feed.options.mode.is_some())
    }

    /// The tables of the database that the configuration asks for.
    pub(super) fn selection(&self) -> Selection {
        let named = self.named.iter().map(|feed| (feed.schema.clone(), feed.table.clone()));
        Selection::new(named, self.postgres.follow.iter().filter_map(|pattern| schema_and_table(pattern)))
    }

    /// The tables that are followed by pattern and lie in the lake already: names and places.
    pub async fn made(&self, storage: &Storage) -> Result<Vec<(String, Url)>> {
        let Some(lake) = self.config.lake.as_deref().filter(|_| !self.postgres.follow.is_empty()) else {
            return Ok(Vec::new());
        };
        let lake = url_of(lake).map_err(|what| Error::config("bad_location", what))?;
        let store = open_store(&lake, storage)?;
        let (selection, mut made) = (self.selection(), Vec::new());
        for schema in folders(store.as_ref(), &lake, None).await? {
            let tables = folders(store.as_ref(), &lake, Some(&schema)).await?;
            // The folder of a table that the configuration names.
            if tables.iter().any(|folder| folder == LOG_FOLDER) {
                continue;
            }
            for table in tables {
                let (Some(schema), Some(table)) = (name_of(&schema), name_of(&table)) else {
                    continue;
                };
                if selection.follows(&schema, &table) && !selection.names(&schema, &table) {
                    made.push((full_name(&schema, &table), self.place(&schema, &table)?));
                }
            }
        }
        Ok(made)
    }

    /// The Delta tables that a table of the database feeds.
    pub(super) fn fed_from(&self, schema: &str, table: &str) -> Vec<TableId> {
        let named = self.named.iter().filter(|feed| feed.schema == schema && feed.table == table);
        let named: Vec<TableId> = named.map(|feed| feed.id.clone()).collect();
        match named.is_empty() {
            true => vec![TableId::new(full_name(schema, table))],
            false => named,
        }
    }

    /// Those that the configuration names and the publication does not have.
    pub(super) fn missing(&self, published: &[PgTable]) -> impl Iterator<Item = &PostgresFeed> {
        self.named
            .iter()
            .filter(move |feed| !published.iter().any(|table| feed.is_of(table)))
    }

    /// Whether a Delta table is one that a pattern asks for, as it is named then.
    pub(super) fn is_followed(&self, name: &str) -> bool {
        let selection = self.selection();
        schema_and_table(name).is_some_and(|(schema, table)| selection.follows(&schema, &table) && !selection.names(&schema, &table))
    }

    /// What these tables feed.
    pub(super) fn fed_by(&self, published: &[PgTable]) -> Result<Vec<(PostgresFeed, PgTable)>> {
        let feed = |feed: &PostgresFeed| Some((feed.clone(), published.iter().find(|table| feed.is_of(table))?.clone()));
        let (selection, mut feeds) = (self.selection(), self.named.iter().filter_map(feed).collect::<Vec<_>>());
        for table in published {
            if selection.follows(&table.schema, &table.name) && !selection.names(&table.schema, &table.name) {
                feeds.push((self.followed(table)?, table.clone()));
            }
        }
        Ok(feeds)
    }

    /// Whether a table that only a pattern asks for has its place for itself. Of the others the document knows.
    pub(super) fn lies_alone(&self, feed: &PostgresFeed) -> Result<()> {
        let beside = if self.is_named(&feed.id) {
            None
        } else {
            self.config.table_beside(&feed.location)
        };
        match beside {
            None => Ok(()),
            Some(other) => {
                let what = format!(
                    "{} would lie at {}, and `{other}` lies there, too, around it or within it: give that one another `location`",
                    feed.id, feed.location
                );
                Err(Error::config("bad_location", what))
            }
        }
    }

    /// Where a table lies that only a pattern asks for.
    fn place(&self, schema: &str, table: &str) -> Result<Url> {
        let place = format!("{}/{}", folder(schema), folder(table));
        let url = self.config.table_url(&place, None);
        url.map_err(|what| Error::config("bad_location", what))
    }

    /// A table that only a pattern asks for.
    fn followed(&self, table: &PgTable) -> Result<PostgresFeed> {
        // Tables that can only be told apart by nothing hold what is inserted.
        let options = config::Table::default();
        Ok(PostgresFeed {
            id: TableId::new(table.full_name()),
            location: self.place(&table.schema, &table.name)?,
            schema: table.schema.clone(),
            table: table.name.clone(),
            options,
        })
    }
}

/// The folder of a schema or a table: its name, but for what would lead elsewhere or cannot be the name of one.
fn folder(name: &str) -> String {
    match name {
        "." | ".." => name.replace('.', "%2E"),
        LOG_FOLDER => name.replacen('_', "%5F", 1),
        _ => name
            .chars()
            .map(|letter| match letter {
                '/' | '%' | '\0'..'\x20' | '\x7f' => format!("%{:02X}", u32::from(letter)),
                _ => letter.to_string(),
            })
            .collect(),
    }
}

/// What [`folder`] made a folder of. None where it has not.
fn name_of(path: &str) -> Option<String> {
    let name = percent_decode_str(path).decode_utf8().ok()?;
    (folder(&name) == path).then(|| name.into_owned())
}

/// The names of the folders at a place.
async fn folders(store: &dyn ObjectStore, lake: &Url, within: Option<&str>) -> Result<Vec<String>> {
    // As it was listed: to make a path of it anew would change letters.
    let path = within.map(object_store::path::Path::parse).transpose();
    let path = path.map_err(|e| Error::bug(format!("a folder of {lake} has no path")).because(e))?;
    let listed = store.list_with_delimiter(path.as_ref()).await;
    let listed = listed.map_err(|e| fault(e, &format!("list the tables of {lake}")))?;
    Ok(listed
        .common_prefixes
        .iter()
        .filter_map(|path| path.filename().map(str::to_owned))
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_has_a_folder_of_its_own() {
        let names = [
            "orders",
            "ü 日",
            ".",
            "..",
            "...",
            "a.b",
            "a/b",
            "a%2Fb",
            "%",
            "_delta_log",
            "%5Fdelta_log",
            "a\nb",
            "\u{7f}",
            "a?b#c",
            "a\\b",
        ];
        let folders: Vec<String> = names.iter().map(|name| folder(name)).collect();
        for (name, folder) in names.iter().zip(&folders) {
            assert_eq!(name_of(folder).as_deref(), Some(*name));
            assert!(object_store::path::PathPart::parse(folder).is_ok(), "{folder}");
            assert_eq!(folders.iter().filter(|other| *other == folder).count(), 1, "{folder}");
        }
        assert_eq!(folders[..2], ["orders", "ü 日"]);
        assert_eq!(name_of("_delta_log"), None);
    }
}

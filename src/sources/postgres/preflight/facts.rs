//! What the server says about itself, a role, a publication, its tables and a slot: what [`super::problems`] decides by.

use std::collections::BTreeMap;

use super::{Problem, denied};
use crate::error::{Error, Result};
use crate::sources::postgres::connection::{Control, literal, qualified};
use crate::sources::postgres::identity::{self, Unidentified};
use crate::sources::postgres::publication::{self, Shown};
use crate::sources::postgres::slot::{self, Slot};

/// What a source is going to use.
#[derive(Clone, Debug)]
pub struct Wanted {
    pub publication: String,
    pub slot: String,
    /// Schema and name of each.
    pub tables: Vec<(String, String)>,
    /// Some tables have to be copied first, which takes a temporary slot and a sender beside the others.
    pub copies: bool,
    /// Transactions are to be told when they are prepared.
    pub two_phase: bool,
    /// The publication and the slot are made where they are missing, and what is wanted is put into the publication.
    pub create: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Facts {
    /// `server_version_num`: 150018 is 15.18.
    pub version: u32,
    pub database: String,
    pub role: String,
    /// Superusers and members of Amazon's rds_replication count too.
    pub may_replicate: bool,
    /// It has CREATE on the database.
    pub may_create: bool,
    /// The server is a standby.
    pub standby: bool,
    pub wal_level: String,
    pub slots: Room,
    pub senders: Room,
    pub publication: Option<Publication>,
    /// In the order in which they are wanted.
    pub tables: Vec<Table>,
    pub slot: Option<Slot>,
}

/// How many there may be, and how many there are.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Room {
    pub most: u32,
    pub used: u32,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Publication {
    /// Whose it is, where the role may not act for that one.
    pub owner: Option<String>,
    pub all_tables: bool,
    /// Of insert, update, delete and truncate, those that are not published.
    pub left_out: Vec<&'static str>,
    /// Changes of partitions come under the name of the partitioned table.
    pub via_root: bool,
}

impl Publication {
    /// As a run makes it.
    pub fn made() -> Self {
        Self {
            via_root: true,
            ..Self::default()
        }
    }

    /// It tells updates or deletes.
    pub fn has_changes(&self) -> bool {
        !["update", "delete"].iter().all(|operation| self.left_out.contains(operation))
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct Table {
    pub schema: String,
    pub name: String,
    /// None: there is no such table.
    pub found: Option<Found>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Found {
    /// `pg_class.relkind`: r is a table, p a partitioned one, v a view …
    pub kind: char,
    /// Not unlogged, not temporary.
    pub logged: bool,
    /// It is a part of another table.
    pub is_partition: bool,
    /// It has columns that are published where nobody says which: all but generated ones.
    pub has_columns: bool,
    /// What of it has nothing that says which row an update or a delete means.
    pub unidentified: Unidentified,
    /// Of a primary key that is deferrable, what ALTER TABLE makes another of it with.
    pub deferrable: Option<String>,
    pub usable_schema: bool,
    /// What of it may not be read, as statements name it: itself, where that goes for what is published of it, or partitions of it.
    pub unreadable: Vec<String>,
    /// Row security hides rows from the role, of it or of a partition.
    pub rows_hidden: bool,
    /// Whose it is, where the role may not act for that one.
    pub owner: Option<String>,
    pub published: bool,
}

/// What keeps these tables from being copied, by schema and name: what the role may not read.
pub async fn denials(
    control: &Control,
    publication: &str,
    role: &str,
    tables: Vec<(String, String)>,
) -> Result<BTreeMap<(String, String), Problem>> {
    let each = self::tables(control, publication, &tables).await?.into_iter().filter_map(|table| {
        let denied = denied(&table, table.found.as_ref()?, role)?;
        Some(((table.schema, table.name), denied))
    });
    Ok(each.collect())
}

/// Asks for all of it.
pub async fn gather(control: &Control, wanted: &Wanted) -> Result<Facts> {
    let facts = self::facts(control, &wanted.publication, wanted.tables.clone()).await?;
    Ok(Facts {
        slot: slot::find(control, &wanted.slot).await?,
        ..facts
    })
}

/// The same, but for the slot.
pub async fn facts(control: &Control, publication: &str, tables: Vec<(String, String)>) -> Result<Facts> {
    Ok(Facts {
        publication: self::publication(control, publication).await?,
        tables: self::tables(control, publication, &tables).await?,
        ..server(control).await?
    })
}

async fn server(control: &Control) -> Result<Facts> {
    // Temporary slots of others count as well, for they take the same places. What a run of this pipeline takes meanwhile is what is asked for.
    const SQL: &str = "WITH own AS (SELECT pid FROM pg_stat_activity WHERE datname = current_database() \
         AND application_name = current_setting('application_name')) SELECT current_setting('server_version_num'), current_database(), current_user, \
         r.rolsuper OR r.rolreplication OR EXISTS (SELECT 1 FROM pg_roles a WHERE a.rolname = 'rds_replication' AND pg_has_role(a.oid, 'MEMBER')), \
         has_database_privilege(current_database(), 'CREATE'), pg_is_in_recovery(), current_setting('wal_level'), \
         current_setting('max_replication_slots'), \
         (SELECT count(*) FROM pg_replication_slots WHERE NOT (temporary AND active_pid IN (SELECT pid FROM own))), \
         current_setting('max_wal_senders'), \
         (SELECT count(*) FROM pg_stat_get_wal_senders() WHERE pid NOT IN (SELECT pid FROM own)) \
         FROM pg_roles r WHERE r.rolname = current_user";
    let mut row = Fields::of(control.rows(SQL).await?.pop(), "the server")?;
    Ok(Facts {
        version: row.number()?,
        database: row.text()?,
        role: row.text()?,
        may_replicate: row.truth()?,
        may_create: row.truth()?,
        standby: row.truth()?,
        wal_level: row.text()?,
        slots: Room {
            most: row.number()?,
            used: row.number()?,
        },
        senders: Room {
            most: row.number()?,
            used: row.number()?,
        },
        publication: None,
        tables: Vec::new(),
        slot: None,
    })
}

async fn publication(control: &Control, name: &str) -> Result<Option<Publication>> {
    let sql = format!(
        "SELECT CASE WHEN NOT pg_has_role(pubowner, 'USAGE') THEN pg_get_userbyid(pubowner) END, \
         puballtables, pubviaroot, pubinsert, pubupdate, pubdelete, pubtruncate FROM pg_publication WHERE pubname = {}",
        literal(name)
    );
    let Some(row) = control.rows(&sql).await?.pop() else {
        return Ok(None);
    };
    let mut row = Fields::of(Some(row), "the publication")?;
    let (owner, all_tables, via_root) = (row.optional()?, row.truth()?, row.truth()?);
    let mut left_out = Vec::new();
    for operation in ["insert", "update", "delete", "truncate"] {
        if !row.truth()? {
            left_out.push(operation);
        }
    }
    Ok(Some(Publication {
        owner,
        all_tables,
        left_out,
        via_root,
    }))
}

async fn tables(control: &Control, publication: &str, wanted: &[(String, String)]) -> Result<Vec<Table>> {
    if wanted.is_empty() {
        return Ok(Vec::new());
    }
    let names = wanted.iter().enumerate();
    let names: Vec<String> = names
        .map(|(at, (schema, name))| format!("({at}, {}, {})", literal(schema), literal(name)))
        .collect();
    // Of one that is dropped meanwhile, the functions know nothing: whoever reads it finds out.
    let sql = format!(
        "SELECT w.schema, w.name, c.relkind, c.relpersistence = 'p', c.relispartition, \
         EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = ''), \
         (SELECT format('DROP CONSTRAINT %1$I, ADD CONSTRAINT %1$I PRIMARY KEY (%2$s)', k.conname, \
             (SELECT string_agg(quote_ident(a.attname), ', ' ORDER BY n.place) FROM unnest(k.conkey) WITH ORDINALITY n(number, place) \
              JOIN pg_attribute a ON a.attnum = n.number WHERE a.attrelid = c.oid)) \
          FROM pg_constraint k WHERE k.conrelid = c.oid AND k.contype = 'p' AND k.condeferrable), \
         coalesce(has_schema_privilege(n.oid, 'USAGE'), true), coalesce(has_table_privilege(c.oid, 'SELECT'), true), \
         array_to_string(ARRAY(SELECT a.attnum FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped \
             AND has_column_privilege(c.oid, a.attnum, 'SELECT')), ' '), parts.unreadable, parts.hidden, \
         CASE WHEN NOT pg_has_role(c.relowner, 'USAGE') THEN pg_get_userbyid(c.relowner) END \
         FROM (VALUES {}) w(at, schema, name) \
         LEFT JOIN pg_namespace n ON n.nspname = w.schema \
         LEFT JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = w.name AND c.relkind NOT IN ('i', 'I', 'S', 't', 'c') \
         LEFT JOIN LATERAL (WITH RECURSIVE tree(oid) AS (SELECT c.oid UNION SELECT i.inhrelid FROM tree JOIN pg_inherits i ON i.inhparent = tree.oid \
                 JOIN pg_class p ON p.oid = i.inhrelid WHERE p.relispartition) \
             SELECT coalesce(json_agg(format('%I.%I', m.nspname, r.relname) ORDER BY m.nspname, r.relname) \
                     FILTER (WHERE r.oid <> c.oid AND NOT has_any_column_privilege(r.oid, 'SELECT')), '[]')::text AS unreadable, \
                 coalesce(bool_or(row_security_active(r.oid)), false) AS hidden \
             FROM tree JOIN pg_class r ON r.oid = tree.oid JOIN pg_namespace m ON m.oid = r.relnamespace WHERE r.relkind IN ('r', 'p')) parts ON true \
         ORDER BY w.at",
        names.join(", ")
    );
    let rows = control.rows(&sql).await?;
    let published = publication::published(control, publication).await?;
    let unidentified = identity::unidentified(control, publication, wanted).await?;
    let each = rows
        .into_iter()
        .map(|row| table(Fields::of(Some(row), "a table")?, &published, &unidentified));
    each.collect()
}

fn table(
    mut row: Fields,
    published: &BTreeMap<(String, String), Shown>,
    unidentified: &BTreeMap<(String, String), Unidentified>,
) -> Result<Table> {
    let (schema, name) = (row.text()?, row.text()?);
    let key = (schema.clone(), name.clone());
    let shown = published.get(&key);
    let Some(kind) = row.optional()?.and_then(|kind| kind.chars().next()) else {
        return Ok(Table { schema, name, found: None });
    };
    let mut found = Found {
        kind,
        logged: row.truth()?,
        is_partition: row.truth()?,
        has_columns: row.truth()?,
        unidentified: unidentified.get(&key).cloned().unwrap_or_default(),
        deferrable: row.optional()?,
        usable_schema: row.truth()?,
        unreadable: Vec::new(),
        rows_hidden: false,
        owner: None,
        published: shown.is_some(),
    };
    let (whole, columns) = (row.truth()?, row.text()?);
    let columns: Vec<&str> = columns.split(' ').collect();
    let is_readable = |number: &i16| columns.contains(&number.to_string().as_str());
    if !whole && !shown.is_some_and(|shown| shown.columns.iter().all(|column| is_readable(&column.number))) {
        found.unreadable.push(qualified(&schema, &name));
    }
    let parts: Vec<String> = serde_json::from_str(&row.text()?).map_err(|e| unreadable("a table").because(e))?;
    found.unreadable.extend(parts);
    found.rows_hidden = row.truth()?;
    found.owner = row.optional()?;
    Ok(Table {
        schema,
        name,
        found: Some(found),
    })
}

/// The columns of a row of text, from left to right.
struct Fields {
    columns: std::vec::IntoIter<Option<String>>,
    of: &'static str,
}

impl Fields {
    fn of(row: Option<Vec<Option<String>>>, of: &'static str) -> Result<Self> {
        let columns = row.ok_or_else(|| unreadable(of))?.into_iter();
        Ok(Self { columns, of })
    }
    fn optional(&mut self) -> Result<Option<String>> {
        self.columns.next().ok_or_else(|| unreadable(self.of))
    }
    fn text(&mut self) -> Result<String> {
        self.optional()?.ok_or_else(|| unreadable(self.of))
    }
    fn optional_number<N: std::str::FromStr>(&mut self) -> Result<Option<N>> {
        let parsed = self.optional()?.map(|text| text.parse()).transpose();
        parsed.map_err(|_| unreadable(self.of))
    }
    fn number<N: std::str::FromStr>(&mut self) -> Result<N> {
        self.optional_number()?.ok_or_else(|| unreadable(self.of))
    }
    fn truth(&mut self) -> Result<bool> {
        match self.text()?.as_str() {
            "t" | "true" => Ok(true),
            "f" | "false" => Ok(false),
            _ => Err(unreadable(self.of)),
        }
    }
}

fn unreadable(of: &str) -> Error {
    Error::bug(format!("what the catalog says about {of} cannot be read"))
}

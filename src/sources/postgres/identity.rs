//! What identifies the rows of a table where they change. Of a table that is published, the server refuses UPDATE and DELETE to everybody as
//! long as nothing does.
//!
//! So whoever publishes a table without an identity has to give it one. All of its columns are one (REPLICA IDENTITY FULL): inserts cost
//! nothing more, the WAL of an update or a delete has the whole old row, and what changes a row is seen here, for better or worse. To publish
//! inserts alone would spare the table, but then its other changes would be seen by nobody.

use std::collections::{BTreeMap, BTreeSet};

use tracing::warn;

use super::catalog::server_version;
use super::connection::{Control, qualified};
use super::publication;
use crate::error::Result;

/// What has no identity of a table: itself, or partitions of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Unidentified {
    /// As statements name them.
    pub tables: Vec<String>,
    pub obstacle: Option<Obstacle>,
    /// Who of their owners the role may not act for.
    pub owners: BTreeSet<String>,
}

/// Why all columns are no identity that may be set unasked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Obstacle {
    /// Somebody has said that it shall have none: REPLICA IDENTITY NOTHING.
    Choice,
    /// Where generated columns that are not published would be part of it, the server refuses UPDATE and DELETE all the same, since 18.
    Generated,
}

impl Obstacle {
    /// Completes "it".
    pub fn why(self) -> &'static str {
        match self {
            Obstacle::Choice => "was set to REPLICA IDENTITY NOTHING by somebody",
            Obstacle::Generated => "has generated columns, with which this server takes no REPLICA IDENTITY FULL",
        }
    }
}

impl Unidentified {
    /// The statements that give an identity to each.
    pub fn sql(&self) -> String {
        let identity = match self.obstacle {
            Some(Obstacle::Generated) => "USING INDEX …",
            Some(Obstacle::Choice) | None => "FULL",
        };
        let each = self
            .tables
            .iter()
            .map(|table| format!("ALTER TABLE {table} REPLICA IDENTITY {identity};"));
        each.collect::<Vec<_>>().join(" ")
    }
}

/// Those of these tables that have no identity, by schema and name.
pub async fn unidentified(control: &Control, tables: &[(String, String)]) -> Result<BTreeMap<(String, String), Unidentified>> {
    // A deferrable primary key identifies no row to the log. Partitions have identities of their own.
    let sql = "SELECT n.nspname::text, c.relname::text, m.nspname::text, r.relname::text, r.relreplident = 'n', \
               EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = r.oid AND a.attgenerated <> '' AND NOT a.attisdropped), \
               CASE WHEN NOT pg_has_role(r.relowner, 'USAGE') THEN pg_get_userbyid(r.relowner)::text END \
               FROM unnest($1::text[], $2::text[]) w(schema, name) JOIN pg_namespace n ON n.nspname = w.schema \
               JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = w.name \
               CROSS JOIN LATERAL (WITH RECURSIVE tree(oid) AS (SELECT c.oid UNION SELECT i.inhrelid FROM tree JOIN pg_inherits i ON i.inhparent = tree.oid \
                   JOIN pg_class p ON p.oid = i.inhrelid WHERE p.relispartition) SELECT oid FROM tree) t \
               JOIN pg_class r ON r.oid = t.oid JOIN pg_namespace m ON m.oid = r.relnamespace \
               WHERE r.relkind IN ('r', 'p') AND NOT CASE r.relreplident WHEN 'f' THEN true WHEN 'n' THEN false \
                   WHEN 'd' THEN EXISTS (SELECT FROM pg_index i WHERE i.indrelid = r.oid AND i.indisprimary AND i.indimmediate AND i.indisvalid) \
                   ELSE EXISTS (SELECT FROM pg_index i WHERE i.indrelid = r.oid AND i.indisreplident) END ORDER BY 1, 2, 3, 4";
    let (schemas, names): (Vec<&str>, Vec<&str>) = tables.iter().map(|(schema, name)| (schema.as_str(), name.as_str())).unzip();
    let takes_generated = server_version(control).await? < 180_000;
    let mut found: BTreeMap<_, Unidentified> = BTreeMap::new();
    for row in control.query(sql, &[&schemas, &names]).await? {
        let one = found.entry((row.get(0), row.get(1))).or_default();
        one.tables.push(qualified(row.get(2), row.get(3)));
        one.owners.extend(row.get::<_, Option<String>>(6));
        let generated = row.get::<_, bool>(5) && !takes_generated;
        let obstacle = generated.then_some(Obstacle::Generated);
        one.obstacle = one.obstacle.max(obstacle.or(row.get::<_, bool>(4).then_some(Obstacle::Choice)));
    }
    Ok(found)
}

/// Gives an identity to each of them.
pub async fn identify(control: &Control, unidentified: &Unidentified) -> Result<()> {
    for table in &unidentified.tables {
        // Nobody else may use the table meanwhile, and who comes waits behind us: if it is in use for longer, it is tried again later.
        let sql = format!("SET LOCAL lock_timeout = '1s'; ALTER TABLE {table} REPLICA IDENTITY FULL");
        control.batch_execute(&sql).await?;
    }
    Ok(())
}

/// Gives one to what is published and has none: partitions that were made since, which do not inherit it, and tables that have lost their key.
pub async fn of_published(control: &Control, publication: &str, published: impl Iterator<Item = (String, String)>) -> Result<()> {
    // Where only inserts are published, nothing is refused.
    if !publication::kind(control, publication).await?.is_some_and(|kind| kind.changes) {
        return Ok(());
    }
    let published: Vec<(String, String)> = published.collect();
    for ((schema, table), new) in unidentified(control, &published).await? {
        if new.obstacle.is_some() {
            continue;
        }
        let (table, tables) = (qualified(&schema, &table), new.tables.join(", "));
        match identify(control, &new).await {
            Ok(()) => warn!(
                table,
                tables,
                "set to REPLICA IDENTITY FULL, for nothing identified their rows any more, or yet, and the server refused UPDATE and DELETE of them"
            ),
            // It is no reason to follow nothing: the next look tries it again.
            Err(error) => {
                warn!(table, tables, %error, "the server refuses UPDATE and DELETE of these, for they could not be given a replica identity");
            }
        }
    }
    Ok(())
}

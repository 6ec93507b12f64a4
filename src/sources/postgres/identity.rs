//! What identifies the rows of a table where they change. Of a table that is published, the server refuses UPDATE and DELETE to everybody as
//! long as nothing does.
//!
//! So whoever publishes a table without an identity has to give it one. All of its columns are one (REPLICA IDENTITY FULL): inserts cost
//! nothing more, the WAL of an update or a delete has the whole old row, and what changes a row is seen here, for better or worse. To publish
//! inserts alone would spare the table, but then its other changes would be seen by nobody.

use std::collections::{BTreeMap, BTreeSet};

use tracing::warn;

use super::connection::{Control, identifier, qualified};
use crate::error::{Error, Result};

/// What has no identity of a table, or none that the server takes: itself, or partitions of it.
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
    /// Generated columns that are not published are part of it, or would be: the server refuses UPDATE and DELETE all the same, since 18.
    Generated,
}

impl Obstacle {
    /// Completes "it".
    pub fn why(self) -> &'static str {
        match self {
            Obstacle::Choice => "was set to REPLICA IDENTITY NOTHING by somebody, so that nothing identifies its rows",
            Obstacle::Generated => "is identified by generated columns, or would be, which are not published",
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

    /// What helps, as a sentence. `publication`: as statements name it.
    pub fn fix(&self, publication: &str) -> String {
        let sql = self.sql();
        match self.obstacle {
            Some(Obstacle::Generated) => format!(
                "Identify it by other columns: give it a primary key of these, or run: {sql} Or publish what is stored of generated columns: \
                 ALTER PUBLICATION {publication} SET (publish_generated_columns = stored);"
            ),
            Some(Obstacle::Choice) | None => format!("Give it a primary key, or run: {sql}"),
        }
    }
}

/// Those of these tables that have no identity, or that the server would refuse in this publication for theirs; by schema and name.
pub async fn unidentified(
    control: &Control,
    publication: &str,
    tables: &[(String, String)],
) -> Result<BTreeMap<(String, String), Unidentified>> {
    // A deferrable primary key identifies no row to the log. Partitions have identities of their own. Where no index (`i`) identifies the rows,
    // all columns do, or would. Generated ones are published as the publication's list of columns says, or where it has none, its parameter.
    let sql = "SELECT n.nspname::text, c.relname::text, m.nspname::text, r.relname::text, r.relreplident = 'n', g.bars, \
               CASE WHEN NOT pg_has_role(r.relowner, 'USAGE') THEN pg_get_userbyid(r.relowner)::text END \
               FROM unnest($1::text[], $2::text[]) w(schema, name) JOIN pg_namespace n ON n.nspname = w.schema \
               JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = w.name \
               CROSS JOIN LATERAL (WITH RECURSIVE tree(oid) AS (SELECT c.oid UNION SELECT i.inhrelid FROM tree JOIN pg_inherits i ON i.inhparent = tree.oid \
                   JOIN pg_class p ON p.oid = i.inhrelid WHERE p.relispartition) SELECT oid FROM tree) t \
               JOIN pg_class r ON r.oid = t.oid JOIN pg_namespace m ON m.oid = r.relnamespace \
               LEFT JOIN pg_index i ON i.indrelid = r.oid AND CASE r.relreplident \
                   WHEN 'd' THEN i.indisprimary AND i.indimmediate AND i.indisvalid WHEN 'i' THEN i.indisreplident ELSE false END \
               CROSS JOIN LATERAL (SELECT current_setting('server_version_num')::int >= 180000 AND EXISTS (SELECT FROM pg_attribute a \
                   LEFT JOIN pg_publication q ON q.pubname = $3 LEFT JOIN pg_publication_rel l ON l.prpubid = q.oid AND l.prrelid = c.oid \
                   CROSS JOIN LATERAL (SELECT to_jsonb(l)->'prattrs' AS listed) s \
                   WHERE a.attrelid = r.oid AND a.attgenerated <> '' AND NOT a.attisdropped \
                   AND (i.indexrelid IS NULL OR a.attnum = ANY ((i.indkey::int2[])[0:i.indnkeyatts - 1])) \
                   AND (a.attgenerated = 'v' OR NOT CASE jsonb_typeof(s.listed) WHEN 'array' THEN s.listed @> to_jsonb(a.attnum) \
                       ELSE coalesce(to_jsonb(q)->>'pubgencols' = 's', false) END)) AS bars) g \
               WHERE r.relkind IN ('r', 'p') AND (g.bars OR i.indexrelid IS NULL AND r.relreplident <> 'f') ORDER BY 1, 2, 3, 4";
    let (schemas, names): (Vec<&str>, Vec<&str>) = tables.iter().map(|(schema, name)| (schema.as_str(), name.as_str())).unzip();
    let mut found: BTreeMap<_, Unidentified> = BTreeMap::new();
    for row in control.query(sql, &[&schemas, &names, &publication]).await? {
        let one = found.entry((row.get(0), row.get(1))).or_default();
        one.tables.push(qualified(row.get(2), row.get(3)));
        one.owners.extend(row.get::<_, Option<String>>(6));
        let obstacle = row.get::<_, bool>(5).then_some(Obstacle::Generated);
        one.obstacle = one.obstacle.max(obstacle.or(row.get::<_, bool>(4).then_some(Obstacle::Choice)));
    }
    Ok(found)
}

/// Gives an identity to each of them.
pub async fn identify(control: &Control, unidentified: &Unidentified) -> Result<()> {
    for table in &unidentified.tables {
        // Nobody else may use the table meanwhile, and who comes waits behind us: if it is in use for longer, it is tried again later.
        let sql = format!("SET LOCAL lock_timeout = '1s'; ALTER TABLE {table} REPLICA IDENTITY FULL");
        control.alter(&sql).await?;
    }
    Ok(())
}

/// Gives one to what is published and has none: partitions that were made since, which do not inherit it, and tables that have lost their key.
pub async fn of_published(control: &Control, publication: &str, published: &[(String, String)]) -> Result<()> {
    for ((schema, table), new) in unidentified(control, publication, published).await? {
        let given = match new.obstacle {
            Some(Obstacle::Choice) => continue,
            Some(Obstacle::Generated) => Err(Error::config("table_identity", new.fix(&identifier(publication)))),
            None => identify(control, &new).await,
        };
        let (table, tables) = (qualified(&schema, &table), new.tables.join(", "));
        match given {
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

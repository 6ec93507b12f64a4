//! What a publication publishes.
//!
//! The server has a view for this, `pg_publication_tables`; since PostgreSQL 16 it waits for whoever has locked one of the tables, be it a
//! VACUUM FULL of an hour, and the streams of all others would wait with it. The catalogs tell the same, and wait for nobody. Of a version
//! that is newer than what is known here, the view is asked all the same: it knows what publications have learned since.

use std::collections::{BTreeMap, BTreeSet};

use xxhash_rust::xxh3::xxh3_64;

use super::catalog::{Column, HAS_DEFAULT_SQL, server_version};
use super::connection::Control;
use crate::error::Result;

/// Versions before this one are known.
const VERSION_UNKNOWN: u32 = 190_000;

/// A query's beginning that has, as `published(oid, columns)`, the tables of the publication `$1` and the names of the columns that it shows.
///
/// A publication names tables, and schemas since 15, or has all tables. What is a part of a table that it has, is of it too: either the
/// changes of parts are told as changes of the whole, or of the smallest parts.
pub fn published_sql(version: u32) -> String {
    if version >= VERSION_UNKNOWN {
        return "WITH published(oid, columns) AS (SELECT c.oid, p.attnames::text[] FROM pg_publication_tables p \
                JOIN pg_namespace n ON n.nspname = p.schemaname JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = p.tablename \
                WHERE p.pubname = $1)"
            .to_owned();
    }
    let (of_schemas, listed) = if version >= 150_000 {
        (
            "SELECT t.oid FROM pg_publication_namespace s JOIN p ON s.pnpubid = p.oid JOIN publishable t ON t.relnamespace = s.pnnspid",
            // Of a table that comes with all others, or with its schema, all columns are shown.
            "(SELECT r.prattrs::int2[] FROM pg_publication_rel r WHERE r.prpubid = p.oid AND r.prrelid = t.oid AND NOT p.puballtables \
             AND NOT EXISTS (SELECT FROM pg_publication_namespace s WHERE s.pnpubid = p.oid AND s.pnnspid = t.relnamespace))",
        )
    } else {
        ("SELECT NULL::oid WHERE false", "NULL::int2[]")
    };
    // Stored generated columns are published since 18, where that is asked for. 16384 is the first object that is not the server's own.
    format!(
        "WITH RECURSIVE p AS (SELECT oid, puballtables, pubviaroot, coalesce(to_jsonb(q)->>'pubgencols' = 's', false) AS generated \
             FROM pg_publication q WHERE pubname = $1), \
         publishable AS (SELECT oid, relkind, relnamespace FROM pg_class WHERE relkind IN ('r', 'p') AND relpersistence = 'p' AND oid >= 16384), \
         named(oid) AS (SELECT prrelid FROM pg_publication_rel r JOIN p ON r.prpubid = p.oid \
             UNION {of_schemas} UNION SELECT t.oid FROM publishable t JOIN p ON p.puballtables), \
         parts(oid) AS (SELECT inhrelid FROM pg_inherits i JOIN named ON i.inhparent = named.oid JOIN pg_class c ON c.oid = inhrelid \
                 WHERE c.relispartition \
             UNION SELECT inhrelid FROM pg_inherits i JOIN parts ON i.inhparent = parts.oid), \
         published(oid, columns) AS (SELECT t.oid, ARRAY(SELECT a.attname::text FROM pg_attribute a \
                 WHERE a.attrelid = t.oid AND a.attnum > 0 AND NOT a.attisdropped \
                 AND CASE WHEN listed IS NULL THEN a.attgenerated = '' OR (a.attgenerated = 's' AND p.generated) ELSE a.attnum = ANY (listed) END) \
             FROM publishable t CROSS JOIN p CROSS JOIN LATERAL (SELECT {listed} AS listed) l \
             WHERE CASE WHEN p.pubviaroot THEN t.oid IN (SELECT oid FROM named) AND t.oid NOT IN (SELECT oid FROM parts) \
                 ELSE t.relkind = 'r' AND t.oid IN (SELECT oid FROM named UNION ALL SELECT oid FROM parts) END)"
    )
}

/// The same of the tables `$2`, whether the publication `$1` has them or not, or is there at all: what it shows of a table that is put into it
/// whole.
pub const UNPUBLISHED_SQL: &str = "WITH published(oid, columns) AS (SELECT t.oid, ARRAY(SELECT a.attname::text FROM pg_attribute a \
         WHERE a.attrelid = t.oid AND a.attnum > 0 AND NOT a.attisdropped AND (a.attgenerated = '' OR a.attgenerated = 's' \
         AND EXISTS (SELECT FROM pg_publication q WHERE q.pubname = $1 AND to_jsonb(q)->>'pubgencols' = 's'))) \
     FROM pg_class t WHERE t.oid = ANY ($2::oid[]))";

/// An expression for the object identifiers by which the table `c` is in the publication `$1`: another one since it was put back, or the
/// publication was made anew.
pub fn entries_sql(version: u32) -> String {
    let of_schemas = if version >= 150_000 {
        "UNION SELECT s.oid FROM pg_publication_namespace s JOIN pg_publication q ON s.pnpubid = q.oid JOIN pg_class t ON t.relnamespace = s.pnnspid \
         WHERE q.pubname = $1 AND (t.oid = c.oid OR t.oid IN (SELECT pg_partition_ancestors(c.oid)))"
    } else {
        ""
    };
    format!(
        "ARRAY(SELECT r.oid FROM pg_publication_rel r JOIN pg_publication q ON r.prpubid = q.oid \
             WHERE q.pubname = $1 AND (r.prrelid = c.oid OR r.prrelid IN (SELECT pg_partition_ancestors(c.oid))) {of_schemas} \
         UNION SELECT q.oid FROM pg_publication q WHERE q.pubname = $1 AND q.puballtables ORDER BY 1)"
    )
}

/// What tells a table, as a publication has it, from another one that had its name, and from itself before it was out of the publication.
pub fn relation(table: u32, entries: &[u32]) -> u64 {
    let numbers: Vec<u8> = [table].iter().chain(entries).flat_map(|number| number.to_be_bytes()).collect();
    // As the log keeps it: a positive number.
    (xxh3_64(&numbers) >> 2).max(1)
}

/// An expression for the kinds of changes that the publication `$1` leaves out.
pub const UNTOLD_SQL: &str = "ARRAY(SELECT o.name FROM pg_publication q CROSS JOIN LATERAL (VALUES ('insert', q.pubinsert), \
     ('update', q.pubupdate), ('delete', q.pubdelete), ('truncate', q.pubtruncate)) o(name, told) WHERE q.pubname = $1 AND NOT o.told ORDER BY 1)";

/// What a publication shows of a table: whether it is still the one that it was, with all that a flow was opened with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    pub relation: u64,
    pub columns: Vec<Column>,
    /// The kinds of changes that are not told.
    pub untold: Vec<String>,
}

/// The publication's tables by schema and name: what is cheap to ask now and then.
pub async fn published(control: &Control, publication: &str) -> Result<BTreeMap<(String, String), Shown>> {
    let version = server_version(control).await?;
    let sql = format!(
        "{} SELECT n.nspname::text, c.relname::text, c.oid, {}, {UNTOLD_SQL}, a.names, a.numbers, a.types, a.modifiers, a.defaults \
         FROM published p JOIN pg_class c ON c.oid = p.oid JOIN pg_namespace n ON n.oid = c.relnamespace \
         CROSS JOIN LATERAL (SELECT coalesce(array_agg(attname::text ORDER BY attnum), '{{}}') AS names, \
             coalesce(array_agg(attnum ORDER BY attnum), '{{}}') AS numbers, coalesce(array_agg(atttypid ORDER BY attnum), '{{}}') AS types, \
             coalesce(array_agg(atttypmod ORDER BY attnum), '{{}}') AS modifiers, coalesce(array_agg({HAS_DEFAULT_SQL} ORDER BY attnum), '{{}}') AS defaults \
             FROM pg_attribute WHERE attrelid = c.oid AND attname = ANY (p.columns)) a",
        published_sql(version),
        entries_sql(version)
    );
    let rows = control.query(&sql, &[&publication]).await?;
    let tables = rows.iter().map(|row| {
        let (names, numbers, types): (Vec<String>, Vec<i16>, Vec<u32>) = (row.get(5), row.get(6), row.get(7));
        let (modifiers, defaults): (Vec<i32>, Vec<bool>) = (row.get(8), row.get(9));
        let columns = names.into_iter().zip(numbers).zip(types).zip(modifiers).zip(defaults);
        let shown = Shown {
            relation: relation(row.get(2), &row.get::<_, Vec<u32>>(3)),
            columns: columns
                .map(|((((name, number), type_oid), type_modifier), has_default)| Column {
                    name,
                    number,
                    type_oid,
                    type_modifier,
                    has_default,
                })
                .collect(),
            untold: row.get(4),
        };
        ((row.get(0), row.get(1)), shown)
    });
    Ok(tables.collect())
}

/// The publication's condition on the rows of a table, as SQL. The server waits with its answer for whoever has locked the table.
pub async fn row_filter(control: &Control, publication: &str, table: u32) -> Result<Option<String>> {
    if server_version(control).await? < 150_000 {
        return Ok(None);
    }
    // The conditions of a publication do not hold for a table that comes with its schema too.
    let sql = "SELECT pg_get_expr(r.prqual, r.prrelid) FROM pg_publication_rel r JOIN pg_publication p ON r.prpubid = p.oid \
               WHERE p.pubname = $1 AND r.prrelid = $2 AND NOT EXISTS (SELECT FROM pg_publication_namespace s JOIN pg_class c \
               ON c.relnamespace = s.pnnspid WHERE s.pnpubid = p.oid AND c.oid = r.prrelid)";
    let rows = control.query(sql, &[&publication, &table]).await?;
    Ok(rows.first().and_then(|row| row.get(0)))
}

pub async fn exists(control: &Control, publication: &str) -> Result<bool> {
    Ok(kind(control, publication).await?.is_some())
}

/// What a publication is of.
#[derive(Clone, Copy, Debug)]
pub struct Kind {
    pub all_tables: bool,
    /// It tells updates or deletes.
    pub changes: bool,
}

/// None where it is not there.
pub async fn kind(control: &Control, publication: &str) -> Result<Option<Kind>> {
    let sql = "SELECT puballtables, pubupdate OR pubdelete FROM pg_publication WHERE pubname = $1";
    let found = control.query(sql, &[&publication]).await?;
    Ok(found.first().map(|row| Kind {
        all_tables: row.get(0),
        changes: row.get(1),
    }))
}

/// The tables that the publication names, or whose schema it names: also those that it shows in parts only.
pub async fn named(control: &Control, publication: &str) -> Result<BTreeSet<(String, String)>> {
    let of_schemas = if server_version(control).await? >= 150_000 {
        "UNION SELECT t.oid FROM pg_class t JOIN pg_publication_namespace s ON s.pnnspid = t.relnamespace JOIN pg_publication p ON p.oid = s.pnpubid \
         WHERE p.pubname = $1"
    } else {
        ""
    };
    let sql = format!(
        "SELECT n.nspname::text, c.relname::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid IN ( \
             SELECT r.prrelid FROM pg_publication_rel r JOIN pg_publication p ON p.oid = r.prpubid WHERE p.pubname = $1 {of_schemas})"
    );
    let rows = control.query(&sql, &[&publication]).await?;
    Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
}

//! What the server has: the tables of the publication, their columns, and what tells their rows apart.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::connection::Control;
use super::publication::{Shown, UNPUBLISHED_SQL, UNTOLD_SQL, entries_sql, published_sql, relation};
use super::rewriting::keeps_values;
use super::types::{MONEY_DIGITS_SQL, TYPES_SQL, TypeRow, Types};
use crate::error::{Error, Result};
use crate::position::Lsn;
use crate::table::full_name;

/// What tells the rows of a table apart when they change, as `pg_class.relreplident` has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Identity {
    /// The primary key, if there is one.
    Default,
    /// Nothing: only inserts are told.
    Nothing,
    /// All columns.
    Full,
    /// The columns of a unique index.
    Index,
}

/// Of a row of pg_attribute: `Column::has_default`.
pub(super) const HAS_DEFAULT_SQL: &str = "atthasdef OR atthasmissing OR attidentity <> ''";

/// A column of a table, as the publication shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    pub name: String,
    /// `pg_attribute.attnum`, which tells it from another column that had its name.
    pub number: i16,
    pub type_oid: u32,
    pub type_modifier: i32,
    /// Rows get a value that nobody has given: a default, an identity, an expression.
    pub has_default: bool,
}

impl Column {
    pub fn origin(&self) -> Origin {
        Origin::Typed(self.number, self.type_oid, self.type_modifier)
    }
}

/// The column of the database that a table has values of, and what these were.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(untagged)]
pub enum Origin {
    /// Its number, and its type then.
    Typed(i16, u32, i32),
    /// As older programs have kept it.
    Number(i16),
}

impl Origin {
    pub fn number(self) -> i16 {
        match self {
            Origin::Typed(number, ..) | Origin::Number(number) => number,
        }
    }

    /// Whether this is the column, and it still has the values that it had.
    fn is_still(self, now: &Column) -> bool {
        let keeps = match self {
            Origin::Typed(_, oid, modifier) => keeps_values((oid, modifier), (now.type_oid, now.type_modifier)),
            Origin::Number(_) => true,
        };
        keeps && self.number() == now.number
    }
}

/// A table of the publication.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PgTable {
    pub oid: u32,
    /// What tells it from another one that had its name (`publication::relation`).
    pub relation: u64,
    pub schema: String,
    pub name: String,
    /// Those that the publication shows, in the table's order.
    pub columns: Vec<Column>,
    pub identity: Identity,
    /// Columns of the primary key, in its order.
    pub primary_key: Vec<String>,
    /// Columns of the index of `Identity::Index`.
    pub identity_index: Vec<String>,
    /// What keeps its rows apart, in no order.
    pub unique: Vec<Unique>,
    /// The kinds of its changes that the publication does not tell, as SQL names them.
    pub untold: Vec<String>,
}

/// A unique index of whole columns, on all rows.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Unique {
    pub columns: Vec<String>,
    /// It holds after each statement. Others are of deferrable constraints, which may hold no earlier than when the transaction ends.
    pub immediate: bool,
}

/// A table that holds rows: one that was asked for, or a partition of it, whose columns may stand in another order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    pub oid: u32,
    pub schema: String,
    pub name: String,
    /// Bytes of its main fork: what a copy reads.
    pub bytes: u64,
    /// With the values that are kept beside it (TOAST).
    pub bytes_in_all: u64,
    /// Whether the role may read all of it, also where its rows lie; or some columns only.
    pub is_whole: bool,
}

impl PgTable {
    /// As people write it.
    pub fn full_name(&self) -> String {
        full_name(&self.schema, &self.name)
    }

    pub fn shown(&self) -> Shown {
        Shown {
            relation: self.relation,
            columns: self.columns.clone(),
            untold: self.untold.clone(),
        }
    }

    /// Where the values of each column are from, by its name.
    pub fn origins(&self) -> BTreeMap<String, Origin> {
        self.columns.iter().map(|column| (column.name.clone(), column.origin())).collect()
    }

    /// The columns that updates and deletes tell of the row that was there; none where they tell nothing, or everything.
    pub fn key(&self) -> &[String] {
        match self.identity {
            Identity::Default | Identity::Full => &self.primary_key,
            Identity::Index => &self.identity_index,
            Identity::Nothing => &[],
        }
    }

    /// Whether updates and deletes tell the values of these columns of the row that was there.
    pub fn tells(&self, columns: &[String]) -> bool {
        match self.identity {
            Identity::Full => true,
            Identity::Default | Identity::Index => columns.iter().all(|column| self.key().contains(column)),
            Identity::Nothing => false,
        }
    }

    /// Whether all that keeps the values of these columns apart is deferrable. Where nothing does, whoever chose them as the key knows why.
    pub fn is_deferrable(&self, key: &[String]) -> bool {
        let within = |unique: &&Unique| unique.columns.iter().all(|column| key.contains(column));
        let mut keeping = self.unique.iter().filter(within).peekable();
        keeping.peek().is_some() && keeping.all(|unique| !unique.immediate)
    }
}

/// The columns of a table that may have values in old rows which no change tells: a default that came with a column, the values of one that
/// was renamed, or that the publication has shown from now on, or of another one of the same name, or what another type has made of them.
/// `known`: the columns that the table had, and where their values are from, as far as that is known.
pub fn untold_values<'c>(known: &BTreeMap<&str, Option<Origin>>, now: &'c [Column]) -> Vec<&'c str> {
    let is_new = |column: &Column| !known.contains_key(column.name.as_str());
    let last_known = now.iter().rposition(|column| !is_new(column));
    let gone = known.iter().filter(|(name, _)| now.iter().all(|column| column.name != **name));
    let gone: Vec<Option<i16>> = gone.map(|(_, origin)| origin.map(Origin::number)).collect();
    let untold = now
        .iter()
        .enumerate()
        .filter(|(place, column)| match known.get(column.name.as_str()) {
            Some(origin) => origin.is_some_and(|origin| !origin.is_still(column)),
            None => {
                let is_renamed = gone.iter().any(|number| number.is_none_or(|number| number == column.number));
                column.has_default || is_renamed || last_known.is_some_and(|last| *place < last)
            }
        });
    untold.map(|(_, column)| column.name.as_str()).collect()
}

/// All tables of a publication, by schema and name.
pub async fn tables(control: &Control, publication: &str) -> Result<Vec<PgTable>> {
    tables_of(control, publication, None).await
}

/// Those tables of a publication that are `only` these.
pub async fn tables_of(control: &Control, publication: &str, only: Option<&[u32]>) -> Result<Vec<PgTable>> {
    let version = server_version(control).await?;
    described(control, &published_sql(version), version, publication, only).await
}

/// These tables, by schema and name, as the publication has them once they are put into it, with all columns that it does not leave out of any
/// table. It need not be there yet.
pub async fn unpublished(control: &Control, publication: &str, tables: &[(String, String)]) -> Result<Vec<PgTable>> {
    let (schemas, names): (Vec<&str>, Vec<&str>) = tables.iter().map(|(schema, name)| (schema.as_str(), name.as_str())).unzip();
    let sql = "SELECT c.oid FROM unnest($1::text[], $2::text[]) w(schema, name) \
               JOIN pg_namespace n ON n.nspname = w.schema JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = w.name";
    let rows = control.query(sql, &[&schemas, &names]).await?;
    let oids: Vec<u32> = rows.iter().map(|row| row.get(0)).collect();
    let version = server_version(control).await?;
    described(control, UNPUBLISHED_SQL, version, publication, Some(&oids)).await
}

/// `published`: a query's beginning that has, as `published(oid, columns)`, tables and the names of the columns that are shown of them.
async fn described(control: &Control, published: &str, version: u32, publication: &str, only: Option<&[u32]>) -> Result<Vec<PgTable>> {
    let mut tables = BTreeMap::new();
    let sql = format!(
        "{published} SELECT c.oid, n.nspname::text, c.relname::text, c.relreplident::text, p.columns, \
         ARRAY(SELECT a.attname::text FROM pg_index i, unnest(i.indkey) WITH ORDINALITY k(number, place) \
               JOIN pg_attribute a ON a.attnum = k.number \
               WHERE i.indrelid = c.oid AND a.attrelid = c.oid AND i.indisprimary AND k.place <= i.indnkeyatts ORDER BY k.place), \
         ARRAY(SELECT a.attname::text FROM pg_index i, unnest(i.indkey) WITH ORDINALITY k(number, place) \
               JOIN pg_attribute a ON a.attnum = k.number \
               WHERE i.indrelid = c.oid AND a.attrelid = c.oid AND i.indisreplident AND k.place <= i.indnkeyatts ORDER BY k.place), {}, \
         ARRAY(SELECT json_build_object('immediate', i.indimmediate, 'columns', \
                   ARRAY(SELECT a.attname::text FROM unnest(i.indkey) WITH ORDINALITY k(number, place) \
                         JOIN pg_attribute a ON a.attnum = k.number WHERE a.attrelid = c.oid AND k.place <= i.indnkeyatts))::text \
               FROM pg_index i WHERE i.indrelid = c.oid AND i.indisunique AND i.indisvalid AND i.indpred IS NULL AND i.indexprs IS NULL \
               ORDER BY i.indexrelid), {UNTOLD_SQL} \
         FROM published p JOIN pg_class c ON c.oid = p.oid JOIN pg_namespace n ON n.oid = c.relnamespace \
         WHERE $2::oid[] IS NULL OR c.oid = ANY ($2)",
        entries_sql(version)
    );
    let rows = control.query(&sql, &[&publication, &only]).await?;
    let oids: Vec<u32> = rows.iter().map(|row| row.get(0)).collect();
    let mut columns = columns(control, &oids).await?;
    for row in rows {
        let oid: u32 = row.get(0);
        let shown: Vec<String> = row.get(4);
        let mut columns = columns.remove(&oid).unwrap_or_default();
        columns.retain(|column| shown.contains(&column.name));
        // Between the two answers it was dropped, or a column of it was, or got another name.
        if columns.len() < shown.len() {
            let what = format!("{} was changed while the catalog was read", full_name(row.get(1), row.get(2)));
            return Err(Error::transient("table_changed", what));
        }
        let table = PgTable {
            oid,
            relation: relation(oid, &row.get::<_, Vec<u32>>(7)),
            schema: row.get(1),
            name: row.get(2),
            columns,
            identity: identity(row.get(3))?,
            primary_key: row.get(5),
            identity_index: row.get(6),
            unique: unique(&row.get::<_, Vec<String>>(8))?,
            untold: row.get(9),
        };
        tables.insert((table.schema.clone(), table.name.clone()), table);
    }
    Ok(tables.into_values().collect())
}

/// As the server counts: 150004 is 15.4.
pub async fn server_version(control: &Control) -> Result<u32> {
    let rows = control.query("SELECT current_setting('server_version_num')", &[]).await?;
    let text: Option<String> = rows.first().map(|row| row.get(0));
    text.and_then(|text| text.parse().ok())
        .ok_or_else(|| Error::bug("the server does not tell its version"))
}

/// All types of the server.
pub async fn types(control: &Control) -> Result<Types> {
    let byte = |letter: i8| letter.cast_unsigned();
    let rows = control.query(TYPES_SQL, &[]).await?;
    let types = rows.iter().map(|row| {
        let (names, types, modifiers): (Vec<String>, Vec<u32>, Vec<i32>) = (row.get(9), row.get(10), row.get(11));
        TypeRow {
            oid: row.get(0),
            name: row.get(1),
            typtype: byte(row.get(2)),
            category: byte(row.get(3)),
            element: row.get(4),
            delimiter: byte(row.get(5)),
            base: row.get(6),
            base_modifier: row.get(7),
            range_of: row.get(8),
            fields: names
                .into_iter()
                .zip(types)
                .zip(modifiers)
                .map(|((name, oid), modifier)| (name, oid, modifier))
                .collect(),
        }
    });
    let types = Types::new(types);
    let digits = control.query(MONEY_DIGITS_SQL, &[]).await?;
    Ok(types.with_money_digits(digits.first().map_or(2, |row| row.get(0))))
}

/// Tables of users that can be published, by schema and name: a partition comes with the table that it is a part of.
pub async fn candidates(control: &Control) -> Result<Vec<(String, String)>> {
    let sql = "SELECT n.nspname::text, c.relname::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
               WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition AND c.relpersistence = 'p' \
               AND n.nspname NOT LIKE 'pg\\_%' AND n.nspname <> 'information_schema' ORDER BY 1, 2";
    let rows = control.query(sql, &[]).await?;
    Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
}

/// Whether the server follows another one.
pub async fn is_standby(control: &Control) -> Result<bool> {
    let rows = control.query("SELECT pg_is_in_recovery()", &[]).await?;
    rows.first()
        .map(|row| row.get(0))
        .ok_or_else(|| Error::bug("the server does not tell whether it follows another one"))
}

/// Where the WAL ends now.
pub async fn end_of_wal(control: &Control) -> Result<u64> {
    let sql = "SELECT (CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_flush_lsn() END)::text";
    let rows = control.query(sql, &[]).await?;
    let text: Option<String> = rows.first().and_then(|row| row.get(0));
    text.as_deref()
        .and_then(Lsn::parse)
        .map(|lsn| lsn.0)
        .ok_or_else(|| Error::bug("the server does not tell where its WAL ends"))
}

/// The columns of tables, in the order that each has them: all in one answer, for a database has many.
async fn columns(control: &Control, oids: &[u32]) -> Result<BTreeMap<u32, Vec<Column>>> {
    let sql = format!(
        "SELECT attrelid, attname::text, attnum, atttypid, atttypmod, {HAS_DEFAULT_SQL} FROM pg_attribute \
         WHERE attrelid = ANY ($1) AND attnum > 0 AND NOT attisdropped ORDER BY attrelid, attnum"
    );
    let mut columns: BTreeMap<u32, Vec<Column>> = BTreeMap::new();
    for row in control.query(&sql, &[&oids]).await? {
        columns.entry(row.get(0)).or_default().push(Column {
            name: row.get(1),
            number: row.get(2),
            type_oid: row.get(3),
            type_modifier: row.get(4),
            has_default: row.get(5),
        });
    }
    Ok(columns)
}

/// The leaves of a partitioned table, or the table itself.
pub async fn parts(control: &Control, oid: u32) -> Result<Vec<Part>> {
    // Of one that is dropped meanwhile, the functions know nothing.
    let sql = "SELECT n.nspname::text, c.relname::text, coalesce(pg_relation_size(c.oid), 0), coalesce(pg_table_size(c.oid), 0), \
                   coalesce(has_table_privilege(c.oid, 'SELECT'), false), c.oid \
               FROM (SELECT $1::oid AS relid UNION SELECT relid::oid FROM pg_partition_tree($1::oid::regclass)) t \
               JOIN pg_class c ON c.oid = t.relid JOIN pg_namespace n ON n.oid = c.relnamespace \
               WHERE c.relkind <> 'p' ORDER BY 1, 2";
    let rows = control.query(sql, &[&oid]).await?;
    let parts = rows.iter().map(|row| Part {
        schema: row.get(0),
        name: row.get(1),
        bytes: bytes(row.get(2)),
        bytes_in_all: bytes(row.get(3)),
        is_whole: row.get(4),
        oid: row.get(5),
    });
    Ok(parts.collect())
}

/// What tables weigh, their partitions and the values kept beside them included, as VACUUM or ANALYZE last counted it: to ask for more would
/// wait for whoever has locked one of them.
pub async fn estimated_bytes(control: &Control, oids: &[u32]) -> Result<BTreeMap<u32, u64>> {
    let sql = "WITH RECURSIVE tree(root, relid) AS (SELECT o, o FROM unnest($1::oid[]) o \
                   UNION SELECT root, inhrelid FROM tree JOIN pg_inherits ON inhparent = relid) \
               SELECT root, sum(greatest(c.relpages, 0) + greatest(coalesce(t.relpages, 0), 0))::bigint * current_setting('block_size')::bigint \
               FROM tree JOIN pg_class c ON c.oid = relid LEFT JOIN pg_class t ON t.oid = c.reltoastrelid GROUP BY root";
    let rows = control.query(sql, &[&oids]).await?;
    Ok(rows.iter().map(|row| (row.get(0), bytes(row.get(1)))).collect())
}

fn bytes(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

fn unique(told: &[String]) -> Result<Vec<Unique>> {
    let each = told.iter().map(|text| serde_json::from_str(text));
    let all: Result<_, _> = each.collect();
    all.map_err(|e| Error::bug("what the catalog says about unique indexes cannot be read").because(e))
}

fn identity(letter: &str) -> Result<Identity> {
    Ok(match letter {
        "d" => Identity::Default,
        "n" => Identity::Nothing,
        "f" => Identity::Full,
        "i" => Identity::Index,
        other => {
            let what = format!("the server tells a replica identity `{other}`, which is not known: it is newer than alluvium");
            return Err(Error::config("postgres_version", what));
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_have_untold_values_where_nothing_told_them() {
        let column = |name: &str, number: i16| Column {
            name: name.to_owned(),
            number,
            type_oid: 25,
            type_modifier: -1,
            has_default: name.starts_with("default"),
        };
        let known = BTreeMap::from([("a", Some(Origin::Number(1))), ("b", Some(Origin::Typed(2, 25, -1))), ("old", None)]);
        let character = Column {
            type_oid: 1042,
            ..column("b", 2)
        };
        let old = column("old", 3);
        let cases: [(Vec<Column>, &[&str]); 9] = [
            (vec![column("a", 1), column("b", 2), old.clone()], &[]),
            (vec![column("a", 1), column("b", 2), old.clone(), column("new", 4)], &[]),
            (
                vec![column("a", 1), column("b", 2), old.clone(), column("default", 4)],
                &["default"],
            ),
            // Shown from now on.
            (vec![column("a", 1), column("new", 4), column("b", 2), old.clone()], &["new"]),
            // Renamed, or what has gone may have been.
            (vec![column("a", 1), old.clone(), column("c", 2)], &["c"]),
            (vec![column("a", 1), old.clone(), column("c", 4)], &[]),
            (vec![column("a", 1), column("b", 2), column("c", 4)], &["c"]),
            // Another one of the name, and one of another type.
            (vec![column("b", 2), old.clone(), column("a", 4)], &["a"]),
            (vec![column("a", 1), character, old], &["b"]),
        ];
        for (now, expected) in cases {
            assert_eq!(untold_values(&known, &now), expected, "{now:?}");
        }
    }
}

//! Partitions that come to a table or leave it while it is followed. With them come and go rows that no change tells: a look now and then sees
//! that, and says what helps. Nothing is copied by itself: who detaches a partition each month may want its rows to stay in the lake.
//!
//! A partition that was made as one has told all its rows. One that was a table before, in a transaction before, may have brought some; what was
//! made, filled and attached in one transaction cannot be told from what was made as a partition.

use std::collections::{BTreeMap, BTreeSet};

use tracing::warn;

use super::catalog::{PgTable, server_version};
use super::connection::{Control, qualified};
use super::feed::Feed;
use super::learned::Learned;
use crate::error::Result;
use crate::shell::word;
use crate::table::TableId;

/// Partitioned tables, each with what holds its rows and with itself, by their numbers.
pub type Leaves = BTreeSet<(u32, u32)>;

/// Of these tables. Unlike `pg_partition_tree`, it waits for nobody who has locked one.
const LEAVES_SQL: &str = "WITH RECURSIVE tree(root, part) AS (SELECT oid, oid FROM pg_class WHERE oid = ANY ($1) AND relkind = 'p' \
         UNION SELECT root, inhrelid FROM tree JOIN pg_inherits ON inhparent = part) \
     SELECT root, part FROM tree JOIN pg_class c ON c.oid = part WHERE relkind <> 'p' OR root = part";

/// Tables by number and name; and whether each was made by an earlier transaction than the one that has made it a part of another one. When it was
/// made, the row of its column `ctid` tells, which no ALTER writes anew.
const TABLES_SQL: &str = "SELECT c.oid, n.nspname::text, c.relname::text, EXISTS (SELECT FROM pg_inherits i \
         WHERE i.inhrelid IN (SELECT pg_partition_ancestors(c.oid)) AND age(i.xmin) < age(t.xmin)) \
     FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace JOIN pg_attribute t ON t.attrelid = c.oid AND t.attname = 'ctid' WHERE c.oid = ANY ($1)";

async fn leaves(control: &Control, tables: &[u32]) -> Result<Leaves> {
    let rows = control.query(LEAVES_SQL, &[&tables]).await?;
    Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
}

/// Keeps what the tables of a flow are made of: of those that hold a copy, as the flow before knew it.
pub async fn begin(control: &Control, learned: &Learned, feeds: &[Feed]) -> Result<()> {
    let tables: Vec<u32> = feeds.iter().map(|feed| feed.source.oid).collect();
    let (mut now, before) = (leaves(control, &tables).await?, learned.leaves());
    let holding = feeds.iter().filter(|feed| feed.held().is_some()).map(|feed| feed.source.oid);
    let known: BTreeSet<u32> = holding.filter(|&root| before.contains(&(root, root))).collect();
    now.retain(|(root, _)| !known.contains(root));
    now.extend(before.into_iter().filter(|(root, _)| known.contains(root)));
    learned.are_made_of(now);
    Ok(())
}

/// Until PostgreSQL 15, a session that has passed over changes of a table passes over them for good, also when it has become a partition of one
/// that is published.
const SEES_PARTITIONS: u32 = 150_000;

/// What becomes of the session after a look.
#[derive(Debug)]
pub enum Session {
    /// It tells all rows.
    GoesOn,
    /// It will not. Another one would neither, if it read what was there before these came: it has to begin behind that. So tables are to be
    /// marked behind what the WAL holds now, before the next look.
    IsBlind(Leaves),
    /// Another one reads on.
    Ends,
}

/// Tells which partitions have come with rows, or have left and are still there, since the last look. `behind`: what a look saw that found the
/// session blind, and behind which tables are marked.
pub async fn look(control: &Control, learned: &Learned, followed: &BTreeMap<TableId, PgTable>, behind: Option<&Leaves>) -> Result<Session> {
    let before = learned.leaves();
    let roots: Vec<u32> = before.iter().filter(|(root, part)| root == part).map(|(root, _)| *root).collect();
    // None is partitioned, as a rule.
    if roots.is_empty() {
        return Ok(Session::GoesOn);
    }
    let now = leaves(control, &roots).await?;
    let changed: Vec<u32> = now.symmetric_difference(&before).map(|(_, part)| *part).collect();
    if changed.is_empty() {
        return Ok(Session::GoesOn);
    }
    let (mut names, mut older) = (BTreeMap::new(), Vec::new());
    for row in control.query(TABLES_SQL, &[&changed]).await? {
        let oid: u32 = row.get(0);
        names.insert(oid, qualified(row.get(1), row.get(2)));
        if row.get(3) {
            older.push(oid);
        }
    }
    let is_blind = !older.is_empty() && server_version(control).await? < SEES_PARTITIONS;
    if is_blind && behind != Some(&now) {
        return Ok(Session::IsBlind(now));
    }
    let filled = filled(control, &older).await?;
    for (id, table) in followed {
        for (oid, partition) in &names {
            let link = (table.oid, *oid);
            let what = match (before.contains(&link), now.contains(&link)) {
                (true, false) => "a partition was detached, and no change tells that its rows are gone",
                (false, true) if is_blind && older.contains(oid) => {
                    "a table that was there became a partition, and no change tells the rows that it had, nor, before PostgreSQL 15, those that it got \
                     until now"
                }
                (false, true) if filled.contains(oid) => {
                    "a table that was there became a partition, and no change tells the rows that it had by then, if any"
                }
                _ => continue,
            };
            warn!(table = %id, partition, "{what}; if they matter, run: alluvium resnapshot {}, unless it only grows", word(id.as_str()));
        }
    }
    learned.are_made_of(now);
    Ok(if is_blind { Session::Ends } else { Session::GoesOn })
}

/// Those of the tables that have rows. One that somebody has locked may have some: the stream waits for this, and waits no longer.
async fn filled(control: &Control, tables: &[u32]) -> Result<Vec<u32>> {
    if tables.is_empty() {
        return Ok(Vec::new());
    }
    let numbers = tables.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
    let sql = format!("SET LOCAL lock_timeout = '1s'; SELECT t FROM unnest('{{{numbers}}}'::oid[]) t WHERE pg_relation_size(t) > 0");
    match control.rows(&sql).await {
        Ok(rows) => Ok(rows.into_iter().flatten().flatten().filter_map(|oid| oid.parse().ok()).collect()),
        Err(locked) if locked.code == "table_locked" => Ok(tables.to_vec()),
        Err(failure) => Err(failure),
    }
}

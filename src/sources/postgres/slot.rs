//! The replication slot: what the server tells of it, and whether the tables can go on from it.

use super::Feed;
use super::connection::Control;
use crate::error::{Error, Result};
use crate::position::Lsn;

/// A slot as `pg_replication_slots` has it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Slot {
    pub name: String,
    /// None of a physical slot.
    pub plugin: Option<String>,
    pub database: Option<String>,
    pub temporary: bool,
    pub active_pid: Option<i32>,
    /// reserved, extended, unreserved, lost.
    pub wal_status: Option<String>,
    /// Why it cannot be read any more, as far as the version tells.
    pub invalidated: Option<String>,
    /// Behind this the server sends changes: what it was told that is safe.
    pub confirmed: u64,
    /// Transactions are told when they are prepared, and not only when they are committed.
    pub two_phase: bool,
}

/// None where there is no slot of this name.
pub async fn find(control: &Control, name: &str) -> Result<Option<Slot>> {
    // As JSON, for not every version has every column.
    let sql = "SELECT s.plugin::text, s.database::text, s.temporary, s.active_pid, s.wal_status, \
               coalesce(j->>'invalidation_reason', CASE WHEN j->>'conflicting' = 'true' THEN 'conflict with recovery' END), \
               s.confirmed_flush_lsn::text, coalesce((j->>'two_phase')::bool, false) FROM pg_replication_slots s, to_jsonb(s) j WHERE s.slot_name = $1";
    let rows = control.query(sql, &[&name]).await?;
    Ok(rows.first().map(|row| Slot {
        name: name.to_owned(),
        plugin: row.get(0),
        database: row.get(1),
        temporary: row.get(2),
        active_pid: row.get(3),
        wal_status: row.get(4),
        invalidated: row.get(5),
        confirmed: row.get::<_, Option<&str>>(6).and_then(Lsn::parse).map_or(0, |lsn| lsn.0),
        two_phase: row.get(7),
    }))
}

/// What the slot was told that is safe: there the server begins at the earliest.
pub async fn confirmed(control: &Control, name: &str) -> Result<u64> {
    let slot = find(control, name).await?;
    let gone = || Error::transient("slot_missing", format!("the replication slot `{name}` is gone while it is read"));
    slot.map(|slot| slot.confirmed).ok_or_else(gone)
}

/// Whether the server tells transactions when they are prepared: where that was asked for, now or when the slot was made. pgoutput knows it
/// since PostgreSQL 15; in 14 a slot that was made for it does nothing of the kind.
pub fn two_phase(slot: &Slot, asked: bool, version: u32) -> Result<bool> {
    let knows = version >= 150_000;
    if asked && !knows {
        let what = format!(
            "PostgreSQL {} does not tell transactions when they are prepared: take `two_phase` out (what was prepared comes when it is committed), \
             or upgrade the server to 15 or newer",
            version / 10_000
        );
        return Err(Error::config("two_phase", what));
    }
    Ok(knows && (asked || slot.two_phase))
}

/// How far the slot is behind the server, in bytes of WAL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lag {
    /// Where the server's WAL ends.
    pub end: u64,
    /// What the slot was told that is safe.
    pub confirmed: u64,
    /// Kept for the slot.
    pub retained: u64,
    /// May still be written before the server gives the slot up; None where it has no such limit.
    pub safe: Option<u64>,
}

/// None where there is no slot of this name.
pub async fn lag(control: &Control, name: &str) -> Result<Option<Lag>> {
    let end = super::catalog::end_of_wal(control).await?;
    let sql = "SELECT confirmed_flush_lsn::text, restart_lsn::text, safe_wal_size FROM pg_replication_slots WHERE slot_name = $1";
    let rows = control.query(sql, &[&name]).await?;
    let Some(row) = rows.first() else { return Ok(None) };
    let lsn = |place: usize| {
        row.get::<_, Option<String>>(place)
            .as_deref()
            .and_then(Lsn::parse)
            .map_or(end, |lsn| lsn.0)
    };
    Ok(Some(Lag {
        end,
        confirmed: lsn(0),
        retained: end.saturating_sub(lsn(1)),
        safe: row.get::<_, Option<i64>>(2).map(|bytes| u64::try_from(bytes).unwrap_or(0)),
    }))
}

/// Makes the slot; where the server knows failover slots (PostgreSQL 17 and newer), one of these.
pub async fn create(control: &Control, name: &str, two_phase: bool) -> Result<()> {
    let version = super::catalog::server_version(control).await?;
    let sql = if version >= 170_000 {
        "SELECT pg_create_logical_replication_slot($1, 'pgoutput', false, $2, true)"
    } else {
        "SELECT pg_create_logical_replication_slot($1, 'pgoutput', false, $2)"
    };
    control.query(sql, &[&name, &two_phase]).await.map(drop)
}

/// Whether every table of this database finds behind the slot what it does not hold yet. `end`: where the server's WAL ends.
pub fn check(slot: &Slot, database: &str, feeds: &[Feed], end: u64) -> Result<()> {
    let name = &slot.name;
    let refuse = |code, what: String| Err(Error::data(code, what));
    let ids = || feeds.iter().map(|feed| feed.followed.id.as_str()).collect::<Vec<_>>().join(" ");
    let (plugin, of) = (slot.plugin.as_deref(), slot.database.as_deref());
    if plugin != Some("pgoutput") || of != Some(database) || slot.temporary {
        let what = format!(
            "the replication slot `{name}` is not one of pgoutput in the database `{database}` (it is of {} in `{}`): name another `slot`",
            plugin.unwrap_or("no plugin"),
            of.unwrap_or_default()
        );
        return Err(Error::config("wrong_slot", what));
    }
    if slot.wal_status.as_deref() == Some("lost") || slot.invalidated.is_some() {
        let what = format!(
            "the server gave the replication slot `{name}` up ({}), and with it changes that the tables do not hold: drop it (SELECT \
             pg_drop_replication_slot('{name}')), raise max_slot_wal_keep_size, make it anew and copy the tables again (alluvium resnapshot {})",
            slot.invalidated.as_deref().unwrap_or("wal_removed"),
            ids()
        );
        return refuse("slot_lost", what);
    }
    for feed in feeds {
        let Some(held) = feed.held() else { continue };
        let id = &feed.followed.id;
        if slot.confirmed > held {
            let what = format!(
                "the replication slot `{name}` begins at {}, and table `{id}` ends at {}: the changes between are gone (was the slot made anew, or \
                 read by another program?). Copy the table again (alluvium resnapshot {id})",
                Lsn(slot.confirmed),
                Lsn(held),
            );
            return refuse("slot_ahead", what);
        }
        if held > end {
            let what = format!(
                "table `{id}` holds changes up to {}, and the server's WAL ends at {}: it was restored to an earlier state. Copy the table again \
                 (alluvium resnapshot {id})",
                Lsn(held),
                Lsn(end),
            );
            return refuse("server_behind", what);
        }
    }
    Ok(())
}

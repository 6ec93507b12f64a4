//! The replication slot: what the server tells of it, and whether the tables can go on from it.

use std::time::Duration;

use tokio::time::sleep;
use tracing::info;

use super::again::{Held, copy_again};
use super::connection::{Control, literal};
use crate::error::{Error, Result};
use crate::position::Lsn;

/// How long a slot is waited for that another session makes, until it is asked for again.
const MAKING_PAUSE: Duration = Duration::from_millis(500);

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
    /// From here on WAL is kept for it. None where it was given up.
    pub restart: Option<u64>,
    /// Transactions are told when they are prepared, and not only when they are committed.
    pub two_phase: bool,
    /// See [`knows_failover`].
    pub knows_failover: bool,
}

/// None where there is no slot of this name.
pub async fn find(control: &Control, name: &str) -> Result<Option<Slot>> {
    // As JSON, for not every version has every column. PostgreSQL 16 says `conflicting` of every slot that it gave up, also where it removed the
    // WAL; only there it forgets from where on.
    let sql = "SELECT s.plugin::text, s.database::text, s.temporary, s.active_pid, s.wal_status, \
               coalesce(j->>'invalidation_reason', CASE WHEN j->>'conflicting' = 'true' AND s.restart_lsn IS NOT NULL THEN $2 END), \
               s.confirmed_flush_lsn::text, coalesce((j->>'two_phase')::bool, false), s.restart_lsn::text, \
               current_setting('server_version_num')::int, pg_is_in_recovery() FROM pg_replication_slots s, to_jsonb(s) j WHERE s.slot_name = $1";
    let rows = control.query(sql, &[&name, &CONFLICT]).await?;
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
        restart: row.get::<_, Option<&str>>(8).and_then(Lsn::parse).map(|lsn| lsn.0),
        knows_failover: knows_failover(row.get::<_, i32>(9).cast_unsigned(), row.get(10)),
    }))
}

/// The same. One that another session makes is waited for, as that one waits for transactions, however long: until it is made it begins nowhere,
/// and where making it fails it is gone.
pub async fn find_made(control: &Control, name: &str) -> Result<Option<Slot>> {
    let mut is_told = false;
    loop {
        let found = find(control, name).await?;
        let Some(pid) = found.as_ref().and_then(Slot::maker) else {
            return Ok(found);
        };
        if !std::mem::replace(&mut is_told, true) {
            info!(slot = name, pid, "another session makes the replication slot: it is waited for");
        }
        sleep(MAKING_PAUSE).await;
    }
}

/// Errors: another process reads it. Until that has ended, nothing is looked at that it may change meanwhile: what both would find in the catalog and
/// in the tables is of different moments.
pub fn must_be_free(slot: &Slot, database: &str) -> Result<()> {
    // Of one that is not ours, [`check`] says what it is; and one that is being made is waited for.
    let is_ours = anothers(slot, database).is_none() && slot.maker().is_none();
    match slot.active_pid.filter(|_| is_ours) {
        Some(pid) => {
            let what = format!(
                "the replication slot `{}` is active for PID {pid}: another process reads it. This one goes on when that has ended; or use a slot of \
                 your own",
                slot.name
            );
            Err(Error::transient("slot_active", what))
        }
        None => Ok(()),
    }
}

impl Slot {
    /// The process that is making it.
    fn maker(&self) -> Option<i32> {
        // A physical one is told nothing.
        self.active_pid.filter(|_| self.plugin.is_some() && self.confirmed == 0)
    }
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
    /// From here on WAL is kept for the slot. None where it was given up.
    pub restart: Option<u64>,
    /// May still be written before the server gives the slot up; None where it has no such limit.
    pub safe: Option<u64>,
}

impl Lag {
    /// Bytes of WAL that are kept for the slot.
    pub fn retained(&self) -> u64 {
        self.restart.map_or(0, |restart| self.end.saturating_sub(restart))
    }
}

/// None where there is no slot of this name.
pub async fn lag(control: &Control, name: &str) -> Result<Option<Lag>> {
    let end = super::catalog::end_of_wal(control).await?;
    let sql = "SELECT confirmed_flush_lsn::text, restart_lsn::text, safe_wal_size FROM pg_replication_slots WHERE slot_name = $1";
    let rows = control.query(sql, &[&name]).await?;
    let Some(row) = rows.first() else { return Ok(None) };
    let lsn = |place: usize| row.get::<_, Option<&str>>(place).and_then(Lsn::parse).map(|lsn| lsn.0);
    Ok(Some(Lag {
        end,
        confirmed: lsn(0).unwrap_or(end),
        restart: lsn(1),
        safe: row.get::<_, Option<i64>>(2).map(|bytes| u64::try_from(bytes).unwrap_or(0)),
    }))
}

/// Whether a slot may be one that standbys keep a copy of, so that it is there after a failover: since PostgreSQL 17, and not a standby's own.
pub fn knows_failover(version: u32, is_standby: bool) -> bool {
    version >= 170_000 && !is_standby
}

/// What makes the slot.
fn creation(name: &str, two_phase: bool, knows_failover: bool) -> String {
    let two_phase = if two_phase { ", twophase => true" } else { "" };
    let failover = if knows_failover { ", failover => true" } else { "" };
    format!(
        "SELECT pg_create_logical_replication_slot({}, 'pgoutput'{two_phase}{failover})",
        literal(name)
    )
}

/// Makes the slot; where there are failover slots, one of these. The server waits for all transactions that are under way, however long.
pub async fn create(control: &Control, name: &str, two_phase: bool, knows_failover: bool) -> Result<()> {
    let sql = creation(name, two_phase, knows_failover);
    control.batch_execute(&format!("SET LOCAL lock_timeout = 0; {sql}")).await
}

/// There is no such slot, and it may not be made: tables hold changes that were read through it (`held`: up to where each does), or it was not
/// asked for.
pub fn missing(name: &str, held: &[Held<'_>], knows_failover: bool) -> Error {
    if held.is_empty() {
        let sql = creation(name, false, knows_failover);
        return Error::config(
            "slot_missing",
            format!("there is no replication slot `{name}`. Run: {sql}; or set `create = true`"),
        );
    }
    let what = format!(
        "the replication slot `{name}` is gone, and with it the changes behind what the tables hold. {}",
        make_anew(name, knows_failover)
    );
    copy_again("slot_missing", what, held.iter().copied())
}

/// What helps where a slot is gone that tables were read through.
fn make_anew(name: &str, knows_failover: bool) -> String {
    let sql = creation(name, false, knows_failover);
    format!("Make it anew ({sql}; with `create = true` the next run does)")
}

/// What keeps the server from giving a slot up again for this reason: <https://www.postgresql.org/docs/current/view-pg-replication-slots.html>.
fn prevention(reason: &str) -> &'static str {
    match reason {
        "wal_removed" => "Raise max_slot_wal_keep_size, so that more may wait to be read",
        "idle_timeout" => "Raise idle_replication_slot_timeout, or let alluvium run more often",
        // These two on standbys only.
        "rows_removed" => "Set hot_standby_feedback = on and primary_slot_name, so that its primary keeps what the slot needs",
        "wal_level_insufficient" => "Set wal_level = 'logical' on its primary",
        CONFLICT => "Set hot_standby_feedback = on and primary_slot_name, and wal_level = 'logical' on its primary",
        _ => "Do what the reason asks for",
    }
}

/// What PostgreSQL 16 tells instead of a reason, where WAL was not what is gone.
const CONFLICT: &str = "conflict with recovery";

/// Why this slot is none that tables of this database can be read through.
fn anothers(slot: &Slot, database: &str) -> Option<String> {
    match (slot.plugin.as_deref(), slot.database.as_deref()) {
        (None, _) => Some("is physical: it belongs to a standby or a backup".to_owned()),
        (Some(plugin), _) if plugin != "pgoutput" => Some(format!("belongs to another program: its plugin is {plugin}, not pgoutput")),
        _ if slot.temporary => Some("is a temporary one of another session".to_owned()),
        (_, of) if of != Some(database) => Some(format!(
            "belongs to the database `{}`, and this is `{database}`",
            of.unwrap_or_default()
        )),
        _ => None,
    }
}

/// Whether tables of this database find behind the slot what they do not hold yet. `held`: up to where each holds everything; `end`: where the
/// server's WAL ends.
pub fn check(slot: &Slot, database: &str, held: &[Held<'_>], end: u64) -> Result<()> {
    let name = &slot.name;
    if let Some(another) = anothers(slot, database) {
        return Err(Error::config(
            "wrong_slot",
            format!("the replication slot `{name}` {another}. Name another `slot`"),
        ));
    }
    if slot.wal_status.as_deref() == Some("lost") || slot.invalidated.is_some() {
        let reason = slot.invalidated.as_deref().unwrap_or("wal_removed");
        let what = format!(
            "the server gave the replication slot `{name}` up ({reason}), and with it changes that the tables do not hold. {}, and drop it (SELECT \
             pg_drop_replication_slot({})). {}",
            prevention(reason),
            literal(name),
            make_anew(name, slot.knows_failover)
        );
        return Err(copy_again("slot_lost", what, held.iter().copied()));
    }
    let behind: Vec<Held<'_>> = held.iter().copied().filter(|held| slot.confirmed > held.at).collect();
    if !behind.is_empty() {
        let what = format!(
            "the replication slot `{name}` begins at {}, and these tables end before it: {}. The changes between are gone (was the slot made anew, \
             or read by another program?)",
            Lsn(slot.confirmed),
            with_positions(&behind),
        );
        return Err(copy_again("slot_ahead", what, behind));
    }
    let beyond: Vec<Held<'_>> = held.iter().copied().filter(|held| held.at > end).collect();
    if !beyond.is_empty() {
        let what = format!(
            "the server's WAL ends at {}, and these tables hold changes beyond it: {}. It was restored to an earlier state",
            Lsn(end),
            with_positions(&beyond),
        );
        return Err(copy_again("server_behind", what, beyond));
    }
    Ok(())
}

fn with_positions(tables: &[Held<'_>]) -> String {
    let each = tables.iter().map(|held| format!("`{}` at {}", held.table, Lsn(held.at)));
    each.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> Slot {
        Slot {
            name: "s".to_owned(),
            plugin: Some("pgoutput".to_owned()),
            database: Some("d".to_owned()),
            confirmed: 20,
            ..Slot::default()
        }
    }

    /// A slot, what tables hold, and a part of what is said of both.
    type Case<'c> = (Slot, &'c [(&'c str, u64)], &'c str);

    #[test]
    fn a_slot_that_is_made_survives_a_failover_where_it_can() {
        let sql = |version, is_standby| creation("s", false, knows_failover(version, is_standby));
        let plain = "SELECT pg_create_logical_replication_slot('s', 'pgoutput')";
        assert_eq!([sql(160_009, false), sql(170_000, true)], [plain, plain]);
        assert_eq!(sql(170_000, false), plain.replace(')', ", failover => true)"));
        assert_eq!(creation("s", true, false), plain.replace(')', ", twophase => true)"));
    }

    #[test]
    fn only_a_slot_that_could_be_ours_is_waited_for() {
        let active = Slot {
            active_pid: Some(7),
            ..good()
        };
        let temporary = Slot {
            temporary: true,
            ..active.clone()
        };
        let made = Slot {
            confirmed: 0,
            ..active.clone()
        };
        for (slot, database, is_free) in [
            (good(), "d", true),
            (active.clone(), "d", false),
            (active, "other", true),
            (temporary, "d", true),
            (made, "d", true),
        ] {
            assert_eq!(must_be_free(&slot, database).is_ok(), is_free, "{slot:?} of {database}");
        }
    }

    #[test]
    fn tables_go_on_from_a_slot_that_has_what_they_lack() {
        let text = |text: &str| Some(text.to_owned());
        let another = |change: &dyn Fn(&mut Slot)| {
            let mut slot = good();
            change(&mut slot);
            slot
        };
        let cases: [Case<'_>; 13] = [
            (good(), &[], ""),
            (good(), &[("a", 20), ("b", 30)], ""),
            (good(), &[("a", 19), ("b", 20), ("c", 5)], "`a` at 0/13, `c` at 0/5"),
            (good(), &[("a", 31)], "ends at 0/1E"),
            (another(&|slot| slot.plugin = None), &[], "physical"),
            (another(&|slot| slot.plugin = text("wal2json")), &[], "wal2json"),
            (another(&|slot| slot.temporary = true), &[], "temporary"),
            (another(&|slot| slot.database = text("other")), &[], "`other`"),
            (another(&|slot| slot.wal_status = text("lost")), &[("a", 30)], "resnapshot a"),
            (another(&|slot| slot.wal_status = text("lost")), &[], "Raise max_slot_wal_keep_size"),
            (
                another(&|slot| slot.invalidated = text("rows_removed")),
                &[],
                "hot_standby_feedback",
            ),
            (
                another(&|slot| slot.invalidated = text("idle_timeout")),
                &[],
                "idle_replication_slot_timeout",
            ),
            (another(&|slot| slot.invalidated = text("news")), &[], "up (news)"),
        ];
        for (slot, held, says) in cases {
            let held = held.iter().map(|&(table, at)| Held {
                table,
                at,
                only_grows: false,
            });
            let said = check(&slot, "d", &held.collect::<Vec<_>>(), 30).map_or_else(|error| error.to_string(), |()| String::new());
            assert_eq!(said.is_empty(), says.is_empty(), "{said}");
            assert!(said.contains(says), "{says}: {said}");
        }
    }
}

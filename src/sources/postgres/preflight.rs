//! What a server lacks before its tables can be followed, each with the exact statement or setting that helps. Pure: facts in, problems out;
//! nothing is changed on the server.

mod facts;
mod rights;

pub use facts::{Facts, Found, Publication, Room, Table, Wanted, denials, facts, gather};
pub use rights::{not_made, refusals};

use std::fmt;

use crate::error::Error;
use crate::sources::postgres::connection::{identifier, qualified};
use crate::sources::postgres::identity::Obstacle;
use crate::sources::postgres::slot::Slot;

/// What is wrong, and what to run or to set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    pub code: &'static str,
    pub what: String,
    pub fix: String,
}

impl Problem {
    /// As an error of the operator's.
    pub fn error(&self) -> Error {
        Error::config(self.code, self.to_string())
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}. {}", self.what, self.fix)
    }
}

/// All problems as one error, in the order in which they are best solved. None: all is well.
pub fn refusal(problems: &[Problem]) -> Option<Error> {
    let first = problems.first()?;
    let texts: Vec<String> = problems.iter().map(ToString::to_string).collect();
    Some(Error::config(first.code, texts.join("\n")))
}

/// The oldest version that still gets fixes, and that these tests run on.
const VERSION_MIN: u32 = 14;

/// What stands in the way, in the order in which it is best solved: the server, the role, the tables, the publication, the slot.
pub fn problems(facts: &Facts, wanted: &Wanted) -> Vec<Problem> {
    let mut found = Vec::new();
    found.extend(server(facts, wanted));
    if !facts.may_replicate {
        let role = identifier(&facts.role);
        found.push(problem(
            "postgres_denied",
            format!("The role {role} may not replicate"),
            format!("Run: ALTER ROLE {role} REPLICATION; (on Amazon RDS: GRANT rds_replication TO {role};)"),
        ));
    }
    // A publication takes no table that cannot be followed.
    for table in &facts.tables {
        found.extend(identity(table, facts, wanted));
        found.extend(self::table(table, facts, wanted));
    }
    found.extend(publication(facts, wanted));
    found.extend(facts.slot.as_ref().and_then(|slot| self::slot(slot, wanted)));
    found
}

fn problem(code: &'static str, what: impl Into<String>, fix: impl Into<String>) -> Problem {
    Problem {
        code,
        what: what.into(),
        fix: fix.into(),
    }
}

fn server(facts: &Facts, wanted: &Wanted) -> Vec<Problem> {
    let mut found = Vec::new();
    let major = facts.version / 10_000;
    if major < VERSION_MIN {
        let what = format!("The server is PostgreSQL {major}");
        found.push(problem("postgres_version", what, format!("Upgrade it to {VERSION_MIN} or newer")));
    }
    if wanted.two_phase && major < 15 {
        let what = format!("PostgreSQL {major} does not tell transactions when they are prepared");
        let fix = "Take `two_phase` out: then they come when they are committed; or upgrade the server to 15 or newer";
        found.push(problem("two_phase", what, fix));
    }
    if facts.standby && major < 16 {
        let what = format!("The server is a standby, and PostgreSQL {major} decodes only on the primary");
        found.push(problem("postgres_standby", what, "Connect to the primary"));
    }
    if facts.wal_level != "logical" {
        let what = format!("wal_level is `{}`", facts.wal_level);
        found.push(problem(
            "postgres_wal_level",
            what,
            "Run: ALTER SYSTEM SET wal_level = 'logical'; and restart the server",
        ));
    }
    let copies = u32::from(wanted.copies);
    let slots = copies + u32::from(facts.slot.is_none());
    found.extend(room("postgres_slots", "max_replication_slots", facts.slots, slots));
    found.extend(room("postgres_busy", "max_wal_senders", facts.senders, copies + 1));
    found
}

fn room(code: &'static str, setting: &str, room: Room, needed: u32) -> Option<Problem> {
    let lacking = (room.used + needed).checked_sub(room.most).filter(|lacking| *lacking > 0)?;
    let what = format!("{setting} is {}, {} are taken, and {needed} more are needed", room.most, room.used);
    let fix = format!(
        "Run: ALTER SYSTEM SET {setting} = {}; and restart the server, or free {lacking}",
        room.used + needed
    );
    Some(problem(code, what, fix))
}

fn publication(facts: &Facts, wanted: &Wanted) -> Option<Problem> {
    let name = identifier(&wanted.publication);
    let Some(publication) = &facts.publication else {
        if wanted.create {
            let fits = |table: &Table| table.found.as_ref().is_some_and(|found| fits(found, facts));
            let what = format!("{} has none of the tables that the configuration asks for", facts.database);
            return match facts.tables.iter().any(fits) {
                true => not_made(facts, &wanted.publication),
                false => Some(problem("not_published", what, "Correct the names, or create them")),
            };
        }
        let fit = facts.tables.iter().filter(|table| table.found.as_ref().is_some_and(is_table));
        let fit: Vec<String> = fit.map(|table| qualified(&table.schema, &table.name)).collect();
        let of = if fit.is_empty() {
            "ALL TABLES".to_owned()
        } else {
            format!("TABLE {}", fit.join(", "))
        };
        let fix = format!("Run: CREATE PUBLICATION {name} FOR {of} WITH (publish_via_partition_root = true);");
        return Some(problem(
            "publication_missing",
            format!("There is no publication {name} in {}", facts.database),
            fix,
        ));
    };
    if publication.left_out.is_empty() {
        return None;
    }
    let what = format!("The publication {name} leaves out {}", publication.left_out.join(", "));
    let fix = format!("Run: ALTER PUBLICATION {name} SET (publish = 'insert, update, delete, truncate');");
    Some(problem("publication_partial", what, fix))
}

/// What keeps a table from being followed.
fn table(table: &Table, facts: &Facts, wanted: &Wanted) -> Vec<Problem> {
    let name = qualified(&table.schema, &table.name);
    let Some(found) = &table.found else {
        let what = format!("There is no table {name} in {}", facts.database);
        return vec![problem("table_missing", what, "Create it, or name another")];
    };
    if !is_table(found) {
        let what = format!("{name} is no table but a {}", kind(found.kind));
        let fix = "Only tables have changes: name those that it stands on";
        return vec![problem("table_kind", what, fix)];
    }
    let mut lacks = Vec::new();
    if !found.logged {
        let what = format!("{name} is not written to the log");
        lacks.push(problem("table_unlogged", what, format!("Run: ALTER TABLE {name} SET LOGGED;")));
    }
    lacks.extend(denied(table, found, &facts.role));
    // As it is when the above was run.
    let logged = Found {
        logged: true,
        ..found.clone()
    };
    if !found.published {
        let is_put_in = wanted.create && fits(&logged, facts);
        lacks.extend(match is_put_in {
            true => rights::not_published(table, found, facts, &wanted.publication),
            false => unpublished(table, found, facts, wanted),
        });
        if is_put_in && !found.has_columns {
            let into = identifier(&wanted.publication);
            let what = format!("{name} has no columns that are published: a run puts it into the publication {into}, and stops it there");
            let fix = "Give it one before, for a Delta table needs a column; or leave it out of what is followed";
            lacks.push(problem("no_columns", what, fix));
        }
    }
    lacks
}

/// Why the role may not read a table, which has to be copied first.
fn denied(table: &Table, found: &Found, role: &str) -> Option<Problem> {
    let (name, role) = (qualified(&table.schema, &table.name), identifier(role));
    let (mut whys, mut runs) = (Vec::new(), Vec::new());
    if !found.usable_schema {
        runs.push(format!("GRANT USAGE ON SCHEMA {} TO {role};", identifier(&table.schema)));
    }
    if !found.unreadable.is_empty() {
        runs.push(format!("GRANT SELECT ON {} TO {role};", found.unreadable.join(", ")));
    }
    if !runs.is_empty() {
        whys.push(format!("{role} may not read {name}, which has to be copied first"));
    }
    if found.rows_hidden {
        whys.push(format!("Row security hides rows of {name} from {role}"));
        runs.push(format!("ALTER ROLE {role} BYPASSRLS;"));
    }
    (!runs.is_empty()).then(|| problem("postgres_denied", whys.join(". "), format!("Run: {}", runs.join(" "))))
}

/// Of a table that nobody puts into the publication: what does.
fn unpublished(table: &Table, found: &Found, facts: &Facts, wanted: &Wanted) -> Option<Problem> {
    let (name, into) = (qualified(&table.schema, &table.name), identifier(&wanted.publication));
    if let Some(obstacle) = obstacle(found, facts).filter(|_| wanted.create) {
        let what = format!(
            "{name} is not put into the publication {into}: it {}, and the server would refuse UPDATE and DELETE of it",
            obstacle.why()
        );
        return Some(problem("table_unpublished", what, found.unidentified.fix(&into)));
    }
    let Some(publication) = &facts.publication else {
        // What makes the publication names the table as well; `create` takes whole tables only.
        let what = format!("{name} is a partition, and `create` makes a publication of whole tables");
        let fix = "Name the partitioned table that it belongs to";
        return wanted.create.then(|| problem("table_unpublished", what, fix));
    };
    // Without this, changes come under the names of the partitions.
    if found.kind == 'p' && !publication.via_root {
        let what = format!("{name} is partitioned, and the publication {into} speaks of its partitions");
        let fix = format!("Run: ALTER PUBLICATION {into} SET (publish_via_partition_root = true);");
        return Some(problem("table_unpublished", what, fix));
    }
    let what = format!("{name} is not in the publication {into}");
    let fix = match publication.all_tables {
        // Its own: a partition of a table that is published through its root.
        true => "Name the partitioned table that it belongs to".to_owned(),
        false => format!("Run: ALTER PUBLICATION {into} ADD TABLE {name};"),
    };
    Some(problem("table_unpublished", what, fix))
}

/// Whether a run that may puts the table into the publication, so that its changes come under its name.
fn fits(found: &Found, facts: &Facts) -> bool {
    let takes = |publication: &Publication| !publication.all_tables && (publication.via_root || found.kind != 'p');
    let is_whole = is_table(found) && found.logged && !found.is_partition;
    !found.published && is_whole && facts.publication.as_ref().is_none_or(takes) && obstacle(found, facts).is_none()
}

/// What keeps a run from publishing a table, for the identity that it has, or has not.
fn obstacle(found: &Found, facts: &Facts) -> Option<Obstacle> {
    found.unidentified.obstacle.filter(|_| needs_identity(facts))
}

/// Of a table that is published without an identity, the server refuses UPDATE and DELETE to everybody.
fn needs_identity(facts: &Facts) -> bool {
    facts.publication.as_ref().is_none_or(Publication::has_changes)
}

/// A run gives an identity to what it publishes, or tells why not. A key that is deferrable is refused all the same.
fn identity(table: &Table, facts: &Facts, wanted: &Wanted) -> Option<Problem> {
    let found = table.found.as_ref().filter(|found| is_table(found) && found.logged)?;
    let is_given = wanted.create && fits(found, facts) && found.deferrable.is_none();
    let is_told = wanted.create && !found.published && obstacle(found, facts).is_some();
    if found.unidentified.tables.is_empty() || !needs_identity(facts) || is_given || is_told {
        return None;
    }
    let name = qualified(&table.schema, &table.name);
    let why = match found.unidentified.obstacle {
        Some(obstacle @ Obstacle::Generated) => obstacle.why(),
        Some(Obstacle::Choice) | None => "has nothing to identify a row by",
    };
    let what = match found.published {
        true => format!("{name} is published and {why}: the server refuses UPDATE and DELETE of it, to everybody"),
        false => format!("{name} {why}: as soon as it is published, the server refuses UPDATE and DELETE of it, to everybody"),
    };
    let fix = match &found.deferrable {
        Some(anew) => format!("Its primary key is deferrable, which is no identity. Run: ALTER TABLE {name} {anew};"),
        None => found.unidentified.fix(&identifier(&wanted.publication)),
    };
    Some(problem("table_identity", what, fix))
}

/// Whether it can be read at all depends on what the tables hold: see [`slot::check`](super::slot::check).
fn slot(slot: &Slot, wanted: &Wanted) -> Option<Problem> {
    let (name, pid) = (&wanted.slot, slot.active_pid?);
    let what = format!("The replication slot `{name}` is read by another process");
    let fix = format!("Stop that program, name another slot, or run: SELECT pg_terminate_backend({pid});");
    Some(problem("slot_active", what, fix))
}

fn is_table(found: &Found) -> bool {
    matches!(found.kind, 'r' | 'p')
}

fn kind(kind: char) -> &'static str {
    match kind {
        'v' => "view",
        'm' => "materialized view",
        'f' => "foreign table",
        _ => "relation of another kind",
    }
}

#[cfg(test)]
mod tests;

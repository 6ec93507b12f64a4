//! Whether what others did to a table leaves its marks true.
//!
//! RESTORE, REPLACE and a whole overwrite take rows back or replace them, but leave the marks: the rows between would be missing
//! for ever and nobody would know. Such a version stops the pipeline, with choices. A RESTORE of what the pipeline itself has left is no such
//! version, and undoes those before it. The operator's choice to keep the table as it is stands in the table itself: `alluvium.accept` names
//! the newest such version that is accepted.

use serde_json::Value;

use crate::error::{Error, Result};
use crate::log::Log;
use crate::log::actions::CommitInfo;
use crate::log::columns::{Widening, grew};
use crate::log::entries::Commit;
use crate::log::replay::{self, Said};
use crate::log::times;
use crate::table::{Table, Version};

/// The table property by which an operator accepts what others took back.
const ACCEPT_PROPERTY: &str = "alluvium.accept";
/// How far back the audit looks for the pipeline's own newest version. Others that commit more than this between two commits of a
/// pipeline would take days; the versions in its memory are not counted.
const COMMITS_READ_MAX: u64 = 1000;

impl Log {
    /// Looks at all versions since the pipeline's own newest one, from the newest on.
    pub(super) async fn audit(&mut self, table: &Table) -> Result<()> {
        let holds_marks = !self.checkpoint().is_empty();
        let mut oldest = self.snapshot.version + 1;
        let mut restored = None;
        for said in std::mem::take(&mut self.tail).into_iter().rev() {
            oldest = said.version;
            if self.judge(said, &mut restored, holds_marks, table)? == Verdict::Ours {
                return Ok(());
            }
        }
        for version in (oldest.saturating_sub(COMMITS_READ_MAX)..oldest).rev() {
            // Older versions are cleaned away in time: what is gone cannot be looked at.
            let Some(commit) = self.entries.commit(version).await? else { break };
            if self.judge(Said::of(&commit), &mut restored, holds_marks, table)? == Verdict::Ours {
                return Ok(());
            }
        }
        // What was restored cannot be looked at, so nobody knows what was taken back with it.
        restored.map_or(Ok(()), |restored| Err(taken_back(table, &restored.by)))
    }

    fn judge(&self, said: Said, restored: &mut Option<Restored>, holds_marks: bool, table: &Table) -> Result<Verdict> {
        let own = said.info.ours();
        let is_ours = own.is_some_and(|own| own.pipeline == *self.pipeline && !own.positions.is_empty());
        if is_ours && !holds_marks {
            let what = format!(
                "version {} of `{}` at {} was written by pipeline `{}`, but the table holds no mark of it: the marks expired or were removed; \
                 restore a version that has them, or name another location",
                said.version, table.id, table.location, self.pipeline,
            );
            return Err(Error::config("marks_missing", what));
        }
        if let Some(restored) = restored.as_ref().filter(|restored| restored.to < said.version) {
            // Whatever others did here was undone; the pipeline's own rows must not be.
            return if is_ours {
                Err(taken_back(table, &restored.by))
            } else {
                Ok(Verdict::Others)
            };
        }
        *restored = None;
        if is_ours {
            return Ok(Verdict::Ours);
        }
        if holds_marks && self.takes_back(&said) {
            let Some(to) = restored_version(&said.info).filter(|to| *to < said.version) else {
                return Err(taken_back(table, &said));
            };
            *restored = Some(Restored { by: said, to });
        }
        Ok(Verdict::Others)
    }

    /// Whether the version takes rows back, and no operator has accepted that.
    fn takes_back(&self, said: &Said) -> bool {
        let accepted: Option<Version> = self.snapshot.properties.get(ACCEPT_PROPERTY).and_then(|text| text.parse().ok());
        takes_back(&said.info) && accepted.is_none_or(|accepted| accepted < said.version)
    }

    /// Takes in the versions that others made since; the files that came and went. The table must still be the one that was checked.
    pub(super) async fn take_in(&mut self, commit: Commit) -> Result<super::snapshot::Moves> {
        let said = Said::of(&commit);
        let version = commit.version;
        if let Some(table) = &self.table {
            self.stop_if_changed(&commit)?;
            if !self.checkpoint().is_empty() && self.takes_back(&said) {
                return Err(taken_back(table, &said));
            }
        }
        let passed = commit.passed(&self.pipeline).into_iter();
        self.passed.extend(passed.map(|lane| (lane, version)));
        self.snapshot.timestamp_ms = times::after(self.snapshot.timestamp_ms, commit.made_ms());
        self.e_tag = commit.e_tag;
        let moves = self.snapshot.apply(commit.actions)?;
        self.snapshot.version = version;
        replay::may_read(&self.snapshot, &self.entries)?;
        if said.repeats_marks_of(&self.pipeline) {
            self.all_marks_at = Some(version);
        }
        if let Some(table) = &self.table {
            // Features and properties may have changed: those that matter are looked at again.
            super::check::table_fits(&self.snapshot, table)?;
        }
        Ok(moves)
    }

    /// Stops where others changed what the files and the plan of a commit rest on.
    fn stop_if_changed(&self, commit: &Commit) -> Result<()> {
        let Some(table) = &self.table else { return Ok(()) };
        let stop = |code, what: String| {
            Err(Error::config(
                code,
                format!("version {} of `{}` at {} {what}", commit.version, table.id, table.location),
            ))
        };
        for metadata in commit.actions.iter().filter_map(|action| action.meta_data.as_ref()) {
            if metadata.id != self.snapshot.table_id {
                let what = format!(
                    "replaced the table by another (its id is now {}): name another location, or start again to write to the new one",
                    metadata.id
                );
                return stop("table_replaced", what);
            }
            // Another instance of the pipeline may see a new column first, and an operator may add one.
            let columns = super::schema::from_delta(&metadata.schema_string)?;
            let grown = grew(&self.snapshot.schema, &columns, &Widening::of(table));
            if grown.is_none() || metadata.partition_columns != self.snapshot.partition_by {
                let what = "changed the columns: change the configuration to match them and start again, or restore the version before";
                return stop("schema_changed", what.to_owned());
            }
        }
        Ok(())
    }

    /// Reads the versions that others made since this log last looked: the files that became part of the table, and those that no longer
    /// are. After an error the log is dropped, as after one of a commit.
    pub async fn refresh(&mut self) -> Result<(Vec<std::sync::Arc<str>>, Vec<std::sync::Arc<str>>)> {
        let moves = self.catch_up().await?;
        Ok((moves.added, moves.removed))
    }
}

#[derive(PartialEq)]
enum Verdict {
    Ours,
    Others,
}

/// A RESTORE, and the version whose state it brought back: the table is as true to its marks as it was then, if they have not moved since.
struct Restored {
    by: Said,
    to: Version,
}

fn taken_back(table: &Table, said: &Said) -> Error {
    let operation = said.info.operation.as_deref().unwrap_or_default();
    let what = format!(
        "version {} of `{}` at {} was made by {operation}: its rows changed, but its marks did not. Choose: restore version {} and start again; \
         or keep the table as it is, with Spark's ALTER TABLE … SET TBLPROPERTIES ('{ACCEPT_PROPERTY}' = '{}'); or fill another location from the \
         start",
        said.version,
        table.id,
        table.location,
        said.version.saturating_sub(1),
        said.version,
    );
    Error::config("taken_back", what)
}

/// The version that a RESTORE names, as a number or as its text. One that names a time does not tell it.
fn restored_version(info: &CommitInfo) -> Option<Version> {
    let is_restore = info.operation.as_deref() == Some("RESTORE");
    let version = info.operation_parameters.as_ref().filter(|_| is_restore)?.get("version")?;
    version.as_u64().or_else(|| version.as_str()?.parse().ok())
}

/// Whether the operation is one that takes rows back or replaces all of them.
fn takes_back(info: &CommitInfo) -> bool {
    let Some(operation) = info.operation.as_deref() else { return false };
    let parameter = |name: &str| info.operation_parameters.as_ref().and_then(|all| all.get(name));
    let is = |name: &str, value: &str| parameter(name).is_some_and(|text| text.as_str() == Some(value));
    let overwrites = || match operation {
        "WRITE" => {
            let whole = parameter("predicate").is_none_or(|predicate| matches!(predicate, Value::Null) || predicate == "[]");
            whole && is("mode", "Overwrite")
        }
        // A query of Spark's that writes its whole answer each time.
        "STREAMING UPDATE" => is("outputMode", "Complete"),
        _ => false,
    };
    // FSCK takes out of the table what its store has lost.
    ["RESTORE", "CLONE", "FSCK"].contains(&operation) || operation.contains("REPLACE TABLE") || overwrites()
}

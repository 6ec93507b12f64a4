//! Whether what others did to a table leaves its marks true.
//!
//! RESTORE, REPLACE and a whole overwrite take rows back or replace them, but leave the marks: the rows between would be missing
//! for ever and nobody would know. Such a version stops the pipeline, with choices. The operator's choice to keep the table as it
//! is stands in the table itself: `alluvium.accept` names the newest such version that is accepted.

use serde_json::Value;

use crate::error::{Error, Result};
use crate::log::Log;
use crate::log::actions::CommitInfo;
use crate::log::columns::{Widening, grew};
use crate::log::entries::Commit;
use crate::log::replay::{self, Said};
use crate::log::snapshot::Snapshot;
use crate::log::times;
use crate::table::{Table, Version};

/// The table property by which an operator accepts what others took back.
const ACCEPT_PROPERTY: &str = "alluvium.accept";
/// How far back the audit looks for the pipeline's own newest version. Others that commit more than this between two commits of a
/// pipeline would take days; the versions in its memory are not counted.
const COMMITS_READ_MAX: u64 = 1000;

impl Log {
    /// Looks at all versions since the pipeline's own newest one.
    pub(super) async fn audit(&mut self, table: &Table) -> Result<()> {
        let holds_marks = !self.checkpoint().is_empty();
        let mut oldest = self.snapshot.version + 1;
        for said in std::mem::take(&mut self.tail).into_iter().rev() {
            oldest = said.version;
            if self.judge(&said, holds_marks, table)? == Verdict::Ours {
                return Ok(());
            }
        }
        for version in (oldest.saturating_sub(COMMITS_READ_MAX)..oldest).rev() {
            // Older versions are cleaned away in time: what is gone cannot be looked at.
            let Some(commit) = self.entries.commit(version).await? else {
                return Ok(());
            };
            if self.judge(&Said::of(&commit), holds_marks, table)? == Verdict::Ours {
                return Ok(());
            }
        }
        Ok(())
    }

    fn judge(&self, said: &Said, holds_marks: bool, table: &Table) -> Result<Verdict> {
        let ours = said
            .info
            .ours()
            .filter(|own| own.pipeline == *self.pipeline && !own.positions.is_empty());
        if ours.is_some() && !holds_marks {
            let what = format!(
                "version {} of `{}` at {} was written by pipeline `{}`, but the table holds no mark of it: the marks expired or were removed; \
                 restore a version that has them, or name another location",
                said.version, table.id, table.location, self.pipeline,
            );
            return Err(Error::config("marks_missing", what));
        }
        if ours.is_some() {
            return Ok(Verdict::Ours);
        }
        if holds_marks {
            stop_if_taken_back(&self.snapshot, said).map(|()| Verdict::Others)
        } else {
            Ok(Verdict::Others)
        }
    }

    /// Takes in the versions that others made since; the files that came and went. The table must still be the one that was checked.
    pub(super) async fn take_in(&mut self, commit: Commit) -> Result<super::snapshot::Moves> {
        let said = Said::of(&commit);
        let version = commit.version;
        if self.table.is_some() {
            self.stop_if_changed(&commit)?;
            if !self.checkpoint().is_empty() {
                stop_if_taken_back(&self.snapshot, &said)?;
            }
        }
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

fn stop_if_taken_back(snapshot: &Snapshot, said: &Said) -> Result<()> {
    let accepted: Option<Version> = snapshot.properties.get(ACCEPT_PROPERTY).and_then(|text| text.parse().ok());
    let Some(operation) = takes_back(&said.info).filter(|_| accepted.is_none_or(|accepted| accepted < said.version)) else {
        return Ok(());
    };
    let what = format!(
        "version {} of the table was made by {operation}: its rows changed, but its marks did not. Choose: restore the version before it and go on; \
         or keep the table as it is, with ALTER TABLE … SET TBLPROPERTIES ('{ACCEPT_PROPERTY}' = '{}'); or fill another location from the start",
        said.version, said.version,
    );
    Err(Error::config("taken_back", what))
}

/// The operation, if it is one that takes rows back or replaces all of them.
fn takes_back(info: &CommitInfo) -> Option<&str> {
    let operation = info.operation.as_deref()?;
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
    (["RESTORE", "CLONE", "FSCK"].contains(&operation) || operation.contains("REPLACE TABLE") || overwrites()).then_some(operation)
}

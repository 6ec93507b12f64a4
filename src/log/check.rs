//! Whether a table that is already there is what the configuration takes it for, and whether alluvium may write to it.

use arrow::datatypes::{DataType, FieldRef};

use crate::error::{Error, Result};
use crate::log::Log;
use crate::log::actions::Protocol;
use crate::log::columns::{Growth, Widening};
use crate::log::features::{self, DELETION_VECTORS, ENABLE_DELETION_VECTORS};
use crate::log::snapshot::Snapshot;
use crate::log::{properties, schema};
use crate::table::{Lanes, Merge, Mode, Table};

/// The key of an upsert table, written at its creation.
pub(crate) const KEY_PROPERTY: &str = "alluvium.key";

/// Keys of a column's metadata that ask a writer to compute or to check values.
const COLUMN_KEYS_REFUSED: [&str; 3] = ["delta.invariants", "delta.generationExpression", "delta.identity.start"];

impl Log {
    /// Checks that this is the table that the pipeline takes it for and that it may be written to. Commits need it.
    pub async fn check(&mut self, table: &Table) -> Result<()> {
        table_fits(&self.snapshot, table)?;
        self.audit(table).await?;
        self.table = Some(table.clone());
        Ok(())
    }
}

/// Everything that the state itself tells.
pub(crate) fn table_fits(snapshot: &Snapshot, table: &Table) -> Result<()> {
    protocol(&snapshot.protocol, table)?;
    properties::check(&snapshot.properties, table, "the table")?;
    columns(snapshot, table)?;
    mode(snapshot, table)
}

fn protocol(protocol: &Protocol, table: &Table) -> Result<()> {
    let refuse = |what: String| {
        let what = format!(
            "the table `{}` at {} {what}: drop the feature, or let alluvium write to a table of its own",
            table.id, table.location
        );
        Err(Error::config("unknown_feature", what))
    };
    match protocol.min_writer_version {
        ..=6 => Ok(()),
        7 => {
            let asked = protocol.writer_features.as_deref().unwrap_or_default();
            match asked.iter().find(|feature| !features::WRITTEN.contains(&feature.as_str())) {
                Some(feature) => refuse(format!("uses the writer feature `{feature}`, which alluvium does not write")),
                None => Ok(()),
            }
        }
        other => refuse(format!("asks for writer version {other}, which alluvium does not know")),
    }
}

/// Columns and partition columns, all differences in one answer. That either side has columns that the other has not is none: the
/// table gains them with the first rows that bring them, and is null where rows do not.
fn columns(snapshot: &Snapshot, table: &Table) -> Result<()> {
    let mut differences = Growth::between(&snapshot.schema, &table.schema, &Widening::of(table))
        .err()
        .unwrap_or_default();
    unfulfilled(snapshot.schema.fields(), "", &mut differences);
    let key = match &table.mode {
        Mode::Upsert { key, .. } => key.as_slice(),
        Mode::Append => &[],
    };
    for name in key.iter().filter(|name| snapshot.schema.fields().find(name).is_none()) {
        differences.push(format!("its rows have no key: column `{name}` is not in the table"));
    }
    if snapshot.partition_by != table.partition_by {
        differences.push(format!(
            "it is partitioned by {:?}, the configuration says {:?}",
            snapshot.partition_by, table.partition_by
        ));
    }
    if differences.is_empty() {
        return Ok(());
    }
    // What a database's table looks like is not configured, but for its partitions.
    let is_partitioned_so = snapshot.partition_by == table.partition_by;
    let code = if is_partitioned_so {
        "schema_mismatch"
    } else {
        "partition_mismatch"
    };
    let (from, next) = match is_partitioned_so && matches!(table.lanes, Lanes::Slot(_)) {
        true => (
            "what it is on the server",
            "change it back there (ALTER TABLE), or let a new table begin with a copy of it: name another `location`",
        ),
        false => ("the configuration", "change the configuration, or name another location"),
    };
    let what = format!(
        "the table `{}` at {} differs from {from}: {}; {next}",
        table.id,
        table.location,
        differences.join("; "),
    );
    Err(Error::config(code, what))
}

/// What columns, at any depth, ask of their writers.
fn unfulfilled(fields: &[FieldRef], path: &str, differences: &mut Vec<String>) {
    for field in fields {
        let path = schema::join(path, field.name());
        if let Some(key) = COLUMN_KEYS_REFUSED.iter().find(|key| field.metadata().contains_key(**key)) {
            differences.push(format!("column `{path}` has `{key}`, which alluvium does not fulfil"));
        }
        match field.data_type() {
            DataType::Struct(inner) => unfulfilled(inner, &path, differences),
            DataType::List(inner) | DataType::Map(inner, _) => unfulfilled(std::slice::from_ref(inner), &path, differences),
            _ => {}
        }
    }
}

/// Append or upsert, and by which key.
fn mode(snapshot: &Snapshot, table: &Table) -> Result<()> {
    let refuse = |what: String| {
        Err(Error::config(
            "mode_mismatch",
            format!("the table `{}` at {} {what}", table.id, table.location),
        ))
    };
    let key = snapshot.properties.get(KEY_PROPERTY);
    match (&table.mode, key) {
        (Mode::Append, Some(key)) => refuse(format!(
            "holds one row per `{key}`: set `key`, or name another location for all changes"
        )),
        (Mode::Append, None) => Ok(()),
        (Mode::Upsert { key: configured, .. }, Some(key)) if *key != configured.join(",") => refuse(format!(
            "holds one row per `{key}`, and is to hold one per `{}`: change the key back, or name another location",
            configured.join(",")
        )),
        (Mode::Upsert { .. }, _) if snapshot.only_grows() => {
            refuse("only grows (`delta.appendOnly`): leave `key` out, or name another location for the current rows".to_owned())
        }
        // A vector in a table without the feature: readers would not look for it, and show rows that are deleted.
        (Mode::Upsert { merge: Merge::Vectors, .. }, _)
            if !(snapshot.is_set(ENABLE_DELETION_VECTORS) && snapshot.protocol.lists(DELETION_VECTORS)) =>
        {
            refuse("has no deletion vectors: set `merge = \"rewrite\"`, or the table property `delta.enableDeletionVectors`".to_owned())
        }
        (Mode::Upsert { .. }, _) => Ok(()),
    }
}

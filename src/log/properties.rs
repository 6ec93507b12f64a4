//! What the properties of a table ask of its writers, and whether alluvium does it: the log's own, and those that a new table is to get.
//!
//! Of the properties that it does not know, a table may have any: others have set them, and Delta has a feature where one may not be passed
//! over.

use std::collections::BTreeMap;

use crate::error::{Error, Result};
use crate::log::features::{ENABLE_CHANGE_DATA_FEED, ENABLE_TYPE_WIDENING};
use crate::log::{indexed, retention};
use crate::table::{Mode, Table};

const CHECKPOINT_INTERVAL: &str = "delta.checkpointInterval";
const BOOLEAN: &[&str] = &["true", "false"];

/// Properties of which any value but this one asks a writer for something that alluvium does not do.
const REFUSED: [(&str, &str); 7] = [
    ("delta.columnMapping.mode", "none"),
    (ENABLE_CHANGE_DATA_FEED, "false"),
    ("delta.enableInCommitTimestamps", "false"),
    ("delta.enableRowTracking", "false"),
    ("delta.randomizeFilePrefixes", "false"),
    ("delta.checkpoint.writeStatsAsJson", "true"),
    // Readers of manifests would not see what is written without them.
    ("delta.compatibility.symlinkFormatManifest.enabled", "false"),
];
/// Beginnings of the names of such properties, whatever their value.
const PREFIXES_REFUSED: [&str; 8] = [
    "delta.catalogManaged",
    "delta.coordinatedCommits.",
    "delta.enableIceberg",
    "delta.universalFormat.",
    "delta.constraints.",
    "delta.feature.",
    "delta.minReaderVersion",
    "delta.minWriterVersion",
];
/// Properties that have one of some values.
const VALUES: [(&str, &[&str]); 6] = [
    ("delta.checkpoint.writeStatsAsStruct", BOOLEAN),
    ("delta.checkpointPolicy", &["classic", "v2"]),
    (ENABLE_CHANGE_DATA_FEED, BOOLEAN),
    ("delta.enableExpiredLogCleanup", BOOLEAN),
    (ENABLE_TYPE_WIDENING, BOOLEAN),
    ("delta.isolationLevel", &["Serializable", "WriteSerializable", "SnapshotIsolation"]),
];

/// `whose` says where the properties stand.
pub(super) fn check(properties: &BTreeMap<String, String>, table: &Table, whose: &str) -> Result<()> {
    for (name, value) in properties {
        if let Some(why) = refused(name, value, &table.mode) {
            let place = format!("the property `{name}` in {whose} of `{}` at {}", table.id, table.location);
            return Err(Error::config("bad_property", format!("{place}: {why}")));
        }
    }
    Ok(())
}

/// Why a table with such a property is not written to.
fn refused(name: &str, value: &str, mode: &Mode) -> Option<String> {
    let otherwise = REFUSED
        .iter()
        .any(|(of, allowed)| *of == name && !value.eq_ignore_ascii_case(allowed));
    // A feed of changes of a table that only grows is its added files: nothing to write.
    let harmless = name == ENABLE_CHANGE_DATA_FEED && *mode == Mode::Append;
    if (otherwise && !harmless) || PREFIXES_REFUSED.iter().any(|prefix| name.starts_with(prefix)) {
        return Some("alluvium does not write what it asks for; unset it, or use another table".to_owned());
    }
    let is = |valid: bool, like: &str| (!valid).then(|| format!("it is no {like}"));
    match name {
        "delta.setTransactionRetentionDuration" => {
            Some("marks would expire, and a pipeline that paused longer would write rows twice; unset it".to_owned())
        }
        retention::DELETED_FILES | retention::LOG => is(retention::parse(value).is_some(), "interval; write it like `interval 30 days`"),
        CHECKPOINT_INTERVAL => is(
            value.parse().is_ok_and(|versions: u64| versions > 0),
            "number of versions; write it like `100`",
        ),
        indexed::NUMBER => is(
            value.parse().is_ok_and(|columns: i64| columns >= -1),
            "number of columns; write it like `64`, or `-1` for all of them",
        ),
        indexed::NAMES => is(indexed::names(value).is_some(), "list of columns; write it like `id, address.city`"),
        _ => {
            let (_, allowed) = VALUES.iter().find(|(of, _)| *of == name)?;
            let is_one = allowed.iter().any(|one| one.eq_ignore_ascii_case(value));
            (!is_one).then(|| format!("it is none of {}", allowed.join(", ")))
        }
    }
}

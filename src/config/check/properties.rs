//! Delta's properties of a new table: those that alluvium obeys, or that are for others to obey, and no others. One that nobody obeys would be a
//! wish that nobody hears. Properties without Delta's prefix are the user's own.

use super::Check;
use crate::config::problem::suggestion;
use crate::config::{KeyPath, Table};

/// By their exact names, as all writers of Delta look for them. The log looks at their values.
const OBEYED: [&str; 14] = [
    "delta.checkpoint.writeStatsAsJson",
    "delta.checkpoint.writeStatsAsStruct",
    "delta.checkpointInterval",
    "delta.checkpointPolicy",
    "delta.dataSkippingNumIndexedCols",
    "delta.dataSkippingStatsColumns",
    "delta.deletedFileRetentionDuration",
    "delta.enableChangeDataFeed",
    // For those who clean logs up: alluvium does not.
    "delta.enableExpiredLogCleanup",
    "delta.enableInCommitTimestamps",
    "delta.enableRowTracking",
    // Alluvium's commits are as if one came after the other, which is the strictest of them.
    "delta.isolationLevel",
    "delta.logRetentionDuration",
    "delta.randomizeFilePrefixes",
];

/// Properties that alluvium sets itself, that would take from its tables what it promises, or that have a name of their own here.
const REFUSED: [(&str, &str); 9] = [
    ("alluvium.key", "alluvium sets it: it follows from `key`"),
    ("delta.appendOnly", "alluvium sets it: on tables without a key, and never with one"),
    ("delta.enableDeletionVectors", "it follows from `key` and `merge`"),
    (
        "delta.setTransactionRetentionDuration",
        "it would let the marks expire, and the table would be read into twice",
    ),
    (
        "delta.enableTypeWidening",
        "set `type_widening = true`, which sets it once a column needs it",
    ),
    ("delta.columnMapping.mode", "alluvium does not write tables with column mapping"),
    ("delta.targetFileSize", "set `target_file_size`"),
    ("delta.autoOptimize", "alluvium joins small files by itself: see `auto_compact`"),
    (
        "delta.autoOptimize.autoCompact",
        "alluvium joins small files by itself: see `auto_compact`",
    ),
];

impl Check<'_> {
    pub(super) fn properties(&mut self, at: &KeyPath, table: &Table) {
        for name in table.properties.keys() {
            if let Some(why) = refused(name) {
                self.wrong(at.key(name), why);
            }
        }
    }
}

/// Why a property cannot be set.
fn refused(name: &str) -> Option<String> {
    let known = REFUSED.iter().find(|(refused, _)| refused.eq_ignore_ascii_case(name));
    if let Some((_, why)) = known {
        return Some((*why).to_owned());
    }
    let is_deltas = name.get(..6).is_some_and(|start| start.eq_ignore_ascii_case("delta."));
    let what = || format!("not a property that alluvium obeys{}", suggestion(name, OBEYED));
    (is_deltas && !OBEYED.contains(&name)).then(what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_properties_that_somebody_obeys_are_taken() {
        for name in [
            "delta.logRetentionDuration",
            "delta.dataSkippingStatsColumns",
            "owner",
            "team.delta.x",
            "δ",
        ] {
            assert_eq!(refused(name), None, "{name}");
        }
        for (name, why) in [
            ("delta.dataSkippingStatColumns", "did you mean `delta.dataSkippingStatsColumns`?"),
            (
                "delta.DataSkippingNumIndexedCols",
                "did you mean `delta.dataSkippingNumIndexedCols`?",
            ),
            ("Delta.logRetentionDuration", "did you mean `delta.logRetentionDuration`?"),
            ("delta.parquet.compression.codec", "not a property that alluvium obeys"),
            (
                "delta.compatibility.symlinkFormatManifest.enabled",
                "not a property that alluvium obeys",
            ),
            ("delta.appendonly", "alluvium sets it"),
            ("delta.targetFileSize", "`target_file_size`"),
            ("delta.autoOptimize.autoCompact", "`auto_compact`"),
        ] {
            let said = refused(name).unwrap();
            assert!(said.contains(why), "{name}: {said}");
        }
    }
}

//! A look into a table: some columns of its live rows, out of those files alone that may have what is looked for.

use std::collections::BTreeMap;

use arrow::array::RecordBatch;
use serde::Deserialize;
use serde_json::Value;

use super::files::Object;
use super::files::read::{Rows, columns};
use crate::error::Result;
use crate::log::Log;

/// Between which values the columns of a file lie, as its statistics tell; what they do not tell is possible.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Bounds {
    min_values: BTreeMap<String, Value>,
    max_values: BTreeMap<String, Value>,
}

impl Bounds {
    fn of(stats: Option<&str>) -> Self {
        // Any writer may have written them: those that cannot be read tell nothing.
        stats.and_then(|stats| serde_json::from_str(stats).ok()).unwrap_or_default()
    }

    /// Whether the column may have a value that is not below this one.
    pub fn may_reach(&self, column: &str, least: i64) -> bool {
        let most = self.max_values.get(column).and_then(Value::as_i64);
        most.is_none_or(|most| most >= least)
    }

    /// Whether the column may have this value.
    pub fn may_hold(&self, column: &str, value: &str) -> bool {
        let bound = |values: &BTreeMap<String, Value>| values.get(column).and_then(Value::as_str).map(str::to_owned);
        bound(&self.min_values).is_none_or(|low| *low <= *value) && bound(&self.max_values).is_none_or(|high| *value <= *high)
    }
}

/// Hands the live rows of these columns to `each`, out of the files whose bounds `may_hold` them.
pub async fn scan(
    log: &Log,
    names: &[&str],
    may_hold: impl Fn(&Bounds) -> bool,
    mut each: impl FnMut(&RecordBatch) -> Result<()>,
) -> Result<()> {
    let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
    let schema = columns(&log.snapshot().schema, &names);
    let files = log.snapshot().files.values();
    for file in files.filter(|file| may_hold(&Bounds::of(file.stats.as_deref()))) {
        let dead = file.dead(log.store().as_ref(), log.url().as_str()).await?;
        let object = Object::of(log.store(), file, log.snapshot().version)?;
        let mut rows = Rows::all(&object, &schema).await?;
        while let Some(live) = rows.next_alive(&dead).await? {
            each(&live)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_passed_over_only_where_its_statistics_say_so() {
        let stats = r#"{"numRecords":2,"minValues":{"position":3,"table":"b"},"maxValues":{"position":7,"table":"d"}}"#;
        let bounds = Bounds::of(Some(stats));
        for (least, may) in [(2, true), (7, true), (8, false)] {
            assert_eq!(bounds.may_reach("position", least), may, "{least}");
        }
        for (value, may) in [("a", false), ("b", true), ("c", true), ("d", true), ("da", false)] {
            assert_eq!(bounds.may_hold("table", value), may, "{value}");
        }
        for stats in [
            None,
            Some(""),
            Some("{}"),
            Some(r#"{"maxValues":{"position":"x"}}"#),
            Some(r#"{"maxValues":3}"#),
        ] {
            let bounds = Bounds::of(stats);
            assert!(bounds.may_reach("position", 8) && bounds.may_hold("table", "a"), "{stats:?}");
        }
    }
}

//! The Delta log as it lies on disk, read with nothing but a JSON parser: what a version added, and which marks it carries.
//!
//! The tests' own view of the log, so that a mistake in the program's view cannot hide itself.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde_json::Value;

use super::model::Marks;
use super::readback::Ranges;

/// One version of a table.
#[derive(Clone, Debug)]
pub struct Commit {
    pub version: u64,
    /// The marks that the table holds at this version, by partition of its one topic.
    pub marks: Marks,
    /// Data files with new rows: those of a compaction hold rows of earlier versions, and are not among them.
    pub added: Vec<String>,
    pub info: Value,
}

/// All versions of a table, oldest first. Panics where marks go back: no version may do that.
pub fn read(table: &Path) -> Vec<Commit> {
    let mut marks = Marks::new();
    let mut commits = Vec::new();
    while let Ok(text) = std::fs::read_to_string(table.join(format!("_delta_log/{:020}.json", commits.len()))) {
        let mut commit = Commit {
            version: commits.len() as u64,
            marks: Marks::new(),
            added: Vec::new(),
            info: Value::Null,
        };
        for action in text
            .lines()
            .map(|line| serde_json::from_str::<Value>(line).expect("a line of a commit is JSON"))
        {
            take(&action, &mut marks, &mut commit);
        }
        commit.marks = marks.clone();
        commits.push(commit);
    }
    commits
}

fn take(action: &Value, marks: &mut Marks, commit: &mut Commit) {
    let text = |value: &Value| value.as_str().expect("text").to_owned();
    if let Some(add) = action.get("add") {
        if add["dataChange"] == true {
            commit.added.push(text(&add["path"]));
        }
    } else if let Some(info) = action.get("commitInfo") {
        commit.info = info.clone();
    } else if let Some(txn) = action.get("txn") {
        let partition = partition(txn["appId"].as_str().expect("an appId is text"));
        let mark = txn["version"].as_u64().expect("a mark is a number");
        let before = marks.insert(partition, mark);
        assert!(
            before.is_none_or(|before| before <= mark),
            "version {} moves partition {partition} from {before:?} to {mark}",
            commit.version
        );
    }
}

/// The partition of an application id: `alluvium/<pipeline>/<topic>/<partition>@<topic id>`.
fn partition(app_id: &str) -> i32 {
    let lane = app_id.split('@').next().expect("split gives at least one");
    lane.rsplit('/')
        .next()
        .and_then(|number| number.parse().ok())
        .unwrap_or_else(|| panic!("{app_id} names no partition"))
}

/// The application ids whose marks a table holds.
pub fn app_ids(table: &Path) -> Vec<String> {
    let logs = (0..).map_while(|version: u64| std::fs::read_to_string(table.join(format!("_delta_log/{version:020}.json"))).ok());
    let ids = logs.flat_map(|text| text.lines().filter_map(app_id).collect::<Vec<_>>());
    ids.collect::<BTreeSet<String>>().into_iter().collect()
}

fn app_id(line: &str) -> Option<String> {
    let action: Value = serde_json::from_str(line).expect("a line of a commit is JSON");
    Some(action.pointer("/txn/appId")?.as_str()?.to_owned())
}

/// The newest marks of a table; none while there is no table.
pub fn marks(table: &Path) -> Marks {
    read(table).pop().map(|commit| commit.marks).unwrap_or_default()
}

/// Which offsets each version added, by its marks and those before it.
pub fn steps(history: &[Commit]) -> BTreeMap<u64, Ranges> {
    let mut before = Marks::new();
    let mut steps = BTreeMap::new();
    for commit in history {
        let moved = commit.marks.iter().filter(|(partition, mark)| before.get(partition) != Some(mark));
        let ranges = moved.map(|(partition, mark)| (*partition, before.get(partition).map_or(0, |before| before + 1)..=*mark));
        steps.insert(commit.version, ranges.collect());
        before = commit.marks.clone();
    }
    steps
}

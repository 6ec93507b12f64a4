//! The Delta log as it lies on disk, read with nothing but a JSON parser: what a version added, and which marks it carries.
//!
//! The tests' own view of the log, so that a mistake in the program's view cannot hide itself.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

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
    /// How many of its data files have rows that a deletion vector takes away.
    pub vectors: usize,
    pub info: Value,
    /// When the file of the commit was written, in milliseconds since 1970.
    written_ms: i64,
}

impl Commit {
    /// When it was made by its own word.
    fn said_ms(&self) -> i64 {
        self.info["timestamp"].as_i64().expect("a commit says when it was made")
    }
}

/// All versions of a table, oldest first. Panics where marks go back: no version may do that.
pub fn read(table: &Path) -> Vec<Commit> {
    let mut marks = Marks::new();
    let mut vectors = BTreeSet::new();
    let mut commits = Vec::new();
    for (path, text) in logs(table) {
        let mut commit = Commit {
            version: commits.len() as u64,
            marks: Marks::new(),
            added: Vec::new(),
            vectors: 0,
            info: Value::Null,
            written_ms: written_ms(&path),
        };
        for action in text
            .lines()
            .map(|line| serde_json::from_str::<Value>(line).expect("a line of a commit is JSON"))
        {
            take(&action, &mut marks, &mut commit);
            take_vector(&action, &mut vectors);
        }
        commit.marks = marks.clone();
        commit.vectors = vectors.len();
        commits.push(commit);
    }
    commits
}

fn written_ms(path: &Path) -> i64 {
    let modified = std::fs::metadata(path).and_then(|file| file.modified()).expect("a file has a time");
    let since = modified.duration_since(UNIX_EPOCH).expect("it is after 1970");
    since.as_millis() as i64
}

/// Which data files have a deletion vector, each with its vector: one commit takes a file out with the one and brings it back with the next.
fn take_vector(action: &Value, vectors: &mut BTreeSet<(String, String)>) {
    let of = |file: &Value| {
        let vector = file.get("deletionVector").filter(|vector| !vector.is_null())?;
        Some((file["path"].to_string(), vector.to_string()))
    };
    if let Some(vector) = action.get("add").and_then(of) {
        vectors.insert(vector);
    } else if let Some(vector) = action.get("remove").and_then(of) {
        vectors.remove(&vector);
    }
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
pub fn partition(app_id: &str) -> i32 {
    let lane = app_id.split('@').next().expect("split gives at least one");
    lane.rsplit('/')
        .next()
        .and_then(|number| number.parse().ok())
        .unwrap_or_else(|| panic!("{app_id} names no partition"))
}

/// The application ids whose marks a table holds.
pub fn app_ids(table: &Path) -> Vec<String> {
    let logs = logs(table);
    let ids = logs.iter().flat_map(|(_, text)| text.lines().filter_map(app_id));
    ids.collect::<BTreeSet<String>>().into_iter().collect()
}

fn app_id(line: &str) -> Option<String> {
    let action: Value = serde_json::from_str(line).expect("a line of a commit is JSON");
    Some(action.pointer("/txn/appId")?.as_str()?.to_owned())
}

/// For a version a time at which it is the newest, by what commits say and by when their files were written: some readers go by the one, some by
/// the other. None where the next followed at once, and of the last.
pub fn time_of(history: &[Commit], version: u64) -> Option<i64> {
    let (this, next) = (&history[version as usize], history.get(version as usize + 1)?);
    let (from, until) = (this.said_ms().max(this.written_ms), next.said_ms().min(next.written_ms));
    (until - from >= 2).then_some(from + (until - from) / 2)
}

/// The newest marks of a table; none while there is no table.
pub fn marks(table: &Path) -> Marks {
    read(table).pop().map(|commit| commit.marks).unwrap_or_default()
}

/// Whether every mark that stood in `before` has moved on.
pub fn all_moved(table: &Path, before: &Marks) -> bool {
    let now = marks(table);
    before.iter().all(|(lane, mark)| now.get(lane) > Some(mark))
}

/// The data files of a table's newest version, each with how many of its rows a deletion vector takes away.
pub fn live(table: &Path) -> BTreeMap<String, u64> {
    let mut live = BTreeMap::new();
    for (_, text) in logs(table) {
        let actions: Vec<Value> = text
            .lines()
            .map(|line| serde_json::from_str(line).expect("a line of a commit is JSON"))
            .collect();
        let path = |file: &Value| file["path"].as_str().expect("a path is text").to_owned();
        // One that gets another vector is taken out and brought back by one commit, in either order.
        for removed in actions.iter().filter_map(|action| action.get("remove")) {
            live.remove(&path(removed));
        }
        for added in actions.iter().filter_map(|action| action.get("add")) {
            live.insert(path(added), added["deletionVector"]["cardinality"].as_u64().unwrap_or(0));
        }
    }
    live
}

/// The data files in a table's folder, committed or not.
pub fn data_files(table: &Path) -> BTreeSet<String> {
    let entries = std::fs::read_dir(table).into_iter().flatten().flatten();
    entries
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| name.ends_with(".parquet"))
        .collect()
}

/// Those of them that no version ever named: their writer ended before it had committed them.
pub fn orphans(table: &Path) -> BTreeSet<String> {
    let mut files = data_files(table);
    for line in logs(table).iter().flat_map(|(_, text)| text.lines()) {
        let action: Value = serde_json::from_str(line).expect("a line of a commit is JSON");
        if let Some(path) = action.pointer("/add/path").and_then(Value::as_str) {
            files.remove(path);
        }
    }
    files
}

/// The files of a table's versions with what they say, oldest first.
fn logs(table: &Path) -> Vec<(PathBuf, String)> {
    let log = |version: u64| {
        let path = table.join(format!("_delta_log/{version:020}.json"));
        let text = std::fs::read_to_string(&path).ok()?;
        Some((path, text))
    };
    (0..).map_while(log).collect()
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

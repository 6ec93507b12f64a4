//! Readers, each in a process of its own: Python deltalake, polars, DuckDB, Spark with Delta Lake, and `alluvium query`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use chrono::{DateTime, SecondsFormat};
use serde_json::json;
use tokio::process::Command;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reader {
    Deltalake,
    Polars,
    Duckdb,
    Spark,
    Alluvium,
}

/// Those that `make test` has.
pub const READERS: [Reader; 4] = [Reader::Deltalake, Reader::Polars, Reader::Duckdb, Reader::Alluvium];

/// Which rows of a table a reader is asked for.
#[derive(Clone, Debug)]
pub enum Question {
    Version(u64),
    /// Those of the version that was the newest at this time, in milliseconds since 1970. DuckDB cannot tell.
    Time(i64),
    /// Those of the first version that holds these positions (`orders/0:41`). Only alluvium can tell.
    Position(Vec<String>),
    /// The newest, if they meet this.
    Where(Condition),
}

/// What a column must be.
#[derive(Clone, Debug)]
pub struct Condition {
    pub column: &'static str,
    /// The column's type in SQL.
    pub kind: &'static str,
    /// `=`, `>=` or `<=`; without a value, `null` or `not null`.
    pub is: &'static str,
    pub value: Option<String>,
}

impl Reader {
    pub fn name(self) -> &'static str {
        match self {
            Reader::Deltalake => "deltalake",
            Reader::Polars => "polars",
            Reader::Duckdb => "duckdb",
            Reader::Spark => "spark",
            Reader::Alluvium => "alluvium",
        }
    }

    /// Reads the table at these versions and writes each as Parquet under `out`: the files, version by version.
    pub async fn read(self, table: &Path, versions: &[u64], out: &Path) -> Vec<Vec<PathBuf>> {
        let questions: Vec<Question> = versions.iter().copied().map(Question::Version).collect();
        self.ask(table, &questions, out).await
    }

    /// The same of one version of a table at a URL. The variables of the environment say how it is reached.
    pub async fn read_there(self, table: &str, environment: &BTreeMap<String, String>, version: u64, out: &Path) -> Vec<PathBuf> {
        let read = self
            .ask_with(environment, Path::new(table), &[Question::Version(version)], out)
            .await;
        read.concat()
    }

    /// The same of what is asked.
    pub async fn ask(self, table: &Path, questions: &[Question], out: &Path) -> Vec<Vec<PathBuf>> {
        self.ask_with(&BTreeMap::new(), table, questions, out).await
    }

    async fn ask_with(self, environment: &BTreeMap<String, String>, table: &Path, questions: &[Question], out: &Path) -> Vec<Vec<PathBuf>> {
        let place = |at: usize| out.join(format!("{}-{at}.parquet", self.name()));
        match self {
            Reader::Alluvium => {
                for (at, question) in questions.iter().enumerate() {
                    let mut command = alluvium(table, question, &place(at));
                    command.envs(environment);
                    self.run(command, table).await;
                }
            }
            _ => {
                let mut command = self.script();
                command.arg(table).arg(out).args(questions.iter().map(text));
                command.envs(environment);
                self.run(command, table).await;
            }
        }
        (0..questions.len()).map(|at| files(&place(at))).collect()
    }

    async fn run(self, mut command: Command, table: &Path) {
        let output = command.stdin(Stdio::null()).output().await.expect("the reader starts");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{} cannot read {}: {said}", self.name(), table.display());
    }

    fn script(self) -> Command {
        let script = |name: &str| Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts").join(name);
        match self {
            Reader::Spark => {
                let mut command = Command::new(needed("spark/venv/bin/python", "spark"));
                command.arg(script("read_table_spark.py")).arg(needed("spark/jars", "spark"));
                command
            }
            _ => {
                let mut command = Command::new(needed("venv/bin/python", "test"));
                command.arg(script("read_table.py")).arg(self.name());
                command
            }
        }
    }
}

/// A question as the scripts take it.
fn text(question: &Question) -> String {
    match question {
        Question::Version(version) => version.to_string(),
        Question::Time(time_ms) => time(*time_ms),
        Question::Position(_) => panic!("only alluvium knows positions"),
        Question::Where(Condition { column, kind, is, value }) => {
            json!({"column": column, "kind": kind, "is": is, "value": value}).to_string()
        }
    }
}

fn alluvium(table: &Path, question: &Question, out: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_alluvium"));
    let named = format!("t={}", table.display());
    command
        .args(["query", "--table", &named, "--format", "parquet", "--output"])
        .arg(out);
    match question {
        Question::Version(version) => command.args(["--version", &version.to_string()]),
        Question::Time(time_ms) => command.args(["--timestamp", &time(*time_ms)]),
        Question::Position(positions) => command.arg("--position").args(positions),
        Question::Where(_) => &mut command,
    };
    let rows = match question {
        Question::Where(condition) => format!("select * from t where {}", condition.sql()),
        _ => "select * from t".to_owned(),
    };
    command.args(["--", &rows]);
    command
}

fn time(time_ms: i64) -> String {
    let time = DateTime::from_timestamp_millis(time_ms).expect("within chrono's years");
    time.to_rfc3339_opts(SecondsFormat::Millis, true)
}

impl Condition {
    /// In alluvium's SQL.
    pub fn sql(&self) -> String {
        let Self { column, kind, is, value } = self;
        let kind = match *kind {
            "timestamp" => "timestamp with time zone",
            "timestamp_ntz" => "timestamp",
            kind => kind,
        };
        match value {
            None => format!("{column} is {is}"),
            Some(value) => format!("{column} {is} cast('{}' as {kind})", value.replace('\'', "''")),
        }
    }
}

/// A Parquet file, or the files of a folder that Spark wrote.
fn files(path: &Path) -> Vec<PathBuf> {
    if path.is_file() {
        return vec![path.to_owned()];
    }
    let inside = std::fs::read_dir(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    inside
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|end| end == "parquet"))
        .collect()
}

/// The folder with everything that `scripts/setup.sh` fetches.
pub fn cache() -> PathBuf {
    match std::env::var_os("ALLUVIUM_CACHE") {
        Some(folder) => folder.into(),
        None => Path::new(&std::env::var_os("HOME").expect("HOME is set")).join(".cache/alluvium"),
    }
}

/// Something that `scripts/setup.sh` fetches. A test that needs it fails without it: nothing is passed over in silence.
pub fn needed(path: &str, target: &str) -> PathBuf {
    let path = cache().join(path);
    assert!(path.exists(), "{} is missing: run scripts/setup.sh {target}", path.display());
    path
}

/// The Python with the readers and the small server of S3.
pub fn interpreter() -> PathBuf {
    needed("venv/bin/python", "test")
}

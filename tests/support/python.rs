//! Independent readers: Python deltalake, polars, DuckDB, and Spark with Delta Lake, each in a process of its own.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use tokio::process::Command;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reader {
    Deltalake,
    Polars,
    Duckdb,
    Spark,
}

impl Reader {
    pub fn name(self) -> &'static str {
        match self {
            Reader::Deltalake => "deltalake",
            Reader::Polars => "polars",
            Reader::Duckdb => "duckdb",
            Reader::Spark => "spark",
        }
    }

    fn command(self) -> Command {
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

    /// Reads the table at these versions and writes each as Parquet under `out`: the files, version by version.
    pub async fn read(self, table: &Path, versions: &[u64], out: &Path) -> Vec<Vec<PathBuf>> {
        let mut command = self.command();
        command.arg(table).arg(out).args(versions.iter().map(u64::to_string));
        let output = command.stdin(Stdio::null()).output().await.expect("python starts");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{} cannot read {}: {said}", self.name(), table.display());
        versions
            .iter()
            .map(|version| files(&out.join(format!("{}-{version}.parquet", self.name()))))
            .collect()
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

/// The Python with the readers and the small S3 server.
pub fn interpreter() -> PathBuf {
    needed("venv/bin/python", "test")
}

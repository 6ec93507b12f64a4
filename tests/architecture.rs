//! The import rules of `src/lib.rs`, read off the source.

use std::fs;
use std::path::{Path, PathBuf};

/// What each part may import of the others; the core is what stands in `src/` itself.
const MAY_IMPORT: &[(&str, &[&str])] = &[
    ("core", &[]),
    ("log", &["log"]),
    ("query", &["log", "query"]),
    ("sources", &["sources"]),
    ("sinks", &["log", "sinks"]),
    ("pipeline", &["log", "sinks", "sources", "pipeline"]),
    ("serve", &["serve"]),
    ("cli", &["log", "query", "sinks", "sources", "pipeline", "serve", "cli"]),
];
const PARTS: &[&str] = &["log", "query", "sources", "sinks", "pipeline", "serve", "cli"];

/// Libraries that only some files may know, by the beginning of the path.
const KNOWN_ONLY_TO: &[(&str, &[&str])] = &[
    ("rdkafka", &["src/sources/kafka/consumer", "src/cli/demo"]),
    ("tokio_postgres", &["src/sources/postgres/connection"]),
    ("postgres_protocol", &["src/sources/postgres/connection"]),
    ("rustls", &["src/sources/postgres/connection"]),
    ("deltalake", &["src/log/", "src/query/"]),
    (
        "parquet",
        &[
            "src/sinks/delta/files",
            "src/sinks/delta/keys",
            "src/log/",
            "src/query/",
            "src/cli/query",
        ],
    ),
];

/// Where tasks and threads may begin: each of these ends what it began.
const MAY_SPAWN: &[&str] = &[
    "src/pipeline/mod.rs",
    "src/pipeline/all.rs",
    "src/sources/kafka/consumer",
    "src/sources/postgres/connection",
    "src/sources/postgres/progress.rs",
    "src/sources/postgres/snapshot.rs",
    "src/serve/",
];

fn sources() -> Vec<(String, String)> {
    fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, found);
            } else if path.extension().is_some_and(|ending| ending == "rs") {
                found.push(path);
            }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = Vec::new();
    walk(&root.join("src"), &mut found);
    assert!(found.len() > 20, "the sources were not found");
    let name = |path: &Path| path.strip_prefix(root).unwrap().to_string_lossy().into_owned();
    found
        .iter()
        .map(|path| (name(path), before_tests(&fs::read_to_string(path).unwrap())))
        .collect()
}

/// Tests at the end of a file may import what they like.
fn before_tests(text: &str) -> String {
    text.split("#[cfg(test)]\nmod ").next().unwrap_or_default().to_owned()
}

fn part_of(path: &str) -> &str {
    let inner = path.strip_prefix("src/").unwrap();
    let first = inner.split('/').next().unwrap().trim_end_matches(".rs");
    PARTS.iter().find(|part| **part == first).copied().unwrap_or("core")
}

/// The names behind `word` that follow as an identifier: `crate::` → the module's name.
fn names_behind<'a>(text: &'a str, word: &'a str) -> impl Iterator<Item = &'a str> {
    text.match_indices(word).map(move |(at, _)| {
        let rest = &text[at + word.len()..];
        rest.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or_default()
    })
}

#[test]
fn imports_go_one_way() {
    let mut wrong = Vec::new();
    for (path, text) in sources() {
        let part = part_of(&path);
        if path == "src/main.rs" || path == "src/lib.rs" {
            continue;
        }
        let allowed = MAY_IMPORT.iter().find(|(name, _)| *name == part).unwrap().1;
        for line in text.lines().filter(|line| !line.trim_start().starts_with("//")) {
            for name in names_behind(line, "crate::") {
                if PARTS.contains(&name) && !allowed.contains(&name) {
                    wrong.push(format!("{path}: `{part}` may not import `{name}`: {}", line.trim()));
                }
            }
            assert!(
                !line.contains("use crate::{"),
                "{path}: name each module on a line of its own, so that this test can read it"
            );
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn libraries_stay_behind_their_borders() {
    let mut wrong = Vec::new();
    for (path, text) in sources() {
        for (library, known_to) in KNOWN_ONLY_TO {
            let uses = text
                .lines()
                .any(|line| !line.trim_start().starts_with("//") && line.contains(&format!("{library}::")));
            if uses && !known_to.iter().any(|place| path.starts_with(place)) {
                wrong.push(format!("{path} may not know `{library}`"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn tasks_begin_only_where_they_are_ended() {
    let begins = ["spawn(", "spawn_blocking(", "thread::Builder"];
    let spawning = sources().into_iter().filter(|(path, text)| {
        let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
        code.into_iter().any(|line| begins.iter().any(|word| line.contains(word))) && !MAY_SPAWN.iter().any(|place| path.starts_with(place))
    });
    let names: Vec<String> = spawning.map(|(path, _)| path).collect();
    assert!(names.is_empty(), "these begin tasks: {names:?}");
}

/// librdkafka refuses a seek right behind an assignment, and loses one that meets a rebalance.
#[test]
fn k18_lanes_are_assigned_with_their_offsets_and_never_sought() {
    let sought =
        |(path, text): &(String, String)| path.starts_with("src/sources/kafka") && (text.contains("seek") || text.contains("Seek"));
    let names: Vec<String> = sources().into_iter().filter(sought).map(|(path, _)| path).collect();
    assert!(names.is_empty(), "these seek: {names:?}");
}

#[test]
fn every_file_says_what_it_is_and_stays_readable() {
    for (path, text) in sources() {
        assert!(text.starts_with("//!"), "{path} does not begin with `//!`");
        assert!(
            text.lines().count() <= 500,
            "{path} has {} lines: it asks to be two",
            text.lines().count()
        );
    }
}

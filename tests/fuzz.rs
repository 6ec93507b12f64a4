//! The bodies of the fuzz targets for some seconds: over their seeds as they are, and over seeded mutations of them.
//!
//! `ALLUVIUM_FUZZ` is the number of mutations of each seed; `make fuzz` looks further, with libFuzzer.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use crate::support::fuzz::{BODIES, Body};

/// Pieces that mean something to one parser or another.
const TOKENS: [&str; 40] = [
    "{",
    "}",
    "[",
    "]",
    "\"",
    ":",
    ",",
    "\\",
    "\\u0000",
    "\\ud800",
    "null",
    "true",
    "-",
    "0",
    "-0",
    "1e400",
    "1e-400",
    "9223372036854775808",
    "99999999999999999999999999999999999999",
    "0.1",
    "1970-01-01",
    "9999-12-31T23:59:60Z",
    "\n",
    "\t",
    "\0",
    "\u{FEFF}",
    "=",
    "[[",
    "]]",
    "\"before\":null",
    "\"after\":{}",
    "\"op\":\"d\"",
    "\"schema\":{}",
    "\"payload\":",
    "__debezium_unavailable_value",
    "\"type\":\"union\"",
    "\"$ref\":\"#\"",
    "\"items\":",
    "'",
    "#",
];

/// Files of seeds, each with its name.
fn seeds(name: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds").join(name);
    let mut paths: Vec<_> = fs::read_dir(&folder)
        .unwrap_or_else(|e| panic!("{}: {e}", folder.display()))
        .map(|entry| entry.unwrap().path())
        .collect();
    paths.sort();
    assert!(!paths.is_empty(), "{} has seeds", folder.display());
    paths.iter().map(|path| fs::read(path).unwrap()).collect()
}

/// One to a few changes: bytes, pieces, cuts, repetitions, and ends of other seeds.
fn mutated(rng: &mut SmallRng, seeds: &[Vec<u8>], seed: &[u8]) -> Vec<u8> {
    let mut bytes = seed.to_vec();
    for _ in 0..rng.random_range(1..5) {
        let (from, upto) = (rng.random_range(0..=bytes.len()), rng.random_range(0..=bytes.len()));
        let range = from.min(upto)..from.max(upto).min(from.min(upto) + 64);
        match rng.random_range(0..7) {
            0 if from < bytes.len() => bytes[from] = rng.random(),
            1 if from < bytes.len() => bytes[from] ^= 1 << rng.random_range(0..8),
            2 => drop(bytes.drain(range)),
            3 => bytes.truncate(from),
            4 => {
                let copy = bytes[range].to_vec();
                bytes.splice(from..from, copy);
            }
            5 => {
                let other = &seeds[rng.random_range(0..seeds.len())];
                bytes.truncate(from);
                bytes.extend(&other[rng.random_range(0..=other.len())..]);
            }
            _ => {
                let token = TOKENS[rng.random_range(0..TOKENS.len())].as_bytes();
                bytes.splice(from..from, token.iter().copied());
            }
        }
    }
    bytes
}

fn check(name: &str, body: Body, bytes: &[u8]) {
    if catch_unwind(AssertUnwindSafe(|| body(bytes))).is_err() {
        panic!(
            "the fuzz body `{name}` fails with these bytes: {:?}",
            String::from_utf8_lossy(bytes)
        );
    }
}

fn run(name: &str) {
    let mutations: usize = std::env::var("ALLUVIUM_FUZZ").map_or(500, |text| text.parse().expect("ALLUVIUM_FUZZ is a number"));
    let body = BODIES.iter().find(|(of, _)| *of == name).expect("there is such a body").1;
    let (seeds, mut rng) = (seeds(name), SmallRng::seed_from_u64(7));
    for seed in &seeds {
        check(name, body, seed);
        for _ in 0..mutations {
            check(name, body, &mutated(&mut rng, &seeds, seed));
        }
    }
}

#[test]
fn no_text_is_too_strange_for_the_configuration() {
    run("config");
}

#[test]
fn no_bytes_are_too_strange_for_debeziums_events() {
    run("debezium");
}

#[test]
fn no_bytes_are_too_strange_for_plain_json() {
    run("json");
}

#[test]
fn no_bytes_are_too_strange_for_the_log_of_a_table() {
    run("log");
}

#[test]
fn no_text_is_too_strange_for_a_schema_file() {
    run("schema");
}

#[test]
fn no_bytes_are_too_strange_for_messages_of_pgoutput() {
    run("pgoutput");
}

#[test]
fn no_bytes_are_too_strange_for_a_copy_of_postgres() {
    run("copy");
}

#[test]
fn each_body_has_its_target_and_its_seeds() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz");
    for (name, _) in BODIES {
        assert!(root.join("targets").join(format!("{name}.rs")).is_file(), "fuzz/targets/{name}.rs");
        assert!(!seeds(name).is_empty());
    }
}

//! A configuration file as a tree whose every value knows its place, and what is wrong with it so far.
//!
//! The text is read as TOML, held against the JSON Schema of [`Config`], and then against what lies between options. What is wrong in one
//! step is taken out or replaced by something harmless before the next, so that one reading finds everything: hence a document may have
//! a configuration and problems at once, and [`Document::into_config`] is the only way out.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::{Config, KeyPath, Problem, Problems, Reach, check, structure};

/// Does not print: a secret may stand in the text, at a wrong place.
pub struct Document {
    file: PathBuf,
    text: String,
    /// The bytes at which its lines begin.
    lines: Vec<usize>,
    /// Where each key, or each item of a list, stands in the text.
    places: BTreeMap<KeyPath, Range<usize>>,
    config: Option<Config>,
    problems: Vec<Problem>,
    /// The keys of the problems.
    wrong: BTreeSet<KeyPath>,
}

impl Document {
    /// Reads a file. It fails only where there is nothing to look into; other problems are in the document. A secret that
    /// is missing is one of them only where it leads to what is reached.
    pub fn read(file: &Path, reach: Reach) -> Result<Self, Problems> {
        let text = std::fs::read_to_string(file).map_err(|error| {
            let what = format!("cannot be read: {error}; name another file with --config");
            Problems {
                file: file.to_owned(),
                list: vec![Problem {
                    place: None,
                    key: KeyPath::default(),
                    what,
                }],
            }
        })?;
        Ok(Self::parse(file, text, reach))
    }

    /// Reads a text as if it stood in `file`.
    pub fn parse(file: &Path, text: String, reach: Reach) -> Self {
        let mut document = Self {
            file: file.to_owned(),
            lines: line_starts(&text),
            text,
            places: BTreeMap::new(),
            config: None,
            problems: Vec::new(),
            wrong: BTreeSet::new(),
        };
        if let Some(mut tree) = document.read_toml() {
            for (key, what) in structure::check(&schema(), &mut tree) {
                document.add(&key, what);
            }
            document.read_tree(tree, reach);
        }
        document
    }

    /// The tree of the text, or None where it is no TOML: what a parser guesses then would only breed wrong complaints.
    fn read_toml(&mut self) -> Option<Value> {
        let text = std::mem::take(&mut self.text);
        let (table, errors) = DeTable::parse_recoverable(&text);
        let tree = table_to_json(table.get_ref(), &KeyPath::default(), &mut self.places);
        for error in &errors {
            let place = error.span().map(|span| place_of(&text, &self.lines, span.start));
            self.problems.push(Problem {
                place,
                key: KeyPath::default(),
                what: error.message().to_owned(),
            });
        }
        self.text = text;
        errors.is_empty().then_some(tree)
    }

    fn read_tree(&mut self, tree: Value, reach: Reach) {
        match serde_json::from_value::<Config>(tree) {
            Ok(mut config) => {
                config.resolve_paths(&folder_of(&self.file));
                for (key, what) in check::check(&config, reach) {
                    self.add(&key, what);
                }
                self.config = Some(config);
            }
            Err(error) => self.add(&KeyPath::default(), error.to_string()),
        }
    }

    /// What could be read. Where there are problems, values may be missing or replaced: good for looking for more problems, and for
    /// nothing else.
    pub fn config(&self) -> Option<&Config> {
        self.config.as_ref()
    }

    /// Adds a problem of an option, unless the option, or what it stands in, is already known to be wrong.
    pub fn add(&mut self, key: &KeyPath, what: impl Into<String>) {
        if key.ways_up().any(|way| self.wrong.contains(&way)) {
            return;
        }
        if *key != KeyPath::default() {
            self.wrong.insert(key.clone());
        }
        self.problems.push(Problem {
            place: self.place(key),
            key: key.clone(),
            what: what.into(),
        });
    }

    /// The configuration, if nothing is wrong with it.
    pub fn into_config(mut self) -> Result<Config, Problems> {
        match self.config {
            Some(config) if self.problems.is_empty() => Ok(config),
            _ => {
                self.problems.sort_by_key(|problem| problem.place);
                Err(Problems {
                    file: self.file,
                    list: self.problems,
                })
            }
        }
    }

    /// Line and column of a key, or of the nearest table above it that the text has.
    fn place(&self, key: &KeyPath) -> Option<(usize, usize)> {
        let found = key.ways_up().find_map(|way| self.places.get(&way))?;
        Some(place_of(&self.text, &self.lines, found.start))
    }
}

/// The JSON Schema of a configuration file.
pub fn schema() -> Value {
    schemars::schema_for!(Config).to_value()
}

fn folder_of(file: &Path) -> PathBuf {
    let folder = file
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    // An absolute path stays right when the process changes its folder; one that cannot be made is as good relative.
    std::path::absolute(folder).unwrap_or_else(|_| folder.to_owned())
}

fn line_starts(text: &str) -> Vec<usize> {
    let ends = text.match_indices('\n').map(|(at, _)| at + 1);
    std::iter::once(0).chain(ends).collect()
}

/// Line and column, from 1, of a byte of the text whose lines begin at `lines`.
fn place_of(text: &str, lines: &[usize], byte: usize) -> (usize, usize) {
    let line = lines.partition_point(|start| *start <= byte);
    let start = line.checked_sub(1).and_then(|line| lines.get(line)).copied().unwrap_or(0);
    (line, text.get(start..byte).map_or(0, |before| before.chars().count()) + 1)
}

fn table_to_json(table: &DeTable<'_>, at: &KeyPath, places: &mut BTreeMap<KeyPath, Range<usize>>) -> Value {
    let entry = |(key, value): (&Spanned<_>, &Spanned<DeValue<'_>>)| {
        let key: &Spanned<toml::de::DeString<'_>> = key;
        let here = at.key(key.get_ref());
        places.insert(here.clone(), key.span());
        (key.get_ref().to_string(), to_json(value.get_ref(), &here, places))
    };
    Value::Object(table.iter().map(entry).collect::<Map<_, _>>())
}

fn to_json(value: &DeValue<'_>, at: &KeyPath, places: &mut BTreeMap<KeyPath, Range<usize>>) -> Value {
    match value {
        DeValue::String(text) => Value::String(text.to_string()),
        DeValue::Boolean(truth) => Value::Bool(*truth),
        DeValue::Integer(number) => match i64::from_str_radix(number.as_str(), number.radix()) {
            Ok(number) => number.into(),
            Err(_) => Value::Null,
        },
        DeValue::Float(number) => number.as_str().parse::<f64>().map_or(Value::Null, Value::from),
        // No option takes a date: null is what none accepts.
        DeValue::Datetime(_) => Value::Null,
        DeValue::Array(items) => {
            let item = |(index, item): (usize, &Spanned<DeValue<'_>>)| {
                let here = at.index(index);
                places.insert(here.clone(), item.span());
                to_json(item.get_ref(), &here, places)
            };
            Value::Array(items.iter().enumerate().map(item).collect())
        }
        DeValue::Table(table) => table_to_json(table, at, places),
    }
}

#[cfg(test)]
mod tests;

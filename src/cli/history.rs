//! `alluvium history`: the versions of a table, with the source positions that each brought.

use std::num::NonZeroUsize;
use std::process::ExitCode;

use chrono::{DateTime, SecondsFormat};
use clap::{Args, ValueEnum};
use serde_json::json;

use super::moment::Tables;
use crate::error::{Error, Result};
use crate::log::Log;
use crate::log::history::{Entry, GAPS};
use crate::position::{Lane, Position};
use crate::query::Named;

#[derive(Debug, Args)]
pub(super) struct HistoryArguments {
    /// The table, by its name in the configuration
    #[arg(value_name = "TABLE")]
    name: String,
    #[command(flatten)]
    tables: Tables,
    /// The newest N versions
    #[arg(long, value_name = "N", default_value = "20")]
    limit: NonZeroUsize,
    /// How the versions are written
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Format {
    #[default]
    Table,
    /// One JSON object a line
    Json,
}

pub(super) async fn history(arguments: &HistoryArguments) -> Result<ExitCode> {
    let entries = read(&arguments.tables.open_one(&arguments.name).await?, arguments.limit.get()).await?;
    let text = match arguments.format {
        Format::Table => table(&entries),
        Format::Json => entries.iter().map(|entry| format!("{}\n", to_json(entry))).collect(),
    };
    super::print(&text)?;
    Ok(ExitCode::SUCCESS)
}

/// The newest versions of a table, newest first.
pub(super) async fn read(table: &Named, limit: usize) -> Result<Vec<Entry>> {
    let Some(log) = Log::open(&table.url, table.store.clone(), "").await? else {
        return Err(Error::config(
            "no_table",
            format!("there is no table at {}: it is made when its pipeline first runs", table.url),
        ));
    };
    log.history(limit).await
}

pub(super) fn time(timestamp_ms: i64) -> String {
    let time = DateTime::from_timestamp_millis(timestamp_ms);
    time.map_or_else(
        || timestamp_ms.to_string(),
        |time| time.to_rfc3339_opts(SecondsFormat::Millis, true),
    )
}

/// `orders/0:17..41`, `slot:0/16B3749..0/16B3800`: the first and the last position.
fn range(lane: &str, from: Option<u64>, to: u64) -> String {
    let lane = Lane::new(lane);
    let (from, to) = (from.map(|from| lane.show(Position(from))), lane.show(Position(to)));
    format!("{lane}:{}..{to}", from.unwrap_or_default())
}

/// What the version brought.
fn positions(entry: &Entry) -> String {
    let said = entry.said.iter().flat_map(|said| &said.positions);
    let ranges: Vec<String> = said.map(|(lane, (from, to))| range(lane, *from, *to)).collect();
    ranges.join(" ")
}

/// What it says that the source had lost: `gap orders/0:5..16`.
fn gaps(entry: &Entry) -> Vec<String> {
    let notes = entry.said.iter().filter_map(|said| said.notes.get(GAPS)?.as_array());
    let gap = |gap: &serde_json::Value| {
        let (lane, from, until) = (gap["lane"].as_str()?, gap["from"].as_u64()?, gap["until"].as_u64()?);
        Some(format!("gap {}", range(lane, Some(from), until.checked_sub(1)?)))
    };
    notes.flatten().filter_map(gap).collect()
}

fn rows(entry: &Entry) -> String {
    entry.metrics.get("numOutputRows").map_or_else(String::new, u64::to_string)
}

/// What others wrote, without what a terminal would obey.
fn printable(text: &str) -> String {
    let shown = |c: char| {
        if c.is_control() {
            c.escape_default().to_string()
        } else {
            c.to_string()
        }
    };
    text.chars().map(shown).collect()
}

/// A table with columns as wide as what stands in them.
pub(super) fn table(entries: &[Entry]) -> String {
    let head = ["version", "time", "operation", "rows", "files", "positions"].map(str::to_owned);
    let line = |entry: &Entry| {
        [
            entry.version.to_string(),
            time(entry.timestamp_ms),
            entry.operation.clone().unwrap_or_default(),
            rows(entry),
            format!("+{} -{}", entry.files_added, entry.files_removed),
            [vec![positions(entry)], gaps(entry)].concat().join(" "),
        ]
        .map(|cell| printable(&cell))
    };
    let lines: Vec<[String; 6]> = std::iter::once(head).chain(entries.iter().map(line)).collect();
    let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0);
    let widths: [usize; 6] = std::array::from_fn(width);
    let padded = |line: &[String; 6]| {
        let cells = line.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}"));
        format!("{}\n", cells.collect::<Vec<_>>().join("  ").trim_end())
    };
    lines.iter().map(padded).collect()
}

fn to_json(entry: &Entry) -> serde_json::Value {
    json!({
        "version": entry.version,
        "timestamp": time(entry.timestamp_ms),
        "positions": positions(entry),
        "operation": entry.operation,
        "engine": entry.engine,
        "metrics": entry.metrics,
        "files_added": entry.files_added,
        "files_removed": entry.files_removed,
        "alluvium": entry.said,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(operation: Option<&str>, said: Option<serde_json::Value>) -> Entry {
        Entry {
            version: 3,
            timestamp_ms: 0,
            operation: operation.map(str::to_owned),
            engine: None,
            metrics: Default::default(),
            said: said.map(|said| serde_json::from_value(said).unwrap()),
            files_added: 1,
            files_removed: 0,
        }
    }

    #[test]
    fn what_others_wrote_is_one_row_and_sends_a_terminal_nothing() {
        let text = table(&[entry(Some("WEIRD \u{1b}[31m\n\u{9b}é"), None)]);
        assert_eq!(text.lines().count(), 2, "{text}");
        assert!(text.contains(r"WEIRD \u{1b}[31m\n\u{9b}é  "), "{text}");
    }

    #[test]
    fn gaps_stand_behind_the_positions() {
        let said = json!({
            "positions": { "orders/0": [17, 41] },
            "notes": { "gaps": [{ "lane": "orders/0", "from": 5, "until": 17 }] },
        });
        let text = table(&[entry(None, Some(said))]);
        assert!(text.trim_end().ends_with("orders/0:17..41 gap orders/0:5..16"), "{text}");
    }
}

//! Long work that is under way: copies of tables, and lanes that are far behind. Lines on the terminal, or where there is none, lines in the
//! log now and then: rows, pace, what is left, and the time that it takes.

use std::collections::BTreeMap;
use std::time::Duration;

use indicatif::{HumanBytes, HumanCount, HumanDuration, ProgressBar, ProgressStyle};
use tokio::time::{Instant, Interval, interval};
use tracing::info;

use crate::status::{Board, CopyStatus, PipelineStatus};

/// How often the lines are drawn.
const EVERY: Duration = Duration::from_millis(250);
/// How often the log is told, where nothing is drawn.
const LOG_EVERY: Duration = Duration::from_secs(10);
/// With fewer records to read there is nothing to wait for, nor with fewer bytes.
const LAG_SHOWN: u64 = 10_000;
const BYTES_SHOWN: u64 = 16 << 20;
/// Tables that are copied at the same time; of more, nobody reads all.
const TABLES_SHOWN: usize = 8;
/// The rate is that of about so many seconds: it follows changes, and does not jump with every commit.
const RATE_SECONDS: f64 = 3.0;

pub(super) struct Progress {
    board: Board,
    ticks: Interval,
    lines: Vec<ProgressBar>,
    /// By pipeline.
    paces: BTreeMap<String, Pace>,
    /// When the log was told, or the work began.
    logged: Option<Instant>,
}

impl Progress {
    pub(super) fn new(board: Board) -> Self {
        Self {
            board,
            ticks: interval(EVERY),
            lines: Vec::new(),
            paces: BTreeMap::new(),
            logged: None,
        }
    }

    /// Waits a moment, then draws the lines, or takes them away. Cancel safe.
    pub(super) async fn tick(&mut self) {
        let now = self.ticks.tick().await;
        let pipelines = self.board.read();
        let mut works = Vec::new();
        for (name, status) in &pipelines {
            let behind = Behind::of(status);
            let rate = self.paces.entry(name.clone()).or_default().step(now, behind.read);
            works.extend(under_way(name, status, behind, rate));
        }
        if super::logs::progress().is_hidden() {
            self.log(now, &works);
        } else {
            self.draw(&works);
        }
    }

    pub(super) fn clear(&mut self) {
        self.draw(&[]);
    }

    fn draw(&mut self, works: &[Work<'_>]) {
        for line in self.lines.drain(works.len().min(self.lines.len())..) {
            line.finish_and_clear();
        }
        while self.lines.len() < works.len() {
            let style = ProgressStyle::with_template("{spinner} {msg}").unwrap_or_else(|_| ProgressStyle::default_spinner());
            let line = super::logs::progress().add(ProgressBar::new_spinner());
            self.lines.push(line.with_style(style));
        }
        for (line, work) in self.lines.iter().zip(works) {
            line.set_message(work.text());
            line.tick();
        }
    }

    fn log(&mut self, now: Instant, works: &[Work<'_>]) {
        if works.is_empty() {
            self.logged = None;
        } else if now - *self.logged.get_or_insert(now) >= LOG_EVERY {
            self.logged = Some(now);
            works.iter().for_each(Work::log);
        }
    }
}

/// How far a pipeline's lanes are behind.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Behind {
    /// Records or bytes read since the lanes began; None while nothing is.
    read: Option<u64>,
    records: u64,
    wal_bytes: u64,
}

impl Behind {
    fn of(status: &PipelineStatus) -> Self {
        let mut sum = Self::default();
        for lane in status.lanes.values() {
            let Some(read) = lane.read else { continue };
            sum.read = Some(sum.read.unwrap_or(0) + read);
            sum.records += lane.lag.unwrap_or(0);
            sum.wal_bytes += lane.slot.as_ref().map_or(0, |slot| slot.lag_bytes);
        }
        sum
    }
}

/// Records or bytes a second, smoothed.
#[derive(Debug, Default)]
struct Pace {
    last: Option<(Instant, u64)>,
    rate: f64,
}

impl Pace {
    fn step(&mut self, now: Instant, read: Option<u64>) -> f64 {
        if let (Some((then, before)), Some(read)) = (self.last, read) {
            let seconds = (now - then).as_secs_f64();
            if seconds > 0.0 {
                // A lane that went to another instance takes its records with it: that is no pace.
                let now_rate = read.saturating_sub(before) as f64 / seconds;
                let weight = (seconds / RATE_SECONDS).min(1.0);
                self.rate += (now_rate - self.rate) * weight;
            }
        }
        self.last = read.map(|read| (now, read));
        self.rate
    }
}

/// One piece of long work of a pipeline.
#[derive(Debug)]
struct Work<'a> {
    pipeline: &'a str,
    kind: Kind<'a>,
}

#[derive(Debug)]
enum Kind<'a> {
    /// Of a table, or of all together.
    Copy {
        table: Option<&'a str>,
        copy: &'a CopyStatus,
    },
    Records(CatchUp),
    Wal(CatchUp),
}

#[derive(Clone, Copy, Debug)]
struct CatchUp {
    /// Rows published since the start.
    rows: u64,
    lag: u64,
    /// A second.
    rate: f64,
}

impl CatchUp {
    fn left_seconds(self) -> Option<u64> {
        (self.rate >= 1.0).then(|| (self.lag as f64 / self.rate).min(1e9) as u64)
    }
}

/// What of a pipeline's work is worth a line.
fn under_way<'a>(pipeline: &'a str, status: &'a PipelineStatus, behind: Behind, rate: f64) -> Vec<Work<'a>> {
    let mut kinds = Vec::new();
    if let Some(copy) = status.copy.as_ref().filter(|copy| copy.total_bytes >= BYTES_SHOWN) {
        kinds.push(Kind::Copy { table: None, copy });
        let tables = status
            .tables
            .iter()
            .filter_map(|(table, status)| Some((table, status.copy.as_ref()?)));
        let busy = tables.filter(|(_, copy)| copy.is_under_way()).take(TABLES_SHOWN);
        kinds.extend(busy.map(|(table, copy)| Kind::Copy { table: Some(table), copy }));
    }
    let rows = status.tables.values().map(|table| table.rows_committed).sum();
    let catch_up = |lag| CatchUp { rows, lag, rate };
    if behind.records >= LAG_SHOWN {
        kinds.push(Kind::Records(catch_up(behind.records)));
    }
    if behind.wal_bytes >= BYTES_SHOWN {
        kinds.push(Kind::Wal(catch_up(behind.wal_bytes)));
    }
    kinds.into_iter().map(|kind| Work { pipeline, kind }).collect()
}

impl Work<'_> {
    /// For a person.
    fn text(&self) -> String {
        let pipeline = self.pipeline;
        match &self.kind {
            Kind::Copy { table, copy } => {
                let what = table.map_or_else(|| format!("{pipeline}: copying"), |table| format!("  {table}"));
                let (rows, done, all) = (HumanCount(copy.rows), HumanBytes(copy.bytes), HumanBytes(copy.total_bytes));
                format!("{what}: {rows} rows, {done} of {all}{}", left(copy.left_seconds))
            }
            Kind::Records(it) => format!(
                "{pipeline}: {} rows published, {} records/s, {} behind{}",
                HumanCount(it.rows),
                HumanCount(it.rate as u64),
                HumanCount(it.lag),
                left(it.left_seconds())
            ),
            Kind::Wal(it) => format!(
                "{pipeline}: {} rows published, {}/s, {} of WAL behind{}",
                HumanCount(it.rows),
                HumanBytes(it.rate as u64),
                HumanBytes(it.lag),
                left(it.left_seconds())
            ),
        }
    }

    /// For who reads the log.
    fn log(&self) {
        let pipeline = self.pipeline;
        match &self.kind {
            Kind::Copy { table, copy } => {
                let (rows, bytes, total_bytes, left_seconds) = (copy.rows, copy.bytes, copy.total_bytes, copy.left_seconds);
                info!(pipeline, table, rows, bytes, total_bytes, left_seconds, "copy under way");
            }
            Kind::Records(it) => {
                let (rows, lag_records, per_second, left_seconds) = (it.rows, it.lag, it.rate as u64, it.left_seconds());
                info!(pipeline, rows, lag_records, per_second, left_seconds, "catching up");
            }
            Kind::Wal(it) => {
                let (rows, lag_bytes, per_second, left_seconds) = (it.rows, it.lag, it.rate as u64, it.left_seconds());
                info!(pipeline, rows, lag_bytes, per_second, left_seconds, "catching up");
            }
        }
    }
}

fn left(seconds: Option<u64>) -> String {
    seconds.map_or_else(String::new, |seconds| {
        format!(", {} left", HumanDuration(Duration::from_secs(seconds)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::position::Lsn;
    use crate::status::{LaneStatus, Phase, SlotStatus, TableStatus};

    fn texts(status: &PipelineStatus, rate: f64) -> Vec<String> {
        let works = under_way("shop", status, Behind::of(status), rate);
        works.iter().map(Work::text).collect()
    }

    fn lane(lane: LaneStatus) -> PipelineStatus {
        let rows = TableStatus {
            rows_committed: 1_234_567,
            ..TableStatus::default()
        };
        PipelineStatus {
            lanes: [("lane".to_owned(), lane)].into(),
            tables: [("orders".to_owned(), rows)].into(),
            ..PipelineStatus::default()
        }
    }

    #[test]
    fn the_pace_is_that_of_the_last_seconds_and_begins_with_the_first_position() {
        let (mut pace, start) = (Pace::default(), Instant::now());
        assert_eq!(pace.step(start, None), 0.0);
        let mut rate = 0.0;
        for second in 1..30 {
            rate = pace.step(start + Duration::from_secs(second), Some((1 << 40) + second * 2_000));
        }
        assert!((rate - 2_000.0).abs() < 10.0, "{rate}");
    }

    #[test]
    fn lanes_that_are_far_behind_tell_rows_pace_lag_and_the_time_left() {
        let topic = |lag| {
            lane(LaneStatus {
                read: Some(0),
                lag: Some(lag),
                ..LaneStatus::default()
            })
        };
        let line = "shop: 1,234,567 rows published, 2,000 records/s, 240,000 behind, 2 minutes left";
        assert_eq!(texts(&topic(240_000), 2_000.0), [line]);
        assert!(texts(&topic(100), 2_000.0).is_empty());
        let slot = SlotStatus {
            phase: Phase::Streaming,
            end: Lsn(600 << 20),
            read: Some(Lsn(0)),
            committed: Lsn(0),
            lag_bytes: 600 << 20,
            committed_lag_bytes: 600 << 20,
            retained_bytes: 0,
            safe_bytes: None,
        };
        let slot = lane(LaneStatus {
            read: Some(0),
            slot: Some(slot),
            ..LaneStatus::default()
        });
        let line = "shop: 1,234,567 rows published, 5.00 MiB/s, 600.00 MiB of WAL behind, 2 minutes left";
        assert_eq!(texts(&slot, f64::from(5 << 20)), [line]);
    }

    #[test]
    fn copies_tell_rows_bytes_and_the_time_left_in_sum_and_by_table() {
        let began = Instant::now();
        let copy = |total_bytes: u64, bytes: u64| {
            let mut copy = CopyStatus::of(total_bytes);
            copy.add(0, 0, began);
            copy.add(bytes / 100, bytes, began + Duration::from_secs(60));
            copy
        };
        let table = |copy: CopyStatus| TableStatus {
            copy: Some(copy),
            ..TableStatus::default()
        };
        let mut status = PipelineStatus {
            tables: [
                ("done".to_owned(), table(copy(1 << 30, 1 << 30))),
                ("now".to_owned(), table(copy(2 << 30, 1 << 30))),
                ("later".to_owned(), table(CopyStatus::of(5 << 30))),
            ]
            .into(),
            ..PipelineStatus::default()
        };
        status.sum_copies(began);
        status.sum_copies(began + Duration::from_secs(60));
        let lines = [
            "shop: copying: 21,474,836 rows, 2.00 GiB of 8.00 GiB, 3 minutes left",
            "  now: 10,737,418 rows, 1.00 GiB of 2.00 GiB, 60 seconds left",
        ];
        assert_eq!(texts(&status, 0.0), lines);
    }
}

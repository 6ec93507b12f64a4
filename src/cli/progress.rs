//! A line on the terminal while there is much to catch up with: rows, rows a second, lag, and the time that is left.

use std::time::Duration;

use indicatif::{HumanCount, HumanDuration, ProgressBar, ProgressStyle};
use tokio::time::{Instant, Interval, interval};

use crate::status::{Board, PipelineStatus};

/// How often the line is drawn.
const EVERY: Duration = Duration::from_millis(250);
/// With fewer records to read there is nothing to wait for.
const LAG_SHOWN: u64 = 10_000;
/// The rate is that of about so many seconds: it follows changes, and does not jump with every commit.
const RATE_SECONDS: f64 = 3.0;

pub(super) struct Progress {
    board: Board,
    ticks: Interval,
    line: Option<ProgressBar>,
    pace: Pace,
}

impl Progress {
    pub(super) fn new(board: Board) -> Self {
        Self {
            board,
            ticks: interval(EVERY),
            line: None,
            pace: Pace::default(),
        }
    }

    /// Waits a moment, then draws the line, or takes it away. Cancel safe.
    pub(super) async fn tick(&mut self) {
        let now = self.ticks.tick().await;
        let seen = Seen::of(self.board.read().values());
        let rate = self.pace.step(now, seen.read);
        if seen.lag < LAG_SHOWN {
            return self.clear();
        }
        let line = self.line.get_or_insert_with(|| {
            let line = super::logs::progress().add(ProgressBar::new_spinner());
            line.with_style(ProgressStyle::with_template("{spinner} {msg}").unwrap_or_else(|_| ProgressStyle::default_spinner()))
        });
        line.set_message(text(seen, rate));
        line.tick();
    }

    pub(super) fn clear(&mut self) {
        if let Some(line) = self.line.take() {
            line.finish_and_clear();
        }
    }
}

/// Sums over all pipelines.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Seen {
    /// Records read since the lanes began.
    read: u64,
    lag: u64,
    /// Rows published since the start.
    rows: u64,
}

impl Seen {
    fn of<'a>(pipelines: impl Iterator<Item = &'a PipelineStatus>) -> Self {
        pipelines.fold(Self::default(), |sum, pipeline| Self {
            read: sum.read + pipeline.lanes.values().filter_map(|lane| lane.read).sum::<u64>(),
            lag: sum.lag + pipeline.lanes.values().filter_map(|lane| lane.lag).sum::<u64>(),
            rows: sum.rows + pipeline.tables.values().map(|table| table.rows_committed).sum::<u64>(),
        })
    }
}

/// Records a second, smoothed.
#[derive(Debug, Default)]
struct Pace {
    last: Option<(Instant, u64)>,
    rate: f64,
}

impl Pace {
    fn step(&mut self, now: Instant, read: u64) -> f64 {
        if let Some((then, before)) = self.last {
            let seconds = (now - then).as_secs_f64();
            if seconds > 0.0 {
                // A lane that went to another instance takes its records with it: that is no pace.
                let now_rate = read.saturating_sub(before) as f64 / seconds;
                let weight = (seconds / RATE_SECONDS).min(1.0);
                self.rate += (now_rate - self.rate) * weight;
            }
        }
        self.last = Some((now, read));
        self.rate
    }
}

fn text(seen: Seen, rate: f64) -> String {
    let left = if rate >= 1.0 {
        format!(
            ", {} left",
            HumanDuration(Duration::from_secs_f64((seen.lag as f64 / rate).min(1e9)))
        )
    } else {
        String::new()
    };
    format!(
        "{} rows published, {} records/s, {} behind{left}",
        HumanCount(seen.rows),
        HumanCount(rate as u64),
        HumanCount(seen.lag)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_line_tells_rows_pace_lag_and_the_time_left() {
        let (mut pace, start) = (Pace::default(), Instant::now());
        let mut rate = 0.0;
        for second in 0..30 {
            rate = pace.step(start + Duration::from_secs(second), second * 2_000);
        }
        assert!((rate - 2_000.0).abs() < 10.0, "{rate}");
        let line = text(
            Seen {
                read: 0,
                lag: 240_000,
                rows: 1_234_567,
            },
            2_000.0,
        );
        assert_eq!(line, "1,234,567 rows published, 2,000 records/s, 240,000 behind, 2 minutes left");
    }
}

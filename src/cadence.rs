//! When staged rows are published: pure, so that it can be tested without a clock.

use tokio::time::Instant;

use crate::table::Limits;

/// What is staged, against the limits.
#[derive(Debug)]
pub struct Cadence {
    limits: Limits,
    rows: usize,
    bytes: usize,
    /// When the oldest staged row came.
    oldest: Option<Instant>,
    /// Since when the mark is ahead of the table, with nothing staged.
    ahead: Option<Instant>,
}

impl Cadence {
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            rows: 0,
            bytes: 0,
            oldest: None,
            ahead: None,
        }
    }

    pub fn staged_rows(&self) -> usize {
        self.rows
    }

    pub fn is_empty(&self) -> bool {
        self.rows == 0
    }

    pub fn stage(&mut self, rows: usize, bytes: usize, now: Instant) {
        self.rows += rows;
        self.bytes += bytes;
        self.oldest.get_or_insert(now);
    }

    /// A mark came that the table does not hold yet, and nothing is staged.
    pub fn pass(&mut self, now: Instant) {
        self.ahead.get_or_insert(now);
    }

    /// When a commit is due by time alone.
    pub fn deadline(&self) -> Option<Instant> {
        match (self.oldest, self.ahead) {
            (Some(oldest), _) => Some(oldest + self.limits.interval),
            (None, Some(ahead)) => Some(ahead + self.limits.idle),
            (None, None) => None,
        }
    }

    /// Whether staged rows are to be published at this mark.
    pub fn is_due(&self, now: Instant) -> bool {
        let full = self.rows >= self.limits.rows || self.bytes >= self.limits.bytes;
        !self.is_empty() && (full || self.deadline().is_some_and(|at| at <= now))
    }

    pub fn commit(&mut self) {
        *self = Self::new(self.limits);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn limits() -> Limits {
        Limits {
            interval: Duration::from_secs(5),
            rows: 100,
            bytes: 1000,
            idle: Duration::from_secs(600),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn rows_are_due_by_count_by_weight_or_by_age() {
        let start = Instant::now();
        for (rows, bytes, age_s, due) in [
            (1, 1, 0, false),
            (100, 1, 0, true),
            (1, 1000, 0, true),
            (1, 1, 4, false),
            (1, 1, 5, true),
        ] {
            let mut cadence = Cadence::new(limits());
            cadence.stage(rows, bytes, start);
            assert_eq!(
                cadence.is_due(start + Duration::from_secs(age_s)),
                due,
                "{rows} rows, {bytes} bytes, {age_s} s"
            );
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_age_is_that_of_the_oldest_row() {
        let (start, mut cadence) = (Instant::now(), Cadence::new(limits()));
        cadence.stage(1, 1, start);
        cadence.stage(1, 1, start + Duration::from_secs(3));
        assert_eq!(cadence.deadline(), Some(start + Duration::from_secs(5)));
        cadence.commit();
        assert_eq!(cadence.deadline(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_mark_without_rows_waits_long_and_is_never_due_at_once() {
        let (start, mut cadence) = (Instant::now(), Cadence::new(limits()));
        cadence.pass(start);
        cadence.pass(start + Duration::from_secs(60));
        assert_eq!(cadence.deadline(), Some(start + limits().idle));
        assert!(!cadence.is_due(start + Duration::from_secs(3600)));
    }
}

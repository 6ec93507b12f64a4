//! How long a table keeps files that no version needs any more: what a vacuum, whoever runs it, goes by.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::log::Log;

pub(super) const DELETED_FILES: &str = "delta.deletedFileRetentionDuration";
/// The age from which on a clean-up may take versions of the log.
pub(super) const LOG: &str = "delta.logRetentionDuration";
/// Delta's own, where a table does not say.
const DEFAULT: Duration = Duration::from_secs(7 * 24 * 3600);

impl Log {
    /// The age from which on a vacuum may take a data file that no version names.
    pub fn deleted_file_retention(&self) -> Duration {
        deleted_files(&self.snapshot().properties).unwrap_or(DEFAULT)
    }
}

/// None where what the table says is no interval.
fn deleted_files(properties: &BTreeMap<String, String>) -> Option<Duration> {
    properties.get(DELETED_FILES).map_or(Some(DEFAULT), |text| parse(text))
}

/// An interval as Delta writes them: `interval 1 week`, `interval 7 days 12 hours`. Months and years, whose length varies, are none.
pub(super) fn parse(text: &str) -> Option<Duration> {
    let text = text.trim().to_ascii_lowercase();
    let words: Vec<&str> = text.strip_prefix("interval").unwrap_or(&text).split_ascii_whitespace().collect();
    let (pairs, []) = words.as_chunks::<2>() else { return None };
    let lengths = pairs.iter().map(|[count, unit]| Some((count.parse::<u64>().ok()?, micros(unit)?)));
    let lengths: Vec<(u64, u64)> = lengths.collect::<Option<_>>()?;
    let sum = lengths
        .into_iter()
        .try_fold(0_u64, |sum, (count, unit)| sum.checked_add(count.checked_mul(unit)?))?;
    (!pairs.is_empty()).then(|| Duration::from_micros(sum))
}

fn micros(unit: &str) -> Option<u64> {
    Some(match unit.strip_suffix('s').unwrap_or(unit) {
        "microsecond" => 1,
        "millisecond" => 1_000,
        "second" => 1_000_000,
        "minute" => 60_000_000,
        "hour" => 3_600_000_000,
        "day" => 24 * 3_600_000_000,
        "week" => 7 * 24 * 3_600_000_000,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_are_read_as_delta_writes_them() {
        let hours = |hours: u64| Some(Duration::from_secs(hours * 3600));
        for (text, expected) in [
            ("interval 30 days", hours(30 * 24)),
            ("interval 1 week", hours(7 * 24)),
            ("INTERVAL 168 HOURS", hours(168)),
            ("interval 1 day 12 hours", hours(36)),
            ("7 days", hours(7 * 24)),
            ("interval 0 hours", hours(0)),
            ("interval 1000000 microseconds", Some(Duration::from_secs(1))),
            ("interval 1 month", None),
            ("interval", None),
            ("", None),
            ("interval days", None),
            ("interval 1", None),
            ("interval -1 days", None),
            ("interval 99999999999999999999 days", None),
            ("interval 9999999999999999 weeks", None),
        ] {
            assert_eq!(parse(text), expected, "{text}");
        }
        assert_eq!(deleted_files(&BTreeMap::new()), hours(7 * 24), "where the table does not say");
    }
}

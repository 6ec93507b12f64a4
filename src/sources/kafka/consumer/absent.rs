//! Topics that are named and are not there.
//!
//! One that nobody has seen is a mistake in the configuration, and is told at once. One that was there may be gone for a moment only: it is
//! made anew, or a broker that has just started has not heard of it yet. So it is waited for before it is given up. Whether what comes back is
//! the same topic, its id tells.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use super::Shared;
use super::topics::Topics;
use crate::error::{Error, Result};
use crate::table::Lanes;

/// How long a topic that was there is waited for. Brokers hear within seconds of what there is; who makes a topic anew by hand takes a minute.
const GONE_MAX: Duration = Duration::from_secs(120);

#[derive(Debug, Default)]
pub(super) struct Absent {
    /// Topics that were there: in this process, or when a table was fed from them.
    seen: BTreeSet<String>,
    /// Since when those are gone that are.
    since: BTreeMap<String, Instant>,
}

impl Absent {
    /// These were there.
    pub(super) fn saw(&mut self, topics: impl IntoIterator<Item = String>) {
        self.seen.extend(topics);
    }

    /// Of the topics that were asked for these are there, and those are missing: an error, and who is to act on it.
    pub(super) fn check(&mut self, there: &Topics, missing: &[String], brokers: &str, now: Instant) -> Result<()> {
        self.saw(there.keys().map(|name| name.to_string()));
        self.since.retain(|name, _| !there.contains_key(name.as_str()));
        if let Some(name) = missing.iter().find(|name| !self.seen.contains(*name)) {
            let what = format!("There is no topic `{name}` at {brokers}. Create it, or correct `topic` in the configuration.");
            return Err(Error::config("topic_missing", what));
        }
        let since = missing.iter().map(|name| (*self.since.entry(name.clone()).or_insert(now), name));
        let Some((since, name)) = since.min() else { return Ok(()) };
        let limit = GONE_MAX.as_secs();
        Err(if now.duration_since(since) < GONE_MAX {
            Error::transient(
                "topic_missing",
                format!("Topic `{name}` is gone from {brokers}. It may be for a moment, so it is waited for, up to {limit} s."),
            )
        } else {
            Error::config(
                "topic_missing",
                format!(
                    "Topic `{name}` has been gone from {brokers} for more than {limit} s. Correct `topic` in the configuration, or take its \
                     tables out."
                ),
            )
        })
    }
}

impl Shared {
    /// The topics that any of `lanes` takes. One that is named and missing is an error.
    pub(super) fn find(&self, lanes: &[Lanes]) -> Result<Topics> {
        let (topics, missing) = self.reader.topics(lanes)?;
        let mut watched = self.watched();
        watched.absent.check(&topics, &missing, &self.reader.brokers, Instant::now())?;
        Ok(topics)
    }
}

#[cfg(test)]
mod tests {
    use super::super::topics::Topic;
    use super::*;
    use crate::error::Kind;

    fn topics(names: &[&str]) -> Topics {
        let topic = Topic {
            id: None,
            partitions: vec![0],
            leaders: BTreeMap::new(),
        };
        names.iter().map(|&name| (name.into(), topic.clone())).collect()
    }

    #[test]
    fn a_topic_that_was_there_is_waited_for_and_one_that_nobody_has_seen_is_not() {
        let (mut absent, start) = (Absent::default(), Instant::now());
        absent.saw(["held".to_owned()]);
        let mut asked = |there: &[&str], missing: &[&str], seconds: u64| {
            let missing: Vec<String> = missing.iter().map(|&name| name.to_owned()).collect();
            let told = absent.check(&topics(there), &missing, "b:9092", start + Duration::from_secs(seconds));
            told.map_err(|error| {
                assert_eq!(error.code, "topic_missing");
                assert!(missing.iter().any(|name| error.what.contains(&format!("`{name}`"))), "{error}");
                error.kind
            })
        };
        assert_eq!(asked(&[], &["new"], 0), Err(Kind::Config));
        assert_eq!(asked(&["new"], &["held"], 0), Err(Kind::Transient));
        assert_eq!(
            asked(&[], &["new", "held"], 100),
            Err(Kind::Transient),
            "it was there in this process"
        );
        assert_eq!(asked(&["new"], &["held"], 119), Err(Kind::Transient));
        assert_eq!(asked(&["new", "held"], &[], 119), Ok(()));
        assert_eq!(asked(&["new"], &["held"], 130), Err(Kind::Transient), "it was back meanwhile");
        assert_eq!(asked(&["held"], &["other"], 140), Err(Kind::Config));
        assert_eq!(asked(&[], &["held", "new"], 150), Err(Kind::Transient));
        assert_eq!(asked(&["new"], &["held"], 270), Err(Kind::Config));
    }
}

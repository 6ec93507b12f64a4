//! No two pipelines share the partitions of a topic: a group gives each partition to one member, so each of their tables would get a part.

use regex::Regex;

use super::Check;
use crate::config::{Kafka, KeyPath, Pipeline, Table};

impl Check<'_> {
    pub(super) fn groups(&mut self) {
        let mut grouped: Vec<(KeyPath, &Pipeline, &Kafka)> = Vec::new();
        for (name, pipeline) in &self.config.pipelines {
            let Some(kafka) = pipeline.kafka.as_ref().filter(|kafka| kafka.group.is_some()) else {
                continue;
            };
            let at = KeyPath::of(["pipelines", name]).key("kafka").key("group");
            for (first, other, of) in &grouped {
                let is_one = kafka.group == of.group && share_a_broker(&kafka.brokers, &of.brokers);
                if let Some(common) = common(other, pipeline).filter(|_| is_one) {
                    let group = kafka.group.as_deref().unwrap_or_default();
                    let what =
                        format!("`{first}` is the same group, `{group}`, and {common}: each table would get a part. Name another group");
                    self.wrong(at.clone(), what);
                }
            }
            grouped.push((at, pipeline, kafka));
        }
    }
}

/// Whether these lists of brokers are of one cluster, as far as names tell.
fn share_a_broker(one: &str, other: &str) -> bool {
    let named = |broker: &&str| other.split(',').any(|other| other.trim().eq_ignore_ascii_case(broker.trim()));
    one.split(',').any(|broker| named(&broker))
}

/// What topics two pipelines both read, or may both read, in words.
fn common(one: &Pipeline, other: &Pipeline) -> Option<String> {
    let pairs = one
        .tables
        .values()
        .flat_map(|one| other.tables.values().map(move |other| (one, other)));
    pairs
        .into_iter()
        .find_map(|(one, other)| match (&one.topic_pattern, &other.topic_pattern) {
            (Some(one), Some(other)) => Some(format!("`{one}` and `{other}` may match one topic")),
            (Some(pattern), None) => matched(pattern, other),
            (None, Some(pattern)) => matched(pattern, one),
            (None, None) => {
                let others = topics(other);
                let both = topics(one).into_iter().find(|topic| others.contains(topic));
                both.map(|topic| format!("both read topic `{topic}`"))
            }
        })
}

/// A topic of the table that the pattern matches. One that is no pattern is told of where it stands.
fn matched(pattern: &str, table: &Table) -> Option<String> {
    let whole = Regex::new(&format!("^(?:{pattern})$")).ok()?;
    let topic = topics(table).into_iter().find(|topic| whole.is_match(topic))?;
    Some(format!("both read topic `{topic}`, which `{pattern}` matches"))
}

fn topics(table: &Table) -> Vec<String> {
    table.topic.as_ref().map(|topics| topics.to_vec()).unwrap_or_default()
}

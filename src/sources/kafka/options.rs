//! The properties of librdkafka: what alluvium sets, what a user may set beside it, and what is refused because a promise would break.
//!
//! The promises rest on four of them. Offsets are never stored or committed by the client itself (the tables are the truth), a position
//! that is gone is an error rather than a jump (librdkafka would go to the newest record, silently), only committed records are read, and
//! what is fetched ahead is a part of the memory for rows.

use std::collections::BTreeMap;
use std::fmt;

use super::consumer;
use crate::config::{Kafka, SaslMechanism, Text};
use crate::error::{Error, Result};

/// Of the memory for rows, one part in so many is what the client may fetch ahead.
const PREFETCH_SHARE: usize = 8;
/// More than this fetched ahead makes nothing faster: it is some 100 ms of a fast broker.
const PREFETCH_BYTES_MAX: usize = 48 << 20;
/// A queued record takes so many times its payload, at some 200 bytes a record: librdkafka keeps an operation for each.
const QUEUED_OVERHEAD: usize = 3;
/// What a queued record takes beside its payload.
const QUEUED_RECORD_BYTES: usize = 400;
/// Of the memory for rows, one part in so many is what the brokers may answer with at once. The queues are looked at before they are asked,
/// so whole answers come on top of them; and compressed records, which brokers count as they are, unpack to five or ten times as much,
/// which in a queue is up to a third of the memory.
const ANSWER_SHARE: usize = 64;
/// Answers of 4 MiB hold some ten thousand records; larger ones make nothing faster.
const ANSWER_BYTES_MAX: usize = 4 << 20;
/// Below this there is more asking than answering. A batch of records that is larger comes all the same, alone.
const ANSWER_BYTES_MIN: usize = 64 << 10;
/// An answer is of so many partitions at least, where they have something.
const ANSWER_PARTITIONS: usize = 4;
/// librdkafka's default of `message.max.bytes`, above which `fetch.max.bytes` must stay.
const MESSAGE_BYTES_MAX: usize = 1_000_000;
/// More records than this fetched ahead make nothing faster.
const QUEUED_RECORDS_MAX: usize = 50_000;

/// What alluvium is built on, and what is tuned for a reader of whole backlogs that must also be quick when little comes.
const OURS: &[(&str, &str)] = &[
    ("enable.auto.commit", "false"),
    ("enable.auto.offset.store", "false"),
    ("auto.offset.reset", "error"),
    ("isolation.level", "read_committed"),
    ("enable.partition.eof", "true"),
    ("allow.auto.create.topics", "false"),
];

const TUNING: &[(&str, &str)] = &[
    ("client.id", "alluvium"),
    // A broker answers as soon as it has anything; an empty answer, which is how the end of a partition is noticed, comes after this.
    ("fetch.wait.max.ms", "100"),
    // A full queue is looked at again soon: the default of a second lets fast decoders starve.
    ("fetch.queue.backoff.ms", "20"),
    ("socket.nagle.disable", "true"),
    ("socket.keepalive.enable", "true"),
    ("reconnect.backoff.max.ms", "2000"),
    // Why a broker that expects TLS or a login cannot be reached is told by nothing else. Idle connections are closed without a word.
    ("log.connection.close", "true"),
    // Moves only the partitions that must move.
    ("partition.assignment.strategy", "cooperative-sticky"),
];

/// Why what bounds the client's memory cannot be set.
const OF_MEMORY: &str = "what is fetched ahead is bounded by `memory`";
/// Why brokers cannot be spoken to as if they were old ones: they would not be told which records to leave out.
const OLD_PROTOCOL: &str = "without the protocol of today, records of aborted transactions would become rows";

/// Properties that a configuration may not set, and why.
const REFUSED: &[(&str, &str)] = &[
    ("bootstrap.servers", "it is `brokers`"),
    ("metadata.broker.list", "it is `brokers`"),
    ("group.id", "it is `group`"),
    (
        "group.protocol",
        "a group is joined by the classic protocol, whose members keep their partitions until their rows are published",
    ),
    ("enable.auto.commit", "group offsets may only follow what the tables hold"),
    ("auto.commit.enable", "group offsets may only follow what the tables hold"),
    ("auto.commit.interval.ms", "group offsets may only follow what the tables hold"),
    ("enable.auto.offset.store", "group offsets may only follow what the tables hold"),
    (
        "auto.offset.reset",
        "a position that is gone must never be jumped over in silence; see `start` and `on_gap`",
    ),
    ("isolation.level", "records of aborted transactions would become rows"),
    ("api.version.request", OLD_PROTOCOL),
    ("broker.version.fallback", OLD_PROTOCOL),
    (
        "enable.partition.eof",
        "the ends of partitions are how a catch-up is known to be complete",
    ),
    (
        "allow.auto.create.topics",
        "a topic that is missing would be made instead of reported",
    ),
    ("queued.max.messages.kbytes", OF_MEMORY),
    ("queued.min.messages", OF_MEMORY),
    ("fetch.max.bytes", OF_MEMORY),
    ("fetch.message.max.bytes", OF_MEMORY),
    ("max.partition.fetch.bytes", OF_MEMORY),
    ("message.max.bytes", OF_MEMORY),
    (
        "test.mock.num.brokers",
        "empty brokers within this process would be read instead of yours",
    ),
    (
        "topic.blacklist",
        "a topic that it hides would be waited for in vain; name those that are to be read",
    ),
    ("topic.metadata.refresh.interval.ms", "it is `discovery`"),
    ("enable.ssl.certificate.verification", "it is `tls.insecure_skip_verify`"),
    ("ssl.endpoint.identification.algorithm", "it is `tls.insecure_skip_verify`"),
];

/// Properties for the client. Prints no values, for there are secrets among them.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Properties {
    values: BTreeMap<String, String>,
    /// Bytes of memory that the client may take for records fetched ahead, its own overhead included.
    pub prefetch_bytes: usize,
}

impl fmt::Debug for Properties {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.values.keys()).finish()
    }
}

impl Properties {
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.values.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    pub fn get(&self, name: &str) -> Option<&str> {
        self.values.get(name).map(String::as_str)
    }

    fn set(&mut self, name: &str, value: impl Into<String>) {
        self.values.insert(name.to_owned(), value.into());
    }
}

/// What is wrong with a property by itself, or None where it can be set.
pub fn misfit(name: &str, value: &Text) -> Option<String> {
    let refused = refusal(name).map(|why| format!("cannot be set: {why}; remove it"));
    refused.or_else(|| consumer::misfit(name, value))
}

/// Why a property cannot be set by a configuration, or None where it can.
fn refusal(name: &str) -> Option<&'static str> {
    REFUSED.iter().find(|(refused, _)| *refused == name).map(|(_, why)| *why)
}

/// The properties of a pipeline's client. `memory_bytes` is the pipeline's part of the memory for rows in flight; `queues` is among how
/// many queues what is fetched ahead is divided: one for each decoding thread.
pub fn properties(kafka: &Kafka, pipeline: &str, memory_bytes: usize, queues: usize) -> Result<Properties> {
    let mut all = Properties {
        prefetch_bytes: (memory_bytes / PREFETCH_SHARE).min(PREFETCH_BYTES_MAX * QUEUED_OVERHEAD),
        ..Default::default()
    };
    let queue_bytes = all.prefetch_bytes / queues.max(1);
    // There may be more brokers than are named; how many is known only once this client has asked.
    let brokers = kafka.brokers.split(',').count();
    let answer_bytes = ((memory_bytes / ANSWER_SHARE).min(ANSWER_BYTES_MAX) / brokers).max(ANSWER_BYTES_MIN);
    let fetching = [
        ("queued.max.messages.kbytes", queue_bytes / QUEUED_OVERHEAD / 1000),
        ("queued.min.messages", (queue_bytes / QUEUED_RECORD_BYTES).min(QUEUED_RECORDS_MAX)),
        ("fetch.max.bytes", answer_bytes),
        ("fetch.message.max.bytes", answer_bytes / ANSWER_PARTITIONS),
        ("message.max.bytes", answer_bytes.min(MESSAGE_BYTES_MAX)),
    ];
    for (name, value) in OURS.iter().chain(TUNING) {
        all.set(name, *value);
    }
    all.set("bootstrap.servers", &kafka.brokers);
    all.set("group.id", kafka.group.clone().unwrap_or_else(|| format!("alluvium-{pipeline}")));
    for (name, value) in fetching {
        all.set(name, value.max(1).to_string());
    }
    all.set("topic.metadata.refresh.interval.ms", kafka.discovery.0.as_millis().to_string());
    secure(kafka, &mut all)?;
    for (name, value) in &kafka.options {
        if let Some(why) = refusal(name) {
            return Err(Error::config(
                "option_refused",
                format!("`kafka.options.{name}` cannot be set: {why}. Remove it."),
            ));
        }
        if name.starts_with("s") && !TUNING.iter().any(|(ours, _)| ours == name) && all.get(name).is_some() {
            let section = if name.starts_with("sasl.") { "sasl" } else { "tls` and `sasl" };
            return Err(Error::config(
                "option_refused",
                format!("`kafka.options.{name}` is already set by `{section}`. Remove one of the two."),
            ));
        }
        all.set(name, value.reveal()?);
    }
    Ok(all)
}

/// TLS and SASL, with the certificate checked unless the configuration says in so many words that it shall not be.
fn secure(kafka: &Kafka, all: &mut Properties) -> Result<()> {
    let protocol = match (&kafka.tls, &kafka.sasl) {
        (None, None) => return Ok(()),
        (Some(_), None) => "ssl",
        (None, Some(_)) => "sasl_plaintext",
        (Some(_), Some(_)) => "sasl_ssl",
    };
    all.set("security.protocol", protocol);
    if let Some(tls) = &kafka.tls {
        let files = [
            ("ssl.ca.location", &tls.ca),
            ("ssl.certificate.location", &tls.certificate),
            ("ssl.key.location", &tls.key),
        ];
        for (name, file) in files {
            if let Some(file) = file {
                all.set(name, file.display().to_string());
            }
        }
        if let Some(password) = &tls.key_password {
            all.set("ssl.key.password", password.reveal()?);
        }
        all.set("enable.ssl.certificate.verification", (!tls.insecure_skip_verify).to_string());
        all.set(
            "ssl.endpoint.identification.algorithm",
            if tls.insecure_skip_verify { "none" } else { "https" },
        );
    }
    if let Some(sasl) = &kafka.sasl {
        let mechanism = match sasl.mechanism {
            SaslMechanism::Plain => "PLAIN",
            SaslMechanism::ScramSha256 => "SCRAM-SHA-256",
            SaslMechanism::ScramSha512 => "SCRAM-SHA-512",
        };
        all.set("sasl.mechanisms", mechanism);
        all.set("sasl.username", &sasl.username);
        all.set("sasl.password", sasl.password.reveal()?);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;

    fn kafka(toml: &str) -> Kafka {
        toml::from_str(&format!("brokers = \"localhost:9092\"\n{toml}")).expect("the test's own text")
    }

    fn made(toml: &str) -> Result<Properties> {
        properties(&kafka(toml), "shop", 512 << 20, 2)
    }

    #[test]
    fn f8_the_client_never_jumps_and_never_commits_by_itself() {
        let made = made("").unwrap();
        let expected = [
            ("auto.offset.reset", "error"),
            ("enable.auto.commit", "false"),
            ("enable.auto.offset.store", "false"),
            ("isolation.level", "read_committed"),
            ("group.id", "alluvium-shop"),
            ("bootstrap.servers", "localhost:9092"),
        ];
        for (name, value) in expected {
            assert_eq!(made.get(name), Some(value), "{name}");
        }
    }

    #[test]
    fn every_property_that_alluvium_stands_on_is_refused_by_name_and_with_a_reason() {
        let is_tuning = |name: &str| TUNING.iter().any(|(tuning, _)| *tuning == name);
        for (name, _) in made("").unwrap().iter().filter(|(name, _)| !is_tuning(name)) {
            assert!(refusal(name).is_some(), "{name} is not refused");
        }
        for (name, why) in REFUSED {
            let error = made(&format!("options = {{ \"{name}\" = \"x\" }}")).unwrap_err();
            assert_eq!(error.kind, Kind::Config);
            assert!(error.what.contains(name) && error.what.contains(why), "{}", error.what);
        }
    }

    #[test]
    fn any_other_property_is_passed_on_and_wins_over_our_tuning() {
        let made =
            made("options = { \"client.rack\" = \"a\", \"fetch.wait.max.ms\" = \"5\", \"socket.nagle.disable\" = \"false\" }").unwrap();
        assert_eq!(made.get("client.rack"), Some("a"));
        assert_eq!(made.get("fetch.wait.max.ms"), Some("5"));
        assert_eq!(made.get("socket.nagle.disable"), Some("false"));
    }

    #[test]
    fn x3_certificates_are_checked_unless_told_otherwise() {
        let checked = made("tls = {}").unwrap();
        assert_eq!(checked.get("security.protocol"), Some("ssl"));
        assert_eq!(checked.get("enable.ssl.certificate.verification"), Some("true"));
        assert_eq!(checked.get("ssl.endpoint.identification.algorithm"), Some("https"));
        let open = made("tls = { insecure_skip_verify = true }").unwrap();
        assert_eq!(open.get("enable.ssl.certificate.verification"), Some("false"));
    }

    /// SASL with the password `hunter2`, out of a file that lives as long as the first value.
    fn sasl(mechanism: &str) -> (tempfile::NamedTempFile, String) {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(&file, "hunter2\n").unwrap();
        let password = format!("{{ file = \"{}\" }}", file.path().display());
        let text = format!("sasl = {{ mechanism = \"{mechanism}\", username = \"u\", password = {password} }}\n");
        (file, text)
    }

    #[test]
    fn x1_secrets_reach_the_client_and_no_print() {
        let (_file, text) = sasl("SCRAM-SHA-512");
        let made = made(&(text + "tls = {}")).unwrap();
        assert_eq!(made.get("security.protocol"), Some("sasl_ssl"));
        assert_eq!(made.get("sasl.mechanisms"), Some("SCRAM-SHA-512"));
        assert_eq!(made.get("sasl.password"), Some("hunter2"));
        assert!(!format!("{made:?}").contains("hunter2"));
    }

    #[test]
    fn what_a_section_sets_cannot_be_set_a_second_time() {
        let (_file, text) = sasl("PLAIN");
        let error = made(&(text + "options = { \"sasl.username\" = \"v\" }")).unwrap_err();
        assert!(error.what.contains("sasl.username"), "{error}");
    }

    #[test]
    fn k17_what_is_fetched_ahead_stays_within_its_share_of_the_memory() {
        for (memory, queues) in [(1 << 20, 1), (256 << 20, 2), (16 << 30, 8)] {
            let made = properties(&kafka(""), "shop", memory, queues).unwrap();
            let queued: usize = made.get("queued.max.messages.kbytes").unwrap().parse().unwrap();
            assert!(queued * 1000 * queues * QUEUED_OVERHEAD <= memory / PREFETCH_SHARE, "{memory}");
            assert!(queued > 0);
            let records: usize = made.get("queued.min.messages").unwrap().parse().unwrap();
            assert!(
                records > 0 && records * QUEUED_RECORD_BYTES * queues <= memory / PREFETCH_SHARE,
                "{memory}"
            );
        }
    }

    #[test]
    fn k17_what_brokers_may_answer_with_at_once_is_divided_among_them() {
        let three: Kafka = toml::from_str("brokers = \"a:9092, b:9092,c:9092\"").unwrap();
        let made = properties(&three, "shop", 512 << 20, 2).unwrap();
        assert_eq!(made.get("fetch.max.bytes"), Some(((4 << 20) / 3).to_string().as_str()));
    }

    #[test]
    fn k17_a_small_memory_gets_small_answers_and_a_large_one_none_beyond_what_is_fast() {
        for (memory_mib, answer_kib) in [(4096, 4096), (512, 4096), (256, 4096), (128, 2048), (64, 1024), (16, 256), (0, 64)] {
            let made = properties(&kafka(""), "shop", memory_mib << 20, 2).unwrap();
            let bytes = |name: &str| made.get(name).unwrap().parse::<usize>().unwrap();
            assert_eq!(bytes("fetch.max.bytes"), answer_kib << 10, "{memory_mib} MiB");
            assert_eq!(bytes("fetch.message.max.bytes"), answer_kib << 8, "{memory_mib} MiB");
            let client = consumer::KafkaClient::new("shop", &made, false, std::time::Duration::from_secs(60));
            assert!(client.is_ok(), "librdkafka takes them together: {:?}", client.err());
        }
    }
}

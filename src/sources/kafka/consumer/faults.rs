//! What went wrong between us and the brokers, said so that a person can act on it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use crate::error::{Error, Kind};

/// While brokers are away the client says so many times a second: each kind of complaint is news so often.
const NEWS_EVERY: Duration = Duration::from_secs(10);

/// The client's last complaint. librdkafka tells the reason of a failure (a wrong password, a certificate) beside the call that
/// waits in vain, as an event.
#[derive(Debug, Default)]
pub(super) struct Faults {
    last: Mutex<Option<(RDKafkaErrorCode, String)>>,
    /// All brokers were down since this was last asked.
    down: AtomicBool,
    /// When each kind of complaint was last news.
    told: Mutex<Vec<(RDKafkaErrorCode, Instant)>>,
}

impl Faults {
    fn lock(&self) -> MutexGuard<'_, Option<(RDKafkaErrorCode, String)>> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn note(&self, code: RDKafkaErrorCode, reason: &str) {
        self.down.fetch_or(code == RDKafkaErrorCode::AllBrokersDown, Ordering::Relaxed);
        let mut last = self.lock();
        // "All brokers are down" follows every failure: the one before it says why.
        if code != RDKafkaErrorCode::AllBrokersDown || last.is_none() {
            *last = Some((code, reason.to_owned()));
        }
    }

    /// Whether a complaint of this kind is worth a line in the log.
    pub(super) fn is_news(&self, code: RDKafkaErrorCode) -> bool {
        let (mut told, now) = (self.told.lock().unwrap_or_else(PoisonError::into_inner), Instant::now());
        match told.iter_mut().find(|(other, _)| *other == code) {
            Some((_, at)) if now.duration_since(*at) < NEWS_EVERY => return false,
            Some((_, at)) => *at = now,
            None => told.push((code, now)),
        }
        true
    }

    pub(super) fn clear(&self) {
        *self.lock() = None;
    }

    pub(super) fn take_down(&self) -> bool {
        self.down.swap(false, Ordering::Relaxed)
    }

    /// The last complaint, when waiting longer cannot help.
    pub(super) fn hopeless(&self, brokers: &str) -> Option<Error> {
        let error = self.lock().as_ref().map(|(code, reason)| explain(*code, reason, brokers))?;
        (error.kind == Kind::Config).then_some(error)
    }

    /// Why the brokers did not answer.
    pub(super) fn unanswered(&self, brokers: &str) -> Error {
        match self.lock().as_ref() {
            Some((code, reason)) => explain(*code, reason, brokers),
            None => explain(RDKafkaErrorCode::OperationTimedOut, "no answer in time", brokers),
        }
    }
}

/// What an error of the client means, and who acts.
pub(super) fn explain(code: RDKafkaErrorCode, reason: &str, brokers: &str) -> Error {
    use RDKafkaErrorCode as C;
    match code {
        C::Authentication | C::SaslAuthenticationFailed | C::UnsupportedSASLMechanism | C::IllegalSASLState => Error::config(
            "broker_denied",
            format!("The brokers at {brokers} refused to log us in: {reason}. Check `kafka.sasl`: mechanism, username and password."),
        ),
        C::TopicAuthorizationFailed | C::GroupAuthorizationFailed | C::ClusterAuthorizationFailed => Error::config(
            "broker_denied",
            format!(
                "The brokers at {brokers} deny access: {reason}. Grant the user READ and DESCRIBE on the topics, and READ on the group."
            ),
        ),
        C::SSL => Error::config(
            "broker_tls",
            format!(
                "No TLS connection to the brokers at {brokers}: {reason}. Check `kafka.tls`: `ca` must name who signed their certificate."
            ),
        ),
        C::UnknownTopic | C::UnknownTopicOrPartition | C::UnknownPartition | C::UnknownTopicId => {
            // Not the operator's fault while a topic is being deleted or moved: the next start tells.
            Error::transient("topic_missing", format!("A topic or partition is no longer there: {reason}"))
        }
        C::AutoOffsetReset | C::OffsetOutOfRange => Error::transient(
            "offset_out_of_range",
            format!("A position is no longer in its topic; the next start compares the two: {reason}"),
        ),
        C::FencedInstanceId | C::Fatal => Error::config(
            "member_fenced",
            format!("The group does not take us back: {reason}. Give every instance a `group.instance.id` of its own."),
        ),
        C::MessageSizeTooLarge | C::BadMessage | C::BadCompression => Error::config(
            "record_unreadable",
            format!("A record cannot be fetched: {reason}. If it is too large, raise `kafka.options.\"receive.message.max.bytes\"`."),
        ),
        _ => {
            // The client suspects as much only now and then.
            let plain = if reason.contains("SSL_HANDSHAKE") {
                " A broker that ends the TLS handshake may speak PLAINTEXT: then leave out `kafka.tls`."
            } else {
                ""
            };
            Error::transient(
                "broker_unreachable",
                format!(
                    "The brokers at {brokers} cannot be reached: {reason} ({code}). Check `kafka.brokers` and that they are up.{plain}"
                ),
            )
        }
    }
}

/// An error of a call to the client.
pub(super) fn failed(what: &str, error: KafkaError, brokers: &str) -> Error {
    match error.rdkafka_error_code() {
        Some(code) => explain(code, what, brokers).because(error),
        None => Error::bug(format!("The Kafka client refused to {what}")).because(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reason_before_all_brokers_down_is_the_one_that_is_told() {
        let faults = Faults::default();
        faults.note(
            RDKafkaErrorCode::Authentication,
            "SASL authentication error: Invalid username or password",
        );
        faults.note(RDKafkaErrorCode::AllBrokersDown, "1/1 brokers are down");
        let error = faults.hopeless("b:9092").expect("a wrong password stays wrong");
        assert_eq!((error.kind, error.code), (Kind::Config, "broker_denied"));
        assert!(
            error.what.contains("Invalid username") && error.what.contains("b:9092"),
            "{}",
            error.what
        );
        faults.clear();
        assert!(faults.hopeless("b:9092").is_none());
        assert_eq!(faults.unanswered("b:9092").kind, Kind::Transient);
    }

    #[test]
    fn a_broker_that_is_down_is_worth_waiting_for_and_a_certificate_is_not() {
        assert_eq!(
            explain(RDKafkaErrorCode::BrokerTransportFailure, "refused", "b").code,
            "broker_unreachable"
        );
        assert_eq!(explain(RDKafkaErrorCode::SSL, "verify failed", "b").kind, Kind::Config);
    }
}

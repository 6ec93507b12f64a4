//! What went wrong between us and the brokers, said so that a person can act on it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use super::suspicion::{distrust, suspicion};
use crate::error::{Error, Kind};

/// While brokers are away the client says so many times a second: each kind of complaint is news so often.
const NEWS_EVERY: Duration = Duration::from_secs(10);

/// How long a complaint outranks a lesser one. librdkafka repeats what has not changed every 30 s.
const RANK_MAX: Duration = Duration::from_secs(60);

/// What the client complained about. librdkafka tells the reason of a failure (a wrong password, a certificate) beside the call that
/// waits in vain, as an event, and the same one again only now and then.
#[derive(Debug, Default)]
pub(super) struct Faults {
    /// The most telling one since the brokers last answered.
    best: Mutex<Option<Complaint>>,
    /// All brokers were down since this was last asked.
    down: AtomicBool,
    /// When each kind of complaint was last news.
    told: Mutex<Vec<(RDKafkaErrorCode, Instant)>>,
}

#[derive(Debug)]
struct Complaint {
    code: RDKafkaErrorCode,
    reason: String,
    rank: Rank,
    at: Instant,
    /// It came after the brokers were last asked for something.
    fresh: bool,
}

/// How much a complaint tells. One address of a broker may refuse while another says what is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    /// "All brokers are down" follows every failure: another one says why.
    Nothing,
    /// Nobody answers there.
    Absence,
    /// It was answered, and the connection ended in a way that makes the configuration suspect.
    Suspicion,
    /// Waiting longer cannot help.
    Hopeless,
}

impl Rank {
    fn of(code: RDKafkaErrorCode, reason: &str) -> Self {
        if code == RDKafkaErrorCode::AllBrokersDown {
            Rank::Nothing
        } else if explain(code, reason, "").kind == Kind::Config {
            Rank::Hopeless
        } else if suspicion(reason).is_some() {
            Rank::Suspicion
        } else {
            Rank::Absence
        }
    }
}

impl Faults {
    fn lock(&self) -> MutexGuard<'_, Option<Complaint>> {
        self.best.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn note(&self, code: RDKafkaErrorCode, reason: &str) {
        self.down.fetch_or(code == RDKafkaErrorCode::AllBrokersDown, Ordering::Relaxed);
        let (rank, now) = (Rank::of(code, reason), Instant::now());
        let mut best = self.lock();
        let outranked = |best: &Complaint| rank == Rank::Nothing || best.rank > rank && now.duration_since(best.at) < RANK_MAX;
        if !best.as_ref().is_some_and(outranked) {
            *best = Some(Complaint {
                code,
                reason: reason.to_owned(),
                rank,
                at: now,
                fresh: true,
            });
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

    /// The brokers are about to be asked: what was hopeless may have been mended.
    pub(super) fn begin(&self) {
        if let Some(best) = self.lock().as_mut() {
            best.fresh = false;
        }
    }

    /// The brokers have answered all that they were asked.
    pub(super) fn answered(&self) {
        *self.lock() = None;
    }

    pub(super) fn take_down(&self) -> bool {
        self.down.swap(false, Ordering::Relaxed)
    }

    /// What was complained about since the brokers are asked, when waiting longer cannot help.
    pub(super) fn hopeless(&self, brokers: &str) -> Option<Error> {
        let best = self.lock();
        let hopeless = best.as_ref().filter(|best| best.fresh && best.rank == Rank::Hopeless)?;
        Some(explain(hopeless.code, &hopeless.reason, brokers))
    }

    /// Why the brokers did not answer.
    pub(super) fn unanswered(&self, brokers: &str) -> Error {
        match self.lock().as_ref() {
            Some(best) => explain(best.code, &best.reason, brokers),
            None => explain(RDKafkaErrorCode::OperationTimedOut, "no answer in time", brokers),
        }
    }
}

/// Why no client can be made.
pub(super) fn refused(error: KafkaError) -> Error {
    match &error {
        KafkaError::ClientConfig(_, reason, name, _) => Error::config(
            "option_refused",
            format!("`kafka.options.{name}` is refused by librdkafka: {reason}. Correct or remove it."),
        ),
        // librdkafka's default, which is not built in.
        KafkaError::ClientCreation(reason) if reason.contains("SASL mechanism GSSAPI") => Error::config(
            "option_refused",
            "`kafka.options.\"security.protocol\"` asks for a login, and Kerberos (GSSAPI), which that means by itself, is not built in. \
             Log in with `kafka.sasl`, which sets the protocol as well, or name another in `kafka.options.\"sasl.mechanisms\"`.",
        ),
        KafkaError::ClientCreation(reason) => Error::config(
            "option_refused",
            format!("The options of `kafka` do not fit together: {reason}. Correct `kafka.tls`, `kafka.sasl` or `kafka.options`."),
        ),
        _ => Error::bug("the Kafka client could not be made").because(error),
    }
}

/// What librdkafka makes of a broker that does not answer its first question. Brokers of today are frozen, or busy.
const MISGUESS: &str = ": probably due to broker version < 0.10 (see api.version.request configuration)";

/// What an error of the client means, and who acts.
pub(super) fn explain(code: RDKafkaErrorCode, reason: &str, brokers: &str) -> Error {
    use RDKafkaErrorCode as C;
    let reason = reason.replace(MISGUESS, "");
    let reason = reason.as_str();
    // A broker that goes while it is asked for a login has refused nothing.
    let interrupted = reason.contains("handshake failed: Local: ");
    let foreign = code == C::BadMessage && reason.contains("in state APIVERSION_QUERY");
    if let Some(fix) = distrust(reason) {
        return Error::config(
            "broker_tls",
            format!("No TLS connection to the brokers at {brokers}: {reason}. {fix}"),
        );
    }
    match code {
        C::Authentication | C::SaslAuthenticationFailed | C::UnsupportedSASLMechanism | C::IllegalSASLState if !interrupted => {
            let fix = if reason.contains("not valid in current SASL state") {
                "They ask for no login there: leave out `kafka.sasl`, or name the port that does."
            } else {
                "Check `kafka.sasl`: mechanism, username and password."
            };
            Error::config(
                "broker_denied",
                format!("The brokers at {brokers} refused to log us in: {reason}. {fix}"),
            )
        }
        C::TopicAuthorizationFailed | C::GroupAuthorizationFailed | C::ClusterAuthorizationFailed => Error::config(
            "broker_denied",
            format!(
                "The brokers at {brokers} deny access: {reason}. Grant the user READ and DESCRIBE on the topics, and READ on the group."
            ),
        ),
        C::SSL => Error::config(
            "broker_tls",
            format!(
                "No TLS connection to the brokers at {brokers}: {reason}. Check `kafka.tls`, and that the port in `kafka.brokers` speaks TLS."
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
        C::BadCompression => Error::config(
            "record_unreadable",
            format!(
                "A batch of records cannot be unpacked: {reason}. If it is not broken, it is too large once it is unpacked: set \
                 `kafka.options.\"receive.message.max.bytes\"`, 100000000 by default, to three times what it unpacks to."
            ),
        ),
        C::MessageSizeTooLarge | C::BadMessage if !foreign => Error::config(
            "record_unreadable",
            format!(
                "A batch of records cannot be fetched: {reason}. If it is too large, raise `kafka.options.\"receive.message.max.bytes\"`."
            ),
        ),
        _ => {
            let fix = match suspicion(reason) {
                Some(suspicion) => format!("{suspicion} Otherwise check `kafka.brokers` and that they are up."),
                None => "Check `kafka.brokers` and that they are up.".to_owned(),
            };
            Error::transient(
                "broker_unreachable",
                format!("The brokers at {brokers} cannot be reached: {reason} ({code}). {fix}"),
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
        faults.begin();
        assert!(faults.hopeless("b:9092").is_none(), "it may have been mended");
        assert_eq!(
            faults.unanswered("b:9092").code,
            "broker_denied",
            "the client does not repeat at once what has not changed"
        );
        faults.answered();
        assert_eq!(faults.unanswered("b:9092").kind, Kind::Transient);
    }

    #[test]
    fn what_a_broker_answers_tells_more_than_an_address_that_refuses() {
        let faults = Faults::default();
        let transport = RDKafkaErrorCode::BrokerTransportFailure;
        let refused = "b:9093/bootstrap: Connect to ipv6#[::1]:9093 failed: Connection refused (after 0ms in state CONNECT)";
        faults.note(transport, refused);
        let closed = "b:9093/bootstrap: Disconnected: connection closed by peer (after 2ms in state APIVERSION_QUERY)";
        faults.note(transport, closed);
        faults.note(transport, refused);
        faults.note(RDKafkaErrorCode::AllBrokersDown, "1/1 brokers are down");
        let error = faults.unanswered("b:9093");
        assert_eq!(
            (error.kind, error.code, error.exit_code()),
            (Kind::Transient, "broker_unreachable", 69)
        );
        assert!(error.what.contains("kafka.tls = {}"), "{}", error.what);
        assert!(faults.hopeless("b:9093").is_none(), "it may be about to start");
        faults.answered();
        faults.note(transport, refused);
        let error = faults.unanswered("b:9093");
        assert!(error.what.contains("refused") && !error.what.contains("tls"), "{}", error.what);
    }

    #[test]
    fn who_asks_for_a_login_without_a_mechanism_is_told_where_it_is_set() {
        let made = rdkafka::ClientConfig::new()
            .set("security.protocol", "SASL_SSL")
            .create::<rdkafka::consumer::BaseConsumer>();
        let error = refused(made.err().expect("no Kerberos is built in"));
        assert_eq!((error.kind, error.code), (Kind::Config, "option_refused"));
        assert!(error.what.contains("`kafka.sasl`") && !error.what.contains("recompile"), "{error}");
    }

    #[test]
    fn who_refused_what_is_told_from_who_went_meanwhile() {
        let cases = [
            (
                "SASL authentication error: Authentication failed: Invalid username or password (after 2ms in state AUTH_REQ)",
                77,
                "password",
            ),
            (
                "SASL PLAIN mechanism handshake failed: Broker: Request not valid in current SASL state: broker's supported mechanisms:  \
                 (after 1ms in state AUTH_HANDSHAKE)",
                77,
                "leave out `kafka.sasl`",
            ),
            (
                "SASL SCRAM-SHA-256 mechanism handshake failed: Broker: Unsupported SASL mechanism: broker's supported mechanisms: PLAIN",
                77,
                "mechanism",
            ),
            (
                "SASL PLAIN mechanism handshake failed: Local: Broker transport failure: broker's supported mechanisms: (n/a)",
                69,
                "that they are up",
            ),
        ];
        for (reason, exit_code, word) in cases {
            let error = explain(RDKafkaErrorCode::Authentication, reason, "b");
            assert_eq!(error.exit_code(), exit_code, "{error}");
            assert!(error.what.contains(word), "{error}");
        }
    }

    #[test]
    fn a_broker_that_does_not_answer_is_not_taken_for_an_old_one() {
        let reason = format!("b:9092/1: ApiVersionRequest failed: Local: Timed out{MISGUESS} (after 10000ms in state APIVERSION_QUERY)");
        let error = explain(RDKafkaErrorCode::BrokerTransportFailure, &reason, "b");
        assert!(
            error.what.contains("Timed out (after") && !error.what.contains("version <"),
            "{error}"
        );
    }

    #[test]
    fn a_certificate_is_the_operators_to_mend_however_the_client_calls_it() {
        let reason = "error:0A000086:SSL routines::certificate verify failed (after 1ms in state SSL_HANDSHAKE)";
        for code in [RDKafkaErrorCode::SSL, RDKafkaErrorCode::BrokerTransportFailure] {
            let error = explain(code, reason, "b");
            assert_eq!((error.kind, error.code), (Kind::Config, "broker_tls"), "{error}");
            assert!(error.what.contains("kafka.tls.ca"), "{error}");
        }
    }

    #[test]
    fn a_batch_that_is_too_large_once_it_is_unpacked_is_called_one() {
        let error = explain(
            RDKafkaErrorCode::BadCompression,
            "t/0 at offset 5: Decompression (codec 0x4) of message at 5 of 900000 bytes failed: Local: Bad compression",
            "b",
        );
        assert_eq!(error.kind, Kind::Config);
        assert!(
            error.what.contains("A batch of records") && error.what.contains("receive.message.max.bytes"),
            "{error}"
        );
        assert!(!error.what.contains("A record"), "{error}");
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

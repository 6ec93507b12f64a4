//! What librdkafka tells of its own accord: faults, rebalances, logs. It calls from its own threads, and from calls that serve events.

use std::sync::Arc;

use rdkafka::TopicPartitionList;
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, ConsumerContext};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::types::RDKafkaRespErr;
use tracing::{debug, error, warn};

use super::faults::{Faults, explain};
use super::member::{Group, Refusal};
use crate::telemetry;

/// What librdkafka tells beside its answers.
pub struct Context {
    pub pipeline: Arc<str>,
    pub faults: Arc<Faults>,
    pub group_id: String,
    /// Of a member; None of the client that reads, which only tells its group how far the tables are.
    pub group: Option<Arc<Group>>,
}

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        // The name of the thread that says it stands before.
        let thread = message.strip_prefix("[thrd:").and_then(|rest| rest.split_once("]: "));
        let message = thread.map_or(message, |(_, message)| message);
        match level {
            RDKafkaLogLevel::Warning | RDKafkaLogLevel::Notice | RDKafkaLogLevel::Info if facility == "FAIL" => {
                // A connection that the broker ended. Graver failures of connections come as errors too; of this one nothing else tells.
                self.faults.note(RDKafkaErrorCode::BrokerTransportFailure, message);
                debug!(pipeline = %self.pipeline, message, "a broker hung up");
            }
            RDKafkaLogLevel::Emerg
            | RDKafkaLogLevel::Alert
            | RDKafkaLogLevel::Critical
            | RDKafkaLogLevel::Error
            | RDKafkaLogLevel::Warning => {
                // Failures of connections come as errors too, and repeat while a broker is down.
                debug!(pipeline = %self.pipeline, facility, message, "librdkafka warns");
            }
            _ => debug!(pipeline = %self.pipeline, facility, message, "librdkafka"),
        }
    }

    fn stats_raw(&self, _: &[u8]) {}

    fn error(&self, error: KafkaError, reason: &str) {
        let code = error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Unknown);
        if code == RDKafkaErrorCode::PartitionEOF {
            return;
        }
        if code == RDKafkaErrorCode::GroupAuthorizationFailed && self.group.is_none() {
            if self.faults.is_news(code) {
                let what =
                    "group offsets are not committed, so dashboards do not see how far the tables are: grant the user READ on the group";
                warn!(pipeline = %self.pipeline, group = self.group_id, reason, "{what}");
            }
            return;
        }
        if let Some(group) = &self.group
            && let Some(refusal) = match code {
                RDKafkaErrorCode::InconsistentGroupProtocol => Some(Refusal::Strategy),
                RDKafkaErrorCode::GroupAuthorizationFailed => Some(Refusal::Denied(reason.to_owned())),
                _ => None,
            }
        {
            // No fault of the connection: the flow that waits for lanes tells it.
            group.refuse(refusal);
            return;
        }
        self.faults.note(code, reason);
        let told = explain(code, reason, "");
        metrics::counter!(
            telemetry::ERRORS,
            "pipeline" => self.pipeline.to_string(), "stage" => "kafka", "code" => told.code, "kind" => told.kind.name()
        )
        .increment(1);
        if self.faults.is_news(code) {
            warn!(pipeline = %self.pipeline, reason, "the connection to the brokers has a fault");
        } else {
            debug!(pipeline = %self.pipeline, reason, "the connection to the brokers has a fault, still");
        }
    }
}

impl ConsumerContext for Context {
    fn rebalance(&self, consumer: &BaseConsumer<Self>, event: RDKafkaRespErr, lanes: &mut TopicPartitionList) {
        match &self.group {
            Some(group) => group.rebalance(consumer, event, lanes),
            None => error!("a rebalance came to a client that is in no group"),
        }
    }

    fn commit_callback(&self, result: KafkaResult<()>, _: &TopicPartitionList) {
        if let Err(error) = result {
            // The tables are the truth; these offsets are for dashboards.
            warn!(pipeline = %self.pipeline, %error, "group offsets were not committed");
        }
    }
}

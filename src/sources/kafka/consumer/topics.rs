//! What the brokers tell about topics: their partitions, who leads these, and their ids.
//!
//! Topic ids come from DescribeTopics, which the safe wrapper does not have; the `unsafe` of it stands in this file, and in `admin`.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{CStr, CString};
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rdkafka::bindings as native;
use rdkafka::consumer::Consumer;
use rdkafka::error::{IsError, RDKafkaErrorCode};
use rdkafka::metadata::Metadata;
use rdkafka::types::RDKafkaRespErr;

use super::Reader;
use super::admin::{Answer, ask_for_operations, may_read};
use super::faults::{explain, failed};
use crate::error::{Error, Result};
use crate::table::Lanes;

/// How long the brokers may take to answer. A start over a slow link takes a second.
pub(super) const ANSWER_MAX: Duration = Duration::from_secs(10);
/// Between two looks at what the client complains about: a refused login is told at once rather than after all the waiting.
pub(super) const LOOK_EVERY: Duration = Duration::from_millis(250);
/// Kafka's own topics, which no pattern means.
const INTERNAL: &[&str] = &[
    "__consumer_offsets",
    "__transaction_state",
    "__share_group_state",
    "__cluster_metadata",
];

/// What is asked of topics beside what they are.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Beside {
    Nothing,
    /// What we may do with them.
    Operations,
}

/// A topic as the brokers describe it.
#[derive(Clone, Debug, Eq)]
pub(super) struct Topic {
    pub id: Option<String>,
    pub partitions: Vec<i32>,
    /// The broker that leads a partition, where one does.
    pub leaders: BTreeMap<i32, i32>,
}

/// Leaders move, and the topic stays what it was.
impl PartialEq for Topic {
    fn eq(&self, other: &Self) -> bool {
        self.id == other.id && self.partitions == other.partitions
    }
}

pub(super) type Topics = BTreeMap<Arc<str>, Topic>;

/// Topics as one broker knows them: None where it knows none of that name.
pub(super) type Told = Vec<(String, Option<Topic>)>;

impl Reader {
    /// The topics that any of `lanes` takes, and the names of those that are named and missing. A pattern may match nothing.
    pub(super) fn topics(&self, lanes: &[Lanes]) -> Result<(Topics, Vec<String>)> {
        let mut named = BTreeSet::new();
        for lanes in lanes {
            if let Lanes::Topics(topics) = lanes {
                named.extend(topics.iter().cloned());
            }
        }
        let mut names = named.clone();
        if lanes.iter().any(|lanes| !matches!(lanes, Lanes::Topics(_))) {
            let all = self.topic_names()?;
            names.extend(all.into_iter().filter(|name| lanes.iter().any(|lanes| lanes.takes_topic(name))));
        }
        let names: Vec<String> = names.into_iter().collect();
        let (mut topics, mut missing) = (Topics::new(), Vec::new());
        for (name, topic) in self.topics_at(None, &names)? {
            match topic {
                Some(topic) => _ = topics.insert(name.into(), topic),
                None if named.contains(&name) => missing.push(name),
                None => {} // It has gone since all were listed.
            }
        }
        Ok((topics, missing))
    }

    /// Repeats a call to the brokers until it is answered, time is up, or the client says why it never will be.
    pub(super) fn ask<T>(
        &self,
        what: &str,
        patience: Duration,
        mut call: impl FnMut(Duration) -> rdkafka::error::KafkaResult<T>,
    ) -> Result<T> {
        let deadline = Instant::now() + patience;
        loop {
            match call(LOOK_EVERY * 4) {
                Ok(answer) => return Ok(answer),
                Err(error) => {
                    use RDKafkaErrorCode as C;
                    let code = error.rdkafka_error_code();
                    let waiting = matches!(
                        code,
                        Some(C::BrokerTransportFailure | C::OperationTimedOut | C::AllBrokersDown | C::TimedOutQueue | C::DestroyBroker)
                    );
                    let settling = matches!(
                        code,
                        Some(
                            C::LeaderNotAvailable
                                | C::NotLeaderForPartition
                                | C::UnknownTopicOrPartition
                                | C::UnknownPartition
                                | C::OffsetNotAvailable
                        )
                    );
                    if let Some(hopeless) = self.faults.hopeless(&self.brokers) {
                        return Err(hopeless);
                    }
                    let deadline = if self.stopping.load(Ordering::Relaxed) {
                        Instant::now()
                    } else {
                        deadline
                    };
                    if !waiting && !settling {
                        return Err(failed(what, error, &self.brokers));
                    }
                    if Instant::now() >= deadline {
                        return Err(if waiting {
                            self.faults.unanswered(&self.brokers)
                        } else {
                            failed(what, error, &self.brokers)
                        });
                    }
                }
            }
        }
    }

    fn topic_names(&self) -> Result<Vec<String>> {
        let all = self.ask("list the topics", ANSWER_MAX, |wait| self.consumer.fetch_metadata(None, wait))?;
        let names = all.topics().iter().map(|topic| topic.name().to_owned());
        Ok(names.filter(|name| !INTERNAL.contains(&name.as_str())).collect())
    }

    /// The high watermark, as the last answer to a fetch told it.
    pub(super) fn known_end(&self, topic: &str, partition: i32) -> Option<u64> {
        let name = CString::new(topic).ok()?;
        let (mut low, mut high) = (-1, -1);
        // SAFETY: client and name live during the call.
        let error = unsafe { native::rd_kafka_get_watermark_offsets(self.native(), name.as_ptr(), partition, &mut low, &mut high) };
        if error.is_error() { None } else { u64::try_from(high).ok() }
    }

    /// What a broker that answers tells of all of them, and of this topic.
    fn metadata(&self, topic: &str) -> Result<Metadata> {
        let ask = || {
            self.ask("reach the brokers", ANSWER_MAX, |wait| {
                self.consumer.fetch_metadata(Some(topic), wait)
            })
        };
        let answer = ask()?;
        if answer.orig_broker_id() < 0 {
            return ask(); // The first one comes over a connection that does not know yet whose it is.
        }
        Ok(answer)
    }

    /// A broker that answers. Requests for administrators go to the controller otherwise, and a cluster may be without one for a moment.
    fn any_broker(&self, topic: &str) -> Result<i32> {
        let answer = self.metadata(topic)?;
        let known = |id: &i32| *id >= 0;
        let named = || answer.brokers().iter().map(|broker| broker.id()).find(known);
        Ok(Some(answer.orig_broker_id()).filter(known).or_else(named).unwrap_or(-1))
    }

    /// Topics as a broker knows them that says that this one is gone. None where it says that this one is there.
    pub(super) fn topics_without(&self, broker: i32, names: &[String]) -> Result<Option<Told>> {
        let Some(first) = names.first() else { return Ok(None) };
        let answer = self.metadata(first)?;
        let other = answer.orig_broker_id();
        if other < 0 || answer.brokers().iter().any(|there| there.id() == broker) {
            return Ok(None);
        }
        self.topics_at(Some(other), names).map(Some)
    }

    /// Topics as a broker knows them, by DescribeTopics. Without a broker, any is asked.
    pub(super) fn topics_at(&self, broker: Option<i32>, names: &[String]) -> Result<Told> {
        let Some(first) = names.first() else { return Ok(Vec::new()) };
        let broker = broker.map_or_else(|| self.any_broker(first), Ok)?;
        let answer = self.describe(names, broker, Beside::Nothing)?;
        let mut topics = Vec::with_capacity(names.len());
        for topic in described(&answer) {
            // SAFETY: part of the answer, which lives until the end of this function.
            let (name, error) = unsafe {
                let name = CStr::from_ptr(native::rd_kafka_TopicDescription_name(topic))
                    .to_string_lossy()
                    .into_owned();
                let error = native::rd_kafka_TopicDescription_error(topic);
                (
                    name,
                    if error.is_null() {
                        RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR
                    } else {
                        native::rd_kafka_error_code(error)
                    },
                )
            };
            match RDKafkaErrorCode::from(error) {
                RDKafkaErrorCode::NoError => topics.push((name, Some(read_topic(topic)))),
                RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic => topics.push((name, None)),
                code => return Err(explain(code, &format!("topic `{name}`: {code}"), &self.brokers)),
            }
        }
        Ok(topics)
    }

    /// Fails where one of the topics may be described and not be read, as far as the brokers tell that.
    pub(super) fn must_be_readable(&self, names: &[String]) -> Result<()> {
        let Some(first) = names.first() else { return Ok(()) };
        let answer = self.describe(names, self.any_broker(first)?, Beside::Operations)?;
        for topic in described(&answer) {
            let mut count = 0;
            // SAFETY: part of the answer, which lives until the end of this function; there are as many as it says.
            let (name, may_read) = unsafe {
                let operations = native::rd_kafka_TopicDescription_authorized_operations(topic, &mut count);
                let name = CStr::from_ptr(native::rd_kafka_TopicDescription_name(topic));
                (name.to_string_lossy(), may_read(operations, count))
            };
            if may_read == Some(false) {
                let what = format!("topic `{name}` may be looked at and not be read");
                return Err(explain(RDKafkaErrorCode::TopicAuthorizationFailed, &what, &self.brokers));
            }
        }
        Ok(())
    }

    fn describe(&self, names: &[String], broker: i32, beside: Beside) -> Result<Answer> {
        use RDKafkaErrorCode as C;
        let mut answer = self.ask_for_topics(names, broker, beside)?;
        if answer.error() == Some(C::DestroyBroker) {
            // The client made its connection to the broker anew, and threw away what waited for the old one: a broker that was gone for a
            // moment is left out of what the others tell.
            answer = self.ask_for_topics(names, broker, beside)?;
        }
        match answer.error() {
            None => Ok(answer),
            Some(C::OperationTimedOut | C::BrokerTransportFailure) => Err(self.faults.unanswered(&self.brokers)),
            Some(code) => Err(explain(code, &format!("describing the topics: {code}"), &self.brokers)),
        }
    }

    fn ask_for_topics(&self, names: &[String], broker: i32, beside: Beside) -> Result<Answer> {
        let names: Vec<CString> = names
            .iter()
            .map(|name| CString::new(name.as_str()).map_err(|_| Error::config("topic_missing", format!("`{name}` is no topic's name"))))
            .collect::<Result<_>>()?;
        let mut pointers: Vec<_> = names.iter().map(|name| name.as_ptr()).collect();
        let kind = native::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBETOPICS;
        self.ask_as_administrator(kind, ANSWER_MAX, |client, options, queue| {
            // SAFETY: names and collection live while they are used, and the collection is given back once; all else is the caller's.
            unsafe {
                if beside == Beside::Operations {
                    ask_for_operations(options);
                }
                native::rd_kafka_AdminOptions_set_broker(options, broker, ptr::null_mut(), 0);
                let collection = native::rd_kafka_TopicCollection_of_topic_names(pointers.as_mut_ptr(), pointers.len());
                native::rd_kafka_DescribeTopics(client, collection, options, queue);
                native::rd_kafka_TopicCollection_destroy(collection);
            }
        })
    }
}

fn read_topic(topic: *const native::rd_kafka_TopicDescription_t) -> Topic {
    // SAFETY: `topic` is part of an answer that the caller holds, and so is all that is reached from it.
    unsafe {
        let mut count = 0;
        let list = native::rd_kafka_TopicDescription_partitions(topic, &mut count);
        let list = if list.is_null() {
            &[]
        } else {
            std::slice::from_raw_parts(list, count)
        };
        let (mut partitions, mut leaders) = (Vec::with_capacity(list.len()), BTreeMap::new());
        for &partition in list {
            let number = native::rd_kafka_TopicPartitionInfo_partition(partition);
            partitions.push(number);
            let leader = native::rd_kafka_TopicPartitionInfo_leader(partition);
            if !leader.is_null() {
                leaders.insert(number, native::rd_kafka_Node_id(leader));
            }
        }
        Topic {
            id: read_id(native::rd_kafka_TopicDescription_topic_id(topic)),
            partitions,
            leaders,
        }
    }
}

/// The id as Kafka's own tools print it. Brokers without ids tell zero.
fn read_id(id: *const native::rd_kafka_Uuid_t) -> Option<String> {
    if id.is_null() {
        return None;
    }
    // SAFETY: not null, and the caller holds what it is part of.
    let halves = unsafe {
        [
            native::rd_kafka_Uuid_most_significant_bits(id),
            native::rd_kafka_Uuid_least_significant_bits(id),
        ]
    };
    if halves == [0, 0] {
        return None;
    }
    Some(URL_SAFE_NO_PAD.encode(halves.map(i64::to_be_bytes).concat()))
}

/// The topics that an answer to DescribeTopics is about.
fn described(answer: &Answer) -> Vec<*const native::rd_kafka_TopicDescription_t> {
    // SAFETY: the result is part of the answer, which lives, and the list of pointers is copied.
    unsafe {
        let result = native::rd_kafka_event_DescribeTopics_result(answer.event());
        let mut count = 0;
        let topics = if result.is_null() {
            ptr::null_mut()
        } else {
            native::rd_kafka_DescribeTopics_result_topics(result, &mut count)
        };
        if topics.is_null() {
            Vec::new()
        } else {
            std::slice::from_raw_parts(topics, count).to_vec()
        }
    }
}

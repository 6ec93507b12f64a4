//! What the brokers tell about topics: their partitions, their ids, and where they begin and end.
//!
//! Topic ids come from DescribeTopics, which the safe wrapper does not have; the `unsafe` of it stands in this file.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{CStr, CString};
use std::ptr::{self, NonNull};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rdkafka::bindings as native;
use rdkafka::consumer::Consumer;
use rdkafka::error::{IsError, RDKafkaErrorCode};
use rdkafka::types::RDKafkaRespErr;
use rdkafka::{Offset, TopicPartitionList};

use super::Reader;
use super::faults::{explain, failed};
use crate::error::{Error, Result};
use crate::sources::kafka::lanes::Partition;
use crate::table::Lanes;

/// How long the brokers may take to answer. A start over a slow link takes a second.
const ANSWER_MAX: Duration = Duration::from_secs(10);
/// Between two looks at what the client complains about: a refused login is told at once rather than after all the waiting.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// Kafka's own topics, which no pattern means.
const INTERNAL: &[&str] = &[
    "__consumer_offsets",
    "__transaction_state",
    "__share_group_state",
    "__cluster_metadata",
];

/// A topic as the brokers describe it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Topic {
    pub id: Option<String>,
    pub partitions: Vec<i32>,
}

pub(super) type Topics = BTreeMap<Arc<str>, Topic>;

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
    fn ask<T>(&self, what: &str, mut call: impl FnMut(Duration) -> rdkafka::error::KafkaResult<T>) -> Result<T> {
        let deadline = Instant::now() + ANSWER_MAX;
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
        let all = self.ask("list the topics", |wait| self.consumer.fetch_metadata(None, wait))?;
        let names = all.topics().iter().map(|topic| topic.name().to_owned());
        Ok(names.filter(|name| !INTERNAL.contains(&name.as_str())).collect())
    }

    /// Where these partitions begin and end now. The end is that of the committed records: what `read_committed` can reach.
    pub(super) fn partitions(&self, topics: &Topics, wanted: impl Fn(&str, i32) -> bool) -> Result<Vec<Partition>> {
        let mut list = TopicPartitionList::new();
        for (name, topic) in topics {
            for &partition in topic.partitions.iter().filter(|&&partition| wanted(name, partition)) {
                list.add_partition(name, partition);
            }
        }
        if list.count() == 0 {
            return Ok(Vec::new());
        }
        let (low, high) = (self.offsets(&list, Offset::Beginning)?, self.offsets(&list, Offset::End)?);
        let place = |((name, partition), low): (&(String, i32), &u64)| {
            let (name, topic) = topics.get_key_value(name.as_str())?;
            let high = *high.get(&(name.to_string(), *partition))?;
            Some(Partition {
                topic: Arc::clone(name),
                partition: *partition,
                topic_id: topic.id.clone(),
                low: *low,
                high,
            })
        };
        Ok(low.iter().filter_map(place).collect())
    }

    fn offsets(&self, list: &TopicPartitionList, which: Offset) -> Result<BTreeMap<(String, i32), u64>> {
        let answer = self.ask("ask where the partitions begin and end", |wait| {
            let mut asked = list.clone();
            asked.set_all_offsets(which)?;
            let answer = self.consumer.offsets_for_times(asked, wait)?;
            answer.elements().iter().try_for_each(|element| element.error())?;
            Ok(answer)
        })?;
        let offset = |element: &rdkafka::topic_partition_list::TopicPartitionListElem<'_>| {
            let raw = element.offset().to_raw().and_then(|raw| u64::try_from(raw).ok());
            let raw = raw.ok_or_else(|| {
                Error::transient(
                    "broker_error",
                    format!("No offset was told for {}/{}", element.topic(), element.partition()),
                )
            });
            Ok(((element.topic().to_owned(), element.partition()), raw?))
        };
        answer.elements().iter().map(offset).collect()
    }

    /// The high watermark, as the last answer to a fetch told it.
    pub(super) fn known_end(&self, topic: &str, partition: i32) -> Option<u64> {
        let name = CString::new(topic).ok()?;
        let (mut low, mut high) = (-1, -1);
        // SAFETY: client and name live during the call.
        let error = unsafe { native::rd_kafka_get_watermark_offsets(self.native(), name.as_ptr(), partition, &mut low, &mut high) };
        if error.is_error() { None } else { u64::try_from(high).ok() }
    }

    /// A broker that answers. Requests for administrators go to the controller otherwise, and a cluster may be without one for a moment.
    fn any_broker(&self, topic: &str) -> Result<i32> {
        let answer = self.ask("reach the brokers", |wait| self.consumer.fetch_metadata(Some(topic), wait))?;
        // A first answer comes over a connection that does not know yet whose it is; then any broker of the answer will do.
        let known = |id: &i32| *id >= 0;
        let named = || answer.brokers().iter().map(|broker| broker.id()).find(known);
        Ok(Some(answer.orig_broker_id()).filter(known).or_else(named).unwrap_or(-1))
    }

    /// Topics as a broker knows them, by DescribeTopics: None where it knows none of that name. Without a broker, any is asked.
    pub(super) fn topics_at(&self, broker: Option<i32>, names: &[String]) -> Result<Vec<(String, Option<Topic>)>> {
        let Some(first) = names.first() else { return Ok(Vec::new()) };
        let broker = broker.map_or_else(|| self.any_broker(first), Ok)?;
        let answer = Described::ask(self, names, broker)?;
        let mut topics = Vec::with_capacity(names.len());
        for topic in answer.topics() {
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
        let partitions = list
            .iter()
            .map(|&partition| native::rd_kafka_TopicPartitionInfo_partition(partition))
            .collect();
        Topic {
            id: read_id(native::rd_kafka_TopicDescription_topic_id(topic)),
            partitions,
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

/// An answer to DescribeTopics, given back by drop.
struct Described {
    event: NonNull<native::rd_kafka_event_t>,
}

impl Described {
    fn ask(reader: &Reader, names: &[String], broker: i32) -> Result<Self> {
        use RDKafkaErrorCode as C;
        let mut answer = Self::wait(reader, names, broker)?;
        if answer.error() == Some(C::DestroyBroker) {
            // The client made its connection to the broker anew, and threw away what waited for the old one: a broker that was gone for a
            // moment is left out of what the others tell.
            answer = Self::wait(reader, names, broker)?;
        }
        match answer.error() {
            None => Ok(answer),
            Some(C::OperationTimedOut | C::BrokerTransportFailure) => Err(reader.faults.unanswered(&reader.brokers)),
            Some(code) => Err(explain(code, &format!("describing the topics: {code}"), &reader.brokers)),
        }
    }

    /// Asks, and waits until there is an answer, time is up, or the client says why there never will be one.
    fn wait(reader: &Reader, names: &[String], broker: i32) -> Result<Self> {
        let names: Vec<CString> = names
            .iter()
            .map(|name| CString::new(name.as_str()).map_err(|_| Error::config("topic_missing", format!("`{name}` is no topic's name"))))
            .collect::<Result<_>>()?;
        let mut pointers: Vec<_> = names.iter().map(|name| name.as_ptr()).collect();
        // SAFETY: client, names, collection, options and queue live while they are used, and each is given back once. An answer that
        // comes after the queue was given back is dropped by librdkafka.
        let event = unsafe {
            let client = reader.native();
            let queue = native::rd_kafka_queue_new(client);
            let collection = native::rd_kafka_TopicCollection_of_topic_names(pointers.as_mut_ptr(), pointers.len());
            let options = native::rd_kafka_AdminOptions_new(client, native::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBETOPICS);
            let wait_ms = ANSWER_MAX.as_millis() as i32;
            native::rd_kafka_AdminOptions_set_request_timeout(options, wait_ms, ptr::null_mut(), 0);
            native::rd_kafka_AdminOptions_set_broker(options, broker, ptr::null_mut(), 0);
            native::rd_kafka_DescribeTopics(client, collection, options, queue);
            native::rd_kafka_AdminOptions_destroy(options);
            native::rd_kafka_TopicCollection_destroy(collection);
            let deadline = Instant::now() + ANSWER_MAX;
            let event = loop {
                let event = native::rd_kafka_queue_poll(queue, LOOK_EVERY.as_millis() as i32);
                let over = Instant::now() >= deadline || reader.stopping.load(Ordering::Relaxed);
                if !event.is_null() || over || reader.faults.hopeless(&reader.brokers).is_some() {
                    break event;
                }
            };
            native::rd_kafka_queue_destroy(queue);
            event
        };
        NonNull::new(event)
            .map(|event| Self { event })
            .ok_or_else(|| reader.faults.unanswered(&reader.brokers))
    }

    fn error(&self) -> Option<RDKafkaErrorCode> {
        // SAFETY: the event lives.
        let error = unsafe { native::rd_kafka_event_error(self.event.as_ptr()) };
        error.is_error().then(|| error.into())
    }

    fn topics(&self) -> Vec<*const native::rd_kafka_TopicDescription_t> {
        // SAFETY: the result is part of the event, and the list of pointers is copied.
        unsafe {
            let result = native::rd_kafka_event_DescribeTopics_result(self.event.as_ptr());
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
}

impl Drop for Described {
    fn drop(&mut self) {
        // SAFETY: ours, and given back once.
        unsafe { native::rd_kafka_event_destroy(self.event.as_ptr()) }
    }
}

//! Where partitions begin and end now, as the brokers tell it that lead them.
//!
//! Each leader is asked for itself, and all at once: one that does not answer holds up its own partitions, and no others. Once it did not,
//! it is not waited for as long as one that did.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::{Arc, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use rdkafka::consumer::Consumer;
use rdkafka::topic_partition_list::TopicPartitionListElem;
use rdkafka::{Offset, TopicPartitionList};

use super::Reader;
use super::topics::{ANSWER_MAX, Topics};
use super::waiting::Waiting;
use crate::error::{Error, Kind, Result};
use crate::sources::kafka::lanes::Partition;

/// How long a broker is waited for that did not answer the last time: the others wait for it each time that a flow is opened. Long enough to
/// connect, and it is asked again and again.
const UNHEARD_MAX: Duration = Duration::from_secs(2);

impl Reader {
    /// The brokers that did not answer when they were last asked; None is in it where there was no leader to ask.
    pub(super) fn unheard(&self) -> MutexGuard<'_, BTreeSet<Option<i32>>> {
        self.unheard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where the partitions of these topics begin and end now, in their order, and which have to wait. The end is that of the committed
    /// records: what `read_committed` can reach. Fails where no leader answers.
    pub(super) fn partitions(&self, topics: &Topics) -> Result<(Vec<Partition>, Waiting)> {
        let mut led: BTreeMap<Option<i32>, Vec<(Arc<str>, i32)>> = BTreeMap::new();
        for (name, topic) in topics {
            for &partition in &topic.partitions {
                let leader = topic.leaders.get(&partition).copied();
                led.entry(leader).or_default().push((Arc::clone(name), partition));
            }
        }
        let answers = thread::scope(|scope| {
            let unheard = self.unheard().clone();
            let asked = led.iter().map(|(leader, places)| {
                let patience = if unheard.contains(leader) { UNHEARD_MAX } else { ANSWER_MAX };
                thread::Builder::new().spawn_scoped(scope, move || self.led(topics, places, patience))
            });
            let asked: Vec<_> = asked.collect::<io::Result<_>>()?;
            let answer = |asked: thread::ScopedJoinHandle<'_, Result<Vec<Partition>>>| {
                let answer = asked.join();
                answer.unwrap_or_else(|_| Err(Error::bug("asking a broker panicked; its message stands in the log")))
            };
            Ok::<_, io::Error>(asked.into_iter().map(answer).collect::<Vec<_>>())
        });
        let no_thread = |error: io::Error| Error::transient("no_thread", "no thread could be started to ask the brokers").because(error);
        let (mut partitions, mut waiting, mut why) = (Vec::new(), Waiting::new(), None);
        for ((leader, places), answer) in led.into_iter().zip(answers.map_err(no_thread)?) {
            match answer {
                Ok(told) => {
                    self.unheard().remove(&leader);
                    partitions.extend(told);
                }
                Err(error) if error.kind == Kind::Transient => {
                    self.unheard().insert(leader);
                    waiting.extend(places.into_iter().map(|place| (place, leader)));
                    why = Some(error);
                }
                Err(error) => return Err(error),
            }
        }
        if let Some(error) = why.filter(|_| partitions.is_empty()) {
            return Err(error);
        }
        partitions.sort_by(|one, other| (&one.topic, one.partition).cmp(&(&other.topic, other.partition)));
        Ok((partitions, waiting))
    }

    /// Those that one broker leads.
    fn led(&self, topics: &Topics, places: &[(Arc<str>, i32)], patience: Duration) -> Result<Vec<Partition>> {
        let mut list = TopicPartitionList::with_capacity(places.len());
        for (name, partition) in places {
            list.add_partition(name, *partition);
        }
        let ask = |which| self.offsets(&list, which, patience);
        let (low, high) = (ask(Offset::Beginning)?, ask(Offset::End)?);
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

    fn offsets(&self, list: &TopicPartitionList, which: Offset, patience: Duration) -> Result<BTreeMap<(String, i32), u64>> {
        let answer = self.ask("ask where the partitions begin and end", patience, |wait| {
            let mut asked = list.clone();
            asked.set_all_offsets(which)?;
            let answer = self.consumer.offsets_for_times(asked, wait)?;
            answer.elements().iter().try_for_each(|element| element.error())?;
            Ok(answer)
        })?;
        let offset = |element: &TopicPartitionListElem<'_>| {
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
}

//! From a run of records to what a flow is made of: rows for each table, dead letters, and how far the lanes were read.
//!
//! Every record that a table's lanes bring is counted there exactly once: as a row, as one the table had already, as a dead letter, or as
//! something that is no row (a tombstone, a heartbeat).

use std::borrow::Cow;
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::RecordBatch;
use serde_json::{Value, json};

use super::lanes::Plan;
use super::{MakeDecoder, Route};
use crate::batch::ChangeBatch;
use crate::budget::Permit;
use crate::error::{Error, Result};
use crate::position::Lane;
use crate::reject::{DeadLetter, DeadLetters, Place, Reject, text_or_hex};
use crate::sources::decode::{Decoder, Headers, Message, Terms};
use crate::table::TableId;
use crate::telemetry;

/// How rows weigh in memory beside their messages, before any were seen. JSON shrinks when it becomes columns; wide rows grow.
const WEIGHT_AT_FIRST: f64 = 1.5;
/// What a row weighs at least: offsets, validity, operation.
const ROW_BYTES: usize = 32;
/// Smaller runs teach nothing about weight: their columns are mostly what columns weigh empty.
const TEACHING_BYTES: usize = 64 << 10;

/// What was made of a run.
#[derive(Debug)]
pub(super) struct Portion {
    /// Dead letters first: data waits with its commit for them.
    pub batches: Vec<ChangeBatch>,
    /// By number of the lane: the last offset that is contained.
    pub reached: Vec<(usize, u64)>,
    /// By number of the table.
    pub counts: Vec<Counts>,
    /// By number of the lane: records and their bytes.
    pub received: Vec<(usize, u64, u64)>,
    /// It ends in rejects: better not shown before it is known whether anything readable follows.
    pub doubtful: bool,
}

impl Portion {
    /// No records, but the ends of lanes.
    pub(super) fn only_reached(reached: Vec<(usize, u64)>) -> Self {
        Self {
            batches: Vec::new(),
            reached,
            counts: Vec::new(),
            received: Vec::new(),
            doubtful: false,
        }
    }
}

/// What became of the records of one table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub written: u64,
    pub deduplicated: u64,
    pub dead_letter: u64,
    pub filtered: u64,
    pub tombstone: u64,
    /// Parts of records that are no columns.
    pub unknown_members: u64,
}

/// One table, as one thread sees it.
struct Fed {
    id: TableId,
    /// By number of the lane, as in the plan.
    wants: Vec<Option<u64>>,
    /// The last record of it that this thread read could not be read.
    in_doubt: bool,
}

/// By number of the table: rejects since the last record that could be read, whichever thread had it. Each sees a part of the lanes only, and
/// on a machine with many cores each part would be let through.
pub(super) struct Streaks(Mutex<Vec<u64>>);

impl Streaks {
    pub(super) fn new(tables: usize) -> Arc<Self> {
        Arc::new(Self(Mutex::new(vec![0; tables])))
    }

    /// Goes on with so many messages, of which those at these places are rejects: the longest row, and the one that is open now.
    fn go_on(&self, table: usize, messages: usize, places: impl Iterator<Item = usize>) -> (u64, u64) {
        let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (longest, streak) = streaks(open[table], messages, places);
        open[table] = streak;
        (longest, streak)
    }
}

/// A decoder and the tables that it feeds: tables whose messages are written alike share one decoding.
struct Feed {
    make: MakeDecoder,
    terms: Terms,
    decoder: Box<dyn Decoder>,
    tables: Vec<usize>,
    /// Bytes of rows per byte of message, as last seen.
    weight: f64,
}

/// Makes portions. Each decoding thread has its own.
pub(super) struct Batcher {
    lanes: Vec<Lane>,
    tables: Vec<Fed>,
    feeds: Vec<Feed>,
    letters: DeadLetters,
    letters_table: TableId,
    limits: Limits,
    streaks: Arc<Streaks>,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// So many rejects in a row stop the pipeline.
    pub rejects_in_a_row: u64,
    /// Of a larger record no row is made.
    pub record_bytes: usize,
}

/// Messages in the order in which they came, and the number of each one's lane.
#[derive(Clone, Copy)]
pub(super) struct Run<'a> {
    pub messages: &'a [Message<'a>],
    pub lanes: &'a [usize],
}

/// Which messages of a run a table gets: their places, rising.
#[derive(PartialEq, Eq)]
enum Selection {
    All,
    Some(Vec<usize>),
}

impl Selection {
    fn messages<'a>(&self, run: Run<'a>) -> Cow<'a, [Message<'a>]> {
        match self {
            Selection::All => Cow::Borrowed(run.messages),
            Selection::Some(places) => places.iter().map(|&place| run.messages[place]).collect(),
        }
    }

    /// The place in the run of the selected message with this number.
    fn place(&self, number: usize) -> usize {
        match self {
            Selection::All => number,
            Selection::Some(places) => places[number],
        }
    }
}

impl Batcher {
    /// `streaks` is shared by all threads of a flow.
    pub(super) fn new(
        routes: &[Route],
        plan: &Plan,
        letters_table: &TableId,
        letters: DeadLetters,
        limits: Limits,
        streaks: &Arc<Streaks>,
    ) -> Result<Self> {
        let mut feeds: Vec<Feed> = Vec::new();
        for (table, route) in routes.iter().enumerate() {
            let terms = Terms {
                record_bytes_max: limits.record_bytes,
                in_one_order: plan.partitions[table] <= 1,
            };
            let shares = |feed: &&mut Feed| Arc::ptr_eq(&feed.make, &route.decoder) && feed.terms == terms;
            match feeds.iter_mut().find(shares) {
                Some(feed) => feed.tables.push(table),
                None => feeds.push(Feed {
                    make: Arc::clone(&route.decoder),
                    terms,
                    decoder: (route.decoder)(terms)?,
                    tables: vec![table],
                    weight: WEIGHT_AT_FIRST,
                }),
            }
        }
        let fed = |(table, route): (usize, &Route)| Fed {
            id: route.table.clone(),
            wants: plan.lanes.iter().map(|lane| lane.wants[table]).collect(),
            in_doubt: false,
        };
        Ok(Self {
            lanes: plan.lanes.iter().map(|lane| lane.lane.clone()).collect(),
            tables: routes.iter().enumerate().map(fed).collect(),
            feeds,
            letters,
            letters_table: letters_table.clone(),
            limits,
            streaks: Arc::clone(streaks),
        })
    }

    /// What the rows of so many messages are likely to weigh.
    pub(super) fn weight(&self, messages: usize, bytes: usize) -> usize {
        let feed = |feed: &Feed| (bytes as f64 * feed.weight) as usize * feed.tables.len() + messages * ROW_BYTES;
        self.feeds.iter().map(feed).sum()
    }

    /// Whether a record's schema is new to a table that lacks the record.
    pub(super) fn is_new(&self, message: &Message<'_>, lane: usize) -> bool {
        let lacks = |&table: &usize| self.tables[table].wants[lane].is_some_and(|from| message.offset as u64 >= from);
        let mut feeds = self.feeds.iter();
        feeds.any(|feed| feed.tables.iter().any(lacks) && feed.decoder.is_new(message))
    }

    /// Makes a portion of a run. The permit is what [`Self::weight`] asked for.
    pub(super) fn portion(&mut self, run: Run<'_>, mut permit: Permit) -> Result<Portion> {
        let counts = vec![Counts::default(); self.tables.len()];
        let (reached, received) = summary(run);
        let mut portion = Portion {
            batches: Vec::new(),
            reached,
            counts,
            received,
            doubtful: false,
        };
        let firsts = first_offsets(run);
        for feed in 0..self.feeds.len() {
            let tables = self.feeds[feed].tables.clone();
            let selections: Vec<_> = tables
                .iter()
                .map(|&table| self.select(table, run, &firsts, &mut portion.counts[table]))
                .collect();
            // Tables that lack the same records share the columns. While one of them still catches up, each is decoded for itself.
            if selections.iter().all(|selection| *selection == selections[0]) {
                self.feed(feed, &tables, run, &selections[0], &mut portion, &mut permit)?;
            } else {
                for (table, selection) in tables.iter().zip(&selections) {
                    self.feed(feed, &[*table], run, selection, &mut portion, &mut permit)?;
                }
            }
        }
        if let Some(rows) = self.letters.take(telemetry::now_us())? {
            let mut letters = ChangeBatch::puts(self.letters_table.clone(), rows);
            letters.permit = Some(permit.split(letters.rows.get_array_memory_size()));
            portion.batches.insert(0, letters);
        }
        portion.doubtful = self.tables.iter().any(|table| table.in_doubt);
        Ok(portion)
    }

    /// Which messages the table lacks. Counts those that it has.
    fn select(&self, table: usize, run: Run<'_>, firsts: &[(usize, i64)], counts: &mut Counts) -> Selection {
        let wants = &self.tables[table].wants;
        let lacks = |lane: usize, offset: i64| wants[lane].is_some_and(|from| offset as u64 >= from);
        if firsts.iter().all(|&(lane, offset)| lacks(lane, offset)) {
            return Selection::All;
        }
        let mut some = Vec::new();
        for (place, (message, &lane)) in run.messages.iter().zip(run.lanes).enumerate() {
            if lacks(lane, message.offset) {
                some.push(place);
            } else if wants[lane].is_some() {
                counts.deduplicated += 1;
            }
        }
        Selection::Some(some)
    }

    /// Decodes the selected messages, and gives the rows to all these tables.
    fn feed(
        &mut self,
        feed: usize,
        tables: &[usize],
        run: Run<'_>,
        selection: &Selection,
        portion: &mut Portion,
        permit: &mut Permit,
    ) -> Result<()> {
        let messages = selection.messages(run);
        if messages.is_empty() {
            return Ok(());
        }
        let decoded = self.feeds[feed].decoder.decode(&messages);
        let decoded = decoded.map_err(|error| error.of(&self.tables[tables[0]].id))?;
        self.weigh(feed, messages.iter().map(Message::bytes).sum(), &decoded.rows);
        let newest_ms = messages.iter().filter_map(|message| message.timestamp_ms).max();
        let lane_of = |number: usize| run.lanes[selection.place(number)];
        for &table in tables {
            self.reject(table, &messages, lane_of, &decoded.rejects)?;
            let counts = &mut portion.counts[table];
            counts.dead_letter += decoded.rejects.len() as u64;
            counts.written += decoded.written() as u64;
            counts.tombstone += decoded.tombstones as u64;
            counts.filtered += decoded.filtered as u64;
            counts.unknown_members += decoded.unknown_members;
            if decoded.rows.num_rows() > 0 {
                portion.batches.push(ChangeBatch {
                    table: self.tables[table].id.clone(),
                    rows: decoded.rows.clone(),
                    ops: decoded.ops.clone(),
                    unchanged: decoded.unchanged.clone(),
                    newest_ms,
                    permit: Some(permit.split(decoded.rows.get_array_memory_size())),
                });
            }
        }
        Ok(())
    }

    /// Learns what rows weigh: at once when they are heavier than thought, slowly when they are lighter.
    fn weigh(&mut self, feed: usize, payload: usize, rows: &RecordBatch) {
        if payload >= TEACHING_BYTES && rows.num_rows() > 0 {
            let weight = &mut self.feeds[feed].weight;
            *weight = (rows.get_array_memory_size() as f64 / payload as f64).max(*weight * 0.9);
        }
    }

    /// Writes the rejects of one table down as dead letters. Too many in a row are an error: then the fault is not in single records.
    fn reject(&mut self, table: usize, messages: &[Message<'_>], lane_of: impl Fn(usize) -> usize, rejects: &[Reject]) -> Result<()> {
        let numbers = rejects.iter().map(|reject| reject.index);
        let (longest, streak) = self.streaks.go_on(table, messages.len(), numbers);
        self.tables[table].in_doubt = streak > 0;
        if longest >= self.limits.rejects_in_a_row
            && let Some(reject) = rejects.last()
        {
            let (id, lane) = (&self.tables[table].id, &self.lanes[lane_of(reject.index)]);
            let offset = messages[reject.index].offset;
            return Err(Error::data(
                "too_many_rejects",
                format!(
                    "{longest} records for table `{id}` in a row could not be read, the last at {lane} offset {offset}: {}. None of them \
                     was passed over. Correct the table's `format` or `schema`, or raise `dead_letters.stop_after`.",
                    reject.message
                ),
            ));
        }
        for reject in rejects {
            let message = &messages[reject.index];
            self.letters.push(&DeadLetter {
                lane: &self.lanes[lane_of(reject.index)],
                position: message.offset as u64,
                place: Place::Position,
                table: self.tables[table].id.as_str(),
                key: message.key,
                value: message.value,
                headers: headers_json(message.headers),
                timestamp_us: message.timestamp_ms.and_then(|ms| ms.checked_mul(1000)),
                schema_id: None,
                reject,
            });
        }
        Ok(())
    }
}

/// A lane, and the last offset that was read of it.
type Reached = (usize, u64);
/// A lane, and the number of records and their bytes.
type Received = (usize, u64, u64);

/// The last offset, the number of records and their bytes, by lane.
fn summary(run: Run<'_>) -> (Vec<Reached>, Vec<Received>) {
    let mut reached: Vec<Reached> = Vec::new();
    let mut received: Vec<Received> = Vec::new();
    let mut at = usize::MAX;
    for (message, &lane) in run.messages.iter().zip(run.lanes) {
        // Neighbours are mostly of one lane.
        if at == usize::MAX || reached[at].0 != lane {
            at = reached.iter().position(|(other, _)| *other == lane).unwrap_or_else(|| {
                reached.push((lane, 0));
                received.push((lane, 0, 0));
                reached.len() - 1
            });
        }
        reached[at].1 = message.offset as u64;
        received[at].1 += 1;
        received[at].2 += message.bytes() as u64;
    }
    (reached, received)
}

/// The lowest offset of each lane in the run. Offsets rise, so it is the first.
fn first_offsets(run: Run<'_>) -> Vec<(usize, i64)> {
    let mut firsts: Vec<(usize, i64)> = Vec::new();
    let mut last = usize::MAX;
    for (message, &lane) in run.messages.iter().zip(run.lanes) {
        if lane != last && !firsts.iter().any(|(other, _)| *other == lane) {
            firsts.push((lane, message.offset));
        }
        last = lane;
    }
    firsts
}

/// The longest row of rejects that ends within these messages, and the one that is still open at their end. `places` rise.
fn streaks(before: u64, messages: usize, places: impl Iterator<Item = usize>) -> (u64, u64) {
    let (mut longest, mut open, mut next) = (before, before, 0);
    for place in places {
        open = if place == next { open + 1 } else { 1 };
        longest = longest.max(open);
        next = place + 1;
    }
    if next < messages {
        open = 0;
    }
    (longest, open)
}

/// Headers as JSON: a list of pairs, for names may repeat. A value is null where there is none.
fn headers_json(headers: Headers<'_>) -> Option<String> {
    let headers = headers.0.filter(|headers| headers.count() > 0)?;
    let pair = |index| {
        let (name, value) = headers.header(index);
        json!([name, value.map(text_or_hex)])
    };
    Some(Value::Array((0..headers.count()).map(pair).collect()).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::Op;
    use crate::budget::Budget;
    use crate::reject::delivered::Delivered;
    use crate::sources::decode::{Decoded, ReadHeaders};
    use crate::sources::kafka::lanes::Planned;
    use crate::table::Lanes;
    use arrow::array::{Array, AsArray, Int64Array};
    use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef, TimestampMicrosecondType};
    use proptest::prelude::*;

    /// Rows are offsets. A key of `b` is bad, of `t` a tombstone, of `f` nothing that concerns a table.
    struct Offsets(SchemaRef);

    impl Decoder for Offsets {
        fn schema(&self) -> &SchemaRef {
            &self.0
        }
        fn decode(&mut self, messages: &[Message<'_>]) -> Result<Decoded> {
            let kind = |kind: &'static [u8]| move |message: &&Message<'_>| message.key == Some(kind);
            let is_row = |message: &&Message<'_>| message.key == Some(b"r");
            let origins = messages.iter().enumerate().filter(|(_, message)| is_row(message));
            let origins = origins.map(|(index, _)| index as u32).collect();
            let offsets: Int64Array = messages.iter().filter(is_row).map(|message| message.offset).collect();
            let reject = |(index, _)| Reject {
                index,
                stage: "decode",
                code: "malformed",
                message: "bad".to_owned(),
            };
            Ok(Decoded {
                ops: vec![Op::Put; offsets.len()],
                origins,
                rows: RecordBatch::try_new(Arc::clone(&self.0), vec![Arc::new(offsets)]).unwrap(),
                unchanged: None,
                rejects: messages
                    .iter()
                    .enumerate()
                    .filter(|(_, message)| message.key == Some(b"b"))
                    .map(reject)
                    .collect(),
                tombstones: messages.iter().filter(kind(b"t")).count(),
                filtered: messages.iter().filter(kind(b"f")).count(),
                unknown_members: 0,
            })
        }
    }

    fn routes(tables: &[&str]) -> Vec<Route> {
        let schema = Arc::new(Schema::new(vec![Field::new("offset", DataType::Int64, false)]));
        let decoder: MakeDecoder = Arc::new(move |_| Ok(Box::new(Offsets(Arc::clone(&schema)))));
        let route = |table: &&str| Route {
            table: TableId::new(*table),
            lanes: Lanes::All,
            decoder: Arc::clone(&decoder),
        };
        tables.iter().map(route).collect()
    }

    /// One lane `t/0`, with what each table wants of it.
    fn batcher(wants: &[Option<u64>], stop_after: u64) -> Batcher {
        batcher_beside(wants, Delivered::default(), stop_after)
    }

    fn batcher_beside(wants: &[Option<u64>], delivered: Delivered, stop_after: u64) -> Batcher {
        one_of(wants, delivered, stop_after, &Streaks::new(wants.len()))
    }

    /// The batcher of one of several threads.
    fn one_of(wants: &[Option<u64>], delivered: Delivered, stop_after: u64, streaks: &Arc<Streaks>) -> Batcher {
        let names = ["a", "b", "c"];
        let lane = Planned {
            lane: Lane::kafka("t", 0, Some("A")),
            topic: "t".into(),
            partition: 0,
            start: 0,
            end: 0,
            wants: wants.to_vec(),
        };
        let plan = Plan {
            partitions: vec![1; wants.len()],
            lanes: vec![lane],
            ..Plan::default()
        };
        let limits = Limits {
            rejects_in_a_row: stop_after,
            record_bytes: 100,
        };
        let pipeline: Arc<str> = "p".into();
        let letters = DeadLetters::new(&pipeline, &Arc::new(delivered));
        let routes = routes(&names[..wants.len()]);
        Batcher::new(&routes, &plan, &TableId::new("dead"), letters, limits, streaks).unwrap()
    }

    fn messages(kinds: &str) -> Vec<Message<'_>> {
        let message = |(offset, _): (usize, char)| Message {
            topic: "t",
            partition: 0,
            offset: offset as i64,
            timestamp_ms: None,
            key: Some(&kinds.as_bytes()[offset..=offset]),
            value: Some(b"v"),
            headers: Headers(None),
        };
        kinds.char_indices().map(message).collect()
    }

    fn portion(batcher: &mut Batcher, messages: &[Message<'_>]) -> Result<Portion> {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let permit = runtime.block_on(Budget::new(1 << 20).acquire(1 << 20));
        batcher.portion(
            Run {
                messages,
                lanes: &vec![0; messages.len()],
            },
            permit,
        )
    }

    fn offsets(portion: &Portion, table: &str) -> Vec<i64> {
        let of_table = portion.batches.iter().filter(|batch| batch.table.as_str() == table);
        of_table
            .flat_map(|batch| batch.rows.column(0).as_primitive::<Int64Type>().values().to_vec())
            .collect()
    }

    #[test]
    fn tables_of_one_decoder_share_columns_and_while_they_lag_apart_each_gets_what_it_lacks() {
        let together = portion(&mut batcher(&[Some(0), Some(0)], 9), &messages("rrrr")).unwrap();
        let [a, b] = &together.batches[..] else { panic!("{together:?}") };
        assert!(Arc::ptr_eq(a.rows.column(0), b.rows.column(0)), "decoded once");
        let apart = portion(&mut batcher(&[Some(3), Some(1), None], 9), &messages("rrrr")).unwrap();
        assert_eq!(offsets(&apart, "a"), [3]);
        assert_eq!(offsets(&apart, "b"), [1, 2, 3]);
        assert_eq!(offsets(&apart, "c"), [0; 0]);
        assert_eq!(
            apart.counts[0],
            Counts {
                written: 1,
                deduplicated: 3,
                ..Counts::default()
            }
        );
        assert_eq!(apart.counts[2], Counts::default(), "what a lane does not feed is not counted");
        assert_eq!(apart.reached, [(0, 3)]);
    }

    #[test]
    fn dead_letters_come_first_and_of_each_table_those_that_are_not_there_yet() {
        let mut delivered = Delivered::default();
        delivered.insert("a/t/0@A/0");
        delivered.insert("a/t/0@B/2");
        let portion = portion(&mut batcher_beside(&[Some(0), Some(0)], delivered, 9), &messages("brbr")).unwrap();
        let tables: Vec<_> = portion.batches.iter().map(|batch| batch.table.as_str()).collect();
        assert_eq!(tables, ["dead", "a", "b"]);
        let text = |name: &str| portion.batches[0].rows.column_by_name(name).unwrap().as_string::<i32>().clone();
        let (id, lane) = (text("id"), text("lane"));
        let letters: Vec<_> = (0..id.len()).map(|row| (id.value(row), lane.value(row))).collect();
        assert_eq!(
            letters,
            [("a/t/0@A/2", "t/0"), ("b/t/0@A/0", "t/0"), ("b/t/0@A/2", "t/0")],
            "another incarnation's is another letter, and so is another table's"
        );
        assert_eq!(portion.counts[0].dead_letter, 2, "it is one either way");
        assert!(portion.batches.iter().all(|batch| batch.permit.is_some()));
    }

    #[test]
    fn a_letters_time_that_does_not_fit_is_null() {
        let mut run = messages("bb");
        (run[0].timestamp_ms, run[1].timestamp_ms) = (Some(i64::MAX), Some(7));
        let portion = portion(&mut batcher(&[Some(0)], 9), &run).unwrap();
        let times = portion.batches[0].rows.column_by_name("timestamp").unwrap();
        let times: Vec<_> = times.as_primitive::<TimestampMicrosecondType>().iter().collect();
        assert_eq!(times, [None, Some(7000)]);
    }

    #[test]
    fn a_letters_headers_tell_texts_from_bytes() {
        struct Pairs(&'static [(&'static str, Option<&'static [u8]>)]);
        impl ReadHeaders for Pairs {
            fn count(&self) -> usize {
                self.0.len()
            }
            fn header(&self, index: usize) -> (&str, Option<&[u8]>) {
                self.0[index]
            }
        }
        let pairs = Pairs(&[
            ("a", Some(b"0x00ff")),
            ("a", Some(b"\x00\xff")),
            ("b", Some(b"{\"hex\":\"00ff\"}")),
            ("b", Some(b"")),
            ("c", None),
        ]);
        let told = headers_json(Headers(Some(&pairs))).unwrap();
        let expected = r#"[["a","0x00ff"],["a",{"hex":"00ff"}],["b","{\"hex\":\"00ff\"}"],["b",""],["c",null]]"#;
        assert_eq!(told, expected);
        assert_eq!(headers_json(Headers(Some(&Pairs(&[])))), None);
        assert_eq!(headers_json(Headers(None)), None);
    }

    #[test]
    fn decoders_are_told_whether_the_records_of_their_tables_are_in_one_order() {
        let plan = Plan {
            partitions: vec![1, 2, 1],
            ..Plan::default()
        };
        let limits = Limits {
            rejects_in_a_row: 9,
            record_bytes: 100,
        };
        let letters = DeadLetters::new(&"p".into(), &Arc::new(Delivered::default()));
        let routes = routes(&["a", "b", "c"]);
        let batcher = Batcher::new(&routes, &plan, &TableId::new("dead"), letters, limits, &Streaks::new(3)).unwrap();
        let feeds: Vec<_> = batcher
            .feeds
            .iter()
            .map(|feed| (feed.terms.in_one_order, &feed.tables[..]))
            .collect();
        assert_eq!(feeds, [(true, &[0, 2][..]), (false, &[1])]);
        assert_eq!(batcher.feeds[1].terms.record_bytes_max, 100);
    }

    #[test]
    fn k12_rejects_in_a_row_are_counted_over_runs_and_a_readable_record_ends_the_row() {
        let mut batcher = batcher(&[Some(0)], 4);
        assert!(portion(&mut batcher, &messages("rbb")).unwrap().doubtful);
        assert!(!portion(&mut batcher, &messages("bt")).unwrap().doubtful, "a tombstone can be read");
        assert!(portion(&mut batcher, &messages("bbb")).unwrap().doubtful);
        let error = portion(&mut batcher, &messages("brr")).unwrap_err();
        assert_eq!(error.code, "too_many_rejects");
    }

    #[test]
    fn k12_rejects_in_a_row_are_counted_over_threads() {
        let streaks = Streaks::new(1);
        let [mut first, mut second] = [(), ()].map(|()| one_of(&[Some(0)], Delivered::default(), 10, &streaks));
        portion(&mut first, &messages("bbbbbbbbb")).unwrap();
        assert!(!portion(&mut second, &messages("r")).unwrap().doubtful);
        portion(&mut first, &messages("bbbbb")).unwrap();
        portion(&mut second, &messages("bbbb")).unwrap();
        let error = portion(&mut second, &messages("b")).unwrap_err();
        assert_eq!(error.code, "too_many_rejects");
    }

    proptest! {
        /// P6: for each table, what it is fed is exactly one thing each.
        #[test]
        fn every_record_is_counted_once(kinds in "[rbtf]{1,40}", from in 0..45_u64) {
            let portion = portion(&mut batcher(&[Some(from), Some(0)], 1000), &messages(&kinds)).unwrap();
            for counts in &portion.counts {
                let sum = counts.written + counts.deduplicated + counts.dead_letter + counts.filtered + counts.tombstone;
                prop_assert_eq!(sum, kinds.len() as u64);
            }
            prop_assert_eq!(portion.received, vec![(0, kinds.len() as u64, 2 * kinds.len() as u64)]);
        }

        /// The streaks of runs are those of the whole, wherever it is divided.
        #[test]
        fn a_row_of_rejects_is_the_same_however_it_is_divided(bad in proptest::collection::vec(any::<bool>(), 1..60), cut in 0..60_usize) {
            let places = |part: &[bool]| part.iter().enumerate().filter(|(_, bad)| **bad).map(|(place, _)| place).collect::<Vec<_>>();
            let (first, second) = bad.split_at(cut.min(bad.len()));
            let (longest, open) = streaks(0, first.len(), places(first).into_iter());
            let (then, end) = streaks(open, second.len(), places(second).into_iter());
            let naive = bad.split(|bad| !bad).map(<[bool]>::len).max().unwrap_or(0) as u64;
            prop_assert_eq!(longest.max(then), naive);
            prop_assert_eq!(end, bad.iter().rev().take_while(|bad| **bad).count() as u64);
        }
    }
}

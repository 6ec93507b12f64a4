//! From a run of records to what a flow is made of: rows for each table, dead letters, and how far the lanes were read.
//!
//! Every record that a table's lanes bring is counted there exactly once: as a row, as one the table had already, as a dead letter, or as
//! something that is no row (a tombstone, a heartbeat).

use std::borrow::Cow;
use std::sync::Arc;

use arrow::array::RecordBatch;

use super::lanes::Plan;
use super::{MakeDecoder, Route};
use crate::batch::ChangeBatch;
use crate::budget::Permit;
use crate::error::{Error, Result};
use crate::position::Lane;
use crate::reject::{DeadLetter, DeadLetters, Reject};
use crate::sources::decode::{Decoder, Headers, Message};
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
}

/// One table, as one thread sees it.
struct Fed {
    id: TableId,
    /// By number of the lane, as in the plan.
    wants: Vec<Option<u64>>,
    /// Rejects since the last record that could be read.
    streak: u64,
}

/// A decoder and the tables that it feeds: tables whose messages are written alike share one decoding.
struct Feed {
    make: MakeDecoder,
    decoder: Box<dyn Decoder>,
    tables: Vec<usize>,
    /// Bytes of rows per byte of message, as last seen.
    weight: f64,
}

/// Makes portions. Each decoding thread has its own.
pub(super) struct Batcher {
    pipeline: Arc<str>,
    lanes: Vec<(Lane, u64)>,
    tables: Vec<Fed>,
    feeds: Vec<Feed>,
    letters: DeadLetters,
    letters_table: TableId,
    limits: Limits,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// So many rejects in a row stop the pipeline.
    pub rejects_in_a_row: u64,
    /// A larger record is not decoded.
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
    fn len(&self, run: Run<'_>) -> usize {
        match self {
            Selection::All => run.messages.len(),
            Selection::Some(places) => places.len(),
        }
    }

    /// How many selected messages come before this place.
    fn rank(&self, place: usize) -> usize {
        match self {
            Selection::All => place,
            Selection::Some(places) => places.partition_point(|&other| other < place),
        }
    }
}

/// The selected messages that are small enough to be decoded.
struct Fit<'a> {
    messages: Cow<'a, [Message<'a>]>,
    /// Their places in the run; None where they are the whole run, which is nearly always.
    places: Option<Vec<usize>>,
    /// The places of those that are too large.
    large: Vec<usize>,
}

impl<'a> Fit<'a> {
    fn of(run: Run<'a>, selection: &Selection, limit: usize) -> Self {
        let large = |place: &usize| bytes(&run.messages[*place]) > limit;
        let selected: Vec<usize> = match selection {
            Selection::All if !(0..run.messages.len()).any(|place| large(&place)) => {
                return Self {
                    messages: Cow::Borrowed(run.messages),
                    places: None,
                    large: Vec::new(),
                };
            }
            Selection::All => (0..run.messages.len()).collect(),
            Selection::Some(places) => places.clone(),
        };
        let (large, places): (Vec<usize>, Vec<usize>) = selected.into_iter().partition(large);
        let messages = Cow::Owned(places.iter().map(|&place| run.messages[place]).collect());
        Self {
            messages,
            places: Some(places),
            large,
        }
    }

    /// The place in the run of the message that the decoder knows by this index.
    fn place(&self, index: usize) -> usize {
        self.places.as_ref().map_or(index, |places| places[index])
    }
}

impl Batcher {
    pub(super) fn new(pipeline: &Arc<str>, routes: &[Route], plan: &Plan, letters_table: &TableId, limits: Limits) -> Result<Self> {
        let mut feeds: Vec<Feed> = Vec::new();
        for (table, route) in routes.iter().enumerate() {
            match feeds.iter_mut().find(|feed| Arc::ptr_eq(&feed.make, &route.decoder)) {
                Some(feed) => feed.tables.push(table),
                None => feeds.push(Feed {
                    make: Arc::clone(&route.decoder),
                    decoder: (route.decoder)()?,
                    tables: vec![table],
                    weight: WEIGHT_AT_FIRST,
                }),
            }
        }
        let fed = |(table, route): (usize, &Route)| Fed {
            id: route.table.clone(),
            wants: plan.lanes.iter().map(|lane| lane.wants[table]).collect(),
            streak: 0,
        };
        Ok(Self {
            pipeline: Arc::clone(pipeline),
            lanes: plan.lanes.iter().map(|lane| (lane.lane.clone(), lane.letters_from)).collect(),
            tables: routes.iter().enumerate().map(fed).collect(),
            feeds,
            letters: DeadLetters::default(),
            letters_table: letters_table.clone(),
            limits,
        })
    }

    /// What the rows of so many messages are likely to weigh.
    pub(super) fn weight(&self, messages: usize, bytes: usize) -> usize {
        let feed = |feed: &Feed| (bytes as f64 * feed.weight) as usize * feed.tables.len() + messages * ROW_BYTES;
        self.feeds.iter().map(feed).sum()
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
        if let Some(rows) = self.letters.take(&self.pipeline, telemetry::now_us())? {
            let mut letters = ChangeBatch::puts(self.letters_table.clone(), rows);
            letters.permit = Some(permit.split(letters.rows.get_array_memory_size()));
            portion.batches.insert(0, letters);
        }
        portion.doubtful = self.tables.iter().any(|table| table.streak > 0);
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
        let limit = self.limits.record_bytes;
        let fit = Fit::of(run, selection, limit);
        let decoded = if fit.messages.is_empty() {
            None
        } else {
            Some(self.feeds[feed].decoder.decode(&fit.messages)?)
        };
        if let Some(decoded) = &decoded {
            self.weigh(feed, fit.messages.iter().map(bytes).sum(), &decoded.rows);
        }
        let decoded_rejects = decoded
            .iter()
            .flat_map(|decoded| &decoded.rejects)
            .map(|reject| (fit.place(reject.index), reject.clone()));
        let large = fit.large.iter().map(|&place| (place, oversized(&run.messages[place], limit)));
        let mut rejects: Vec<(usize, Reject)> = decoded_rejects.chain(large).collect();
        rejects.sort_by_key(|(place, _)| *place);
        for &table in tables {
            self.reject(table, run, selection, &rejects)?;
            portion.counts[table].dead_letter += rejects.len() as u64;
            let Some(decoded) = &decoded else { continue };
            let counts = &mut portion.counts[table];
            counts.written += decoded.rows.num_rows() as u64;
            counts.tombstone += decoded.tombstones as u64;
            counts.filtered += decoded.filtered as u64;
            if decoded.rows.num_rows() > 0 {
                portion.batches.push(ChangeBatch {
                    table: self.tables[table].id.clone(),
                    rows: decoded.rows.clone(),
                    ops: decoded.ops.clone(),
                    unchanged: decoded.unchanged.clone(),
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
    fn reject(&mut self, table: usize, run: Run<'_>, selection: &Selection, rejects: &[(usize, Reject)]) -> Result<()> {
        let places = rejects.iter().map(|(place, _)| selection.rank(*place));
        let (longest, streak) = streaks(self.tables[table].streak, selection.len(run), places);
        self.tables[table].streak = streak;
        if longest >= self.limits.rejects_in_a_row
            && let Some((place, reject)) = rejects.last()
        {
            let (id, lane, offset) = (
                &self.tables[table].id,
                &self.lanes[run.lanes[*place]].0,
                run.messages[*place].offset,
            );
            return Err(Error::data(
                "too_many_rejects",
                format!(
                    "{longest} records for table `{id}` in a row could not be read, the last at {lane} offset {offset}: {}. None of them \
                     was passed over. Correct the table's `format` or `schema`, or raise `dead_letters.stop_after`.",
                    reject.message
                ),
            ));
        }
        for (place, reject) in rejects {
            let (message, (lane, letters_from)) = (&run.messages[*place], &self.lanes[run.lanes[*place]]);
            if (message.offset as u64) < *letters_from {
                continue; // The dead-letter table has it already.
            }
            self.letters.push(&DeadLetter {
                lane: lane.name(),
                position: message.offset as u64,
                ordinal: None,
                table: self.tables[table].id.as_str(),
                key: message.key,
                value: message.value,
                headers: headers_json(message.headers),
                timestamp_us: message.timestamp_ms.map(|ms| ms.saturating_mul(1000)),
                schema_id: None,
                reject,
            });
            metrics::counter!(telemetry::DEAD_LETTERS, "pipeline" => self.pipeline.to_string(), "table" => self.tables[table].id.to_string(), "reason" => reject.code)
                .increment(1);
        }
        Ok(())
    }
}

fn bytes(message: &Message<'_>) -> usize {
    message.key.map_or(0, <[u8]>::len) + message.value.map_or(0, <[u8]>::len)
}

fn oversized(message: &Message<'_>, limit: usize) -> Reject {
    let message = format!(
        "the record has {} bytes, and the limit is {limit}, an eighth of `memory`",
        bytes(message)
    );
    Reject {
        index: 0,
        stage: "size",
        code: "too_large",
        message,
    }
}

/// The last offset, the number of records and their bytes, by lane.
fn summary(run: Run<'_>) -> (Vec<(usize, u64)>, Vec<(usize, u64, u64)>) {
    let mut reached: Vec<(usize, u64)> = Vec::new();
    let mut received: Vec<(usize, u64, u64)> = Vec::new();
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
        received[at].2 += bytes(message) as u64;
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

/// Headers as JSON: a list of pairs, for names may repeat. Values that are no text are written as bytes in hex.
fn headers_json(headers: Headers<'_>) -> Option<String> {
    let headers = headers.0.filter(|headers| headers.count() > 0)?;
    let pair = |index| {
        let (name, value) = headers.header(index);
        let value = value.map(|bytes| match std::str::from_utf8(bytes) {
            Ok(text) => text.to_owned(),
            Err(_) => bytes.iter().fold("0x".to_owned(), |hex, byte| hex + &format!("{byte:02x}")),
        });
        serde_json::json!([name, value])
    };
    Some(serde_json::Value::Array((0..headers.count()).map(pair).collect()).to_string())
}

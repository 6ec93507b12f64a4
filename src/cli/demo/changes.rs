//! Changes of some orders, the same for every run, and the fold of them that the tables are compared with.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

/// The columns of an order, as an Avro schema.
pub(super) const SCHEMA: &str = r#"{
  "type": "record",
  "name": "orders",
  "fields": [
    {"name": "id", "type": "long"},
    {"name": "customer", "type": "string"},
    {"name": "status", "type": "string"},
    {"name": "amount", "type": {"type": "bytes", "logicalType": "decimal", "precision": 12, "scale": 2}},
    {"name": "changed", "type": {"type": "long", "logicalType": "timestamp-micros"}}
  ]
}
"#;
/// What an order goes through.
const STATUSES: [&str; 4] = ["placed", "paid", "packed", "shipped"];
/// The first change: 2026-01-01T00:00:00Z, in microseconds. Each further one comes a millisecond later.
const START_US: i64 = 1_767_225_600_000_000;

#[derive(Clone, Copy, Debug)]
struct Order {
    customer: u32,
    status: usize,
    cents: i64,
    changed_us: i64,
}

/// One event: the message's key and value; no value is a tombstone.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Event {
    pub id: i64,
    pub key: String,
    pub value: Option<String>,
}

/// By status: orders, and the sum of their amounts in cents.
pub(super) type Summary = BTreeMap<String, (i64, i64)>;

/// An endless stream of changes, and the orders as they are after the last one.
pub(super) struct Changes {
    rng: SmallRng,
    orders: HashMap<i64, Order>,
    /// The ids of `orders`, to choose from.
    ids: Vec<i64>,
    made: i64,
    next_id: i64,
    /// Events so far, by Debezium's letter.
    pub ops: BTreeMap<&'static str, u64>,
}

impl Changes {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            rng: SmallRng::seed_from_u64(seed),
            orders: HashMap::new(),
            ids: Vec::new(),
            made: 0,
            next_id: 1,
            ops: BTreeMap::new(),
        }
    }

    /// The next change: two of ten are new orders, one is a deletion (with its tombstone, as Debezium sends it), the others are updates.
    pub(super) fn next(&mut self) -> Vec<Event> {
        let changed_us = START_US + self.made * 1_000;
        self.made += 1;
        match self.rng.random_range(0..10) {
            _ if self.ids.is_empty() => self.create(changed_us),
            0..2 => self.create(changed_us),
            2 => self.delete(changed_us),
            _ => self.update(changed_us),
        }
    }

    /// What a query over the orders must tell now.
    pub(super) fn summary(&self) -> Summary {
        let mut summary = Summary::new();
        for order in self.orders.values() {
            let (count, cents) = summary.entry(STATUSES[order.status].to_owned()).or_default();
            *count += 1;
            *cents += order.cents;
        }
        summary
    }

    fn create(&mut self, changed_us: i64) -> Vec<Event> {
        let id = self.next_id;
        self.next_id += 1;
        let order = Order {
            customer: self.rng.random_range(1..=5_000),
            status: 0,
            cents: self.rng.random_range(100..=100_000),
            changed_us,
        };
        self.orders.insert(id, order);
        self.ids.push(id);
        vec![self.event(id, "c", Some(order), changed_us)]
    }

    fn update(&mut self, changed_us: i64) -> Vec<Event> {
        let id = self.ids[self.rng.random_range(0..self.ids.len())];
        let discount = self.rng.random_range(0..=50);
        let before = self.orders[&id];
        let status = (before.status + 1).min(STATUSES.len() - 1);
        let order = Order {
            status,
            cents: before.cents - discount,
            changed_us,
            ..before
        };
        self.orders.insert(id, order);
        vec![self.event(id, "u", Some(order), changed_us)]
    }

    fn delete(&mut self, changed_us: i64) -> Vec<Event> {
        let id = self.ids.swap_remove(self.rng.random_range(0..self.ids.len()));
        self.orders.remove(&id);
        let delete = self.event(id, "d", None, changed_us);
        let tombstone = Event {
            id,
            key: delete.key.clone(),
            value: None,
        };
        vec![delete, tombstone]
    }

    /// An event as Debezium writes it without the schema.
    fn event(&mut self, id: i64, op: &'static str, after: Option<Order>, changed_us: i64) -> Event {
        *self.ops.entry(op).or_default() += 1;
        let mut value = String::with_capacity(300);
        // Writing to a String cannot fail.
        let _ = match after {
            Some(Order {
                customer,
                status,
                cents,
                changed_us,
            }) => write!(
                value,
                r#"{{"before":null,"after":{{"id":{id},"customer":"customer-{customer}","status":"{}","amount":"{}","changed":{changed_us}}}"#,
                STATUSES[status],
                STANDARD.encode(cents.to_be_bytes()),
            ),
            None => write!(value, r#"{{"before":{{"id":{id}}},"after":null"#),
        };
        let changed_ms = changed_us / 1_000;
        let source = format!(r#"{{"connector":"postgresql","name":"shop","ts_ms":{changed_ms},"schema":"public","table":"orders"}}"#);
        let _ = write!(value, r#","source":{source},"op":"{op}","ts_ms":{changed_ms}}}"#);
        Event {
            id,
            key: format!(r#"{{"id":{id}}}"#),
            value: Some(value),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_makes_the_same_changes() {
        let (mut one, mut other) = (Changes::new(7), Changes::new(7));
        for _ in 0..1_000 {
            assert_eq!(one.next(), other.next());
        }
        assert_eq!(one.summary(), other.summary());
    }

    #[test]
    fn every_event_is_json_and_some_are_tombstones() {
        let mut changes = Changes::new(7);
        let events: Vec<Event> = (0..1_000).flat_map(|_| changes.next()).collect();
        for value in events.iter().filter_map(|event| event.value.as_ref()) {
            serde_json::from_str::<serde_json::Value>(value).unwrap();
        }
        let tombstones = events.iter().filter(|event| event.value.is_none()).count() as u64;
        assert!(tombstones > 50 && tombstones == changes.ops["d"], "{tombstones}");
        assert_eq!(
            changes.summary().values().map(|(count, _)| *count as u64).sum::<u64>(),
            changes.ops["c"] - changes.ops["d"]
        );
    }
}

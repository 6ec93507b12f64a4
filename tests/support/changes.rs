//! A seeded stream of changes to a table of orders, and how each change is written into Kafka.
//!
//! An order is its seed: every column is computed from one number, so a model of millions of orders stays small, and a row that was
//! read back is compared with what it must be. The columns have what tends to break: decimals, fractions of seconds before and after
//! 1970, nulls, quotes, and characters beyond ASCII.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

/// The columns of [`Order`], as the program is told them.
pub const ORDERS_AVSC: &str = r#"{
  "type": "record", "name": "orders",
  "fields": [
    {"name": "id", "type": "long"},
    {"name": "customer", "type": ["null", "string"]},
    {"name": "amount", "type": ["null", {"type": "bytes", "logicalType": "decimal", "precision": 12, "scale": 2}]},
    {"name": "weight", "type": ["null", "double"]},
    {"name": "status", "type": ["null", "string"]},
    {"name": "placed", "type": ["null", {"type": "long", "logicalType": "timestamp-micros"}]},
    {"name": "note", "type": ["null", "string"]}
  ]
}"#;

const STATUSES: [&str; 5] = ["new", "paid", "packed", "shipped", "returned"];

/// One state of one order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Order(u64);

impl Order {
    pub fn random(rng: &mut SmallRng) -> Self {
        Self(rng.random())
    }

    pub fn customer(self) -> String {
        format!("customer-{:06}", self.0 % 1_000_003)
    }
    /// The amount in cents: decimal(12, 2).
    pub fn cents(self) -> i128 {
        i128::from(self.0 % 200_000_000_000) - 100_000_000_000
    }
    /// A double without a rounding error: a number of eighths.
    pub fn weight(self) -> f64 {
        (self.0 % 8_001) as f64 / 8.0 - 500.0
    }
    pub fn status(self) -> &'static str {
        STATUSES[(self.0 % 5) as usize]
    }
    /// Microseconds since 1970, from 1950 to 2090.
    pub fn placed_us(self) -> i64 {
        (self.0 % 4_417_977_600_000_000) as i64 - 631_152_000_000_000
    }
    pub fn note(self) -> Option<String> {
        (!self.0.is_multiple_of(7)).then(|| format!("note {}: \"left\" at the door, ☃ or Müller's", self.0 % 10_007))
    }

    fn placed_text(self) -> String {
        let time = chrono::DateTime::from_timestamp_micros(self.placed_us()).expect("within chrono's years");
        time.format("%Y-%m-%dT%H:%M:%S%.6fZ").to_string()
    }
    fn amount_text(self) -> String {
        let (sign, cents) = (if self.cents() < 0 { "-" } else { "" }, self.cents().unsigned_abs());
        format!("{sign}{}.{:02}", cents / 100, cents % 100)
    }
    fn note_json(self) -> String {
        self.note()
            .map_or_else(|| "null".to_owned(), |note| serde_json::Value::String(note).to_string())
    }

    /// One JSON object of some 200 bytes.
    fn json(self, id: i64) -> String {
        format!(
            r#"{{"id":{id},"customer":"{}","amount":{},"weight":{},"status":"{}","placed":"{}","note":{}}}"#,
            self.customer(),
            self.amount_text(),
            self.weight(),
            self.status(),
            self.placed_text(),
            self.note_json(),
        )
    }

    /// The row as Debezium writes it by default: decimals as the big-endian bytes of the unscaled number.
    fn debezium(self, id: i64) -> String {
        let bytes = (self.cents() as i64).to_be_bytes();
        format!(
            r#"{{"id":{id},"customer":"{}","amount":"{}","weight":{},"status":"{}","placed":"{}","note":{}}}"#,
            self.customer(),
            STANDARD.encode(bytes),
            self.weight(),
            self.status(),
            self.placed_text(),
            self.note_json(),
        )
    }
}

/// What happened to one order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    pub id: i64,
    /// None: the order was deleted.
    pub order: Option<Order>,
    /// The state before, where there was one.
    pub before: Option<Order>,
}

/// An endless stream: 70 % updates, 10 % deletes, the rest inserts, of which some bring a deleted order back.
pub struct Changes {
    rng: SmallRng,
    live: Vec<(i64, Order)>,
    gone: Vec<i64>,
    next_id: i64,
    live_max: usize,
}

impl Changes {
    /// `live_max`: how many orders there are at most at one time; a small number makes every key change often.
    pub fn new(seed: u64, live_max: usize) -> Self {
        Self {
            rng: SmallRng::seed_from_u64(seed),
            live: Vec::new(),
            gone: Vec::new(),
            next_id: 1,
            live_max,
        }
    }

    fn insert(&mut self, order: Order) -> Change {
        let id = if !self.gone.is_empty() && self.rng.random_ratio(1, 4) {
            self.gone.swap_remove(self.rng.random_range(0..self.gone.len()))
        } else {
            self.next_id += 1;
            self.next_id - 1
        };
        self.live.push((id, order));
        Change {
            id,
            order: Some(order),
            before: None,
        }
    }

    fn update(&mut self, order: Order) -> Change {
        let at = self.rng.random_range(0..self.live.len());
        let (id, state) = &mut self.live[at];
        Change {
            id: *id,
            order: Some(order),
            before: Some(std::mem::replace(state, order)),
        }
    }

    fn delete(&mut self) -> Change {
        let (id, before) = self.live.swap_remove(self.rng.random_range(0..self.live.len()));
        self.gone.push(id);
        Change {
            id,
            order: None,
            before: Some(before),
        }
    }
}

impl Iterator for Changes {
    type Item = Change;

    fn next(&mut self) -> Option<Change> {
        let order = Order::random(&mut self.rng);
        Some(match self.rng.random_range(0..10) {
            _ if self.live.is_empty() => self.insert(order),
            0 => self.delete(),
            1 | 2 if self.live.len() < self.live_max => self.insert(order),
            _ => self.update(order),
        })
    }
}

/// How changes are written into a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// The key as bare text, the row as a JSON object; a delete is a tombstone.
    Json,
    /// Debezium's envelope without its schema; a delete is an envelope and then a tombstone.
    Debezium,
}

/// What one change is in Kafka: one record, or two.
pub struct Message {
    pub key: String,
    pub value: Option<String>,
}

impl Encoding {
    pub fn messages(self, change: &Change) -> Vec<Message> {
        match self {
            Encoding::Json => {
                vec![Message {
                    key: change.id.to_string(),
                    value: change.order.map(|order| order.json(change.id)),
                }]
            }
            Encoding::Debezium => {
                let key = format!(r#"{{"id":{}}}"#, change.id);
                let envelope = Message {
                    key: key.clone(),
                    value: Some(envelope(change)),
                };
                let tombstone = change.order.is_none().then_some(Message { key, value: None });
                std::iter::once(envelope).chain(tombstone).collect()
            }
        }
    }
}

fn envelope(change: &Change) -> String {
    let row = |order: Option<Order>| order.map_or_else(|| "null".to_owned(), |order| order.debezium(change.id));
    let op = match (change.before, change.order) {
        (None, _) => "c",
        (Some(_), Some(_)) => "u",
        (Some(_), None) => "d",
    };
    format!(
        r#"{{"before":{},"after":{},"source":{{"version":"3.7.0.Final","connector":"postgresql","name":"shop","ts_ms":1767225600000,"snapshot":"false","db":"shop","schema":"public","table":"orders","txId":771,"lsn":24023128}},"op":"{op}","ts_ms":1767225600123}}"#,
        row(change.before),
        row(change.order),
    )
}

#[test]
fn most_changes_are_updates_and_some_are_deletes() {
    let changes: Vec<Change> = Changes::new(1, 5_000).take(100_000).collect();
    let share = |kind: fn(&&Change) -> bool| changes.iter().filter(kind).count() as f64 / changes.len() as f64;
    let (deletes, updates) = (share(|c| c.order.is_none()), share(|c| c.order.is_some() && c.before.is_some()));
    assert!((0.09..0.11).contains(&deletes), "{deletes} are deletes");
    assert!((0.68..0.82).contains(&updates), "{updates} are updates");
    let bytes: usize = changes
        .iter()
        .flat_map(|c| Encoding::Json.messages(c))
        .filter_map(|m| Some(m.value?.len()))
        .sum();
    assert!(
        (150..250).contains(&(bytes / changes.len())),
        "{} bytes a change",
        bytes / changes.len()
    );
    // The same seed is the same stream.
    assert!(Changes::new(1, 5_000).take(100_000).eq(changes));
}

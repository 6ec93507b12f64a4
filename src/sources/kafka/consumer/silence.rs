//! How long brokers have not answered: of one that was frozen and goes on, librdkafka may keep a handle that never ends, and make no other. So
//! after a while another client tries.

use std::time::{Duration, Instant};

/// How long brokers may be silent before a client is worn out. One that is started anew is back within that.
const SILENCE_MAX: Duration = Duration::from_secs(30);

/// Since when there is no answer.
#[derive(Debug, Default)]
pub struct Silence(Option<Instant>);

impl Silence {
    pub fn heard(&mut self, answer: bool) {
        self.0 = if answer { None } else { self.0.or_else(|| Some(Instant::now())) };
    }

    /// Whether another client should try.
    pub fn is_long(&self) -> bool {
        self.0.is_some_and(|since| since.elapsed() >= SILENCE_MAX)
    }
}

//! How long brokers have not answered, and what then: of one that was frozen and goes on, librdkafka may keep a handle that never ends, and
//! make no other. So after a while another client tries, and takes over once it is answered.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::{KafkaClient, blocking};
use crate::error::Result;
use crate::table::Lanes;

/// How long brokers may be silent before a client is worn out. One that is started anew is back within that.
const SILENCE_MAX: Duration = Duration::from_secs(30);

/// Since when there is no answer.
#[derive(Debug, Default)]
pub(super) struct Silence(Mutex<Option<Instant>>);

impl Silence {
    fn lock(&self) -> MutexGuard<'_, Option<Instant>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn heard(&self, answer: bool) {
        let mut since = self.lock();
        *since = if answer { None } else { since.or_else(|| Some(Instant::now())) };
    }

    pub(super) fn is_long(&self) -> bool {
        self.lock().is_some_and(|since| since.elapsed() >= SILENCE_MAX)
    }
}

impl KafkaClient {
    /// Whether the brokers answered all that a flow is opened with.
    pub fn heard(&self, answer: bool) {
        self.shared.silence.heard(answer);
    }

    /// Whether another client should try.
    pub fn is_worn_out(&self) -> bool {
        self.shared.silence.is_long()
    }

    /// Asks the brokers for all that a flow on these lanes is opened with, and opens none. What they answer is of no interest.
    pub async fn reach(&self, lanes: Vec<Lanes>) -> Result<()> {
        let shared = Arc::clone(&self.shared);
        blocking(move || {
            shared.reader.faults.begin();
            let (topics, _) = shared.reader.topics(&lanes)?;
            let (_, waiting) = shared.reader.partitions(&topics)?;
            if waiting.is_empty() {
                shared.reader.faults.answered();
            }
            Ok(())
        })
        .await
    }

    /// Goes on with what another client has seen, and closes that.
    pub async fn take_over(&self, other: Arc<KafkaClient>) -> Result<()> {
        *self.shared.watched() = std::mem::take(&mut *other.shared.watched());
        other.shut().await
    }

    /// Shuts it down, as far as a short wait for the brokers does.
    pub async fn shut(self: Arc<Self>) -> Result<()> {
        blocking(move || {
            drop(self);
            Ok(())
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_silence_is_as_long_as_it_is_since_the_last_answer() {
        let silence = Silence::default();
        assert!(!silence.is_long());
        *silence.lock() = Instant::now().checked_sub(SILENCE_MAX);
        silence.heard(false);
        assert!(silence.is_long(), "no answer does not begin it anew");
        silence.heard(true);
        silence.heard(false);
        assert!(!silence.is_long());
    }
}

//! How long to wait before opening again: exponential, with jitter, so that many instances do not come back at once.

use std::time::Duration;

use rand::Rng;

const FIRST: Duration = Duration::from_millis(100); // A lost connection is often back at once.
const LAST: Duration = Duration::from_secs(30); // Long enough to spare a broken server, short enough to be back soon after it.

/// The pauses between tries.
#[derive(Debug, Default)]
pub struct Backoff {
    tries: u32,
}

impl Backoff {
    pub fn tries(&self) -> u32 {
        self.tries
    }

    /// Something worked in between.
    pub fn reset(&mut self) {
        self.tries = 0;
    }

    /// The next pause: between half and all of a bound that doubles at each try.
    pub fn pause(&mut self, rng: &mut impl Rng) -> Duration {
        let bound = FIRST.saturating_mul(1 << self.tries.min(16)).min(LAST);
        self.tries = self.tries.saturating_add(1);
        let most = bound.as_millis() as u64;
        Duration::from_millis(rng.random_range(most / 2..=most))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;

    #[test]
    fn pauses_grow_to_a_bound_and_start_over() {
        let (mut rng, mut backoff) = (rand::rngs::SmallRng::seed_from_u64(1), Backoff::default());
        let pauses: Vec<Duration> = (0..20).map(|_| backoff.pause(&mut rng)).collect();
        assert!(pauses[0] <= FIRST && pauses[0] >= FIRST / 2);
        assert!(pauses[5] > pauses[0]);
        assert!(pauses[19] <= LAST && pauses[19] >= LAST / 2);
        backoff.reset();
        assert!(backoff.pause(&mut rng) <= FIRST);
    }
}

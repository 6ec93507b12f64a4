//! Memory as permits: rows carry what they weigh, and give it back when they are dropped.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Permits are counted in units of this many bytes, so that 32 bits of permits reach 4 TiB.
const UNIT: usize = 1024;

/// A number of bytes that all rows in flight of a pipeline share.
#[derive(Clone, Debug)]
pub struct Budget {
    permits: Arc<Semaphore>,
    limit: usize,
}

/// Some bytes of a budget, given back by drop.
#[derive(Debug)]
pub struct Permit {
    permit: OwnedSemaphorePermit,
    /// What its rows weigh beyond that: no budget has room for them.
    beyond: usize,
}

impl Permit {
    /// What the rows weigh, be it more than there is.
    pub fn bytes(&self) -> usize {
        self.permit.num_permits() * UNIT + self.beyond
    }

    /// Takes `bytes` out of this permit, or all of it where it holds less.
    #[must_use]
    pub fn split(&mut self, bytes: usize) -> Permit {
        let units = bytes.div_ceil(UNIT).min(self.permit.num_permits());
        Permit {
            permit: self.permit.split(units).expect("no more is asked than it holds"),
            beyond: 0,
        }
    }
}

impl Budget {
    pub fn new(limit_bytes: usize) -> Self {
        let units = (limit_bytes / UNIT).clamp(1, u32::MAX as usize);
        Self {
            permits: Arc::new(Semaphore::new(units)),
            limit: units * UNIT,
        }
    }

    /// Waits until `bytes` are free. Rows that weigh more than the whole budget take all of it, and go alone.
    pub async fn acquire(&self, bytes: usize) -> Permit {
        self.acquire_part(bytes, self.limit).await
    }

    /// Waits until `bytes` are free, or as many as `most` where they are more.
    pub async fn acquire_part(&self, bytes: usize, most: usize) -> Permit {
        let units = bytes.min(most).div_ceil(UNIT).clamp(1, self.limit / UNIT);
        let permit = Arc::clone(&self.permits)
            .acquire_many_owned(units as u32)
            .await
            .expect("the semaphore is never closed");
        let beyond = bytes.saturating_sub(units * UNIT);
        Permit { permit, beyond }
    }

    pub fn limit(&self) -> usize {
        self.limit
    }

    pub fn used(&self) -> usize {
        self.limit - self.permits.available_permits() * UNIT
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn rows_that_are_larger_than_their_part_weigh_what_they_weigh_and_leave_the_rest() {
        let budget = Budget::new(64 * UNIT);
        let large = budget.acquire_part(100 * UNIT, 20 * UNIT).await;
        assert_eq!((large.bytes(), budget.used()), (100 * UNIT, 20 * UNIT));
        let mut small = budget.acquire_part(10 * UNIT, 20 * UNIT).await;
        assert_eq!((small.bytes(), small.split(4 * UNIT).bytes()), (10 * UNIT, 4 * UNIT));
        drop((large, small));
        let all = budget.acquire(100 * UNIT).await;
        assert_eq!((all.bytes(), budget.used()), (100 * UNIT, 64 * UNIT));
    }
}

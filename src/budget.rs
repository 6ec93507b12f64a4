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
}

impl Permit {
    pub fn bytes(&self) -> usize {
        self.permit.num_permits() * UNIT
    }

    /// Takes `bytes` out of this permit, or all of it where it holds less.
    #[must_use]
    pub fn split(&mut self, bytes: usize) -> Permit {
        let units = bytes.div_ceil(UNIT).min(self.permit.num_permits());
        Permit {
            permit: self.permit.split(units).expect("no more is asked than it holds"),
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
        let units = bytes.div_ceil(UNIT).clamp(1, self.limit / UNIT) as u32;
        let permit = Arc::clone(&self.permits)
            .acquire_many_owned(units)
            .await
            .expect("the semaphore is never closed");
        Permit { permit }
    }

    pub fn limit(&self) -> usize {
        self.limit
    }

    pub fn used(&self) -> usize {
        self.limit - self.permits.available_permits() * UNIT
    }
}

//! How much memory the rows in flight may take: what the configuration says, or what suits the machine, or the container on it.

use sysinfo::{MemoryRefreshKind, RefreshKind, System};
use tracing::warn;

use crate::budget::Budget;
use crate::config::Config;
use crate::pipeline::resolve::Resolved;

/// Half a GiB drains a backlog at full speed; less only makes smaller files.
const DEFAULT_BYTES: u64 = 512 << 20;
/// Beside the rows: the program itself, clients' buffers, what the allocator keeps.
const BESIDE_BYTES: u64 = 150 << 20;

/// Each pipeline gets an equal part of the memory, so that one that is stuck cannot starve the others.
pub(super) fn with_budgets(config: &Config, resolved: Vec<Resolved>) -> Vec<(Resolved, Budget)> {
    let there = there();
    let all = config.memory.map_or_else(|| suitable(there), |configured| configured.0);
    if all.saturating_add(BESIDE_BYTES) > there {
        warn!(
            memory = all,
            there, "the rows in flight may take more memory than there is: set a smaller `memory`, or the system may end the process"
        );
    }
    let part = usize::try_from(all).unwrap_or(usize::MAX) / resolved.len().max(1);
    resolved.into_iter().map(|one| (one, Budget::new(part))).collect()
}

/// Bytes that this process may take: the machine's, or its container's.
fn there() -> u64 {
    let system = System::new_with_specifics(RefreshKind::nothing().with_memory(MemoryRefreshKind::nothing().with_ram()));
    system.cgroup_limits().map_or(system.total_memory(), |limits| limits.total_memory)
}

/// The rest is for indexes of keys, and for what is beside the rows.
fn suitable(there: u64) -> u64 {
    DEFAULT_BYTES.min(there / 3)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r3_a_small_container_gets_a_small_budget() {
        for (there_mib, mib) in [(64 << 10, 512), (2048, 512), (600, 200), (384, 128)] {
            assert_eq!(suitable(there_mib << 20), mib << 20);
        }
        assert!(there() > BESIDE_BYTES, "the machine of this test has no {} bytes?", there());
    }
}

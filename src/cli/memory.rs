//! How much memory the rows in flight may take: what the configuration says, or what suits the machine, or the container on it.

use std::fs;
use std::path::Path;

use sysinfo::{MemoryRefreshKind, RefreshKind, System};
use tracing::warn;

use crate::budget::Budget;
use crate::config::Config;
use crate::pipeline::resolve::Resolved;

/// Half a GiB drains a backlog at full speed; less only makes smaller files.
const DEFAULT_BYTES: u64 = 512 << 20;
/// What a configuration may say at least: a fetch and a file being written must fit.
const LEAST_BYTES: u64 = 16 << 20;
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

/// Bytes that this process may take: the machine's, or those of its control group, as of a container or of a service.
fn there() -> u64 {
    let system = System::new_with_specifics(RefreshKind::nothing().with_memory(MemoryRefreshKind::nothing().with_ram()));
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default(); // Only Linux has it.
    let limit = limit(&groups, Path::new("/sys/fs/cgroup"));
    limit.map_or(system.total_memory(), |limit| limit.min(system.total_memory()))
}

/// The least limit of the control groups and of those that they are in. `sysinfo` looks at the outermost only. Within a container a path may be
/// the host's: what is not there says nothing.
fn limit(groups: &str, mounted: &Path) -> Option<u64> {
    let files = groups.lines().filter_map(|line| {
        let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
        let path = Path::new(path.trim_start_matches('/'));
        match controllers {
            "" => Some((mounted.to_owned(), path, "memory.max")),
            "memory" => Some((mounted.join("memory"), path, "memory.limit_in_bytes")),
            _ => None,
        }
    });
    let files = files.flat_map(|(mounted, path, file)| path.ancestors().map(move |group| mounted.join(group).join(file)));
    files.filter_map(|file| fs::read_to_string(file).ok()?.trim().parse().ok()).min()
}

/// The rest is for indexes of keys, and for what is beside the rows: in a small container that grows with them.
fn suitable(there: u64) -> u64 {
    let beside = there.saturating_sub(BESIDE_BYTES) / 2;
    DEFAULT_BYTES.min(there / 3).min(beside).max(LEAST_BYTES)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r3_a_small_container_gets_a_small_budget() {
        for (there_mib, mib) in [
            (64 << 10, 512),
            (2048, 512),
            (600, 200),
            (450, 150),
            (384, 117),
            (200, 25),
            (100, 16),
        ] {
            assert_eq!(suitable(there_mib << 20), mib << 20);
        }
        assert!(there() > BESIDE_BYTES, "the machine of this test has no {} bytes?", there());
    }

    #[test]
    fn the_limit_is_the_least_of_all_groups_that_the_process_is_in() {
        let folder = tempfile::tempdir().unwrap();
        let put = |file: &str, text: &str| {
            let file = folder.path().join(file);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, text).unwrap();
        };
        let of = |groups: &str| limit(groups, folder.path());
        assert_eq!(of("0::/system.slice/alluvium.service\n"), None);
        put("system.slice/memory.max", "max\n");
        put("system.slice/alluvium.service/memory.max", "300\n");
        assert_eq!(of("0::/system.slice/alluvium.service\n"), Some(300));
        put("memory.max", "200\n");
        assert_eq!(of("0::/system.slice/alluvium.service\n"), Some(200));
        assert_eq!(of("0::/\n"), Some(200));
        put("memory/memory.limit_in_bytes", "9223372036854771712\n");
        put("memory/small/memory.limit_in_bytes", "100\n");
        let of_version_1 = |path: &str| of(&format!("5:cpu,cpuacct:{path}\n4:memory:{path}\n"));
        assert_eq!(of_version_1("/small"), Some(100));
        assert_eq!(of_version_1("/docker/of-the-host"), Some(9_223_372_036_854_771_712));
    }
}

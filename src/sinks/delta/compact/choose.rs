//! Which files are written again together: pure, and the same answer for the same files.
//!
//! Small files of one partition are joined with others of about their own size, once there are [`FAN_IN`] of them. So a row is written again
//! once for each step of eight from the size of a commit to that of a full file, some three times in all, however many commits there are;
//! and a partition never has more than a few small files of each size. A file of which many rows are deleted is written again alone.
//!
//! Whatever is chosen, the table has fewer files or fewer deleted rows afterwards. So there is an end to it.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use crate::log::LiveFile;

/// Small files of about one size that are worth joining.
pub const FAN_IN: usize = 8; // Fewer would write each row again more often, more would leave more small files.
/// A file is small below this part of a full one.
const SMALL_PART: u64 = 4;
/// Sizes of small files that are told apart: each is so many times smaller than the one before, and the last has no end.
const SIZES: u32 = 4;
const SIZE_STEP: u64 = 8;
/// Deleted rows, in percent of a file's, from which on it is written again: the deletes then paid for less than three rows each.
const DEAD_PERCENT: u64 = 30;
/// But not below this part of a full file: such files are joined before long.
const DEAD_PART: u64 = 256;
/// Bytes and files that one round reads, and begins no further group beyond: some seconds of work that are lost if the process ends.
const ROUND_BYTES_MAX: u64 = 256 << 20;
const ROUND_FILES_MAX: usize = 1024;
/// Files joined into one. Each costs a request or two.
const GROUP_FILES_MAX: usize = 256;
/// Larger files are those of other programs; they are left alone.
const FILE_BYTES_MAX: u64 = 1 << 30;

/// Files that become one.
pub type Group = Vec<LiveFile>;

/// What counts as small.
#[derive(Clone, Copy, Debug)]
pub struct Policy {
    /// Bytes at which a file is full.
    pub target: u64,
}

impl Policy {
    /// Whether compaction would join the file with others.
    pub fn is_small(&self, file: &LiveFile) -> bool {
        is_understood(file) && live_bytes(file) < self.target / SMALL_PART
    }

    /// What to write again in one round: the smallest files first, since joining them costs least and gains most.
    pub fn choose<'a>(&self, files: impl Iterator<Item = &'a LiveFile>, left_alone: &HashSet<Arc<str>>) -> Vec<Group> {
        let (mut small, mut dying) = (BTreeMap::<_, Vec<&LiveFile>>::new(), Vec::new());
        for file in files.filter(|file| is_understood(file) && !left_alone.contains(&file.path)) {
            if self.is_small(file) {
                small.entry((self.size_of(file), &file.partition_values)).or_default().push(file);
            }
            if self.is_dying(file) {
                dying.push(file);
            }
        }
        let mut groups: Vec<Vec<&LiveFile>> = small.into_values().flat_map(|files| self.join(files)).collect();
        let joined: HashSet<&str> = groups.iter().flatten().map(|file| &*file.path).collect();
        dying.retain(|file| !joined.contains(&*file.path));
        dying.sort_unstable_by_key(|file| (live_bytes(file), &file.path));
        groups.extend(dying.into_iter().map(|file| vec![file]));
        one_round(groups)
    }

    /// 0 for the smallest.
    fn size_of(&self, file: &LiveFile) -> u32 {
        let bytes = live_bytes(file);
        let beyond = |size: &u32| bytes >= self.target / SMALL_PART / SIZE_STEP.pow(SIZES - size);
        (1..SIZES).take_while(beyond).count() as u32
    }

    fn is_dying(&self, file: &LiveFile) -> bool {
        let many = file.rows.is_some_and(|rows| file.deleted() * 100 >= rows * DEAD_PERCENT);
        file.vector.is_some() && many && (self.target / DEAD_PART..=FILE_BYTES_MAX).contains(&file.size)
    }

    /// Neighbours by age, as many as make a full file.
    fn join<'a>(&self, mut files: Vec<&'a LiveFile>) -> Vec<Vec<&'a LiveFile>> {
        files.sort_unstable_by_key(|file| (file.modified_ms, &file.path));
        let (mut groups, mut group, mut bytes) = (Vec::new(), Vec::new(), 0);
        for file in files {
            bytes += live_bytes(file);
            group.push(file);
            if bytes >= self.target || group.len() == GROUP_FILES_MAX {
                groups.push(std::mem::take(&mut group));
                bytes = 0;
            }
        }
        if group.len() >= FAN_IN {
            groups.push(group);
        }
        groups
    }
}

/// Whether nothing stands beside the file's rows that would be lost: tags are another program's notes on how it laid the rows out.
fn is_understood(file: &LiveFile) -> bool {
    let readable = file.vector.as_ref().is_none_or(|vector| matches!(vector.storage_type, 'u' | 'i'));
    readable && file.rows.is_some() && file.tags.as_ref().is_none_or(|tags| tags.is_empty()) && file.location().is_ok()
}

/// What is left of a file's bytes without its deleted rows, roughly.
fn live_bytes(file: &LiveFile) -> u64 {
    let rows = file.rows.unwrap_or(0).max(1);
    let live = rows.saturating_sub(file.deleted());
    (u128::from(file.size) * u128::from(live) / u128::from(rows)) as u64
}

fn one_round(groups: Vec<Vec<&LiveFile>>) -> Vec<Group> {
    let (mut bytes, mut files) = (0, 0);
    let within = |group: &Vec<&LiveFile>| {
        let goes_on = bytes < ROUND_BYTES_MAX && files < ROUND_FILES_MAX;
        bytes += group.iter().map(|file| file.size).sum::<u64>();
        files += group.len();
        goes_on
    };
    let chosen = groups.into_iter().take_while(within);
    chosen.map(|group| group.into_iter().cloned().collect()).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::log::Vector;

    const MIB: u64 = 1 << 20;
    const POLICY: Policy = Policy { target: 128 * MIB };

    fn file(number: usize, size: u64, dead: u64) -> LiveFile {
        let vector = |cardinality| Vector {
            storage_type: 'u',
            path_or_inline: "v".into(),
            offset: Some(1),
            size: 1,
            cardinality,
            rows: None,
        };
        LiveFile {
            path: format!("{number:06}").into(),
            size,
            rows: Some(1000),
            partition_values: Arc::default(),
            stats: None,
            tags: None,
            modified_ms: number as i64,
            vector: (dead > 0).then(|| vector(dead)),
        }
    }

    fn names(groups: &[Group]) -> Vec<Vec<usize>> {
        let name = |file: &LiveFile| file.path.parse().unwrap();
        groups.iter().map(|group| group.iter().map(name).collect()).collect()
    }

    fn choose(files: &[LiveFile]) -> Vec<Vec<usize>> {
        names(&POLICY.choose(files.iter(), &HashSet::new()))
    }

    #[test]
    fn eight_files_of_one_size_are_joined_and_seven_are_not() {
        let mut files: Vec<_> = (0..7).map(|n| file(n, 10_000, 0)).collect();
        files.extend((7..14).map(|n| file(n, MIB, 0)));
        assert_eq!(choose(&files), Vec::<Vec<usize>>::new());
        files.push(file(14, 12_000, 0));
        files.reverse();
        assert_eq!(
            choose(&files),
            [vec![0, 1, 2, 3, 4, 5, 6, 14]],
            "the oldest first, whatever the order they are told in"
        );
    }

    #[test]
    fn a_group_ends_where_it_makes_a_full_file() {
        let files: Vec<_> = (0..20).map(|n| file(n, 20 * MIB, 0)).collect();
        assert_eq!(choose(&files), [(0..7).collect(), (7..14).collect::<Vec<_>>()]);
        let files: Vec<_> = (0..100).map(|n| file(n, 40 * MIB, 0)).collect();
        assert_eq!(choose(&files), Vec::<Vec<usize>>::new(), "these are not small");
    }

    #[test]
    fn a_file_with_many_deleted_rows_is_written_again_alone() {
        let files = [
            file(0, 128 * MIB, 299),
            file(1, 128 * MIB, 300),
            file(2, 1000, 900),
            file(3, 2 << 30, 900),
        ];
        assert_eq!(choose(&files), [[1]]);
    }

    #[test]
    fn what_is_not_understood_is_left_alone() {
        let mut files: Vec<_> = (0..8).map(|n| file(n, 10_000, 0)).collect();
        assert_eq!(choose(&files).len(), 1);
        let left_alone = HashSet::from(["000003".into()]);
        assert_eq!(POLICY.choose(files.iter(), &left_alone).len(), 0);
        let tags = [("ZCUBE_ID".to_owned(), Some("1".to_owned()))].into();
        let spoil: [fn(&mut LiveFile, Arc<BTreeMap<_, _>>); 4] = [
            |file, tags| file.tags = Some(tags),
            |file, _| file.rows = None,
            |file, _| file.path = "s3://elsewhere/x.parquet".into(),
            |file, _| file.partition_values = Arc::new([("day".to_owned(), None)].into()),
        ];
        for spoil in spoil {
            let whole = files[3].clone();
            spoil(&mut files[3], Arc::new(BTreeMap::clone(&tags)));
            assert_eq!(POLICY.choose(files.iter(), &HashSet::new()).len(), 0, "{:?}", files[3]);
            files[3] = whole;
        }
    }

    #[test]
    fn a_round_ends_somewhere() {
        let files: Vec<_> = (0..30_000).map(|n| file(n, 5_000, 0)).collect();
        assert_eq!(choose(&files).iter().map(Vec::len).collect::<Vec<_>>(), [256; 4]);
        let files: Vec<_> = (0..100).map(|n| file(n, 128 * MIB, 500)).collect();
        assert_eq!(choose(&files).len(), 2);
    }

    proptest! {
        /// Commits of any size, and whatever is chosen done at once: it comes to an end, and few files are left.
        #[test]
        fn it_comes_to_an_end_with_few_files(sizes in prop::collection::vec(0_u32..28, 1..400)) {
            let (mut files, mut next, mut written, mut read) = (Vec::new(), 0, 0, 0);
            for size in sizes {
                files.push(file(next, 1 << size, 0));
                written += 1_u64 << size;
                next += 1;
                loop {
                    let groups = POLICY.choose(files.iter(), &HashSet::new());
                    if groups.is_empty() {
                        break;
                    }
                    for group in groups {
                        let before = files.len();
                        let bytes = group.iter().map(|file| file.size).sum();
                        read += bytes;
                        files.retain(|file| group.iter().all(|of| of.path != file.path));
                        files.push(file(next, bytes, 0));
                        next += 1;
                        prop_assert!(files.len() < before);
                    }
                }
            }
            let small = files.iter().filter(|file| POLICY.is_small(file)).count();
            prop_assert!(small <= SIZES as usize * (FAN_IN - 1), "{} small files", small);
            // Once for each size, and as often again where the smallest grow within their own.
            prop_assert!(read <= written * u64::from(SIZES) + 64 * MIB, "{} bytes read of {}", read, written);
        }
    }
}

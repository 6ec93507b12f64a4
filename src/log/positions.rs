//! Versions by source position (by time: `times.rs`): a binary search over the versions, each probe a handful of small reads.
//!
//! **Marks at a version.** A commit carries the marks of the lanes that it moved, and every sixteenth carries those of all lanes
//! of its pipeline, moved or not, and says so. So the marks at a version are found by walking back from it, until every lane in
//! question was met or a version that repeats all of them: sixteen reads at most where no other program writes, and one for a
//! lane that moves with every commit. No listing is needed, so a log of 100,000 versions takes 17 such probes. Where the walk
//! finds nothing within [`WALK_MAX`] commits, the state at the version is read from its checkpoint instead.
//!
//! A lane of a database has no place between a copy and the version before: whoever asks for one there is told so.
//!
//! The search rests on marks that never go back, which is what a mark promises. A version that asks for the rows to be loaded again
//! (`forget.rs`) has them still: there the mark before it counts.

use std::collections::BTreeMap;

use futures::TryStreamExt;

use crate::error::{Error, Kind, Result};
use crate::log::replay::{self, Said};
use crate::log::snapshot::Snapshot;
use crate::log::{FORGOTTEN, Log, When};
use crate::position::{Checkpoint, Lane, Position};
use crate::table::Version;

/// Commits that are read back for one probe before the checkpoint is read instead, which costs about as much as so many.
const WALK_MAX: u64 = 100;
/// Commits that are read together on the way back.
const VERSIONS_AT_ONCE: u64 = 64;
/// The first and the last position that a version brought, by lane: see [`UserMetadata::positions`](crate::log::UserMetadata::positions).
type Brought = BTreeMap<String, (Option<u64>, u64)>;

impl Said {
    /// Whether this version repeats all marks of the pipeline.
    pub(super) fn repeats_marks_of(&self, pipeline: &str) -> bool {
        self.info.ours().is_some_and(|said| said.all_marks && said.pipeline == pipeline)
    }
}

impl Log {
    /// The positions of those lanes of a mark that this table has read.
    pub fn part_of(&self, mark: &Checkpoint) -> Checkpoint {
        let of_pipelines = marks_meant(&self.snapshot, &self.pipeline);
        mark.only(|lane| {
            of_pipelines
                .iter()
                .any(|(pipeline, held)| !lanes_meant(lane, pipeline, held).is_empty())
        })
    }

    /// The version that a moment names.
    pub async fn version_at(&self, when: &When) -> Result<Version> {
        match when {
            When::Latest => Ok(self.snapshot.version),
            When::Version(version) if *version > self.snapshot.version => {
                Err(self.no_such(format!("has no version {version}: its newest is {}", self.snapshot.version)))
            }
            When::Version(version) => Ok(*version),
            When::Time(time_ms) => self.version_at_time(*time_ms).await,
            When::Mark(mark) => self.version_at_mark(mark).await,
        }
    }

    async fn version_at_mark(&self, mark: &Checkpoint) -> Result<Version> {
        let wanted = Wanted::resolve(mark, &self.snapshot, &self.pipeline, &self.entries.place)?;
        let oldest = self.oldest_commit(0).await?;
        // The first version that holds the mark: `high` does, everything before `low` does not.
        let (mut low, mut high) = (oldest, self.snapshot.version);
        if wanted.is_forgotten {
            // What the table held before it was told to load its rows again, the versions before still show.
            let held = self.marks_at(high, &wanted, oldest).await?;
            if !held.covers(&wanted.mark) {
                return Err(not_yet(&self.entries.place, mark, &held));
            }
        }
        while low < high {
            let middle = low + (high - low) / 2;
            if self.marks_at(middle, &wanted, oldest).await?.covers(&wanted.mark) {
                high = middle
            } else {
                low = middle + 1
            }
        }
        let commit = self.entries.commit(low).await?.ok_or_else(|| self.gone(low))?;
        let said = commit.info().and_then(|info| info.ours());
        let brought = said.filter(|said| said.pipeline == wanted.pipeline).map(|said| said.positions);
        let brought = brought.unwrap_or_default();
        self.must_show(low, &wanted, &brought)?;
        if low == oldest && oldest > 0 {
            self.must_be_first(oldest, &wanted, &brought).await?;
        }
        Ok(low)
    }

    /// A table that was copied at a position shows nothing of what was between the version before and that: the copy holds earlier
    /// positions, too, but it is a later moment than other tables show there.
    fn must_show(&self, version: Version, wanted: &Wanted, brought: &Brought) -> Result<()> {
        for (lane, at) in wanted.mark.iter().filter(|(lane, _)| lane.topic_partition().is_none()) {
            let brought = brought.get(lane.as_str());
            let copied = brought.filter(|(first, _)| first.is_none_or(|first| first == FORGOTTEN.0 + 1));
            if let Some((_, point)) = copied.filter(|(_, point)| at.0 < *point) {
                let what = format!(
                    "shows nothing at {}: its version {version} is a copy that was taken at {}; ask for that or later",
                    lane.show(at),
                    lane.show(Position(*point))
                );
                return Err(self.no_such(what));
            }
        }
        Ok(())
    }

    /// The oldest version that is left may hold far more than the one that was the first to hold the mark. It is that one where it brought a
    /// part of the mark, or holds nothing else.
    async fn must_be_first(&self, oldest: Version, wanted: &Wanted, brought: &Brought) -> Result<()> {
        let brought_it = |(lane, at): (&Lane, Position)| {
            let brought = brought.get(lane.as_str());
            brought.is_some_and(|(first, _)| first.is_none_or(|first| first <= at.0))
        };
        if wanted.mark.iter().any(brought_it) {
            return Ok(());
        }
        let held = replay::at(&self.entries, oldest).await?.snapshot.checkpoint(&wanted.pipeline);
        if held == wanted.mark {
            return Ok(());
        }
        let what = format!(
            "has no version as old as {}: the first that held it was cleaned away, and its oldest, {oldest}, holds {held}; ask for that or later",
            wanted.mark
        );
        Err(self.no_such(what))
    }

    /// Where the versions of this table stand behind a position of a lane, the newest first.
    pub async fn positions_behind(&self, lane: &Lane, at: Position) -> Result<Vec<Position>> {
        let (mut positions, mut end) = (Vec::new(), self.snapshot.version + 1);
        let oldest = self.oldest_commit(0).await?;
        while end > oldest {
            let begin = oldest.max(end.saturating_sub(VERSIONS_AT_ONCE));
            let commits: Vec<_> = self.entries.commits(begin..=end - 1).try_collect().await?;
            for commit in commits.iter().rev() {
                let said = commit.info().and_then(|info| info.ours());
                match said.and_then(|said| said.positions.get(lane.as_str()).map(|(_, to)| Position(*to))) {
                    None | Some(FORGOTTEN) => {}
                    Some(to) if to > at => positions.push(to),
                    Some(_) => return Ok(positions),
                }
            }
            end = begin;
        }
        Ok(positions)
    }

    /// The marks that the table held at a version, of the wanted lanes.
    async fn marks_at(&self, version: Version, wanted: &Wanted, oldest: Version) -> Result<Checkpoint> {
        let mut found = Checkpoint::default();
        let walk_to = oldest.max(version.saturating_sub(WALK_MAX - 1));
        for back in (walk_to..=version).rev() {
            let commit = self.entries.commit(back).await?.ok_or_else(|| self.gone(back))?;
            for txn in commit.actions.iter().filter_map(|action| action.txn.as_ref()) {
                if let Some((pipeline, lane, at)) = txn.mark()?
                    && pipeline == wanted.pipeline
                {
                    let lane = Lane::new(lane);
                    let forgotten = at == FORGOTTEN && lane.topic_partition().is_none();
                    if wanted.mark.get(&lane).is_some() && found.get(&lane).is_none() && !forgotten {
                        found.set(lane, at);
                    }
                }
            }
            let all_met = wanted.mark.iter().all(|(lane, _)| found.get(lane).is_some());
            // A lane that a version with all marks does not have was unread.
            if all_met || back == 0 || Said::of(&commit).repeats_marks_of(&wanted.pipeline) {
                return Ok(found);
            }
        }
        let state = replay::at(&self.entries, version).await?.snapshot;
        Ok(state.checkpoint(&wanted.pipeline))
    }

    /// The oldest version at or after `from` whose commit is still there; older ones may have been cleaned away.
    pub(super) async fn oldest_commit(&self, from: Version) -> Result<Version> {
        if self.entries.commit_tag(from).await?.is_some() {
            return Ok(from);
        }
        let commits = self.entries.list(from..=Version::MAX).await?.commits;
        commits.first().copied().ok_or_else(|| self.gone(from))
    }

    pub(super) fn no_such(&self, what: String) -> Error {
        Error::new(Kind::Config, "usage", format!("the table {} {what}", self.url))
    }

    pub(super) fn gone(&self, version: Version) -> Error {
        let what = format!(
            "version {version} of {} was cleaned away while it was looked for, or its file is missing: look again",
            self.url
        );
        Error::transient("bad_log", what)
    }
}

/// Positions that are looked for: of one pipeline, and of lanes with their incarnations.
#[derive(Debug)]
struct Wanted {
    pipeline: String,
    mark: Checkpoint,
    /// The newest version does not say how far the table is: it asks for its rows to be loaded again.
    is_forgotten: bool,
}

impl Wanted {
    /// Finds whose lanes are meant, and that the table holds the positions now.
    fn resolve(mark: &Checkpoint, now: &Snapshot, own: &str, place: &str) -> Result<Self> {
        let usage = |what: String| Error::config("usage", what);
        let of_pipelines = marks_meant(now, own);
        let mut having = of_pipelines
            .iter()
            .filter(|(pipeline, held)| mark.iter().all(|(lane, _)| !lanes_meant(lane, pipeline, held).is_empty()));
        let Some((pipeline, held)) = having.next() else {
            let known: Vec<String> = of_pipelines.values().map(|held| held.to_string()).collect();
            return Err(usage(format!(
                "the table {place} has not read all lanes of {mark}: it holds {}",
                known.join(", ")
            )));
        };
        if let Some((other, _)) = having.next() {
            let example = mark.iter().next().map(|(lane, at)| format!("{}:{}", lane.as_str(), lane.show(at)));
            let example = example.unwrap_or_default();
            return Err(usage(format!(
                "both pipelines `{pipeline}` and `{other}` wrote lanes of {mark} to {place}: name the one that is meant before a lane, as in \
                 {pipeline}:{example} or {other}:{example}"
            )));
        }
        let mut full = Checkpoint::default();
        for (lane, at) in mark.iter() {
            match lanes_meant(lane, pipeline, held).as_slice() {
                [(lane, _)] => full.set(lane.clone(), at),
                several => {
                    let names: Vec<&str> = several.iter().map(|(lane, _)| lane.as_str()).collect();
                    return Err(usage(format!(
                        "lane {lane} of {place} had several incarnations: name one of {}",
                        names.join(", ")
                    )));
                }
            }
        }
        let known = full.only(|lane| lane.topic_partition().is_some() || held.get(lane) != Some(FORGOTTEN));
        if !held.covers(&known) {
            return Err(not_yet(place, mark, &held.of_lanes(&full)));
        }
        Ok(Self {
            pipeline: (*pipeline).to_owned(),
            is_forgotten: known != full,
            mark: full,
        })
    }
}

fn not_yet(place: &str, mark: &Checkpoint, held: &Checkpoint) -> Error {
    let what = format!("the table {place} has not come as far as {mark}: it holds {held}; ask again later, or for less");
    Error::transient("not_yet", what)
}

/// The marks that count, by pipeline: a pipeline's own, or all where the table has none of it.
fn marks_meant<'a>(now: &'a Snapshot, own: &str) -> BTreeMap<&'a str, &'a Checkpoint> {
    match now.marks.get_key_value(own) {
        Some((name, checkpoint)) => BTreeMap::from([(name.as_str(), checkpoint)]),
        None => now.marks.iter().map(|(name, checkpoint)| (name.as_str(), checkpoint)).collect(),
    }
}

/// The lanes of a pipeline's that a lane as people write it can mean: with the pipeline and a colon before it, or its incarnation behind it,
/// or without. No topic and no slot has a colon in its name.
fn lanes_meant(lane: &Lane, pipeline: &str, held: &Checkpoint) -> Vec<(Lane, Position)> {
    let of_pipeline = lane.as_str().strip_prefix(pipeline).and_then(|rest| rest.strip_prefix(':'));
    let lane = of_pipeline.map_or_else(|| lane.clone(), Lane::new);
    match held.get(&lane) {
        Some(at) => vec![(lane, at)],
        None if lane.incarnation().is_none() => held
            .iter()
            .filter(|(other, _)| other.name() == lane.name())
            .map(|(lane, at)| (lane.clone(), at))
            .collect(),
        None => Vec::new(),
    }
}

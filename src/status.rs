//! What every pipeline is doing now: written by the pipelines, read by `/status`, `/readyz` and the progress line.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::Serialize;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    #[default]
    Starting,
    Running,
    /// Running without tables that no longer fit what their source sends.
    Degraded,
    /// Waiting before it opens again from the log.
    Retrying,
    /// Stopped by an error that needs a person.
    Failed,
    Stopped,
}

impl State {
    pub const ALL: [State; 6] = [
        State::Starting,
        State::Running,
        State::Degraded,
        State::Retrying,
        State::Failed,
        State::Stopped,
    ];

    /// The label of `pipeline_state{state}`.
    pub fn name(self) -> &'static str {
        match self {
            State::Starting => "starting",
            State::Running => "running",
            State::Degraded => "degraded",
            State::Retrying => "retrying",
            State::Failed => "failed",
            State::Stopped => "stopped",
        }
    }
}

#[derive(Clone, Debug, Default, Serialize)]
pub struct PipelineStatus {
    pub state: State,
    /// Why it does not work now, and what to do. What stopped single tables stands with these.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    pub tables: BTreeMap<String, TableStatus>,
    pub lanes: BTreeMap<String, LaneStatus>,
}

#[derive(Clone, Debug, Default, Serialize)]
pub struct TableStatus {
    pub version: Option<u64>,
    pub rows_committed: u64,
    /// Last position contained, by lane name.
    pub positions: BTreeMap<String, u64>,
    /// The same as `--position` takes it: `orders/0:41 orders/1:17`, or `slot:0/16B3748`.
    pub mark: String,
    pub last_commit_ms: Option<i64>,
    /// When the newest published record came to be at the source, where the source tells it.
    pub source_ms: Option<i64>,
    /// Why the table stopped while the others go on, and what to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stopped: Option<String>,
}

#[derive(Clone, Debug, Default, Serialize)]
pub struct LaneStatus {
    /// First position of the lane's end: what a record written now would get.
    pub end: Option<u64>,
    /// Last position read.
    pub read: Option<u64>,
    /// Records not yet read, by offsets: an upper bound where a topic is compacted.
    pub lag: Option<u64>,
}

/// Shared by everything in the process. Held only for moments: never across an await.
#[derive(Clone, Debug, Default)]
pub struct Board(Arc<Mutex<BTreeMap<String, PipelineStatus>>>);

impl Board {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, PipelineStatus>> {
        // A panic elsewhere does not make a status unreadable.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the status of one pipeline, which is made when it is not there.
    pub fn update(&self, pipeline: &str, change: impl FnOnce(&mut PipelineStatus)) {
        change(self.lock().entry(pipeline.to_owned()).or_default());
    }

    pub fn read(&self) -> BTreeMap<String, PipelineStatus> {
        self.lock().clone()
    }
}

//! Several pipelines in one process: each in tasks of its own, and none stops because of another.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::error;

use super::assembly::KafkaToDelta;
use super::postgres::PostgresToDelta;
use super::resolve::{Resolved, Source};
use super::{Settings, fail, run};
use crate::budget::Budget;
use crate::error::{Error, Result};
use crate::status::{Board, State};

/// So many failures in a row without a commit end a run that is to end by itself: half a minute of an unreachable broker.
const TRIES_MAX: u32 = 3;

/// How the pipelines of a process are run.
#[derive(Clone, Debug)]
pub struct Together {
    pub board: Board,
    /// How long a stop may take to publish what is staged.
    pub grace: Duration,
    /// End when every lane has reached the end that it had at the start.
    pub until_caught_up: bool,
}

/// Runs pipelines until all have ended: stopped, caught up, or by an error that needs a person. The first error is the answer.
pub async fn run_all(pipelines: Vec<(Resolved, Budget)>, together: Together, stop: CancellationToken) -> Result<()> {
    let mut tasks = JoinSet::new();
    for (resolved, budget) in pipelines {
        tasks.spawn(run_one(resolved, budget, together.clone(), stop.clone()));
    }
    let mut outcome = Ok(());
    while let Some(ended) = tasks.join_next().await {
        let ended = ended.unwrap_or_else(|panic| Err(Error::bug("a pipeline panicked; what was published is whole").because(panic)));
        outcome = outcome.and(ended);
    }
    outcome
}

async fn run_one(resolved: Resolved, budget: Budget, together: Together, stop: CancellationToken) -> Result<()> {
    let name = Arc::clone(&resolved.name);
    let Together {
        board,
        grace,
        until_caught_up,
    } = together;
    board.update(&name, |status| status.state = State::Starting);
    let settings = Settings {
        pipeline: Arc::clone(&name),
        board: board.clone(),
        budget: budget.clone(),
        grace,
        tries_max: until_caught_up.then_some(TRIES_MAX),
        seed: rand::random(),
    };
    let cannot_start = |failure: Error| {
        error!(pipeline = %name, kind = failure.kind.name(), code = failure.code, error = %failure, "cannot start");
        fail(&name, &board, &failure);
        failure
    };
    match resolved.source.clone() {
        Source::Kafka(feeds) => {
            let opener = KafkaToDelta::new(resolved, feeds, budget, board.clone(), until_caught_up).map_err(cannot_start)?;
            run(opener, settings, stop).await
        }
        Source::Postgres(feeds) => {
            let opener = PostgresToDelta::new(resolved, feeds, budget, board.clone(), until_caught_up).map_err(cannot_start)?;
            run(opener, settings, stop).await
        }
    }
}

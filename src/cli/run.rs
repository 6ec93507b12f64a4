//! `alluvium run`: the service.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::memory::with_budgets;
use super::progress::Progress;
use crate::budget::Budget;
use crate::config::Document;
use crate::error::{Error, Result};
use crate::pipeline::all::{Together, run_all};
use crate::pipeline::resolve::resolve;
use crate::serve;
use crate::status::Board;

/// The same signal once more as soon as this is no second thought: `timeout` sends one to the process and one to its group.
const SAME_SIGNAL: Duration = Duration::from_millis(200);

pub(super) async fn run(file: &Path, until_caught_up: bool) -> Result<ExitCode> {
    let (config, resolved) = resolve(Document::read(file)?)?;
    let pipelines = with_budgets(&config, resolved);
    let budgets: BTreeMap<String, Budget> = pipelines
        .iter()
        .map(|(one, budget)| (one.name.to_string(), budget.clone()))
        .collect();
    let board = Board::default();
    let _server = serve::start(&config.http.address, board.clone(), budgets, serve::install()?).await?;
    let mut signals = Signals::new()?;
    let mut progress = Progress::new(board.clone());

    let stop = CancellationToken::new();
    let together = Together {
        board,
        grace: config.grace.0,
        until_caught_up,
    };
    let running = run_all(pipelines, together, stop.clone());
    tokio::pin!(running);
    let mut asked: Option<(u8, Instant)> = None;
    loop {
        tokio::select! {
            biased;
            // First, so that a second signal ends the process whatever the pipelines do.
            number = signals.next() => {
                if asked.is_some_and(|(first, at)| first == number && at.elapsed() < SAME_SIGNAL) {
                    continue;
                }
                if stop.is_cancelled() {
                    warn!("stopped at once by a second signal: what was staged will be read again");
                    return Ok(ExitCode::from(128 + number));
                }
                info!(grace = %humantime::format_duration(config.grace.0), "stopping: publishing what is staged");
                asked = Some((number, Instant::now()));
                stop.cancel();
            }
            outcome = &mut running => {
                progress.clear();
                return outcome.map(|()| ExitCode::SUCCESS);
            }
            () = progress.tick() => {}
        }
    }
}

/// The signals that ask a process to end.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> Result<Self> {
        let listen = |kind| signal(kind).map_err(|e| Error::bug("signals cannot be received").because(e));
        Ok(Self {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
        })
    }

    /// The number of the next one.
    async fn next(&mut self) -> u8 {
        tokio::select! {
            _ = self.terminate.recv() => 15,
            _ = self.interrupt.recv() => 2,
        }
    }
}

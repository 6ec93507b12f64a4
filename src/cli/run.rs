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
use crate::config::{Document, Reach};
use crate::error::{Error, Result};
use crate::pipeline::all::{Together, run_all};
use crate::pipeline::resolve::resolve;
use crate::serve;
use crate::status::Board;

/// The same signal once more as soon as this is no second thought: `timeout` sends one to the process and one to its group.
const SAME_SIGNAL: Duration = Duration::from_millis(200);
/// SIGXFSZ, as Linux and macOS number it.
const FILE_TOO_LARGE: i32 = 25;

pub(super) async fn run(file: &Path, until_caught_up: bool) -> Result<ExitCode> {
    let (config, resolved) = resolve(Document::read(file, Reach::All)?)?;
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
                    progress.clear();
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
    /// The terminal is closed. None where that was to be ignored when the process began.
    hangup: Option<Signal>,
}

impl Signals {
    fn new() -> Result<Self> {
        let listen = |kind| signal(kind).map_err(|e| Error::bug("signals cannot be received").because(e));
        // A file that outgrows its limit (`ulimit -f`) is an error then, told as a full disk is, and not the end. It stays so: none is awaited.
        drop(listen(SignalKind::from_raw(FILE_TOO_LARGE))?);
        let hangup = (!ignores_hangup()).then(|| listen(SignalKind::hangup()));
        Ok(Self {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
            hangup: hangup.transpose()?,
        })
    }

    /// The number of the next one.
    async fn next(&mut self) -> u8 {
        let Self {
            terminate,
            interrupt,
            hangup,
        } = self;
        let closed = async {
            match hangup {
                Some(hangup) => hangup.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = terminate.recv() => 15,
            _ = interrupt.recv() => 2,
            _ = closed => 1,
        }
    }
}

/// Whether this process was started to outlive its terminal, as `nohup` does it: to listen to the signal would undo that. Also where it cannot
/// be told: the signal then does what it always does.
fn ignores_hangup() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    hangup_is_in(&status).unwrap_or(true)
}

/// Whether SIGHUP is among the signals that a process ignores, by what Linux tells of it.
fn hangup_is_in(status: &str) -> Option<bool> {
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"))?;
    // One bit for each signal, from the first on: that is SIGHUP.
    u64::from_str_radix(ignored.trim(), 16).ok().map(|signals| signals & 1 == 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_file_that_outgrows_its_limit_does_not_end_the_process() {
        let _signals = Signals::new().unwrap();
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).unwrap();
        assert_eq!(
            u64::from_str_radix(caught.trim(), 16).unwrap() >> (FILE_TOO_LARGE - 1) & 1,
            1,
            "{caught}"
        );
    }

    #[test]
    fn a_process_that_nohup_has_started_is_known_by_the_signals_that_it_ignores() {
        let status = |ignored: &str| format!("Name:\talluvium\nSigBlk:\t0000000000000001\nSigIgn:\t{ignored}\nSigCgt:\t0\n");
        assert_eq!(hangup_is_in(&status("0000000000000001")), Some(true));
        assert_eq!(hangup_is_in(&status("0000000000001006")), Some(false));
        assert_eq!(hangup_is_in(""), None);
    }
}

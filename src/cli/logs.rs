//! Logs on stderr: text for people, JSON for collectors.

use std::io::{self, IsTerminal, Write};

use clap::ValueEnum;
use indicatif::MultiProgress;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    Text,
    Json,
}

/// Starts the log of this process. Without a format, it is text where a person looks on, else JSON.
pub(super) fn start(format: Option<LogFormat>, verbose: u8, quiet: bool) -> LogFormat {
    let terminal = io::stderr().is_terminal();
    let format = format.unwrap_or(if terminal { LogFormat::Text } else { LogFormat::Json });
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter(verbose, quiet))
        .with_writer(Stderr);
    match format {
        LogFormat::Text => log.with_target(false).with_ansi(terminal && no_color_is_unset()).init(),
        LogFormat::Json => log.json().flatten_event(true).with_current_span(false).with_span_list(false).init(),
    }
    format
}

/// Libraries are heard from warnings on: their stories are not about tables and positions.
fn filter(verbose: u8, quiet: bool) -> EnvFilter {
    let ours = match verbose {
        0 if quiet => "warn",
        0 => "warn,alluvium=info",
        1 => "info,alluvium=debug",
        _ => "debug,alluvium=trace",
    };
    // What is set to nothing is not set, as with NO_COLOR.
    let asked = std::env::var(EnvFilter::DEFAULT_ENV).ok().filter(|text| !text.trim().is_empty());
    asked
        .and_then(|text| EnvFilter::try_new(text).ok())
        .unwrap_or_else(|| EnvFilter::new(ours))
}

/// See <https://no-color.org>.
fn no_color_is_unset() -> bool {
    std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// Stderr, shared with the progress line: a log line stands above it.
#[derive(Clone, Copy)]
struct Stderr;

impl<'a> MakeWriter<'a> for Stderr {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        *self
    }
}

impl Write for Stderr {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        progress().suspend(|| io::stderr().write(text))
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

/// The one place of this process where progress is drawn: nowhere, unless stderr is a terminal.
pub(super) fn progress() -> &'static MultiProgress {
    static PROGRESS: std::sync::LazyLock<MultiProgress> = std::sync::LazyLock::new(MultiProgress::new);
    &PROGRESS
}

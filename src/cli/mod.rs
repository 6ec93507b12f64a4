//! The command line: one file per command.
//!
//! Results go to stdout, everything else to stderr. Exit codes follow `sysexits.h`: see [`Error::exit_code`].

mod check;
mod demo;
mod history;
mod logs;
mod memory;
mod moment;
mod progress;
mod query;
mod resnapshot;
mod run;
mod schema;

use std::mem::ManuallyDrop;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{ArgAction, Args, Parser, Subcommand};
use clap_complete::Shell;

use crate::error::{Error, Result};
pub use logs::LogFormat;

/// Change streams as immutable Delta Lake history, exactly once.
#[derive(Debug, Parser)]
#[command(name = "alluvium", version, propagate_version = true, arg_required_else_help = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    logs: LogArguments,
}

#[derive(Debug, Args)]
struct LogArguments {
    /// How log lines are written [default: text on a terminal, json otherwise]
    #[arg(long, global = true, value_enum, env = "ALLUVIUM_LOG_FORMAT")]
    log_format: Option<LogFormat>,
    /// Log more: -v shows what is done, -vv every step. RUST_LOG, where it is set, decides alone
    #[arg(short, long, global = true, action = ArgAction::Count)]
    verbose: u8,
}

/// Where the configuration is.
#[derive(Debug, Args)]
struct ConfigArgument {
    /// The configuration file
    #[arg(short, long, value_name = "FILE", default_value = "alluvium.toml", env = "ALLUVIUM_CONFIG")]
    config: PathBuf,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Read the sources and write the tables, until it is told to stop
    Run {
        #[command(flatten)]
        config: ConfigArgument,
        /// End when everything is read that was there at the start, in a group also by the other members, which are waited for
        #[arg(long)]
        until_caught_up: bool,
    },
    /// Read the configuration, connect to everything, and say what a run would do
    Check {
        #[command(flatten)]
        config: ConfigArgument,
    },
    /// See it work, without any server: changes, tables, their history
    Demo(demo::DemoArguments),
    /// Show the versions of a table, and the source positions that each brought
    History(history::HistoryArguments),
    /// Run SQL over the tables as they are, or as they were
    Query(query::QueryArguments),
    /// Have tables of a database copied again, while they stay readable
    Resnapshot {
        #[command(flatten)]
        config: ConfigArgument,
        /// The tables, by their names in the configuration
        #[arg(value_name = "TABLE", required = true)]
        tables: Vec<String>,
    },
    /// Print the JSON Schema of the configuration, for editors
    Schema,
    /// Print the completions of a shell
    Completions { shell: Shell },
}

/// Runs the program with the arguments of this process.
pub fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(told) => return usage(&told),
    };
    // The demo tells its own story: of the log, only what goes wrong.
    let quiet = matches!(arguments.command, Command::Demo(_));
    let format = logs::start(arguments.logs.log_format, arguments.logs.verbose, quiet);
    match arguments.command.run() {
        Ok(code) => code,
        Err(error) => {
            report(&error, format);
            ExitCode::from(error.exit_code())
        }
    }
}

impl Command {
    fn run(self) -> Result<ExitCode> {
        match self {
            Command::Run { config, until_caught_up } => wait(run::run(&config.config, until_caught_up)),
            Command::Check { config } => wait(check::check(&config.config)),
            Command::Demo(arguments) => wait(demo::demo(&arguments)),
            Command::History(arguments) => wait(history::history(&arguments)),
            Command::Query(arguments) => wait(query::query(&arguments)),
            Command::Resnapshot { config, tables } => wait(resnapshot::resnapshot(&config.config, &tables)),
            Command::Schema => schema::print(),
            Command::Completions { shell } => schema::print_completions(shell),
        }
    }
}

/// Runs a command to its end. Work that is then still under way is left behind, and ends with the process, not with a runtime before it:
/// threads of the Delta library that wait for their tasks would panic, and say so.
fn wait(command: impl Future<Output = Result<ExitCode>>) -> Result<ExitCode> {
    let runtime = tokio::runtime::Runtime::new().map_err(|e| Error::transient("no_thread", "no thread could be started").because(e))?;
    ManuallyDrop::new(runtime).block_on(command)
}

/// Help and version are what was asked for; anything else is a mistake in the arguments.
fn usage(told: &clap::Error) -> ExitCode {
    // Nothing is left to tell when the terminal itself is gone.
    let _ = told.print();
    ExitCode::from(if told.use_stderr() { 64 } else { 0 })
}

/// Says on stderr why the command failed: to a person as text, to a collector of logs as one more line. It is the command's answer, which no
/// filter of the log keeps back.
fn report(error: &Error, format: LogFormat) {
    use std::io::Write;
    let line = match format {
        LogFormat::Text => format!("error: {error}"),
        LogFormat::Json => {
            let timestamp = chrono::Utc::now().to_rfc3339_opts(chrono::SecondsFormat::Micros, true);
            let (code, kind) = (error.code, error.kind.name());
            serde_json::json!({"timestamp": timestamp, "level": "ERROR", "message": error.to_string(), "code": code, "kind": kind})
                .to_string()
        }
    };
    // Where even this cannot be written, the exit code has to say it.
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// Writes a result to stdout. A reader that went away (`| head`) has seen what it wanted.
fn print(text: &str) -> Result<()> {
    use std::io::{ErrorKind, Write};
    match std::io::stdout().lock().write_all(text.as_bytes()) {
        Err(e) if e.kind() != ErrorKind::BrokenPipe => {
            Err(Error::config("cannot_create", "the result cannot be written to stdout").because(e))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, RecvError, channel};
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_thread_that_a_command_leaves_behind_gets_what_it_waits_for() {
        let (tell, told) = channel();
        let outcome = wait(async move {
            let (done, awaited): (_, Receiver<()>) = channel();
            tokio::spawn(async move {
                tokio::time::sleep(Duration::from_millis(50)).await;
                done.send(())
            });
            tokio::task::spawn_blocking(move || tell.send(awaited.recv()));
            Ok(ExitCode::SUCCESS)
        });
        assert!(outcome.is_ok());
        let got: Result<Result<(), RecvError>, RecvError> = told.recv();
        assert_eq!(got, Ok(Ok(())));
    }
}

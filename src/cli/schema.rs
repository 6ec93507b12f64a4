//! `alluvium schema` and `alluvium completions`: the program about itself.

use std::process::ExitCode;

use clap::CommandFactory;
use clap_complete::Shell;

use super::Arguments;
use crate::config;
use crate::error::Result;

pub(super) fn print() -> Result<ExitCode> {
    super::print(&format!("{:#}\n", config::schema()))?;
    Ok(ExitCode::SUCCESS)
}

pub(super) fn print_completions(shell: Shell) -> Result<ExitCode> {
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut Arguments::command(), "alluvium", &mut text);
    super::print(&String::from_utf8_lossy(&text))?;
    Ok(ExitCode::SUCCESS)
}

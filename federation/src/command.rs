//! How the programs of this workspace begin and end: results go to standard output, the log to standard error, a failure
//! is one line `error: ...` that ends with what to do. Exit codes: 0 done, 1 failed, 2 asked for wrongly.

use std::error::Error;
use std::io::{self, IsTerminal as _, Write as _};
use std::process::ExitCode;

use clap::Parser;
use tracing_subscriber::EnvFilter;

/// Why a command failed.
pub trait CommandError: Error {
    /// The exit code of the process: 2 if the command was asked for wrongly, otherwise 1.
    fn exit_code(&self) -> u8;

    /// The error of standard output, if that is what failed.
    fn output(&self) -> Option<&io::Error>;
}

/// Runs the command of this process, and returns its exit code.
pub fn run<C: Parser, E: CommandError>(execute: impl FnOnce(C) -> Result<(), E>) -> ExitCode {
    let command = match C::try_parse() {
        Ok(command) => command,
        Err(error) => {
            // Nobody is there to be told that standard error is closed.
            let _ = error.print();
            return u8::try_from(error.exit_code()).map_or(ExitCode::FAILURE, ExitCode::from);
        }
    };
    match execute(command) {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever read our output has read enough.
        Err(error) if error.output().is_some_and(|output| output.kind() == io::ErrorKind::BrokenPipe) => {
            ExitCode::SUCCESS
        }
        Err(error) => {
            let _ = writeln!(io::stderr(), "error: {}", one_line(&error));
            ExitCode::from(error.exit_code())
        }
    }
}

/// Returns an error with its causes, in one line.
pub fn one_line(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str("; cause: ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Sends the log to standard error; once, later calls change nothing. `filter` is as the setting of the log's level.
pub fn start_log(filter: &str) {
    let filter = EnvFilter::try_new(filter).unwrap_or_else(|_| EnvFilter::new("info"));
    // An error says that the log has started already.
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        .try_init();
}

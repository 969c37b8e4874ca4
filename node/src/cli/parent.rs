//! `causeway end-with-parent`: runs another program in this process's place, told to end with the one that started it. For
//! `causeway devnet`, which starts programs that are not ours.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;

use clap::Args;

use super::CliError;
use crate::devnet::DevnetError;

/// What `causeway end-with-parent` is told.
#[derive(Debug, Args)]
pub struct ParentArgs {
    /// The process that the program ends with.
    pub parent: u32,
    /// The program.
    pub program: PathBuf,
    /// What it is told.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub arguments: Vec<OsString>,
}

/// Becomes the program. Does not return if that works.
///
/// # Errors
/// It does not start.
pub fn end_with_parent(args: &ParentArgs) -> Result<(), CliError> {
    ask_to_end_with_parent();
    // It may have ended before the system was asked.
    let parent = rustix::process::getppid().and_then(|id| u32::try_from(id.as_raw_nonzero().get()).ok());
    if parent != Some(args.parent) {
        return Ok(());
    }
    let source = Command::new(&args.program).args(&args.arguments).exec();
    Err(DevnetError::Start { program: args.program.clone(), source }.into())
}

/// Has the system ask this process to stop (SIGTERM) when the one that started it is gone, however that ended. It stays so
/// for a program that runs in this process's place.
pub(super) fn ask_to_end_with_parent() {
    #[cfg(target_os = "linux")]
    if let Err(error) = rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::TERM)) {
        tracing::warn!(%error, "this process will not notice the end of the one that started it");
    }
}

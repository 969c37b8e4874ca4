//! A member of the federation, and its operator's commands. Everything is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    causeway_federation::cli::main()
}

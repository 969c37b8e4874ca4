//! A member whose partial signatures are wrong, every one of them: the process that the other members must name, and do
//! without.
//!
//! `causeway-lying-member HOME`. Everything else that it says is right.

use std::path::Path;
use std::process::ExitCode;

use causeway_federation::session::{Body, SessionMessage};
use causeway_tests::seat::sit_for_ever;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, home] = arguments.as_slice() else { return ExitCode::from(2) };
    sit_for_ever(Path::new(home), Box::new(|message| Some(spoiled(message))));
    ExitCode::SUCCESS
}

/// The message with another number in each partial signature.
fn spoiled(mut message: SessionMessage) -> SessionMessage {
    if let Body::Partials { partials, .. } = &mut message.body {
        // The lowest bit: it stays a scalar.
        partials.iter_mut().for_each(|partial| partial[31] ^= 1);
    }
    message
}

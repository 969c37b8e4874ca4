//! Engines that talk to each other: do they agree, whatever gets lost, crashes or lies?

#![expect(clippy::unwrap_used, clippy::cast_possible_truncation, reason = "test code")]

mod agreement;
mod cluster;
mod crash;
mod equivocating_validator;

//! Requests over a real socket, against a real store and a real mempool.

mod bad_input;
mod broadcast;
mod chain;
mod events;
mod examples;
mod histories;
mod hostile;
mod light_client;
mod long_histories;
mod openapi;
mod own;
mod packages;
mod peg;
mod site;

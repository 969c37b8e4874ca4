//! Requests over a real socket, against a real store and a real mempool.

mod broadcast;
mod chain;
mod events;
mod histories;
mod hostile;
mod own;
mod packages;
mod peg;
mod site;

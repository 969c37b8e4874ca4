//! Requests over a real socket, against a real store and a real mempool.

mod broadcast;
mod chain;
mod hostile;
mod own;
mod peg;
mod site;

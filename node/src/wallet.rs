//! The wallet of a Causeway chain: keys from a mnemonic (BIP39), coins by taproot key path (BIP86), the peg both ways.
//!
//! It asks a node over REST and trusts it in one respect: that it hides nothing. What is paid, to whom, and what the
//! federation's address commits to, the wallet works out by itself, from the chainspec that it was made with. A node that
//! lies about coins makes payments that are refused: a taproot signature covers the amounts that it spends.
//!
//! What never leaves this module in the clear: the mnemonic, but for [`Wallet::mnemonic`]. What never enters it: a key of
//! somebody else.

pub mod amount;
mod content;
pub mod deposit;
mod error;
pub mod keys;
pub mod node;
pub mod open;
pub mod payment;
pub mod refund;
mod sync;

pub use error::WalletError;
pub use open::Wallet;

#[cfg(test)]
mod tests;

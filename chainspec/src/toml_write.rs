//! Writing a chainspec file: the same layout and comments always, so that equal chainspecs give equal text.

use std::fmt::{self, Write};

use bitcoin::consensus::serialize;
use bitcoin::hex::DisplayHex;

use crate::epoch::Epoch;
use crate::key::{self, NumberKey};
use crate::spec::{ChainSpecParts, RULES};

/// The file of checked parts.
pub(crate) fn write(parts: &ChainSpecParts) -> String {
    let mut out = String::new();
    write_all(&mut out, parts).expect("a string takes every write");
    out
}

fn write_all(out: &mut String, parts: &ChainSpecParts) -> fmt::Result {
    let ChainSpecParts { name, launch, genesis_time, validators, params, federation, bitcoin } = parts;
    write_top(out, name, &params.identity.to_string(), launch)?;
    write_number(out, &key::GENESIS_TIME, u64::from(*genesis_time))?;
    write_number(out, &key::BLOCK_INTERVAL_MS, u64::from(params.block_interval_ms))?;

    for (index, validator) in validators.iter().enumerate() {
        writeln!(out, "\n[[validators]]")?;
        if index == 0 {
            writeln!(
                out,
                "# X-only public key (BIP340), 64 hex digits. Every key once, in any order. 1 to 256 validators."
            )?;
            writeln!(out, "key = \"{}\"", validator.key)?;
            write_number(out, &key::POWER, validator.power)?;
        } else {
            writeln!(out, "key = \"{}\"\npower = {}", validator.key, validator.power)?;
        }
    }

    write_federation(out, federation)?;

    writeln!(out, "\n# The peg. Amounts are in satoshi, feerates in satoshi per 1,000 virtual bytes.\n[peg]")?;
    for (number, value) in params.peg_numbers() {
        write_number(out, number, value)?;
    }

    writeln!(
        out,
        "\n# Where the chain's view of Bitcoin starts: one block that every node takes as given.\n[bitcoin]"
    )?;
    writeln!(
        out,
        "# The Bitcoin network that the peg stands on: bitcoin, testnet4, signet or regtest. All but bitcoin are worthless."
    )?;
    writeln!(out, "network = \"{}\"", bitcoin.network())?;
    write_number(out, &key::BITCOIN_HEIGHT, u64::from(bitcoin.height().to_u32()))?;
    writeln!(out, "# The header at that height, 160 hex digits; at height 0 the network's genesis block.")?;
    writeln!(out, "header = \"{}\"", serialize(bitcoin.header()).as_hex())?;
    writeln!(
        out,
        "# Total work up to and including it, 64 hex digits, as Bitcoin Core's getblockheader prints it; below 2^128."
    )?;
    writeln!(out, "chainwork = \"{}\"", bitcoin.chainwork().to_be_bytes().as_hex())?;
    writeln!(
        out,
        "# Times of the ten blocks before it, oldest first; [] at height 0. Each: {}.",
        bounds(&key::EARLIER_TIME)
    )?;
    writeln!(out, "earlier_times = {:?}", bitcoin.earlier_times())
}

fn write_top(out: &mut String, name: &str, identity: &str, launch: &[u8; 32]) -> fmt::Result {
    writeln!(out, "# A Causeway chainspec: what every node of one network shares. Every key is required.")?;
    writeln!(out, "# Any change makes another chain. The bounds of a number stand beside it.\n")?;
    writeln!(
        out,
        "# Number of the rules that the chain runs by. A build runs one number and refuses the chains of all others."
    )?;
    writeln!(out, "rules = {RULES}")?;
    writeln!(out, "# Name of the network: 1 to 32 of a-z, 0-9 and -.")?;
    writeln!(out, "name = \"{name}\"")?;
    writeln!(
        out,
        "# The Bitcoin test network whose genesis block and address prefixes the chain has: regtest or signet."
    )?;
    writeln!(out, "identity = \"{identity}\"")?;
    writeln!(out, "# 32 random bytes, 64 hex digits: a relaunched network is another chain.")?;
    writeln!(out, "launch = \"{}\"", launch.as_hex())
}

fn write_federation(out: &mut String, federation: &Epoch) -> fmt::Result {
    writeln!(
        out,
        "\n# Epoch 1 of the federation. C(members, threshold) may be at most 5,000. The timelocks must increase:"
    )?;
    writeln!(out, "# claim_window < sweep_age < recovery_delay < refund_delay.\n[federation]")?;
    writeln!(out, "# Compressed public keys, 66 hex digits each. Every key once, in any order. 1 to 100 members.")?;
    write_list(out, "members", federation.members().iter().map(ToString::to_string))?;
    write_number(out, &key::THRESHOLD, u64::from(federation.threshold()))?;
    writeln!(
        out,
        "# X-only public keys, 64 hex digits each. Every key once, in any order, none a member's. 1 to 100 keys."
    )?;
    write_list(out, "recovery_keys", federation.recovery_keys().iter().map(ToString::to_string))?;
    write_number(out, &key::RECOVERY_THRESHOLD, u64::from(federation.recovery_threshold()))?;
    let timelocks = federation.timelocks();
    write_number(out, &key::CLAIM_WINDOW, u64::from(timelocks.claim_window))?;
    write_number(out, &key::SWEEP_AGE, u64::from(timelocks.sweep_age))?;
    write_number(out, &key::RECOVERY_DELAY, u64::from(timelocks.recovery_delay))?;
    write_number(out, &key::REFUND_DELAY, u64::from(timelocks.refund_delay))
}

fn write_list(out: &mut String, name: &str, words: impl Iterator<Item = String>) -> fmt::Result {
    writeln!(out, "{name} = [")?;
    for word in words {
        writeln!(out, "    \"{word}\",")?;
    }
    writeln!(out, "]")
}

/// The number under its meaning, beside its bounds.
fn write_number(out: &mut String, key: &NumberKey, value: u64) -> fmt::Result {
    for line in key.meaning.lines() {
        writeln!(out, "# {}", line.trim().replace('`', ""))?;
    }
    writeln!(out, "{} = {value} # {}", key.path.name(), bounds(key))
}

fn bounds(key: &NumberKey) -> String {
    let separator = if key.unit.is_empty() { "" } else { " " };
    format!("{} to {}{separator}{}", key.min, key.max, key.unit)
}

#[cfg(test)]
mod tests;

//! The federation's outputs as descriptors (BIP390), which Bitcoin Core derives addresses from and scans for.
//!
//! The text of an 11-of-15 federation has 1 MB: hand it to Bitcoin Core over HTTP, not on a command line.

use bitcoin::hex::DisplayHex;
use causeway_chainspec::ChainId;
use causeway_consensus::peg::script::{CoinScript, EpochScripts, left_half, nums_key};

/// The descriptor of an output, with its checksum (BIP380). The terms of a deposit name the epoch of `scripts`.
///
/// `tr(musig(..),{SUBSETS,{multi_a(..),..}})` for a main output; a deposit's tree has that of the main output on its left
/// (PEG section 5). Bitcoin Core reads it from version 30 on.
pub fn descriptor(scripts: &EpochScripts, chain: ChainId, coin: &CoinScript) -> String {
    let members: Vec<String> =
        scripts.epoch().members().iter().map(|key| key.serialize().to_lower_hex_string()).collect();
    let musig = |subset: &[u16]| {
        let keys: Vec<&str> = subset.iter().map(|index| members[usize::from(*index)].as_str()).collect();
        format!("musig({})", keys.join(","))
    };
    let text = text(scripts, chain, coin, &format!("musig({})", members.join(",")), musig);
    let checksum = checksum(&text);
    format!("{text}#{checksum}")
}

/// The descriptor without its checksum; `group` names the key of a subset.
fn text(
    scripts: &EpochScripts,
    chain: ChainId,
    coin: &CoinScript,
    internal_key: &str,
    group: impl Fn(&[u16]) -> String,
) -> String {
    let epoch = scripts.epoch();
    let subsets: Vec<String> = scripts.subsets().map(|(subset, _)| format!("pk({})", group(&subset))).collect();
    let mut tree = String::from("{");
    push_fold(&mut tree, &subsets);
    let members = epoch.members().iter().map(|key| key.x_only_public_key().0.to_string());
    tree.push_str(&format!(
        ",{{{},and_v(v:{},older({}))}}}}",
        multi_a(epoch.threshold(), members),
        multi_a(epoch.recovery_threshold(), epoch.recovery_keys().iter().map(ToString::to_string)),
        epoch.timelocks().recovery_delay,
    ));
    if let CoinScript::Deposit(terms) = coin {
        tree = format!(
            "{{{tree},{{and_v(v:pk({}),sha256({})),and_v(v:pk({}),older({}))}}}}",
            nums_key(),
            terms.commitment(chain).to_lower_hex_string(),
            terms.refund_key,
            epoch.timelocks().refund_delay,
        );
    }
    format!("tr({internal_key},{tree})")
}

fn multi_a(threshold: u32, keys: impl Iterator<Item = String>) -> String {
    format!("multi_a({threshold},{})", keys.collect::<Vec<_>>().join(","))
}

/// Appends leaves folded by halving.
fn push_fold(text: &mut String, leaves: &[String]) {
    if let [leaf] = leaves {
        text.push_str(leaf);
        return;
    }
    let (left, right) = leaves.split_at(left_half(leaves.len()));
    text.push('{');
    push_fold(text, left);
    text.push(',');
    push_fold(text, right);
    text.push('}');
}

/// The characters of a descriptor (BIP380): a character's position is its group, of 32 characters, and its symbol in it.
const INPUT_CHARACTERS: &str = concat!(
    "0123456789()[],'/*abcdefgh@:$%{}",
    "IJKLMNOPQRSTUVWXYZ&+-.;<=>?!^_|~",
    "ijklmnopqrstuvwxyzABCDEFGH`#\"\\ ",
);

/// The characters of a checksum, as bech32's.
const CHECKSUM_CHARACTERS: &[u8; 32] = b"qpzry9x8gf2tvdw0s3jn54khce6mua7l";

/// The checksum of a descriptor, 8 characters (BIP380).
fn checksum(text: &str) -> String {
    let positions = text.chars().map(|character| {
        INPUT_CHARACTERS.find(character).expect("a descriptor written here has only characters of descriptors")
    });
    let mut state = 1;
    let (mut groups, mut in_group) = (0, 0);
    for position in positions {
        state = step(state, position % 32);
        // Three groups, which are 0 to 2, make one more symbol.
        (groups, in_group) = (groups * 3 + position / 32, in_group + 1);
        if in_group == 3 {
            state = step(state, groups);
            (groups, in_group) = (0, 0);
        }
    }
    if in_group > 0 {
        state = step(state, groups);
    }
    state = (0..8).fold(state, |state, _| step(state, 0)) ^ 1;
    (0..8).rev().fold(String::new(), |mut checksum, symbol| {
        let symbol = usize::try_from(state >> (5 * symbol) & 31).expect("5 bits");
        checksum.push(char::from(CHECKSUM_CHARACTERS[symbol]));
        checksum
    })
}

/// One symbol of 5 bits into the checksum's polynomial.
fn step(state: u64, symbol: usize) -> u64 {
    const GENERATOR: [u64; 5] = [0xf5_dee5_1989, 0xa9_fdca_3312, 0x1b_ab10_e32d, 0x37_06b1_677a, 0x64_4d62_6ffd];
    let top = state >> 35;
    let next = ((state & 0x7_ffff_ffff) << 5) ^ symbol as u64;
    GENERATOR
        .iter()
        .enumerate()
        .filter(|(bit, _)| top >> bit & 1 == 1)
        .fold(next, |next, (_, generator)| next ^ generator)
}

#[cfg(test)]
mod tests;

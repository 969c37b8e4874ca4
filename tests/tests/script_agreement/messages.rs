//! What signatures sign, written down from the BIPs once more: `bitcoin`'s own code takes only hash types with a name.

use bitcoin::consensus::serialize;
use bitcoin::hashes::{Hash, sha256, sha256d};
use bitcoin::sighash::SighashCache;
use bitcoin::{Script, Transaction, TxOut};

/// Before segregated witness.
pub(crate) fn legacy(transaction: &Transaction, script: &Script, input: usize, hash_type: u8) -> [u8; 32] {
    let hash = SighashCache::new(transaction).legacy_signature_hash(input, script, u32::from(hash_type));
    hash.expect("the input is there").to_byte_array()
}

/// BIP-0143, for the script code of P2WPKH.
pub(crate) fn p2wpkh(
    transaction: &Transaction,
    spent: &TxOut,
    key_hash: &[u8],
    input: usize,
    hash_type: u8,
) -> [u8; 32] {
    let inputs = &transaction.input;
    let (base, anyone) = (hash_type & 0x1f, hash_type & 0x80 != 0);
    let all_outputs = base != 2 && base != 3;
    let prevouts: Vec<u8> = inputs.iter().flat_map(|input| serialize(&input.previous_output)).collect();
    let sequences: Vec<u8> = inputs.iter().flat_map(|input| serialize(&input.sequence)).collect();
    let outputs: Vec<u8> = transaction.output.iter().flat_map(serialize).collect();
    let mut message = serialize(&transaction.version);
    message.extend(if anyone { [0; 32] } else { sha256d(&prevouts) });
    message.extend(if anyone || !all_outputs { [0; 32] } else { sha256d(&sequences) });
    message.extend(serialize(&inputs[input].previous_output));
    message.extend([&[0x19, 0x76, 0xa9, 0x14], key_hash, &[0x88, 0xac]].concat());
    message.extend(serialize(&spent.value));
    message.extend(serialize(&inputs[input].sequence));
    message.extend(match transaction.output.get(input) {
        _ if all_outputs => sha256d(&outputs),
        Some(output) if base == 3 => sha256d(&serialize(output)),
        _ => [0; 32],
    });
    message.extend(serialize(&transaction.lock_time));
    message.extend(u32::from(hash_type).to_le_bytes());
    sha256d(&message)
}

/// BIP-0341 and BIP-0342, for any hash type, also those that are not allowed: SINGLE without its output signs none.
pub(crate) fn taproot(
    transaction: &Transaction,
    spent: &[TxOut],
    input: usize,
    hash_type: u8,
    annex: Option<&[u8]>,
    leaf: Option<[u8; 32]>,
) -> [u8; 32] {
    let inputs = &transaction.input;
    let (base, anyone) = (hash_type & 3, hash_type & 0x80 != 0);
    let mut message = vec![0, hash_type];
    message.extend(serialize(&transaction.version));
    message.extend(serialize(&transaction.lock_time));
    if !anyone {
        let all = |bytes: Vec<Vec<u8>>| sha256(&bytes.concat());
        message.extend(all(inputs.iter().map(|input| serialize(&input.previous_output)).collect()));
        message.extend(all(spent.iter().map(|output| serialize(&output.value)).collect()));
        message.extend(all(spent.iter().map(|output| serialize(&output.script_pubkey)).collect()));
        message.extend(all(inputs.iter().map(|input| serialize(&input.sequence)).collect()));
    }
    if base != 2 && base != 3 {
        message.extend(sha256(&transaction.output.iter().flat_map(serialize).collect::<Vec<u8>>()));
    }
    message.push(u8::from(leaf.is_some()) * 2 + u8::from(annex.is_some()));
    if anyone {
        message.extend(serialize(&inputs[input].previous_output));
        message.extend(serialize(&spent[input]));
        message.extend(serialize(&inputs[input].sequence));
    } else {
        message.extend(u32::try_from(input).expect("few inputs").to_le_bytes());
    }
    if let Some(annex) = annex {
        message.extend(sha256(&serialize(&annex.to_vec())));
    }
    if let (3, Some(output)) = (base, transaction.output.get(input)) {
        message.extend(sha256(&serialize(output)));
    }
    if let Some(leaf) = leaf {
        message.extend(leaf);
        message.push(0); // key version
        message.extend(u32::MAX.to_le_bytes()); // no OP_CODESEPARATOR
    }
    tagged("TapSighash", &[&message])
}

/// BIP-0340's tagged hash.
pub(crate) fn tagged(tag: &str, parts: &[&[u8]]) -> [u8; 32] {
    let tag = sha256(tag.as_bytes());
    sha256(&[&tag, &tag, parts.concat().as_slice()].concat())
}

pub(crate) fn sha256(bytes: &[u8]) -> [u8; 32] {
    sha256::Hash::hash(bytes).to_byte_array()
}

fn sha256d(bytes: &[u8]) -> [u8; 32] {
    sha256d::Hash::hash(bytes).to_byte_array()
}

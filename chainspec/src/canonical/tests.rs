use std::collections::HashSet;

use bitcoin::constants::genesis_block;
use bitcoin::secp256k1::{PublicKey, Secp256k1, XOnlyPublicKey};
use bitcoin::{Amount, Network, Work};

use super::*;
use crate::{BitcoinHeight, BitcoinStart, ChainSpec, Epoch, EpochParts, Params, SatPerKvb, Validator, devnet};

fn parts() -> ChainSpecParts {
    ChainSpec::built_in("devnet").unwrap().to_parts()
}

#[test]
fn the_hash_of_devnet_is_pinned() {
    assert_eq!(
        ChainSpec::built_in("devnet").unwrap().hash().to_string(),
        "5f40c132e5057167212abda6396627b88fd7988543bc41db2eded7018bb2c5f4"
    );
    assert_eq!(encode(&parts()).len(), 819);
}

#[test]
fn the_tag_is_hashed_as_bip340_does() {
    let tag = sha256::Hash::hash(b"causeway/chainspec/v2").to_byte_array();
    let message = [&tag[..], &tag[..], b"message"].concat();
    assert_eq!(tagged_hash(TAG, &[b"mess", b"age"]), sha256::Hash::hash(&message).to_byte_array());
}

fn public(role: &str) -> PublicKey {
    devnet::secret_key(role, 0).public_key(&Secp256k1::new())
}

fn x_only(role: &str) -> XOnlyPublicKey {
    public(role).x_only_public_key().0
}

/// The federation of devnet but for what `change` changes.
fn federation(change: impl Fn(&mut EpochParts)) -> Epoch {
    let mut parts = parts().federation.to_parts();
    change(&mut parts);
    Epoch::new(parts).unwrap()
}

fn start(network: Network, height: u32, nonce_from: u32, extra_work: u8, first_time: u32) -> BitcoinStart {
    let mut header = genesis_block(Network::Regtest).header;
    header.nonce = nonce_from;
    while !header.target().is_met_by(header.block_hash()) {
        header.nonce += 1;
    }
    let mut chainwork = [0; 32];
    chainwork[29] = 1;
    chainwork[31] = extra_work;
    let mut times = vec![1_500_000_000; 10];
    times[0] = first_time;
    BitcoinStart::new(network, BitcoinHeight(height), header, Work::from_be_bytes(chainwork), times).unwrap()
}

type Change = Box<dyn Fn(&mut ChainSpecParts)>;

fn change(change: impl Fn(&mut ChainSpecParts) + 'static) -> Change {
    Box::new(change)
}

fn param(set: impl Fn(&mut Params) + 'static) -> Change {
    change(move |parts| set(&mut parts.params))
}

fn epoch(set: impl Fn(&mut EpochParts) + 'static) -> Change {
    change(move |parts| parts.federation = federation(&set))
}

/// One change of every number of `[peg]`, in the order of [`Params::peg_numbers`].
fn peg_changes() -> [Change; Params::PEG_NUMBERS] {
    let sat = Amount::from_sat(1);
    [
        param(move |params| params.peg_out_min += sat),
        param(move |params| params.peg_out_max += sat),
        param(move |params| params.peg_out_fee_max += sat),
        param(move |params| params.peg_in_min += sat),
        param(move |params| params.batch_value_max += sat),
        param(move |params| params.value_per_day_max += sat),
        param(move |params| params.change_unit += sat),
        param(|params| params.fee_rate_default = SatPerKvb(params.fee_rate_default.0 + 1)),
        param(|params| params.fee_rate_max = SatPerKvb(params.fee_rate_max.0 + 1)),
        param(|params| params.final_depth += 1),
        param(|params| params.fork_depth += 1),
        param(|params| params.header_freshness_s += 1),
        param(|params| params.coins_max += 1),
        param(|params| params.refresh_margin += 1),
        param(|params| params.max_open_refreshes += 1),
        param(|params| params.max_open_batches += 1),
        param(|params| params.max_inputs += 1),
        param(|params| params.max_payees += 1),
        param(|params| params.batch_interval += 1),
        param(|params| params.request_max_wait += 1),
        param(|params| params.replace_after += 1),
        param(|params| params.quote_age += 1),
        param(|params| params.epoch_grace += 1),
    ]
}

fn other_changes() -> Vec<Change> {
    vec![
        change(|parts| parts.name.push('2')),
        change(|parts| parts.launch[31] ^= 1),
        change(|parts| parts.genesis_time += 1),
        param(|params| params.identity = Network::Signet),
        param(|params| params.block_interval_ms += 1),
        change(|parts| parts.validators[0].key = x_only("another validator")),
        change(|parts| parts.validators[3].power += 1),
        change(|parts| parts.validators.truncate(3)),
        change(|parts| parts.validators.push(Validator { key: x_only("another validator"), power: 1 })),
        epoch(|epoch| epoch.number += 1),
        epoch(|epoch| epoch.members[0] = public("another member")),
        epoch(|epoch| epoch.members.push(public("another member"))),
        // The key with the same x coordinate has the same leaves, but MuSig2 and KeySort tell them apart.
        epoch(|epoch| epoch.members[0] = epoch.members[0].negate(&Secp256k1::new())),
        epoch(|epoch| epoch.threshold += 1),
        epoch(|epoch| epoch.recovery_keys[0] = x_only("another recovery")),
        epoch(|epoch| epoch.recovery_keys.push(x_only("another recovery"))),
        epoch(|epoch| epoch.recovery_threshold += 1),
        epoch(|epoch| epoch.timelocks.claim_window += 1),
        epoch(|epoch| epoch.timelocks.sweep_age += 1),
        epoch(|epoch| epoch.timelocks.recovery_delay += 1),
        epoch(|epoch| epoch.timelocks.refund_delay += 1),
        change(|parts| parts.bitcoin = start(Network::Regtest, 2_016, 0, 0, 1)),
        change(|parts| parts.bitcoin = start(Network::Regtest, 4_032, 0, 0, 1)),
        change(|parts| parts.bitcoin = start(Network::Regtest, 2_016, 100, 0, 1)),
        change(|parts| parts.bitcoin = start(Network::Regtest, 2_016, 0, 1, 1)),
        change(|parts| parts.bitcoin = start(Network::Regtest, 2_016, 0, 0, 2)),
    ]
}

#[test]
fn every_field_is_part_of_the_hash() {
    let mut hashes = HashSet::from([ChainSpecHash::of(&parts())]);
    let changes: Vec<Change> = peg_changes().into_iter().chain(other_changes()).collect();
    for (index, change) in changes.iter().enumerate() {
        let mut changed = parts();
        change(&mut changed);
        assert!(hashes.insert(ChainSpecHash::of(&changed)), "change {index} does not change the hash");
    }
}

#[test]
fn the_rules_are_part_of_the_hash() {
    assert!(encode(&parts()).starts_with(&RULES.to_le_bytes()));
}

#[test]
fn the_network_of_the_peg_is_part_of_the_hash() {
    let mut hashes = HashSet::new();
    for network in crate::PARENT_NETWORKS {
        let mut changed = parts();
        let header = genesis_block(network).header;
        changed.bitcoin = BitcoinStart::new(network, BitcoinHeight(0), header, header.work(), vec![]).unwrap();
        assert!(hashes.insert(ChainSpecHash::of(&changed)));
    }
}

#[test]
fn each_number_of_the_peg_has_its_own_place() {
    let before = parts().params.peg_numbers();
    for (index, change) in peg_changes().iter().enumerate() {
        let mut changed = parts();
        change(&mut changed);
        let after = changed.params.peg_numbers();
        for (at, (old, new)) in before.iter().zip(after).enumerate() {
            assert_eq!(*old != new, at == index, "{} changed with {}", old.0.path, before[index].0.path);
        }
    }
}

#[test]
fn the_order_of_keys_does_not_matter() {
    let spec = ChainSpec::built_in("devnet").unwrap();
    let mut reordered = parts();
    reordered.validators.reverse();
    reordered.federation = federation(|epoch| {
        epoch.members.reverse();
        epoch.recovery_keys.reverse();
    });
    assert_eq!(ChainSpec::new(reordered).unwrap(), spec);
}

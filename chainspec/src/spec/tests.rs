use bitcoin::secp256k1::Secp256k1;
use bitcoin::{Amount, Weight};

use super::*;
use crate::bitcoin_start::PARENT_NETWORKS;
use crate::derived::SUPPLY;
use crate::epoch::{EpochParts, Timelocks};
use crate::error::PegParamsError;
use crate::units::{BitcoinHeight, SatPerKvb};

fn devnet() -> ChainSpecParts {
    ChainSpec::built_in("devnet").unwrap().to_parts()
}

/// The devnet with one change, which must be refused.
#[track_caller]
fn refused(change: impl FnOnce(&mut ChainSpecParts)) -> ChainSpecError {
    let mut parts = devnet();
    change(&mut parts);
    ChainSpec::new(parts).unwrap_err()
}

/// The devnet with one change, which must be accepted.
#[track_caller]
fn accepted(change: impl FnOnce(&mut ChainSpecParts)) -> ChainSpec {
    let mut parts = devnet();
    change(&mut parts);
    let spec = ChainSpec::new(parts).unwrap();
    assert_eq!(ChainSpec::from_toml(&spec.to_toml()), Ok(spec.clone()));
    spec
}

fn sat(amount: u64) -> Amount {
    Amount::from_sat(amount)
}

fn key(index: u32) -> XOnlyPublicKey {
    devnet::secret_key("test validator", index).x_only_public_key(&Secp256k1::new()).0
}

/// What a network with real coins could look like: PEG's mainnet values, 11 of 15.
fn mainnet() -> ChainSpecParts {
    let secp = Secp256k1::new();
    let header = genesis_block(Network::Bitcoin).header;
    let federation = Epoch::new(EpochParts {
        members: (0..15).map(|index| devnet::secret_key("test member", index).public_key(&secp)).collect(),
        threshold: 11,
        timelocks: Timelocks { claim_window: 4_032, sweep_age: 12_960, recovery_delay: 17_280, refund_delay: 25_920 },
        ..devnet().federation.to_parts()
    });
    ChainSpecParts {
        name: "main".to_owned(),
        params: Params {
            identity: Network::Signet,
            block_interval_ms: 5_000,
            peg_out_min: sat(50_000),
            peg_out_fee_max: sat(49_454),
            peg_in_min: sat(53_725),
            fee_rate_max: SatPerKvb(100_000),
            final_depth: 24,
            fork_depth: 2_016,
            coins_max: 2_880,
            refresh_margin: 1_008,
            batch_interval: 60,
            replace_after: 6,
            epoch_grace: 1_008,
            ..devnet().params
        },
        federation: federation.unwrap(),
        bitcoin: BitcoinStart::new(Network::Bitcoin, BitcoinHeight(0), header, header.work(), vec![]).unwrap(),
        ..devnet()
    }
}

#[test]
fn built_in_networks_are_found_by_name() {
    assert_eq!(ChainSpec::built_in("devnet").unwrap().name(), "devnet");
    let error = ChainSpec::built_in("mainnet").unwrap_err();
    assert_eq!(error.to_string(), "no built-in network is called \"mainnet\"; built in: devnet");
}

#[test]
fn a_chainspec_gives_what_it_was_made_of() {
    let parts = devnet();
    let spec = ChainSpec::new(parts.clone()).unwrap();
    assert_eq!(spec.to_parts(), parts);
    assert_eq!(spec.name(), "devnet");
    assert_eq!(spec.identity(), Network::Regtest);
    assert_eq!(spec.launch(), parts.launch);
    assert_eq!(spec.genesis_time(), parts.genesis_time);
    assert_eq!(spec.params(), &parts.params);
    assert_eq!(spec.validators(), parts.validators);
    assert_eq!(spec.total_power(), 4);
    assert_eq!(spec.federation(), &parts.federation);
    assert_eq!(spec.bitcoin(), &parts.bitcoin);
    assert_eq!(spec.federation(), &parts.federation);
    assert_eq!(spec.bitcoin(), &parts.bitcoin);
}

#[test]
fn relaunching_gives_another_chain() {
    let spec = accepted(|parts| parts.launch = [9; 32]);
    let original = ChainSpec::built_in("devnet").unwrap();
    assert_ne!(spec.chain_id(), original.chain_id());
    assert_ne!(spec.hash(), original.hash());
    assert_eq!(spec.derived_header(Height(0)), original.derived_header(Height(0)));
}

#[test]
fn names_are_short_and_plain() {
    accepted(|parts| parts.name = "a".repeat(32));
    accepted(|parts| parts.name = "causeway-2".to_owned());
    for name in ["", "Devnet", "a b", "dev\"net", "../x", "é", &"a".repeat(33)] {
        let error = refused(|parts| parts.name = name.to_owned());
        assert_eq!(error.to_string(), format!("name is {name:?}, which must be 1 to 32 of a-z, 0-9 and -"));
    }
}

#[test]
fn identities_are_regtest_or_signet() {
    accepted(|parts| parts.params.identity = Network::Signet);
    let error = refused(|parts| parts.params.identity = Network::Bitcoin);
    assert_eq!(error.to_string(), "identity is \"bitcoin\", which must be one of: regtest, signet");
}

#[test]
fn block_1_comes_after_block_0() {
    accepted(|parts| parts.genesis_time = 1_296_688_603);
    accepted(|parts| parts.genesis_time = 4_000_000_000);
    assert_eq!(
        refused(|parts| parts.genesis_time = 1_296_688_602).to_string(),
        "genesis_time is 1296688602, which must be greater than the time of block 0, 1296688602"
    );
    assert_eq!(
        refused(|parts| parts.genesis_time = 4_000_000_001).to_string(),
        "genesis_time is 4000000001, which must be 1 to 4000000000 seconds since 1970"
    );
}

#[test]
fn there_are_1_to_256_validators() {
    let validators = |n: u32| (0..n).map(|index| Validator { key: key(index), power: 1 }).collect::<Vec<_>>();
    accepted(|parts| parts.validators = validators(1));
    let spec = accepted(|parts| parts.validators = validators(256));
    assert!(spec.validators().windows(2).all(|pair| pair[0].key.serialize() < pair[1].key.serialize()));
    assert_eq!(
        refused(|parts| parts.validators.clear()).to_string(),
        "validators holds 0 entries, which must be 1 to 256"
    );
    assert_eq!(
        refused(|parts| parts.validators = validators(257)).to_string(),
        "validators holds 257 entries, which must be 1 to 256"
    );
}

#[test]
fn three_times_all_power_fits() {
    let max = 1 << 60;
    assert!(3u64.checked_mul(max).is_some());
    accepted(|parts| parts.validators[0].power = max - 3);
    assert_eq!(
        refused(|parts| parts.validators[0].power = max - 2).to_string(),
        "validators.power add up to 1152921504606846977, which may be at most 1152921504606846976"
    );
    let error = refused(|parts| parts.validators.iter_mut().for_each(|validator| validator.power = max));
    assert!(matches!(error, ChainSpecError::TotalPower { got, .. } if got == 4 << 60));
    for power in [0, max + 1, u64::MAX] {
        let error = refused(|parts| parts.validators[2].power = power);
        assert!(error.to_string().starts_with(&format!("validators[2].power is {power}, ")), "{error}");
    }
}

#[test]
fn no_validator_stands_twice() {
    let error = refused(|parts| parts.validators[3].key = parts.validators[1].key);
    assert!(error.to_string().starts_with("validators[3].key repeats validators[1].key: "), "{error}");
}

#[test]
fn the_chainspec_fixes_epoch_1() {
    let error = refused(|parts| {
        parts.federation = Epoch::new(EpochParts { number: 2, ..parts.federation.to_parts() }).unwrap();
    });
    assert_eq!(error.to_string(), "the chainspec's federation is epoch 2, which must be 1");
}

#[test]
fn the_values_of_the_peg_document_hold_together() {
    let spec = ChainSpec::new(mainnet()).unwrap();
    assert_eq!(ChainSpec::from_toml(&spec.to_toml()), Ok(spec));
}

#[test]
fn sixteen_inputs_of_11_of_15_leave_82_payees() {
    let mut parts = mainnet();
    assert_eq!((parts.params.max_inputs, parts.params.max_payees), (16, 82));
    parts.params.max_payees = 83;
    let error = ChainSpec::new(parts).unwrap_err();
    assert_eq!(
        error,
        ChainSpecError::Peg(PegParamsError::BatchTooLarge {
            max_inputs: 16,
            max_payees: 83,
            input: Weight::from_wu(1_529),
            got: Weight::from_wu(48 + 16 * 1_529 + 91 * 172),
            max: Weight::from_wu(40_000),
        })
    );
    assert_eq!(
        error.to_string(),
        "peg.max_inputs (16 inputs of 1529 weight) and max_payees (83, and 8 change outputs) make a batch of weight 40164, which may be at most 40000"
    );
}

#[test]
fn every_deposit_can_be_swept_alone() {
    let mut parts = mainnet();
    parts.params.peg_in_min -= sat(1);
    assert_eq!(
        ChainSpec::new(parts).unwrap_err().to_string(),
        "peg.peg_in_min is 53724 sat, which must be at least 53725: 10,000 and the fee of sweeping one deposit alone at fee_rate_max (100000 sat/kvB)"
    );
}

#[test]
fn sweeping_keeps_up() {
    // 2 refreshes x 16 inputs x 4,320 blocks / (2 x 24).
    let mut parts = mainnet();
    parts.params.coins_max += 1;
    let error = ChainSpec::new(parts).unwrap_err();
    assert_eq!(
        error.to_string(),
        "peg.coins_max is 2881, which may be at most 2880: max_open_refreshes x max_inputs x (recovery_delay - sweep_age) / (2 x final_depth)"
    );
}

#[test]
fn amounts_of_the_peg_are_ordered() {
    accepted(|parts| parts.params.peg_out_fee_max = sat(19_454));
    assert_eq!(
        refused(|parts| parts.params.peg_out_fee_max = sat(19_455)).to_string(),
        "peg.peg_out_min is 20000 sat, which must be at least 20001: peg_out_fee_max and 546"
    );
    accepted(|parts| parts.params.peg_out_max = sat(20_000));
    assert_eq!(
        refused(|parts| parts.params.peg_out_max = sat(19_999)).to_string(),
        "peg.peg_out_max is 19999 sat, which must be at least peg_out_min (20000)"
    );
    accepted(|parts| parts.params.batch_value_max = parts.params.peg_out_max);
    assert_eq!(
        refused(|parts| parts.params.batch_value_max = parts.params.peg_out_max - sat(1)).to_string(),
        "peg.batch_value_max is 9999999999 sat, which must be at least peg_out_max (10000000000)"
    );
    accepted(|parts| parts.params.value_per_day_max = parts.params.batch_value_max);
    assert_eq!(
        refused(|parts| parts.params.value_per_day_max = parts.params.batch_value_max - sat(1)).to_string(),
        "peg.value_per_day_max is 49999999999 sat, which must be at least batch_value_max (50000000000)"
    );
    accepted(|parts| parts.params.fee_rate_default = parts.params.fee_rate_max);
    assert_eq!(
        refused(|parts| parts.params.fee_rate_default = SatPerKvb(100_001)).to_string(),
        "peg.fee_rate_default is 100001 sat/kvB, which may be at most fee_rate_max (100000 sat/kvB)"
    );
    let error = refused(|parts| parts.params.peg_out_fee_max = SUPPLY);
    assert!(matches!(error, ChainSpecError::Peg(PegParamsError::PegOutMinTooSmall { .. })));
}

#[test]
fn depths_of_the_peg_are_ordered() {
    accepted(|parts| parts.params.fork_depth = 3);
    assert_eq!(
        refused(|parts| parts.params.fork_depth = 2).to_string(),
        "peg.fork_depth is 2, which must be at least final_depth (3)"
    );
    let window = |parts: &mut ChainSpecParts, claim_window| {
        let epoch = parts.federation.to_parts();
        let timelocks = Timelocks { claim_window, ..epoch.timelocks };
        parts.federation = Epoch::new(EpochParts { timelocks, ..epoch }).unwrap();
    };
    accepted(|parts| window(parts, 4));
    assert_eq!(
        refused(|parts| window(parts, 3)).to_string(),
        "federation.claim_window is 3 Bitcoin blocks, which must be greater than peg.final_depth (3)"
    );
    accepted(|parts| parts.params.refresh_margin = 647);
    assert_eq!(
        refused(|parts| parts.params.refresh_margin = 648).to_string(),
        "peg.refresh_margin is 648 Bitcoin blocks, which must be less than federation.sweep_age (648)"
    );
}

#[test]
fn bounds_hold_for_parts_too() {
    assert_eq!(
        refused(|parts| parts.params.block_interval_ms = 199).to_string(),
        "block_interval_ms is 199, which must be 200 to 600000 ms"
    );
    assert_eq!(
        refused(|parts| parts.params.max_inputs = 11).to_string(),
        "peg.max_inputs is 11, which must be 12 to 1000 coins"
    );
    assert_eq!(
        refused(|parts| parts.params.peg_out_max = Amount::MAX).to_string(),
        "peg.peg_out_max is 18446744073709551615, which must be 546 to 2100000000000000 sat"
    );
}

#[test]
fn the_peg_stands_on_any_bitcoin_network() {
    for network in PARENT_NETWORKS {
        let header = genesis_block(network).header;
        let start = BitcoinStart::new(network, BitcoinHeight(0), header, header.work(), vec![]).unwrap();
        let spec = accepted(|parts| parts.bitcoin = start);
        assert_eq!(spec.bitcoin().network(), network);
    }
}

#[test]
fn a_start_within_the_chain_is_kept() {
    let mut header = Header { prev_blockhash: regtest_genesis().block_hash(), ..regtest_genesis() };
    header.time += 1;
    while !header.target().is_met_by(header.block_hash()) {
        header.nonce += 1;
    }
    let mut work = [0; 32];
    work[30] = 0xff;
    let spec = accepted(|parts| {
        let (work, times) = (bitcoin::Work::from_be_bytes(work), (1..=10).collect());
        parts.bitcoin = BitcoinStart::new(Network::Regtest, BitcoinHeight(4_032), header, work, times).unwrap();
    });
    assert_eq!(spec.bitcoin().earlier_times(), [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]);
}

fn regtest_genesis() -> Header {
    genesis_block(Network::Regtest).header
}

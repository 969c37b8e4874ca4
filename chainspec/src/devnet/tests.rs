use bitcoin::constants::genesis_block;
use bitcoin::secp256k1::Secp256k1;
use bitcoin::{Amount, Network};

use super::*;
use crate::{
    BitcoinHeight, BitcoinStart, ChainSpec, ChainSpecParts, Epoch, EpochParts, Params, SatPerKvb, Timelocks, Validator,
};

fn btc(whole: u64) -> Amount {
    Amount::from_sat(whole * 100_000_000)
}

/// What `specs/devnet.toml` must hold, from the labels of the keys.
fn devnet_parts() -> ChainSpecParts {
    let secp = Secp256k1::new();
    let public = |role, index| secret_key(role, index).public_key(&secp);
    let genesis = genesis_block(Network::Regtest).header;
    ChainSpecParts {
        name: "devnet".to_owned(),
        launch: label_hash("launch", 0),
        genesis_time: 1_767_225_600,
        validators: (0..4)
            .map(|index| Validator { key: public(VALIDATOR, index).x_only_public_key().0, power: 1 })
            .collect(),
        params: Params {
            identity: Network::Regtest,
            block_interval_ms: 1_000,
            peg_out_min: Amount::from_sat(20_000),
            peg_out_max: btc(100),
            peg_out_fee_max: Amount::from_sat(10_000),
            peg_in_min: Amount::from_sat(50_000),
            batch_value_max: btc(500),
            value_per_day_max: btc(2_000),
            change_unit: btc(10),
            fee_rate_default: SatPerKvb(2_000),
            fee_rate_max: SatPerKvb(100_000),
            final_depth: 3,
            fork_depth: 30,
            header_freshness_s: 86_400,
            coins_max: 1_000,
            refresh_margin: 50,
            max_open_refreshes: 2,
            max_open_batches: 4,
            max_inputs: 16,
            max_payees: 82,
            batch_interval: 10,
            request_max_wait: 600,
            replace_after: 3,
            quote_age: 1_000,
            epoch_grace: 50,
        },
        federation: Epoch::new(EpochParts {
            number: 1,
            members: (0..5).map(|index| public(MEMBER, index)).collect(),
            threshold: 3,
            recovery_keys: (0..3).map(|index| public(RECOVERY, index).x_only_public_key().0).collect(),
            recovery_threshold: 2,
            timelocks: Timelocks { claim_window: 200, sweep_age: 648, recovery_delay: 864, refund_delay: 1_296 },
        })
        .unwrap(),
        bitcoin: BitcoinStart::new(Network::Regtest, BitcoinHeight(0), genesis, genesis.work(), vec![]).unwrap(),
    }
}

#[test]
fn the_file_is_what_the_labels_give() {
    let spec = ChainSpec::new(devnet_parts()).unwrap();
    assert_eq!(spec.to_toml(), TOML);
    assert_eq!(ChainSpec::built_in("devnet").unwrap(), spec);
}

#[test]
fn every_key_on_the_devnet_is_public() {
    let spec = ChainSpec::built_in("devnet").unwrap();
    let secp = Secp256k1::new();
    let count = |role, keys: &[bitcoin::secp256k1::XOnlyPublicKey]| {
        let public = |index| secret_key(role, index).x_only_public_key(&secp).0;
        keys.iter().filter(|key| (0..keys.len()).any(|index| public(u32::try_from(index).unwrap()) == **key)).count()
    };
    let validators: Vec<_> = spec.validators().iter().map(|validator| validator.key).collect();
    let members: Vec<_> = spec.federation().members().iter().map(|member| member.x_only_public_key().0).collect();
    assert_eq!(count(VALIDATOR, &validators), 4);
    assert_eq!(count(MEMBER, &members), 5);
    assert_eq!(count(RECOVERY, spec.federation().recovery_keys()), 3);
}

#[test]
fn labels_are_kept_apart() {
    assert_ne!(secret_key(VALIDATOR, 0), secret_key(VALIDATOR, 1));
    assert_ne!(secret_key(VALIDATOR, 0), secret_key(MEMBER, 0));
    assert_eq!(
        secret_key(FUNDS, 0).display_secret().to_string(),
        "f95303525e0e6a3e2a6f090af05f6893f8627a32b60eff02f49f1218af63dfd7",
        "wallet tests and documents hold this key"
    );
}

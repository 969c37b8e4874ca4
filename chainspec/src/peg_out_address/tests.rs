use bitcoin::hashes::Hash;
use bitcoin::hex::FromHex;
use bitcoin::{PubkeyHash, ScriptHash, WPubkeyHash, WScriptHash};
use proptest::prelude::*;

use super::*;
use crate::{ChainSpec, PARENT_NETWORKS};

fn script(hex: &str) -> ScriptBuf {
    ScriptBuf::from_bytes(Vec::from_hex(hex).unwrap())
}

/// The five forms, byte for byte, as PEG section 1 and Bitcoin Core's `Solver` have them.
fn has_one_of_the_five_forms(script: &[u8]) -> bool {
    match script {
        [0x76, 0xa9, 0x14, hash @ .., 0x88, 0xac] => hash.len() == 20,
        [0xa9, 0x14, hash @ .., 0x87] => hash.len() == 20,
        [0x00, 0x14, hash @ ..] => hash.len() == 20,
        [0x00 | 0x51, 0x20, program @ ..] => program.len() == 32,
        _ => false,
    }
}

fn five_forms() -> impl Strategy<Value = ScriptBuf> {
    let short = any::<[u8; 20]>();
    let long = any::<[u8; 32]>();
    prop_oneof![
        short.prop_map(|hash| ScriptBuf::new_p2pkh(&PubkeyHash::from_byte_array(hash))),
        short.prop_map(|hash| ScriptBuf::new_p2sh(&ScriptHash::from_byte_array(hash))),
        short.prop_map(|hash| ScriptBuf::new_p2wpkh(&WPubkeyHash::from_byte_array(hash))),
        long.prop_map(|hash| ScriptBuf::new_p2wsh(&WScriptHash::from_byte_array(hash))),
        long.prop_map(|key| {
            ScriptBuf::new_witness_program(&WitnessProgram::new(WitnessVersion::V1, &key).unwrap())
        }),
    ]
}

/// Scripts that are close to one of the five forms, or to a request, and some that are neither.
fn near_misses() -> impl Strategy<Value = Vec<u8>> {
    let base = prop_oneof![
        five_forms().prop_map(ScriptBuf::into_bytes),
        five_forms().prop_map(|script| PegOutDestination(script).to_script_pubkey().into_bytes()),
        Just(reserve_script().into_bytes()),
        prop::collection::vec(any::<u8>(), 0..48),
        (0u8..17, prop::collection::vec(any::<u8>(), 0..44)).prop_map(|(version, program)| {
            let version = if version == 0 { 0 } else { 0x50 + version };
            let length = u8::try_from(program.len()).unwrap();
            [&[version, length], &program[..]].concat()
        }),
    ];
    (base, any::<prop::sample::Index>(), any::<u8>(), 0..5).prop_map(|(mut bytes, at, byte, kind)| {
        let at = if bytes.is_empty() { 0 } else { at.index(bytes.len()) };
        match kind {
            0 if !bytes.is_empty() => bytes[at] = byte,
            1 if !bytes.is_empty() => {
                bytes.remove(at);
            }
            2 => bytes.insert(at, byte),
            3 => bytes.push(byte),
            _ => {}
        }
        bytes
    })
}

proptest! {
    #[test]
    fn every_bitcoin_address_has_a_causeway_address_and_back(
        script in five_forms(),
        parent in prop::sample::select(&PARENT_NETWORKS[..]),
        chain in prop::sample::select(&IDENTITIES[..]),
    ) {
        let bitcoin = Address::from_script(&script, parent).unwrap();
        let causeway = to_causeway_address(&bitcoin, chain).unwrap();
        let request = PegOutDestination::from_bitcoin_script(&script).unwrap();
        prop_assert_eq!(request.script(), script.as_script());

        // What a wallet does: parse the text, check the network, pay the script.
        let text = causeway.to_string();
        let prefix = if chain == Network::Regtest { "bcrt1s" } else { "tb1s" };
        prop_assert!(text.starts_with(prefix), "{}", text);
        let parsed = text.parse::<Address<_>>().unwrap().require_network(chain).unwrap();
        prop_assert_eq!(&parsed, &causeway);
        prop_assert_eq!(parsed.script_pubkey(), request.to_script_pubkey());
        prop_assert_eq!(
            parsed.script_pubkey().into_bytes(),
            [&[0x60, u8::try_from(script.len()).unwrap() + 4], &b"CWPO"[..], script.as_bytes()].concat()
        );
        prop_assert!(!text.parse::<Address<_>>().unwrap().is_valid_for_network(Network::Bitcoin));

        prop_assert_eq!(PegScript::of(&parsed.script_pubkey()), Some(Ok(PegScript::Request(request))));
        prop_assert_eq!(to_bitcoin_address(&parsed, parent).unwrap(), bitcoin);
    }

    #[test]
    fn a_destination_has_one_of_the_five_forms(script in near_misses()) {
        let destination = PegOutDestination::from_bitcoin_script(Script::from_bytes(&script));
        prop_assert_eq!(destination.is_ok(), has_one_of_the_five_forms(&script));
        if let Ok(destination) = destination {
            prop_assert_eq!(destination.script().as_bytes(), &script[..]);
        }
    }

    #[test]
    fn version_16_is_the_reserve_or_a_request_or_refused(script in near_misses()) {
        let expected = match &script[..] {
            [0x60, length, program @ ..]
                if (2..=40).contains(length) && program.len() == usize::from(*length) =>
            {
                match program {
                    b"CWRS" => Some(Some(PegScript::Reserve)),
                    [b'C', b'W', b'P', b'O', destination @ ..] if has_one_of_the_five_forms(destination) => {
                        let destination = ScriptBuf::from_bytes(destination.to_vec());
                        Some(Some(PegScript::Request(PegOutDestination(destination))))
                    }
                    _ => Some(None),
                }
            }
            _ => None,
        };
        prop_assert_eq!(PegScript::of(Script::from_bytes(&script)).map(Result::ok), expected);
    }

    #[test]
    fn other_witness_programs_have_no_causeway_address(
        version in 1u8..=16,
        program in prop::collection::vec(any::<u8>(), 2..=40),
        chain in prop::sample::select(&IDENTITIES[..]),
    ) {
        prop_assume!(version != 1 || program.len() != 32);
        let version = WitnessVersion::try_from(version).unwrap();
        let program = WitnessProgram::new(version, &program).unwrap();
        let address = Address::from_witness_program(program, Network::Bitcoin);
        prop_assert!(to_causeway_address(&address, chain).is_err());
    }
}

#[test]
fn the_reserve_is_six_bytes() {
    assert_eq!(reserve_script().as_bytes(), b"\x60\x04CWRS");
    assert_eq!(PegScript::of(&reserve_script()), Some(Ok(PegScript::Reserve)));
}

#[test]
fn a_peg_out_address_is_pinned() {
    // BIP173's P2WPKH example.
    let bitcoin = "bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4".parse::<Address<_>>().unwrap().assume_checked();
    let causeway = to_causeway_address(&bitcoin, Network::Signet).unwrap();
    assert_eq!(causeway.script_pubkey(), script("601a4357504f0014751e76e8199196d454941c45d1b3a323f1433bd6"));
    assert_eq!(causeway.to_string(), "tb1sgdt4qncqz363uahgrxged4z5jswyt5dn5v3lzsem6czz0zfg");
}

#[test]
fn every_other_script_is_refused_with_its_reason() {
    let key = "0279be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798";
    let refused = [
        ("", PegOutAddressError::Empty),
        ("6a", PegOutAddressError::OpReturn),
        ("6a0443574159", PegOutAddressError::OpReturn),
        ("51024e73", PegOutAddressError::PayToAnchor),
        (&format!("21{key}ac"), PegOutAddressError::PayToPublicKey),
        (&format!("5121{key}51ae"), PegOutAddressError::BareMultisig),
        ("00020102", PegOutAddressError::WitnessProgram { version: 0, length: 2 }),
        (&format!("0021{key}"), PegOutAddressError::WitnessProgram { version: 0, length: 33 }),
        (&format!("5121{key}"), PegOutAddressError::WitnessProgram { version: 1, length: 33 }),
        ("51024e74", PegOutAddressError::WitnessProgram { version: 1, length: 2 }),
        (&format!("5220{}", &key[2..]), PegOutAddressError::WitnessProgram { version: 2, length: 32 }),
        // A request to be paid by a request, and the reserve itself.
        ("600443575253", PegOutAddressError::WitnessProgram { version: 16, length: 4 }),
        ("51", PegOutAddressError::NonStandard { length: 1 }),
        ("76a914751e76e8199196d454941c45d1b3a323f1433bd688ad", PegOutAddressError::NonStandard { length: 25 }),
        // P2WPKH by a push that is not direct.
        ("004c14751e76e8199196d454941c45d1b3a323f1433bd6", PegOutAddressError::NonStandard { length: 23 }),
    ];
    for (hex, reason) in refused {
        assert_eq!(PegOutDestination::from_bitcoin_script(&script(hex)), Err(reason.clone()), "{hex}");
        let request = [b"CWPO", script(hex).as_bytes()].concat();
        if request.len() <= 40 {
            let request = witness_v16(&request);
            assert_eq!(PegScript::of(&request), Some(Err(PegScriptError::Destination(reason.clone()))), "{hex}");
            let address = Address::from_script(&request, Network::Regtest).unwrap();
            assert_eq!(to_bitcoin_address(&address, Network::Bitcoin), Err(reason), "{hex}");
        }
    }
}

#[test]
fn unknown_programs_of_version_16_are_refused() {
    for program in [&b"CW"[..], b"CWR", b"CWRSX", b"CWPP", b"cwrs", &[0; 40]] {
        let length = program.len();
        let error = PegScript::of(&witness_v16(program)).unwrap().unwrap_err();
        assert_eq!(error, PegScriptError::UnknownProgram { length });
        assert!(error.to_string().contains(&format!("({length} bytes)")), "{error}");
    }
    // Not BIP141's form: no witness program at all.
    for other in ["60", "6001aa", "60044357525300", "604c0443575253", "5004435752", "610443575253"] {
        assert_eq!(PegScript::of(&script(other)), None, "{other}");
    }
}

#[test]
fn no_causeway_address_is_valid_on_bitcoin() {
    let bitcoin = "1BvBMSEYstWetqTFn5Au4m4GFg7xJaNVN2".parse::<Address<_>>().unwrap().assume_checked();
    for network in [Network::Bitcoin, Network::Testnet, Network::Testnet4] {
        let error = to_causeway_address(&bitcoin, network).unwrap_err();
        assert_eq!(error, PegOutAddressError::NotAnIdentity { network });
        assert!(error.to_string().ends_with("is no identity of a Causeway chain: regtest or signet"));
    }
}

fn p2wpkh() -> Address {
    let script = script("0014751e76e8199196d454941c45d1b3a323f1433bd6");
    Address::from_script(&script, Network::Regtest).unwrap()
}

#[test]
fn ordinary_causeway_addresses_ask_for_no_peg_out() {
    let spec = ChainSpec::built_in("devnet").unwrap();
    let reserve = Address::from_script(&reserve_script(), Network::Regtest).unwrap();
    let unknown = Address::from_script(&witness_v16(b"CWPP"), Network::Regtest).unwrap();
    let ordinary = p2wpkh();
    for address in [reserve, unknown, ordinary] {
        assert_eq!(to_bitcoin_address(&address, Network::Regtest), Err(PegOutAddressError::NotARequest));
        assert_eq!(spec.peg_out_payee(address.into_unchecked()), Err(PegOutAddressError::NotARequest));
    }
}

#[test]
fn addresses_of_another_network_are_refused() {
    let spec = ChainSpec::built_in("devnet").unwrap();
    let wrong = PegOutAddressError::WrongNetwork { required: Network::Regtest };
    for address in [
        "bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4",
        "tb1qw508d6qejxtdg4y5r3zarvary0c5xw7kxpjzsx",
        "1BvBMSEYstWetqTFn5Au4m4GFg7xJaNVN2",
        "3J98t1WpEZ73CNmQviecrnyiWrnqRhWNLy",
    ] {
        let address: Address<NetworkUnchecked> = address.parse().unwrap();
        assert_eq!(spec.peg_out_address(address.clone()), Err(wrong.clone()));
        assert_eq!(spec.peg_out_payee(address), Err(wrong.clone()));
    }
    assert_eq!(wrong.to_string(), "the address does not belong to regtest");

    let causeway = spec.peg_out_address(p2wpkh().into_unchecked()).unwrap();
    assert_eq!(spec.peg_out_payee(causeway.into_unchecked()), Ok(p2wpkh()));
}

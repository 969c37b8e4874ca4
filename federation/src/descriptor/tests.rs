use bitcoin::ScriptBuf;
use bitcoin::secp256k1::{SECP256K1, XOnlyPublicKey};
use causeway_chainspec::{Epoch, EpochParts, Timelocks, devnet};
use causeway_consensus::peg::script::DepositTerms;
use miniscript::descriptor::checksum::Engine;
use miniscript::{Descriptor, DescriptorPublicKey};

use super::*;

fn scripts(n: u32, t: u32) -> EpochScripts {
    let x_only = |index| devnet::secret_key("recovery", index).x_only_public_key(SECP256K1).0;
    let epoch = Epoch::new(EpochParts {
        number: 1,
        members: (0..n).map(|index| devnet::secret_key("member", index).public_key(SECP256K1)).collect(),
        threshold: t,
        recovery_keys: (0..3).map(x_only).collect(),
        recovery_threshold: 2,
        // Short ones: OP_1 to OP_16 in the scripts.
        timelocks: Timelocks { claim_window: 5, sweep_age: 8, recovery_delay: 16, refund_delay: 17 },
    });
    EpochScripts::build(&epoch.unwrap())
}

fn chain() -> ChainId {
    ChainId::from_byte_array([3; 32])
}

fn deposit() -> CoinScript {
    CoinScript::Deposit(DepositTerms {
        epoch: 1,
        destination: ScriptBuf::from_bytes(vec![0x51, 0x02, 7, 7]),
        refund_key: devnet::secret_key("refund", 0).x_only_public_key(SECP256K1).0,
    })
}

/// The descriptor for readers that know no `musig()`: every group is its aggregate key.
fn aggregated(scripts: &EpochScripts, coin: &CoinScript) -> String {
    let key = |subset: &[u16]| XOnlyPublicKey::to_string(&scripts.subset_key(subset).unwrap());
    text(scripts, chain(), coin, &scripts.internal_key().to_string(), key)
}

#[test]
fn miniscript_makes_the_same_outputs() {
    for (n, t) in [(1, 1), (2, 2), (5, 3), (18, 17), (15, 11)] {
        let scripts = scripts(n, t);
        for coin in [CoinScript::Main, deposit()] {
            let text = aggregated(&scripts, &coin);
            let descriptor: Descriptor<DescriptorPublicKey> = text.parse().unwrap();
            let descriptor = descriptor.at_derivation_index(0).unwrap();
            let expected = scripts.output(chain(), &coin).script_pubkey();
            assert_eq!(descriptor.script_pubkey(), expected, "{t} of {n}: {coin:?}");
            descriptor.sanity_check().unwrap();
        }
    }
}

#[test]
fn the_text_of_2_of_3_is_that_of_the_peg_document() {
    let scripts = scripts(3, 2);
    let m: Vec<String> = scripts.epoch().members().iter().map(ToString::to_string).collect();
    let x: Vec<String> = m.iter().map(|key| key[2..].to_owned()).collect();
    let r: Vec<String> = scripts.epoch().recovery_keys().iter().map(ToString::to_string).collect();
    let pk = |a: usize, b: usize| format!("pk(musig({},{}))", m[a], m[b]);
    let subsets = format!("{{{{{},{}}},{}}}", pk(0, 1), pk(0, 2), pk(1, 2));
    let fallback = format!("{{multi_a(2,{}),and_v(v:multi_a(2,{}),older(16))}}", x.join(","), r.join(","));
    let main = format!("{{{subsets},{fallback}}}");
    let CoinScript::Deposit(terms) = deposit() else { unreachable!() };
    let commitment = terms.commitment(chain()).to_lower_hex_string();
    let nums = "50929b74c1a04954b78b4b6035e97a5e078a5a0f28ec96d547bfee9ace803ac0";
    let side = format!("{{and_v(v:pk({nums}),sha256({commitment})),and_v(v:pk({}),older(17))}}", terms.refund_key);
    for (coin, tree) in [(CoinScript::Main, main.clone()), (deposit(), format!("{{{main},{side}}}"))] {
        let expected = format!("tr(musig({}),{tree})", m.join(","));
        let descriptor = descriptor(&scripts, chain(), &coin);
        assert_eq!(descriptor.split('#').next(), Some(expected.as_str()));
    }
}

fn miniscript_checksum(text: &str) -> String {
    let mut engine = Engine::new();
    engine.input(text).unwrap();
    engine.checksum()
}

#[test]
fn checksums_are_those_of_bip380() {
    assert_eq!(checksum("raw(deadbeef)"), "89f8spxm");
    let scripts = scripts(5, 3);
    for coin in [CoinScript::Main, deposit()] {
        let descriptor = descriptor(&scripts, chain(), &coin);
        let (text, sum) = descriptor.split_once('#').unwrap();
        assert_eq!(sum, miniscript_checksum(text));
    }
    let every: String = (0..INPUT_CHARACTERS.len()).map(|at| &INPUT_CHARACTERS[at..]).collect();
    assert_eq!(checksum(&every), miniscript_checksum(&every));
}

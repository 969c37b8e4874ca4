//! PegIn (PEG section 2).

use bitcoin::{Amount, OutPoint, ScriptBuf, TxOut};
use causeway_chainspec::{BitcoinHeight, Epoch, SatPerKvb};
use causeway_consensus::peg::InvalidPeg;
use causeway_consensus::peg::evidence::{Evidence, PegIn};
use causeway_consensus::peg::header_tree::HeaderRun;
use causeway_consensus::peg::step::peg_in_fee;
use causeway_tests::draft::free_output;
use causeway_tests::parent::{credit, request_script, terms};
use causeway_tests::wallet::{Kind, Owner, Spendable, spend};

use crate::scene::{PLENTY, Scene, peg_in};

pub(crate) fn unknown_epoch() {
    let mut scene = Scene::new();
    let terms = scene.terms();
    let claim = scene.deep(&terms, PLENTY);
    scene.accepts(peg_in(claim.clone()));
    for epoch in [0, 2, u32::MAX] {
        let mut other = claim.clone();
        other.terms.epoch = epoch;
        let outpoint = claim.outpoint();
        scene.refuses(peg_in(other), InvalidPeg::UnknownEpoch { outpoint, epoch });
    }
}

pub(crate) fn no_such_output() {
    let mut scene = Scene::new();
    let terms = scene.terms();
    let claim = scene.deep(&terms, PLENTY);
    scene.accepts(peg_in(claim.clone()));
    for vout in [1, u32::MAX] {
        let other = PegIn { vout, ..claim.clone() };
        let outpoint = other.outpoint();
        scene.refuses(peg_in(other), InvalidPeg::NoSuchOutput { outpoint });
    }
}

/// Every part of the terms counts.
pub(crate) fn wrong_script() {
    let mut scene = Scene::new();
    let terms = scene.terms();
    let claim = scene.deep(&terms, PLENTY);
    scene.accepts(peg_in(claim.clone()));
    let outpoint = claim.outpoint();
    let mut destination = claim.clone();
    destination.terms.destination = Owner::new(3).script_pubkey(Kind::P2wpkh);
    scene.refuses(peg_in(destination), InvalidPeg::WrongScript { outpoint });
    let mut refund = claim;
    refund.terms.refund_key = Owner::new(3).keypair().x_only_public_key().0;
    scene.refuses(peg_in(refund), InvalidPeg::WrongScript { outpoint });

    // The main output is no deposit.
    let script_pubkey = scene.peg().network().current().main_script().to_owned();
    let transaction = scene.parent.pay(vec![TxOut { value: PLENTY, script_pubkey }]);
    let outpoint = OutPoint { txid: transaction.compute_txid(), vout: 0 };
    scene.mine(vec![transaction]);
    scene.bury();
    let claim = scene.parent.peg_in(&terms, outpoint).expect("mined");
    scene.refuses(peg_in(claim), InvalidPeg::WrongScript { outpoint });
}

pub(crate) fn destination_form() {
    let mut scene = Scene::new();
    let owner = Owner::new(1);
    for kind in [Kind::P2pkh, Kind::P2sh, Kind::P2wpkh, Kind::P2wsh, Kind::P2trKey] {
        let claim = scene.deep(&terms(owner.script_pubkey(kind), &owner), PLENTY);
        scene.accepts(peg_in(claim));
    }
    let claim = scene.deep(&terms(request_script(&owner), &owner), PLENTY);
    scene.accepts(peg_in(claim));
    let v16 = |program: &[u8]| [&[0x60, u8::try_from(program.len()).expect("short")], program].concat();
    let others = [
        vec![],
        vec![0x51],
        vec![0x6a],
        owner.script_pubkey(Kind::P2pk).into_bytes(),
        owner.script_pubkey(Kind::BareMultisig).into_bytes(),
        vec![0x51, 2, 0x4e, 0x73],
        v16(b"CWRS"),
        v16(b"CWPO"),
        v16(&[1, 2]),
        vec![0x6a; 20_000],
    ];
    for destination in others {
        let claim = scene.deep(&terms(ScriptBuf::from_bytes(destination), &owner), PLENTY);
        let outpoint = claim.outpoint();
        scene.refuses(peg_in(claim), InvalidPeg::DestinationForm { outpoint });
    }
}

/// The bounds are those of what is credited.
pub(crate) fn request_out_of_range() {
    let mut scene = Scene::with(|parts| {
        parts.params.peg_out_min = Amount::from_sat(200_000);
        parts.params.peg_out_max = Amount::from_sat(300_000);
    });
    let owner = Owner::new(1);
    let (min, max) = (scene.chain.spec.params().peg_out_min, scene.chain.spec.params().peg_out_max);
    let weight = scene.chain.spec.federation().worst_deposit_input_weight();
    let fee = peg_in_fee(scene.peg().agreed_rate(), weight);
    let terms = terms(request_script(&owner), &owner);
    for amount in [min, max] {
        let claim = scene.deep(&terms, amount + fee);
        let connected = scene.accepts(peg_in(claim));
        let waiting: Vec<Amount> = connected.tip().peg().waiting().map(|request| request.amount).collect();
        assert_eq!(waiting, [amount]);
    }
    for amount in [min - Amount::ONE_SAT, max + Amount::ONE_SAT] {
        let claim = scene.deep(&terms, amount + fee);
        let outpoint = claim.outpoint();
        scene.refuses(peg_in(claim), InvalidPeg::RequestOutOfRange { outpoint, amount, min, max });
    }
}

pub(crate) fn stale_tip() {
    let mut scene = Scene::new();
    let terms = scene.terms();
    let claim = scene.deep(&terms, PLENTY);
    let outpoint = claim.outpoint();
    let max_age = scene.chain.spec.params().header_freshness_s;
    let tip_time = scene.peg().headers().tip().time;
    let last = tip_time + max_age;
    scene.accepted(&scene.evidence_at(last, peg_in(claim.clone())));
    let stale = scene.evidence_at(last + 1, peg_in(claim.clone()));
    scene.refused(&stale, InvalidPeg::StaleTip { outpoint, tip_time, time: last + 1, max_age });
    // The headers of the same block count.
    scene.parent.clock = last;
    scene.parent.mine_empty(1);
    let headers = scene.parent.run_towards(scene.peg().headers(), last + 1);
    let fresh = Evidence { headers, ..peg_in(claim) };
    scene.accepted(&scene.evidence_at(last + 1, fresh));
}

/// Measured at the tip after the block's headers.
pub(crate) fn claim_window_over() {
    let mut scene = Scene::with(|parts| {
        let mut federation = parts.federation.to_parts();
        federation.timelocks.claim_window = 20;
        parts.federation = Epoch::new(federation).expect("sound");
    });
    let terms = scene.terms();
    let claim = scene.deep(&terms, PLENTY);
    let outpoint = claim.outpoint();
    let from = claim.proof.height.to_u32();
    scene.parent.mine_empty(20 - (scene.parent.tip().to_u32() - from));
    scene.parent.follow(&mut scene.chain);
    assert_eq!(scene.peg().headers().tip().height.to_u32(), from + 20);
    scene.accepts(peg_in(claim.clone()));
    scene.parent.mine_empty(1);
    let headers: Option<HeaderRun> = scene.parent.run_towards(scene.peg().headers(), scene.chain.next_context().time);
    let late = InvalidPeg::ClaimWindowOver { outpoint, age: 21, max: 20 };
    scene.refuses(Evidence { headers, ..peg_in(claim.clone()) }, late.clone());
    scene.parent.follow(&mut scene.chain);
    scene.refuses(peg_in(claim), late);
}

pub(crate) fn credited_before() {
    let mut scene = Scene::new();
    let terms = scene.terms();
    let claim = scene.deep(&terms, PLENTY);
    let outpoint = claim.outpoint();
    scene.accepts(peg_in(claim.clone()));
    let block = scene.evidence(peg_in(claim.clone()));
    scene.take(&block);
    assert!(scene.peg().is_credited(&outpoint));
    scene.refuses(peg_in(claim.clone()), InvalidPeg::CreditedBefore { outpoint });
    // To the end of the claim window, and a shallow reorganisation changes nothing.
    let tip = scene.parent.tip();
    scene.parent.rewind(BitcoinHeight(tip.to_u32() - 2));
    scene.parent.mine_empty(190);
    scene.parent.follow(&mut scene.chain);
    scene.refuses(peg_in(claim), InvalidPeg::CreditedBefore { outpoint });
}

pub(crate) fn coinbase_deposit() {
    let mut scene = Scene::new();
    let terms = scene.terms();
    let network = scene.peg().network().clone();
    let script_pubkey = network.current().deposit_script(network.chain(), &terms);
    scene.parent.clock = scene.chain.next_context().time;
    let ordinary = scene.mined(&terms, PLENTY);
    let height = scene.parent.mine_to(vec![TxOut { value: PLENTY, script_pubkey }], vec![]);
    let txid = scene.parent.block(height).expect("mined").txdata[0].compute_txid();
    let outpoint = OutPoint { txid, vout: 0 };
    scene.bury();
    let claim = |outpoint| scene.parent.peg_in(&terms, outpoint).expect("mined");
    scene.accepts(peg_in(claim(ordinary)));
    scene.refuses(peg_in(claim(outpoint)), InvalidPeg::CoinbaseDeposit { outpoint });
}

pub(crate) fn too_many_coins() {
    let mut scene = Scene::with(|parts| parts.params.coins_max = 8);
    let terms = scene.terms();
    let small = Amount::from_sat(999_999);
    for held in 0..8 {
        let claim = scene.deep(&terms, small);
        let outpoint = claim.outpoint();
        if held < 6 {
            scene.accepts(peg_in(claim));
        } else {
            scene.refuses(peg_in(claim), InvalidPeg::TooManyCoins { outpoint, held, max: 6 });
        }
        let claim = scene.deep(&terms, PLENTY);
        let block = scene.evidence(peg_in(claim));
        scene.accepted(&block);
        scene.take(&block);
    }
    let claim = scene.deep(&terms, PLENTY);
    let outpoint = claim.outpoint();
    scene.refuses(peg_in(claim), InvalidPeg::TooManyCoins { outpoint, held: 8, max: 8 });
}

pub(crate) fn deposit_too_small() {
    let mut scene = Scene::with(|parts| {
        parts.params.fee_rate_max = SatPerKvb(200_000);
        parts.params.peg_in_min = Amount::from_sat(60_000);
    });
    let terms = scene.terms();
    let weight = scene.chain.spec.federation().worst_deposit_input_weight();
    let fee = Amount::from_sat((200_000 * weight.to_wu()).div_ceil(4_000));
    assert!(fee * 2 > Amount::from_sat(60_000), "{fee}");
    // At the least, and where twice the fee is more.
    for (rate, min) in [(2_000, Amount::from_sat(60_000)), (200_000, fee * 2)] {
        scene.agree(rate);
        let claim = scene.deep(&terms, min);
        scene.accepts(peg_in(claim));
        let amount = min - Amount::ONE_SAT;
        let claim = scene.deep(&terms, amount);
        let outpoint = claim.outpoint();
        scene.refuses(peg_in(claim), InvalidPeg::DepositTooSmall { outpoint, amount, min });
    }
}

pub(crate) fn reserve_too_small() {
    let mut scene = Scene::new();
    let terms = scene.terms();
    let fee = Amount::from_sat(1_000);
    let (_, reserve) = scene.peg().reserve();
    assert_eq!(reserve, Amount::MAX_MONEY);
    // Nobody has so much, so these numbers come from blocks that no Bitcoin node would take.
    let most = scene.deep(&terms, reserve - PLENTY + fee);
    let block = scene.evidence(peg_in(most));
    scene.take(&block);
    let (_, reserve) = scene.peg().reserve();
    assert_eq!(reserve, PLENTY);
    let claim = scene.deep(&terms, reserve + fee + Amount::ONE_SAT);
    let outpoint = claim.outpoint();
    let credit = reserve + Amount::ONE_SAT;
    scene.refuses(peg_in(claim), InvalidPeg::ReserveTooSmall { outpoint, reserve, credit });
    let claim = scene.deep(&terms, reserve + fee);
    let connected = scene.accepts(peg_in(claim));
    assert_eq!(connected.tip().peg().reserve().1, Amount::ZERO);
}

/// What other tests live on.
#[test]
fn the_faucet_gives_coins_of_every_script() {
    let mut scene = Scene::new();
    let owner = Owner::new(9);
    for value in [Amount::from_sat(1_000), Amount::from_sat(100_000_000_000)] {
        let outputs: Vec<TxOut> =
            Kind::ALL.map(|kind| TxOut { value, script_pubkey: owner.script_pubkey(kind) }).to_vec();
        let outpoints = credit(&mut scene.chain, &mut scene.parent, outputs.clone());
        let coins: Vec<Spendable> = outpoints
            .into_iter()
            .zip(outputs)
            .zip(Kind::ALL)
            .map(|((outpoint, output), kind)| Spendable { outpoint, output, owner: owner.clone(), kind })
            .collect();
        let all = coins.iter().map(|coin| coin.output.value).sum();
        let block = scene.chain.next_block(Amount::ZERO, vec![spend(&coins, vec![free_output(all)])]);
        scene.take(&block);
    }
}

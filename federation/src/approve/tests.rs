use std::collections::HashMap;
use std::sync::OnceLock;

use bitcoin::hashes::Hash;
use bitcoin::secp256k1::{Keypair, Message, SECP256K1, SecretKey};
use bitcoin::{Amount, ScriptBuf, WPubkeyHash};
use causeway_chainspec::{Epoch, EpochParts, PegOutDestination, SatPerKvb, Timelocks, tagged_hash};
use causeway_consensus::bft::{Address, Signature, Vote, VoteType};
use causeway_consensus::peg::batch::BatchVersion;
use causeway_consensus::peg::coin::{CoinPlace, PegOutRequest, RequestPlace};
use causeway_consensus::peg::script::DepositTerms;

use super::*;

/// The chain of these tests.
pub(crate) fn chain() -> ChainId {
    ChainId::from_byte_array([7; 32])
}

/// A secret that everyone knows.
pub(crate) fn secret(kind: &str, index: usize) -> [u8; 32] {
    tagged_hash("causeway test key", &[format!("{kind} {index}").as_bytes()])
}

fn secret_key(kind: &str, index: usize) -> SecretKey {
    SecretKey::from_slice(&secret(kind, index)).unwrap()
}

/// Secrets of `n` members, in the order of their public keys.
pub(crate) fn member_secrets(n: usize) -> Vec<SecretKey> {
    let mut keys: Vec<_> = (0..n).map(|index| secret_key("member", index)).collect();
    keys.sort_by_key(|key| key.public_key(SECP256K1).serialize());
    keys
}

/// A federation of n members, t of which sign.
pub(crate) fn federation(n: usize, t: u32) -> Federation {
    type Made = HashMap<(usize, u32), Arc<EpochScripts>>;
    static MADE: OnceLock<std::sync::Mutex<Made>> = OnceLock::new();
    let mut made = MADE.get_or_init(Default::default).lock().unwrap();
    let scripts = made.entry((n, t)).or_insert_with(|| {
        let parts = EpochParts {
            number: 1,
            members: member_secrets(n).iter().map(|key| key.public_key(SECP256K1)).collect(),
            threshold: t,
            recovery_keys: (0..3).map(|index| secret_key("recovery", index).x_only_public_key(SECP256K1).0).collect(),
            recovery_threshold: 2,
            timelocks: Timelocks { claim_window: 200, sweep_age: 648, recovery_delay: 864, refund_delay: 1_296 },
        };
        Arc::new(EpochScripts::build(&Epoch::new(parts).unwrap()))
    });
    Federation { chain: chain(), validators: validators(), epochs: vec![Arc::clone(scripts)] }
}

fn validator_key(index: usize) -> Keypair {
    Keypair::from_secret_key(SECP256K1, &secret_key("validator", index))
}

/// Four validators of equal power.
fn validators() -> ValidatorSet {
    let key = |index| validator_key(index).x_only_public_key().0;
    let each: Vec<_> = (0..4).map(|index| causeway_chainspec::Validator { key: key(index), power: 1 }).collect();
    ValidatorSet::new(&each).unwrap()
}

/// A certificate that so many of them have signed; three are enough.
pub(crate) fn signed_by(count: usize, block: BlockPoint) -> CommitCertificate {
    signed_on(chain(), count, block)
}

fn signed_on(chain: ChainId, count: usize, block: BlockPoint) -> CommitCertificate {
    let BlockPoint { height, hash } = block;
    let vote = Vote::new(VoteType::Precommit, Height(height), 0, Some(hash), Address([0; 32]));
    let message = Message::from_digest(vote.digest(chain));
    let sign = |index| {
        let signature = SECP256K1.sign_schnorr_no_aux_rand(&message, &validator_key(index));
        (Address::from(&validator_key(index).x_only_public_key().0), Signature(*signature.as_ref()))
    };
    CommitCertificate::new(&validators(), Height(height), 0, hash, (0..count).map(sign)).unwrap()
}

pub(crate) fn certificate(block: BlockPoint) -> CommitCertificate {
    signed_by(3, block)
}

fn acted_on(block: BlockPoint) -> Option<ActedOn> {
    Some(ActedOn { block, certificate: Some(certificate(block)) })
}

pub(crate) fn hash(number: u32) -> BlockHash {
    BlockHash::from_byte_array(tagged_hash("causeway test block", &[&number.to_le_bytes()]))
}

pub(crate) fn point(height: u32) -> BlockPoint {
    BlockPoint { height, hash: hash(height) }
}

fn outpoint(number: u32) -> OutPoint {
    let txid = Txid::from_byte_array(tagged_hash("causeway test coin", &[&number.to_le_bytes()]));
    OutPoint { txid, vout: number % 3 }
}

fn version(batch: &mut Batch, rate: u64, share: u64, change: u64) {
    let version = BatchVersion {
        txid: Txid::all_zeros(),
        rate: SatPerKvb(rate),
        shares: vec![Amount::from_sat(share); batch.payees.len()],
        change: vec![Amount::from_sat(change)],
        charge: Amount::ZERO,
        fixed: batch.opened,
        fixed_at: BitcoinHeight(300),
    };
    let txid = batch.transaction(&version).compute_txid();
    batch.versions.push(BatchVersion { txid, ..version });
}

/// An open batch of two payees that spends a main coin and a deposit.
pub(crate) fn batch(federation: &Federation, number: u32) -> Batch {
    let refund_key = secret_key("refund", 0).x_only_public_key(SECP256K1).0;
    let destination = ScriptBuf::new_p2wpkh(&WPubkeyHash::from_byte_array([3; 20]));
    let deposit = CoinKind::Deposit(DepositTerms { epoch: 1, destination: destination.clone(), refund_key });
    let coin = |index: u32, sat: u64, kind: &CoinKind| {
        let outpoint = outpoint(10 * number + index);
        PegCoin {
            place: CoinPlace { height: BitcoinHeight(200 + index), index: 1, vout: outpoint.vout },
            outpoint,
            value: Amount::from_sat(sat),
            kind: kind.clone(),
        }
    };
    let payee = |index: u32| {
        let outpoint = outpoint(1_000 + 10 * number + index);
        PegOutRequest {
            place: RequestPlace { height: Height(150), index, vout: outpoint.vout },
            outpoint,
            amount: Amount::from_sat(100_000),
            destination: PegOutDestination::from_bitcoin_script(&destination).unwrap(),
        }
    };
    let mut inputs = vec![coin(0, 300_000, &CoinKind::Main { epoch: 1 }), coin(1, 70_000, &deposit)];
    inputs.sort_by_key(|coin| coin.outpoint);
    let mut batch = Batch {
        number,
        kind: BatchKind::Payout,
        opened: Height(160),
        inputs,
        payees: vec![payee(0), payee(1)],
        change_script: federation.epochs[0].main_script().to_owned(),
        change_epoch: 1,
        versions: Vec::new(),
    };
    version(&mut batch, 2_000, 1_000, 168_000);
    batch
}

/// Adds a version that pays more.
pub(crate) fn replace(batch: &mut Batch) {
    let count = u64::try_from(batch.versions.len()).unwrap();
    version(batch, 2_000 + 1_000 * count, 1_000 + 1_000 * count, 168_000);
}

/// The coins of a batch as bitcoind shows them at this best block.
pub(crate) fn coins(federation: &Federation, batch: &Batch, as_of: BlockHash) -> Vec<Option<UnspentCoin>> {
    let coin = |own: SpentCoin| UnspentCoin {
        value: own.prevout.value,
        script_pubkey: own.prevout.script_pubkey,
        confirmations: 50,
        coinbase: false,
        as_of,
    };
    own_coins(federation, batch).unwrap().into_iter().map(coin).map(Some).collect()
}

/// Everything that is asked, with answers that approve.
struct Case {
    federation: Federation,
    own: OwnFacts,
    node: NodeFacts,
    batch: Batch,
    bitcoin: BitcoinFacts,
    earlier: Option<u64>,
}

impl Case {
    fn new() -> Self {
        let federation = federation(3, 2);
        let batch = batch(&federation, 5);
        let best = hash(10_000);
        let coins = coins(&federation, &batch, best);
        Self {
            own: OwnFacts {
                paused: false,
                alarm: None,
                acted_on: acted_on(point(170)),
                deposits: DepositsMark { height: 180, newest: None },
            },
            node: NodeFacts {
                chain: chain(),
                tip: point(180),
                frozen: None,
                certificate: Some(certificate(point(180))),
                at_acted_on: Some(point(170)),
                other: None,
            },
            bitcoin: BitcoinFacts { height: BitcoinHeight(310), best, syncing: false, coins, confirmed: None },
            federation,
            batch,
            earlier: Some(5),
        }
    }

    fn approve(&self) -> Result<Approved, Decline> {
        approve(&self.federation, &self.own, &self.node, &self.batch, &self.bitcoin, |_| self.earlier)
    }

    fn decline(change: impl FnOnce(&mut Self)) -> Decline {
        let mut case = Self::new();
        change(&mut case);
        case.approve().unwrap_err()
    }
}

#[test]
fn what_is_approved_is_the_newest_version_as_this_member_builds_it() {
    let mut case = Case::new();
    replace(&mut case.batch);
    let approved = case.approve().unwrap();
    assert_eq!((approved.batch(), approved.version()), (5, 1));
    assert_eq!(approved.txid(), case.batch.versions[1].txid);
    assert_eq!(approved.spend().transaction().compute_txid(), approved.txid());
    assert_eq!(*approved.acted_on(), acted_on(point(180)).unwrap());
    assert_eq!(approved.outpoints(), case.batch.inputs.iter().map(|coin| coin.outpoint).collect::<Vec<_>>());
}

#[test]
fn a_member_that_never_acted_is_enough() {
    let mut case = Case::new();
    (case.own.acted_on, case.node.at_acted_on, case.earlier) = (None, None, None);
    case.approve().unwrap();
    // The tip is what was acted on.
    case.own.acted_on = acted_on(point(180));
    for at in [None, Some(point(180)), Some(point(170))] {
        case.node.at_acted_on = at;
        case.approve().unwrap();
    }
}

#[test]
fn rule_1_another_chain_is_refused() {
    let decline = Case::decline(|case| case.node.chain = ChainId::from_byte_array([8; 32]));
    assert!(matches!(decline, Decline::Refused(Refusal::OtherChain { .. })));
}

#[test]
fn rule_1_a_frozen_peg_is_refused() {
    let decline = Case::decline(|case| case.node.frozen = Some("a coin was stolen".to_owned()));
    assert_eq!(decline, Refusal::Frozen { reason: "a coin was stolen".to_owned() }.into());
}

#[test]
fn rule_1_waits_for_a_node_that_is_behind() {
    for at in [None, Some(point(170)), Some(point(150))] {
        let decline = Case::decline(|case| {
            case.node.tip = point(160);
            case.node.certificate = None;
            case.node.at_acted_on = at;
        });
        assert_eq!(decline, NotReady::NodeBehind { height: 160, acted_on: 170 }.into());
    }
}

#[test]
fn rule_1_an_answer_from_before_the_member_acted_says_nothing() {
    for at in [None, Some(point(165)), Some(point(175))] {
        let decline = Case::decline(|case| case.node.at_acted_on = at);
        assert_eq!(decline, NotReady::NotAsked { acted_on: 170 }.into());
    }
}

/// The node shows another block where the member acted.
fn other() -> BlockPoint {
    BlockPoint { height: 170, hash: hash(171) }
}

#[test]
fn rule_1_two_valid_certificates_for_one_height_are_a_breach() {
    let decline = Case::decline(|case| {
        (case.node.at_acted_on, case.node.other) = (Some(other()), Some(certificate(other())));
    });
    let (first, second) = (Box::new(certificate(point(170))), Box::new(certificate(other())));
    assert_eq!(decline, Breach::TwoCertificates { first: first.clone(), second: second.clone() }.into());
    let Decline::Breach(breach) = decline else { unreachable!() };
    assert_eq!(breach.proof(), [first.encode(), second.encode()]);
    // The other one is the node's tip.
    let decline = Case::decline(|case| {
        case.own.acted_on = acted_on(BlockPoint { height: 180, hash: hash(181) });
        case.node.at_acted_on = None;
    });
    assert!(matches!(decline, Decline::Breach(Breach::TwoCertificates { .. })), "{decline}");
    // An operator wrote what the member acted on.
    let decline = Case::decline(|case| {
        case.own.acted_on.as_mut().unwrap().certificate = None;
        (case.node.at_acted_on, case.node.other) = (Some(other()), Some(certificate(other())));
    });
    assert!(matches!(decline, Decline::Breach(Breach::NotADescendant { .. })), "{decline}");
}

#[test]
fn rule_1_another_block_that_nothing_proves_is_a_lie_of_the_node_and_no_breach() {
    let decline = Case::decline(|case| case.node.at_acted_on = Some(other()));
    assert_eq!(decline, Refusal::OtherBlock { acted_on: point(170), got: hash(171) }.into());
    let stranger = ChainId::from_byte_array([8; 32]);
    for lie in [signed_by(2, other()), certificate(point(170)), signed_on(stranger, 3, other())] {
        let decline = Case::decline(|case| (case.node.at_acted_on, case.node.other) = (Some(other()), Some(lie)));
        assert!(matches!(decline, Decline::Refused(Refusal::FalseCertificate { .. })), "{decline}");
    }
}

#[test]
fn rule_1_the_tip_is_certified_by_the_validators_of_this_chain() {
    let decline = Case::decline(|case| case.node.certificate = None);
    assert_eq!(decline, Refusal::NoCertificate { tip: point(180) }.into());
    let stranger = ChainId::from_byte_array([8; 32]);
    let tip = BlockPoint { height: 180, hash: hash(179) };
    for lie in [signed_by(2, point(180)), certificate(point(179)), certificate(tip), signed_on(stranger, 4, point(180))]
    {
        let decline = Case::decline(|case| case.node.certificate = Some(lie));
        assert!(matches!(decline, Decline::Refused(Refusal::FalseCertificate { .. })), "{decline}");
    }
}

#[test]
fn a_breach_is_found_also_by_a_member_that_would_not_sign() {
    let decline = Case::decline(|case| {
        case.own.paused = true;
        case.node.frozen = Some("frozen".to_owned());
        (case.node.at_acted_on, case.node.other) = (Some(other()), Some(certificate(other())));
    });
    assert!(matches!(decline, Decline::Breach(_)));
}

#[test]
fn rule_1_the_version_stands_in_a_final_block() {
    let decline = Case::decline(|case| case.batch.versions[0].fixed = Height(181));
    assert!(matches!(decline, Decline::Refused(Refusal::NotFinal { .. })));
    let decline = Case::decline(|case| case.batch.opened = Height(181));
    assert!(matches!(decline, Decline::Refused(Refusal::NotFinal { .. })));
}

#[test]
fn rule_2_the_transaction_is_the_planned_one() {
    let decline = Case::decline(|case| case.batch.versions[0].txid = Txid::from_byte_array([1; 32]));
    assert!(matches!(decline, Decline::Refused(Refusal::OtherTransaction { .. })));
    // A payment that was redirected has another txid.
    let decline = Case::decline(|case| case.batch.payees.swap_remove(0).amount = Amount::ZERO);
    assert!(matches!(decline, Decline::Refused(Refusal::OtherTransaction { .. })));
}

#[test]
fn rule_2_change_comes_back_to_the_federation() {
    let decline = Case::decline(|case| {
        case.batch.change_script = ScriptBuf::new_p2wpkh(&WPubkeyHash::from_byte_array([9; 20]));
        case.batch.versions[0].txid = case.batch.transaction(&case.batch.versions[0]).compute_txid();
    });
    assert_eq!(decline, Refusal::ForeignChange { epoch: 1 }.into());
}

#[test]
fn rule_2_coins_of_epochs_that_are_not_known_are_refused() {
    let decline = Case::decline(|case| case.batch.inputs[0].kind = CoinKind::Main { epoch: 2 });
    assert!(matches!(decline, Decline::Refused(Refusal::UnknownEpoch { epoch: 2, .. })));
    let decline = Case::decline(|case| {
        case.batch.inputs.clear();
        case.batch.versions[0].txid = case.batch.transaction(&case.batch.versions[0]).compute_txid();
    });
    assert_eq!(decline, Refusal::Inputs(0).into());
}

#[test]
fn rule_3_every_input_is_unspent() {
    for index in 0..2 {
        let decline = Case::decline(|case| case.bitcoin.coins[index] = None);
        let input = &Case::new().batch.inputs[index];
        let expected = match input.kind {
            CoinKind::Main { .. } => Refusal::Spent { outpoint: input.outpoint },
            CoinKind::Deposit(_) => Refusal::DepositGone { outpoint: input.outpoint },
        };
        assert_eq!(decline, expected.into());
    }
}

#[test]
fn rule_3_every_deposit_credited_so_far_was_looked_for() {
    let decline = Case::decline(|case| case.own.deposits.height = 179);
    assert_eq!(decline, NotReady::DepositsUnchecked { checked: 179, tip: 180 }.into());
}

#[test]
fn rule_3_coins_are_what_the_chain_recorded() {
    let decline = Case::decline(|case| case.bitcoin.coins[0].as_mut().unwrap().value += Amount::ONE_SAT);
    assert!(matches!(decline, Decline::Refused(Refusal::OtherCoin { .. })));
    let decline = Case::decline(|case| case.bitcoin.coins[1].as_mut().unwrap().script_pubkey = ScriptBuf::new());
    assert!(matches!(decline, Decline::Refused(Refusal::OtherCoin { .. })));
    let decline = Case::decline(|case| case.bitcoin.coins[1].as_mut().unwrap().coinbase = true);
    assert!(matches!(decline, Decline::Refused(Refusal::Coinbase { .. })));
}

#[test]
fn rule_3_a_version_in_a_block_leaves_nothing_to_sign() {
    let txid = Txid::from_byte_array([4; 32]);
    let decline = Case::decline(|case| {
        case.bitcoin.coins[0] = None;
        case.bitcoin.confirmed = Some(txid);
    });
    assert_eq!(decline, NotReady::Confirmed { txid }.into());
}

#[test]
fn rule_3_waits_for_a_bitcoind_that_is_behind_or_moves() {
    let decline = Case::decline(|case| case.bitcoin.syncing = true);
    assert!(matches!(decline, Decline::NotReady(NotReady::BitcoinSyncing { .. })));
    let decline = Case::decline(|case| case.bitcoin.height = BitcoinHeight(299));
    assert!(matches!(decline, Decline::NotReady(NotReady::BitcoinBehind { .. })));
    let decline = Case::decline(|case| case.bitcoin.coins[1].as_mut().unwrap().as_of = hash(1));
    assert_eq!(decline, NotReady::BitcoinMoved.into());
    let decline = Case::decline(|case| drop(case.bitcoin.coins.pop()));
    assert_eq!(decline, NotReady::BitcoinMoved.into());
}

#[test]
fn rule_4_a_coin_is_signed_for_in_one_batch() {
    let decline = Case::decline(|case| case.earlier = Some(4));
    let outpoint = Case::new().batch.inputs[0].outpoint;
    assert_eq!(decline, Refusal::OtherBatch { outpoint, earlier: 4 }.into());
}

#[test]
fn rule_5_a_paused_or_stopped_member_signs_nothing() {
    assert_eq!(Case::decline(|case| case.own.paused = true), Refusal::Paused.into());
    let decline = Case::decline(|case| case.own.alarm = Some("two certificates".to_owned()));
    assert!(matches!(decline, Decline::Refused(Refusal::Alarmed { .. })));
}

#[test]
fn every_reason_is_one_line_that_says_what() {
    let declines = [
        Case::decline(|case| case.own.paused = true),
        Case::decline(|case| case.node.frozen = Some("x".to_owned())),
        Case::decline(|case| case.bitcoin.coins[0] = None),
        Case::decline(|case| case.node.certificate = Some(certificate(point(1)))),
        Case::decline(|case| (case.node.at_acted_on, case.node.other) = (Some(other()), Some(certificate(other())))),
    ];
    for decline in declines {
        let text = decline.to_string();
        assert!(text.len() > 20 && !text.contains('\n'), "{text}");
    }
}

//! The blocks: each is valid, and as dear to verify in its way as the rules let it be.

use std::sync::Arc;

use bitcoin::consensus::serialize;
use bitcoin::key::Keypair;
use bitcoin::secp256k1::SECP256K1;
use bitcoin::sighash::{Annex, Prevouts, SighashCache, TapSighashType};
use bitcoin::taproot::{LeafVersion, TapLeafHash, TaprootBuilder};
use bitcoin::{Amount, Block, OutPoint, ScriptBuf, Transaction, TxOut, Witness};
use causeway_chainspec::{ChainSpec, Height};
use causeway_consensus::Workers;
use causeway_consensus::peg::propose::{Candidates, HEADERS_MAX};
use causeway_consensus::sigops::{
    HASHED_BYTES_PER_UNIT, MAX_SIGOPS_COST, MAX_TX_LEGACY_SIGOPS, SCRIPT_BYTES_PER_UNIT, TAPSCRIPT_BYTES_PER_UNIT,
};
use causeway_tests::chain::MemoryChain;
use causeway_tests::draft::{COIN_VALUE, ballast, free_output, op_true, put_coin, transaction};
use causeway_tests::parent::{ParentChain, bury, request_script, terms};
use causeway_tests::wallet::{Kind, Owner, Spendable, sign_all, spend};

use super::scripts::{self, DISTINCT_CHECKS, ELEMENT_BYTES, SEPARATED_CHECKS};

/// Weight that a block leaves to its transactions beside coinbase and header, and a little more.
const ROOM_WU: usize = 3_995_000;

/// Units that a byte outside of witnesses weighs.
const BASE_WU: usize = 4;

/// Cost of an operation outside of witnesses.
const LEGACY_COST: usize = 4;

/// Weight of an input without scriptSig and witness: outpoint, length, sequence.
const INPUT_WU: usize = 41 * BASE_WU;

/// Inputs of one transaction where it does not matter.
const INPUTS: usize = 100;

/// A block that is dear to verify.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shape {
    /// As in the figures.
    pub(super) name: &'static str,
    /// As a reader would say it.
    pub(super) title: &'static str,
    /// What is measured of it.
    pub(super) stage: Stage,
    /// Makes the block on top of the scene's chain.
    pub(super) make: fn(&mut Scene) -> Vec<u8>,
}

/// How far a block is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// From bytes to connected, with its coins in memory.
    Connected,
    /// Also committed: what it does to the state is what is dear about it.
    Committed,
    /// The block that spends all that this one makes, from bytes to committed, by a store that was opened just before.
    Cold,
}

const fn verified(name: &'static str, title: &'static str, make: fn(&mut Scene) -> Vec<u8>) -> Shape {
    Shape { name, title, stage: Stage::Connected, make }
}

const fn committed(name: &'static str, title: &'static str, make: fn(&mut Scene) -> Vec<u8>) -> Shape {
    Shape { name, title, stage: Stage::Committed, make }
}

const fn cold(name: &'static str, title: &'static str, make: fn(&mut Scene) -> Vec<u8>) -> Shape {
    Shape { name, title, stage: Stage::Cold, make }
}

/// The dearest block that Bitcoin's own limits allow: every check of another key, or over another message.
pub(super) const REFERENCE: Shape = verified("p2wsh_checks", "80,000 distinct checks in P2WSH", distinct_checks);

/// The others.
pub(super) const SHAPES: [Shape; 19] = [
    verified("p2wsh_code_separators", "P2WSH, every check over another 2 kB", separated_checks),
    verified("tapscript_checks", "one tapscript input, 4 MB, checks only", tapscript_checks),
    verified("tapscript_hashes", "one tapscript input, 4 MB, RIPEMD-160 of 520 bytes only", tapscript_hashes),
    verified("tapscript_rolls", "one tapscript input, 4 MB, ROLL of 1,000 elements only", tapscript_rolls),
    verified("legacy_large_transaction", "bare scripts that hash 1 MB for each check", legacy_large),
    verified("legacy_middle_transactions", "bare scripts that hash 32 kB for each check", legacy_middle),
    verified("legacy_long_scripts", "bare scripts of 10 kB, searched and hashed for each check", legacy_long),
    verified("p2pkh_large_transaction", "P2PKH inputs that hash 1 MB each", p2pkh_large),
    verified("bare_hashes", "bare scripts without checks, RIPEMD-160 of 520 bytes only", bare_hashes),
    verified("mixed_with_hashes", "80,000 checks in short P2WSH, and P2WSH without checks", mixed_with_hashes),
    committed("mixed_with_coins", "80,000 checks in short P2WSH, and coins of no value", mixed_with_coins),
    verified("many_inputs", "as many inputs as fit", many_inputs),
    cold("cold_inputs", "as many inputs as fit, whose coins are on disk", spendable_coins),
    committed("zero_value_coins", "110,000 coins of no value", zero_value_coins),
    committed("distinct_scripts", "70,000 coins of no value, each with a script of its own", distinct_scripts),
    committed("small_transactions", "as many transactions as fit", small_transactions),
    committed("peg_out_requests", "as many peg-out requests as fit", peg_out_requests),
    verified("evidence_peg_ins", "a peg transaction full of deposits", evidence_peg_ins),
    verified("evidence_headers", "a peg transaction full of headers", evidence_headers),
];

/// A chain with coins that no block created, and the part of a full block that is made.
pub(super) struct Scene {
    /// The chain.
    pub(super) chain: MemoryChain,
    /// A coin that a block created, for those who ask.
    pub(super) funds: Option<Spendable>,
    coins: u32,
    share: usize,
}

/// One input and what it spends.
struct Spend {
    script_pubkey: ScriptBuf,
    witness: Vec<Vec<u8>>,
}

impl Scene {
    /// A new devnet. Blocks have a `share`th of what a full one has.
    pub(super) fn new(spec: &ChainSpec, workers: &Arc<Workers>, share: usize) -> Self {
        Self { chain: MemoryChain::with_workers(spec.clone(), Arc::clone(workers)), funds: None, coins: 0, share }
    }

    fn coin(&mut self, output: TxOut) -> OutPoint {
        self.coins += 1;
        put_coin(&mut self.chain, self.coins, Height(1), output)
    }

    /// A transaction of these inputs that pays anyone, and `more`.
    fn spend(&mut self, spends: &[Spend], more: Vec<TxOut>) -> Transaction {
        let coins: Vec<OutPoint> = spends
            .iter()
            .map(|spend| self.coin(TxOut { value: COIN_VALUE, script_pubkey: spend.script_pubkey.clone() }))
            .collect();
        let paid = free_output(COIN_VALUE * spends.len() as u64);
        let mut transaction = transaction(&coins, std::iter::once(paid).chain(more).collect());
        for (input, spend) in transaction.input.iter_mut().zip(spends) {
            input.witness = Witness::from_slice(&spend.witness);
        }
        transaction
    }

    fn block(&self, transactions: Vec<Transaction>) -> Vec<u8> {
        serialize(&self.chain.next_block(Amount::ZERO, transactions))
    }

    /// A block of inputs in transactions of so many.
    fn block_of(&mut self, spends: &[Spend], per_transaction: usize) -> Vec<u8> {
        let transactions = spends.chunks(per_transaction).map(|some| self.spend(some, vec![])).collect();
        self.block(transactions)
    }

    /// The block that spends all coins that anyone can spend, of those that a block on the tip's parent made.
    pub(super) fn spend_all(&self, block: &Block) -> Vec<u8> {
        let made = block.txdata.iter().skip(1).flat_map(|transaction| {
            let txid = transaction.compute_txid();
            let free = (0u32..).zip(&transaction.output).filter(|(_, output)| output.script_pubkey == op_true());
            free.map(move |(vout, output)| (OutPoint { txid, vout }, output.value))
        });
        let coins: Vec<(OutPoint, Amount)> = made.collect();
        let transactions = coins.chunks(5_000).map(|some| {
            let outpoints: Vec<OutPoint> = some.iter().map(|(outpoint, _)| *outpoint).collect();
            transaction(&outpoints, vec![free_output(some.iter().map(|(_, value)| *value).sum())])
        });
        self.block(transactions.collect())
    }

    fn room(&self) -> usize {
        ROOM_WU / self.share
    }

    fn cost(&self) -> usize {
        MAX_SIGOPS_COST / self.share
    }
}

fn distinct_checks(scene: &mut Scene) -> Vec<u8> {
    let spend = |checks| {
        let script = scripts::distinct_checks(checks);
        Spend { script_pubkey: script.to_p2wsh(), witness: vec![scripts::wrong_signature(), script.into_bytes()] }
    };
    let checks = scene.cost();
    let mut spends: Vec<Spend> = (0..checks / DISTINCT_CHECKS).map(|_| spend(DISTINCT_CHECKS)).collect();
    let rest = checks % DISTINCT_CHECKS;
    spends.extend((rest > 0).then(|| spend(rest)));
    scene.block_of(&spends, INPUTS)
}

fn separated_checks(scene: &mut Scene) -> Vec<u8> {
    let inputs = scene.cost() / SEPARATED_CHECKS;
    // Signature, key and the lengths of all three; and the input's part of its transaction.
    let beside = INPUT_WU + 72 + 33 + 8 + 4;
    let script = scripts::separated_checks(SEPARATED_CHECKS, scene.room() / inputs - beside);
    let witness = vec![scripts::wrong_signature(), scripts::public_key(1).to_bytes(), script.to_bytes()];
    let spend = |_| Spend { script_pubkey: script.to_p2wsh(), witness: witness.clone() };
    let spends: Vec<Spend> = (0..inputs).map(spend).collect();
    scene.block_of(&spends, INPUTS)
}

/// One input that runs a tapscript. With `annex` it is signed, and has one of so many bytes, which adds to its budget.
fn tapscript(scene: &mut Scene, leaf: ScriptBuf, stack: Vec<Vec<u8>>, annex: Option<usize>) -> Vec<u8> {
    let pair = Keypair::from_secret_key(SECP256K1, &scripts::secret_key(1));
    let key = pair.x_only_public_key().0;
    let builder = TaprootBuilder::new().add_leaf(0, leaf.clone()).expect("one leaf");
    let info = builder.finalize(SECP256K1, key).expect("complete");
    let control = info.control_block(&(leaf.clone(), LeafVersion::TapScript)).expect("the leaf is there");
    let script_pubkey = ScriptBuf::new_p2tr_tweaked(info.output_key());
    let spent = [TxOut { value: COIN_VALUE, script_pubkey: script_pubkey.clone() }];
    let mut transaction = scene.spend(&[Spend { script_pubkey, witness: vec![] }], vec![]);
    let mut witness = stack;
    let annex = annex.map(|bytes| {
        let mut annex = vec![0; bytes];
        annex[0] = 0x50;
        annex
    });
    if let Some(annex) = &annex {
        let hash = SighashCache::new(&transaction).taproot_signature_hash(
            0,
            &Prevouts::All(&spent),
            Some(Annex::new(annex).expect("it begins as one")),
            Some((TapLeafHash::from_script(&leaf, LeafVersion::TapScript), u32::MAX)),
            TapSighashType::Default,
        );
        let message = bitcoin::secp256k1::Message::from(hash.expect("one input"));
        witness.push(SECP256K1.sign_schnorr_no_aux_rand(&message, &pair).as_ref().to_vec());
        witness.push(key.serialize().to_vec());
    }
    witness.extend([leaf.into_bytes(), control.serialize()]);
    witness.extend(annex);
    transaction.input[0].witness = Witness::from_slice(&witness);
    scene.block(vec![transaction])
}

fn tapscript_checks(scene: &mut Scene) -> Vec<u8> {
    // 50 units of witness for each check (BIP-0342), of which two are the script's; and for each unit of cost.
    let room = scene.room() - 1_000;
    let checks = room / TAPSCRIPT_BYTES_PER_UNIT;
    tapscript(scene, scripts::tapscript_checks(checks), vec![], Some(room - 2 * checks))
}

fn tapscript_hashes(scene: &mut Scene) -> Vec<u8> {
    let leaf = scripts::tapscript_hashes(scene.room() - 3_000);
    tapscript(scene, leaf, vec![vec![7; ELEMENT_BYTES]; 3], None)
}

fn tapscript_rolls(scene: &mut Scene) -> Vec<u8> {
    let leaf = scripts::tapscript_rolls(scene.room() - 5_000);
    tapscript(scene, leaf, vec![vec![7]; scripts::rolled()], None)
}

/// Transactions of so many bytes, whose inputs spend `script` with `checks` checks, until the cost is used up.
fn legacy(scene: &mut Scene, script: &ScriptBuf, checks: usize, bytes: usize) -> Vec<u8> {
    let hashing = bytes / HASHED_BYTES_PER_UNIT;
    let cost = checks * (LEGACY_COST + hashing) + script.len() / SCRIPT_BYTES_PER_UNIT;
    let mut inputs = scene.cost() / cost;
    let transactions = (scene.room() / BASE_WU / bytes).max(1);
    let each = inputs.div_ceil(transactions).min(MAX_TX_LEGACY_SIGOPS / checks);
    let mut all = Vec::new();
    while inputs > 0 && all.len() < transactions {
        let some = each.min(inputs);
        inputs -= some;
        let spends: Vec<Spend> = (0..some).map(|_| Spend { script_pubkey: script.clone(), witness: vec![] }).collect();
        // 10 bytes around the lists, 41 an input, 10 the output, 14 around the padding.
        let padding = bytes.saturating_sub(10 + 41 * some + 10 + 14);
        all.push(scene.spend(&spends, vec![ballast(padding)]));
    }
    scene.block(all)
}

fn legacy_large(scene: &mut Scene) -> Vec<u8> {
    let script = scripts::embedded_checks(SEPARATED_CHECKS, 0);
    let bytes = scene.room() / BASE_WU - 100;
    legacy(scene, &script, SEPARATED_CHECKS, bytes)
}

fn legacy_middle(scene: &mut Scene) -> Vec<u8> {
    let script = scripts::embedded_checks(SEPARATED_CHECKS, 0);
    legacy(scene, &script, SEPARATED_CHECKS, 2 * HASHED_BYTES_PER_UNIT - 1)
}

fn legacy_long(scene: &mut Scene) -> Vec<u8> {
    let script = scripts::embedded_checks(SEPARATED_CHECKS, usize::MAX);
    legacy(scene, &script, SEPARATED_CHECKS, HASHED_BYTES_PER_UNIT - 1)
}

fn p2pkh_large(scene: &mut Scene) -> Vec<u8> {
    let bytes = scene.room() / BASE_WU - 100;
    let inputs = scene.cost() / (LEGACY_COST + bytes / HASHED_BYTES_PER_UNIT);
    let kind = Kind::P2pkh;
    let coins: Vec<Spendable> = (0..inputs)
        .map(|number| {
            let owner = Owner::new(number as u64);
            let output = TxOut { value: COIN_VALUE, script_pubkey: owner.script_pubkey(kind) };
            Spendable { outpoint: scene.coin(output.clone()), output, owner, kind }
        })
        .collect();
    let outpoints: Vec<OutPoint> = coins.iter().map(|coin| coin.outpoint).collect();
    // A signature and a key of at most 107 bytes with their lengths beside the input's 41.
    let padding = bytes.saturating_sub(10 + 148 * inputs + 10 + 14);
    let outputs = vec![free_output(COIN_VALUE * inputs as u64), ballast(padding)];
    let mut transaction = transaction(&outpoints, outputs);
    sign_all(&mut transaction, &coins, 0);
    scene.block(vec![transaction])
}

fn bare_hashes(scene: &mut Scene) -> Vec<u8> {
    let script = scripts::hashes();
    let inputs = scene.cost() / (script.len() / SCRIPT_BYTES_PER_UNIT);
    let spends: Vec<Spend> = (0..inputs).map(|_| Spend { script_pubkey: script.clone(), witness: vec![] }).collect();
    scene.block_of(&spends, INPUTS)
}

/// The whole cost in witnesses as light as can be, with what weight it takes.
fn light_checks(scene: &mut Scene) -> (Vec<Transaction>, usize) {
    let script = scripts::repeated_checks(DISTINCT_CHECKS);
    let witness = vec![scripts::wrong_signature(), scripts::public_key(1).to_bytes(), script.to_bytes()];
    let spend = |_| Spend { script_pubkey: script.to_p2wsh(), witness: witness.clone() };
    let spends: Vec<Spend> = (0..scene.cost() / DISTINCT_CHECKS).map(spend).collect();
    let transactions: Vec<Transaction> = spends.chunks(INPUTS).map(|some| scene.spend(some, vec![])).collect();
    let weight = transactions.iter().map(|transaction| transaction.weight().to_wu()).sum::<u64>();
    (transactions, usize::try_from(weight).expect("a block's"))
}

fn mixed_with_hashes(scene: &mut Scene) -> Vec<u8> {
    let (mut transactions, weight) = light_checks(scene);
    let script = scripts::witness_hashes();
    // The script's length takes three bytes, the number of elements one, and the transactions a little.
    let inputs = (scene.room() - weight) / (INPUT_WU + script.len() + 4 + 4);
    let spends: Vec<Spend> =
        (0..inputs).map(|_| Spend { script_pubkey: script.to_p2wsh(), witness: vec![script.to_bytes()] }).collect();
    transactions.extend(spends.chunks(INPUTS).map(|some| scene.spend(some, vec![])));
    scene.block(transactions)
}

fn mixed_with_coins(scene: &mut Scene) -> Vec<u8> {
    let (mut transactions, weight) = light_checks(scene);
    let count = (scene.room() - weight - 1_000) / (9 * BASE_WU);
    let outputs = vec![TxOut { value: Amount::ZERO, script_pubkey: ScriptBuf::new() }; count];
    transactions.push(scene.spend(&[Spend { script_pubkey: op_true(), witness: vec![] }], outputs));
    scene.block(transactions)
}

/// As many coins as one block can spend, made of the scene's funds.
fn spendable_coins(scene: &mut Scene) -> Vec<u8> {
    let funds = scene.funds.take().expect("the scene was given some");
    let count = scene.room() / (INPUT_WU + 1) - 100;
    let rest = free_output(funds.output.value);
    let outputs = std::iter::once(rest).chain(vec![free_output(Amount::ZERO); count]).collect();
    scene.block(vec![spend(&[funds], outputs)])
}

fn many_inputs(scene: &mut Scene) -> Vec<u8> {
    let spends: Vec<Spend> =
        (0..scene.room() / (INPUT_WU + 1) - 100).map(|_| Spend { script_pubkey: op_true(), witness: vec![] }).collect();
    scene.block_of(&spends, 5_000)
}

/// A transaction of one input with `count` outputs of no value.
fn fan_out(scene: &mut Scene, count: usize, script: impl Fn(u32) -> ScriptBuf) -> Vec<u8> {
    let outputs = (0u32..).take(count).map(|n| TxOut { value: Amount::ZERO, script_pubkey: script(n) }).collect();
    let transaction = scene.spend(&[Spend { script_pubkey: op_true(), witness: vec![] }], outputs);
    scene.block(vec![transaction])
}

fn zero_value_coins(scene: &mut Scene) -> Vec<u8> {
    let count = (scene.room() - 1_000) / (9 * BASE_WU);
    fan_out(scene, count, |_| ScriptBuf::new())
}

fn distinct_scripts(scene: &mut Scene) -> Vec<u8> {
    let count = (scene.room() - 1_000) / (14 * BASE_WU);
    let serial = scene.coins << 20;
    fan_out(scene, count, |number| ScriptBuf::from_bytes([&[4], (serial + number).to_be_bytes().as_slice()].concat()))
}

fn small_transactions(scene: &mut Scene) -> Vec<u8> {
    // 61 bytes: version 4, one input of 41, one output of 10, two counts, lock time 4.
    let count = scene.room() / (61 * BASE_WU);
    let spends: Vec<Spend> = (0..count).map(|_| Spend { script_pubkey: op_true(), witness: vec![] }).collect();
    scene.block_of(&spends, 1)
}

fn peg_out_requests(scene: &mut Scene) -> Vec<u8> {
    let script_pubkey = request_script(&Owner::new(1));
    let output = TxOut { value: scene.chain.spec.params().peg_out_min, script_pubkey };
    let count = (scene.room() - 1_000) / (BASE_WU * (9 + output.script_pubkey.len()));
    let coin = scene.coin(free_output(output.value * count as u64));
    let transaction = transaction(&[coin], vec![output; count]);
    scene.block(vec![transaction])
}

fn evidence_peg_ins(scene: &mut Scene) -> Vec<u8> {
    // More than fit: the proposer takes what does.
    const DEPOSITS: u64 = 400;
    let network = scene.chain.peg().network().clone();
    let mut parent = ParentChain::new(&scene.chain.spec);
    let owner = Owner::new(1);
    let deposits: Vec<_> = (0..DEPOSITS / scene.share as u64)
        .map(|number| {
            let terms = terms(Owner::new(number).script_pubkey(Kind::P2trKey), &owner);
            let transaction = parent.deposit(&network, &terms, Amount::from_sat(100_000));
            (terms, transaction)
        })
        .collect();
    parent.clock = parent.clock.max(scene.chain.next_context().time);
    // A few in a block: the proofs are short, and the first can still be claimed when the last is deep.
    for some in deposits.chunks(4) {
        parent.mine(some.iter().map(|(_, transaction)| transaction.clone()).collect());
    }
    bury(&mut scene.chain, &mut parent);
    let claim = |(terms, transaction): &(_, Transaction)| {
        let outpoint = OutPoint { txid: transaction.compute_txid(), vout: 0 };
        parent.peg_in(terms, outpoint).expect("it was mined")
    };
    let candidates = Candidates { peg_ins: deposits.iter().map(claim).collect(), ..Candidates::default() };
    serialize(&scene.chain.next_block_with(candidates, Amount::ZERO, vec![]))
}

fn evidence_headers(scene: &mut Scene) -> Vec<u8> {
    let mut parent = ParentChain::new(&scene.chain.spec);
    parent.mine_empty(u32::try_from(HEADERS_MAX / scene.share).expect("a few thousand"));
    let headers = parent.run_towards(scene.chain.peg().headers(), scene.chain.next_context().time);
    let candidates = Candidates { headers, ..Candidates::default() };
    serialize(&scene.chain.next_block_with(candidates, Amount::ZERO, vec![]))
}

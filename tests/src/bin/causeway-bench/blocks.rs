//! The blocks that are measured: the four kinds of DESIGN section 5.

use bitcoin::{Amount, OutPoint, Transaction, TxOut};
use causeway_tests::wallet::{Kind, Owner, Signature, Spendable, spend_with_signatures};

/// What each output of a measured transaction pays, in satoshis; the rest of its inputs is its fee.
const OUTPUT_SAT: u64 = 1_000;

/// What each spent coin is worth, in satoshis.
pub(crate) const COIN_SAT: u64 = 2_000;

/// Different owners of coins. Neither side caches keys, so a few hundred stand for many.
const OWNERS: usize = 256;

/// A kind of block.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BlockKind {
    /// As in the figures.
    pub(crate) name: &'static str,
    /// As a reader would say it.
    pub(crate) title: &'static str,
    /// Inputs of a full block.
    inputs: usize,
    inputs_per_transaction: usize,
    outputs_per_transaction: usize,
    /// How the inputs' kinds repeat.
    kinds: &'static [Kind],
}

/// 40 % P2WPKH, 30 % P2TR key path, 10 % tapscript, 10 % 2-of-3 P2WSH, 10 % P2PKH.
const MIX: &[Kind] = &[
    Kind::P2wpkh,
    Kind::P2trKey,
    Kind::P2wpkh,
    Kind::P2trScript,
    Kind::P2wpkh,
    Kind::P2trKey,
    Kind::P2wsh,
    Kind::P2wpkh,
    Kind::P2trKey,
    Kind::P2pkh,
];

/// The four kinds.
pub(crate) const KINDS: [BlockKind; 4] = [
    BlockKind {
        name: "p2tr_key_path_dense",
        title: "P2TR key path, dense",
        inputs: 17_200,
        inputs_per_transaction: 200,
        outputs_per_transaction: 1,
        kinds: &[Kind::P2trKey],
    },
    BlockKind {
        name: "p2tr_two_in_two_out",
        title: "P2TR, two-in-two-out",
        inputs: 9_000,
        inputs_per_transaction: 2,
        outputs_per_transaction: 2,
        kinds: &[Kind::P2trKey],
    },
    BlockKind {
        name: "p2wpkh_dense",
        title: "P2WPKH, dense",
        inputs: 14_600,
        inputs_per_transaction: 200,
        outputs_per_transaction: 1,
        kinds: &[Kind::P2wpkh],
    },
    BlockKind {
        name: "mix",
        title: "mix",
        inputs: 8_200,
        inputs_per_transaction: 2,
        outputs_per_transaction: 2,
        kinds: MIX,
    },
];

impl BlockKind {
    /// Inputs of a block, an eighth of a full one's if `quick`, in whole transactions.
    pub(crate) fn inputs(&self, quick: bool) -> usize {
        let inputs = if quick { self.inputs / 8 } else { self.inputs };
        inputs - inputs % self.inputs_per_transaction
    }

    fn coin_kind(&self, index: usize) -> Kind {
        self.kinds[index % self.kinds.len()]
    }
}

/// The owners of all coins.
pub(crate) fn owners() -> Vec<Owner> {
    (0..OWNERS as u64).map(Owner::new).collect()
}

/// Returns the outputs that a block of this kind will spend.
pub(crate) fn coin_outputs(kind: &BlockKind, owners: &[Owner], quick: bool) -> Vec<TxOut> {
    let output = |index: usize| TxOut {
        value: Amount::from_sat(COIN_SAT),
        script_pubkey: owners[index % owners.len()].script_pubkey(kind.coin_kind(index)),
    };
    (0..kind.inputs(quick)).map(output).collect()
}

/// Transactions to be validated, and what they pay and sign.
#[derive(Debug)]
pub(crate) struct Workload {
    pub(crate) transactions: Vec<Transaction>,
    pub(crate) fees: Amount,
    pub(crate) signatures: Vec<Signature>,
}

/// Returns the transactions of a block that spend all outputs of `funding`, as [`coin_outputs`] gave them.
pub(crate) fn workload(kind: &BlockKind, owners: &[Owner], funding: &Transaction) -> Workload {
    let txid = funding.compute_txid();
    let coins: Vec<Spendable> = (0u32..)
        .zip(&funding.output)
        .map(|(vout, output)| Spendable {
            outpoint: OutPoint { txid, vout },
            output: output.clone(),
            owner: owners[vout as usize % owners.len()].clone(),
            kind: kind.coin_kind(vout as usize),
        })
        .collect();
    let mut workload = Workload { transactions: Vec::new(), fees: Amount::ZERO, signatures: Vec::new() };
    for coins in coins.chunks(kind.inputs_per_transaction) {
        let pay = |coin: &Spendable| TxOut { value: Amount::from_sat(OUTPUT_SAT), ..coin.output.clone() };
        let outputs: Vec<TxOut> = coins.iter().take(kind.outputs_per_transaction).map(pay).collect();
        let spent: Amount = coins.iter().map(|coin| coin.output.value).sum();
        workload.fees += spent - outputs.iter().map(|output| output.value).sum();
        let (transaction, signatures) = spend_with_signatures(coins, outputs);
        workload.transactions.push(transaction);
        workload.signatures.extend(signatures);
    }
    workload
}

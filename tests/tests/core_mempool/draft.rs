//! A transaction before it is signed.

use bitcoin::absolute::LockTime;
use bitcoin::opcodes::all::OP_RETURN;
use bitcoin::script::{Builder, PushBytesBuf};
use bitcoin::transaction::Version;
use bitcoin::{Amount, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Witness};
use causeway_tests::sim::rng::Rng;
use causeway_tests::wallet::{Kind, Owner, Spendable, sign_all};

/// A coin, or an anchor, which nobody signs for.
#[derive(Clone)]
#[expect(clippy::large_enum_variant, reason = "a history has a few of them")]
pub(crate) enum Input {
    Coin(Spendable),
    Anchor(OutPoint, TxOut),
}

impl Input {
    pub(crate) fn outpoint(&self) -> OutPoint {
        match self {
            Self::Coin(coin) => coin.outpoint,
            Self::Anchor(outpoint, _) => *outpoint,
        }
    }

    pub(crate) fn value(&self) -> Amount {
        match self {
            Self::Coin(coin) => coin.output.value,
            Self::Anchor(_, output) => output.value,
        }
    }
}

/// A transaction before it is signed. Its first outputs share what is left of the inputs.
#[derive(Clone)]
pub(crate) struct Draft {
    pub(crate) version: i32,
    pub(crate) lock_time: u32,
    pub(crate) sequence: u32,
    pub(crate) inputs: Vec<Input>,
    /// Payments of equal worth.
    pub(crate) payments: Vec<Kind>,
    /// With values of their own.
    pub(crate) others: Vec<TxOut>,
    pub(crate) fee: Fee,
    pub(crate) hash_type: u8,
}

/// What it pays.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Fee {
    Sat(u64),
    /// So much more or less than the least for its size, of which others have some too.
    Around {
        others_vsize: u64,
        others_fee: u64,
        more: i64,
    },
}

impl Draft {
    /// The signed transaction.
    pub(crate) fn sign(&self, owner: &Owner) -> Transaction {
        let fee = match self.fee {
            Fee::Sat(fee) => fee,
            Fee::Around { others_vsize, others_fee, more } => {
                let vsize = self.sign_for(owner, 0).vsize() as u64 + others_vsize;
                // 100 sat/kvB, rounded up.
                vsize.div_ceil(10).saturating_sub(others_fee).saturating_add_signed(more)
            }
        };
        self.sign_for(owner, fee)
    }

    fn sign_for(&self, owner: &Owner, fee: u64) -> Transaction {
        let inputs: Amount = self.inputs.iter().map(Input::value).sum();
        let others: Amount = self.others.iter().map(|output| output.value).sum();
        let left = inputs.to_sat().saturating_sub(others.to_sat() + fee);
        let count = self.payments.len() as u64;
        let payment = |(number, kind): (u64, &Kind)| {
            // What does not divide goes to the first.
            let value = left / count + if number == 0 { left % count } else { 0 };
            TxOut { value: Amount::from_sat(value), script_pubkey: owner.script_pubkey(*kind) }
        };
        let output = (0..).zip(&self.payments).map(payment).chain(self.others.iter().cloned()).collect();
        let input = self.inputs.iter().map(|input| TxIn {
            previous_output: input.outpoint(),
            script_sig: ScriptBuf::new(),
            sequence: Sequence(self.sequence),
            witness: Witness::new(),
        });
        let mut transaction = Transaction {
            version: Version(self.version),
            lock_time: LockTime::from_consensus(self.lock_time),
            input: input.collect(),
            output,
        };
        // Signing goes through all inputs; what it puts into those of anchors is taken out again.
        let coins: Vec<Spendable> = self.inputs.iter().map(|input| as_coin(input, owner)).collect();
        sign_all(&mut transaction, &coins, self.hash_type);
        for (input, draft) in transaction.input.iter_mut().zip(&self.inputs) {
            if let Input::Anchor(..) = draft {
                (input.script_sig, input.witness) = (ScriptBuf::new(), Witness::new());
            }
        }
        transaction
    }

    /// What the payments of the signed transaction are to others.
    pub(crate) fn coins(&self, transaction: &Transaction, owner: &Owner) -> Vec<Spendable> {
        let txid = transaction.compute_txid();
        let coin = |((vout, kind), output): ((u32, &Kind), &TxOut)| Spendable {
            outpoint: OutPoint { txid, vout },
            output: output.clone(),
            owner: owner.clone(),
            kind: *kind,
        };
        (0..).zip(&self.payments).zip(&transaction.output).map(coin).collect()
    }
}

fn as_coin(input: &Input, owner: &Owner) -> Spendable {
    match input {
        Input::Coin(coin) => coin.clone(),
        Input::Anchor(outpoint, output) => {
            Spendable { outpoint: *outpoint, output: output.clone(), owner: owner.clone(), kind: Kind::P2wpkh }
        }
    }
}

/// A pay-to-anchor output (BIP-0433).
pub(crate) fn anchor(sat: u64) -> TxOut {
    TxOut { value: Amount::from_sat(sat), script_pubkey: ScriptBuf::from_bytes(vec![0x51, 2, 0x4e, 0x73]) }
}

/// An OP_RETURN output with so many bytes of data.
pub(crate) fn data(bytes: usize) -> TxOut {
    let data = PushBytesBuf::try_from(vec![7; bytes]).expect("short");
    let script_pubkey = Builder::new().push_opcode(OP_RETURN).push_slice(data).into_script();
    TxOut { value: Amount::ZERO, script_pubkey }
}

/// Breaks what an input shows for its coin.
pub(crate) fn break_input(rng: &mut Rng, transaction: &mut Transaction) {
    let place = rng.index(transaction.input.len());
    let input = &mut transaction.input[place];
    let mut items = input.witness.to_vec();
    match (rng.below(4), items.is_empty()) {
        (0, false) => input.witness = Witness::new(),
        (1, false) => {
            items.push(vec![1, 2, 3]);
            input.witness = Witness::from_slice(&items);
        }
        (2 | 3, false) => {
            // A bit of the first that is not empty: a signature.
            if let Some(item) = items.iter_mut().find(|item| !item.is_empty()) {
                let place = rng.index(item.len());
                item[place] ^= 1 << rng.below(8);
            }
            input.witness = Witness::from_slice(&items);
        }
        (_, _) => input.script_sig = ScriptBuf::new(),
    }
}

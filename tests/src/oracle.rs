//! Bitcoin Core's verdict on an input, next to ours. Calls `bitcoinkernel` itself, not our wrapper of it.

use bitcoin::consensus::serialize;
use bitcoin::{Transaction, TxOut};
use bitcoinkernel::{
    KernelError, PrecomputedTransactionData, ScriptPubkey, ScriptVerificationFlags, ScriptVerifyError, VERIFY_ALL,
    verify,
};
use causeway_consensus::SerializedTransaction;
use causeway_consensus::script::{Judge, PreparedTransaction, Verdict};

/// A transaction in Core's hands.
pub struct Oracle {
    transaction: bitcoinkernel::Transaction,
    spent: Vec<(ScriptPubkey, i64)>,
    hashes: PrecomputedTransactionData,
}

impl Oracle {
    /// Returns the oracle of a transaction that spends `spent`, in the order of its inputs.
    ///
    /// # Panics
    /// If Core cannot decode the transaction, or a value does not fit 63 bits.
    pub fn new(transaction: &Transaction, spent: &[TxOut]) -> Self {
        let transaction =
            bitcoinkernel::Transaction::new(&serialize(transaction)).expect("Core decodes what we encode");
        let spent: Vec<(ScriptPubkey, i64)> = spent
            .iter()
            .map(|output| {
                let script = ScriptPubkey::new(output.script_pubkey.as_bytes()).expect("Core takes any script");
                (script, i64::try_from(output.value.to_sat()).expect("a value in range"))
            })
            .collect();
        let outputs: Vec<_> = spent.iter().map(|(script, value)| bitcoinkernel::TxOut::new(script, *value)).collect();
        let hashes = PrecomputedTransactionData::new(&transaction, &outputs).expect("one output for each input");
        Self { transaction, spent, hashes }
    }

    /// Returns Core's verdict on an input under some consensus flags.
    ///
    /// # Panics
    /// If there is no such input, or the flags are WITNESS without P2SH.
    pub fn verify(&self, input: usize, flags: ScriptVerificationFlags) -> Verdict {
        let (script, value) = &self.spent[input];
        match verify(script, Some(*value), &self.transaction, input, Some(flags), &self.hashes) {
            Ok(()) => Verdict::Valid,
            Err(KernelError::ScriptVerify(ScriptVerifyError::Invalid)) => Verdict::Invalid,
            Err(error) => panic!("Core did not judge: {error}"),
        }
    }
}

/// Two verdicts on one input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Judged {
    /// Ours.
    pub ours: Verdict,
    /// Who gave ours.
    pub judge: Judge,
    /// Core's, under all consensus flags.
    pub core: Verdict,
}

/// Returns both verdicts on every input of a transaction that spends `spent`.
///
/// # Panics
/// As [`Oracle::new`] does, and if our own verification reports a fault.
pub fn judge(transaction: &Transaction, spent: &[TxOut]) -> Vec<Judged> {
    let oracle = Oracle::new(transaction, spent);
    let prepared = PreparedTransaction::new(SerializedTransaction::of(transaction), spent.iter().collect());
    (0..spent.len())
        .map(|input| {
            let (ours, judge) = prepared.verify_input(input).expect("no fault of the machine");
            Judged { ours, judge, core: oracle.verify(input, VERIFY_ALL) }
        })
        .collect()
}

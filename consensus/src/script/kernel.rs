//! Bitcoin Core's script interpreter, by way of `bitcoinkernel`.

use std::sync::Once;

use bitcoin::TxOut;
use bitcoinkernel::core::TxOutExt;
use bitcoinkernel::{
    Context, KernelError, PrecomputedTransactionData, ScriptPubkey, ScriptVerifyError, Transaction, VERIFY_ALL, verify,
};

use crate::error::StateFault;

/// A transaction as Core's library holds it, with the hashes that all its inputs share.
pub(super) struct KernelTransaction {
    transaction: Transaction,
    spent: Vec<bitcoinkernel::TxOut>,
    hashes: PrecomputedTransactionData,
}

/// Has Core's library look for the SHA-256 instructions of this processor, which it does when its first context is made.
/// Before, it hashes without them, at a fifth of the speed: most of the time of a spend that hashes much.
fn find_hash_instructions() {
    static DONE: Once = Once::new();
    DONE.call_once(|| {
        // Without a context the verdicts are the same, only later.
        if let Err(error) = Context::new() {
            tracing::warn!(%error, "Bitcoin Core's library makes no context: it verifies more slowly");
        }
    });
}

impl KernelTransaction {
    pub(super) fn new(bytes: &[u8], spent: &[&TxOut]) -> Result<Self, StateFault> {
        find_hash_instructions();
        let transaction = Transaction::new(bytes).map_err(|_| StateFault::Kernel { what: "a decoded transaction" })?;
        let spent = spent.iter().map(|output| kernel_output(output)).collect::<Result<Vec<_>, _>>()?;
        let hashes = PrecomputedTransactionData::new(&transaction, &spent)
            .map_err(|_| StateFault::Kernel { what: "a transaction's spent outputs" })?;
        Ok(Self { transaction, spent, hashes })
    }

    /// Returns Core's verdict on an input under all consensus flags.
    pub(super) fn verify(&self, input: usize) -> Result<bool, StateFault> {
        let output = &self.spent[input];
        let script = output.script_pubkey();
        match verify(&script, Some(output.value()), &self.transaction, input, Some(VERIFY_ALL), &self.hashes) {
            Ok(()) => Ok(true),
            Err(KernelError::ScriptVerify(ScriptVerifyError::Invalid)) => Ok(false),
            Err(_) => Err(StateFault::Kernel { what: "to verify an input" }),
        }
    }
}

fn kernel_output(output: &TxOut) -> Result<bitcoinkernel::TxOut, StateFault> {
    let script = ScriptPubkey::new(output.script_pubkey.as_bytes())
        .map_err(|_| StateFault::Kernel { what: "a spent output's script" })?;
    let value =
        i64::try_from(output.value.to_sat()).map_err(|_| StateFault::Kernel { what: "a spent output's value" })?;
    Ok(bitcoinkernel::TxOut::new(&script, value))
}

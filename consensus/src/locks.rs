//! Absolute and relative lock times (BIP-0068, BIP-0113).

use bitcoin::absolute::LOCK_TIME_THRESHOLD;
use bitcoin::{Sequence, Transaction, TxIn};
use causeway_chainspec::Height;

/// Seconds of one unit of a relative lock by time (BIP-0068).
const SEQUENCE_SECONDS: u64 = 512;

const TYPE_FLAG: u32 = 1 << 22;
const DISABLE_FLAG: u32 = 1 << 31;
const VALUE_MASK: u32 = 0xffff;

/// Whether a transaction may stand in a block of `height` whose parent has median time `median_time`.
pub(crate) fn is_final(transaction: &Transaction, height: Height, median_time: u32) -> bool {
    let lock = transaction.lock_time.to_consensus_u32();
    let now = if lock < LOCK_TIME_THRESHOLD { height.to_u32() } else { median_time };
    lock == 0 || lock < now || transaction.input.iter().all(|input| input.sequence == Sequence::MAX)
}

/// What a relative lock of an input asks for, counted from the coin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RelativeLock {
    /// Nothing.
    None,
    /// This many blocks.
    Blocks(u32),
    /// This many seconds of median time.
    Seconds(u64),
}

/// Returns the relative lock of an input, which counts in transactions of version 2 and above (as unsigned numbers).
pub(crate) fn relative_lock(transaction: &Transaction, input: &TxIn) -> RelativeLock {
    let sequence = input.sequence.to_consensus_u32();
    let value = sequence & VALUE_MASK;
    if transaction.version.0.cast_unsigned() < 2 || sequence & DISABLE_FLAG != 0 {
        RelativeLock::None
    } else if sequence & TYPE_FLAG != 0 {
        RelativeLock::Seconds(u64::from(value) * SEQUENCE_SECONDS)
    } else {
        RelativeLock::Blocks(value)
    }
}

/// The height whose median time a lock by time counts from: the block before the coin's.
pub(crate) fn time_base(coin: Height) -> Height {
    Height(coin.to_u32().saturating_sub(1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use bitcoin::absolute::LockTime;
    use bitcoin::transaction::Version;

    fn transaction(version: i32, lock_time: u32, sequence: u32) -> Transaction {
        let input = TxIn { sequence: Sequence(sequence), ..TxIn::default() };
        let lock_time = LockTime::from_consensus(lock_time);
        Transaction { version: Version(version), lock_time, input: vec![input], output: vec![] }
    }

    #[test]
    fn absolute_locks() {
        let height = Height(200);
        assert!(is_final(&transaction(2, 0, 0), height, 0));
        assert!(is_final(&transaction(2, 199, 0), height, 0));
        assert!(!is_final(&transaction(2, 200, 0), height, 0));
        assert!(is_final(&transaction(2, 200, u32::MAX), height, 0));
        assert!(!is_final(&transaction(2, LOCK_TIME_THRESHOLD, 0), height, LOCK_TIME_THRESHOLD));
        assert!(is_final(&transaction(2, LOCK_TIME_THRESHOLD, 0), height, LOCK_TIME_THRESHOLD + 1));
    }

    #[test]
    fn relative_locks() {
        let lock = |version, sequence| {
            let transaction = transaction(version, 0, sequence);
            relative_lock(&transaction, &transaction.input[0])
        };
        assert_eq!(lock(1, 5), RelativeLock::None);
        assert_eq!(lock(2, 5), RelativeLock::Blocks(5));
        assert_eq!(lock(-1, 5), RelativeLock::Blocks(5));
        assert_eq!(lock(2, 5 | DISABLE_FLAG), RelativeLock::None);
        assert_eq!(lock(2, 3 | TYPE_FLAG), RelativeLock::Seconds(1536));
        assert_eq!(lock(2, 0x00ff_0003), RelativeLock::Seconds(1536));
        assert_eq!(lock(2, 0x003f_0003), RelativeLock::Blocks(3));
    }
}

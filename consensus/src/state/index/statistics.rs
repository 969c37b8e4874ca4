//! The running sums of a script's history, which the database adds up by itself.

use bitcoin::Amount;
use rocksdb::MergeOperands;

use super::ScriptId;
use super::entries::Entry;
use crate::id_map::IdMap;

/// Most bytes of a 128-bit number, seven bits in each.
const NUMBER_BYTES_MAX: usize = 19;

/// Sums over a script's whole history.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Transactions that pay it or spend from it.
    pub transactions: u64,
    /// The outputs that it received.
    pub funded: Flow,
    /// Those of them that are spent.
    pub spent: Flow,
}

/// A number of outputs, and what they are worth together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Flow {
    /// How many.
    pub count: u64,
    /// Satoshis. The same coins may pass again and again: 64 bits are not enough for the reserve coin's script.
    pub sat: u128,
}

impl Flow {
    /// Counts one output more.
    pub fn add(&mut self, value: Amount) {
        self.count += 1;
        self.sat += u128::from(value.to_sat());
    }
}

impl Statistics {
    /// How many of its outputs are unspent.
    pub fn unspent(&self) -> u64 {
        self.funded.count.saturating_sub(self.spent.count)
    }

    pub(super) fn count(&mut self, entry: Entry, value: Amount) {
        match entry {
            Entry::Created { .. } => self.funded.add(value),
            Entry::Spent { .. } => self.spent.add(value),
        }
    }

    /// Five numbers, seven bits in a byte, lowest first; the highest bit says that more follow.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(16);
        for mut number in self.numbers() {
            loop {
                let low = u8::try_from(number & 0x7f).expect("seven bits");
                number >>= 7;
                bytes.push(if number == 0 { low } else { low | 0x80 });
                if number == 0 {
                    break;
                }
            }
        }
        bytes
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut rest = bytes.iter();
        let mut number = || {
            let mut number = 0u128;
            for shift in (0..NUMBER_BYTES_MAX).map(|place| 7 * place) {
                let byte = *rest.next()?;
                let bits = u128::from(byte & 0x7f);
                if (bits << shift) >> shift != bits {
                    return None;
                }
                number |= bits << shift;
                if byte < 0x80 {
                    return Some(number);
                }
            }
            None
        };
        let numbers = [number()?, number()?, number()?, number()?, number()?];
        rest.next().is_none().then_some(())?;
        Self::of_numbers(numbers)
    }

    fn numbers(&self) -> [u128; 5] {
        let Self { transactions, funded, spent } = *self;
        [transactions.into(), funded.count.into(), funded.sat, spent.count.into(), spent.sat]
    }

    fn of_numbers([transactions, funded_count, funded_sat, spent_count, spent_sat]: [u128; 5]) -> Option<Self> {
        let count = |number: u128| u64::try_from(number).ok();
        Some(Self {
            transactions: count(transactions)?,
            funded: Flow { count: count(funded_count)?, sat: funded_sat },
            spent: Flow { count: count(spent_count)?, sat: spent_sat },
        })
    }

    pub(super) fn checked_add(self, other: Self) -> Option<Self> {
        let mut sum = self.numbers();
        for (sum, other) in sum.iter_mut().zip(other.numbers()) {
            *sum = sum.checked_add(other)?;
        }
        Self::of_numbers(sum)
    }
}

/// How many parts of each script's sums the database holds apart, so that reading a script of every block stays quick.
#[derive(Debug, Default)]
pub(in crate::state) struct Parts(IdMap<ScriptId, u8>);

/// Parts of a script's sums that are not put together.
const MAX_PARTS: u8 = 32;

/// Scripts whose parts are counted; then counting begins anew. The database puts parts together too, whenever it writes a
/// table.
const MAX_COUNTED: usize = 500_000;

impl Parts {
    /// Counts one more part, and returns whether it is time to put all of them together.
    pub(super) fn add(&mut self, id: &ScriptId) -> bool {
        if self.0.len() >= MAX_COUNTED {
            self.0.clear();
        }
        let parts = self.0.entry(*id).or_insert(0);
        *parts += 1;
        let is_due = *parts > MAX_PARTS;
        if is_due {
            *parts = 0;
        }
        is_due
    }
}

/// RocksDB's merge operator of the column family: the sum. None for what is no statistics, which RocksDB reports as damage.
pub(in crate::state) fn merge(_: &[u8], before: Option<&[u8]>, operands: &MergeOperands) -> Option<Vec<u8>> {
    let mut all = before.into_iter().chain(operands);
    let sum = all.try_fold(Statistics::default(), |sum, bytes| sum.checked_add(Statistics::decode(bytes)?))?;
    Some(sum.encode())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn flow() -> impl Strategy<Value = Flow> {
        (any::<u64>(), any::<u128>()).prop_map(|(count, sat)| Flow { count, sat })
    }

    proptest! {
        #[test]
        fn decode_of_encode_is_the_identity(transactions: u64, funded in flow(), spent in flow()) {
            let statistics = Statistics { transactions, funded, spent };
            prop_assert_eq!(Statistics::decode(&statistics.encode()), Some(statistics));
        }

        #[test]
        fn any_bytes_decode_or_do_not(bytes: Vec<u8>) {
            if let Some(statistics) = Statistics::decode(&bytes) {
                prop_assert_eq!(Statistics::decode(&statistics.encode()), Some(statistics));
            }
        }
    }

    #[test]
    fn parts_are_put_together_now_and_then() {
        let id = |number: u32| {
            let mut bytes = [0; 16];
            bytes[..4].copy_from_slice(&number.to_le_bytes());
            ScriptId::of_bytes(bytes)
        };
        let mut parts = Parts::default();
        let due: Vec<bool> = (0..66).map(|_| parts.add(&id(0))).collect();
        assert_eq!(due.iter().filter(|due| **due).count(), 2);
        assert!(due[32] && due[65]);
        assert!((1..1_000_000).all(|number| !parts.add(&id(number))));
        assert!(parts.0.len() <= MAX_COUNTED);
    }

    #[test]
    fn what_overflows_is_no_sum() {
        let one = Statistics { transactions: 1, ..Statistics::default() };
        let most = Statistics { transactions: u64::MAX, ..Statistics::default() };
        assert_eq!(one.checked_add(most), None);
        let rich = Statistics { spent: Flow { count: 0, sat: u128::MAX }, ..Statistics::default() };
        assert_eq!(rich.checked_add(rich), None);
        assert_eq!(rich.checked_add(one).map(|sum| sum.transactions), Some(1));
        assert_eq!(Statistics::decode(&[]), None);
        assert_eq!(Statistics::decode(&[0; 6]), None);
        assert_eq!(Statistics::decode(&[0xff; 25]), None);
    }
}

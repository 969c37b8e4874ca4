//! Blocks cut into transactions, so that one of them is read without decoding those before it.

use std::collections::BTreeSet;

use bitcoin::Transaction;
use bitcoin::block::Header;
use bitcoin::consensus::Decodable;
use bitcoin::consensus::encode::VarInt;

/// A serialised block, and where its transactions are.
#[derive(Debug)]
pub(super) struct Cut {
    bytes: Vec<u8>,
    /// Where each begins, and the end of the last.
    bounds: Vec<u32>,
}

impl Cut {
    /// Cuts a stored block; None if it is damaged. Nothing is decoded or hashed.
    pub(super) fn new(bytes: Vec<u8>) -> Option<Self> {
        let mut rest = bytes.get(Header::SIZE..)?;
        let count = number(&mut rest)?;
        let mut bounds = Vec::with_capacity(count.min(bytes.len()) + 1);
        let reached = |rest: &[u8]| u32::try_from(bytes.len() - rest.len()).ok();
        bounds.push(reached(rest)?);
        for _ in 0..count {
            skip_transaction(&mut rest)?;
            bounds.push(reached(rest)?);
        }
        rest.is_empty().then_some(Self { bytes, bounds })
    }

    /// The serialised transaction at a place.
    pub(super) fn raw(&self, place: u32) -> Option<&[u8]> {
        let place = usize::try_from(place).ok()?;
        let [from, to] = *self.bounds.get(place..place.checked_add(2)?)? else { return None };
        self.bytes.get(usize::try_from(from).ok()?..usize::try_from(to).ok()?)
    }

    /// The transaction at a place.
    pub(super) fn transaction(&self, place: u32) -> Option<Transaction> {
        Transaction::consensus_decode_from_finite_reader(&mut self.raw(place)?).ok()
    }

    /// The transactions at these places, in order; None if there is no such place.
    pub(super) fn transactions(&self, places: &BTreeSet<u32>) -> Option<Vec<(u32, Transaction)>> {
        places.iter().map(|place| Some((*place, self.transaction(*place)?))).collect()
    }

    /// Bytes of memory.
    pub(super) fn memory(&self) -> usize {
        self.bytes.len() + size_of_val(self.bounds.as_slice())
    }
}

/// Reads a compact size.
fn number(rest: &mut &[u8]) -> Option<usize> {
    usize::try_from(VarInt::consensus_decode(rest).ok()?.0).ok()
}

fn skip(rest: &mut &[u8], bytes: usize) -> Option<()> {
    *rest = rest.get(bytes..)?;
    Some(())
}

/// Skips a compact size and as many bytes.
fn skip_text(rest: &mut &[u8]) -> Option<()> {
    let bytes = number(rest)?;
    skip(rest, bytes)
}

/// Skips a transaction in the form of BIP144 or the one before it. A count beyond the bytes ends with them.
fn skip_transaction(rest: &mut &[u8]) -> Option<()> {
    skip(rest, 4)?;
    let has_witnesses = rest.starts_with(&[0, 1]);
    if has_witnesses {
        skip(rest, 2)?;
    }
    let inputs = number(rest)?;
    for _ in 0..inputs {
        skip(rest, 36)?;
        skip_text(rest)?;
        skip(rest, 4)?;
    }
    for _ in 0..number(rest)? {
        skip(rest, 8)?;
        skip_text(rest)?;
    }
    if has_witnesses {
        for _ in 0..inputs {
            for _ in 0..number(rest)? {
                skip_text(rest)?;
            }
        }
    }
    skip(rest, 4)
}

#[cfg(test)]
mod tests {
    use std::str::FromStr;

    use bitcoin::absolute::LockTime;
    use bitcoin::consensus::encode::serialize;
    use bitcoin::transaction::Version;
    use bitcoin::{Amount, Block, CompactTarget, OutPoint, ScriptBuf, Sequence, TxIn, TxMerkleNode, TxOut, Witness};
    use bitcoin::{BlockHash, hashes::Hash};
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    /// Transactions of all shapes; without inputs there is no form to tell it by.
    fn transaction() -> impl Strategy<Value = Transaction> {
        let text = || prop_oneof![8 => vec(any::<u8>(), 0..40), 1 => vec(any::<u8>(), 250..300)];
        let input = (text(), vec(text(), 0..3));
        (vec(input, 1..4), vec(text(), 0..4)).prop_map(|(inputs, outputs)| Transaction {
            version: Version::TWO,
            lock_time: LockTime::ZERO,
            input: inputs
                .into_iter()
                .map(|(script, witness)| TxIn {
                    previous_output: OutPoint::from_str(&format!("{}:1", "11".repeat(32))).unwrap(),
                    script_sig: ScriptBuf::from_bytes(script),
                    sequence: Sequence::MAX,
                    witness: Witness::from_slice(&witness),
                })
                .collect(),
            output: outputs
                .into_iter()
                .map(|script| TxOut { value: Amount::ONE_SAT, script_pubkey: ScriptBuf::from_bytes(script) })
                .collect(),
        })
    }

    fn block(txdata: Vec<Transaction>) -> Vec<u8> {
        let header = Header {
            version: bitcoin::block::Version::TWO,
            prev_blockhash: BlockHash::all_zeros(),
            merkle_root: TxMerkleNode::all_zeros(),
            time: 0,
            bits: CompactTarget::from_consensus(0),
            nonce: 0,
        };
        serialize(&Block { header, txdata })
    }

    proptest! {
        #[test]
        fn every_transaction_is_where_it_was_put(transactions in vec(transaction(), 0..300)) {
            let cut = Cut::new(block(transactions.clone())).unwrap();
            for (place, transaction) in (0..).zip(&transactions) {
                prop_assert_eq!(cut.raw(place).unwrap(), serialize(transaction));
                prop_assert_eq!(&cut.transaction(place).unwrap(), transaction);
            }
            let past = u32::try_from(transactions.len()).unwrap();
            prop_assert!(cut.raw(past).is_none() && cut.raw(u32::MAX).is_none());
            prop_assert_eq!(cut.transactions(&(0..past).collect()).unwrap().len(), transactions.len());
            prop_assert_eq!(cut.transactions(&[0, past].into()), None);
        }

        #[test]
        fn a_damaged_block_is_none(transactions in vec(transaction(), 1..4), at in any::<prop::sample::Index>()) {
            let whole = block(transactions);
            prop_assert!(Cut::new(whole[..at.index(whole.len())].to_vec()).is_none());
            prop_assert!(Cut::new([whole.as_slice(), &[0]].concat()).is_none());
        }

        #[test]
        fn no_bytes_do_harm(bytes in vec(any::<u8>(), 0..400)) {
            // Neither a panic nor memory for a count that nothing stands behind.
            let _ = Cut::new(bytes);
        }
    }
}

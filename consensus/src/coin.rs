//! A coin and its one encoding, which the state commitment and the store share.

use bitcoin::{Amount, OutPoint, Script, ScriptBuf, TxOut};
use causeway_chainspec::Height;

/// Bytes of an encoded outpoint: txid (32, internal order) || vout (u32, big endian, so that keys sort as outpoints do).
pub const OUTPOINT_BYTES: usize = 36;

/// Bytes in front of the script in an encoded coin: height x 2 + coinbase (u32 LE) || value in satoshis (u64 LE).
const COIN_HEAD_BYTES: usize = 12;

/// The largest script that can be spent, in bytes (Bitcoin Core: `MAX_SCRIPT_SIZE`).
const MAX_SCRIPT_BYTES: usize = 10_000;

/// An unspent output: what it is worth, who may spend it, and where it comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Coin {
    /// Value and script.
    pub output: TxOut,
    /// The height of the block that created it.
    pub height: Height,
    /// Whether a coinbase created it; then it can be spent after 100 more blocks.
    pub coinbase: bool,
}

impl Coin {
    /// Returns `height x 2 + coinbase (u32 LE) || value (u64 LE) || script`.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(COIN_HEAD_BYTES + self.output.script_pubkey.len());
        bytes.extend_from_slice(&self.head());
        bytes.extend_from_slice(self.output.script_pubkey.as_bytes());
        bytes
    }

    /// Returns the coin that [`Coin::encode`] gave, or None for fewer than 12 bytes or more than 21,000,000 BTC.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (code, rest) = bytes.split_first_chunk::<4>()?;
        let (value, script) = rest.split_first_chunk::<8>()?;
        let code = u32::from_le_bytes(*code);
        let value = Amount::from_sat(u64::from_le_bytes(*value));
        (value <= Amount::MAX_MONEY).then(|| Self {
            output: TxOut { value, script_pubkey: ScriptBuf::from_bytes(script.to_vec()) },
            height: Height(code >> 1),
            coinbase: code & 1 == 1,
        })
    }

    /// The bytes in front of the script.
    ///
    /// Heights stay below 2^31: at six blocks a second that is eleven years, and [`crate::tip::MAX_HEIGHT`] ends the chain there.
    pub(crate) fn head(&self) -> [u8; COIN_HEAD_BYTES] {
        let mut head = [0; COIN_HEAD_BYTES];
        let code = (self.height.to_u32() << 1) | u32::from(self.coinbase);
        head[..4].copy_from_slice(&code.to_le_bytes());
        head[4..].copy_from_slice(&self.output.value.to_sat().to_le_bytes());
        head
    }
}

/// Returns `txid (32, internal order) || vout (u32 BE)`.
pub fn encode_outpoint(outpoint: &OutPoint) -> [u8; OUTPOINT_BYTES] {
    let mut key = [0; OUTPOINT_BYTES];
    key[..32].copy_from_slice(outpoint.txid.as_ref());
    key[32..].copy_from_slice(&outpoint.vout.to_be_bytes());
    key
}

/// Whether an output with this script can never be spent, so that it is no coin: it begins with OP_RETURN or is too long
/// (Bitcoin Core: `CScript::IsUnspendable`).
pub fn is_unspendable(script: &Script) -> bool {
    script.is_op_return() || script.len() > MAX_SCRIPT_BYTES
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn decode_of_encode_is_the_identity(height in 0u32..1 << 31, coinbase: bool, value in 0..=Amount::MAX_MONEY.to_sat(), script: Vec<u8>) {
            let coin = Coin {
                output: TxOut { value: Amount::from_sat(value), script_pubkey: ScriptBuf::from_bytes(script) },
                height: Height(height),
                coinbase,
            };
            prop_assert_eq!(Coin::decode(&coin.encode()), Some(coin));
        }
    }

    #[test]
    fn too_few_bytes_or_too_much_value_are_no_coin() {
        assert_eq!(Coin::decode(&[0xff; 12]), None);
        assert_eq!(Coin::decode(&[0; 11]), None);
        assert!(Coin::decode(&[0; 12]).is_some());
    }
}

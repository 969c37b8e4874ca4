//! The state commitment: what the coinbase of each block says about the state before it.
//!
//! The coins go into a multiset hash that is updated by what a block creates and spends, in any order: LtHash with 1,024
//! lanes of 16 bits over BLAKE3's extendable output (Bellare and Micciancio, "A new paradigm for collision-free hashing";
//! Lewi et al., "Securing update propagation with homomorphic hashing"; DESIGN section 2).

use std::sync::LazyLock;

use bitcoin::OutPoint;
use causeway_chainspec::tagged_hash;
use rayon::prelude::*;

use crate::coin::{Coin, encode_outpoint};

const LANES: usize = 1024;

/// Bytes of an encoded [`LtHash`]: 1,024 lanes x 2.
pub const LTHASH_BYTES: usize = LANES * 2;

/// Coins that one task adds before the partial sums meet: large enough that a task costs more than handing it over.
const COINS_PER_TASK: usize = 256;

/// BLAKE3 in its key derivation mode, so that no other use of BLAKE3 can collide with a coin's element.
static ELEMENT: LazyLock<blake3::Hasher> = LazyLock::new(|| blake3::Hasher::new_derive_key("causeway coin lthash v1"));

/// The same for a record of the peg.
static RECORD: LazyLock<blake3::Hasher> =
    LazyLock::new(|| blake3::Hasher::new_derive_key("causeway peg record lthash v1"));

/// A hash of a multiset, of coins or of the peg's records. Adding and removing commute, and removing undoes adding.
#[derive(Clone, PartialEq, Eq)]
pub struct LtHash {
    lanes: Box<[u16; LANES]>,
}

impl LtHash {
    /// Returns the hash of nothing.
    pub fn empty() -> Self {
        Self { lanes: Box::new([0; LANES]) }
    }

    /// Adds one coin.
    pub fn add(&mut self, outpoint: &OutPoint, coin: &Coin) {
        self.fold(lanes(&element(outpoint, coin)), u16::wrapping_add);
    }

    /// Removes one coin.
    pub fn remove(&mut self, outpoint: &OutPoint, coin: &Coin) {
        self.fold(lanes(&element(outpoint, coin)), u16::wrapping_sub);
    }

    /// Adds one record of the peg.
    pub fn add_record(&mut self, key: &[u8], value: &[u8]) {
        self.fold(lanes(&record_element(key, value)), u16::wrapping_add);
    }

    /// Removes one record of the peg.
    pub fn remove_record(&mut self, key: &[u8], value: &[u8]) {
        self.fold(lanes(&record_element(key, value)), u16::wrapping_sub);
    }

    /// Returns the hash of all `coins`, computed on rayon's current threads.
    pub fn of<'a>(coins: impl IndexedParallelIterator<Item = (&'a OutPoint, &'a Coin)>) -> Self {
        coins
            .fold_chunks(COINS_PER_TASK, Self::empty, |mut sum, (outpoint, coin)| {
                sum.add(outpoint, coin);
                sum
            })
            .reduce(Self::empty, |a, b| a.plus(&b))
    }

    /// Returns the hash of both multisets together.
    pub fn plus(mut self, other: &Self) -> Self {
        self.fold(other.lanes.iter().copied(), u16::wrapping_add);
        self
    }

    /// Returns the hash of this multiset without the other's coins.
    pub fn minus(mut self, other: &Self) -> Self {
        self.fold(other.lanes.iter().copied(), u16::wrapping_sub);
        self
    }

    /// Returns the 32-byte digest: BLAKE3 of the lanes, each u16 LE.
    pub fn digest(&self) -> [u8; 32] {
        *blake3::hash(&self.encode()).as_bytes()
    }

    /// Returns the lanes, each u16 LE.
    pub fn encode(&self) -> [u8; LTHASH_BYTES] {
        let mut bytes = [0; LTHASH_BYTES];
        for (bytes, lane) in bytes.chunks_exact_mut(2).zip(self.lanes.iter()) {
            bytes.copy_from_slice(&lane.to_le_bytes());
        }
        bytes
    }

    /// Returns the hash that [`LtHash::encode`] gave.
    pub fn decode(bytes: &[u8; LTHASH_BYTES]) -> Self {
        let mut hash = Self::empty();
        hash.fold(lanes(bytes), u16::wrapping_add);
        hash
    }

    fn fold(&mut self, others: impl Iterator<Item = u16>, op: impl Fn(u16, u16) -> u16) {
        for (lane, other) in self.lanes.iter_mut().zip(others) {
            *lane = op(*lane, other);
        }
    }
}

fn lanes(bytes: &[u8; LTHASH_BYTES]) -> impl Iterator<Item = u16> {
    bytes.chunks_exact(2).map(|lane| u16::from_le_bytes([lane[0], lane[1]]))
}

impl std::fmt::Debug for LtHash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        use bitcoin::hex::DisplayHex;
        write!(f, "LtHash({})", self.digest().to_lower_hex_string())
    }
}

/// Returns 2,048 bytes of BLAKE3 output over the encoded outpoint and coin.
fn element(outpoint: &OutPoint, coin: &Coin) -> [u8; LTHASH_BYTES] {
    let mut hasher = ELEMENT.clone();
    hasher.update(&encode_outpoint(outpoint));
    hasher.update(&coin.head());
    hasher.update(coin.output.script_pubkey.as_bytes());
    let mut bytes = [0; LTHASH_BYTES];
    hasher.finalize_xof().fill(&mut bytes);
    bytes
}

/// Returns 2,048 bytes of BLAKE3 output over the key's length (u64 LE), the key and the value of a record.
fn record_element(key: &[u8], value: &[u8]) -> [u8; LTHASH_BYTES] {
    let mut hasher = RECORD.clone();
    hasher.update(&(key.len() as u64).to_le_bytes());
    hasher.update(key);
    hasher.update(value);
    let mut bytes = [0; LTHASH_BYTES];
    hasher.finalize_xof().fill(&mut bytes);
    bytes
}

/// Returns the digest that a coinbase commits to: a hash over the digests of the coins, of the peg's state and of the
/// validator set.
pub fn state_commitment(coins: &LtHash, peg: [u8; 32], validators: [u8; 32]) -> [u8; 32] {
    tagged_hash("causeway/state/v1", &[&coins.digest(), &peg, &validators])
}

#[cfg(test)]
mod tests {
    use super::*;
    use bitcoin::hashes::Hash;
    use bitcoin::hex::DisplayHex;
    use bitcoin::{Amount, ScriptBuf, TxOut, Txid};
    use causeway_chainspec::Height;
    use proptest::prelude::*;

    fn coin() -> impl Strategy<Value = (OutPoint, Coin)> {
        (any::<[u8; 32]>(), any::<u32>(), 0..2_100_000_000_000_000u64, any::<Vec<u8>>(), 0u32..1 << 31, any::<bool>())
            .prop_map(|(txid, vout, value, script, height, coinbase)| {
                let output = TxOut { value: Amount::from_sat(value), script_pubkey: ScriptBuf::from_bytes(script) };
                (OutPoint::new(Txid::from_byte_array(txid), vout), Coin { output, height: Height(height), coinbase })
            })
    }

    proptest! {
        #[test]
        fn the_order_of_insertion_does_not_matter(
            (coins, shuffled) in proptest::collection::vec(coin(), 0..40)
                .prop_flat_map(|coins| (Just(coins.clone()), Just(coins).prop_shuffle()))
        ) {
            let mut one = LtHash::empty();
            coins.iter().for_each(|(outpoint, coin)| one.add(outpoint, coin));
            let mut other = LtHash::empty();
            shuffled.iter().for_each(|(outpoint, coin)| other.add(outpoint, coin));
            prop_assert_eq!(&one, &other);
            let parallel = LtHash::of(coins.par_iter().map(|(outpoint, coin)| (outpoint, coin)));
            prop_assert_eq!(&one, &parallel);
        }

        #[test]
        fn removing_undoes_adding_and_every_coin_counts(
            coins in proptest::collection::vec(coin(), 1..20), pick: prop::sample::Index
        ) {
            let mut all = LtHash::empty();
            coins.iter().for_each(|(outpoint, coin)| all.add(outpoint, coin));
            let removed = pick.index(coins.len());
            let mut rest = LtHash::empty();
            for (i, (outpoint, coin)) in coins.iter().enumerate() {
                if i != removed {
                    rest.add(outpoint, coin);
                }
            }
            prop_assert_ne!(&all, &rest);
            all.remove(&coins[removed].0, &coins[removed].1);
            prop_assert_eq!(&all, &rest);
            prop_assert_eq!(LtHash::decode(&all.encode()), rest);
        }
    }

    /// The figures were computed by another implementation, in Python over the `blake3` package.
    #[test]
    fn the_encoding_is_frozen() {
        let mut hash = LtHash::empty();
        assert_eq!(
            hash.digest().to_lower_hex_string(),
            "be2a8de3dcf46c94ce85cdc8e07ac308f4d8a95490d956c38d780fd610db0813"
        );
        let output = TxOut { value: Amount::from_sat(5_000), script_pubkey: ScriptBuf::from_bytes(vec![0x51]) };
        hash.add(&OutPoint::null(), &Coin { output, height: Height(7), coinbase: true });
        assert_eq!(
            hash.digest().to_lower_hex_string(),
            "393a118d4a0a3e66b4b216dbcf5e69e4fc1f104deab82742193b463bc124946c"
        );
        assert_eq!(
            state_commitment(&hash, [1; 32], [2; 32]).to_lower_hex_string(),
            "264c2a30bd44b36e1e75c2d4e6a8c4d915b147739f5c3d483957ac88c68215e6"
        );
    }
}

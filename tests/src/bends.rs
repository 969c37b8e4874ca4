//! Ways to bend a block out of shape, for property tests, second opinions and the fuzzer's corpus.

use bitcoin::block::Version;
use bitcoin::hashes::Hash;
use bitcoin::opcodes::all::OP_CHECKSIG;
use bitcoin::{
    Amount, Block, BlockHash, CompactTarget, OutPoint, ScriptBuf, Sequence, Transaction, TxMerkleNode, TxOut, Witness,
};
use causeway_chainspec::{PegOutDestination, TARGET_BITS, reserve_script};
use causeway_consensus::assemble::{seal, seal_header};
use causeway_consensus::check::{STATE_COMMITMENT_PREFIX, WITNESS_COMMITMENT_PREFIX};

use crate::draft::{ballast, free_output, ground, input, outpoint};

/// One edit. Some change nothing in a block that has no place for them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Bend {
    /// A transaction is left out.
    Drop,
    /// A transaction stands in another place too.
    Repeat,
    /// Two transactions change places.
    Swap,
    /// The last transactions are repeated so that the merkle root stays (CVE-2012-2459), if their number allows it.
    RepeatTail,
    /// A second coinbase.
    SecondCoinbase,
    /// No coinbase.
    NoCoinbase,
    /// No transactions.
    Empty,
    /// A transaction without inputs.
    NoInputs,
    /// A transaction without outputs.
    NoOutputs,
    /// An output's value at or above what there is.
    LargeValue,
    /// Outputs that are at or above what there is together.
    LargeSum,
    /// A coin spent twice in one transaction.
    DuplicateInput,
    /// The null outpoint as one input of several.
    NullOutpoint,
    /// Up to ten signature operations fewer, or more, than allowed.
    Sigops,
    /// A coinbase script of 0 to 104 bytes.
    CoinbaseScript,
    /// About as many bytes without witnesses as allowed.
    Large,
    /// About as many bytes in witnesses as allowed.
    HeavyWitness,
    /// Another witness.
    Witness,
    /// Another reserved value in the coinbase's witness, or none.
    ReservedValue,
    /// No witness commitment.
    CommitmentGone,
    /// A second witness commitment.
    CommitmentTwice,
    /// No state commitment.
    StateGone,
    /// A second state commitment.
    StateTwice,
    /// An output of witness version 16.
    PegScript,
    /// A reserve output.
    Reserve,
    /// A peg-out request in the coinbase.
    CoinbaseRequest,
    /// A peg-out request of any value.
    Request,
    /// Another lock time and sequence.
    Lock,
    /// Another version.
    Version,
    /// Another target that is as easy to meet.
    EasyBits,
    /// Another time.
    Time,
    /// Another parent.
    Parent,
    /// Another merkle root, with work.
    MerkleRoot,
    /// Another target that the block does not meet.
    HardBits,
    /// A nonce that does not meet the target.
    Nonce,
}

impl Bend {
    /// All of them.
    pub const ALL: [Self; 35] = [
        Self::Drop,
        Self::Repeat,
        Self::Swap,
        Self::RepeatTail,
        Self::SecondCoinbase,
        Self::NoCoinbase,
        Self::Empty,
        Self::NoInputs,
        Self::NoOutputs,
        Self::LargeValue,
        Self::LargeSum,
        Self::DuplicateInput,
        Self::NullOutpoint,
        Self::Sigops,
        Self::CoinbaseScript,
        Self::Large,
        Self::HeavyWitness,
        Self::Witness,
        Self::ReservedValue,
        Self::CommitmentGone,
        Self::CommitmentTwice,
        Self::StateGone,
        Self::StateTwice,
        Self::PegScript,
        Self::Reserve,
        Self::CoinbaseRequest,
        Self::Request,
        Self::Lock,
        Self::Version,
        Self::EasyBits,
        Self::Time,
        Self::Parent,
        Self::MerkleRoot,
        Self::HardBits,
        Self::Nonce,
    ];

    /// Whether it makes a block of about a megabyte or more.
    pub fn is_large(self) -> bool {
        matches!(self, Self::Large | Self::HeavyWitness)
    }

    /// Whether it is about what the seal makes, and so comes after it.
    fn follows_the_seal(self) -> bool {
        matches!(self, Self::MerkleRoot | Self::HardBits | Self::Nonce)
    }

    fn apply(self, block: &mut Block, salt: u32) {
        match self {
            Self::Drop | Self::Repeat | Self::Swap | Self::RepeatTail | Self::SecondCoinbase | Self::NoCoinbase => {
                self.bend_the_list(&mut block.txdata, salt);
            }
            Self::Empty => block.txdata.clear(),
            Self::NoInputs
            | Self::NoOutputs
            | Self::LargeValue
            | Self::LargeSum
            | Self::DuplicateInput
            | Self::NullOutpoint
            | Self::Sigops
            | Self::Large
            | Self::HeavyWitness
            | Self::Witness
            | Self::PegScript
            | Self::Reserve
            | Self::Request
            | Self::Lock => {
                // The last one mostly, since the coinbase has rules of its own.
                let index = if salt.is_multiple_of(7) { 0 } else { block.txdata.len().saturating_sub(1) };
                if let Some(transaction) = block.txdata.get_mut(index) {
                    self.bend_a_transaction(transaction, salt);
                }
            }
            Self::CoinbaseScript
            | Self::ReservedValue
            | Self::CommitmentGone
            | Self::CommitmentTwice
            | Self::StateGone
            | Self::StateTwice
            | Self::CoinbaseRequest => {
                if let Some(coinbase) = block.txdata.first_mut().filter(|coinbase| coinbase.is_coinbase()) {
                    self.bend_the_coinbase(coinbase, salt);
                }
            }
            Self::Version
            | Self::EasyBits
            | Self::Time
            | Self::Parent
            | Self::MerkleRoot
            | Self::HardBits
            | Self::Nonce => {
                self.bend_the_header(block, salt);
            }
        }
    }

    fn bend_the_list(self, list: &mut Vec<Transaction>, salt: u32) {
        let count = list.len();
        let Some(last) = count.checked_sub(1) else { return };
        let (one, other) = (salt as usize % count, (salt >> 4) as usize % count);
        match self {
            Self::Drop => drop(list.remove(one)),
            Self::Repeat => list.insert(other, list[one].clone()),
            Self::Swap => list.swap(one, other),
            // The rightmost node of the lowest odd level repeats itself, unless that level is the root.
            Self::RepeatTail => {
                let tail = 1 << count.trailing_zeros();
                if tail < count {
                    list.extend_from_within(count - tail..);
                }
            }
            Self::SecondCoinbase => {
                let mut second = list[0].clone();
                second.lock_time = bitcoin::absolute::LockTime::from_consensus(salt);
                list.insert(1 + other.min(last), second);
            }
            _ => drop(list.remove(0)),
        }
    }

    fn bend_a_transaction(self, transaction: &mut Transaction, salt: u32) {
        let place = salt as usize % (transaction.output.len() + 1);
        match self {
            Self::NoInputs => transaction.input.clear(),
            Self::NoOutputs => transaction.output.clear(),
            Self::LargeValue => {
                let values =
                    [Amount::MAX_MONEY, Amount::MAX_MONEY + Amount::ONE_SAT, Amount::MAX, Amount::from_sat(1 << 63)];
                transaction.output.insert(place, free_output(values[salt as usize % 4]));
            }
            Self::LargeSum => {
                transaction.output.push(free_output(Amount::MAX_MONEY / 2));
                transaction.output.push(free_output(Amount::MAX_MONEY / 2 + Amount::from_sat(u64::from(salt % 2))));
            }
            Self::DuplicateInput => {
                // More than eight inputs half of the time, which are compared in another way.
                let more = if salt.is_multiple_of(2) { 0 } else { 10 };
                transaction.input.extend((0..more).map(|number| input(outpoint(1_000 + number))));
                if let Some(first) = transaction.input.first().cloned() {
                    transaction.input.push(first);
                }
            }
            Self::NullOutpoint => {
                transaction.input.push(input(OutPoint::null()));
                if salt.is_multiple_of(3) {
                    transaction.input.swap_remove(0);
                }
            }
            Self::Sigops => {
                let script = vec![OP_CHECKSIG.to_u8(); 19_990 + salt as usize % 20];
                let output = TxOut { value: Amount::ZERO, script_pubkey: ScriptBuf::from_bytes(script) };
                transaction.output.insert(place, output);
            }
            Self::Large => transaction.output.insert(place, ballast(998_000 + salt as usize * 211 % 2_500)),
            Self::HeavyWitness | Self::Witness => {
                let bytes =
                    if self == Self::Witness { salt as usize % 9 } else { 3_990_000 + salt as usize * 997 % 12_000 };
                let byte = (salt % 256).to_le_bytes()[0];
                if let Some(input) = transaction.input.last_mut() {
                    input.witness = Witness::from_slice(&[vec![byte; bytes]]);
                }
            }
            Self::PegScript => {
                let length = (salt % 43).to_le_bytes()[0];
                let mut script = [&[0x60, length], [b"CWPO".as_slice(), b"CWRS", b"????"][salt as usize % 3]].concat();
                script.resize(2 + usize::from(length), 0x51);
                transaction
                    .output
                    .insert(place, TxOut { value: Amount::ZERO, script_pubkey: ScriptBuf::from_bytes(script) });
            }
            Self::Reserve => {
                transaction.output.insert(place, TxOut { value: Amount::ZERO, script_pubkey: reserve_script() });
            }
            Self::Request => transaction.output.insert(place, request(u64::from(salt) * 7_919 % 40_000)),
            _ => {
                transaction.lock_time = bitcoin::absolute::LockTime::from_consensus(salt);
                transaction.input.iter_mut().for_each(|input| input.sequence = Sequence(salt));
            }
        }
    }

    fn bend_the_coinbase(self, coinbase: &mut Transaction, salt: u32) {
        let outputs = &mut coinbase.output;
        let place = salt as usize % (outputs.len() + 1);
        let starting_with = |prefix: &[u8]| {
            let prefix = prefix.to_vec();
            move |output: &TxOut| output.script_pubkey.as_bytes().starts_with(&prefix)
        };
        match self {
            Self::CoinbaseScript => {
                coinbase.input[0].script_sig = ScriptBuf::from_bytes(vec![0; salt as usize % 105]);
            }
            Self::ReservedValue => {
                let elements = vec![vec![1; if salt.is_multiple_of(2) { 32 } else { 31 }]; salt as usize % 3];
                coinbase.input[0].witness = Witness::from_slice(&elements);
            }
            Self::CommitmentGone => {
                let is_commitment = starting_with(&WITNESS_COMMITMENT_PREFIX);
                outputs.retain(|output| !is_commitment(output));
            }
            Self::StateGone => {
                let is_commitment = starting_with(&STATE_COMMITMENT_PREFIX);
                outputs.retain(|output| !is_commitment(output));
            }
            Self::CommitmentTwice => {
                outputs.insert(place, causeway_consensus::assemble::commitment(&WITNESS_COMMITMENT_PREFIX, [7; 32]));
            }
            Self::StateTwice => {
                outputs.insert(place, causeway_consensus::assemble::commitment(&STATE_COMMITMENT_PREFIX, [7; 32]));
            }
            _ => outputs.insert(0, request(20_000)),
        }
    }

    fn bend_the_header(self, block: &mut Block, salt: u32) {
        let header = &mut block.header;
        match self {
            Self::Version => header.version = Version::from_consensus((salt % 9).cast_signed() - 1),
            Self::EasyBits => header.bits = CompactTarget::from_consensus(TARGET_BITS - 1 - salt % 0x0060_0000),
            Self::Time => header.time = salt,
            Self::Parent => header.prev_blockhash = BlockHash::from_byte_array([salt.to_le_bytes()[0]; 32]),
            Self::MerkleRoot => {
                let mut root = header.merkle_root.to_byte_array();
                root[salt as usize % 32] ^= 1 << (salt % 8);
                header.merkle_root = TxMerkleNode::from_byte_array(root);
                *block = ground(block, true);
            }
            Self::HardBits => {
                let bits = [0, 0x1d00_ffff, 0x2080_0000, 0x2100_ffff, 0xff7f_ffff, 0x0100_0001][salt as usize % 6];
                header.bits = CompactTarget::from_consensus(bits);
            }
            _ => *block = ground(block, false),
        }
    }
}

/// A peg-out request to a P2WPKH script.
fn request(sats: u64) -> TxOut {
    let script = ScriptBuf::from_bytes([&[0, 20], [7; 20].as_slice()].concat());
    let destination = PegOutDestination::from_bitcoin_script(&script).expect("P2WPKH is paid");
    TxOut { value: Amount::from_sat(sats), script_pubkey: destination.to_script_pubkey() }
}

/// What is made anew after the edits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seal {
    /// Witness commitment, merkle root and work, as far as the coinbase still has a place for the commitment.
    Commitments,
    /// Merkle root and work.
    Header,
    /// Nothing: the header stays, except for what the edits do to it.
    Nothing,
}

impl Seal {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Commitments, Self::Header, Self::Nothing];
}

/// Returns the block after some edits, each with a number that chooses among its variations.
pub fn bent(block: &Block, bends: &[(Bend, u32)], how: Seal) -> Block {
    let mut block = block.clone();
    for (bend, salt) in bends.iter().filter(|(bend, _)| !bend.follows_the_seal()) {
        bend.apply(&mut block, *salt);
    }
    let place_for_commitment = block.txdata.first().is_some_and(|coinbase| {
        coinbase.output.len() >= 2 && coinbase.input.first().is_some_and(|input| !input.witness.is_empty())
    });
    match how {
        Seal::Commitments if place_for_commitment => seal(&mut block),
        Seal::Commitments | Seal::Header => seal_header(&mut block),
        Seal::Nothing => {}
    }
    for (bend, salt) in bends.iter().filter(|(bend, _)| bend.follows_the_seal()) {
        bend.apply(&mut block, *salt);
    }
    block
}

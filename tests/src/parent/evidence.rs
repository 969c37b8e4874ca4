//! What a proposer and a depositor make of a [`ParentChain`].

use bitcoin::secp256k1::{Keypair, Message, SECP256K1};
use bitcoin::transaction::Version;
use bitcoin::{Amount, Block, OutPoint, ScriptBuf, Transaction, TxOut, Txid, Witness};
use causeway_chainspec::{BitcoinHeight, ChainSpec, Height, SatPerKvb, devnet, reserve_script};
use causeway_consensus::peg::PegNetwork;
use causeway_consensus::peg::PegState;
use causeway_consensus::peg::evidence::{FeeRateQuote, PegIn};
use causeway_consensus::peg::header_tree::{HeaderRun, HeaderTree};
use causeway_consensus::peg::proof::InclusionProof;
use causeway_consensus::peg::propose::{Candidates, HEADERS_MAX};
use causeway_consensus::peg::script::DepositTerms;

use super::{ParentChain, spending};
use crate::chain::MemoryChain;
use crate::wallet::Owner;

impl ParentChain {
    /// Returns a transaction that deposits `amount` under these terms, in output 0.
    pub fn deposit(&mut self, network: &PegNetwork, terms: &DepositTerms, amount: Amount) -> Transaction {
        let scripts = network.scripts(terms.epoch).expect("an epoch of the network");
        let script_pubkey = scripts.deposit_script(network.chain(), terms);
        self.pay(vec![TxOut { value: amount, script_pubkey }])
    }

    /// The run that brings a tree towards this chain; `None` if it has nothing new.
    pub fn run_towards(&self, tree: &HeaderTree, block_time: u32) -> Option<HeaderRun> {
        tree.run_towards(self.tip(), block_time, HEADERS_MAX, |height| self.header(height)).ok()
    }

    /// The run of all headers above `height`.
    pub fn run_above(&self, height: BitcoinHeight) -> HeaderRun {
        let heights = height.to_u32() + 1..=self.tip().to_u32();
        let headers: Vec<_> = heights.filter_map(|height| self.header(BitcoinHeight(height))).collect();
        HeaderRun::between(&headers).expect("there are headers above it")
    }

    /// The proof that a transaction stands on the best chain; `None` if it does not.
    pub fn proof(&self, txid: &Txid) -> Option<InclusionProof> {
        let (height, index) = self.place(txid)?;
        InclusionProof::of_block(self.block(height)?, height, index)
    }

    /// The claim of a deposit; `None` if its transaction is not on the best chain.
    pub fn peg_in(&self, terms: &DepositTerms, deposit: OutPoint) -> Option<PegIn> {
        Some(PegIn { terms: terms.clone(), vout: deposit.vout, proof: self.proof(&deposit.txid)? })
    }

    /// What a proposer knows by itself: new headers, and every version of an open batch that stands on the best chain.
    pub fn candidates(&self, state: &PegState, block_time: u32) -> Candidates {
        let versions = state.open_batches().flat_map(|batch| &batch.versions);
        Candidates {
            headers: self.run_towards(state.headers(), block_time),
            confirmed: versions.filter_map(|version| self.proof(&version.txid)).collect(),
            ..Candidates::default()
        }
    }

    /// Adds a block to the chain that carries the headers up to this chain's tip, and returns it.
    pub fn follow(&self, chain: &mut MemoryChain) -> Block {
        let time = chain.next_context().time;
        let headers = self.run_towards(chain.peg().headers(), time);
        let block = chain.next_block_with(Candidates { headers, ..Candidates::default() }, Amount::ZERO, Vec::new());
        chain.accept(&block).expect("a block with headers is valid");
        block
    }
}

/// Terms of a deposit to epoch 1, with the refund key of an owner.
pub fn terms(destination: ScriptBuf, refund: &Owner) -> DepositTerms {
    DepositTerms { epoch: 1, destination, refund_key: refund.keypair().x_only_public_key().0 }
}

/// The quote of a devnet's validator (0 to 3) for the block at `height`.
pub fn quote(spec: &ChainSpec, validator: u32, height: Height, rate: SatPerKvb) -> FeeRateQuote {
    let key = Keypair::from_secret_key(SECP256K1, &devnet::secret_key(devnet::VALIDATOR, validator));
    let digest = FeeRateQuote::digest(spec.chain_id(), height, rate);
    FeeRateQuote {
        validator: key.x_only_public_key().0,
        rate,
        signature: SECP256K1.sign_schnorr_no_aux_rand(&Message::from_digest(digest), &key),
    }
}

/// A transaction that spends the reserve to itself and carries these bytes as evidence: what a peg transaction looks like
/// whose evidence changes nothing.
pub fn stub_peg_transaction(state: &PegState, evidence: &[u8]) -> Transaction {
    let (outpoint, value) = state.reserve();
    let mut transaction = spending(&[outpoint], vec![TxOut { value, script_pubkey: reserve_script() }]);
    transaction.version = Version::TWO;
    transaction.input[0].witness = Witness::from_slice(&[evidence]);
    transaction
}

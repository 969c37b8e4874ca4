//! What the peg's rules need of the network, built once.

use std::sync::Arc;

use causeway_chainspec::{BitcoinStart, ChainId, ChainSpec, Epoch, Params, Validator};

use super::script::EpochScripts;

/// The constants that the peg's rules read, with the scripts of the epochs.
#[derive(Debug)]
pub struct PegNetwork {
    chain: ChainId,
    params: Params,
    start: BitcoinStart,
    validators: Vec<Validator>,
    total_power: u64,
    epochs: Vec<Arc<EpochScripts>>,
}

impl PegNetwork {
    /// Returns the peg of a network. Builds the scripts of its epochs, which takes about a second at 11-of-15.
    pub fn new(spec: &ChainSpec) -> Self {
        Self::with_scripts(spec, EpochScripts::build(spec.federation()))
    }

    /// Returns the peg of a network whose scripts are built already, from its federation.
    pub fn with_scripts(spec: &ChainSpec, scripts: EpochScripts) -> Self {
        Self {
            chain: spec.chain_id(),
            params: spec.params().clone(),
            start: spec.bitcoin().clone(),
            validators: spec.validators().to_vec(),
            total_power: spec.total_power(),
            epochs: vec![Arc::new(scripts)],
        }
    }

    /// The chain.
    pub fn chain(&self) -> ChainId {
        self.chain
    }

    /// The parameters.
    pub fn params(&self) -> &Params {
        &self.params
    }

    /// Where the view of Bitcoin starts.
    pub fn start(&self) -> &BitcoinStart {
        &self.start
    }

    /// The scripts of an epoch; `None` if there is no such epoch.
    pub fn scripts(&self, epoch: u32) -> Option<&Arc<EpochScripts>> {
        self.epochs.iter().find(|scripts| scripts.epoch().number() == epoch)
    }

    /// The scripts of the epoch that new outputs belong to.
    pub fn current(&self) -> &Arc<EpochScripts> {
        self.epochs.last().expect("a network has an epoch")
    }

    /// The longest claim window of all epochs, in Bitcoin blocks.
    pub(crate) fn longest_claim_window(&self) -> u16 {
        let windows = self.epochs.iter().map(|scripts| scripts.epoch().timelocks().claim_window);
        windows.max().expect("a network has an epoch")
    }

    /// An epoch that a coin of the peg belongs to.
    pub(crate) fn epoch(&self, number: u32) -> &Epoch {
        self.scripts(number).expect("the peg only holds coins of its epochs").epoch()
    }

    /// The power of a validator; `None` for anyone else.
    pub(crate) fn power(&self, key: &bitcoin::XOnlyPublicKey) -> Option<u64> {
        self.validators.iter().find(|validator| validator.key == *key).map(|validator| validator.power)
    }

    /// The power of all validators together.
    pub(crate) fn total_power(&self) -> u64 {
        self.total_power
    }
}

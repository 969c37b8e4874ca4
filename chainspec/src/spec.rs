//! The chainspec: everything that every node of one network must share, checked.

use std::fmt;
use std::sync::Arc;

use bitcoin::address::{Address, NetworkUnchecked};
use bitcoin::block::Header;
use bitcoin::constants::genesis_block;
use bitcoin::secp256k1::XOnlyPublicKey;
use bitcoin::{Block, Network};

use crate::bitcoin_start::BitcoinStart;
use crate::canonical::ChainSpecHash;
use crate::derived::{self, ChainId};
use crate::devnet;
use crate::epoch::{Epoch, first_duplicate};
use crate::error::{ChainSpecError, EpochError};
use crate::key;
use crate::params::Params;
use crate::peg_out_address::{PegOutAddressError, require_network, to_bitcoin_address, to_causeway_address};
use crate::units::Height;

/// The Bitcoin test networks whose genesis block and address prefixes a Causeway chain can have (DESIGN section 2).
pub const IDENTITIES: [Network; 2] = [Network::Regtest, Network::Signet];

/// The number of the rules that this build runs, the `rules` of every chainspec that it takes. A rule that is added, changed
/// or dropped raises it, so that no chain goes on under other rules than it began with. Chainspecs of rules 0 have no such
/// key.
pub const RULES: u32 = 1;

/// Most validators of a set.
const VALIDATORS_MAX: usize = 256;

/// The built-in networks: name and file.
const BUILT_IN: [(&str, &str); 1] = [("devnet", devnet::TOML)];

/// A validator of set 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validator {
    /// The key that signs its consensus messages (BIP340).
    pub key: XOnlyPublicKey,
    /// Its voting power, at least 1. The sum over all is at most 2^60.
    pub power: u64,
}

/// What a chainspec is made of. [`ChainSpec::new`] checks it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChainSpecParts {
    /// Name of the network: 1 to 32 of `a`-`z`, `0`-`9` and `-`.
    pub name: String,
    /// Random bytes, so that a relaunched network is another chain.
    pub launch: [u8; 32],
    /// Time of block 1 in seconds since 1970: after block 0's, at most 4,000,000,000.
    pub genesis_time: u32,
    /// Validator set 1. The order does not matter.
    pub validators: Vec<Validator>,
    /// The constants that the validity rules read.
    pub params: Params,
    /// Epoch 1 of the federation.
    pub federation: Epoch,
    /// Where the chain's view of Bitcoin starts.
    pub bitcoin: BitcoinStart,
}

/// A chainspec: everything that every node of one network must share.
///
/// A value of this type has passed every check. It also holds the blocks derived from it (about 40 kB, shared by
/// clones).
#[derive(Clone, PartialEq, Eq)]
pub struct ChainSpec {
    parts: ChainSpecParts,
    hash: ChainSpecHash,
    chain_id: ChainId,
    derived: Arc<[Block]>,
}

impl fmt::Debug for ChainSpec {
    /// Leaves out the derived blocks, which follow from the parts and fill pages.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ChainSpec { parts, hash, chain_id, derived: _ } = self;
        f.debug_struct("ChainSpec")
            .field("parts", parts)
            .field("hash", hash)
            .field("chain_id", chain_id)
            .finish_non_exhaustive()
    }
}

impl ChainSpec {
    /// The chainspec of these parts. Sorts the validators by key and derives blocks 0 to 100 (about 200 hashes).
    ///
    /// # Errors
    ///
    /// The first rule that is broken. Validators are named by their position in `parts`.
    pub fn new(mut parts: ChainSpecParts) -> Result<ChainSpec, ChainSpecError> {
        check_name(&parts.name)?;
        check_identity(parts.params.identity)?;
        check_genesis_time(parts.params.identity, parts.genesis_time)?;
        check_validators(&parts.validators)?;
        if parts.federation.number() != 1 {
            return Err(EpochError::NotFirst { got: parts.federation.number() }.into());
        }
        parts.params.check(&parts.federation)?;

        parts.validators.sort_by_key(|validator| validator.key.serialize());
        let hash = ChainSpecHash::of(&parts);
        let derived = derived::derive(&parts, hash);
        let chain_id = ChainId::of(&derived);
        Ok(ChainSpec { parts, hash, chain_id, derived: derived.into() })
    }

    /// The chainspec that a TOML file holds. `specs/devnet.toml` is the example with every key.
    ///
    /// # Errors
    ///
    /// The text is not TOML, its chain began under other rules than [`RULES`], a key is unknown, missing or of the wrong
    /// type, or a rule is broken.
    pub fn from_toml(text: &str) -> Result<ChainSpec, ChainSpecError> {
        ChainSpec::new(crate::toml_read::read(text)?)
    }

    /// The chainspec of a network that comes with this program: `devnet`.
    ///
    /// # Errors
    ///
    /// There is none of this name; the error lists those there are.
    pub fn built_in(name: &str) -> Result<ChainSpec, ChainSpecError> {
        match BUILT_IN.iter().find(|(built_in, _)| *built_in == name) {
            Some((_, toml)) => ChainSpec::from_toml(toml),
            None => Err(ChainSpecError::UnknownBuiltIn {
                name: name.to_owned(),
                built_in: BUILT_IN.iter().map(|(built_in, _)| *built_in).collect(),
            }),
        }
    }

    /// The chainspec as a commented TOML file, which reads back as the same chainspec. Equal chainspecs give equal text.
    pub fn to_toml(&self) -> String {
        crate::toml_write::write(&self.parts)
    }

    /// What the chainspec is made of, to change and to build another one from.
    pub fn to_parts(&self) -> ChainSpecParts {
        self.parts.clone()
    }

    /// The canonical hash of the chainspec, to which the coinbase of every derived block commits.
    pub fn hash(&self) -> ChainSpecHash {
        self.hash
    }

    /// The identity of the chain: the hash of block 1.
    pub fn chain_id(&self) -> ChainId {
        self.chain_id
    }

    /// The block that the chainspec fixes at this height, 0 to 100; `None` above.
    pub fn derived_block(&self, height: Height) -> Option<Block> {
        self.derived.get(usize::try_from(height.0).ok()?).cloned()
    }

    /// The header of the block that the chainspec fixes at this height, 0 to 100; `None` above.
    pub fn derived_header(&self, height: Height) -> Option<Header> {
        Some(self.derived.get(usize::try_from(height.0).ok()?)?.header)
    }

    /// The name of the network, for people and directories. The chain id tells networks apart.
    pub fn name(&self) -> &str {
        &self.parts.name
    }

    /// The Bitcoin test network whose genesis block and address prefixes the chain has: regtest or signet.
    pub fn identity(&self) -> Network {
        self.parts.params.identity
    }

    /// The random bytes of this launch.
    pub fn launch(&self) -> [u8; 32] {
        self.parts.launch
    }

    /// The time of block 1 in seconds since 1970.
    pub fn genesis_time(&self) -> u32 {
        self.parts.genesis_time
    }

    /// The constants that the validity rules read.
    pub fn params(&self) -> &Params {
        &self.parts.params
    }

    /// Validator set 1, sorted by key.
    pub fn validators(&self) -> &[Validator] {
        &self.parts.validators
    }

    /// The voting power of validator set 1, 1 to 2^60.
    pub fn total_power(&self) -> u64 {
        self.parts.validators.iter().map(|validator| validator.power).sum()
    }

    /// Epoch 1 of the federation.
    pub fn federation(&self) -> &Epoch {
        &self.parts.federation
    }

    /// Where the chain's view of Bitcoin starts.
    pub fn bitcoin(&self) -> &BitcoinStart {
        &self.parts.bitcoin
    }

    /// The address to pay on this chain so that the peg pays `bitcoin`.
    ///
    /// # Errors
    ///
    /// The address belongs to another network than the one the peg stands on, or is none that the peg pays.
    pub fn peg_out_address(&self, bitcoin: Address<NetworkUnchecked>) -> Result<Address, PegOutAddressError> {
        let bitcoin = require_network(bitcoin, self.bitcoin().network())?;
        to_causeway_address(&bitcoin, self.identity())
    }

    /// The Bitcoin address that the peg pays when `causeway` is paid on this chain.
    ///
    /// # Errors
    ///
    /// The address belongs to another network than the chain's identity, or is no peg-out request.
    pub fn peg_out_payee(&self, causeway: Address<NetworkUnchecked>) -> Result<Address, PegOutAddressError> {
        let causeway = require_network(causeway, self.identity())?;
        to_bitcoin_address(&causeway, self.bitcoin().network())
    }
}

fn check_name(name: &str) -> Result<(), ChainSpecError> {
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    if !(1..=32).contains(&name.len()) || !name.bytes().all(allowed) {
        return Err(ChainSpecError::Name { got: name.to_owned() });
    }
    Ok(())
}

fn check_identity(identity: Network) -> Result<(), ChainSpecError> {
    if !IDENTITIES.contains(&identity) {
        return Err(ChainSpecError::NotOneOf {
            key: key::IDENTITY,
            got: identity.to_string(),
            allowed: key::names::IDENTITIES,
        });
    }
    Ok(())
}

fn check_genesis_time(identity: Network, genesis_time: u32) -> Result<(), ChainSpecError> {
    key::GENESIS_TIME.check(genesis_time.into())?;
    let block_0 = genesis_block(identity).header.time;
    if genesis_time <= block_0 {
        return Err(ChainSpecError::GenesisTimeTooEarly { got: genesis_time, block_0 });
    }
    Ok(())
}

fn check_validators(validators: &[Validator]) -> Result<(), ChainSpecError> {
    if validators.is_empty() || validators.len() > VALIDATORS_MAX {
        return Err(ChainSpecError::ValidatorCount { got: validators.len(), max: VALIDATORS_MAX });
    }
    for (index, validator) in validators.iter().enumerate() {
        key::POWER.of_entry(index).check(validator.power)?;
    }
    let total: u128 = validators.iter().map(|validator| u128::from(validator.power)).sum();
    if total > u128::from(key::POWER.max) {
        return Err(ChainSpecError::TotalPower { got: total, max: key::POWER.max });
    }
    let keys: Vec<_> = validators.iter().map(|validator| validator.key).collect();
    if let Some((first, second)) = first_duplicate(&keys) {
        return Err(ChainSpecError::DuplicateKey {
            key: key::VALIDATOR_KEY.of_entry(second),
            first: key::VALIDATOR_KEY.of_entry(first),
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests;

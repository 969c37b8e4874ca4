//! Peg-out addresses: how "withdraw to this Bitcoin address" becomes an ordinary payment on Causeway, and the only two
//! meanings that an output of witness version 16 can have (PEG section 1).
//!
//! A Causeway address of witness version 16 on Bitcoin itself would be an output that anyone can take. So the address
//! functions insist on an identity (regtest or signet): no address of theirs is ever valid on Bitcoin's main network.

use bitcoin::address::{Address, NetworkUnchecked};
use bitcoin::{Network, Script, ScriptBuf, WitnessProgram, WitnessVersion};
use thiserror::Error;

use crate::spec::IDENTITIES;

/// The witness program of the reserve coin: `CWRS`.
pub const RESERVE_PROGRAM: [u8; 4] = *b"CWRS";

/// What the witness program of a peg-out request starts with, before the Bitcoin script: `CWPO`.
pub const REQUEST_PREFIX: [u8; 4] = *b"CWPO";

/// The script pubkey of the reserve coin: `OP_16`, then a push of [`RESERVE_PROGRAM`]; 6 bytes.
pub fn reserve_script() -> ScriptBuf {
    witness_v16(&RESERVE_PROGRAM)
}

/// What a script pubkey of witness version 16 is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum PegScript {
    /// The reserve coin.
    Reserve,
    /// A peg-out request, to be paid to this destination on Bitcoin.
    Request(PegOutDestination),
}

impl PegScript {
    /// Reads a script pubkey of witness version 16; `None` for any other script.
    ///
    /// Witness version 16 means the exact form of BIP141: `OP_16`, one direct push of 2 to 40 bytes, nothing after it.
    ///
    /// # Errors
    ///
    /// The script is of witness version 16 and neither the reserve's nor a request's: an output that no transaction
    /// may create.
    pub fn of(script: &Script) -> Option<Result<PegScript, PegScriptError>> {
        if script.witness_version() != Some(WitnessVersion::V16) {
            return None;
        }
        let program = script.as_bytes().get(2..)?;
        Some(match program.strip_prefix(&REQUEST_PREFIX) {
            Some(destination) => PegOutDestination::from_bitcoin_script(Script::from_bytes(destination))
                .map(PegScript::Request)
                .map_err(PegScriptError::Destination),
            None if program == RESERVE_PROGRAM => Ok(PegScript::Reserve),
            None => Err(PegScriptError::UnknownProgram { length: program.len() }),
        })
    }
}

/// Why a script pubkey of witness version 16 may not be created.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum PegScriptError {
    /// The program is neither `CWRS` nor `CWPO` and a script.
    #[error(
        "a witness program of version 16 ({length} bytes) that is neither the reserve (CWRS) nor a peg-out request (CWPO)"
    )]
    UnknownProgram {
        /// Length of the program in bytes, 2 to 40.
        length: usize,
    },
    /// The program is a request, to a script that the peg never pays.
    #[error("a peg-out request that could never be paid")]
    Destination(#[source] PegOutAddressError),
}

/// A Bitcoin script pubkey that the peg pays: P2PKH, P2SH, P2WPKH, P2WSH or P2TR, 22 to 34 bytes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PegOutDestination(ScriptBuf);

impl PegOutDestination {
    /// The destination with exactly this script pubkey.
    ///
    /// Only the form is judged. A P2TR program that is no point of the curve has the form, as it has on Bitcoin.
    ///
    /// # Errors
    ///
    /// The script has none of the five forms: which other form it has.
    pub fn from_bitcoin_script(script: &Script) -> Result<PegOutDestination, PegOutAddressError> {
        if script.is_p2pkh() || script.is_p2sh() || script.is_p2wpkh() || script.is_p2wsh() || script.is_p2tr() {
            return Ok(PegOutDestination(script.to_owned()));
        }
        Err(match script.witness_version() {
            Some(WitnessVersion::V1) if script.as_bytes() == PAY_TO_ANCHOR => PegOutAddressError::PayToAnchor,
            Some(version) => {
                PegOutAddressError::WitnessProgram { version: version.to_num(), length: script.len().saturating_sub(2) }
            }
            None if script.is_empty() => PegOutAddressError::Empty,
            None if script.is_op_return() => PegOutAddressError::OpReturn,
            None if script.is_p2pk() => PegOutAddressError::PayToPublicKey,
            None if script.is_multisig() => PegOutAddressError::BareMultisig,
            None => PegOutAddressError::NonStandard { length: script.len() },
        })
    }

    /// The script pubkey on Bitcoin.
    pub fn script(&self) -> &Script {
        &self.0
    }

    /// The script pubkey on Causeway of a request to this destination: `OP_16`, then a push of `CWPO` and the script;
    /// 28 to 40 bytes.
    pub fn to_script_pubkey(&self) -> ScriptBuf {
        let mut program = REQUEST_PREFIX.to_vec();
        program.extend_from_slice(self.0.as_bytes());
        witness_v16(&program)
    }
}

/// BIP433: `OP_1`, then a push of `4e73`.
const PAY_TO_ANCHOR: [u8; 4] = [0x51, 0x02, 0x4e, 0x73];

/// Every program made here has 4 bytes, or 4 and a script of at most 34.
fn witness_v16(program: &[u8]) -> ScriptBuf {
    let program = WitnessProgram::new(WitnessVersion::V16, program).expect("4 to 38 bytes are a witness program");
    ScriptBuf::new_witness_program(&program)
}

/// The address to pay on Causeway so that the peg pays `bitcoin`.
///
/// `chain` is the chainspec's identity, whose prefix the address has. The network of `bitcoin` was checked by whoever
/// made it a checked address; [`ChainSpec::peg_out_address`](crate::ChainSpec::peg_out_address) checks both.
///
/// # Errors
///
/// The address has none of the five forms, or `chain` is no identity.
pub fn to_causeway_address(bitcoin: &Address, chain: Network) -> Result<Address, PegOutAddressError> {
    if !IDENTITIES.contains(&chain) {
        return Err(PegOutAddressError::NotAnIdentity { network: chain });
    }
    let destination = PegOutDestination::from_bitcoin_script(&bitcoin.script_pubkey())?;
    Ok(causeway_address(&destination, chain))
}

/// The address on the Bitcoin network `parent` that the peg pays when `causeway` is paid: the inverse of
/// [`to_causeway_address`].
///
/// # Errors
///
/// The address is no peg-out request: an ordinary Causeway address, the reserve, or a request to a script that is
/// never paid.
pub fn to_bitcoin_address(causeway: &Address, parent: Network) -> Result<Address, PegOutAddressError> {
    match PegScript::of(&causeway.script_pubkey()) {
        Some(Ok(PegScript::Request(destination))) => Ok(bitcoin_address(&destination, parent)),
        Some(Err(PegScriptError::Destination(reason))) => Err(reason),
        Some(Ok(PegScript::Reserve) | Err(PegScriptError::UnknownProgram { .. })) | None => {
            Err(PegOutAddressError::NotARequest)
        }
    }
}

/// The address of a request to `destination` on a chain whose identity is `chain`.
fn causeway_address(destination: &PegOutDestination, chain: Network) -> Address {
    Address::from_script(&destination.to_script_pubkey(), chain).expect("a witness program has an address")
}

/// The address of `destination` on a Bitcoin network.
fn bitcoin_address(destination: &PegOutDestination, parent: Network) -> Address {
    Address::from_script(destination.script(), parent).expect("each of the five forms has an address")
}

/// `address`, if it belongs to `required`.
///
/// Test networks share prefixes: every one of them has the same P2PKH and P2SH prefixes, and testnet4 and signet the
/// same bech32 prefix `tb`. What shares a prefix cannot be told apart.
///
/// # Errors
///
/// The address belongs to another network.
pub(crate) fn require_network(
    address: Address<NetworkUnchecked>,
    required: Network,
) -> Result<Address, PegOutAddressError> {
    address.require_network(required).map_err(|_| PegOutAddressError::WrongNetwork { required })
}

/// Why an address or a script is no destination of a peg-out.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum PegOutAddressError {
    /// The script is empty: anyone could take the payout.
    #[error("an empty script pubkey: anyone could take the payout")]
    Empty,
    /// The script starts with OP_RETURN: the payout would be destroyed.
    #[error("an OP_RETURN script pubkey: the payout would be destroyed")]
    OpReturn,
    /// Pay to anchor (BIP433): anyone could take the payout.
    #[error("a pay-to-anchor address: anyone could take the payout")]
    PayToAnchor,
    /// A bare public key, which has no address.
    #[error("a bare public key: give the address of the key (P2PKH, P2WPKH or P2TR)")]
    PayToPublicKey,
    /// A bare multisig script, which has no address.
    #[error("a bare multisig script: give its P2SH or P2WSH address")]
    BareMultisig,
    /// A witness program of another version or length than P2WPKH, P2WSH and P2TR.
    #[error(
        "witness version {version} with a program of {length} bytes: only version 0 with 20 or 32 bytes and version 1 with 32 are paid"
    )]
    WitnessProgram {
        /// Witness version, 0 to 16.
        version: u8,
        /// Length of the program in bytes, 2 to 40.
        length: usize,
    },
    /// Any other script.
    #[error("a script pubkey of {length} bytes that is none of P2PKH, P2SH, P2WPKH, P2WSH and P2TR")]
    NonStandard {
        /// Length of the script in bytes.
        length: usize,
    },
    /// The address belongs to another network.
    #[error("the address does not belong to {required}")]
    WrongNetwork {
        /// The network it has to belong to.
        required: Network,
    },
    /// A Causeway address was asked for on a network that no Causeway chain takes its prefix from.
    #[error("{network} is no identity of a Causeway chain: regtest or signet")]
    NotAnIdentity {
        /// The network asked for.
        network: Network,
    },
    /// The Causeway address is valid and asks for no peg-out.
    #[error("the address is no peg-out request: paying it pays someone on Causeway")]
    NotARequest,
}

#[cfg(test)]
mod tests;

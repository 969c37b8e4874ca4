//! Standard forms (Bitcoin Core: `IsStandardTx`, `ValidateInputsStandardness`, `IsWitnessStandard`).

use bitcoin::blockdata::script::Instruction;
use bitcoin::opcodes::all::{OP_CHECKMULTISIG, OP_CHECKSIG, OP_PUSHNUM_1, OP_PUSHNUM_16, OP_RETURN};
use bitcoin::{Amount, Opcode, Script, Transaction, TxOut, Witness};
use causeway_chainspec::SatPerKvb;
use causeway_consensus::Coin;
use causeway_consensus::coin::is_unspendable;
use causeway_consensus::sigops;
use causeway_consensus::spend::check_legacy_sigops;

use super::feerate::fee_at;
use super::policy::{
    BareMultisig, MAX_DUST_OUTPUTS, MAX_P2SH_SIGOPS, MAX_P2WSH_SCRIPT_BYTES, MAX_P2WSH_STACK_ITEMS,
    MAX_SCRIPTSIG_BYTES, MAX_STACK_ITEM_BYTES, MAX_STANDARD_TX_WEIGHT, MIN_STANDARD_TX_BYTES, Policy,
    STANDARD_VERSIONS,
};
use super::reject::{NonstandardInput, PolicyReject};

/// BIP-0433: `OP_1`, then a push of `4e73`.
const PAY_TO_ANCHOR: [u8; 4] = [0x51, 0x02, 0x4e, 0x73];

/// The first byte of a Taproot annex (BIP-0341).
const ANNEX_TAG: u8 = 0x50;

/// What a leaf version is, of a control block's first byte (BIP-0341).
const LEAF_MASK: u8 = 0xfe;

/// The leaf version of tapscript (BIP-0342).
pub(crate) const TAPSCRIPT: u8 = 0xc0;

/// The most keys of a multisig (Core: `MAX_PUBKEYS_PER_MULTISIG`).
const MAX_MULTISIG_KEYS: usize = 20;

/// The form of a script pubkey (Core: `TxoutType`, `Solver`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ScriptForm<'a> {
    /// A bare key.
    P2pk(&'a [u8]),
    /// A key's hash.
    P2pkh,
    /// A script's hash.
    P2sh,
    /// `required` of `keys`, bare.
    Multisig {
        /// How many signatures.
        required: usize,
        /// How many keys.
        keys: usize,
    },
    /// OP_RETURN and pushes.
    NullData,
    /// Witness version 0, a key's hash.
    P2wpkh,
    /// Witness version 0, a script's hash.
    P2wsh,
    /// Witness version 1, a key.
    P2tr,
    /// Witness version 1, `4e73`.
    Anchor,
    /// Another witness program, a peg-out request among them.
    WitnessUnknown,
    /// None of these.
    Nonstandard,
}

impl<'a> ScriptForm<'a> {
    /// Returns the form of a script.
    pub fn of(script: &'a Script) -> Self {
        if script.is_p2sh() {
            return Self::P2sh;
        }
        if let Some(version) = script.witness_version() {
            return match version.to_num() {
                0 if script.is_p2wpkh() => Self::P2wpkh,
                0 if script.is_p2wsh() => Self::P2wsh,
                0 => Self::Nonstandard,
                _ if script.is_p2tr() => Self::P2tr,
                _ if script.as_bytes() == PAY_TO_ANCHOR => Self::Anchor,
                _ => Self::WitnessUnknown,
            };
        }
        match script.as_bytes() {
            [first, rest @ ..] if *first == OP_RETURN.to_u8() && Script::from_bytes(rest).is_push_only() => {
                Self::NullData
            }
            [length, key @ .., last]
                if usize::from(*length) == key.len() && *last == OP_CHECKSIG.to_u8() && is_key(key) =>
            {
                Self::P2pk(key)
            }
            _ if script.is_p2pkh() => Self::P2pkh,
            _ => multisig_keys(script)
                .map_or(Self::Nonstandard, |(required, keys)| Self::Multisig { required, keys: keys.len() }),
        }
    }
}

/// Whether the length is what the first byte asks for (Core: `CPubKey::ValidSize`).
fn is_key(bytes: &[u8]) -> bool {
    matches!((bytes.first(), bytes.len()), (Some(2 | 3), 33) | (Some(4 | 6 | 7), 65))
}

/// Returns the number of signatures and the keys of `m key.. n CHECKMULTISIG` (Core: `MatchMultisig`).
pub(crate) fn multisig_keys(script: &Script) -> Option<(usize, Vec<&[u8]>)> {
    if script.as_bytes().last() != Some(&OP_CHECKMULTISIG.to_u8()) {
        return None;
    }
    let mut instructions = script.instructions();
    let required = small_number(&instructions.next()?.ok()?)?;
    let mut keys = Vec::new();
    let number = loop {
        match instructions.next()?.ok()? {
            Instruction::PushBytes(key) if is_key(key.as_bytes()) => keys.push(key.as_bytes()),
            number => break small_number(&number)?,
        }
    };
    let last = instructions.next()?.ok()?;
    let complete = instructions.next().is_none() && last == Instruction::Op(OP_CHECKMULTISIG);
    (complete && number == keys.len() && required <= number).then_some((required, keys))
}

/// 1 to 20, pushed as short as it can be.
fn small_number(instruction: &Instruction<'_>) -> Option<usize> {
    match instruction {
        Instruction::Op(opcode) => op_number(*opcode),
        Instruction::PushBytes(bytes) => match bytes.as_bytes() {
            [number] => Some(usize::from(*number)).filter(|number| (17..=MAX_MULTISIG_KEYS).contains(number)),
            _ => None,
        },
    }
}

/// The number that OP_1 to OP_16 push.
fn op_number(opcode: Opcode) -> Option<usize> {
    let number = (OP_PUSHNUM_1.to_u8()..=OP_PUSHNUM_16.to_u8()).contains(&opcode.to_u8());
    number.then(|| usize::from(opcode.to_u8() - OP_PUSHNUM_1.to_u8()) + 1)
}

/// Returns the value below which an output is dust: what spending it costs at the dust feerate (Core:
/// `GetDustThreshold`). 546 sat for P2PKH, 294 for P2WPKH, 330 for P2TR at 3,000 sat/kvB.
pub fn dust_threshold(output: &TxOut, dust_relay: SatPerKvb) -> Amount {
    if is_unspendable(&output.script_pubkey) {
        return Amount::ZERO;
    }
    // Outpoint, length of the scriptSig, signature and key, sequence; in a witness the 107 bytes count a quarter.
    let input = if output.script_pubkey.is_witness_program() { 32 + 4 + 1 + 107 / 4 + 4 } else { 32 + 4 + 1 + 107 + 4 };
    fee_at(dust_relay, output.size() as u64 + input)
}

/// Returns the numbers of the outputs that are dust (Core: `GetDust`).
pub(super) fn dust_outputs(transaction: &Transaction, dust_relay: SatPerKvb) -> impl Iterator<Item = u32> {
    let is_dust = move |output: &TxOut| output.value < dust_threshold(output, dust_relay);
    (0..).zip(&transaction.output).filter(move |(_, output)| is_dust(output)).map(|(vout, _)| vout)
}

/// Checks the form of a transaction alone. `base_size` is its size without witnesses, in bytes.
///
/// # Errors
/// The first thing that is not standard, in Core's order.
pub fn check_form(transaction: &Transaction, base_size: usize, policy: &Policy) -> Result<(), PolicyReject> {
    if !STANDARD_VERSIONS.contains(&transaction.version.0) {
        return Err(PolicyReject::Version);
    }
    if transaction.weight() > MAX_STANDARD_TX_WEIGHT {
        return Err(PolicyReject::TooLarge);
    }
    for input in &transaction.input {
        if input.script_sig.len() > MAX_SCRIPTSIG_BYTES {
            return Err(PolicyReject::ScriptSigSize);
        }
        if !input.script_sig.is_push_only() {
            return Err(PolicyReject::ScriptSigNotPushOnly);
        }
    }
    let mut datacarrier_left = policy.max_datacarrier_bytes;
    for output in &transaction.output {
        match ScriptForm::of(&output.script_pubkey) {
            ScriptForm::Nonstandard | ScriptForm::Multisig { keys: 4.., .. } => return Err(PolicyReject::ScriptPubkey),
            ScriptForm::NullData => {
                let left = datacarrier_left.checked_sub(output.script_pubkey.len());
                datacarrier_left = left.ok_or(PolicyReject::Datacarrier)?;
            }
            ScriptForm::Multisig { .. } if policy.bare_multisig == BareMultisig::Refused => {
                return Err(PolicyReject::BareMultisig);
            }
            _ => {}
        }
    }
    if dust_outputs(transaction, policy.dust_relay).nth(MAX_DUST_OUTPUTS).is_some() {
        return Err(PolicyReject::Dust);
    }
    if base_size < MIN_STANDARD_TX_BYTES {
        return Err(PolicyReject::TooSmall);
    }
    Ok(())
}

/// Checks what a transaction spends, outside of witnesses: one coin for each input, in their order.
///
/// # Errors
/// The first thing that is not standard.
pub fn check_inputs(transaction: &Transaction, coins: &[Coin]) -> Result<(), NonstandardInput> {
    // A rule of blocks too. Here it has Core's name, which knows it as policy only.
    check_legacy_sigops(transaction, coins.iter()).map_err(|_| NonstandardInput::LegacySigops)?;
    let scripts = coins.iter().map(|coin| coin.output.script_pubkey.as_script());
    for (input, (txin, script)) in transaction.input.iter().zip(scripts).enumerate() {
        match ScriptForm::of(script) {
            ScriptForm::Nonstandard => return Err(NonstandardInput::Unknown { input }),
            ScriptForm::WitnessUnknown => return Err(NonstandardInput::UndefinedProgram { input }),
            ScriptForm::P2sh => {
                let redeem = sigops::last_push(&txin.script_sig).filter(|_| !txin.script_sig.is_empty());
                let redeem = redeem.ok_or(NonstandardInput::RedeemScriptMissing { input })?;
                let count = sigops::accurate(redeem);
                if count > MAX_P2SH_SIGOPS {
                    return Err(NonstandardInput::RedeemScriptSigops { input, count });
                }
            }
            _ => {}
        }
    }
    Ok(())
}

/// Checks the witnesses of a transaction: one coin for each input, in their order.
///
/// # Errors
/// [`PolicyReject::NonstandardWitness`].
pub fn check_witnesses(transaction: &Transaction, coins: &[Coin]) -> Result<(), PolicyReject> {
    let standard = transaction.input.iter().zip(coins).all(|(input, coin)| {
        let script = coin.output.script_pubkey.as_script();
        let nested = script.is_p2sh();
        let program = if nested { sigops::last_push(&input.script_sig) } else { Some(script) };
        input.witness.is_empty() || program.is_some_and(|program| is_standard_witness(program, nested, &input.witness))
    });
    if standard { Ok(()) } else { Err(PolicyReject::NonstandardWitness) }
}

/// Whether a witness that is not empty is within the limits of its program.
fn is_standard_witness(program: &Script, nested: bool, witness: &Witness) -> bool {
    match ScriptForm::of(program) {
        ScriptForm::P2wsh => {
            let (items, script) = (witness.len() - 1, witness.last().unwrap_or_default());
            script.len() <= MAX_P2WSH_SCRIPT_BYTES
                && items <= MAX_P2WSH_STACK_ITEMS
                && witness.iter().take(items).all(|item| item.len() <= MAX_STACK_ITEM_BYTES)
        }
        ScriptForm::P2tr if !nested => match TaprootSpend::of(witness) {
            TaprootSpend::Annex => false,
            TaprootSpend::KeyPath => true,
            TaprootSpend::ScriptPath { leaf_version: None, .. } => false,
            TaprootSpend::ScriptPath { leaf_version: Some(TAPSCRIPT), .. } => {
                witness.iter().take(witness.len() - 2).all(|item| item.len() <= MAX_STACK_ITEM_BYTES)
            }
            TaprootSpend::ScriptPath { .. } => true,
        },
        ScriptForm::Anchor if !nested => false,
        // Core's `IsWitnessProgram` on other programs: whatever else is wrong with them, a witness is not.
        _ => program.is_witness_program(),
    }
}

/// How a Taproot output is spent, by the look of its witness (BIP-0341).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TaprootSpend<'a> {
    /// With an annex, one way or the other.
    Annex,
    /// With at most one element.
    KeyPath,
    /// With a script, and a leaf version unless the control block is empty.
    ScriptPath { script: &'a Script, leaf_version: Option<u8> },
}

impl<'a> TaprootSpend<'a> {
    pub(crate) fn of(witness: &'a Witness) -> Self {
        let Some((script, control)) = witness.second_to_last().zip(witness.last()) else { return Self::KeyPath };
        if control.first() == Some(&ANNEX_TAG) {
            return Self::Annex;
        }
        let leaf_version = control.first().map(|first| first & LEAF_MASK);
        Self::ScriptPath { script: Script::from_bytes(script), leaf_version }
    }
}

//! The verification flags that Core's vectors name, and what a result under some flags says about the result under ours:
//! all consensus flags and no other.

use bitcoin::opcodes::all::{
    OP_CHECKMULTISIG, OP_CHECKMULTISIGVERIFY, OP_CHECKSIG, OP_CHECKSIGVERIFY, OP_CLTV, OP_CSV,
};
use bitcoin::script::Instruction;
use bitcoin::{Opcode, Script, ScriptBuf, TxIn};
use bitcoinkernel::{
    ScriptVerificationFlags, VERIFY_ALL, VERIFY_CHECKLOCKTIMEVERIFY, VERIFY_CHECKSEQUENCEVERIFY, VERIFY_DERSIG,
    VERIFY_NULLDUMMY, VERIFY_P2SH, VERIFY_TAPROOT, VERIFY_WITNESS,
};

/// The rules that are ours too.
const CONSENSUS: [(&str, ScriptVerificationFlags); 7] = [
    ("P2SH", VERIFY_P2SH),
    ("DERSIG", VERIFY_DERSIG),
    ("NULLDUMMY", VERIFY_NULLDUMMY),
    ("CHECKLOCKTIMEVERIFY", VERIFY_CHECKLOCKTIMEVERIFY),
    ("CHECKSEQUENCEVERIFY", VERIFY_CHECKSEQUENCEVERIFY),
    ("WITNESS", VERIFY_WITNESS),
    ("TAPROOT", VERIFY_TAPROOT),
];

/// The rules that are policy, each with all the errors that it can end a script with. Without the flag, a script that
/// ended with another error runs as before (Core: `interpreter.cpp`; these flags only add checks).
const POLICY: [(&str, &[&str]); 14] = [
    ("STRICTENC", &["SIG_DER", "SIG_HASHTYPE", "PUBKEYTYPE"]),
    ("LOW_S", &["SIG_DER", "SIG_HIGH_S"]),
    ("SIGPUSHONLY", &["SIG_PUSHONLY"]),
    ("MINIMALDATA", &["MINIMALDATA", "SCRIPTNUM", "UNKNOWN_ERROR"]),
    ("DISCOURAGE_UPGRADABLE_NOPS", &["DISCOURAGE_UPGRADABLE_NOPS"]),
    ("CLEANSTACK", &["CLEANSTACK"]),
    ("MINIMALIF", &["MINIMALIF"]),
    ("NULLFAIL", &["NULLFAIL"]),
    ("DISCOURAGE_UPGRADABLE_WITNESS_PROGRAM", &["DISCOURAGE_UPGRADABLE_WITNESS_PROGRAM"]),
    ("WITNESS_PUBKEYTYPE", &["WITNESS_PUBKEYTYPE"]),
    ("CONST_SCRIPTCODE", &["OP_CODESEPARATOR", "SIG_FINDANDDELETE"]),
    ("DISCOURAGE_UPGRADABLE_PUBKEYTYPE", &["DISCOURAGE_UPGRADABLE_PUBKEYTYPE"]),
    ("DISCOURAGE_OP_SUCCESS", &["DISCOURAGE_OP_SUCCESS"]),
    ("DISCOURAGE_UPGRADABLE_TAPROOT_VERSION", &["DISCOURAGE_UPGRADABLE_TAPROOT_VERSION"]),
];

/// A set of flags.
#[derive(Debug, Clone)]
pub(crate) struct Flags {
    /// Those that are consensus.
    pub(crate) consensus: ScriptVerificationFlags,
    policy: Vec<(&'static str, &'static [&'static str])>,
}

impl Flags {
    /// Returns the flags of a list with commas.
    pub(crate) fn parse(list: &str) -> Self {
        let mut flags = Self { consensus: 0, policy: vec![] };
        for name in list.split(',').filter(|name| !name.is_empty() && *name != "NONE") {
            if let Some((_, flag)) = CONSENSUS.iter().find(|(known, _)| *known == name) {
                flags.consensus |= flag;
            } else {
                let policy = POLICY.iter().find(|(known, _)| *known == name);
                flags.policy.push(*policy.unwrap_or_else(|| panic!("no flag {name}")));
            }
        }
        flags
    }

    /// Returns every flag that is not among these.
    pub(crate) fn complement(&self) -> Self {
        let policy = POLICY.into_iter().filter(|(name, _)| !self.has_policy(name)).collect();
        Self { consensus: VERIFY_ALL & !self.consensus, policy }
    }

    /// Whether a policy flag is among these.
    pub(crate) fn has_policy(&self, name: &str) -> bool {
        self.policy.iter().any(|(known, _)| *known == name)
    }

    /// Whether any policy flag is among these.
    pub(crate) fn has_any_policy(&self) -> bool {
        !self.policy.is_empty()
    }

    /// Whether a script that ends with `error` under these flags fails under the consensus flags among them, and so
    /// under all consensus flags (a flag more never makes a script valid).
    ///
    /// SIG_DER is DERSIG's error too, which is among ours.
    pub(crate) fn fails_by_consensus(&self, error: &str) -> bool {
        error == "SIG_DER" || !self.policy.iter().any(|(_, errors)| errors.contains(&error))
    }

    /// Returns our flags that are not among these and could change the result of this input.
    pub(crate) fn missing_for(&self, input: &TxIn, script_pubkey: &Script) -> ScriptVerificationFlags {
        let missing = CONSENSUS.iter().filter(|(_, flag)| self.consensus & flag == 0);
        missing.filter(|(name, _)| self.can_matter(name, input, script_pubkey)).fold(0, |all, (_, flag)| all | flag)
    }

    /// Whether a missing consensus flag can change the result. It cannot if what it rules is not there.
    fn can_matter(&self, name: &str, input: &TxIn, script_pubkey: &Script) -> bool {
        let redeem = script_pubkey.is_p2sh().then(|| last_push(&input.script_sig));
        let programs = [Some(script_pubkey), redeem.as_deref()].map(|script| script.filter(|s| s.is_witness_program()));
        let is_program = programs.iter().any(Option::is_some);
        match name {
            "P2SH" => redeem.is_some(),
            "WITNESS" => is_program || !input.witness.is_empty(),
            "TAPROOT" => script_pubkey.is_p2tr(),
            // Core checks the encoding for any of the three.
            "DERSIG" if self.has_policy("STRICTENC") || self.has_policy("LOW_S") => false,
            "DERSIG" => {
                let checks = [OP_CHECKSIG, OP_CHECKSIGVERIFY, OP_CHECKMULTISIG, OP_CHECKMULTISIGVERIFY];
                programs.iter().flatten().any(|program| program.is_p2wpkh())
                    || can_execute(&checks, input, script_pubkey, redeem.as_deref())
            }
            "NULLDUMMY" => {
                let checks = [OP_CHECKMULTISIG, OP_CHECKMULTISIGVERIFY];
                can_execute(&checks, input, script_pubkey, redeem.as_deref())
            }
            "CHECKLOCKTIMEVERIFY" => can_execute(&[OP_CLTV], input, script_pubkey, redeem.as_deref()),
            "CHECKSEQUENCEVERIFY" => can_execute(&[OP_CSV], input, script_pubkey, redeem.as_deref()),
            _ => true,
        }
    }
}

/// Whether one of `opcodes` stands in a script that this input runs. Each witness element counts as a script.
fn can_execute(opcodes: &[Opcode], input: &TxIn, script_pubkey: &Script, redeem: Option<&Script>) -> bool {
    let own = [Some(input.script_sig.as_script()), Some(script_pubkey), redeem].into_iter().flatten();
    own.chain(input.witness.iter().map(Script::from_bytes)).any(|script| {
        // What follows a byte that is no instruction never runs.
        script.instructions().map_while(Result::ok).any(|instruction| match instruction {
            Instruction::Op(opcode) => opcodes.contains(&opcode),
            Instruction::PushBytes(_) => false,
        })
    })
}

/// The last bytes that a scriptSig pushes; a number's one byte is no script of consequence.
fn last_push(script_sig: &Script) -> ScriptBuf {
    match script_sig.instructions().map_while(Result::ok).last() {
        Some(Instruction::PushBytes(bytes)) => ScriptBuf::from_bytes(bytes.as_bytes().to_vec()),
        _ => ScriptBuf::new(),
    }
}

/// Returns the names of consensus flags.
pub(crate) fn names(flags: ScriptVerificationFlags) -> String {
    let present = CONSENSUS.iter().filter(|(_, flag)| flags & flag != 0);
    present.map(|(name, _)| *name).collect::<Vec<_>>().join(" and ")
}

/// Returns `flags` without each one of them in turn, and without what cannot be without it.
pub(crate) fn without_each(flags: ScriptVerificationFlags) -> Vec<ScriptVerificationFlags> {
    let present = CONSENSUS.iter().filter(|(_, flag)| flags & flag != 0);
    present.map(|(_, flag)| trim(flags & !flag)).collect()
}

/// Returns the flags without WITNESS if P2SH is not among them, which Core does not run.
pub(crate) fn trim(flags: ScriptVerificationFlags) -> ScriptVerificationFlags {
    if flags & VERIFY_P2SH == 0 { flags & !VERIFY_WITNESS } else { flags }
}

/// Returns the flags with P2SH if WITNESS is among them.
pub(crate) fn fill(flags: ScriptVerificationFlags) -> ScriptVerificationFlags {
    if flags & VERIFY_WITNESS != 0 { flags | VERIFY_P2SH } else { flags }
}

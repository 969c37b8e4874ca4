//! The script notation of Core's vectors (Core: `ParseScript` in `core_io.cpp`).

use bitcoin::hex::FromHex;
use bitcoin::script::{Builder, PushBytesBuf};
use bitcoin::{Opcode, ScriptBuf};

/// The names from OP_NOP on, without `OP_`.
const NAMES: &str = "NOP VER IF NOTIF VERIF VERNOTIF ELSE ENDIF VERIFY RETURN TOALTSTACK FROMALTSTACK 2DROP 2DUP 3DUP \
    2OVER 2ROT 2SWAP IFDUP DEPTH DROP DUP NIP OVER PICK ROLL ROT SWAP TUCK CAT SUBSTR LEFT RIGHT SIZE INVERT AND OR XOR \
    EQUAL EQUALVERIFY RESERVED1 RESERVED2 1ADD 1SUB 2MUL 2DIV NEGATE ABS NOT 0NOTEQUAL ADD SUB MUL DIV MOD LSHIFT RSHIFT \
    BOOLAND BOOLOR NUMEQUAL NUMEQUALVERIFY NUMNOTEQUAL LESSTHAN GREATERTHAN LESSTHANOREQUAL GREATERTHANOREQUAL MIN MAX \
    WITHIN RIPEMD160 SHA1 SHA256 HASH160 HASH256 CODESEPARATOR CHECKSIG CHECKSIGVERIFY CHECKMULTISIG \
    CHECKMULTISIGVERIFY NOP1 CHECKLOCKTIMEVERIFY CHECKSEQUENCEVERIFY NOP4 NOP5 NOP6 NOP7 NOP8 NOP9 NOP10";

/// The opcode of the first name.
const FIRST: usize = 0x61;

/// Returns the script that `text` writes: numbers and quoted strings are pushed, `0x...` goes in as it is.
pub(crate) fn parse_script(text: &str) -> ScriptBuf {
    let words = text.split([' ', '\t', '\n']).filter(|word| !word.is_empty());
    let bytes = words.flat_map(|word| {
        if let Some(number) = number(word) {
            Builder::new().push_int(number).into_bytes()
        } else if let Some(hex) = word.strip_prefix("0x") {
            Vec::from_hex(hex).unwrap_or_else(|_| panic!("{word} is not hex"))
        } else if let Some(quoted) = word.strip_prefix('\'').and_then(|rest| rest.strip_suffix('\'')) {
            let data = PushBytesBuf::try_from(quoted.as_bytes().to_vec()).expect("a short string");
            Builder::new().push_slice(data).into_bytes()
        } else {
            vec![opcode(word).to_u8()]
        }
    });
    ScriptBuf::from_bytes(bytes.collect())
}

fn number(word: &str) -> Option<i64> {
    let digits = word.strip_prefix('-').unwrap_or(word);
    let number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    number.then(|| word.parse().expect("a number of at most 64 bits"))
}

fn opcode(word: &str) -> Opcode {
    let name = word.strip_prefix("OP_").unwrap_or(word);
    if name == "RESERVED" {
        return Opcode::from(0x50);
    }
    let place = NAMES.split(' ').position(|other| other == name).unwrap_or_else(|| panic!("no opcode {word}"));
    Opcode::from(u8::try_from(FIRST + place).expect("below 0xba"))
}

#[test]
fn names_have_their_opcodes() {
    use bitcoin::opcodes::all::{OP_CHECKMULTISIGVERIFY, OP_CLTV, OP_EQUAL, OP_NOP, OP_NOP10, OP_TUCK, OP_WITHIN};
    for (name, expected) in [
        ("OP_NOP", OP_NOP),
        ("TUCK", OP_TUCK),
        ("EQUAL", OP_EQUAL),
        ("WITHIN", OP_WITHIN),
        ("CHECKMULTISIGVERIFY", OP_CHECKMULTISIGVERIFY),
        ("CHECKLOCKTIMEVERIFY", OP_CLTV),
        ("NOP10", OP_NOP10),
    ] {
        assert_eq!(opcode(name), expected);
    }
    assert_eq!(parse_script("-1 0 16 17 0x0102 'Az' RESERVED").to_hex_string(), "4f00600111010202417a50");
}

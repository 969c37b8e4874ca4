//! Forms whose verdict is known: that the generator makes what it says, and that the fast path takes what it should.

use causeway_consensus::script::{Judge, Verdict};
use causeway_tests::oracle::{Judged, judge};
use causeway_tests::wallet::Kind;

use crate::build::build;
use crate::plan::{
    Annex, Control, Dress, Form, Input, KeyForm, Leaf, Number, Place, Plan, Program, SchnorrForm, SignatureForm,
};

const VALID_DIRECT: (Verdict, Judge) = (Verdict::Valid, Judge::Direct);
const INVALID_DIRECT: (Verdict, Judge) = (Verdict::Invalid, Judge::Direct);
const VALID_KERNEL: (Verdict, Judge) = (Verdict::Valid, Judge::Kernel);
const INVALID_KERNEL: (Verdict, Judge) = (Verdict::Invalid, Judge::Kernel);

/// Every ECDSA hash type that is special in some way; consensus takes them all.
const ECDSA_TYPES: [u8; 16] =
    [0x00, 0x01, 0x02, 0x03, 0x04, 0x1f, 0x20, 0x23, 0x41, 0x43, 0x80, 0x81, 0x82, 0x83, 0xc3, 0xff];

/// Checks the verdict on `form`, in the second input of three, with this number of outputs.
fn check(form: Form, outputs: usize, expected: (Verdict, Judge)) {
    let input = |form| Input { owner: 1, value: 50_000, vout: 3, sequence: 0xffff_fffd, form };
    let other = || input(Form::Wallet { kind: Kind::P2trKey, hash_type: 0 });
    let plan = Plan {
        version: 2,
        lock_time: 17,
        inputs: vec![other(), input(form.clone()), other()],
        outputs: vec![(20_000, vec![0x51]); outputs],
        alterations: vec![],
    };
    let (transaction, spent) = build(&plan);
    let (verdict, by) = expected;
    let judged = judge(&transaction, &spent);
    assert_eq!(judged[1], Judged { ours: verdict, judge: by, core: verdict }, "{form:?}, {outputs} outputs");
    for other in [judged[0], judged[2]] {
        assert_eq!(other, Judged { ours: Verdict::Valid, judge: Judge::Direct, core: Verdict::Valid });
    }
}

fn key_hash(place: Place, key: KeyForm, signature: SignatureForm, hash_type: u8, dress: Dress) -> Form {
    Form::KeyHash { place, key, signature, hash_type, dress }
}

fn key_path(signature: SchnorrForm, hash_type: u8, annex: Annex) -> Form {
    Form::KeyPath { program: Program::Key, signature, hash_type, annex, dress: Dress::Plain }
}

fn script_path(leaf: Leaf, version: u8, path: usize) -> Form {
    Form::ScriptPath { leaf, version, path, control: Control::Right, hash_type: 0, annex: Annex::None }
}

#[test]
fn every_hash_type_and_key_form_of_key_hashes() {
    for place in [Place::P2wpkh, Place::P2pkh] {
        let form = |key, signature, hash_type| key_hash(place, key, signature, hash_type, Dress::Plain);
        for hash_type in ECDSA_TYPES {
            // With an output for the input, and without.
            for outputs in [2, 1, 0] {
                check(form(KeyForm::Compressed, SignatureForm::Right, hash_type), outputs, VALID_DIRECT);
            }
        }
        for signature in [SignatureForm::Right, SignatureForm::HighS] {
            check(form(KeyForm::Uncompressed, signature.clone(), 1), 2, VALID_DIRECT);
            check(form(KeyForm::Hybrid { right: true }, signature.clone(), 1), 2, VALID_DIRECT);
            check(form(KeyForm::Hybrid { right: false }, signature.clone(), 1), 2, INVALID_DIRECT);
            check(form(KeyForm::Other, signature.clone(), 1), 2, INVALID_DIRECT);
            for (uncompressed, head) in [(false, 4), (false, 5), (true, 2), (true, 5), (true, 8), (true, 0)] {
                check(form(KeyForm::Head { uncompressed, head }, signature.clone(), 1), 2, INVALID_DIRECT);
            }
            for bytes in [1, 32, 34, 64, 65, 66, 75] {
                let key = KeyForm::Length { uncompressed: false, bytes };
                check(form(key, signature.clone(), 1), 2, INVALID_DIRECT);
            }
        }
        check(form(KeyForm::Compressed, SignatureForm::OtherHashType(2), 1), 2, INVALID_DIRECT);
    }
}

#[test]
fn encodings_of_ecdsa_signatures() {
    for place in [Place::P2wpkh, Place::P2pkh] {
        let form = |signature| key_hash(place, KeyForm::Compressed, signature, 1, Dress::Plain);
        let empty = if matches!(place, Place::P2pkh) { INVALID_KERNEL } else { INVALID_DIRECT };
        check(form(SignatureForm::Empty), 2, empty);
        for signature in [
            SignatureForm::Padded { r: 1, s: 0 },
            SignatureForm::Padded { r: 0, s: 2 },
            SignatureForm::Trailing { bytes: vec![1], counted: true },
            SignatureForm::Trailing { bytes: vec![1], counted: false },
            SignatureForm::LongLength,
            SignatureForm::NoHashType,
            SignatureForm::OnlyHashType,
        ] {
            check(form(signature), 2, INVALID_DIRECT);
        }
        let numbers = [
            Number::NoBytes,
            Number::Zero,
            Number::One,
            Number::Negative,
            Number::Order,
            Number::OrderLessOne,
            Number::PlusOrder,
            Number::Large(32),
            Number::Large(33),
        ];
        for number in numbers {
            check(form(SignatureForm::Numbers { r: Some(number), s: None }), 2, INVALID_DIRECT);
            check(form(SignatureForm::Numbers { r: None, s: Some(number) }), 2, INVALID_DIRECT);
        }
    }
}

#[test]
fn only_two_direct_pushes_are_direct() {
    let form = |dress| key_hash(Place::P2pkh, KeyForm::Compressed, SignatureForm::Right, 1, dress);
    for pushes in [[1, 0], [0, 1], [2, 2], [4, 4]] {
        check(form(Dress::Pushes(pushes)), 2, VALID_KERNEL);
    }
    check(form(Dress::First(vec![7])), 2, VALID_KERNEL);
    check(form(Dress::Code(vec![0x61])), 2, VALID_KERNEL); // OP_NOP
    check(form(Dress::Last(vec![7])), 2, INVALID_KERNEL);
    check(form(Dress::OtherSide(vec![7])), 2, INVALID_KERNEL);
    check(form(Dress::Swapped), 2, INVALID_DIRECT);
    let form = |dress| key_hash(Place::P2wpkh, KeyForm::Compressed, SignatureForm::Right, 1, dress);
    for dress in [Dress::First(vec![7]), Dress::Last(vec![]), Dress::WithoutFirst, Dress::WithoutLast, Dress::Nothing] {
        check(form(dress), 2, INVALID_DIRECT);
    }
    check(form(Dress::OtherSide(vec![0x61])), 2, INVALID_DIRECT);
}

/// A signature as long as a key hash could be in the script that it signs, from which Core would remove it.
#[test]
fn small_signatures_over_the_number_one() {
    let form = |r_bytes, s_bytes, hash_type| Form::SmallSignature { r_bytes, s_bytes, hash_type, nested: false };
    for hash_type in [0x03, 0x83, 0x43, 0xe3] {
        check(form(1, 1, hash_type), 0, VALID_DIRECT);
        check(form(6, 7, hash_type), 0, VALID_KERNEL);
        check(form(32, 32, hash_type), 0, VALID_DIRECT);
        // There the output is, so the message is another.
        check(form(1, 1, hash_type), 2, INVALID_DIRECT);
    }
    check(form(6, 7, 1), 0, INVALID_KERNEL);
    check(Form::SmallSignature { r_bytes: 6, s_bytes: 7, hash_type: 3, nested: true }, 0, VALID_KERNEL);
}

#[test]
fn every_hash_type_of_the_key_path() {
    for hash_type in 0..=u8::MAX {
        let allowed = matches!(hash_type, 0..=3 | 0x81..=0x83);
        for annex in [Annex::None, Annex::Tagged(vec![1])] {
            let expected = if allowed { VALID_DIRECT } else { INVALID_DIRECT };
            check(key_path(SchnorrForm::Right, hash_type, annex.clone()), 2, expected);
            let expected = if allowed && hash_type & 3 != 3 { VALID_DIRECT } else { INVALID_DIRECT };
            check(key_path(SchnorrForm::Right, hash_type, annex), 1, expected);
        }
    }
    for written in [vec![0], vec![1], vec![0, 0], vec![0x50]] {
        check(key_path(SchnorrForm::Written(written), 0, Annex::None), 2, INVALID_DIRECT);
    }
    check(key_path(SchnorrForm::Written(vec![]), 1, Annex::None), 2, INVALID_DIRECT);
}

#[test]
fn annexes_and_programs_of_the_key_path() {
    for bytes in [0, 1, 251, 252, 253, 600, 70_000] {
        check(key_path(SchnorrForm::Right, 0, Annex::Tagged(vec![0x50; bytes])), 2, VALID_DIRECT);
        check(key_path(SchnorrForm::OtherAnnex(vec![]), 0, Annex::Tagged(vec![0x50; bytes + 1])), 2, INVALID_DIRECT);
    }
    check(key_path(SchnorrForm::OtherAnnex(vec![]), 0, Annex::None), 2, INVALID_DIRECT);
    check(key_path(SchnorrForm::Right, 0, Annex::Untagged(vec![])), 2, INVALID_KERNEL);
    check(key_path(SchnorrForm::Right, 0, Annex::Untagged(vec![0x51])), 2, INVALID_KERNEL);
    for form in [SchnorrForm::Limit { r: true }, SchnorrForm::Limit { r: false }, SchnorrForm::Ones { r: false }] {
        check(key_path(form, 0, Annex::None), 2, INVALID_DIRECT);
    }
    // Alone, an element with the annex's tag is no annex but the signature.
    check(key_path(SchnorrForm::LikeAnnex, 0, Annex::None), 2, VALID_DIRECT);
    check(key_path(SchnorrForm::LikeAnnex, 0x81, Annex::None), 2, VALID_DIRECT);
    check(key_path(SchnorrForm::LikeAnnex, 0, Annex::Tagged(vec![])), 2, VALID_DIRECT);
    for bytes in [0, 1, 63, 64, 65, 66] {
        check(key_path(SchnorrForm::Bytes(vec![1; bytes]), 0, Annex::None), 2, INVALID_DIRECT);
        check(key_path(SchnorrForm::Bytes(vec![0x50; bytes]), 0, Annex::None), 2, INVALID_DIRECT);
    }
    for (program, expected) in [
        (Program::Zero, INVALID_KERNEL),
        (Program::NegativeZero, INVALID_KERNEL),
        (Program::XTooLarge, INVALID_DIRECT),
        (Program::Bytes([5; 32]), INVALID_DIRECT), // no x of the curve
    ] {
        let (annex, dress) = (Annex::None, Dress::Plain);
        check(Form::KeyPath { program, signature: SchnorrForm::Right, hash_type: 0, annex, dress }, 2, expected);
    }
    for (dress, expected) in [
        (Dress::Nothing, INVALID_DIRECT),
        (Dress::OtherSide(vec![0x51]), INVALID_DIRECT),
        (Dress::Last(vec![0x51]), INVALID_KERNEL),
        (Dress::First(vec![]), INVALID_KERNEL),
    ] {
        let (program, signature, annex) = (Program::Key, SchnorrForm::Right, Annex::None);
        check(Form::KeyPath { program, signature, hash_type: 0, annex, dress }, 2, expected);
    }
}

#[test]
fn script_paths() {
    for path in [0, 1, 5, 128] {
        check(script_path(Leaf::CheckSig, 0xc0, path), 2, VALID_KERNEL);
        check(script_path(Leaf::CheckSigAdd, 0xc0, path), 2, VALID_KERNEL);
    }
    check(script_path(Leaf::CheckSig, 0xc0, 129), 2, INVALID_KERNEL);
    check(script_path(Leaf::True, 0xc0, 0), 2, VALID_KERNEL);
    check(script_path(Leaf::UnknownKey(33), 0xc0, 0), 2, VALID_KERNEL);
    check(script_path(Leaf::UnknownKey(0), 0xc0, 0), 2, INVALID_KERNEL);
    check(script_path(Leaf::Operation(0x7e), 0xc0, 0), 2, VALID_KERNEL); // OP_SUCCESS126
    check(script_path(Leaf::Operation(0x61), 0xc0, 0), 2, INVALID_KERNEL); // OP_NOP
    // A leaf of a version without rules.
    check(script_path(Leaf::Operation(0x61), 0xc2, 0), 2, VALID_KERNEL);
}

/// Such a leaf's control block begins with the annex's tag if the output's y is even; then it is an annex, and the
/// script a signature of the key path.
#[test]
fn a_leaf_version_that_looks_like_an_annex() {
    let verdicts: Vec<(Verdict, Judge)> = (0..16usize)
        .map(|path| {
            let plan = Plan {
                version: 2,
                lock_time: 0,
                inputs: vec![Input {
                    owner: 0,
                    value: 1,
                    vout: 0,
                    sequence: 0,
                    form: script_path(Leaf::True, 0x50, path),
                }],
                outputs: vec![],
                alterations: vec![],
            };
            let (transaction, spent) = build(&plan);
            let judged = judge(&transaction, &spent)[0];
            assert_eq!(judged.ours, judged.core);
            (judged.ours, judged.judge)
        })
        .collect();
    assert!(verdicts.contains(&VALID_KERNEL) && verdicts.contains(&INVALID_DIRECT));
}

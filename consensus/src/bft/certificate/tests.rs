use super::*;
use crate::bft::testing::{address, block, chain, set, sign};
use bitcoin::hashes::{Hash, sha256};
use proptest::prelude::*;

/// Powers 3, 1, 2, 4: two thirds of 10 is 6.66, so that 7 are needed.
fn powers() -> ValidatorSet {
    set(&[3, 1, 2, 4])
}

fn signed_by(signers: &[u32]) -> CommitCertificate {
    let digest = Vote::new(VoteType::Precommit, Height(101), 2, Some(block(5)), address(0)).digest(chain(1));
    let signatures = signers.iter().map(|index| (address(*index), sign(*index, digest)));
    CommitCertificate::new(&powers(), Height(101), 2, block(5), signatures).unwrap()
}

fn verify(certificate: &CommitCertificate) -> Result<(), CertificateError> {
    certificate.verify(chain(1), &powers(), Height(101), block(5))
}

#[test]
fn more_than_two_thirds_are_needed() {
    assert_eq!(verify(&signed_by(&[0, 3])), Ok(()));
    assert_eq!(verify(&signed_by(&[3, 2, 1, 0])), Ok(()));
    assert_eq!(verify(&signed_by(&[3, 2])), Err(CertificateError::NotEnoughPower { signed: 6, total: 10 }));
    assert_eq!(verify(&signed_by(&[])), Err(CertificateError::NotEnoughPower { signed: 0, total: 10 }));
    // Exactly two thirds are too few.
    let thirds = set(&[1, 1, 1]);
    let digest = Vote::new(VoteType::Precommit, Height(1), 0, Some(block(1)), address(0)).digest(chain(1));
    let signatures = [0, 1].map(|index| (address(index), sign(index, digest)));
    let certificate = CommitCertificate::new(&thirds, Height(1), 0, block(1), signatures).unwrap();
    let verdict = certificate.verify(chain(1), &thirds, Height(1), block(1));
    assert_eq!(verdict, Err(CertificateError::NotEnoughPower { signed: 2, total: 3 }));
}

#[test]
fn each_failure_has_its_name() {
    let good = signed_by(&[0, 2, 3]);
    let set = powers();
    let height = CertificateError::OtherHeight { got: Height(101), wanted: Height(102) };
    assert_eq!(good.verify(chain(1), &set, Height(102), block(5)), Err(height));
    let other = CertificateError::OtherBlock { got: block(5), wanted: block(6) };
    assert_eq!(good.verify(chain(1), &set, Height(101), block(6)), Err(other));
    let larger = crate::bft::testing::set(&[3, 1, 2, 4, 1]);
    let size = CertificateError::OtherSet { got: 4, wanted: 5 };
    assert_eq!(good.verify(chain(1), &larger, Height(101), block(5)), Err(size));

    let wrong = |verdict| matches!(verdict, Err(CertificateError::WrongSignature { .. }));
    assert!(wrong(good.verify(chain(2), &set, Height(101), block(5))), "another chain");
    assert!(wrong(verify(&CommitCertificate { round: 3, ..good.clone() })), "another round");
    let others: Vec<_> = (4..8).map(|index| crate::bft::testing::validator(index, 5)).collect();
    let others = ValidatorSet::new(&others).unwrap();
    assert!(wrong(good.verify(chain(1), &others, Height(101), block(5))), "another set of the same size");
    let mut swapped = good.clone();
    let first = swapped.signatures[0].1;
    swapped.signatures[0].1 = swapped.signatures[1].1;
    swapped.signatures[1].1 = first;
    assert!(wrong(verify(&swapped)), "signatures of each other");

    // A prevote is no precommit.
    let digest = Vote::new(VoteType::Prevote, Height(101), 2, Some(block(5)), address(0)).digest(chain(1));
    let signatures = (0..4).map(|index| (address(index), sign(index, digest)));
    assert!(wrong(verify(&CommitCertificate::new(&set, Height(101), 2, block(5), signatures).unwrap())));
}

#[test]
fn signers_are_known_and_count_once() {
    let set = powers();
    let of = |signers: &[u32]| {
        let signatures = signers.iter().map(|index| (address(*index), Signature([1; 64])));
        CommitCertificate::new(&set, Height(101), 0, block(5), signatures)
    };
    assert_eq!(of(&[0, 7]), Err(CertificateError::UnknownValidator { address: address(7) }));
    assert_eq!(of(&[3, 0, 3]), Err(CertificateError::DuplicateSigner { address: address(3) }));
    assert_eq!(of(&[3, 0]), of(&[0, 3]));
    assert_eq!(CommitCertificate::new(&set, Height(101), u32::MAX, block(5), []), Err(CertificateError::NoRound));
}

#[test]
fn the_engines_form_and_ours_are_one() {
    let set = powers();
    let certificate = signed_by(&[0, 2, 3]);
    let engine = certificate.to_engine(&set).unwrap();
    assert_eq!(CommitCertificate::from_engine(&engine, &set).unwrap(), certificate);
    assert!(certificate.to_engine(&crate::bft::testing::set(&[1])).is_err());
}

#[test]
fn the_encoding_is_frozen() {
    let bytes = signed_by(&[0, 1, 2, 3]).encode();
    assert_eq!(bytes.len(), 299);
    assert_eq!(
        sha256::Hash::hash(&bytes).to_string(),
        "0d35df3b0aae6c89b8d87eae33d8d119ee77df970b716bc30b8a951f95ca0df7"
    );
}

#[test]
fn hostile_bytes_are_refused() {
    let good = signed_by(&[0, 2, 3]).encode();
    let decode = |bytes: &[u8]| CommitCertificate::decode(bytes).unwrap_err();
    for length in 0..good.len() {
        assert!(matches!(decode(&good[..length]), DecodeError::Truncated { .. }));
    }
    assert_eq!(decode(&[&good[..], &[0]].concat()), DecodeError::Trailing { count: 1 });
    let with = |at: usize, bytes: &[u8]| {
        let mut changed = good.clone();
        changed[at..at + bytes.len()].copy_from_slice(bytes);
        decode(&changed)
    };
    assert_eq!(with(4, &[0xff; 4]), DecodeError::NotCanonical { what: "round" });
    assert_eq!(with(40, &[0, 0]), DecodeError::Count { what: "number of validators", got: 0, max: 256 });
    assert_eq!(with(40, &[1, 1]), DecodeError::Count { what: "number of validators", got: 257, max: 256 });
    assert_eq!(with(42, &[good[42] | 0x10]), DecodeError::NotCanonical { what: "bits of the signers" });
}

#[test]
fn no_flipped_bit_verifies() {
    let good = signed_by(&[0, 2, 3]).encode();
    for bit in 0..good.len() * 8 {
        let mut changed = good.clone();
        changed[bit / 8] ^= 1 << (bit % 8);
        if let Ok(certificate) = CommitCertificate::decode(&changed) {
            assert!(verify(&certificate).is_err(), "bit {bit}");
        }
    }
}

proptest! {
    #[test]
    fn decode_of_encode_is_the_identity(
        height: u32, round in 0..u32::MAX, fill: u8, validators in 1..=256_usize,
        bits in proptest::collection::vec(any::<bool>(), 256), signature: [u8; 32],
    ) {
        let signature = Signature([signature, signature].concat().try_into().unwrap());
        let signatures = (0..validators).filter(|index| bits[*index]).map(|index| (index, signature)).collect();
        let certificate = CommitCertificate { height: Height(height), round, block: block(fill), validators, signatures };
        let bytes = certificate.encode();
        prop_assert!(bytes.len() <= 16_458);
        prop_assert_eq!(CommitCertificate::decode(&bytes), Ok(certificate));
    }

    #[test]
    fn mutated_bytes_never_verify(changes in proptest::collection::vec((0..235_usize, any::<u8>()), 1..4)) {
        let good = signed_by(&[0, 2, 3]).encode();
        let mut bytes = good.clone();
        changes.iter().for_each(|(at, byte)| bytes[*at] = *byte);
        prop_assume!(bytes != good);
        if let Ok(certificate) = CommitCertificate::decode(&bytes) {
            prop_assert!(verify(&certificate).is_err());
        }
    }

    #[test]
    fn bytes_have_one_reading(bytes in proptest::collection::vec(any::<u8>(), 0..400), small in 1..9_u8) {
        let mut bytes = bytes;
        if bytes.len() > 42 {
            bytes[40..42].copy_from_slice(&[small, 0]);
        }
        if let Ok(certificate) = CommitCertificate::decode(&bytes) {
            prop_assert_eq!(certificate.encode(), bytes);
        }
    }
}

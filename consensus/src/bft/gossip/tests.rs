use super::*;
use crate::bft::context::{BlockId, EngineHeight};
use crate::bft::message::Proposal;
use crate::bft::testing::{address, block, chain, set, sign_proposal, sign_vote};
use bitcoin::hashes::{Hash, sha256};
use types::{PolkaCertificate, Round, RoundCertificate};

fn vote(index: u32, kind: VoteType, fill: Option<u8>) -> SignedVote {
    sign_vote(index, Vote::new(kind, Height(101), 2, fill.map(block), address(index)))
}

fn polka(signers: &[u32]) -> PolkaCertificate<Context> {
    let votes = signers.iter().map(|index| vote(*index, VoteType::Prevote, Some(5))).collect();
    PolkaCertificate::new(EngineHeight(Height(101)), Round::new(2), BlockId(block(5)), votes)
}

fn round(cert_type: RoundCertificateType, votes: Vec<SignedVote>) -> RoundCertificate<Context> {
    RoundCertificate::new_from_votes(EngineHeight(Height(101)), Round::new(2), cert_type, votes)
}

fn messages() -> Vec<Message> {
    let votes = vec![vote(0, VoteType::Precommit, None), vote(3, VoteType::Precommit, Some(5))];
    let skip = vec![vote(1, VoteType::Prevote, None), vote(2, VoteType::Precommit, Some(1))];
    vec![
        Message::Vote(vote(0, VoteType::Precommit, Some(5))),
        Message::Proposal(sign_proposal(0, Proposal::new(Height(101), 2, block(5), None, address(0)))),
        Message::polka(polka(&[3, 0, 2, 0])),
        Message::round_certificate(round(RoundCertificateType::Precommit, votes)),
        Message::round_certificate(round(RoundCertificateType::Skip, skip)),
    ]
}

#[test]
fn decode_of_encode_is_the_identity() {
    for message in messages() {
        assert_eq!(message.height(), Height(101));
        let bytes = message.encode();
        assert_eq!(Message::decode(&bytes), Ok(message));
        for length in 0..bytes.len() {
            assert!(Message::decode(&bytes[..length]).is_err());
        }
        for bit in 0..bytes.len() * 8 {
            let mut changed = bytes.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            if let Ok(other) = Message::decode(&changed) {
                assert_eq!(other.encode(), changed);
            }
        }
        assert_eq!(Message::decode(&[&bytes[..], &[0]].concat()), Err(DecodeError::Trailing { count: 1 }));
    }
}

#[test]
fn the_encoding_is_frozen() {
    let all: Vec<u8> = messages().iter().flat_map(Message::encode).collect();
    assert_eq!(
        sha256::Hash::hash(&all).to_string(),
        "edcdf81e35bc4baa88cd5b8af56cfe37e9e0c2bb5fc35ba8b96a313da3dfd7f8"
    );
    let full = round(RoundCertificateType::Skip, vec![vote(0, VoteType::Prevote, None); 256]);
    assert_eq!(1 + encode_round_certificate(&full).len(), MESSAGE_BYTES_MAX);
}

#[test]
fn hostile_certificates_are_refused() {
    let unsorted = [&[3][..], &encode_polka(&polka(&[0, 0]))].concat();
    assert_eq!(Message::decode(&unsorted), Err(DecodeError::NotCanonical { what: "order of the signers" }));
    let none = [&[3][..], &encode_polka(&polka(&[]))].concat();
    assert_eq!(Message::decode(&none), Err(DecodeError::Count { what: "number of signers", got: 0, max: 256 }));
    let mut many = [&[3][..], &encode_polka(&polka(&[0]))].concat();
    many[41..43].copy_from_slice(&257_u16.to_le_bytes());
    assert_eq!(Message::decode(&many), Err(DecodeError::Count { what: "number of signers", got: 257, max: 256 }));
}

#[test]
fn a_polka_needs_its_power_and_signatures() {
    let (context, set) = (Context::new(chain(1)), set(&[3, 1, 2, 4]));
    let verify = |polka: &PolkaCertificate<Context>| verify_polka(&context, &set, polka);
    assert_eq!(verify(&polka(&[0, 3])), Ok(()));
    assert!(matches!(verify(&polka(&[2, 3])), Err(CertificateError::NotEnoughPower { signed: 6, total: 10 })));
    assert_eq!(verify(&polka(&[0, 3, 3])), Err(CertificateError::DuplicateSigner { address: address(3) }));
    assert_eq!(verify(&polka(&[0, 3, 9])), Err(CertificateError::UnknownValidator { address: address(9) }));
    let other = PolkaCertificate { value_id: BlockId(block(6)), ..polka(&[0, 3]) };
    assert!(matches!(verify(&other), Err(CertificateError::WrongSignature { .. })));
    let elsewhere = Context::new(chain(2));
    assert!(verify_polka(&elsewhere, &set, &polka(&[0, 3])).is_err());
}

#[test]
fn a_round_certificate_needs_its_power_and_kind() {
    let (context, set) = (Context::new(chain(1)), set(&[3, 1, 2, 4]));
    let verify = |certificate| verify_round_certificate(&context, &set, &certificate);
    let mixed = vec![vote(0, VoteType::Prevote, None), vote(1, VoteType::Precommit, Some(1))];
    assert_eq!(verify(round(RoundCertificateType::Skip, mixed.clone())), Ok(()));
    let few = vec![vote(0, VoteType::Prevote, None)];
    assert!(matches!(
        verify(round(RoundCertificateType::Skip, few)),
        Err(CertificateError::NotEnoughPower { signed: 3, total: 10 })
    ));
    assert_eq!(
        verify(round(RoundCertificateType::Precommit, mixed)),
        Err(CertificateError::NotAPrecommit { address: address(0) })
    );
    let precommits =
        |signers: &[u32]| signers.iter().map(|index| vote(*index, VoteType::Precommit, None)).collect::<Vec<_>>();
    assert_eq!(verify(round(RoundCertificateType::Precommit, precommits(&[0, 3]))), Ok(()));
    assert!(verify(round(RoundCertificateType::Precommit, precommits(&[2, 3]))).is_err());
    let mut wrong = round(RoundCertificateType::Precommit, precommits(&[0, 3]));
    wrong.round_signatures[0].value_id = NilOrVal::Val(BlockId(block(1)));
    assert!(matches!(verify(wrong), Err(CertificateError::WrongSignature { .. })));
}

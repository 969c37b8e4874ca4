use super::*;
use crate::bft::testing::{block, chain, keypair, sign_proposal, sign_vote};
use bitcoin::hex::DisplayHex;
use proptest::prelude::*;

fn vote_from(bytes: &[u8]) -> Result<SignedVote, DecodeError> {
    let mut reader = Reader::new(bytes);
    let vote = read_signed_vote(&mut reader)?;
    reader.finish().map(|()| vote)
}

fn proposal_from(bytes: &[u8]) -> Result<SignedProposal, DecodeError> {
    let mut reader = Reader::new(bytes);
    let proposal = read_signed_proposal(&mut reader)?;
    reader.finish().map(|()| proposal)
}

fn some_vote() -> Vote {
    let validator = Address::from(&keypair(0).x_only_public_key().0);
    Vote::new(VoteType::Precommit, Height(258), 3, Some(block(9)), validator)
}

fn some_proposal() -> Proposal {
    let proposer = Address::from(&keypair(0).x_only_public_key().0);
    Proposal::new(Height(258), 3, block(9), Some(1), proposer)
}

#[test]
fn layouts_and_digests_are_frozen() {
    let vote = some_vote();
    let hash = "09".repeat(32);
    assert_eq!(vote.body().to_lower_hex_string(), format!("02{}{}01{hash}", "02010000", "03000000"));
    let nil = Vote { value: NilOrVal::Nil, kind: VoteType::Prevote, ..vote };
    assert_eq!(nil.body().to_lower_hex_string(), format!("01{}{}{}", "02010000", "03000000", "00".repeat(33)));
    let proposal = some_proposal();
    assert_eq!(proposal.body().to_lower_hex_string(), format!("{}{}{}{hash}", "02010000", "03000000", "01000000"));
    let fresh = Proposal { pol_round: Round::Nil, ..proposal };
    assert_eq!(&fresh.body()[8..12], &[0xff; 4]);

    assert_eq!(
        vote.digest(chain(1)).to_lower_hex_string(),
        "8a416167b0bdd75dc6ed3a81a37bf2b3d5819b13a32dc1f202e96a9f7acb9364"
    );
    assert_eq!(
        proposal.digest(chain(1)).to_lower_hex_string(),
        "370b59939881da6cf0b256dfac764fb03fef70139550f3bf210ae6b29dc160d9"
    );
}

#[test]
fn a_signature_holds_for_one_message_on_one_chain() {
    let key = keypair(0).x_only_public_key().0;
    let vote = some_vote();
    let signature = sign_vote(0, vote).signature;
    assert!(signature.verifies(&vote.digest(chain(1)), &key));
    assert!(!signature.verifies(&vote.digest(chain(2)), &key));
    let others = [
        Vote { kind: VoteType::Prevote, ..vote },
        Vote { height: EngineHeight(Height(259)), ..vote },
        Vote { round: Round::new(4), ..vote },
        Vote { value: NilOrVal::Nil, ..vote },
        Vote { value: NilOrVal::Val(BlockId(block(8))), ..vote },
    ];
    for other in others {
        assert!(!signature.verifies(&other.digest(chain(1)), &key), "{other}");
    }

    let proposal = some_proposal();
    let signature = sign_proposal(0, proposal).signature;
    assert!(signature.verifies(&proposal.digest(chain(1)), &key));
    assert!(!signature.verifies(&proposal.digest(chain(2)), &key));
    let others = [
        Proposal { height: EngineHeight(Height(259)), ..proposal },
        Proposal { round: Round::new(4), ..proposal },
        Proposal { pol_round: Round::Nil, ..proposal },
        Proposal { value: BlockId(block(8)), ..proposal },
    ];
    for other in others {
        assert!(!signature.verifies(&other.digest(chain(1)), &key), "{other}");
    }
}

#[test]
fn what_no_encoder_writes_is_refused() {
    let vote = encode_signed_vote(&sign_vote(0, some_vote()));
    assert_eq!(vote_from(&vote[..137]).unwrap_err(), DecodeError::Truncated { what: "signature" });
    assert_eq!(vote_from(&[&vote[..], &[0]].concat()).unwrap_err(), DecodeError::Trailing { count: 1 });
    let with = |at: usize, bytes: &[u8]| {
        let mut changed = vote;
        changed[at..at + bytes.len()].copy_from_slice(bytes);
        vote_from(&changed).unwrap_err()
    };
    assert_eq!(with(0, &[0]), DecodeError::Unknown { what: "kind of vote", got: 0 });
    assert_eq!(with(5, &[0xff; 4]), DecodeError::NotCanonical { what: "round" });
    assert_eq!(with(9, &[2]), DecodeError::Unknown { what: "value", got: 2 });
    assert_eq!(with(9, &[0]), DecodeError::NotCanonical { what: "nil" });

    let mut proposal = encode_signed_proposal(&sign_proposal(0, some_proposal()));
    proposal[8] = 3;
    assert_eq!(proposal_from(&proposal).unwrap_err(), DecodeError::NotCanonical { what: "proof-of-lock round" });
}

proptest! {
    #[test]
    fn decode_of_encode_is_the_identity(
        precommit: bool, height: u32, round in 0..u32::MAX, fill: Option<u8>, validator: [u8; 32],
        signature: [u8; 64], pol in proptest::option::of(0_u32..u32::MAX),
    ) {
        let kind = if precommit { VoteType::Precommit } else { VoteType::Prevote };
        let vote = Vote::new(kind, Height(height), round, fill.map(block), Address(validator));
        let vote = SignedVote::new(vote, Signature(signature));
        prop_assert_eq!(vote_from(&encode_signed_vote(&vote)), Ok(vote));

        let pol = pol.filter(|pol| *pol < round);
        let proposal = Proposal::new(Height(height), round, block(fill.unwrap_or(0)), pol, Address(validator));
        let proposal = SignedProposal::new(proposal, Signature(signature));
        prop_assert_eq!(proposal_from(&encode_signed_proposal(&proposal)), Ok(proposal));
    }

    #[test]
    fn bytes_have_one_reading(bytes in proptest::collection::vec(any::<u8>(), 130..150)) {
        if let Ok(vote) = vote_from(&bytes) {
            prop_assert_eq!(&encode_signed_vote(&vote)[..], &bytes[..]);
        }
        if let Ok(proposal) = proposal_from(&bytes) {
            prop_assert_eq!(&encode_signed_proposal(&proposal)[..], &bytes[..]);
        }
    }
}

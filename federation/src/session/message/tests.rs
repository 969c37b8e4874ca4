use bitcoin::secp256k1::schnorr::Signature;
use proptest::prelude::*;

use super::*;

fn identity(seed: u8) -> IdentityKey {
    IdentityKey::from_bytes(&[seed; 32]).unwrap()
}

fn chain() -> ChainId {
    ChainId::from_byte_array([1; 32])
}

fn signature() -> impl Strategy<Value = Signature> {
    prop::collection::vec(any::<u8>(), 64).prop_map(|bytes| Signature::from_slice(&bytes).unwrap())
}

fn signers(min: usize) -> impl Strategy<Value = Vec<u16>> {
    prop::collection::btree_set(0..100_u16, min..20).prop_map(|set| set.into_iter().collect())
}

fn long<const N: usize>() -> impl Strategy<Value = Vec<[u8; N]>> {
    let one = prop::collection::vec(any::<u8>(), N).prop_map(|bytes| <[u8; N]>::try_from(bytes).unwrap());
    prop::collection::vec(one, 1..10)
}

fn message() -> impl Strategy<Value = SessionMessage> {
    let body = prop_oneof![
        (prop::collection::vec(any::<u32>(), 0..=20), prop::collection::vec(any::<[u8; 16]>(), 0..=20))
            .prop_map(|(heard, have)| Body::Join { heard, have }),
        signers(1).prop_map(|signers| Body::Proposal { signers }),
        (any::<[u8; 32]>(), long()).prop_map(|(attempt, nonces)| Body::Nonces { attempt: AttemptId(attempt), nonces }),
        (any::<[u8; 32]>(), any::<[u8; 32]>(), long()).prop_map(|(attempt, seen, partials)| Body::Partials {
            attempt: AttemptId(attempt),
            seen,
            partials
        }),
        prop::collection::vec(signature(), 1..10).prop_map(Body::Signatures),
        (signers(0), prop::collection::vec(signature(), 1..10))
            .prop_map(|(signers, signatures)| Body::Result { signers, signatures }),
    ];
    (any::<[u8; 32]>(), any::<u32>(), body).prop_map(|(task, round, body)| {
        let round = if matches!(body, Body::Result { .. }) { 0 } else { round };
        SessionMessage { task: TaskId(task), round, body }
    })
}

proptest! {
    #[test]
    fn decoding_gives_back_what_was_encoded(message in message()) {
        let bytes = message.encode();
        prop_assert_eq!(SessionMessage::decode(&bytes), Some(message.clone()));
        // One byte less or more is no message.
        prop_assert_eq!(SessionMessage::decode(&bytes[..bytes.len() - 1]), None);
        prop_assert_eq!(SessionMessage::decode(&[&bytes[..], &[0]].concat()), None);
        let signed = SignedMessage::sign(chain(), 1, &identity(2), message);
        let keys = [identity(1).public_key(), identity(2).public_key()];
        prop_assert_eq!(SignedMessage::decode(&signed.encode(), chain(), &keys), Ok(signed));
    }

    #[test]
    fn any_bytes_are_read_without_harm_and_have_one_encoding(bytes in prop::collection::vec(any::<u8>(), 0..300), kind in 0..8_u8) {
        let bytes = [&[kind][..], &bytes].concat();
        if let Some(message) = SessionMessage::decode(&bytes) {
            prop_assert_eq!(message.encode(), bytes.clone());
        }
        let _ = SignedMessage::decode(&bytes, chain(), &[identity(1).public_key()]);
    }

    #[test]
    fn a_changed_byte_is_no_word_of_the_member(message in message(), at in any::<prop::sample::Index>(), bit in 0..8_u8) {
        let keys = [identity(1).public_key(), identity(2).public_key()];
        let mut bytes = SignedMessage::sign(chain(), 0, &identity(1), message).encode();
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        prop_assert!(SignedMessage::decode(&bytes, chain(), &keys).is_err());
    }
}

#[test]
fn a_message_is_of_one_chain_and_one_member() {
    let keys = [identity(1).public_key(), identity(2).public_key()];
    let message =
        SessionMessage { task: TaskId([5; 32]), round: 1, body: Body::Join { heard: vec![0, 2], have: vec![[7; 16]] } };
    let signed = SignedMessage::sign(chain(), 0, &identity(1), message.clone());
    let bytes = signed.encode();
    assert_eq!(SignedMessage::decode(&bytes, chain(), &keys), Ok(signed));
    let other = ChainId::from_byte_array([2; 32]);
    assert_eq!(SignedMessage::decode(&bytes, other, &keys), Err(MessageError::NotSigned(0)));
    assert_eq!(SignedMessage::decode(&bytes, chain(), &keys[1..]), Err(MessageError::NotSigned(0)));
    let stranger = SignedMessage::sign(chain(), 2, &identity(1), message.clone()).encode();
    assert_eq!(SignedMessage::decode(&stranger, chain(), &keys), Err(MessageError::UnknownMember(2)));
    assert_eq!(SignedMessage::decode(&bytes[..10], chain(), &keys), Err(MessageError::CutOff));
    assert_eq!(SignedMessage::decode(&[], chain(), &keys), Err(MessageError::CutOff));
    let long = vec![0; MESSAGE_BYTES_MAX + 1];
    assert_eq!(SignedMessage::decode(&long, chain(), &keys), Err(MessageError::TooLong));
    // Well signed, and no message.
    let body = Body::Proposal { signers: vec![2, 1] };
    let malformed = SignedMessage::sign(chain(), 0, &identity(1), SessionMessage { body, ..message }).encode();
    assert_eq!(SignedMessage::decode(&malformed, chain(), &keys), Err(MessageError::Malformed(0)));
}

#[test]
fn the_largest_messages_fit() {
    let head = |body| SessionMessage { task: TaskId([5; 32]), round: 0, body };
    let signature = Signature::from_slice(&[1; 64]).unwrap();
    let largest = [
        Body::Nonces { attempt: AttemptId([1; 32]), nonces: vec![[2; 66]; INPUTS_MAX] },
        Body::Partials { attempt: AttemptId([1; 32]), seen: [1; 32], partials: vec![[2; 32]; INPUTS_MAX] },
        Body::Signatures(vec![signature; INPUTS_MAX]),
        Body::Result { signers: (0..100).collect(), signatures: vec![signature; INPUTS_MAX] },
    ];
    for body in largest {
        let signed = SignedMessage::sign(chain(), 0, &identity(1), head(body));
        let bytes = signed.encode();
        assert!(bytes.len() <= MESSAGE_BYTES_MAX);
        assert_eq!(SignedMessage::decode(&bytes, chain(), &[identity(1).public_key()]), Ok(signed));
    }
    let too_many = head(Body::Nonces { attempt: AttemptId([1; 32]), nonces: vec![[2; 66]; INPUTS_MAX + 1] });
    assert_eq!(SessionMessage::decode(&too_many.encode()), None);
}

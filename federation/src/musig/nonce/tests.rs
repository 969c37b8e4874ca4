use std::collections::BTreeSet;

use serde::Deserialize;

use super::super::tests::{aggregate, id, member, members};
use super::*;

/// A session of all `members`, with the first signing through `store`; the others' nonces and the sum.
fn open(
    store: &mut NonceStore,
    members: &[MemberKey],
    message: &[u8; 32],
) -> (SessionId, KeyAggregate, AggregateNonce) {
    let aggregate = aggregate(members);
    let session = SessionId::new(message, &aggregate, 0);
    let own = store.open(session, &members[0], &aggregate, message).unwrap();
    let others = members[1..].iter().map(|member| SecretNonce::generate(member, &aggregate, message, session).unwrap());
    let nonces: Vec<_> = std::iter::once(own).chain(others.map(|nonce| nonce.public().clone())).collect();
    (session, aggregate, AggregateNonce::sum(&nonces))
}

#[test]
fn rule_1_a_nonce_is_of_fresh_randomness_and_of_its_context() {
    let (one, two) = (members([1, 2]), members([1, 3]));
    let generate = |key: u8, members: &[MemberKey], message: u8, attempt: u32| {
        SecretNonce::generate(&member(key), &aggregate(members), &[message; 32], id(attempt)).unwrap()
    };
    // The very same request never gives the same nonce.
    let seen: BTreeSet<_> = (0..200).map(|_| generate(1, &one, 1, 0).public().to_bytes()).collect();
    assert_eq!(seen.len(), 200);
    // Were the randomness ever the same, each of the other inputs alone keeps nonces apart.
    let derive = |key: u8, members: &[MemberKey], message: u8, session: SessionId| {
        let point = Point::lift_x(aggregate(members).x_only().serialize()).unwrap();
        SecretNonce::from_seed(&[9; 32], &member(key), point, &[message; 32], session.as_bytes()).unwrap()
    };
    let same_seed: BTreeSet<_> =
        [(1, &one, 1, id(0)), (2, &one, 1, id(0)), (1, &two, 1, id(0)), (1, &one, 2, id(0)), (1, &one, 1, id(1))]
            .into_iter()
            .map(|(key, members, message, session)| derive(key, members, message, session).public().to_bytes())
            .collect();
    assert_eq!(same_seed.len(), 5);
}

#[test]
fn rule_1_bip327_nonce_generation() {
    #[derive(Deserialize)]
    struct Vectors {
        test_cases: Vec<Case>,
    }
    #[derive(Deserialize)]
    struct Case {
        rand: String,
        sk: String,
        aggpk: String,
        msg: String,
        extra_in: String,
        expected_secnonce: String,
        expected_pubnonce: String,
    }
    use bitcoin::hex::FromHex;
    let vectors: Vectors = serde_json::from_str(include_str!("../vectors/nonce_gen_vectors.json")).unwrap();
    let array = |hex: &str| <[u8; 32]>::from_hex(hex).unwrap();
    // We sign digests alone: the other cases have messages of other lengths.
    let cases: Vec<_> = vectors.test_cases.iter().filter(|case| case.msg.len() == 64).collect();
    assert_eq!(cases.len(), 1);
    for case in cases {
        let key = MemberKey::from_bytes(&array(&case.sk)).unwrap();
        let aggregate_key = Point::lift_x(array(&case.aggpk)).unwrap();
        let (seed, message, extra) = (array(&case.rand), array(&case.msg), array(&case.extra_in));
        let nonce = SecretNonce::from_seed(&seed, &key, aggregate_key, &message, &extra).unwrap();
        assert_eq!(nonce.secret.to_vec(), Vec::from_hex(&case.expected_secnonce).unwrap());
        assert_eq!(nonce.public().to_bytes().to_vec(), Vec::from_hex(&case.expected_pubnonce).unwrap());
    }
}

#[test]
fn rule_2_a_session_is_what_is_signed_by_whom_and_which_attempt() {
    let three = aggregate(&members([1, 2, 3]));
    let base = SessionId::new(&[1; 32], &three, 0);
    assert_eq!(base, SessionId::new(&[1; 32], &three, 0));
    let others = [
        SessionId::new(&[2; 32], &three, 0),
        SessionId::new(&[1; 32], &three, 1),
        SessionId::new(&[1; 32], &aggregate(&members([1, 2, 4])), 0),
        SessionId::new(&[1; 32], &aggregate(&members([1, 2])), 0),
        SessionId::new(&[1; 32], &three.tweaked([0; 32]).unwrap(), 0),
    ];
    assert_eq!(others.iter().chain([&base]).collect::<BTreeSet<_>>().len(), 6);
}

#[test]
fn rule_2_a_session_gets_one_nonce() {
    let members = members([1, 2, 3]);
    let mut store = NonceStore::new();
    let (session, aggregate, sum) = open(&mut store, &members, &[1; 32]);
    let again = |store: &mut NonceStore| store.open(session, &members[0], &aggregate, &[1; 32]);
    assert!(matches!(again(&mut store), Err(NonceError::Duplicate(_))));
    // Also when it was used, and when it was burned.
    store.sign(session, &members[0], &aggregate, &sum, &[1; 32]).unwrap();
    assert!(matches!(again(&mut store), Err(NonceError::Duplicate(_))));
    let (burned, ..) = open(&mut store, &members, &[2; 32]);
    store.burn(burned);
    assert!(matches!(store.open(burned, &members[0], &aggregate, &[2; 32]), Err(NonceError::Duplicate(_))));
}

#[test]
fn rule_3_a_nonce_signs_only_what_it_was_made_for() {
    let members = members([1, 2, 3]);
    let subset = aggregate(&members[..2]);
    let tweaked = aggregate(&members).tweaked([1; 32]).unwrap();
    let mut store = NonceStore::new();
    for (number, other) in [(1, &subset), (2, &tweaked)] {
        let (session, _, sum) = open(&mut store, &members, &[number; 32]);
        let signed = store.sign(session, &members[0], other, &sum, &[number; 32]);
        assert!(matches!(signed, Err(NonceError::OtherSession(_))));
    }
    let (session, aggregate, sum) = open(&mut store, &members, &[3; 32]);
    let signed = store.sign(session, &members[0], &aggregate, &sum, &[4; 32]);
    assert!(matches!(signed, Err(NonceError::OtherSession(_))));
    assert!(store.is_empty());
}

#[test]
fn rule_4_a_secret_nonce_is_never_copied_written_or_shown() {
    // Does not compile if the type has the trait: two candidates then.
    macro_rules! assert_not_implemented {
        ($type:ty, $bound:path) => {{
            trait Ambiguous<A> {
                fn check() {}
            }
            impl<T: ?Sized> Ambiguous<()> for T {}
            struct Implemented;
            impl<T: ?Sized + $bound> Ambiguous<Implemented> for T {}
            <$type as Ambiguous<_>>::check();
        }};
    }
    assert_not_implemented!(SecretNonce, Clone);
    assert_not_implemented!(SecretNonce, serde::Serialize);
    assert_not_implemented!(SecretNonce, serde::de::DeserializeOwned);
    assert_not_implemented!(SecretNonce, std::fmt::Display);
    assert_not_implemented!(SecretNonce, PartialEq);
    assert_not_implemented!(NonceStore, Clone);
    assert_not_implemented!(NonceStore, serde::Serialize);
    assert_not_implemented!(MemberKey, Clone);
    assert_not_implemented!(MemberKey, serde::Serialize);
    let mut store = NonceStore::new();
    let (session, ..) = open(&mut store, &members([1, 2]), &[1; 32]);
    assert_eq!(format!("{store:?}"), "NonceStore { held: 1 }");
    assert_eq!(format!("{:?}", store.held[&session].nonce), "SecretNonce");
    // The bytes are in a container that is wiped.
    let _: &Zeroizing<[u8; SECRET_BYTES]> = &store.held[&session].nonce.secret;
}

#[test]
fn rule_5_any_failure_burns_the_nonce() {
    let members = members([1, 2, 3]);
    let mut store = NonceStore::new();
    // The wrong message, the wrong key, the wrong signers.
    for failure in 0..3_u8 {
        let message = [failure + 10; 32];
        let (session, aggregate, sum) = open(&mut store, &members, &message);
        let signed = match failure {
            0 => store.sign(session, &members[0], &aggregate, &sum, &[0; 32]),
            1 => store.sign(session, &member(99), &aggregate, &sum, &message),
            // Another member's key, for which the nonce was not made: the library refuses.
            _ => store.sign(session, &members[1], &aggregate, &sum, &message),
        };
        assert!(signed.is_err());
        assert!(store.is_empty());
        let again = store.sign(session, &members[0], &aggregate, &sum, &message);
        assert!(matches!(again, Err(NonceError::Missing(_))), "{again:?}");
    }
}

#[test]
fn rule_6_a_nonce_signs_once() {
    let members = members([1, 2, 3]);
    let mut store = NonceStore::new();
    let (session, aggregate, sum) = open(&mut store, &members, &[1; 32]);
    store.sign(session, &members[0], &aggregate, &sum, &[1; 32]).unwrap();
    let again = store.sign(session, &members[0], &aggregate, &sum, &[1; 32]);
    assert!(matches!(again, Err(NonceError::Missing(_))));
}

#[test]
fn the_store_is_bounded_and_takes_signers_alone() {
    let members = members([1, 2]);
    let aggregate = aggregate(&members);
    let mut store = NonceStore::new();
    let stranger = store.open(id(0), &member(77), &aggregate, &[1; 32]);
    assert!(matches!(stranger, Err(NonceError::NotASigner(_))));
    for attempt in 0..u32::try_from(NONCES_MAX).unwrap() {
        store.open(id(attempt), &members[0], &aggregate, &[1; 32]).unwrap();
    }
    let one_more = store.open(id(u32::MAX), &members[0], &aggregate, &[1; 32]);
    assert!(matches!(one_more, Err(NonceError::Full)));
    store.burn(id(0));
    store.open(id(u32::MAX), &members[0], &aggregate, &[1; 32]).unwrap();
}

use bitcoin::hex::FromHex;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use secp256k1_musig as libsecp;
use serde::Deserialize;

use super::*;

pub(super) fn member(seed: u8) -> MemberKey {
    MemberKey::from_bytes(&[seed; 32]).unwrap()
}

/// Members with the keys of these seeds, sorted as BIP327 KeySort does.
pub(super) fn members(seeds: impl IntoIterator<Item = u8>) -> Vec<MemberKey> {
    let mut members: Vec<_> = seeds.into_iter().map(member).collect();
    members.sort_by_key(|member| member.public_key().serialize());
    members
}

pub(super) fn aggregate(members: &[MemberKey]) -> KeyAggregate {
    let keys: Vec<_> = members.iter().map(MemberKey::public_key).collect();
    KeyAggregate::new(&keys).unwrap()
}

#[test]
fn keys_must_be_sorted_and_distinct() {
    let keys: Vec<_> = members([1, 2, 3]).iter().map(MemberKey::public_key).collect();
    assert!(KeyAggregate::new(&keys).is_ok());
    assert_eq!(KeyAggregate::new(&[keys[1], keys[0]]), Err(AggregateError::NotSorted));
    assert_eq!(KeyAggregate::new(&[keys[0], keys[0]]), Err(AggregateError::NotSorted));
    assert_eq!(KeyAggregate::new(&[]), Err(AggregateError::Empty));
}

#[test]
fn the_tweaked_key_is_the_output_key_of_bitcoin() {
    use bitcoin::hashes::Hash;
    let untweaked = aggregate(&members(1..=5));
    for root in 0..20 {
        let root = [root; 32];
        let (expected, _) = bitcoin::key::TapTweak::tap_tweak(
            untweaked.x_only(),
            SECP256K1,
            Some(bitcoin::TapNodeHash::from_byte_array(root)),
        );
        assert_eq!(untweaked.tweaked(root).unwrap().x_only(), expected.to_x_only_public_key());
    }
}

#[test]
fn rule_9_a_wrong_partial_is_seen_and_never_adds_up() {
    let members = members([1, 2, 3]);
    let (key, message) = (aggregate(&members), [5; 32]);
    let session = SessionId::new(&message, &key, 0);
    let mut stores: Vec<_> = members.iter().map(|_| NonceStore::new()).collect();
    let opened = stores.iter_mut().zip(&members);
    let nonces: Vec<_> = opened.map(|(store, own)| store.open(session, own, &key, &message).unwrap()).collect();
    let sum = AggregateNonce::sum(&nonces);
    let signed = stores.iter_mut().zip(&members);
    let partials: Vec<_> = signed.map(|(store, own)| store.sign(session, own, &key, &sum, &message).unwrap()).collect();
    let check = |signer: usize, nonce: usize, sum: &AggregateNonce, message: &[u8; 32], partial: usize| {
        key.check_partial(&members[signer].public_key(), &nonces[nonce], sum, message, &partials[partial])
    };
    for signer in 0..3 {
        check(signer, signer, &sum, &message, signer).unwrap();
        let (other, less) = ((signer + 1) % 3, AggregateNonce::sum(&nonces[..2]));
        assert_eq!(check(signer, signer, &sum, &message, other), Err(ContributionError::Partial));
        assert_eq!(check(signer, other, &sum, &message, signer), Err(ContributionError::Partial));
        assert_eq!(check(other, signer, &sum, &message, signer), Err(ContributionError::Partial));
        assert_eq!(check(signer, signer, &less, &message, signer), Err(ContributionError::Partial));
        assert_eq!(check(signer, signer, &sum, &[6; 32], signer), Err(ContributionError::Partial));
    }
    let stranger = key.check_partial(&member(9).public_key(), &nonces[0], &sum, &message, &partials[0]);
    assert_eq!(stranger, Err(ContributionError::UnknownSigner));
    let signature = key.sum(&sum, &message, &partials).unwrap();
    assert!(key.verify(&message, &signature));
    assert!(!key.verify(&[6; 32], &signature));
    // Whatever is checked before: a sum that is no signature does not leave.
    let doubled = [partials[0], partials[0], partials[2]];
    for wrong in [&partials[..2], &doubled, &[]] {
        assert_eq!(key.sum(&sum, &message, wrong), Err(SumError));
    }
    assert_eq!(key.sum(&sum, &[6; 32], &partials), Err(SumError));
}

#[test]
fn no_secret_is_printed() {
    let key = MemberKey::from_bytes(&[0x5a; 32]).unwrap();
    let identity = IdentityKey::from_bytes(&[0x5a; 32]).unwrap();
    let nonce = SecretNonce::generate(&key, &aggregate(&[member(0x5a)]), &[1; 32], id(0)).unwrap();
    for shown in [format!("{key:?}"), format!("{identity:?}"), format!("{nonce:?}")] {
        assert!(!shown.contains("5a5a5a"), "{shown}");
    }
    assert_eq!(format!("{nonce:?}"), "SecretNonce");
    assert!(matches!(MemberKey::from_bytes(&[0; 32]), Err(KeyError::NoKey)));
    assert!(matches!(MemberKey::from_bytes(&[0xff; 32]), Err(KeyError::NoKey)));
}

pub(super) fn id(attempt: u32) -> SessionId {
    SessionId::new(&[7; 32], &aggregate(&members([1, 2, 3])), attempt)
}

// BIP327's vectors: https://github.com/bitcoin/bips/tree/master/bip-0327/vectors

type Hex = String;

fn bytes(hex: &str) -> Vec<u8> {
    Vec::from_hex(hex).unwrap()
}

fn array<const N: usize>(hex: &str) -> [u8; N] {
    <[u8; N]>::try_from(bytes(hex)).unwrap()
}

fn public_key(hex: &str) -> Option<PublicKey> {
    PublicKey::from_slice(&bytes(hex)).ok().filter(|_| hex.len() == 66)
}

fn keys_of(all: &[Hex], indices: &[usize]) -> Option<Vec<PublicKey>> {
    indices.iter().map(|index| public_key(&all[*index])).collect()
}

/// Tweaks as BIP327 has them; our own API has BIP341's alone.
fn tweak(aggregate: KeyAggregate, all: &[Hex], indices: &[usize], x_only: &[bool]) -> Option<KeyAggregate> {
    let mut context = aggregate.context;
    for (index, x_only) in indices.iter().zip(x_only) {
        let tweak = MaybeScalar::try_from(&array::<32>(&all[*index])).ok()?;
        context = context.with_tweak(tweak, *x_only).ok()?;
    }
    KeyAggregate::of(context, aggregate.keys).ok()
}

#[test]
fn bip327_key_aggregation() {
    #[derive(Deserialize)]
    struct Vectors {
        pubkeys: Vec<Hex>,
        tweaks: Vec<Hex>,
        valid_test_cases: Vec<Valid>,
        error_test_cases: Vec<Error>,
    }
    #[derive(Deserialize)]
    struct Valid {
        key_indices: Vec<usize>,
        expected: Hex,
    }
    #[derive(Deserialize)]
    struct Error {
        key_indices: Vec<usize>,
        tweak_indices: Vec<usize>,
        is_xonly: Vec<bool>,
    }
    let vectors: Vectors = serde_json::from_str(include_str!("vectors/key_agg_vectors.json")).unwrap();
    for case in &vectors.valid_test_cases {
        let keys = keys_of(&vectors.pubkeys, &case.key_indices).unwrap();
        assert_eq!(KeyAggregate::in_order(&keys).unwrap().x_only().serialize().to_vec(), bytes(&case.expected));
    }
    for case in &vectors.error_test_cases {
        let aggregate = keys_of(&vectors.pubkeys, &case.key_indices).map(|keys| KeyAggregate::in_order(&keys).unwrap());
        let tweaked = aggregate.and_then(|key| tweak(key, &vectors.tweaks, &case.tweak_indices, &case.is_xonly));
        assert!(tweaked.is_none());
    }
    assert_eq!((vectors.valid_test_cases.len(), vectors.error_test_cases.len()), (4, 5));
}

#[test]
fn bip327_nonce_aggregation() {
    #[derive(Deserialize)]
    struct Vectors {
        pnonces: Vec<Hex>,
        valid_test_cases: Vec<Valid>,
        error_test_cases: Vec<Error>,
    }
    #[derive(Deserialize)]
    struct Valid {
        pnonce_indices: Vec<usize>,
        expected: Hex,
    }
    #[derive(Deserialize)]
    struct Error {
        pnonce_indices: Vec<usize>,
        error: Blame,
    }
    #[derive(Deserialize)]
    struct Blame {
        signer: usize,
    }
    let vectors: Vectors = serde_json::from_str(include_str!("vectors/nonce_agg_vectors.json")).unwrap();
    let nonce = |index: usize| PublicNonce::from_bytes(&array(&vectors.pnonces[index]));
    for case in &vectors.valid_test_cases {
        let nonces: Vec<_> = case.pnonce_indices.iter().map(|index| nonce(*index).unwrap()).collect();
        let sum = AggregateNonce::sum(&nonces);
        assert_eq!(sum.to_bytes().to_vec(), bytes(&case.expected));
        assert_eq!(AggregateNonce::from_bytes(&array(&case.expected)).unwrap(), sum);
    }
    for case in &vectors.error_test_cases {
        let wrong = case.pnonce_indices.iter().position(|index| nonce(*index).is_err());
        assert_eq!(wrong, Some(case.error.signer));
    }
    assert_eq!((vectors.valid_test_cases.len(), vectors.error_test_cases.len()), (2, 3));
}

#[test]
fn bip327_signing_and_verification() {
    #[derive(Deserialize)]
    struct Vectors {
        sk: Hex,
        pubkeys: Vec<Hex>,
        secnonces: Vec<Hex>,
        pnonces: Vec<Hex>,
        aggnonces: Vec<Hex>,
        msgs: Vec<Hex>,
        valid_test_cases: Vec<Valid>,
        sign_error_test_cases: Vec<SignError>,
        verify_fail_test_cases: Vec<VerifyFail>,
        verify_error_test_cases: Vec<VerifyFail>,
    }
    #[derive(Deserialize)]
    struct Valid {
        key_indices: Vec<usize>,
        nonce_indices: Vec<usize>,
        aggnonce_index: usize,
        msg_index: usize,
        signer_index: usize,
        expected: Hex,
    }
    #[derive(Deserialize)]
    struct SignError {
        key_indices: Vec<usize>,
        aggnonce_index: usize,
        msg_index: usize,
        secnonce_index: usize,
    }
    #[derive(Deserialize)]
    struct VerifyFail {
        sig: Hex,
        key_indices: Vec<usize>,
        nonce_indices: Vec<usize>,
        msg_index: usize,
        signer_index: usize,
    }
    let vectors: Vectors = serde_json::from_str(include_str!("vectors/sign_verify_vectors.json")).unwrap();
    let key = MemberKey::from_bytes(&array(&vectors.sk)).unwrap();
    let nonces_of = |indices: &[usize]| -> Option<Vec<PublicNonce>> {
        indices.iter().map(|index| PublicNonce::from_bytes(&array(&vectors.pnonces[*index])).ok()).collect()
    };
    let mut signed = 0;
    for case in &vectors.valid_test_cases {
        // We sign digests alone: messages of other lengths are no case for us.
        let Ok(message) = <[u8; 32]>::try_from(bytes(&vectors.msgs[case.msg_index])) else { continue };
        let keys = keys_of(&vectors.pubkeys, &case.key_indices).unwrap();
        let aggregate = KeyAggregate::in_order(&keys).unwrap();
        let nonces = nonces_of(&case.nonce_indices).unwrap();
        let sum = AggregateNonce::sum(&nonces);
        assert_eq!(sum.to_bytes().to_vec(), bytes(&vectors.aggnonces[case.aggnonce_index]));
        let secret = SecretNonce::from_bytes(&bytes(&vectors.secnonces[0])).unwrap();
        let partial = secret.sign(&key, &aggregate, &sum, &message).unwrap();
        assert_eq!(partial.to_bytes().to_vec(), bytes(&case.expected));
        let signer = case.signer_index;
        aggregate.check_partial(&keys[signer], &nonces[signer], &sum, &message, &partial).unwrap();
        signed += 1;
    }
    assert_eq!(signed, 4);
    for case in &vectors.sign_error_test_cases {
        let message = array(&vectors.msgs[case.msg_index]);
        let signed = keys_of(&vectors.pubkeys, &case.key_indices).and_then(|keys| {
            let aggregate = KeyAggregate::in_order(&keys).unwrap();
            let sum = AggregateNonce::from_bytes(&array(&vectors.aggnonces[case.aggnonce_index])).ok()?;
            SecretNonce::from_bytes(&bytes(&vectors.secnonces[case.secnonce_index]))?
                .sign(&key, &aggregate, &sum, &message)
        });
        assert!(signed.is_none());
    }
    for case in vectors.verify_fail_test_cases.iter().chain(&vectors.verify_error_test_cases) {
        let message = array(&vectors.msgs[case.msg_index]);
        let passed = keys_of(&vectors.pubkeys, &case.key_indices).and_then(|keys| {
            let nonces = nonces_of(&case.nonce_indices)?;
            let partial = PartialSignature::from_bytes(&array(&case.sig)).ok()?;
            let aggregate = KeyAggregate::in_order(&keys).unwrap();
            let (signer, sum) = (case.signer_index, AggregateNonce::sum(&nonces));
            aggregate.check_partial(&keys[signer], &nonces[signer], &sum, &message, &partial).ok()
        });
        assert!(passed.is_none());
    }
    let counts = (vectors.sign_error_test_cases.len(), vectors.verify_fail_test_cases.len());
    assert_eq!((counts, vectors.verify_error_test_cases.len()), ((6, 3), 2));
}

#[test]
fn bip327_tweaks() {
    #[derive(Deserialize)]
    struct Vectors {
        sk: Hex,
        pubkeys: Vec<Hex>,
        secnonce: Hex,
        pnonces: Vec<Hex>,
        aggnonce: Hex,
        tweaks: Vec<Hex>,
        msg: Hex,
        valid_test_cases: Vec<Case>,
        error_test_cases: Vec<Case>,
    }
    #[derive(Deserialize)]
    struct Case {
        key_indices: Vec<usize>,
        nonce_indices: Vec<usize>,
        tweak_indices: Vec<usize>,
        is_xonly: Vec<bool>,
        signer_index: usize,
        expected: Option<Hex>,
    }
    let vectors: Vectors = serde_json::from_str(include_str!("vectors/tweak_vectors.json")).unwrap();
    let key = MemberKey::from_bytes(&array(&vectors.sk)).unwrap();
    let message = array(&vectors.msg);
    let sum = AggregateNonce::from_bytes(&array(&vectors.aggnonce)).unwrap();
    for case in vectors.valid_test_cases.iter().chain(&vectors.error_test_cases) {
        let keys = keys_of(&vectors.pubkeys, &case.key_indices).unwrap();
        let untweaked = KeyAggregate::in_order(&keys).unwrap();
        let tweaked = tweak(untweaked, &vectors.tweaks, &case.tweak_indices, &case.is_xonly);
        let Some(expected) = &case.expected else {
            assert!(tweaked.is_none());
            continue;
        };
        let tweaked = tweaked.unwrap();
        let secret = SecretNonce::from_bytes(&bytes(&vectors.secnonce)).unwrap();
        let partial = secret.sign(&key, &tweaked, &sum, &message).unwrap();
        assert_eq!(partial.to_bytes().to_vec(), bytes(expected));
        let nonce = PublicNonce::from_bytes(&array(&vectors.pnonces[case.nonce_indices[case.signer_index]])).unwrap();
        tweaked.check_partial(&keys[case.signer_index], &nonce, &sum, &message, &partial).unwrap();
    }
    assert_eq!((vectors.valid_test_cases.len(), vectors.error_test_cases.len()), (5, 1));
}

#[test]
fn bip327_sums_of_partial_signatures() {
    #[derive(Deserialize)]
    struct Vectors {
        pubkeys: Vec<Hex>,
        tweaks: Vec<Hex>,
        psigs: Vec<Hex>,
        msg: Hex,
        valid_test_cases: Vec<Case>,
        error_test_cases: Vec<Case>,
    }
    #[derive(Deserialize)]
    struct Case {
        aggnonce: Hex,
        key_indices: Vec<usize>,
        tweak_indices: Vec<usize>,
        is_xonly: Vec<bool>,
        psig_indices: Vec<usize>,
        expected: Option<Hex>,
    }
    let vectors: Vectors = serde_json::from_str(include_str!("vectors/sig_agg_vectors.json")).unwrap();
    let message = array(&vectors.msg);
    for case in vectors.valid_test_cases.iter().chain(&vectors.error_test_cases) {
        let keys = keys_of(&vectors.pubkeys, &case.key_indices).unwrap();
        let untweaked = KeyAggregate::in_order(&keys).unwrap();
        let key = tweak(untweaked, &vectors.tweaks, &case.tweak_indices, &case.is_xonly).unwrap();
        let sum = AggregateNonce::from_bytes(&array(&case.aggnonce)).unwrap();
        let partials: Result<Vec<_>, _> = case
            .psig_indices
            .iter()
            .map(|index| PartialSignature::from_bytes(&array(&vectors.psigs[*index])))
            .collect();
        match &case.expected {
            Some(expected) => {
                let signature = key.sum(&sum, &message, &partials.unwrap()).unwrap();
                assert_eq!(signature.serialize().to_vec(), bytes(expected));
            }
            None => assert!(partials.is_err()),
        }
    }
    assert_eq!((vectors.valid_test_cases.len(), vectors.error_test_cases.len()), (4, 1));
}

// The other implementation: libsecp256k1's own module.

struct Other {
    pair: libsecp::Keypair,
    nonce: Option<libsecp::musig::SecretNonce>,
}

/// A session of `n` members of whom those in `others` run libsecp256k1's module. Returns what both sides made of it.
fn mixed(n: u8, others: &[usize], merkle_root: Option<[u8; 32]>, message: [u8; 32], seed: u64) {
    let mut rng = StdRng::seed_from_u64(seed);
    let members = members((0..n).map(|index| index * 3 + u8::try_from(seed % 3).unwrap() + 1));
    let internal = aggregate(&members);
    let ours = merkle_root.map_or_else(|| internal.clone(), |root| internal.tweaked(root).unwrap());
    let pairs: Vec<_> =
        members.iter().map(|member| libsecp::Keypair::from_secret_bytes(*member.to_bytes()).unwrap()).collect();
    let keys: Vec<_> = pairs.iter().map(libsecp::Keypair::public_key).collect();
    let mut cache = libsecp::musig::KeyAggCache::new(&keys.iter().collect::<Vec<_>>());
    if let Some(root) = merkle_root {
        let tweak = causeway_chainspec::tagged_hash("TapTweak", &[&internal.x_only().serialize(), &root]);
        cache.pubkey_xonly_tweak_add(&libsecp::Scalar::from_be_bytes(tweak).unwrap()).unwrap();
    }
    let other_key = cache.agg_pk_full().x_only_public_key().0;
    assert_eq!(ours.x_only().serialize(), other_key.to_byte_array());

    let session = SessionId::new(&message, &ours, 0);
    let mut stores: Vec<NonceStore> = members.iter().map(|_| NonceStore::new()).collect();
    let mut theirs: Vec<Other> = pairs.into_iter().map(|pair| Other { pair, nonce: None }).collect();
    let nonces: Vec<PublicNonce> = (0..members.len())
        .map(|index| {
            if !others.contains(&index) {
                return stores[index].open(session, &members[index], &ours, &message).unwrap();
            }
            let random = libsecp::musig::SessionSecretRand::assume_uniformly_random(rng.random());
            let (secret, public) =
                libsecp::musig::new_nonce_pair(random, Some(&cache), None, keys[index], Some(&message), None);
            theirs[index].nonce = Some(secret);
            PublicNonce::from_bytes(&public.serialize()).unwrap()
        })
        .collect();
    let sum = AggregateNonce::sum(&nonces);
    let other_nonces: Vec<_> =
        nonces.iter().map(|nonce| libsecp::musig::PublicNonce::from_byte_array(&nonce.to_bytes()).unwrap()).collect();
    let other_sum = libsecp::musig::AggregatedNonce::new(&other_nonces.iter().collect::<Vec<_>>());
    assert_eq!(other_sum.serialize(), sum.to_bytes());
    let other_session = libsecp::musig::Session::new(&cache, other_sum, &message);

    let mut partials = Vec::new();
    let mut other_partials = Vec::new();
    for index in 0..members.len() {
        let partial = match theirs[index].nonce.take() {
            None => stores[index].sign(session, &members[index], &ours, &sum, &message).unwrap(),
            Some(nonce) => {
                let partial = other_session.partial_sign(nonce, &theirs[index].pair, &cache);
                PartialSignature::from_bytes(&partial.serialize()).unwrap()
            }
        };
        // Each side checks every partial signature.
        ours.check_partial(&members[index].public_key(), &nonces[index], &sum, &message, &partial).unwrap();
        let other = libsecp::musig::PartialSignature::from_byte_array(&partial.to_bytes()).unwrap();
        assert!(other_session.partial_verify(&cache, &other, &other_nonces[index], keys[index]));
        partials.push(partial);
        other_partials.push(other);
    }
    let signature = ours.sum(&sum, &message, &partials).unwrap();
    let other = other_session.partial_sig_agg(&other_partials.iter().collect::<Vec<_>>());
    assert_eq!(other.verify(&other_key, &message).unwrap().to_byte_array(), signature.serialize());
}

#[test]
fn sessions_mixed_with_libsecp256k1_sign() {
    for seed in 0..30_u64 {
        let n = 2 + u8::try_from(seed % 5).unwrap();
        let others: Vec<usize> = (0..usize::from(n)).filter(|index| (seed >> index) & 1 == 1).collect();
        let message = causeway_chainspec::tagged_hash("message", &[&seed.to_le_bytes()]);
        mixed(n, &others, None, message, seed);
        mixed(n, &others, Some(message), message, seed);
    }
    mixed(15, &[0, 3, 7, 8, 14], Some([9; 32]), [8; 32], 1);
}

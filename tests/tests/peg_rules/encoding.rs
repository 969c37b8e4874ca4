//! Evidence has one encoding for each meaning, and that is frozen.

use bitcoin::hashes::{Hash, sha256};
use bitcoin::hex::DisplayHex;
use bitcoin::{Amount, OutPoint, Transaction};
use causeway_chainspec::{BitcoinHeight, Height, SatPerKvb};
use causeway_consensus::peg::evidence::{Evidence, PegIn};
use causeway_tests::draft::free_output;
use causeway_tests::parent::{ParentChain, peg_spec, quote, terms};
use causeway_tests::wallet::{Kind, Owner};

/// One item of each kind, and some more of those that may repeat.
fn evidence() -> Evidence {
    let spec = peg_spec(|parts| parts.launch = [3; 32]);
    let mut parent = ParentChain::new(&spec);
    let transactions: Vec<Transaction> =
        (1..=3).map(|value| parent.pay(vec![free_output(Amount::from_sat(value)); 2])).collect();
    let txids: Vec<_> = transactions.iter().map(Transaction::compute_txid).collect();
    parent.mine(transactions);
    parent.mine_empty(2);
    let proof = |index: usize| parent.proof(&txids[index]).expect("mined");
    let terms = terms(Owner::new(1).script_pubkey(Kind::P2wpkh), &Owner::new(2));
    let claim =
        |index: usize, vout| -> PegIn { parent.peg_in(&terms, OutPoint { txid: txids[index], vout }).expect("mined") };
    Evidence {
        headers: Some(parent.run_above(BitcoinHeight(1))),
        confirmed: vec![proof(0), proof(1)],
        spent: Some(proof(2)),
        peg_ins: vec![claim(0, 0), claim(0, 1), claim(2, 0)],
        fee_rate: Some(quote(&spec, 1, Height(1_000), SatPerKvb(12_345))),
        replace: vec![7, 0x0102_0304],
        open: true,
    }
}

/// Each kind by itself.
fn items() -> [(&'static str, Evidence); 7] {
    let Evidence { headers, confirmed, spent, peg_ins, fee_rate, replace, open } = evidence();
    let none = Evidence::default;
    [
        ("Headers", Evidence { headers, ..none() }),
        ("BatchConfirmed", Evidence { confirmed, ..none() }),
        ("CoinSpent", Evidence { spent, ..none() }),
        ("PegIn", Evidence { peg_ins, ..none() }),
        ("FeeRate", Evidence { fee_rate, ..none() }),
        ("ReplaceBatch", Evidence { replace, ..none() }),
        ("OpenBatch", Evidence { open, ..none() }),
    ]
}

#[test]
fn the_encoding_is_frozen() {
    let golden = [
        ("Headers", "a6c86381e6897781af9eb411dd91c6f71766541c1ede77baafdaa174ca0626fe"),
        ("BatchConfirmed", "5afef97f0d1e094752df9899263149031d290106ff1297c6a78f1218811b4bee"),
        ("CoinSpent", "dd2b249ac74a9804dd1e33940d13ab44739c5ace6a2813a80567e77cc7cd2cc1"),
        ("PegIn", "46c91b3dd3a6e5d9bcb000d9cb68ec66c857dca620666e2aba00bfc3d04bb615"),
        ("FeeRate", "5b23f54c0aca28a5a098487127c51b414bd9ed8c3586eb7eea8f956fa39b3908"),
        ("ReplaceBatch", "e8c9b0cfa1eda284b3f8a9c90b9b19a91c91ab24441bbefc38fb0f26b70cc955"),
        ("OpenBatch", "ca358758f6d27e6cf45272937977a748fd88391db679ceda7dc7bf1f005ee879"),
    ];
    let hash = |evidence: &Evidence| sha256::Hash::hash(&evidence.encode()).to_byte_array().to_lower_hex_string();
    let hashes = items().map(|(name, evidence)| (name, hash(&evidence)));
    assert_eq!(hashes, golden.map(|(name, hash)| (name, hash.to_owned())));
    let [.., replace, open] = items().map(|(_, evidence)| evidence.encode());
    assert_eq!(replace, [6, 7, 0, 0, 0, 6, 4, 3, 2, 1]);
    assert_eq!(open, [7]);
    // Together they are one after the other.
    assert_eq!(evidence().encode(), items().map(|(_, evidence)| evidence.encode()).concat());
}

#[test]
fn what_is_encoded_is_decoded() {
    for evidence in items().map(|(_, evidence)| evidence).into_iter().chain([evidence()]) {
        assert_eq!(Evidence::decode(&evidence.encode()), Some(evidence));
    }
    assert_eq!(Evidence::decode(&[]), None);
    for peg_in in evidence().peg_ins {
        let mut bytes = Vec::new();
        peg_in.encode(&mut bytes);
        assert_eq!(PegIn::decode(&bytes).as_ref(), Some(&peg_in));
        bytes.push(0);
        assert_eq!(PegIn::decode(&bytes), None);
    }
}

/// Whatever is decoded encodes to the same bytes again: there is no second encoding.
fn one_encoding(bytes: &[u8], original: &Evidence) {
    if let Some(decoded) = Evidence::decode(bytes) {
        assert_eq!(decoded.encode(), bytes);
        assert_ne!(decoded, *original);
    }
}

#[test]
fn there_is_one_encoding_of_each_meaning() {
    let evidence = evidence();
    let bytes = evidence.encode();
    for place in 0..bytes.len() {
        for bit in 0..8 {
            let mut other = bytes.clone();
            other[place] ^= 1 << bit;
            one_encoding(&other, &evidence);
        }
        for value in [0, 0xfd, 0xfe, 0xff] {
            let mut inserted = bytes.clone();
            inserted.insert(place, value);
            one_encoding(&inserted, &evidence);
        }
        let mut removed = bytes.clone();
        removed.remove(place);
        one_encoding(&removed, &evidence);
        one_encoding(&bytes[..place], &evidence);
    }
}

#[test]
fn kinds_stand_in_their_order_and_once() {
    let items = items().map(|(_, evidence)| evidence.encode());
    for (i, first) in items.iter().enumerate() {
        for (j, second) in items.iter().enumerate() {
            let repeats = matches!(i, 1 | 3 | 5);
            let decoded = Evidence::decode(&[first.as_slice(), second].concat());
            assert_eq!(decoded.is_some(), i < j || (i == j && repeats), "{i} before {j}");
        }
    }
    let all = items.concat();
    for kind in std::iter::once(0).chain(8..=255u8) {
        assert_eq!(Evidence::decode(&[kind]), None);
        assert_eq!(Evidence::decode(&[all.as_slice(), &[kind]].concat()), None);
        assert_eq!(Evidence::decode(&[&[kind], all.as_slice()].concat()), None);
    }
}

/// A count that promises more than there is makes no room for it.
#[test]
fn no_count_is_believed() {
    let huge = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f];
    let run = [&[1], [0; 32].as_slice(), &huge].concat();
    assert_eq!(Evidence::decode(&run), None);
    let destination = [&[4, 1, 0, 0, 0], huge.as_slice()].concat();
    assert_eq!(Evidence::decode(&destination), None);
    let inputs = [&[2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0], huge.as_slice()].concat();
    assert_eq!(Evidence::decode(&inputs), None);
}

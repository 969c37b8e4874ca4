//! What a real Bitcoin Core says of the federation's scripts: the same addresses, and every path of every output spends.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use bitcoin::absolute::LockTime;
use bitcoin::consensus::encode::serialize_hex;
use bitcoin::hashes::Hash;
use bitcoin::transaction::Version;
use bitcoin::{
    Address, Amount, FeeRate, Network, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Txid, Witness,
};
use causeway_chainspec::{ChainId, Epoch, EpochParts, Timelocks, devnet};
use causeway_consensus::peg::script::{CoinScript, DepositTerms, EpochScripts, SpendPath};
use causeway_federation::descriptor::descriptor;
use causeway_federation::spend::{Group, Signatures, Signers, Spend, SpendError, SpentCoin, ToSign};
use causeway_tests::bitcoind::Bitcoind;
use causeway_tests::wallet::{self, Kind, Owner, Spendable};
use secp256k1::schnorr::Signature;
use secp256k1::{Keypair, Message, SECP256K1, SecretKey, XOnlyPublicKey};
use serde_json::{Value, json};

const RECOVERY_DELAY: u16 = 20;
const REFUND_DELAY: u16 = 30;

/// Value of every coin of the federation.
const COIN: Amount = Amount::from_sat(1_000_000);

/// Coins of each kind: main, and deposit.
const COINS: usize = 8;

#[test]
fn bitcoin_core_knows_the_scripts_of_3_of_5() {
    Federation::new(5, 3).prove(&[vec![0, 1, 2], vec![1, 3, 4], vec![2, 3, 4]]);
}

#[test]
fn bitcoin_core_knows_the_scripts_of_11_of_15() {
    let last = (4..15).collect();
    let middle = vec![0, 2, 3, 4, 6, 7, 9, 10, 11, 13, 14];
    Federation::new(15, 11).prove(&[(0..11).collect(), middle, last]);
}

/// One subset or one member, thresholds beyond `OP_16`, and trees of every small shape.
#[test]
fn bitcoin_core_derives_the_addresses_of_small_and_odd_federations() {
    let core = Bitcoind::start();
    let small = (1..=5).flat_map(|n| (1..=n).map(move |t| (n, t)));
    for (n, t) in small.chain([(7, 4), (18, 17), (40, 39)]) {
        let federation = Federation::new(n, t);
        for coin in [CoinScript::Main, CoinScript::Deposit(terms())] {
            federation.has_the_address_of_its_descriptor(&core, &coin);
        }
    }
}

/// A federation whose every secret key is known here.
struct Federation {
    scripts: Arc<EpochScripts>,
    /// By x coordinate.
    secrets: BTreeMap<[u8; 32], SecretKey>,
}

fn chain() -> ChainId {
    ChainId::from_byte_array([5; 32])
}

fn terms() -> DepositTerms {
    DepositTerms {
        epoch: 1,
        destination: Owner::new(1).script_pubkey(Kind::P2wpkh),
        refund_key: devnet::secret_key("refund", 0).x_only_public_key(SECP256K1).0,
    }
}

fn destination() -> ScriptBuf {
    Owner::new(2).script_pubkey(Kind::P2wsh)
}

fn address(script: &ScriptBuf) -> String {
    Address::from_script(script, Network::Regtest).expect("an address").to_string()
}

impl Federation {
    fn new(n: u32, t: u32) -> Self {
        let keys = |role, count| (0..count).map(move |index| devnet::secret_key(role, index));
        let x_only = |secret: &SecretKey| secret.x_only_public_key(SECP256K1).0;
        let epoch = Epoch::new(EpochParts {
            number: 1,
            members: keys("member", n).map(|secret| secret.public_key(SECP256K1)).collect(),
            threshold: t,
            recovery_keys: keys("recovery", 3).map(|secret| x_only(&secret)).collect(),
            recovery_threshold: 2,
            timelocks: Timelocks {
                claim_window: 1,
                sweep_age: 2,
                recovery_delay: RECOVERY_DELAY,
                refund_delay: REFUND_DELAY,
            },
        })
        .expect("an epoch");
        let started = Instant::now();
        let scripts = EpochScripts::build(&epoch);
        let built = started.elapsed();
        let started = Instant::now();
        assert_eq!(EpochScripts::decode(&epoch, &scripts.encode()).as_ref(), Ok(&scripts));
        eprintln!("{t} of {n}: built in {built:?}, decoded in {:?}", started.elapsed());
        let secrets = keys("member", n).chain(keys("recovery", 3)).chain(keys("refund", 1));
        let secrets = secrets.map(|secret| (x_only(&secret).serialize(), secret)).collect();
        Self { scripts: Arc::new(scripts), secrets }
    }

    /// Everything that this file is about, for three subsets.
    fn prove(&self, subsets: &[Vec<u16>; 3]) {
        let core = Bitcoind::start();
        let deposit = CoinScript::Deposit(terms());
        let kinds = [CoinScript::Main, deposit.clone()];
        for coin in &kinds {
            self.has_the_address_of_its_descriptor(&core, coin);
        }
        let (mut mains, mut deposits) = self.fund(&core);
        let funded_at = height(&core);
        self.is_found_by_its_descriptors(&core, &kinds, [&mains, &deposits].map(|coins| &coins[..]));

        // Both kinds by every path of the members.
        let paths = [SpendPath::Key, SpendPath::MultiA].into_iter();
        for path in paths.chain(subsets.iter().cloned().map(SpendPath::Subset)) {
            for coins in [&mut mains, &mut deposits] {
                let coin = coins.pop().expect("enough coins");
                self.refuses_wrong_witnesses(&core, &coin, &path);
                let spend = self.spends(&core, vec![coin], &path);
                self.is_mined(&core, &[spend]);
            }
        }
        // As a batch is: version 3, coins of both kinds, a path for each.
        let batch = [mains.pop(), deposits.pop()].map(|coin| coin.expect("enough coins"));
        self.spends_as_a_batch(&core, batch.into(), &[SpendPath::Subset(subsets[1].clone()), SpendPath::MultiA]);

        // The timelocks: the last block before a coin is old enough, and the first after.
        let recovered = vec![mains.pop().expect("enough coins"), deposits.pop().expect("enough coins")];
        let refunded = vec![deposits.pop().expect("enough coins")];
        assert!(matches!(
            Spend::sweep(chain(), recovered.clone(), &SpendPath::Refund, destination(), rate()),
            Err(SpendError::NoPath { input: 0 })
        ));
        for (coins, path, delay) in
            [(recovered, SpendPath::Recovery, RECOVERY_DELAY), (refunded, SpendPath::Refund, REFUND_DELAY)]
        {
            // A coin that stands in block h is spent in block h + delay at the earliest.
            mine(&core, funded_at + u64::from(delay) - 2 - height(&core));
            let early = self.signed(&self.sweep(coins.clone(), &path), &path);
            assert_eq!(refusal(&core, &early), "non-BIP68-final", "{path:?}");
            mine(&core, 1);
            self.refuses_wrong_witnesses(&core, &coins[0], &path);
            let spend = self.spends(&core, coins, &path);
            self.is_mined(&core, &[spend]);
        }
    }

    fn has_the_address_of_its_descriptor(&self, core: &Bitcoind, coin: &CoinScript) {
        let descriptor = descriptor(&self.scripts, chain(), coin);
        let started = Instant::now();
        let addresses = core.call("deriveaddresses", &[&descriptor]);
        let script = self.scripts.output(chain(), coin).script_pubkey();
        assert_eq!(addresses, json!([address(&script)]));
        eprintln!("deriveaddresses of {} bytes: {:?}", descriptor.len(), started.elapsed());
    }

    /// Pays [`COINS`] main outputs and as many deposits, and mines the payment.
    fn fund(&self, core: &Bitcoind) -> (Vec<SpentCoin>, Vec<SpentCoin>) {
        let owner = Owner::new(3);
        let script = owner.script_pubkey(Kind::P2trKey);
        let blocks = core.call("generatetoaddress", &["1", &address(&script)]);
        mine(core, 100);
        let block = core.call("getblock", &[blocks[0].as_str().expect("a hash"), "1"]);
        let txid: Txid = block["tx"][0].as_str().expect("a txid").parse().expect("a txid");
        let output = TxOut { value: Amount::from_sat(50 * 100_000_000), script_pubkey: script };
        let reward = Spendable { outpoint: OutPoint { txid, vout: 0 }, output, owner, kind: Kind::P2trKey };

        let kinds = [CoinScript::Main, CoinScript::Deposit(terms())];
        let coins: Vec<CoinScript> = kinds.iter().flat_map(|coin| vec![coin.clone(); COINS]).collect();
        let mut outputs: Vec<TxOut> =
            coins.iter().map(|coin| wallet::output(COIN, self.scripts.output(chain(), coin).script_pubkey())).collect();
        let rest = reward.output.value - COIN * outputs.len() as u64 - Amount::from_sat(10_000);
        outputs.push(wallet::output(rest, destination()));
        let funding = wallet::spend(&[reward], outputs);
        self.is_mined(core, std::slice::from_ref(&funding));

        let txid = funding.compute_txid();
        let mut spent = coins.into_iter().zip(0..).map(|(coin, vout)| SpentCoin {
            outpoint: OutPoint { txid, vout },
            scripts: self.scripts.clone(),
            prevout: funding.output[vout as usize].clone(),
            coin,
        });
        let mains = spent.by_ref().take(COINS).collect();
        (mains, spent.collect())
    }

    fn is_found_by_its_descriptors(&self, core: &Bitcoind, kinds: &[CoinScript; 2], coins: [&[SpentCoin]; 2]) {
        let started = Instant::now();
        for (kind, coins) in kinds.iter().zip(coins) {
            let wanted = json!([descriptor(&self.scripts, chain(), kind)]).to_string();
            let found = core.call("scantxoutset", &["start", &wanted]);
            let mut found: Vec<OutPoint> = found["unspents"]
                .as_array()
                .expect("coins")
                .iter()
                .map(|coin| {
                    format!("{}:{}", coin["txid"].as_str().expect("a txid"), coin["vout"]).parse().expect("one")
                })
                .collect();
            found.sort();
            let mut expected: Vec<OutPoint> = coins.iter().map(|coin| coin.outpoint).collect();
            expected.sort();
            assert_eq!(found, expected);
        }
        eprintln!("scantxoutset, twice: {:?}", started.elapsed());
    }

    fn sweep(&self, coins: Vec<SpentCoin>, path: &SpendPath) -> Spend {
        Spend::sweep(chain(), coins, path, destination(), rate()).expect("a path of these coins")
    }

    /// All inputs by one path; accepted by the mempool at the size that was computed.
    fn spends(&self, core: &Bitcoind, coins: Vec<SpentCoin>, path: &SpendPath) -> Transaction {
        let spend = self.sweep(coins, path);
        let transaction = self.signed(&spend, path);
        let vsize = spend.signed_weight(path).expect("a path of these coins").to_vbytes_ceil();
        assert_eq!(accepted(core, &transaction), vsize);
        let input = spend.to_sign(0, path).expect("a path of this coin");
        // Outpoint, empty scriptSig and sequence are 41 bytes.
        let quarters = 4 * 41 + input.witness_size();
        let epoch = self.scripts.epoch();
        eprintln!(
            "{} of {} {:8} {:8}: input {}.{:02} vB, transaction {vsize} vB",
            epoch.threshold(),
            epoch.members().len(),
            match spend.coins()[0].coin {
                CoinScript::Main => "main",
                CoinScript::Deposit(_) => "deposit",
            },
            match path {
                SpendPath::Key => "key",
                SpendPath::Subset(_) => "subset",
                SpendPath::MultiA => "multi_a",
                SpendPath::Recovery => "recovery",
                SpendPath::Refund => "refund",
            },
            quarters / 4,
            quarters % 4 * 25,
        );
        transaction
    }

    fn spends_as_a_batch(&self, core: &Bitcoind, coins: Vec<SpentCoin>, paths: &[SpendPath]) {
        let value: Amount = coins.iter().map(|coin| coin.prevout.value).sum();
        let transaction = Transaction {
            version: Version(3),
            lock_time: LockTime::ZERO,
            input: coins
                .iter()
                .map(|coin| TxIn {
                    previous_output: coin.outpoint,
                    sequence: Sequence::ENABLE_RBF_NO_LOCKTIME,
                    ..TxIn::default()
                })
                .collect(),
            output: vec![wallet::output(value - Amount::from_sat(5_000), self.scripts.main_script().into())],
        };
        let spend = Spend::new(chain(), transaction, coins).expect("these coins");
        let witnesses = (0..).zip(paths).map(|(input, path)| self.witness(&spend, input, path)).collect();
        let signed = spend.signed(witnesses).expect("a witness for each");
        accepted(core, &signed);
        self.is_mined(core, &[signed]);
    }

    /// The transaction with every input signed by one path.
    fn signed(&self, spend: &Spend, path: &SpendPath) -> Transaction {
        let witnesses = (0..spend.coins().len()).map(|input| self.witness(spend, input, path)).collect();
        spend.signed(witnesses).expect("a witness for each")
    }

    fn witness(&self, spend: &Spend, input: usize, path: &SpendPath) -> Witness {
        let to_sign = spend.to_sign(input, path).expect("a path of this coin");
        to_sign.witness(&self.signatures(&to_sign)).expect("signed by the right keys")
    }

    /// As few signatures as do, of the last keys.
    fn signatures(&self, to_sign: &ToSign) -> Signatures {
        match to_sign.signers() {
            Signers::Group(group) => Signatures::Group(self.musig2(group, to_sign.sighash().to_byte_array())),
            Signers::Each { threshold, keys } => {
                let idle = keys.len() - *threshold as usize;
                let last = (0..).zip(keys).skip(idle);
                Signatures::Each(last.map(|(at, key)| (at, self.schnorr(key, to_sign))).collect())
            }
        }
    }

    fn schnorr(&self, key: &XOnlyPublicKey, to_sign: &ToSign) -> Signature {
        let pair = Keypair::from_secret_key(SECP256K1, &self.secrets[&key.serialize()]);
        SECP256K1.sign_schnorr_no_aux_rand(&Message::from(to_sign.sighash()), &pair)
    }

    /// A signing session of all of a group at once.
    fn musig2(&self, group: &Group, message: [u8; 32]) -> Signature {
        use musig2::secp::{Point, Scalar};
        use musig2::{AggNonce, CompactSignature, KeyAggContext, PartialSignature, SecNonce};

        let points = group.keys.iter().map(|key| Point::from_slice(&key.serialize()).expect("a point"));
        let mut context = KeyAggContext::new(points).expect("an aggregate");
        if let Some(root) = group.merkle_root {
            context = context.with_taproot_tweak(&root.to_byte_array()).expect("a tweak");
        }
        let secrets: Vec<Scalar> = group
            .keys
            .iter()
            .map(|key| &self.secrets[&key.x_only_public_key().0.serialize()])
            .map(|secret| Scalar::from_slice(&secret.secret_bytes()).expect("a secret key"))
            .collect();
        let key: Point = context.aggregated_pubkey();
        assert_eq!(key.serialize_xonly(), group.key.serialize());
        let nonces: Vec<SecNonce> =
            secrets.iter().map(|secret| SecNonce::generate([9; 32], *secret, key, message, [])).collect();
        let nonce = AggNonce::sum(nonces.iter().map(SecNonce::public_nonce));
        let partials: Vec<PartialSignature> = secrets
            .into_iter()
            .zip(nonces)
            .map(|(secret, own)| musig2::sign_partial(&context, secret, own, &nonce, message).expect("a member"))
            .collect();
        let signature: CompactSignature =
            musig2::aggregate_partial_signatures(&context, &nonce, partials, message).expect("valid");
        Signature::from_slice(&signature.serialize()).expect("64 bytes")
    }

    /// Bitcoin Core refuses what this crate would not make: a wrong signature, a wrong leaf, one signature too many or too
    /// few, signatures in another order.
    fn refuses_wrong_witnesses(&self, core: &Bitcoind, coin: &SpentCoin, path: &SpendPath) {
        let spend = self.sweep(vec![coin.clone()], path);
        let to_sign = spend.to_sign(0, path).expect("a path of this coin");
        let right = to_sign.witness(&self.signatures(&to_sign)).expect("signed by the right keys").to_vec();
        let refused = |elements: Vec<Vec<u8>>, why: &str| {
            assert_ne!(elements, right);
            let transaction = spend.signed(vec![Witness::from_slice(&elements)]).expect("one input");
            let reason = refusal(core, &transaction);
            assert!(reason.contains(why), "{path:?}: {reason}");
        };
        let with = |at: usize, element: Vec<u8>| {
            let mut elements = right.clone();
            elements[at] = element;
            elements
        };
        // The signature of the last key, or of a group, is the first element.
        let mut flipped = right[0].clone();
        flipped[40] ^= 1;
        refused(with(0, flipped), "Invalid Schnorr signature");

        match to_sign.signers() {
            Signers::Group(group) => {
                if *path == SpendPath::Key {
                    // Signed under the aggregate without its tweak.
                    let untweaked = Group { merkle_root: None, key: self.scripts.internal_key(), ..group.clone() };
                    let signature = self.musig2(&untweaked, to_sign.sighash().to_byte_array());
                    refused(with(0, signature.serialize().to_vec()), "Invalid Schnorr signature");
                } else {
                    // The same t members' signature for the leaf of others, and their leaf with this proof.
                    let (other, _) = self.scripts.subsets().find(|(subset, _)| *subset != group.members).expect("more");
                    let other = spend.to_sign(0, &SpendPath::Subset(other)).expect("a path of this coin");
                    let leaf = other.leaf().expect("a leaf");
                    let theirs = [leaf.script.to_bytes(), leaf.control_block.serialize()];
                    refused([vec![right[0].clone()], theirs.to_vec()].concat(), "Invalid Schnorr signature");
                    refused(with(1, leaf.script.to_bytes()), "Witness program hash mismatch");
                }
            }
            Signers::Each { keys, threshold } => {
                // One too many, where there is one more key.
                let last = keys.len() - 1;
                if keys.len() > *threshold as usize {
                    // The first key does not sign: its element is the last before script and control block.
                    assert!(right[last].is_empty());
                    let extra = self.schnorr(&keys[0], &to_sign).serialize().to_vec();
                    refused(with(last, extra), "script");
                }
                refused(with(0, vec![]), "script");
                if *threshold > 1 {
                    let mut reversed = right.clone();
                    reversed[..=last].reverse();
                    refused(reversed, "Invalid Schnorr signature");
                }
            }
        }
    }

    /// Sends transactions and mines them.
    fn is_mined(&self, core: &Bitcoind, transactions: &[Transaction]) {
        for transaction in transactions {
            core.call("sendrawtransaction", &[&serialize_hex(transaction)]);
        }
        let block = mine(core, 1);
        let block = core.call("getblock", &[block[0].as_str().expect("a hash"), "1"]);
        let mined = block["tx"].as_array().expect("txids");
        for transaction in transactions {
            assert!(mined.contains(&json!(transaction.compute_txid().to_string())));
        }
    }
}

fn rate() -> FeeRate {
    FeeRate::from_sat_per_vb_u32(2)
}

fn height(core: &Bitcoind) -> u64 {
    core.call("getblockcount", &[]).as_u64().expect("a height")
}

/// Mines blocks that pay somebody else, and returns their hashes.
fn mine(core: &Bitcoind, blocks: u64) -> Value {
    core.call("generatetoaddress", &[&blocks.to_string(), &address(&destination())])
}

fn judged(core: &Bitcoind, transaction: &Transaction) -> Value {
    let wanted = json!([serialize_hex(transaction)]).to_string();
    core.call("testmempoolaccept", &[&wanted])[0].clone()
}

/// The size at which the mempool takes a transaction.
fn accepted(core: &Bitcoind, transaction: &Transaction) -> u64 {
    let answer = judged(core, transaction);
    assert_eq!(answer["allowed"], true, "{answer}");
    answer["vsize"].as_u64().expect("a size")
}

/// Why the mempool refuses a transaction.
fn refusal(core: &Bitcoind, transaction: &Transaction) -> String {
    let answer = judged(core, transaction);
    assert_eq!(answer["allowed"], false, "{answer}");
    answer["reject-details"].as_str().or(answer["reject-reason"].as_str()).expect("a reason").to_owned()
}

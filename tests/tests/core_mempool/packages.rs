//! Packages beside `submitpackage`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bitcoin::consensus::encode::serialize_hex;
use bitcoin::{Amount, OutPoint, Transaction, Txid, Wtxid};
use causeway_chainspec::SatPerKvb;
use causeway_node::mempool::{Package, PackageForm, PackageResult, TxResult};
use causeway_tests::sim::rng::Rng;
use causeway_tests::wallet::{Kind, Owner, Spendable};
use serde_json::Value;

use super::draft::{Draft, Fee, Input, anchor, break_input, data};
use super::known::{Known, why};
use super::world::World;
use super::{SHOWN, seeds};

/// Histories of a run.
const HISTORIES: u64 = 150;

/// Packages of a history at most.
const STEPS: u64 = 4;

/// Coins of a history.
const COINS: usize = 6;

const KINDS: [Kind; 2] = [Kind::P2wpkh, Kind::P2trKey];

#[test]
fn packages_get_cores_verdict() {
    let mut world = World::new(&KINDS);
    let (mut messages, mut known) = (BTreeMap::<String, u32>::new(), BTreeMap::<Known, u32>::new());
    let mut wrong = Vec::new();
    for seed in seeds(HISTORIES) {
        let mut rng = Rng::new(seed);
        let (mut pool, coins) = world.history(COINS);
        let mut history = History { coins, used: Vec::new(), parents: Vec::new(), outputs: Vec::new() };
        let mut sent = BTreeSet::new();
        for _ in 0..rng.below(STEPS) + 1 {
            let transactions = history.package(&mut rng, world.owner());
            sent.extend(transactions.iter().map(Transaction::compute_txid));
            let theirs = world.submit_package(&transactions).map(|answer| Answer::of_core(&answer));
            let ours = match Package::new(transactions.iter().cloned().map(Arc::new).collect()) {
                Ok(package) => Ok(Answer::of_ours(world.ours(&mut pool).submit_package(&package))),
                Err(PackageForm::Topology) => Err(PackageForm::Topology),
                Err(form) => Ok(Answer::not_looked_at(form, &transactions)),
            };
            let message = match (&ours, &theirs) {
                (Err(form), Err(error)) if error.contains(&form.to_string()) => "topology".to_owned(),
                (Ok(ours), Ok(theirs)) if ours == theirs => {
                    theirs.message.split(',').next().unwrap_or_default().to_owned()
                }
                (ours, theirs) => {
                    let both = ours.as_ref().ok().zip(theirs.as_ref().ok());
                    if let Some(difference) = both.and_then(|(ours, theirs)| ours.difference(theirs)) {
                        *known.entry(difference).or_default() += 1;
                        break;
                    }
                    let hex: Vec<String> = transactions.iter().map(serialize_hex).collect();
                    wrong.push(format!("seed {seed}: ours {ours:#?}\nCore {theirs:#?}\n{hex:?}"));
                    break;
                }
            };
            *messages.entry(message).or_default() += 1;
            let theirs = world.mempool();
            let differs = |txid: &&Txid| pool.contains(txid) != theirs.contains(*txid);
            if let Some(txid) = sent.iter().find(differs) {
                wrong.push(format!("seed {seed}: {txid} is in one mempool only"));
                break;
            }
        }
    }
    assert!(wrong.is_empty(), "{} histories differ:\n{}", wrong.len(), wrong[..wrong.len().min(SHOWN)].join("\n"));
    println!("{messages:#?}, known differences {known:?}");
    for message in ["success", "transaction failed", "unspent-dust", "TRUC-violation"] {
        assert!(messages.contains_key(message), "{message} never came: {messages:#?}");
    }
    assert!(messages.keys().any(|message| message.starts_with("package RBF failed")), "{messages:#?}");
}

/// An answer of `submitpackage`, in a form that ours has too.
#[derive(Debug, PartialEq)]
struct Answer {
    message: String,
    results: BTreeMap<Wtxid, OneAnswer>,
    replaced: BTreeSet<Txid>,
}

#[derive(Debug, PartialEq)]
enum OneAnswer {
    Taken { vsize: u64, fee: Amount, feerate: Option<Amount>, includes: BTreeSet<Wtxid> },
    OtherWitness(Wtxid),
    Refused(String),
}

impl Answer {
    fn of_core(answer: &Value) -> Self {
        let amount = |value: &Value| value.as_f64().map(|btc| Amount::from_btc(btc).unwrap());
        let one = |result: &Value| match (result["error"].as_str(), result["other-wtxid"].as_str()) {
            (Some(error), _) => OneAnswer::Refused(without_script_error(error)),
            (None, Some(other)) => OneAnswer::OtherWitness(other.parse().unwrap()),
            (None, None) => OneAnswer::Taken {
                vsize: result["vsize"].as_u64().unwrap(),
                fee: amount(&result["fees"]["base"]).unwrap(),
                feerate: amount(&result["fees"]["effective-feerate"]),
                includes: hashes(&result["fees"]["effective-includes"]),
            },
        };
        let results = answer["tx-results"].as_object().unwrap();
        Self {
            message: answer["package_msg"].as_str().unwrap().to_owned(),
            results: results.iter().map(|(wtxid, result)| (wtxid.parse().unwrap(), one(result))).collect(),
            replaced: hashes(&answer["replaced-transactions"]),
        }
    }

    fn of_ours(result: PackageResult) -> Self {
        let one = |result: TxResult| match result {
            TxResult::Accepted { vsize, fee, feerate, includes } => {
                let SatPerKvb(rate) = feerate.rate();
                OneAnswer::Taken {
                    vsize,
                    fee,
                    feerate: Some(Amount::from_sat(rate)),
                    includes: includes.into_iter().collect(),
                }
            }
            TxResult::Known { vsize, fee } => OneAnswer::Taken { vsize, fee, feerate: None, includes: BTreeSet::new() },
            TxResult::OtherWitness(wtxid) => OneAnswer::OtherWitness(wtxid),
            TxResult::Refused(reject) => OneAnswer::Refused(without_script_error(&reject.to_string())),
        };
        let results =
            result.results.into_iter().map(|(transaction, result)| (transaction.compute_wtxid(), one(result)));
        Self {
            message: result.refused.map_or_else(|| "success".to_owned(), |refused| refused.to_string()),
            results: results.collect(),
            replaced: result.replaced,
        }
    }

    fn not_looked_at(form: PackageForm, transactions: &[Transaction]) -> Self {
        let error = OneAnswer::Refused("package-not-validated".to_owned());
        let results = transactions.iter().map(|one| (one.compute_wtxid(), error.copy()));
        Self { message: form.to_string(), results: results.collect(), replaced: BTreeSet::new() }
    }

    /// The difference that is meant, if there is no other.
    fn difference(&self, core: &Self) -> Option<Known> {
        let text = |answer: &OneAnswer| match answer {
            OneAnswer::Refused(error) => Some(error.clone()),
            OneAnswer::Taken { .. } | OneAnswer::OtherWitness(_) => None,
        };
        let differ = self.results.iter().filter(|(wtxid, ours)| core.results.get(*wtxid) != Some(*ours));
        let by_one = differ.filter_map(|(wtxid, ours)| {
            let core = text(core.results.get(wtxid)?);
            let reason = core.as_deref().map(|core| core.split(',').next().unwrap_or_default());
            why(text(ours).as_deref(), reason)
        });
        let message = |answer: &Self| (answer.message != "success").then(|| answer.message.clone());
        let whole = why(message(self).as_deref(), message(core).as_deref());
        whole.or_else(|| by_one.min())
    }
}

impl OneAnswer {
    fn copy(&self) -> Self {
        match self {
            Self::Taken { vsize, fee, feerate, includes } => {
                Self::Taken { vsize: *vsize, fee: *fee, feerate: *feerate, includes: includes.clone() }
            }
            Self::OtherWitness(wtxid) => Self::OtherWitness(*wtxid),
            Self::Refused(error) => Self::Refused(error.clone()),
        }
    }
}

fn hashes<T: std::str::FromStr<Err: std::fmt::Debug> + Ord>(value: &Value) -> BTreeSet<T> {
    let Some(values) = value.as_array() else { return BTreeSet::new() };
    values.iter().map(|value| value.as_str().unwrap().parse().unwrap()).collect()
}

/// The interpreter's words are known to us for the common forms only.
fn without_script_error(error: &str) -> String {
    let start = "mempool-script-verify-flag-failed";
    if error.starts_with(start) { start.to_owned() } else { error.to_owned() }
}

/// What a history has so far.
struct History {
    coins: Vec<Spendable>,
    /// Coins that a transaction has spent, taken or not.
    used: Vec<Spendable>,
    /// Parents that were handed in, taken or not.
    parents: Vec<(Draft, Transaction)>,
    /// Payments of transactions that were handed in, taken or not.
    outputs: Vec<Spendable>,
}

impl History {
    /// A coin that nothing has spent, or in so many of a hundred cases one that something has.
    fn coin(&mut self, rng: &mut Rng, again: u64) -> Spendable {
        if (rng.chance(again) && !self.used.is_empty()) || self.coins.is_empty() {
            return rng.pick(&self.used).unwrap().clone();
        }
        let coin = self.coins.pop().unwrap();
        self.used.push(coin.clone());
        coin
    }

    fn package(&mut self, rng: &mut Rng, owner: &Owner) -> Vec<Transaction> {
        let version = [3, 3, 3, 2][rng.index(4)];
        let mut parents = Vec::new();
        for _ in 0..[1, 1, 1, 1, 1, 1, 2, 3][rng.index(8)] {
            let known = rng.chance(20).then(|| rng.pick(&self.parents).cloned()).flatten();
            parents.push(known.unwrap_or_else(|| self.parent(rng, owner, version)));
        }
        let child = self.child(rng, owner, version, &parents);
        self.parents.extend(parents.iter().cloned());
        let mut package: Vec<Transaction> = parents.into_iter().map(|(_, parent)| parent).collect();
        package.push(child);
        match rng.below(100) {
            0..5 => {
                let broken = rng.index(package.len());
                break_input(rng, &mut package[broken]);
            }
            5..7 => package.reverse(),
            7..9 => {
                let twice = package[0].clone();
                package.insert(0, twice);
            }
            9..14 => drop(package.remove(0)),
            _ => {}
        }
        package
    }

    fn parent(&mut self, rng: &mut Rng, owner: &Owner, version: i32) -> (Draft, Transaction) {
        let mut inputs = vec![match rng.chance(8).then(|| rng.pick(&self.outputs).cloned()).flatten() {
            Some(output) => Input::Coin(output),
            None => Input::Coin(self.coin(rng, 35)),
        }];
        if rng.chance(15) {
            let more = self.coin(rng, 35);
            if inputs[0].outpoint() != more.outpoint {
                inputs.push(Input::Coin(more));
            }
        }
        let mut others = Vec::new();
        if rng.chance(55) {
            others.push(anchor(if rng.chance(85) { 0 } else { rng.below(300) }));
        }
        if rng.chance(8) {
            others.push(data(rng.index(3_000)));
        }
        let fee = match rng.below(10) {
            0..6 => Fee::Sat(0),
            6 => Fee::Sat(rng.below(12)),
            7 => Fee::Around { others_vsize: 0, others_fee: 0, more: [-1, 0, 1][rng.index(3)] },
            _ => Fee::Sat(rng.below(3_000)),
        };
        let payments = (0..1 + rng.index(2)).map(|_| *rng.pick(&KINDS).unwrap()).collect();
        let draft =
            Draft { version, lock_time: 0, sequence: u32::MAX - 2, inputs, payments, others, fee, hash_type: 0 };
        let transaction = draft.sign(owner);
        self.outputs.extend(draft.coins(&transaction, owner));
        (draft, transaction)
    }

    fn child(&mut self, rng: &mut Rng, owner: &Owner, version: i32, parents: &[(Draft, Transaction)]) -> Transaction {
        let mut inputs: Vec<Input> = Vec::new();
        let (mut others_vsize, mut others_fee) = (0, 0);
        for (draft, parent) in parents {
            others_vsize += parent.vsize() as u64;
            let spent: Amount = draft.inputs.iter().map(Input::value).sum();
            others_fee += (spent - parent.output.iter().map(|output| output.value).sum::<Amount>()).to_sat();
            let dust = parent.output.iter().position(|output| output.script_pubkey == anchor(0).script_pubkey);
            let dust = dust.filter(|_| rng.chance(88)).map(|vout| {
                let outpoint = OutPoint { txid: parent.compute_txid(), vout: u32::try_from(vout).unwrap() };
                Input::Anchor(outpoint, parent.output[vout].clone())
            });
            let payments = draft.coins(parent, owner);
            if dust.is_none() || rng.chance(40) {
                inputs.push(Input::Coin(rng.pick(&payments).unwrap().clone()));
            }
            inputs.extend(dust);
        }
        if rng.chance(60) || inputs.iter().map(Input::value).sum::<Amount>() < Amount::from_sat(200_000) {
            inputs.push(Input::Coin(self.coin(rng, 30)));
        }
        // The same parent twice gives the same inputs.
        let mut seen = BTreeSet::new();
        inputs.retain(|input| seen.insert(input.outpoint()));
        let fee = match rng.below(12) {
            0 => Fee::Sat(0),
            1 => Fee::Sat(rng.below(40)),
            2..5 => Fee::Around { others_vsize, others_fee, more: [-1, 0, 1][rng.index(3)] },
            5..9 => Fee::Sat(rng.below(6_000)),
            _ => Fee::Sat(rng.below(100_000)),
        };
        let others = if rng.chance(10) { vec![data(rng.index(1_400))] } else { vec![] };
        let version = if rng.chance(6) { 5 - version } else { version };
        let payments = vec![*rng.pick(&KINDS).unwrap()];
        let draft =
            Draft { version, lock_time: 0, sequence: u32::MAX - 2, inputs, payments, others, fee, hash_type: 0 };
        let transaction = draft.sign(owner);
        self.outputs.extend(draft.coins(&transaction, owner));
        transaction
    }
}

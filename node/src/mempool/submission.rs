//! The way of a package into the pool: each transaction by itself, then those that need each other together (Bitcoin Core:
//! `AcceptPackage`). The answer is that of `submitpackage`.

use std::collections::BTreeSet;
use std::sync::Arc;

use bitcoin::{Amount, Transaction, Txid, Wtxid};
use causeway_chainspec::SatPerKvb;
use causeway_consensus::{ChainView, StateFault};

use super::check::{Checked, CoinRequest};
use super::feerate::FeeFraction;
use super::package::{CheckedPackage, Package, PackageCheckError, PackageOutcome, PackageReject, PackageRequest};
use super::reject::{CheckError, NotYet, PolicyReject, Reject};
use super::{Departed, Departure, Mempool, Outcome};

/// How often a package is begun anew because one of its transactions has entered meanwhile from elsewhere.
const MAX_ANEW: u8 = 3;

/// A package on its way: begin it, and answer each check that it asks for.
#[derive(Debug)]
pub struct Submission {
    parts: Vec<Part>,
    max_feerate: Option<SatPerKvb>,
    /// The next to try by itself; all have been tried if it is the number of parts.
    next: usize,
    /// Those that are tried together, by place.
    together: Vec<usize>,
    refused: Option<PackageReject>,
    replaced: BTreeSet<Txid>,
    anew: u8,
}

#[derive(Debug)]
struct Part {
    transaction: Arc<Transaction>,
    txid: Txid,
    wtxid: Wtxid,
    entered_s: u64,
    result: Option<TxResult>,
}

/// What became of one transaction of a package.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TxResult {
    /// It is in the pool now.
    Accepted {
        /// Virtual bytes that its fee counts for.
        vsize: u64,
        /// What it pays.
        fee: Amount,
        /// The feerate that it was taken for: its own, or the package's.
        feerate: FeeFraction,
        /// The transactions that this feerate counts.
        includes: Vec<Wtxid>,
    },
    /// It was in the pool.
    Known {
        /// Virtual bytes that its fee counts for.
        vsize: u64,
        /// What it pays.
        fee: Amount,
    },
    /// It is in the pool with another witness: this one was not looked at.
    OtherWitness(Wtxid),
    /// It is not taken.
    Refused(Reject),
}

/// What became of a package.
#[derive(Debug, Clone)]
pub struct PackageResult {
    /// Why not all of it is in the pool.
    pub refused: Option<PackageReject>,
    /// Each of its transactions, in their order.
    pub results: Vec<(Arc<Transaction>, TxResult)>,
    /// What left the pool for it.
    pub replaced: BTreeSet<Txid>,
}

/// What a package needs next.
#[derive(Debug)]
pub enum Turn {
    /// This check, and its answer.
    Check(PackageCheck),
    /// The same once more, behind the events that wait already: see [`Outcome::Again`].
    Again(PackageCheck),
    /// Nothing.
    Done(PackageResult),
}

/// A check for a package. Send it to where the chain can be read.
#[derive(Debug, Clone)]
pub enum PackageCheck {
    /// Of one of its transactions by itself.
    One(Box<CoinRequest>),
    /// Of several together.
    Together(Box<PackageRequest>),
}

/// The answer to a [`PackageCheck`].
#[derive(Debug)]
pub enum PackageAnswer {
    /// Of one by itself.
    One(Result<Box<Checked>, Reject>),
    /// Of several together.
    Together(Result<Box<CheckedPackage>, PackageReject>),
}

impl PackageCheck {
    /// Reads the coins and checks, on any thread.
    ///
    /// # Errors
    /// Only if the state cannot be read, or Bitcoin Core's library fails where it cannot.
    pub fn run(self, view: &impl ChainView) -> Result<PackageAnswer, StateFault> {
        match self {
            Self::One(request) => match request.resolve(view).and_then(|job| job.run()) {
                Ok(checked) => Ok(PackageAnswer::One(Ok(Box::new(checked)))),
                Err(CheckError::Rejected(reject)) => Ok(PackageAnswer::One(Err(reject))),
                Err(CheckError::Fault(fault)) => Err(fault),
            },
            Self::Together(request) => match request.check(view) {
                Ok(checked) => Ok(PackageAnswer::Together(Ok(Box::new(checked)))),
                Err(PackageCheckError::Rejected(reject)) => Ok(PackageAnswer::Together(Err(reject))),
                Err(PackageCheckError::Fault(fault)) => Err(fault),
            },
        }
    }
}

impl Submission {
    /// A package that arrived at `now_s` (seconds of Unix time). No transaction of it enters whose own feerate is above
    /// `max_feerate`, if there is one.
    pub fn new(package: &Package, max_feerate: Option<SatPerKvb>, now_s: u64) -> Self {
        let times = package.transactions().iter().map(|_| now_s).collect::<Vec<_>>();
        Self { max_feerate, ..Self::entered_at(package, &times) }
    }

    /// The same of transactions that had entered a pool at these times, before a restart.
    pub fn entered_at(package: &Package, times: &[u64]) -> Self {
        let part = |(transaction, entered_s): (&Arc<Transaction>, &u64)| Part {
            txid: transaction.compute_txid(),
            wtxid: transaction.compute_wtxid(),
            transaction: Arc::clone(transaction),
            entered_s: *entered_s,
            result: None,
        };
        Self {
            parts: package.transactions().iter().zip(times).map(part).collect(),
            max_feerate: None,
            next: 0,
            together: Vec::new(),
            refused: None,
            replaced: BTreeSet::new(),
            anew: 0,
        }
    }

    /// How many transactions it has.
    pub fn len(&self) -> usize {
        self.parts.len()
    }

    /// Whether it has none: never.
    pub fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    /// Takes the first step, or the next one after a transaction has its result.
    pub fn step(&mut self, pool: &Mempool, now_s: u64) -> Turn {
        while let Some(part) = self.parts.get_mut(self.next) {
            let known = pool.get(&part.txid).map(|entry| match entry.wtxid() == part.wtxid {
                true => TxResult::Known { vsize: entry.vsize(), fee: entry.fee() },
                false => TxResult::OtherWitness(entry.wtxid()),
            });
            let begun = match known {
                // It may have been taken by itself, before the package was begun anew.
                Some(TxResult::Known { .. }) if matches!(part.result, Some(TxResult::Accepted { .. })) => None,
                Some(result) => Some(Ok(result)),
                None => {
                    let transaction = Arc::clone(&part.transaction);
                    let subject = pool.subject(transaction, part.entered_s, now_s, self.max_feerate);
                    match subject.and_then(|subject| pool.request(subject, None, 0, now_s)) {
                        Ok(request) => return Turn::Check(PackageCheck::One(Box::new(request))),
                        Err(reject) => Some(Err(reject)),
                    }
                }
            };
            match begun {
                Some(Ok(result)) => part.result = Some(result),
                Some(Err(reject)) => self.refuse_one(reject),
                None => {}
            }
            self.next += 1;
        }
        // What fails for another reason fails in any company, and nothing is left to gain with the rest.
        let hopeless =
            self.parts.iter().any(|part| matches!(&part.result, Some(TxResult::Refused(reject)) if !may_help(reject)));
        if hopeless || self.together.len() < 2 {
            return self.done(pool);
        }
        let together = self.together.iter().map(|place| &self.parts[*place]);
        let together = together.map(|part| (Arc::clone(&part.transaction), part.entered_s)).collect();
        match pool.begin_package(together, self.max_feerate, now_s) {
            Ok(request) => Turn::Check(PackageCheck::Together(Box::new(request))),
            Err(reject) => self.refuse_together(pool, reject, now_s),
        }
    }

    /// Takes in the answer to the last check. What left the pool is added to `departed`.
    pub fn answered(
        &mut self,
        pool: &mut Mempool,
        answer: PackageAnswer,
        now_s: u64,
        departed: &mut Vec<Departed>,
    ) -> Turn {
        let first_gone = departed.len();
        let turn = match answer {
            PackageAnswer::One(Ok(checked)) => {
                let finish = pool.finish(*checked, now_s);
                departed.extend(finish.departed);
                match finish.outcome {
                    Outcome::Again(request) => Some(Turn::Again(PackageCheck::One(request))),
                    Outcome::Rejected(reject) => {
                        self.refuse_one(reject);
                        None
                    }
                    Outcome::Accepted { txid, .. } => {
                        self.accept(pool, &[txid], None);
                        None
                    }
                }
            }
            PackageAnswer::One(Err(reject)) => {
                self.refuse_one(reject);
                None
            }
            PackageAnswer::Together(checked) => {
                let outcome = checked.and_then(|checked| pool.finish_package(*checked, now_s, departed));
                Some(match outcome {
                    Ok(PackageOutcome::Again(request)) => Turn::Again(PackageCheck::Together(request)),
                    Ok(PackageOutcome::Accepted { feerate }) => {
                        let txids: Vec<Txid> = self.together.iter().map(|place| self.parts[*place].txid).collect();
                        self.accept(pool, &txids, Some(feerate));
                        self.done(pool)
                    }
                    Err(reject) => self.refuse_together(pool, reject, now_s),
                })
            }
        };
        let replaced = departed[first_gone..].iter().filter(|gone| gone.why == Departure::Replaced);
        self.replaced.extend(replaced.map(|gone| gone.txid));
        match turn {
            Some(Turn::Done(result)) => Turn::Done(PackageResult { replaced: self.replaced.clone(), ..result }),
            Some(turn) => turn,
            None => {
                self.next += 1;
                self.step(pool, now_s)
            }
        }
    }

    /// The one that is tried is not taken by itself.
    fn refuse_one(&mut self, reject: Reject) {
        if may_help(&reject) {
            self.together.push(self.next);
        }
        if let Some(part) = self.parts.get_mut(self.next) {
            part.result = Some(TxResult::Refused(reject));
        }
    }

    /// Those that were tried together are not taken.
    fn refuse_together(&mut self, pool: &Mempool, refused: PackageReject, now_s: u64) -> Turn {
        if let Some((wtxid, reject)) = refused.member() {
            // It has come from elsewhere: what it needs is other company, or none.
            let entered = [PolicyReject::AlreadyInMempool, PolicyReject::SameTxidInMempool].map(Reject::Policy);
            if entered.contains(&reject) && self.anew < MAX_ANEW {
                self.anew += 1;
                (self.next, self.refused) = (0, None);
                self.together.clear();
                return self.step(pool, now_s);
            }
            if let Some(part) = self.parts.iter_mut().find(|part| part.wtxid == wtxid) {
                part.result = Some(TxResult::Refused(reject));
            }
        }
        self.refused = Some(refused);
        self.done(pool)
    }

    /// These are in the pool, for their own feerates or for that of all of them.
    fn accept(&mut self, pool: &Mempool, txids: &[Txid], together: Option<FeeFraction>) {
        let entries = txids.iter().filter_map(|txid| pool.get(txid));
        let all: Vec<Wtxid> = entries.map(|entry| entry.wtxid()).collect();
        for part in self.parts.iter_mut().filter(|part| txids.contains(&part.txid)) {
            part.result = pool.get(&part.txid).map(|entry| TxResult::Accepted {
                vsize: entry.vsize(),
                fee: entry.fee(),
                feerate: together.unwrap_or(entry.feerate()),
                includes: all.clone(),
            });
        }
    }

    fn first_refusal(&self) -> Option<PackageReject> {
        self.parts.iter().find_map(|part| match &part.result {
            Some(TxResult::Refused(reject)) => {
                Some(PackageReject::Member { wtxid: part.wtxid, reject: reject.clone() })
            }
            _ => None,
        })
    }

    fn done(&mut self, pool: &Mempool) -> Turn {
        for part in &mut self.parts {
            // What a later one has pushed out of the full pool.
            let taken = matches!(
                &part.result,
                Some(TxResult::Accepted { .. } | TxResult::Known { .. } | TxResult::OtherWitness(_))
            );
            if taken && !pool.contains(&part.txid) {
                part.result = Some(TxResult::Refused(PolicyReject::MempoolFull.into()));
            }
        }
        let refused = self.refused.take().or_else(|| self.first_refusal());
        let result = |part: &Part| {
            let result = part.result.clone().unwrap_or_else(|| TxResult::Refused(NotYet::ChainMoved.into()));
            (Arc::clone(&part.transaction), result)
        };
        let results = self.parts.iter().map(result).collect();
        Turn::Done(PackageResult { refused, results, replaced: self.replaced.clone() })
    }
}

/// Whether a transaction that is refused for this may be taken with others: for its fee, or for what a parent creates.
fn may_help(reject: &Reject) -> bool {
    reject.is_for_the_fee() || matches!(reject, Reject::NotYet(NotYet::MissingInput { .. }))
}

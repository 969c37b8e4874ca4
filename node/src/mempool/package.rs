//! Transactions that enter together, by their fees together: a child with parents that it pays for, as Bitcoin Core's
//! `AcceptMultipleTransactions` takes them, in its words.
//!
//! A package that conflicts with the pool is one parent and one child, neither with another unconfirmed parent, and what it
//! conflicts with has at most one relative (Core up to 30: `CheckConflictTopology`; 31.99 permits more). Then the feerate
//! diagram of what it replaces is known exactly, and it must be better.
//!
//! Cost: at most [`MAX_PACKAGE_COUNT`] transactions of [`MAX_PACKAGE_WEIGHT`] together. Fees are looked at before scripts,
//! so that a package which pays too little costs its coins' reads.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bitcoin::{Amount, OutPoint, Transaction, TxOut, Txid, Weight, Wtxid};
use causeway_chainspec::SatPerKvb;
use causeway_consensus::coin::is_unspendable;
use causeway_consensus::script::VerifiedScripts;
use causeway_consensus::spend::check_lock_time;
use causeway_consensus::{ChainView, StateFault};

use super::check::{CheckJob, Checked, CoinRequest, Facts, Subject};
use super::diagram::{Chunk, is_better};
use super::feerate::{BtcPerKvb, FeeFraction};
use super::graph::Graph;
use super::policy::{MAX_PACKAGE_COUNT, MAX_PACKAGE_WEIGHT, MAX_REPLACED, adjusted_weight, virtual_size};
use super::reject::{CheckError, InsufficientFee, Named, NotYet, PolicyReject, Reject, TooLongChain, TrucViolation};
use super::replace::{Least, Standing, Terms, leaves_dust, pays_for};
use super::{Departed, Departure, MAX_LATE, Mempool, truc};

/// A transaction, or a child with some of its parents, parents first: none of the parents spends from another (Core:
/// `IsChildWithParentsTree`, `IsWellFormedPackage`).
#[derive(Debug, Clone)]
pub struct Package(Vec<Arc<Transaction>>);

/// Why transactions are no package.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PackageForm {
    /// Not a child and its parents, or parents depend on each other.
    #[error("package topology disallowed. not child-with-parents or parents depend on each other.")]
    Topology,
    /// More than 25.
    #[error("package-too-many-transactions")]
    TooMany,
    /// Too heavy together.
    #[error("package-too-large")]
    TooLarge,
    /// One is there twice, whatever its witnesses.
    #[error("package-contains-duplicates")]
    Duplicates,
    /// Two spend the same coin, or one spends none.
    #[error("conflict-in-package")]
    Conflict,
}

impl Package {
    /// Returns transactions as a package.
    ///
    /// # Errors
    /// They are none.
    pub fn new(transactions: Vec<Arc<Transaction>>) -> Result<Self, PackageForm> {
        let Some((child, parents)) = transactions.split_last() else { return Err(PackageForm::Topology) };
        if transactions.len() > MAX_PACKAGE_COUNT {
            return Err(PackageForm::TooMany);
        }
        let parent_txids: Vec<Txid> = parents.iter().map(|parent| parent.compute_txid()).collect();
        let spends = |transaction: &Transaction, txid: &Txid| {
            transaction.input.iter().any(|input| input.previous_output.txid == *txid)
        };
        let among_parents = |parent: &Arc<Transaction>| parent_txids.iter().any(|txid| spends(parent, txid));
        if !parent_txids.iter().all(|txid| spends(child, txid)) || parents.iter().any(among_parents) {
            return Err(PackageForm::Topology);
        }
        let weight: Weight = transactions.iter().map(|transaction| transaction.weight()).sum();
        if !parents.is_empty() && weight > MAX_PACKAGE_WEIGHT {
            return Err(PackageForm::TooLarge);
        }
        let distinct: BTreeSet<Txid> = parent_txids.iter().copied().chain([child.compute_txid()]).collect();
        if distinct.len() < transactions.len() {
            return Err(PackageForm::Duplicates);
        }
        let mut spent = BTreeSet::new();
        for transaction in &transactions {
            // A coin that one transaction spends twice is against a rule, which says so better.
            let own: BTreeSet<OutPoint> = transaction.input.iter().map(|input| input.previous_output).collect();
            if own.is_empty() || own.iter().any(|outpoint| spent.contains(outpoint)) {
                return Err(PackageForm::Conflict);
            }
            spent.extend(own);
        }
        Ok(Self(transactions))
    }

    /// The transactions, parents first.
    pub fn transactions(&self) -> &[Arc<Transaction>] {
        &self.0
    }
}

/// Why transactions do not enter together. `Display` gives what Core's `submitpackage` says of the package.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PackageReject {
    /// One of them is not taken, with the others' fees or without.
    #[error("transaction failed")]
    Member {
        /// Which.
        wtxid: Wtxid,
        /// Why.
        reject: Reject,
    },
    /// One spends from a parent and leaves its dust.
    #[error("unspent-dust")]
    LeavesDust(Named),
    /// They do not fit together.
    #[error(transparent)]
    Together(#[from] Together),
}

impl PackageReject {
    /// Returns which of the transactions is not taken, and why, if it is one.
    pub fn member(&self) -> Option<(Wtxid, Reject)> {
        match self {
            Self::Member { wtxid, reject } => Some((*wtxid, reject.clone())),
            Self::LeavesDust(named) => Some((named.wtxid, PolicyReject::LeavesDust(*named).into())),
            Self::Together(_) => None,
        }
    }
}

/// Why transactions do not fit together, or not into the pool. Nobody is at fault.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Together {
    /// A rule about version 3 (BIP-0431).
    #[error("TRUC-violation, {_0}")]
    Truc(Box<TrucViolation>),
    /// Too many unconfirmed transactions would hang together.
    #[error("too-long-mempool-chain, {_0}")]
    TooLongChain(TooLongChain),
    /// A replacement by more or less than a parent and a child.
    #[error("package RBF failed: package must be 1-parent-1-child")]
    NotAPair,
    /// A replacement with an unconfirmed parent outside of the package.
    #[error("package RBF failed: new transaction cannot have mempool ancestors")]
    Ancestors,
    /// It would evict more than 100 transactions.
    #[error(
        "package RBF failed: too many potential replacements, rejecting replacement {child}; too many potential replacements ({count} > {max})"
    )]
    TooManyReplaced {
        /// The child.
        child: Txid,
        /// How many were counted until it was too many.
        count: usize,
        /// The limit.
        max: usize,
    },
    /// What it conflicts with has more than one relative in the pool.
    #[error("package RBF failed: {conflict} is in a cluster of more than 2 transactions")]
    Cluster {
        /// What it conflicts with.
        conflict: Txid,
    },
    /// It pays too little for what it replaces (BIP-0125 rules 3 and 4).
    #[error("package RBF failed: insufficient anti-DoS fees, rejecting replacement {child}{reason}")]
    Fees {
        /// The child.
        child: Txid,
        /// Which of the rules it breaks.
        reason: InsufficientFee,
    },
    /// The child pays less than the parent: it only adds to what the parent pays too little.
    #[error(
        "package RBF failed: package feerate is less than or equal to parent feerate, package feerate {} <= parent \
         feerate is {}", BtcPerKvb(*package), BtcPerKvb(*parent)
    )]
    ParentFeerate {
        /// The feerate of both.
        package: SatPerKvb,
        /// The parent's.
        parent: SatPerKvb,
    },
    /// A miner would earn less at some weight.
    #[error("package RBF failed: insufficient feerate: does not improve feerate diagram")]
    Diagram,
}

/// Why a check gave no checked package.
#[derive(Debug, thiserror::Error)]
pub enum PackageCheckError {
    /// It is not taken.
    #[error(transparent)]
    Rejected(#[from] PackageReject),
    /// We failed.
    #[error(transparent)]
    Fault(#[from] StateFault),
}

fn member(wtxid: Wtxid) -> impl FnOnce(Reject) -> PackageReject {
    move |reject| PackageReject::Member { wtxid, reject }
}

/// A package that has passed a first look and waits for its coins.
#[derive(Debug, Clone)]
pub struct PackageRequest {
    members: Vec<CoinRequest>,
    terms: PackageTerms,
    /// Checks that came too late so far.
    late: u8,
}

impl PackageRequest {
    /// Reads the coins of a package and checks it. What costs little comes first, scripts last.
    ///
    /// # Errors
    /// The first rule or policy broken, in the order of the code; a fault as [`CoinRequest::resolve`] and [`CheckJob::run`].
    pub fn check(self, view: &impl ChainView) -> Result<CheckedPackage, PackageCheckError> {
        let mut jobs: Vec<CheckJob> = Vec::with_capacity(self.members.len());
        for request in self.members {
            let wtxid = request.wtxid();
            let job = request.resolve(view).map_err(|error| of_member(wtxid, error))?;
            if jobs.first().is_some_and(|first| first.tip() != job.tip()) {
                return Err(member(wtxid)(NotYet::ChainMoved.into()).into());
            }
            jobs.push(job);
        }
        let mut facts = Vec::with_capacity(jobs.len());
        for job in &jobs {
            facts.push(job.look().map_err(member(job.wtxid()))?);
        }
        let subjects: Vec<&Subject> = jobs.iter().map(CheckJob::subject).collect();
        self.terms.check(&subjects, &facts)?;
        let verify = |(job, facts): (CheckJob, Facts)| {
            let wtxid = job.wtxid();
            job.verify(facts).map_err(|error| of_member(wtxid, error))
        };
        let members = jobs.into_iter().zip(facts).map(verify).collect::<Result<_, PackageCheckError>>()?;
        Ok(CheckedPackage { members, late: self.late })
    }
}

fn of_member(wtxid: Wtxid, error: CheckError) -> PackageCheckError {
    match error {
        CheckError::Rejected(reject) => member(wtxid)(reject).into(),
        CheckError::Fault(fault) => fault.into(),
    }
}

/// A package whose transactions may stand in the block on top of the tip they were checked at, parents before children.
/// Only [`PackageRequest::check`] makes it.
#[derive(Debug, Clone)]
pub struct CheckedPackage {
    members: Vec<Checked>,
    late: u8,
}

/// What became of a checked package that nothing speaks against.
#[derive(Debug)]
pub(super) enum PackageOutcome {
    /// All of it is in the pool, with this feerate.
    Accepted { feerate: FeeFraction },
    /// As [`Outcome::Again`](super::Outcome::Again).
    Again(Box<PackageRequest>),
}

/// What a package has to pay, and to spend.
#[derive(Debug, Clone)]
struct PackageTerms {
    least: Least,
    /// What it replaces, if it may.
    replacement: Result<Option<Replacement>, Together>,
    /// Whether the graph has room for it.
    families: Result<(), Together>,
    /// The first that spends from a parent and leaves its dust.
    leaves_dust: Option<usize>,
}

#[derive(Debug, Clone)]
struct Replacement {
    /// What it evicts pays, together.
    fees: Amount,
    incremental: SatPerKvb,
    /// The clusters that it changes, if they are small enough.
    clusters: Result<Clusters, Together>,
}

/// What a package conflicts with, and the relatives of that.
#[derive(Debug, Clone, Default)]
struct Clusters {
    before: Vec<Chunk>,
    /// What of them stays.
    after: Vec<Chunk>,
}

impl PackageTerms {
    fn check(&self, subjects: &[&Subject], facts: &[Facts]) -> Result<(), PackageReject> {
        let Some(child) = subjects.last() else { return Ok(()) };
        let together = sum(facts);
        self.least.check(together.fee, together.vsize).map_err(|reject| member(child.wtxid)(reject.into()))?;
        // Core asks for the fee first: a package that pays too little is told so.
        if let Some(replacement) = self.replacement.as_ref().map_err(Together::clone)? {
            replacement.check(child.txid, facts)?;
        }
        self.families.clone()?;
        match self.leaves_dust.and_then(|place| subjects.get(place)) {
            Some(subject) => Err(PackageReject::LeavesDust(subject.named())),
            None => Ok(()),
        }
    }
}

impl Replacement {
    fn check(&self, child: Txid, facts: &[Facts]) -> Result<(), Together> {
        let together = sum(facts);
        pays_for(self.fees, self.incremental, together.fee, together.vsize)
            .map_err(|reason| Together::Fees { child, reason })?;
        let [parent, child] = facts else { return Err(Together::NotAPair) };
        let alone = FeeFraction { fee: parent.fee, vsize: parent.vsize };
        if together <= alone {
            return Err(Together::ParentFeerate { package: together.rate(), parent: alone.rate() });
        }
        let new = Chunk::of_pair(chunk(parent.fee, parent.weight), chunk(child.fee, child.weight));
        let Clusters { before, after } = self.clusters.as_ref().map_err(Together::clone)?;
        if is_better(&[new, after.clone()].concat(), before) { Ok(()) } else { Err(Together::Diagram) }
    }
}

fn chunk(fee: Amount, weight: Weight) -> Chunk {
    Chunk { fee, weight }
}

fn sum(facts: &[Facts]) -> FeeFraction {
    FeeFraction { fee: facts.iter().map(|facts| facts.fee).sum(), vsize: facts.iter().map(|facts| facts.vsize).sum() }
}

/// A transaction of a package in the pool as it is.
struct Placed<'a> {
    subject: &'a Subject,
    /// A lower bound does for a first look.
    vsize: u64,
    standing: Standing,
    /// Its parents before it in the package, by place.
    package_parents: Vec<usize>,
}

/// Where a package would stand in the pool as it is.
struct Place {
    /// What it would evict, descendants included.
    replaced: BTreeSet<Txid>,
    terms: PackageTerms,
}

impl Mempool {
    /// Takes a first look at transactions that enter together or not at all, each with the time at which it arrived, in
    /// seconds of Unix time: parents before children, none twice, none in conflict with another.
    pub(super) fn begin_package(
        &self,
        transactions: Vec<(Arc<Transaction>, u64)>,
        max_feerate: Option<SatPerKvb>,
        now_s: u64,
    ) -> Result<PackageRequest, PackageReject> {
        let subject = |(transaction, entered_s): (Arc<Transaction>, u64)| {
            let wtxid = transaction.compute_wtxid();
            self.subject(transaction, entered_s, now_s, max_feerate).map_err(member(wtxid))
        };
        let subjects = transactions.into_iter().map(subject).map(|subject| Ok((subject?, None)));
        self.request_package(subjects.collect::<Result<_, PackageReject>>()?, 0, now_s)
    }

    fn request_package(
        &self,
        members: Vec<(Subject, Option<VerifiedScripts>)>,
        late: u8,
        now_s: u64,
    ) -> Result<PackageRequest, PackageReject> {
        let mut created: BTreeMap<Txid, Arc<Transaction>> = BTreeMap::new();
        let mut from_pool = Vec::with_capacity(members.len());
        for (subject, _) in &members {
            from_pool.push(self.outputs_for(subject, &created).map_err(member(subject.wtxid))?);
            created.insert(subject.txid, Arc::clone(&subject.transaction));
        }
        // Never more than their real sizes, which wait for the cost of their signature operations.
        let sizes = members.iter().map(|(subject, _)| (subject, virtual_size(subject.weight, 0)));
        let Place { terms, .. } = self.place_package(&sizes.collect::<Vec<_>>(), now_s)?;
        let request = |((subject, verified), from_pool): ((Subject, _), _)| {
            let terms = Terms::of_member(&subject);
            CoinRequest { subject, from_pool, terms, verified, late }
        };
        Ok(PackageRequest { members: members.into_iter().zip(from_pool).map(request).collect(), terms, late })
    }

    /// For each input the output of the pool or of the package that it spends.
    fn outputs_for(
        &self,
        subject: &Subject,
        created: &BTreeMap<Txid, Arc<Transaction>>,
    ) -> Result<Vec<Option<TxOut>>, Reject> {
        self.check_peg(&subject.transaction)?;
        check_lock_time(&subject.transaction, self.tip.next_block())?;
        self.check_new(subject)?;
        let output = |outpoint: OutPoint| {
            let Some(parent) = created.get(&outpoint.txid) else { return self.output(outpoint) };
            let output = usize::try_from(outpoint.vout).ok().and_then(|vout| parent.output.get(vout));
            let output = output.filter(|output| !is_unspendable(&output.script_pubkey));
            output.cloned().map(Some).ok_or(NotYet::MissingInput { outpoint })
        };
        let outputs = subject.transaction.input.iter().map(|input| output(input.previous_output));
        Ok(outputs.collect::<Result<_, NotYet>>()?)
    }

    fn place_package(&self, members: &[(&Subject, u64)], now_s: u64) -> Result<Place, PackageReject> {
        let mut placed: Vec<Placed<'_>> = Vec::with_capacity(members.len());
        for (subject, vsize) in members {
            let standing = Standing::of(&self.graph, &subject.transaction);
            let sibling = truc::check_single(&self.graph, subject, *vsize, &standing.parents, &standing.conflicts);
            // Only who comes alone takes the place of a sibling.
            let parent = standing.parents.first().map(|parent| self.graph.entry(parent).named());
            let sibling = match (sibling.map_err(|reject| member(subject.wtxid)(reject.into()))?, parent) {
                (Some(_), Some(parent)) => Err(PolicyReject::Truc(TrucViolation::Descendants(parent).into())),
                _ => Ok(()),
            };
            sibling.map_err(|reject| member(subject.wtxid)(reject.into()))?;
            let is_parent = |other: &Placed<'_>| {
                subject.transaction.input.iter().any(|input| input.previous_output.txid == other.subject.txid)
            };
            let parents = placed.iter().enumerate().filter(|(_, other)| is_parent(other)).map(|(place, _)| place);
            let package_parents = parents.collect();
            placed.push(Placed { subject, vsize: *vsize, standing, package_parents });
        }
        let truc: Vec<_> = placed.iter().map(Placed::truc).collect();
        truc::check_package(&self.graph, &truc).map_err(Together::Truc)?;
        let conflicts = placed.iter().any(|placed| !placed.standing.conflicts.is_empty());
        let (replaced, replacement, families) = match conflicts.then(|| self.replaced_by(&placed)) {
            Some(Ok((replaced, replacement))) => (replaced, Ok(Some(replacement)), Ok(())),
            Some(Err(together)) => (BTreeSet::new(), Err(together), Ok(())),
            None => (BTreeSet::new(), Ok(None), self.check_families(&placed)),
        };
        let leaves = |placed: &Placed<'_>, others: &[Placed<'_>]| {
            let transaction = &placed.subject.transaction;
            let of_pool =
                placed.standing.parents.iter().any(|parent| leaves_dust(transaction, self.graph.entry(parent)));
            let of_package = placed.package_parents.iter().any(|parent| {
                let parent = others[*parent].subject;
                let dust = parent.dust.map(|vout| OutPoint { txid: parent.txid, vout });
                dust.is_some_and(|dust| !transaction.input.iter().any(|input| input.previous_output == dust))
            });
            of_pool || of_package
        };
        let leaves_dust = placed.iter().position(|member| leaves(member, &placed));
        let least = Least { pool: self.pool_minimum(now_s), relay: self.policy.min_relay };
        Ok(Place { replaced, terms: PackageTerms { least, replacement, families, leaves_dust } })
    }

    /// What a package would evict, and what it has to pay for that (Core: `PackageRBFChecks`).
    fn replaced_by(&self, placed: &[Placed<'_>]) -> Result<(BTreeSet<Txid>, Replacement), Together> {
        let [_, child] = placed else { return Err(Together::NotAPair) };
        if placed.iter().any(|placed| !placed.standing.parents.is_empty()) {
            return Err(Together::Ancestors);
        }
        let conflicts: BTreeSet<Txid> = placed.iter().flat_map(|placed| placed.standing.conflicts.clone()).collect();
        let replaced = self.graph.descendants(&conflicts, MAX_REPLACED).ok_or(Together::TooManyReplaced {
            child: child.subject.txid,
            count: MAX_REPLACED + 1,
            max: MAX_REPLACED,
        })?;
        let fees = replaced.iter().map(|txid| self.graph.entry(txid).fee).sum();
        let clusters = self.clusters_of(&conflicts, &replaced);
        Ok((replaced, Replacement { fees, incremental: self.policy.incremental_relay, clusters }))
    }

    fn clusters_of(&self, conflicts: &BTreeSet<Txid>, replaced: &BTreeSet<Txid>) -> Result<Clusters, Together> {
        let mut clusters = BTreeSet::new();
        for conflict in conflicts {
            clusters.insert(cluster(&self.graph, conflict).ok_or(Together::Cluster { conflict: *conflict })?);
        }
        let as_chunk = |txid: &Txid| {
            let entry = self.graph.entry(txid);
            chunk(entry.fee, adjusted_weight(entry.weight, entry.sigops_cost))
        };
        let mut chunks = Clusters::default();
        for (root, leaf) in &clusters {
            match leaf {
                Some(leaf) => chunks.before.extend(Chunk::of_pair(as_chunk(root), as_chunk(leaf))),
                None => chunks.before.push(as_chunk(root)),
            }
            // If the root goes, the leaf goes with it.
            chunks.after.extend((!replaced.contains(root)).then(|| as_chunk(root)));
        }
        Ok(chunks)
    }

    /// Checks the limits of the graph with all of the package in it.
    fn check_families(&self, placed: &[Placed<'_>]) -> Result<(), Together> {
        let limits = &self.policy.limits;
        let too_long = Together::TooLongChain;
        // Of each ancestor in the pool, how many of the package descend from it, and their sizes.
        let mut below: BTreeMap<Txid, (usize, u64)> = BTreeMap::new();
        for one in placed {
            let in_package = || one.package_parents.iter().map(|parent| &placed[*parent]);
            let mut roots = one.standing.parents.clone();
            roots.extend(in_package().flat_map(|parent| parent.standing.parents.iter().copied()));
            let others = one.package_parents.len() + 1;
            let limit = TooLongChain::Ancestors { limit: limits.ancestors };
            let room = limits.ancestors.checked_sub(others).ok_or(too_long(limit))?;
            let ancestors = self.graph.ancestors(&roots, room).ok_or(too_long(limit))?;
            let of_pool: u64 = ancestors.iter().map(|txid| self.graph.entry(txid).vsize).sum();
            if of_pool + in_package().map(|parent| parent.vsize).sum::<u64>() + one.vsize > limits.ancestors_vsize {
                return Err(too_long(TooLongChain::AncestorsSize { limit: limits.ancestors_vsize }));
            }
            for txid in ancestors {
                let (count, vsize) = below.entry(txid).or_default();
                (*count, *vsize) = (*count + 1, *vsize + one.vsize);
            }
        }
        for (txid, (count, vsize)) in below {
            let descendants = self.graph.entry(&txid).descendants;
            if descendants.count + count > limits.descendants {
                return Err(too_long(TooLongChain::Descendants { txid, limit: limits.descendants }));
            }
            if descendants.vsize + vsize > limits.descendants_vsize {
                return Err(too_long(TooLongChain::DescendantsSize { txid, limit: limits.descendants_vsize }));
            }
        }
        Ok(())
    }

    /// Takes a checked package into the pool as it is at `now_s` (seconds of Unix time), if it still fits: all of it, or
    /// nothing.
    pub(super) fn finish_package(
        &mut self,
        checked: CheckedPackage,
        now_s: u64,
        departed: &mut Vec<Departed>,
    ) -> Result<PackageOutcome, PackageReject> {
        self.settle(now_s);
        departed.extend(self.expire(now_s));
        let CheckedPackage { members, late } = checked;
        let txids: Vec<Txid> = members.iter().map(|checked| checked.subject.txid).collect();
        let stands = |checked: &Checked| {
            let is_there = |txid: Txid| txids.contains(&txid) || self.contains(&txid);
            let mut inputs = checked.subject.transaction.input.iter().zip(&checked.from_pool);
            checked.tip == self.tip && inputs.all(|(input, pool)| *pool == is_there(input.previous_output.txid))
        };
        if !members.iter().all(stands) {
            if late >= MAX_LATE {
                let wtxid = members.first().map(Checked::wtxid).expect("packages are not empty");
                return Err(member(wtxid)(NotYet::ChainMoved.into()));
            }
            let members = members.into_iter().map(|checked| (checked.subject, Some(checked.verified))).collect();
            return Ok(PackageOutcome::Again(Box::new(self.request_package(members, late + 1, now_s)?)));
        }
        for checked in &members {
            self.check_peg(&checked.subject.transaction).map_err(|reject| member(checked.wtxid())(reject.into()))?;
            self.check_new(&checked.subject).map_err(|reject| member(checked.wtxid())(reject.into()))?;
        }
        let subjects: Vec<&Subject> = members.iter().map(|checked| &checked.subject).collect();
        let facts: Vec<Facts> = members.iter().map(|checked| checked.facts).collect();
        let sizes = subjects.iter().copied().zip(facts.iter().map(|facts| facts.vsize));
        let Place { replaced, terms } = self.place_package(&sizes.collect::<Vec<_>>(), now_s)?;
        terms.check(&subjects, &facts)?;

        let feerate = sum(&facts);
        let wtxids: Vec<Wtxid> = members.iter().map(Checked::wtxid).collect();
        self.depart(&replaced, Departure::Replaced, txids.last().copied(), departed);
        for checked in members {
            let parents = Standing::of(&self.graph, &checked.subject.transaction).parents;
            self.enter(checked, parents);
        }
        self.trim(now_s, &txids, departed);
        departed.retain(|gone| !txids.contains(&gone.txid));
        if let Some(place) = txids.iter().position(|txid| !self.contains(txid)) {
            // The others came in only because of it.
            let rest: BTreeSet<Txid> = txids.iter().copied().filter(|txid| self.contains(txid)).collect();
            self.graph.remove_with_descendants(&rest);
            return Err(member(wtxids[place])(PolicyReject::MempoolFull.into()));
        }
        txids.iter().for_each(|txid| self.tell_entered(txid));
        Ok(PackageOutcome::Accepted { feerate })
    }
}

impl Placed<'_> {
    fn truc(&self) -> truc::Member<'_> {
        truc::Member {
            subject: self.subject,
            vsize: self.vsize,
            parents: &self.standing.parents,
            package_parents: &self.package_parents,
        }
    }
}

/// The whole cluster of a transaction, if that is itself, or itself and one parent or child: the root, and its leaf.
fn cluster(graph: &Graph, txid: &Txid) -> Option<(Txid, Option<Txid>)> {
    let of_root = |root: &Txid| {
        let entry = graph.entry(root);
        let leaf = entry.children.first().copied();
        let closed = entry.parents.is_empty() && entry.descendants.count <= 2;
        let leaf_closed = leaf.is_none_or(|leaf| graph.entry(&leaf).parents.len() == 1);
        (closed && leaf_closed).then_some((*root, leaf))
    };
    let entry = graph.entry(txid);
    match entry.parents.first() {
        Some(root) if entry.parents.len() == 1 => of_root(root),
        Some(_) => None,
        None => of_root(txid),
    }
}

//! Doing what a node says, in order, up to a crash.

use std::sync::Arc;
use std::time::Duration;

use bitcoin::BlockHash;
use bitcoin::block::Header;
use bitcoin::hashes::Hash;
use bytes::Bytes;
use causeway_chainspec::Height;
use causeway_consensus::bft::{CommitCertificate, HighWaterMark, LogEntry, Writing};
use causeway_consensus::{ConnectedBlock, NotReady, StateFault, check_block, parse_block};
use causeway_node::machine::jobs::{AssembleJob, CheckJob, ReadJob, ValidateJob, VerifyJob};
use causeway_node::machine::peg::{BitcoinAnswer, BitcoinQuestion};
use causeway_node::machine::{Action, Event, RelayVerdict, Report, Ticket, Verdict};
use causeway_node::mempool::PackageCheck;
use causeway_node::wire::{ANSWER_BYTES_TARGET, FinalBlock, Response, Topic};

use super::check::Check;
use super::tale;
use super::world::{What, World};

/// Validators that start one after the other miss each other's first messages, and lose a few rounds until all have met.
const STARTING: Duration = Duration::from_secs(10);

/// Work that a host does beside its node.
pub(super) enum Job {
    Validate(ValidateJob),
    /// The first part of it.
    Match(ValidateJob),
    Assemble(AssembleJob),
    Check(CheckJob),
    CheckPackage(PackageCheck),
    Verify(VerifyJob),
    Read(ReadJob),
    /// A question to the host's Bitcoin node.
    AskBitcoin(BitcoinQuestion),
}

impl World {
    /// One action of a host; perhaps its last.
    pub(super) fn perform(&mut self, index: usize, action: Action) {
        // It changes nothing: a crash before it is one before what comes next.
        if !matches!(action, Action::Prefetch { .. }) && self.is_last(index) {
            return self.crash(index);
        }
        self.say(|| format!("{index:2} -> {}", tale::action(&action)));
        match action {
            Action::Log { height, entries, mark, writing } => {
                self.log(index, height, &entries, mark.as_ref(), writing);
            }
            Action::KeepBody { height, bytes } => self.hosts[index].disk.append_body(height, bytes),
            Action::Publish { topic, bytes } => self.publish(index, topic, bytes),
            Action::Relay { id, verdict } => self.relay(index, id, verdict),
            Action::Request { peer, id, request } => self.request(index, &peer, id, request),
            Action::Respond { id, response } => self.respond(index, id, response),
            Action::ServeBlocks { id, from, count } => {
                let response = self.serve(index, from, count);
                self.respond(index, id, response);
            }
            Action::Ban { peer, duration } => self.ban(index, &peer, duration),
            Action::HangUp { peer } => self.ban(index, &peer, Duration::ZERO),
            Action::Verify { ticket, job } => {
                let time = self.rng.between(Duration::from_micros(40), Duration::from_millis(1));
                self.start_job(index, ticket, time, Job::Verify(job));
            }
            Action::Read { ticket, job } => {
                let time = self.rng.between(Duration::from_micros(10), Duration::from_millis(2));
                self.start_job(index, ticket, time, Job::Read(job));
            }
            Action::Validate { ticket, job } => {
                self.watch.judging(self.now, index, &self.hosts[index], &job);
                if let Some(life) = self.hosts[index].life.as_mut().filter(|_| job.proof.is_none())
                    && let (Some(height), Some(header)) =
                        (life.node.status().height.next(), job.bytes.get(..Header::SIZE))
                {
                    life.judging.insert(ticket, (height, BlockHash::hash(header)));
                }
                let slow = self.plan.faults.validation;
                let time = self.rng.between(self.plan.work / 15, self.plan.work + slow);
                self.start_job(index, ticket, time / 4, Job::Match(job.clone()));
                self.start_job(index, ticket, time, Job::Validate(job));
            }
            Action::Assemble { ticket, job } => {
                let slow = self.plan.faults.validation / 4;
                let time = self.rng.between(self.plan.work / 15, self.plan.work + slow);
                self.start_job(index, ticket, time, Job::Assemble(job));
            }
            Action::Cancel { ticket } => {
                if let Some(life) = &mut self.hosts[index].life {
                    life.judging.remove(&ticket);
                    life.cancelled.insert(ticket);
                }
            }
            Action::Check { ticket, job } => {
                let time = self.rng.between(Duration::from_micros(200), Duration::from_millis(5));
                self.start_job(index, ticket, time, Job::Check(job));
            }
            Action::CheckPackage { ticket, check } => {
                let time = self.rng.between(Duration::from_micros(200), Duration::from_millis(5));
                self.start_job(index, ticket, time, Job::CheckPackage(check));
            }
            Action::Commit { connected, certificate, .. } => self.commit(index, connected, certificate),
            Action::KeepEvidence(evidence) => {
                self.stats.evidence += 1;
                self.watch.evidence(self.now, index, &evidence);
            }
            Action::Reply { id, result } => {
                let txid = self.hosts[index].life.as_mut().and_then(|life| life.submitted.remove(&id));
                if let Some(txid) = txid {
                    self.replied(index, txid, &result);
                }
            }
            // No host hands in a package.
            Action::PackageReply { .. } => {}
            Action::AskBitcoin { ticket, question } => {
                let time = self.rng.between(Duration::from_micros(200), Duration::from_millis(5));
                self.start_job(index, ticket, time, Job::AskBitcoin(question));
            }
            Action::ClaimReply { id, result } => self.claim_replied(index, id, &result),
            // The disks here lose no final block.
            Action::Prefetch { .. } | Action::Fill { .. } => {}
            Action::Report(report) => self.report(index, report),
        }
    }

    /// Whether this is where a host's life ends.
    fn is_last(&mut self, index: usize) -> bool {
        self.hosts[index].life.as_mut().is_none_or(|life| life.spend())
    }

    /// Appends, then raises the mark; a crash may come after each entry.
    fn log(
        &mut self,
        index: usize,
        height: Height,
        entries: &[LogEntry],
        mark: Option<&HighWaterMark>,
        writing: Writing,
    ) {
        for entry in entries {
            self.hosts[index].disk.append(height, entry);
            if self.is_last(index) {
                return self.crash(index);
            }
        }
        if writing == Writing::Later {
            return;
        }
        let delay = self.rng.between(Duration::ZERO, self.plan.faults.disk);
        let host = &mut self.hosts[index];
        host.disk.will_sync(height, mark);
        if delay.is_zero() {
            return self.finish_sync(index);
        }
        if let Some(life) = &mut host.life {
            life.busy = true;
            let number = life.number;
            self.after(delay, What::Synced { host: index, life: number });
        }
    }

    /// The disk has what it was given; the mark comes after the log.
    pub(super) fn finish_sync(&mut self, index: usize) {
        self.hosts[index].disk.sync_log();
        if self.is_last(index) {
            return self.crash(index);
        }
        self.hosts[index].disk.sync_mark();
    }

    fn start_job(&mut self, index: usize, ticket: Ticket, time: Duration, job: Job) {
        if let Some(life) = &self.hosts[index].life {
            let number = life.number;
            self.after(time, What::Job { host: index, life: number, ticket, job: Box::new(job) });
        }
    }

    /// The work of a job, on the state of this moment.
    pub(super) fn job_done(&mut self, index: usize, number: u64, ticket: Ticket, job: Job) {
        if !self.is_alive(index, number) {
            return;
        }
        if let Job::Match(job) = job {
            return self.match_done(index, number, ticket, job);
        }
        let host = &mut self.hosts[index];
        let Some(life) = &mut host.life else { return };
        life.judging.remove(&ticket);
        // Every other job had its verdict before it heard that nobody wants it.
        let too_late = life.cancelled.remove(&ticket) && ticket.0.is_multiple_of(2);
        let not_ready = || Verdict::NotReady(NotReady::Cancelled);
        let host = &self.hosts[index];
        let Some(life) = &host.life else { return };
        let (params, workers) = (self.spec.params(), &*self.workers);
        let event: Result<Event, StateFault> = match job {
            Job::Validate(_) if too_late => Ok(Event::Validated { ticket, verdict: not_ready() }),
            Job::Assemble(_) if too_late => Ok(Event::Assembled { ticket, verdict: not_ready() }),
            Job::Validate(job) => {
                let verdict = job.run(params, &host.chain, workers, &life.scripts, || {});
                verdict.map(|verdict| Event::Validated { ticket, verdict })
            }
            Job::Assemble(job) => {
                job.run(params, &host.chain, workers, &life.scripts).map(|verdict| Event::Assembled { ticket, verdict })
            }
            Job::Match(_) => return,
            Job::AskBitcoin(question) => {
                let answer = host.bitcoin.answer(&self.bitcoin, &question);
                if let (BitcoinAnswer::Agrees, Some(height)) = (answer, host.height().next()) {
                    self.audit.agreed(index, height, question);
                }
                Ok(Event::BitcoinJudged { ticket, answer })
            }
            Job::Verify(job) => Ok(Event::Verified { ticket, result: job.run() }),
            Job::Read(job) => Ok(Event::Read { ticket, message: job.run() }),
            Job::Check(job) => job.run(&host.chain).map(|results| Event::Checked { ticket, results }),
            Job::CheckPackage(check) => check.run(&host.chain).map(|answer| Event::PackageChecked { ticket, answer }),
        };
        match event {
            Ok(event) => self.deliver(index, number, event),
            Err(fault) => self.fail(Check::NoFault, format!("host {index}: {fault}")),
        }
    }

    /// Of a block it is known whether its content is that of its header.
    fn match_done(&mut self, index: usize, number: u64, ticket: Ticket, job: ValidateJob) {
        let wanted = self.hosts[index].life.as_ref().is_some_and(|life| !life.cancelled.contains(&ticket));
        let block = parse_block(job.bytes.to_vec());
        if wanted && block.and_then(|block| check_block(block, self.spec.params())).is_ok() {
            self.deliver(index, number, Event::Matched { ticket });
        }
    }

    fn commit(&mut self, index: usize, connected: Arc<ConnectedBlock>, certificate: CommitCertificate) {
        self.watch.decided(self.now, index, &connected, &certificate);
        let time = self.rng.between(self.plan.work / 15, self.plan.work + self.plan.faults.disk);
        if let Some(life) = &mut self.hosts[index].life {
            life.committing = true;
            let number = life.number;
            let certificate = Box::new(certificate);
            self.after(time, What::Committed { host: index, life: number, connected, certificate });
        }
    }

    /// A block and its certificate are on disk, all at once.
    pub(super) fn commit_done(
        &mut self,
        index: usize,
        number: u64,
        connected: &Arc<ConnectedBlock>,
        certificate: &CommitCertificate,
    ) {
        if !self.is_alive(index, number) {
            return;
        }
        // Between decision and commit, and between commit and the node's knowledge of it.
        if self.is_last(index) {
            return self.crash(index);
        }
        if let Some(life) = &mut self.hosts[index].life {
            life.committing = false;
        }
        let host = &mut self.hosts[index];
        let height = connected.tip().height();
        let block = Bytes::copy_from_slice(connected.block().bytes());
        if host.height().next() != Some(height) || connected.parent().hash() != host.chain_tip_hash() {
            let at = host.height();
            return self.fail(Check::Agreement, format!("host {index} commits {height} on top of {at}"));
        }
        host.chain.apply(connected);
        host.blocks.push(FinalBlock { certificate: certificate.encode().into(), block });
        let highest = self.plan.is_honest(index).then(|| self.clocks_ahead());
        self.watch.committed(self.now, index, connected, highest);
        self.over |= self.watch.has_forked();
        if self.plan.is_honest(index) {
            self.purse.committed(self.now, connected.block());
            self.peg_committed(index, connected);
        }
        if self.is_last(index) {
            return self.crash(index);
        }
        self.deliver(index, number, Event::Committed { height });
    }

    /// The highest time that a clock of an honest host shows.
    fn clocks_ahead(&self) -> Duration {
        self.honest().map(|host| self.hosts[host].unix(self.now)).max().unwrap_or_default()
    }

    /// Final blocks as the shell serves them.
    fn serve(&self, index: usize, from: Height, count: u16) -> Response {
        let mut bytes = 0;
        let mut blocks = Vec::new();
        for block in self.hosts[index].blocks_from(from).iter().take(count.into()) {
            bytes += block.certificate.len() + block.block.len() + 8;
            if bytes > ANSWER_BYTES_TARGET && !blocks.is_empty() {
                break;
            }
            blocks.push(block.clone());
        }
        Response::Blocks(blocks)
    }

    /// What a host says to everybody.
    fn publish(&mut self, index: usize, topic: Topic, bytes: Bytes) {
        if bytes.len() > topic.max_bytes() {
            self.fail(Check::BoundedQueues, format!("host {index} publishes {} bytes", bytes.len()));
        }
        if self.plan.is_honest(index) {
            if topic == Topic::Consensus {
                let host = &self.hosts[index];
                self.watch.published(self.now, index, host, host.unix(self.now), &bytes);
                self.audit_vote(index, &bytes);
            }
            self.watch.wire(topic, &bytes);
            return self.send_to_all(index, topic, &bytes);
        }
        self.say_otherwise(index, topic, &bytes);
    }

    fn relay(&mut self, index: usize, id: causeway_node::machine::GossipId, verdict: RelayVerdict) {
        let Some(heard) = self.hosts[index].life.as_mut().and_then(|life| life.heard.remove(&id)) else {
            return self.fail(Check::OneRelay, format!("host {index} answers message {} twice", id.0));
        };
        if verdict != RelayVerdict::Accept {
            return;
        }
        if self.plan.is_honest(index) {
            let height = self.hosts[index].height();
            self.watch.relayed(self.now, (index, heard.from), height, heard.topic, &heard.bytes);
        }
        self.send_on(index, heard.from, heard.topic, &heard.bytes);
    }

    fn report(&mut self, index: usize, report: Report) {
        let honest = self.plan.is_honest(index);
        match report {
            Report::Round { height, round, .. } => {
                self.stats.later_rounds += 1;
                if honest && self.hosts[index].key.is_some() && !self.healed {
                    self.failed_heights.insert(height);
                }
                let most = self.plan.peg.failed_heights.map_or(usize::MAX, |most| most as usize);
                if self.failed_heights.len() > most {
                    let heights = self.failed_heights.iter().map(|height| height.to_u32()).collect::<Vec<_>>();
                    self.fail(
                        Check::Liveness,
                        format!("the first round of more than {most} heights failed: {heights:?}"),
                    );
                }
                let smooth = self.plan.is_smooth() && self.now > STARTING;
                if honest && (smooth || self.plan.peg.rounds.is_some_and(|most| round > most)) {
                    self.fail(Check::Liveness, format!("host {index}, height {height}: round {round} has begun"));
                }
            }
            Report::Committed { decided_in: None, .. } => self.stats.synced += 1,
            Report::Held { .. } => self.stats.held += 1,
            Report::HeldByBitcoin { hash, .. } => {
                self.stats.held_by_bitcoin += 1;
                if honest {
                    self.audit.held(index, hash);
                }
            }
            Report::BitcoinLeftOut { until, .. } => {
                if let Some(life) = &mut self.hosts[index].life {
                    life.left_out = Some(until);
                }
            }
            Report::Withheld { .. } if honest => self.stats.withheld += 1,
            Report::SignedElsewhere { height } if honest && !self.hosts[index].lost_log => {
                self.fail(Check::OwnMessages, format!("host {index} does not know its own signature at {height}"));
            }
            Report::OwnBlockInvalid { height, rule } => {
                self.fail(Check::ValidProposals, format!("host {index}, height {height}: {rule}"));
            }
            Report::InvalidProposal { height, proposer, rule, .. } => {
                let of = self.hosts.iter().position(|host| host.address == Some(proposer));
                if of.is_some_and(|of| self.plan.is_honest(of)) {
                    self.fail(Check::ValidProposals, format!("of an honest host, at height {height}: {rule}"));
                }
            }
            Report::Misbehaved { peer, offence, score } => {
                let of = self.hosts.iter().position(|host| host.peer == peer);
                if honest && of.is_some_and(|of| self.plan.is_honest(of)) {
                    let what = format!("host {index} blames {of:?} for {offence:?}, which leaves {score}");
                    self.watch.blamed(self.now, offence, what);
                }
            }
            Report::Banned { peer, .. } | Report::HungUp { peer, .. } => {
                self.stats.bans += 1;
                let of = self.hosts.iter().position(|host| host.peer == peer);
                if honest && of.is_some_and(|of| self.plan.is_honest(of)) {
                    self.fail(Check::NoHonestBan, format!("host {index} sends {of:?} away"));
                }
            }
            _ => {}
        }
    }
}

use std::time::Duration;

use bitcoin::{Transaction, Txid};

use super::{HERE_MAX, JOB_TRANSACTIONS, SEND_EVERY, SMALL_JOBS};
use crate::machine::jobs::CheckJob;
use crate::machine::{Action, Event, Node, Now, SubmitId, Ticket};
use crate::mempool::{NotYet, Reject};
use crate::testing::{Bench, COIN, START_S, pay, setup};
use crate::wire::{Topic, decode_transactions};

const MS: Duration = Duration::from_millis(1);

/// A full node without peers on a chain with coins, and the jobs that it waits for.
struct Alone {
    bench: Bench,
    node: Node,
    uptime: Duration,
    names: u64,
    jobs: Vec<(Ticket, CheckJob)>,
    /// Verdicts on what was handed in.
    verdicts: Vec<Result<Txid, Reject>>,
}

impl Alone {
    fn new() -> Self {
        let bench = Bench::new();
        let node = Node::new(setup(&bench.chain.spec, &bench.chain.tip));
        let mut alone =
            Self { bench, node, uptime: Duration::from_secs(1), names: 0, jobs: Vec::new(), verdicts: Vec::new() };
        alone.handle(Event::Tick);
        alone
    }

    /// Takes an event in, and returns how many transactions each message has that is sent.
    fn handle(&mut self, event: Event) -> Vec<usize> {
        let now = Now { uptime: self.uptime, unix: Duration::from_secs(START_S) };
        let mut sent = Vec::new();
        for action in self.node.handle(now, event).unwrap() {
            match action {
                Action::Check { ticket, job } => self.jobs.push((ticket, job)),
                Action::Publish { topic: Topic::Transactions, bytes } => {
                    sent.push(decode_transactions(bytes).unwrap().len());
                }
                Action::Reply { result, .. } => self.verdicts.push(result),
                _ => {}
            }
        }
        sent
    }

    fn payment(&mut self) -> Transaction {
        pay(&[self.bench.coin()], &[COIN - 1_000])
    }

    /// Hands in a new payment.
    fn submit(&mut self) -> Vec<usize> {
        let transaction = self.payment();
        self.names += 1;
        self.handle(Event::Submit { id: SubmitId(self.names), transaction })
    }

    /// Does the job that has waited longest.
    fn work(&mut self) -> Vec<usize> {
        let (ticket, job) = self.jobs.remove(0);
        let results = job.run(&self.bench.chain).unwrap();
        self.handle(Event::Checked { ticket, results })
    }

    fn sizes(&self) -> Vec<usize> {
        self.jobs.iter().map(|(_, job)| job.requests.len()).collect()
    }
}

#[test]
fn what_comes_alone_is_sent_at_once_and_what_follows_gathers() {
    let mut alone = Alone::new();
    assert_eq!(alone.submit(), [0; 0]);
    assert_eq!(alone.work(), [1]);
    for _ in 0..3 {
        alone.uptime += 10 * MS;
        alone.submit();
        assert_eq!(alone.work(), [0; 0]);
    }
    alone.uptime += SEND_EVERY - 31 * MS;
    assert_eq!(alone.handle(Event::Tick), [0; 0]);
    alone.uptime += MS;
    assert_eq!(alone.handle(Event::Tick), [3]);
    alone.uptime += SEND_EVERY;
    assert_eq!(alone.handle(Event::Tick), [0; 0]);
    alone.submit();
    assert_eq!(alone.work(), [1], "the pause is over");
    assert_eq!(alone.node.mempool().len(), 5);
}

#[test]
fn a_job_waits_to_be_full_while_others_run() {
    let mut alone = Alone::new();
    for _ in 0..SMALL_JOBS + JOB_TRANSACTIONS - 1 {
        alone.submit();
    }
    assert_eq!(alone.sizes(), [1; SMALL_JOBS]);
    alone.submit();
    assert_eq!(alone.sizes(), [1, 1, JOB_TRANSACTIONS], "a full one starts beside them");
    alone.submit();
    alone.submit();
    assert_eq!(alone.sizes().len(), SMALL_JOBS + 1);
    alone.work();
    assert_eq!(alone.sizes(), [1, JOB_TRANSACTIONS]);
    alone.work();
    assert_eq!(alone.sizes(), [JOB_TRANSACTIONS, 2], "the next takes all that has gathered");
    while !alone.jobs.is_empty() {
        alone.work();
    }
    assert_eq!(alone.node.mempool().len(), SMALL_JOBS + JOB_TRANSACTIONS + 2);
}

#[test]
fn so_many_may_be_handed_in_before_the_first_verdict() {
    let mut alone = Alone::new();
    for _ in 0..HERE_MAX {
        alone.submit();
    }
    assert_eq!(alone.verdicts, []);
    alone.submit();
    assert_eq!(alone.verdicts, [Err(Reject::NotYet(NotYet::Busy))]);
    // A verdict makes room, whichever it is.
    let again = alone.payment();
    while !alone.jobs.is_empty() {
        alone.work();
    }
    assert_eq!(alone.verdicts.len(), HERE_MAX + 1);
    for _ in 0..2 {
        alone.handle(Event::Submit { id: SubmitId(0), transaction: again.clone() });
        while !alone.jobs.is_empty() {
            alone.work();
        }
    }
    for _ in 0..HERE_MAX {
        alone.submit();
    }
    assert_eq!(alone.verdicts.len(), HERE_MAX + 3);
    assert!(alone.verdicts.iter().filter(|verdict| verdict.is_err()).count() <= 2);
}

use std::time::Duration;

use bitcoin::hashes::{Hash, sha256};
use bitcoin::secp256k1::{Keypair, SECP256K1};
use causeway_chainspec::{ChainId, Height, Validator};
use causeway_consensus::bft::signer::{Position, SignStep};
use causeway_consensus::bft::{
    Address, Guarded, HighWaterMark, SignedTipStatement, Signer, TipAnswer, TipNonce, TipStatement, ValidatorSet,
};
use libp2p::PeerId;

use super::{GATHER, LISTEN, QUESTIONS_KEPT, UNPROVEN};
use crate::machine::{Action, Event, GossipId, Node, Now, RelayVerdict, Report, Setup};
use crate::testing::{Chain, START_S, setup};
use crate::wire::{Topic, decode_consensus, encode_tip_statement};

const SECOND: Duration = Duration::from_secs(1);

fn key(index: u8) -> Keypair {
    let secret = sha256::Hash::hash(&[b"tips"[..].to_vec(), vec![index]].concat());
    Keypair::from_seckey_slice(SECP256K1, secret.as_byte_array()).unwrap()
}

fn signer(chain: ChainId, index: u8) -> Guarded<Keypair> {
    let address = Address::from(&key(index).x_only_public_key().0);
    Guarded::new(key(index), HighWaterMark::never_signed(chain, address)).unwrap()
}

/// One node with a peer, and the keys of all validators.
struct One {
    chain: ChainId,
    node: Node,
    now: Duration,
    peer: PeerId,
    names: u64,
    /// What it published, but for statements about tips.
    votes: usize,
    said: Vec<SignedTipStatement>,
    relayed: Vec<RelayVerdict>,
    banned: bool,
    reports: Vec<Report>,
}

impl One {
    /// The first of validators with these powers, or a full node beside them.
    fn new(powers: &[u64], validates: bool) -> Self {
        let bench = Chain::new();
        let chain = bench.spec.chain_id();
        let validator = |(index, power): (u8, &u64)| Validator { key: key(index).x_only_public_key().0, power: *power };
        let set = ValidatorSet::new(&(0..).zip(powers).map(validator).collect::<Vec<_>>()).unwrap();
        let node = Node::new(Setup {
            validators: Box::new(move |_| set.clone()),
            signer: validates.then(|| Box::new(signer(chain, 0)) as Box<dyn Signer>),
            seed: [9; 32],
            ..setup(&bench.spec, &bench.tip)
        });
        let mut one = Self {
            chain,
            node,
            now: Duration::ZERO,
            peer: PeerId::random(),
            names: 0,
            votes: 0,
            said: Vec::new(),
            relayed: Vec::new(),
            banned: false,
            reports: Vec::new(),
        };
        one.handle(Event::Tick);
        one
    }

    fn connected(powers: &[u64], validates: bool) -> Self {
        let mut one = Self::new(powers, validates);
        one.handle(Event::Connected { peer: one.peer });
        one.wait(GATHER);
        one
    }

    fn handle(&mut self, event: Event) {
        let now = Now { uptime: self.now, unix: Duration::from_secs(START_S) + self.now };
        for action in self.node.handle(now, event).unwrap() {
            match action {
                Action::Publish { topic: Topic::Consensus, bytes } => {
                    match SignedTipStatement::decode(decode_consensus(&bytes).unwrap()) {
                        Ok(statement) => self.said.push(statement),
                        Err(_) => self.votes += 1,
                    }
                }
                Action::Relay { verdict, .. } => self.relayed.push(verdict),
                Action::Ban { .. } => self.banned = true,
                Action::Report(report) => self.reports.push(report),
                _ => {}
            }
        }
    }

    /// Time passes, in steps.
    fn wait(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            self.now = (self.now + Duration::from_millis(100)).min(end);
            self.handle(Event::Tick);
        }
    }

    /// What the peer sends on, and what the node says to it.
    fn hear(&mut self, statement: &SignedTipStatement) -> RelayVerdict {
        self.names += 1;
        let bytes = encode_tip_statement(statement, self.names);
        self.handle(Event::Gossip { peer: self.peer, id: GossipId(self.names), topic: Topic::Consensus, bytes });
        self.relayed.pop().expect("every message is answered")
    }

    fn signed(&self, by: u8, statement: TipStatement) -> SignedTipStatement {
        signer(self.chain, by).sign_tip_statement(self.chain, statement).unwrap()
    }

    fn question(&self, by: u8, time: u64, nonce: u8) -> SignedTipStatement {
        self.signed(by, TipStatement::Question { time, nonce: [nonce; 16] })
    }

    fn answer(&self, by: u8, height: Height, nonce: TipNonce, signed: Option<Position>) -> SignedTipStatement {
        self.signed(by, TipStatement::Answer { height, answers: vec![TipAnswer { nonce, signed }] })
    }

    /// An answer to this node's last question, with the height of its own tip and so many more.
    fn told(&mut self, by: u8, above: u32) -> RelayVerdict {
        let height = Height(self.node.tip().height().to_u32() + above);
        let answer = self.answer(by, height, self.nonce(), None);
        self.hear(&answer)
    }

    /// This node's last question.
    fn nonce(&self) -> TipNonce {
        let question = |said: &SignedTipStatement| match said.statement {
            TipStatement::Question { nonce, .. } => Some(nonce),
            TipStatement::Answer { .. } => None,
        };
        self.said.iter().rev().find_map(question).expect("it has asked")
    }

    fn waits(&self) -> bool {
        self.node.status().awaits_tips
    }
}

#[test]
fn a_validator_that_starts_asks_and_signs_nothing() {
    let mut one = One::connected(&[1, 1, 1, 1], true);
    assert_eq!(one.said.len(), 1);
    one.wait(SECOND * 60);
    assert_eq!(one.votes, 0);
    assert!(one.waits());
    assert!(one.reports.iter().any(|report| matches!(report, Report::TipUnconfirmed { power: 1, total: 4, .. })));
    let nonces = one.said.iter().map(SignedTipStatement::encode).collect::<std::collections::BTreeSet<_>>();
    assert!((14..30).contains(&nonces.len()), "it asks again, ever more rarely: {} times", nonces.len());
}

#[test]
fn answers_of_more_than_two_thirds_with_it_let_it_go_on() {
    let mut one = One::connected(&[1, 1, 1, 1], true);
    assert_eq!(one.told(1, 0), RelayVerdict::Accept);
    one.wait(SECOND * 15);
    assert_eq!((one.waits(), one.votes), (true, 0));
    assert_eq!(one.told(2, 0), RelayVerdict::Accept);
    assert!(!one.waits());
    one.wait(SECOND * 10);
    assert!(one.votes > 0);
    assert!(one.reports.iter().any(|report| matches!(report, Report::TipConfirmed { .. })));
}

#[test]
fn it_listens_for_a_while_to_whoever_may_know_better_unless_all_have_answered() {
    let mut one = One::connected(&[1, 1, 1, 1], true);
    one.told(1, 0);
    one.told(2, 0);
    assert!(one.waits());
    one.wait(LISTEN - GATHER);
    assert!(one.waits());
    one.wait(GATHER * 6);
    assert!(!one.waits());
    let mut one = One::connected(&[1, 1, 1, 1], true);
    for by in 1..4 {
        one.told(by, 0);
    }
    assert!(!one.waits());
}

#[test]
fn one_that_alone_holds_more_than_two_thirds_needs_nobody() {
    let mut one = One::new(&[7, 1, 1, 1], true);
    assert!(!one.waits());
    one.wait(SECOND * 10);
    assert!(one.votes > 0);
    assert!(one.said.is_empty());
}

#[test]
fn a_higher_tip_is_waited_for_but_not_for_ever() {
    let mut one = One::connected(&[1, 1, 1, 1], true);
    one.told(3, 5);
    one.told(1, 0);
    one.told(2, 0);
    one.wait(UNPROVEN - SECOND);
    assert_eq!((one.waits(), one.votes), (true, 0));
    // Claims that rise do not begin the wait anew.
    one.told(3, 6);
    one.wait(SECOND * 12);
    assert!(!one.waits());
}

#[test]
fn whoever_claims_a_higher_tip_does_not_confirm_ours() {
    let mut one = One::connected(&[1, 1, 1, 1], true);
    one.told(1, 0);
    one.told(2, 1);
    one.told(3, 1);
    one.wait(UNPROVEN * 4);
    assert_eq!((one.waits(), one.votes), (true, 0));
}

#[test]
fn a_message_of_its_own_that_it_does_not_know_of_keeps_it_out_of_that_height() {
    let mut one = One::connected(&[1, 1, 1, 1], true);
    let tip = one.node.tip().height();
    let signed = Position { height: tip.next().unwrap(), round: 0, step: SignStep::Prevote };
    let answer = one.answer(1, tip, one.nonce(), Some(signed));
    assert_eq!(one.hear(&answer), RelayVerdict::Accept);
    one.told(2, 0);
    one.told(3, 0);
    assert!(one.waits());
    one.wait(UNPROVEN - SECOND);
    assert_eq!((one.waits(), one.votes), (true, 0));
}

#[test]
fn strangers_confirm_nothing() {
    let mut one = One::connected(&[1, 1, 1, 1], true);
    let tip = one.node.tip().height();
    // Keys of no validator, and a validator's answer to something else.
    for by in [10, 11, 12] {
        assert_eq!(one.told(by, 0), RelayVerdict::Ignore);
    }
    for by in 1..4 {
        let old = one.answer(by, tip, [1; 16], None);
        assert_eq!(one.hear(&old), RelayVerdict::Ignore);
    }
    assert!(one.waits() && !one.banned);
    let mut forged = one.answer(10, tip, one.nonce(), None);
    forged.validator = signer(one.chain, 1).address();
    assert_eq!(one.hear(&forged), RelayVerdict::Reject);
    assert_eq!(one.hear(&forged), RelayVerdict::Reject);
    assert!(one.waits() && one.banned);
}

#[test]
fn a_validator_that_waits_answers_others() {
    let mut one = One::connected(&[1, 1, 1, 1], true);
    one.said.clear();
    let (first, second) = (one.question(1, 5, 1), one.question(2, 5, 2));
    assert_eq!(one.hear(&first), RelayVerdict::Accept);
    assert_eq!(one.hear(&second), RelayVerdict::Accept);
    one.wait(SECOND / 4);
    let is_answer = |said: &&SignedTipStatement| matches!(said.statement, TipStatement::Answer { .. });
    let said: Vec<_> = one.said.iter().filter(is_answer).collect();
    let [answer] = said[..] else { panic!("one answer to both") };
    let TipStatement::Answer { height, answers } = &answer.statement else { panic!("an answer") };
    assert_eq!(*height, one.node.tip().height());
    assert_eq!(answers.iter().map(|answer| answer.nonce).collect::<Vec<_>>(), [[1; 16], [2; 16]]);
    assert_eq!(answer.validator, signer(one.chain, 0).address());
}

#[test]
fn a_question_is_sent_on_once_and_a_copy_of_an_older_one_never() {
    let mut one = One::connected(&[1, 1, 1, 1], true);
    let (old, new) = (one.question(1, 5, 1), one.question(1, 6, 2));
    assert_eq!(one.hear(&new), RelayVerdict::Accept);
    assert_eq!(one.hear(&new), RelayVerdict::Ignore);
    one.wait(SECOND);
    assert_eq!(one.hear(&new), RelayVerdict::Ignore);
    assert_eq!(one.hear(&old), RelayVerdict::Ignore);
    assert!(!one.banned);
}

#[test]
fn what_one_validator_asks_is_bounded_in_rate_and_memory() {
    let mut one = One::connected(&[1, 1, 1, 1], false);
    let mut taken = 0;
    for number in 0..200_u8 {
        let question = one.question(1, number.into(), number);
        taken += usize::from(one.hear(&question) == RelayVerdict::Accept);
        one.wait(Duration::from_millis(50));
    }
    assert!((50..=101).contains(&taken), "at most ten a second, in ten seconds: {taken}");
    assert!(one.node.load().messages <= QUESTIONS_KEPT);
}

#[test]
fn a_full_node_sends_questions_and_answers_on_and_says_nothing() {
    let mut one = One::connected(&[1, 1, 1, 1], false);
    let tip = one.node.tip().height();
    let question = one.question(1, 5, 1);
    let answer = one.answer(2, tip, [1; 16], None);
    assert_eq!(one.hear(&answer), RelayVerdict::Ignore, "nobody has asked");
    assert_eq!(one.hear(&question), RelayVerdict::Accept);
    assert_eq!(one.hear(&answer), RelayVerdict::Accept);
    assert_eq!(one.hear(&answer), RelayVerdict::Ignore, "once");
    one.wait(SECOND * 10);
    assert!(one.said.is_empty());
    assert!(!one.waits());
}

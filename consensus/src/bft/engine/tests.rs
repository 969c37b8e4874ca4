use super::*;
use crate::bft::certificate::CommitCertificate;
use crate::bft::context::Signature;
use crate::bft::high_water::HighWaterMark;
use crate::bft::io::{Persist, Role, Timer, Writing};
use crate::bft::message::{Proposal, Vote};
use crate::bft::signer::{Guarded, Refusal, Sealed};
use crate::bft::testing::{address, block, chain, keypair, set, sign_proposal, sign_vote};

const HEIGHT: Height = Height(101);
const POWERS: [u64; 4] = [1, 1, 1, 1];

/// A disk that notes what it was told to write.
#[derive(Default)]
struct Notes {
    log: Vec<LogEntry>,
    mark: Option<HighWaterMark>,
    writes: Vec<Writing>,
    broken: bool,
}

impl Persist for Notes {
    type Error = &'static str;

    fn persist(
        &mut self,
        _: Height,
        log: &[LogEntry],
        mark: Option<&HighWaterMark>,
        writing: Writing,
    ) -> Result<(), &'static str> {
        if self.broken {
            return Err("disk full");
        }
        self.log.extend_from_slice(log);
        self.mark = mark.cloned().or(self.mark.take());
        self.writes.push(writing);
        Ok(())
    }
}

fn follower() -> Engine {
    Engine::new(chain(1), LinearTimeouts::default(), None)
}

fn validator(index: u32) -> Engine {
    let mark = HighWaterMark::never_signed(chain(1), address(index));
    let signer = Guarded::new(keypair(index), mark).unwrap();
    Engine::new(chain(1), LinearTimeouts::default(), Some(Box::new(signer)))
}

fn started(mut engine: Engine) -> (Engine, Vec<Output>) {
    let outputs = engine.start(HEIGHT, set(&POWERS), &[]).unwrap().persist(&mut Notes::default()).unwrap();
    (engine, outputs)
}

fn feed(engine: &mut Engine, input: Input) -> Vec<Output> {
    engine.step(input).unwrap().persist(&mut Notes::default()).unwrap()
}

/// Who proposes in round 0, and somebody else.
fn proposer_and_other() -> (u32, u32) {
    let proposer = set(&POWERS).proposer(chain(1), HEIGHT, 0).address();
    let index = (0..4).find(|index| address(*index) == proposer).unwrap();
    (index, (index + 1) % 4)
}

fn proposal(index: u32, fill: u8) -> Input {
    let proposal = Proposal::new(HEIGHT, 0, block(fill), None, address(index));
    Input::Message(Message::Proposal(sign_proposal(index, proposal)))
}

fn vote(index: u32, kind: VoteType, fill: Option<u8>) -> Input {
    let vote = Vote::new(kind, HEIGHT, 0, fill.map(block), address(index));
    Input::Message(Message::Vote(sign_vote(index, vote)))
}

fn judged(fill: u8, validity: Validity) -> Input {
    Input::Judged { height: HEIGHT, round: 0, block: block(fill), validity }
}

fn timer(step: TimerStep) -> Timer {
    Timer { height: HEIGHT, step, round: 0 }
}

/// The votes that an engine sends, as kind and block.
fn votes(outputs: &[Output]) -> Vec<(VoteType, Option<BlockHash>)> {
    let sent = outputs.iter().filter_map(|output| match output {
        Output::Send(Message::Vote(vote)) => Some((vote.message.kind(), vote.message.block())),
        _ => None,
    });
    sent.collect()
}

fn certificate(fill: u8, signers: &[u32]) -> CommitCertificate {
    let precommit = |index| Vote::new(VoteType::Precommit, HEIGHT, 0, Some(block(fill)), address(index));
    let signatures = signers.iter().map(|index| (address(*index), sign_vote(*index, precommit(*index)).signature));
    CommitCertificate::new(&set(&POWERS), HEIGHT, 0, block(fill), signatures).unwrap()
}

#[test]
fn it_can_move_between_threads() {
    fn assert_send<T: Send>() {}
    assert_send::<Engine>();
    assert_send::<Step>();
}

#[test]
fn a_wrong_use_is_a_fault_and_does_no_harm() {
    let mut engine = follower();
    assert!(matches!(engine.step(judged(1, Validity::Valid)), Err(EngineFault::NotStarted)));
    let (mut engine, _) = started(engine);
    for height in [100, 101] {
        let fault = engine.start(Height(height), set(&POWERS), &[]);
        assert!(matches!(fault, Err(EngineFault::NotAbove { current: HEIGHT, .. })));
    }
    let mut notes = Notes::default();
    engine.step(vote(0, VoteType::Prevote, None)).unwrap().persist(&mut notes).unwrap();
    let fault = engine.start(Height(102), set(&POWERS), &notes.log);
    assert!(matches!(fault, Err(EngineFault::ForeignLog { got: HEIGHT, wanted: Height(102) })));
    assert_eq!((engine.height(), engine.round()), (Some(HEIGHT), Some(0)));
    assert!(engine.start(Height(102), set(&POWERS), &[]).is_ok());
}

#[test]
fn an_abort_inside_stops_the_engine_and_not_the_node() {
    struct Panics;
    impl Signer for Panics {
        fn address(&self) -> Address {
            address(0)
        }
        fn sign(&mut self, _: &ToSign) -> Result<Sealed, Refusal> {
            panic!("as Malachite does where it finds its state impossible")
        }
    }
    let (mut engine, _) = started(Engine::new(chain(1), LinearTimeouts::default(), Some(Box::new(Panics))));
    let elapsed = Input::TimerElapsed(timer(TimerStep::Propose));
    assert!(matches!(engine.step(elapsed.clone()), Err(EngineFault::Aborted)));
    assert!(matches!(engine.step(elapsed), Err(EngineFault::Stopped)));
    assert!(matches!(engine.start(Height(102), set(&POWERS), &[]), Err(EngineFault::Stopped)));
}

#[test]
fn nothing_leaves_before_it_is_written() {
    let (proposer, other) = proposer_and_other();
    let (mut engine, _) = started(validator(other));
    let mut notes = Notes::default();
    engine.step(proposal(proposer, 1)).unwrap().persist(&mut notes).unwrap();
    assert_eq!(notes.writes, [Writing::Later], "a proposal of somebody else is in no hurry");
    let step = engine.step(judged(1, Validity::Valid)).unwrap();
    let outputs = step.persist(&mut notes).unwrap();
    assert_eq!(votes(&outputs), [(VoteType::Prevote, Some(block(1)))]);
    assert_eq!(notes.writes, [Writing::Later, Writing::Now]);
    assert_eq!(notes.log.len(), 3, "proposal, verdict, own prevote");
    let position = notes.mark.unwrap().position().unwrap();
    assert_eq!((position.height, position.round), (HEIGHT, 0));

    let step = engine.step(vote(proposer, VoteType::Prevote, Some(1))).unwrap();
    let broken = &mut Notes { broken: true, ..Notes::default() };
    assert_eq!(step.persist(broken), Err("disk full"));
}

#[test]
fn a_node_without_a_key_follows() {
    let (proposer, _) = proposer_and_other();
    let (mut engine, outputs) = started(follower());
    assert!(outputs.iter().any(|output| matches!(output, Output::RoundStarted { role: Role::Follower, .. })));
    let accepted = feed(&mut engine, proposal(proposer, 1));
    let expected =
        Output::Accepted { height: HEIGHT, round: 0, block: block(1), pol_round: None, proposer: address(proposer) };
    assert!(accepted.contains(&expected));
    feed(&mut engine, judged(1, Validity::Valid));
    for index in 0..3 {
        assert!(!engine.is_decided());
        feed(&mut engine, vote(index, VoteType::Prevote, Some(1)));
        let outputs = feed(&mut engine, vote(index, VoteType::Precommit, Some(1)));
        assert!(!outputs.iter().any(|output| matches!(output, Output::Send(_))));
        if index == 2 {
            let decided = certificate(1, &[0, 1, 2]);
            assert!(outputs.contains(&Output::Decided(decided.clone())));
            assert!(outputs.contains(&Output::Finalized { certificate: decided, evidence: vec![] }));
        }
    }
    assert!(engine.is_decided());

    // What comes after the decision writes nothing, and the next height's first messages are kept.
    let mut notes = Notes::default();
    let late = engine.step(vote(3, VoteType::Precommit, Some(1))).unwrap().persist(&mut notes).unwrap();
    assert_eq!((late.len(), notes.writes.len()), (0, 0));
    let early = Vote::new(VoteType::Prevote, Height(102), 0, None, address(3));
    feed(&mut engine, Input::Message(Message::Vote(sign_vote(3, early))));
    let mut notes = Notes::default();
    engine.start(Height(102), set(&POWERS), &[]).unwrap().persist(&mut notes).unwrap();
    assert_eq!(notes.log.len(), 1);
}

#[test]
fn forged_foreign_and_stray_messages_change_nothing() {
    let (proposer, other) = proposer_and_other();
    let (mut engine, _) = started(follower());
    let unsigned =
        |vote: Vote, signature| Input::Message(Message::Vote(super::super::SignedVote::new(vote, signature)));
    let prevote = Vote::new(VoteType::Prevote, HEIGHT, 0, Some(block(1)), address(0));
    let elsewhere = crate::bft::testing::sign(0, prevote.digest(chain(2)));
    let stray = [
        unsigned(prevote, Signature([7; 64])),
        unsigned(prevote, elsewhere),
        unsigned(Vote { validator: address(9), ..prevote }, sign_vote(9, prevote).signature),
        Input::Message(Message::Vote(sign_vote(0, Vote { height: EngineHeight(Height(100)), ..prevote }))),
        Input::Message(Message::Vote(sign_vote(0, Vote { round: Round::new(u32::MAX), ..prevote }))),
        proposal(other, 1),
        Input::Propose { height: HEIGHT, round: 0, block: block(1) },
        Input::Judged { height: Height(102), round: 0, block: block(1), validity: Validity::Valid },
        Input::Synced { height: Height(100), round: 0, block: block(1), validity: Validity::Valid },
        Input::TimerElapsed(Timer { height: Height(100), step: TimerStep::Propose, round: 0 }),
        Input::TimerElapsed(Timer { height: HEIGHT, step: TimerStep::Propose, round: 1 }),
    ];
    for input in stray {
        let mut notes = Notes::default();
        let outputs = engine.step(input.clone()).unwrap().persist(&mut notes).unwrap();
        assert_eq!((outputs, notes.log), (vec![], vec![]), "{input:?}");
    }
    assert!(!feed(&mut engine, proposal(proposer, 1)).is_empty());
}

#[test]
fn certificates_are_checked_before_their_blocks_are_fetched() {
    let (mut engine, _) = started(follower());
    let outputs = feed(&mut engine, Input::Certificate(certificate(1, &[0, 1])));
    let error = CertificateError::NotEnoughPower { signed: 2, total: 4 };
    assert_eq!(outputs, [Output::CertificateRejected(error)]);
    let mut wrong = certificate(1, &[0, 1, 2]).encode();
    *wrong.last_mut().unwrap() ^= 1;
    let outputs = feed(&mut engine, Input::Certificate(CommitCertificate::decode(&wrong).unwrap()));
    assert!(matches!(outputs[..], [Output::CertificateRejected(CertificateError::WrongSignature { .. })]));
    let other = CommitCertificate::new(&set(&[1, 1, 1]), HEIGHT, 0, block(1), []).unwrap();
    let outputs = feed(&mut engine, Input::Certificate(other));
    let error = CertificateError::OtherSet { got: 3, wanted: 4 };
    assert_eq!(outputs, [Output::CertificateRejected(error)]);
    let later = CommitCertificate::new(&set(&POWERS), Height(105), 0, block(1), []).unwrap();
    let outputs = feed(&mut engine, Input::Certificate(later));
    let error = CertificateError::OtherHeight { got: Height(105), wanted: HEIGHT };
    assert_eq!(outputs, [Output::CertificateRejected(error)]);

    assert!(!engine.has_polka(block(1)));
    let outputs = feed(&mut engine, Input::Certificate(certificate(1, &[0, 1, 3])));
    assert!(outputs.contains(&Output::CertificateVerified { height: HEIGHT, round: 0, block: block(1) }));
    assert!(engine.has_polka(block(1)), "a commit is reason enough to end a hold");
    let synced = Input::Synced { height: HEIGHT, round: 0, block: block(1), validity: Validity::Valid };
    assert!(feed(&mut engine, synced).contains(&Output::Decided(certificate(1, &[0, 1, 3]))));
}

#[test]
fn a_verdict_can_be_held_back() {
    let (proposer, other) = proposer_and_other();
    let (mut engine, _) = started(validator(other));
    feed(&mut engine, proposal(proposer, 1));
    let outputs = feed(&mut engine, Input::TimerElapsed(timer(TimerStep::Propose)));
    assert_eq!(votes(&outputs), [(VoteType::Prevote, None)], "without a verdict it prevotes nil");
    for index in (0..4).filter(|index| *index != other) {
        assert!(!engine.has_polka(block(1)));
        feed(&mut engine, vote(index, VoteType::Prevote, Some(1)));
    }
    assert!(engine.has_polka(block(1)) && !engine.has_polka(block(2)));
    let outputs = feed(&mut engine, judged(1, Validity::Valid));
    assert_eq!(votes(&outputs), [(VoteType::Precommit, Some(block(1)))], "then it precommits with the others");
}

#[test]
fn an_invalid_block_gets_no_vote() {
    let (proposer, other) = proposer_and_other();
    let (mut engine, _) = started(validator(other));
    feed(&mut engine, proposal(proposer, 1));
    let outputs = feed(&mut engine, judged(1, Validity::Invalid));
    assert_eq!(votes(&outputs), [(VoteType::Prevote, None)]);
}

#[test]
fn a_refused_proposal_is_withheld_and_the_round_goes_on() {
    let (proposer, _) = proposer_and_other();
    // Another block was proposed at this place, and nothing but the mark remembers it.
    let lost = ToSign::proposal(chain(1), &Proposal::new(HEIGHT, 0, block(9), None, address(proposer))).unwrap();
    let mut signer = Guarded::new(keypair(proposer), HighWaterMark::never_signed(chain(1), address(proposer))).unwrap();
    let (_, mark) = signer.sign(&lost).unwrap().open();
    let signer = Guarded::new(keypair(proposer), mark.unwrap()).unwrap();
    let (mut engine, outputs) = started(Engine::new(chain(1), LinearTimeouts::default(), Some(Box::new(signer))));
    assert!(outputs.iter().any(|output| matches!(output, Output::Propose { height: HEIGHT, round: 0, .. })));
    let outputs = feed(&mut engine, Input::Propose { height: HEIGHT, round: 0, block: block(1) });
    let refusal = Refusal::Conflict { position: lost.position() };
    assert!(outputs.contains(&Output::Withheld { position: lost.position(), refusal }));
    assert!(!outputs.iter().any(|output| matches!(output, Output::Send(_) | Output::Accepted { .. })));
    let restarted =
        |output: &Output| matches!(output, Output::StartTimer(started, _) if *started == timer(TimerStep::Propose));
    assert!(outputs.iter().any(restarted), "or it would wait for its own proposal for ever");
    let outputs = feed(&mut engine, Input::TimerElapsed(timer(TimerStep::Propose)));
    assert_eq!(votes(&outputs), [(VoteType::Prevote, None)]);
    let outputs = feed(&mut engine, Input::TimerElapsed(timer(TimerStep::Rebroadcast)));
    assert!(outputs.iter().any(|output| matches!(output, Output::SendAgain(Message::Vote(_)))));
}

#[test]
fn a_refused_vote_is_not_sent_again_either() {
    struct Refuses;
    impl Signer for Refuses {
        fn address(&self) -> Address {
            address(0)
        }
        fn sign(&mut self, _: &ToSign) -> Result<Sealed, Refusal> {
            Err(Refusal::Unavailable)
        }
    }
    let (mut engine, _) = started(Engine::new(chain(1), LinearTimeouts::default(), Some(Box::new(Refuses))));
    let mut notes = Notes::default();
    let step = engine.step(Input::TimerElapsed(timer(TimerStep::Propose))).unwrap();
    let outputs = step.persist(&mut notes).unwrap();
    assert!(outputs.iter().any(|output| matches!(output, Output::Withheld { refusal: Refusal::Unavailable, .. })));
    assert!(votes(&outputs).is_empty());
    assert_eq!(notes.log.len(), 1, "the timer, and no vote");
    let outputs = feed(&mut engine, Input::TimerElapsed(timer(TimerStep::Rebroadcast)));
    assert!(!outputs.iter().any(|output| matches!(output, Output::SendAgain(_))));
    // It still follows the others.
    for index in 1..4 {
        feed(&mut engine, vote(index, VoteType::Precommit, None));
    }
    feed(&mut engine, Input::TimerElapsed(timer(TimerStep::Precommit)));
    assert_eq!(engine.round(), Some(1));
}

#[test]
fn a_restart_says_the_same_again_and_asks_for_no_new_signature() {
    let (proposer, other) = proposer_and_other();
    let (mut engine, _) = started(validator(other));
    let mut notes = Notes::default();
    let mut run = |input| engine.step(input).unwrap().persist(&mut notes).unwrap();
    run(proposal(proposer, 1));
    let before = run(judged(1, Validity::Valid));
    let mark = notes.mark.clone().unwrap();

    let signer = Guarded::new(keypair(other), mark.clone()).unwrap();
    let mut engine = Engine::new(chain(1), LinearTimeouts::default(), Some(Box::new(signer)));
    let mut again = Notes::default();
    let after = engine.start(HEIGHT, set(&POWERS), &notes.log).unwrap().persist(&mut again).unwrap();
    assert_eq!(again.log, [], "what the log has is not appended again");
    assert_eq!(again.mark, Some(mark));
    let sent = |outputs: &[Output]| -> Vec<Output> {
        outputs.iter().filter(|output| matches!(output, Output::Send(_))).cloned().collect()
    };
    assert_eq!(sent(&after), sent(&before));
    assert!(
        after.iter().any(|output| matches!(output, Output::Accepted { .. })),
        "so that its block is looked for again"
    );

    // A mark that is behind the log is brought up to it.
    let mut behind = validator(other);
    let mut lifted = Notes::default();
    behind.start(HEIGHT, set(&POWERS), &notes.log).unwrap().persist(&mut lifted).unwrap();
    assert_eq!(lifted.mark, notes.mark);
}

#[test]
fn a_second_machine_with_the_key_silences_the_first_for_the_height() {
    let (proposer, other) = proposer_and_other();
    let (mut engine, _) = started(validator(other));
    feed(&mut engine, proposal(proposer, 1));
    let mut notes = Notes::default();
    let heard = engine.step(vote(other, VoteType::Precommit, Some(2))).unwrap();
    assert!(heard.persist(&mut notes).unwrap().contains(&Output::SignedElsewhere));
    let outputs = engine.step(judged(1, Validity::Valid)).unwrap().persist(&mut notes).unwrap();
    let refused = |output: &Output| matches!(output, Output::Withheld { refusal: Refusal::SignedElsewhere, .. });
    assert!(outputs.iter().any(refused) && votes(&outputs).is_empty());

    // After a restart it still knows, and does not take the stranger's vote for its own.
    let mut again = validator(other);
    let outputs = again.start(HEIGHT, set(&POWERS), &notes.log).unwrap().persist(&mut Notes::default()).unwrap();
    assert!(outputs.contains(&Output::SignedElsewhere));
    let outputs = feed(&mut again, Input::TimerElapsed(timer(TimerStep::Propose)));
    assert!(outputs.iter().any(refused) && votes(&outputs).is_empty());

    // The echo of what it said itself is nothing new.
    let (mut engine, _) = started(validator(other));
    let outputs = feed(&mut engine, Input::TimerElapsed(timer(TimerStep::Propose)));
    assert_eq!(votes(&outputs), [(VoteType::Prevote, None)]);
    assert_eq!(feed(&mut engine, vote(other, VoteType::Prevote, None)), []);
}

#[test]
fn blocks_are_judged_and_proposed_only_when_asked_for() {
    let (proposer, other) = proposer_and_other();
    let (mut engine, _) = started(validator(other));
    for input in [judged(1, Validity::Valid), judged(2, Validity::Invalid)] {
        let mut notes = Notes::default();
        let outputs = engine.step(input).unwrap().persist(&mut notes).unwrap();
        assert_eq!((outputs, notes.log), (vec![], vec![]), "no proposal named it");
    }
    let (mut engine, _) = started(validator(proposer));
    let mut notes = Notes::default();
    let propose = |fill| Input::Propose { height: HEIGHT, round: 0, block: block(fill) };
    let outputs = engine.step(propose(1)).unwrap().persist(&mut notes).unwrap();
    assert!(outputs.iter().any(|output| matches!(output, Output::Send(Message::Proposal(_)))));
    assert_eq!(feed(&mut engine, propose(2)), [], "one block a round");
    let replayed = validator(proposer).start(HEIGHT, set(&POWERS), &notes.log).unwrap();
    let outputs = replayed.persist(&mut Notes::default()).unwrap();
    assert!(!outputs.iter().any(|output| matches!(output, Output::Propose { .. })), "that was answered");
}

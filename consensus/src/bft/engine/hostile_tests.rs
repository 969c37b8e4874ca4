//! Every validator is a liar and signs whatever there is to sign, in any order: the engine may decide nonsense then, but
//! it never fails, and its log brings it back.

use super::*;
use crate::bft::certificate::CommitCertificate;
use crate::bft::high_water::HighWaterMark;
use crate::bft::io::{Persist, Timer, Writing};
use crate::bft::message::{Proposal, SignedVote, Vote};
use crate::bft::signer::Guarded;
use crate::bft::testing::{address, block, chain, keypair, set, sign_proposal, sign_vote};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::convert::Infallible;
use types::{PolkaCertificate, RoundCertificate, RoundCertificateType};

const HEIGHT: Height = Height(101);
const POWERS: [u64; 4] = [3, 2, 2, 2];

#[derive(Default)]
struct Disk {
    log: Vec<LogEntry>,
    mark: Option<HighWaterMark>,
}

impl Persist for Disk {
    type Error = Infallible;

    fn persist(
        &mut self,
        _: Height,
        log: &[LogEntry],
        mark: Option<&HighWaterMark>,
        _: Writing,
    ) -> Result<(), Infallible> {
        self.log.extend_from_slice(log);
        self.mark = mark.cloned().or(self.mark.take());
        Ok(())
    }
}

fn round() -> impl Strategy<Value = u32> {
    prop_oneof![8 => 0..4_u32, 2 => 4..14_u32, 1 => Just(u32::MAX - 1)]
}

fn vote(kind: VoteType, round: u32, fill: Option<u8>, signer: u32) -> SignedVote {
    sign_vote(signer, Vote::new(kind, HEIGHT, round, fill.map(block), address(signer)))
}

fn kind() -> impl Strategy<Value = VoteType> {
    prop_oneof![Just(VoteType::Prevote), Just(VoteType::Precommit)]
}

fn fill() -> impl Strategy<Value = Option<u8>> {
    proptest::option::of(1..4_u8)
}

fn signers() -> impl Strategy<Value = Vec<u32>> {
    proptest::sample::subsequence(vec![0, 1, 2, 3], 1..=4)
}

/// Our own judgement does not change: block 3 breaks a rule.
fn validity(fill: u8) -> Validity {
    Validity::from_bool(fill != 3)
}

fn proposal(round: u32, fill: u8, pol: Option<u32>) -> Input {
    let proposer = set(&POWERS).proposer(chain(1), HEIGHT, round).address();
    let index = (0..4).find(|index| address(*index) == proposer).unwrap();
    let pol = pol.filter(|pol| *pol < round);
    let proposal = Proposal::new(HEIGHT, round, block(fill), pol, proposer);
    Input::Message(Message::Proposal(sign_proposal(index, proposal)))
}

fn polka(round: u32, fill: u8, signers: &[u32]) -> Input {
    let votes = signers.iter().map(|signer| vote(VoteType::Prevote, round, Some(fill), *signer)).collect();
    let polka = PolkaCertificate::new(EngineHeight(HEIGHT), Round::new(round), BlockId(block(fill)), votes);
    Input::Message(Message::polka(polka))
}

fn round_certificate(precommits: bool, round: u32, votes: Vec<(VoteType, Option<u8>)>) -> Input {
    let cert_type = if precommits { RoundCertificateType::Precommit } else { RoundCertificateType::Skip };
    let votes = (0..).zip(votes).map(|(signer, (kind, fill))| vote(kind, round, fill, signer)).collect();
    let certificate = RoundCertificate::new_from_votes(EngineHeight(HEIGHT), Round::new(round), cert_type, votes);
    Input::Message(Message::round_certificate(certificate))
}

fn certificate(round: u32, fill: u8, signers: &[u32]) -> Input {
    let signatures = signers
        .iter()
        .map(|signer| (address(*signer), vote(VoteType::Precommit, round, Some(fill), *signer).signature));
    Input::Certificate(CommitCertificate::new(&set(&POWERS), HEIGHT, round, block(fill), signatures).unwrap())
}

fn input() -> impl Strategy<Value = Input> {
    let step = prop_oneof![
        Just(TimerStep::Propose),
        Just(TimerStep::Prevote),
        Just(TimerStep::Precommit),
        Just(TimerStep::Rebroadcast),
    ];
    prop_oneof![
        8 => (kind(), round(), fill(), 0..4_u32)
            .prop_map(|(kind, round, fill, signer)| Input::Message(Message::Vote(vote(kind, round, fill, signer)))),
        4 => (round(), 1..4_u8, proptest::option::of(0..3_u32)).prop_map(|(round, fill, pol)| proposal(round, fill, pol)),
        2 => (round(), 1..4_u8, signers()).prop_map(|(round, fill, signers)| polka(round, fill, &signers)),
        2 => (any::<bool>(), round(), proptest::collection::vec((kind(), fill()), 1..=4))
            .prop_map(|(precommits, round, votes)| round_certificate(precommits, round, votes)),
        1 => (round(), 1..4_u8, signers()).prop_map(|(round, fill, signers)| certificate(round, fill, &signers)),
        4 => (round(), 1..4_u8).prop_map(|(round, fill)| Input::Judged { height: HEIGHT, round, block: block(fill), validity: validity(fill) }),
        1 => (round(), 1..4_u8).prop_map(|(round, fill)| Input::Synced { height: HEIGHT, round, block: block(fill), validity: validity(fill) }),
        3 => (round(), 1..3_u8).prop_map(|(round, fill)| Input::Propose { height: HEIGHT, round, block: block(fill) }),
        6 => (step, 0..4_u32).prop_map(|(step, round)| Input::TimerElapsed(Timer { height: HEIGHT, step, round })),
    ]
}

/// Whether the input holds a signature of this validator.
fn is_signed_by(input: &Input, address: Address) -> bool {
    match input {
        Input::Message(Message::Vote(vote)) => vote.message.validator() == address,
        Input::Message(Message::Proposal(proposal)) => proposal.message.proposer() == address,
        Input::Message(Message::Polka(polka)) => polka.polka_signatures.iter().any(|it| it.address == address),
        Input::Message(Message::Round(round)) => round.round_signatures.iter().any(|it| it.address == address),
        Input::Certificate(certificate) => {
            certificate.signatures().any(|(index, _)| set(&POWERS).members()[index].address() == address)
        }
        _ => false,
    }
}

fn engine(index: u32, mark: Option<HighWaterMark>) -> Engine {
    let mark = mark.unwrap_or_else(|| HighWaterMark::never_signed(chain(1), address(index)));
    let signer = Guarded::new(keypair(index), mark).unwrap();
    Engine::new(chain(1), LinearTimeouts::default(), Some(Box::new(signer)))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn nothing_makes_the_engine_fail(index in 0..4_u32, key_is_out: bool, kept in 0..200_usize, inputs in proptest::collection::vec(input(), 1..80)) {
        let mut disk = Disk::default();
        let mut running = engine(index, None);
        let mut decided = Vec::new();
        let mut note = |outputs: Vec<Output>| {
            for output in outputs {
                if let Output::Decided(certificate) = output {
                    certificate.verify(chain(1), &set(&POWERS), HEIGHT, certificate.block()).unwrap();
                    decided.push(certificate);
                }
            }
        };
        let Ok(outputs) = running.start(HEIGHT, set(&POWERS), &[]).unwrap().persist(&mut disk);
        note(outputs);
        for input in inputs.into_iter().filter(|input| key_is_out || !is_signed_by(input, address(index))) {
            let Ok(outputs) = running.step(input).unwrap().persist(&mut disk);
            note(outputs);
        }
        prop_assert!(decided.len() <= 1);
        prop_assert_eq!(running.is_decided(), decided.len() == 1);

        // It comes back to where it was, or further: a block of our own for which a certificate is there is not decided at
        // once, but when its verdict comes out of the log.
        let log: Vec<_> = disk.log.iter().map(|entry| LogEntry::decode(&entry.encode()).unwrap()).collect();
        prop_assert_eq!(&log, &disk.log);
        // In half of the cases a crash cut off the end of the log; the mark was written with it.
        let kept = if kept < 100 { log.len() * kept / 100 } else { log.len() };
        let mut restarted = engine(index, disk.mark.take());
        let mut again = Disk::default();
        let Ok(_) = restarted.start(HEIGHT, set(&POWERS), &log[..kept]).unwrap().persist(&mut again);
        if kept == log.len() {
            prop_assert!(restarted.is_decided() || restarted.round() == running.round());
            prop_assert!(restarted.is_decided() || !running.is_decided());
        }
        let mut said = BTreeMap::new();
        for entry in log.iter().chain(&again.log).filter(|entry| entry.own) {
            let message = match &entry.entry {
                Entry::Vote(vote) => ToSign::vote(chain(1), &vote.message),
                Entry::Proposal(proposal) => ToSign::proposal(chain(1), &proposal.message),
                _ => None,
            };
            let message = message.unwrap();
            prop_assert_eq!(said.entry(message.position()).or_insert(message), &message, "said two things");
        }
    }
}

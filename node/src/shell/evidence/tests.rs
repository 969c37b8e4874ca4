use bitcoin::BlockHash;
use bitcoin::hashes::Hash;
use causeway_consensus::bft::{Address, Proposal, Signature, SignedProposal, SignedVote, Vote, VoteType};

use super::*;

fn block(fill: u8) -> BlockHash {
    BlockHash::from_byte_array([fill; 32])
}

fn votes(height: u32, validator: u8) -> Equivocation {
    let vote = |fill: u8| {
        let vote = Vote::new(VoteType::Prevote, Height(height), 0, Some(block(fill)), Address([validator; 32]));
        SignedVote::new(vote, Signature([fill; 64]))
    };
    Equivocation::of_votes(vote(1), vote(2)).unwrap()
}

fn proposals(height: u32, validator: u8) -> Equivocation {
    let proposal = |fill: u8| {
        let proposal = Proposal::new(Height(height), 0, block(fill), None, Address([validator; 32]));
        SignedProposal::new(proposal, Signature([fill; 64]))
    };
    Equivocation::of_proposals(proposal(1), proposal(2)).unwrap()
}

#[test]
fn proofs_are_kept_once_and_found_again() {
    let home = tempfile::tempdir().unwrap();
    let directory = home.path().join("evidence");
    let all = [votes(101, 1), proposals(101, 1), votes(102, 1), votes(101, 2)];
    let mut store = EvidenceStore::open(&directory).unwrap();
    for proof in &all {
        assert_eq!(store.keep(proof).unwrap(), Kept::New);
        assert_eq!(store.keep(proof).unwrap(), Kept::Already);
    }
    std::fs::write(directory.join("notes.txt"), "of the operator").unwrap();
    let store = EvidenceStore::open(&directory).unwrap();
    assert_eq!(store.list().len(), 4);
    for proof in &all {
        assert_eq!(&store.load(ProofName::of(proof)).unwrap(), proof);
    }
    assert_eq!(ProofName::of(&all[0]).to_string(), "101-0101010101010101-votes.evidence");
}

#[test]
fn one_validator_does_not_fill_the_disk_nor_take_the_room_of_others() {
    let home = tempfile::tempdir().unwrap();
    let mut store = EvidenceStore::open(home.path()).unwrap();
    for height in 0..PROOFS_OF_VALIDATOR_MAX {
        assert_eq!(store.keep(&votes(u32::try_from(height).unwrap(), 1)).unwrap(), Kept::New);
    }
    assert_eq!(store.keep(&votes(100_000, 1)).unwrap(), Kept::Enough);
    assert_eq!(store.keep(&votes(100_000, 2)).unwrap(), Kept::New);
    assert_eq!(std::fs::read_dir(home.path()).unwrap().count(), PROOFS_OF_VALIDATOR_MAX + 1);
}

#[test]
fn a_damaged_or_swapped_proof_is_refused() {
    let home = tempfile::tempdir().unwrap();
    let mut store = EvidenceStore::open(home.path()).unwrap();
    let (one, other) = (votes(101, 1), votes(102, 1));
    store.keep(&one).unwrap();
    store.keep(&other).unwrap();
    let path = |proof: &Equivocation| home.path().join(ProofName::of(proof).to_string());
    std::fs::copy(path(&other), path(&one)).unwrap();
    let swapped = store.load(ProofName::of(&one)).unwrap_err();
    assert!(matches!(swapped, EvidenceFileError::Damaged { source: None, .. }), "{swapped}");
    std::fs::write(path(&one), [0; 5_000]).unwrap();
    assert!(matches!(store.load(ProofName::of(&one)), Err(EvidenceFileError::Damaged { source: Some(_), .. })));
}

#[test]
fn names_are_read_as_they_are_written() {
    for proof in [votes(101, 0xab), proposals(u32::MAX, 0)] {
        let name = ProofName::of(&proof);
        assert_eq!(name.to_string().parse(), Ok(name));
    }
    for wrong in [
        "",
        "101-0101010101010101-votes",
        "x-0101010101010101-votes.evidence",
        "1-01-votes.evidence",
        "1-0101010101010101-blocks.evidence",
    ] {
        assert_eq!(wrong.parse::<ProofName>(), Err(NotAProofName), "{wrong}");
    }
}

use std::time::Duration;

use rand::Rng;
use rand::rngs::StdRng;

use super::*;
use network::Network;

mod network;
mod rules;

const SECOND: Duration = Duration::from_secs(1);

fn all(network: &Network) -> Vec<usize> {
    (0..network.n()).collect()
}

fn path(network: &Network, member: usize) -> &Path {
    &network.outcomes[member].as_ref().unwrap().path
}

fn proven(network: &Network, member: usize) -> Vec<(u16, Fault)> {
    let faults = &network.outcomes[member].as_ref().unwrap().faults;
    faults.iter().copied().filter(|(_, fault)| fault.is_proven()).collect()
}

fn index(member: usize) -> u16 {
    u16::try_from(member).unwrap()
}

#[test]
fn all_members_sign_on_the_key_path() {
    for (n, t) in [(1, 1), (2, 2), (3, 2), (5, 3), (15, 11)] {
        let mut network = Network::new(n, t, 2, 1);
        let members = all(&network);
        network.run(&members);
        for member in members {
            assert_eq!(path(&network, member), &Path::Key);
            assert_eq!(network.outcomes[member].as_ref().unwrap().faults, []);
            assert_eq!(network.open_nonces(member), 0);
        }
        assert!(network.now < 4 * SECOND);
    }
}

#[test]
fn absent_members_cost_the_key_path_alone() {
    for (n, t) in [(3, 2), (5, 3), (15, 11)] {
        for absent in 1..=n - t {
            let mut network = Network::new(n, t, 1, 7);
            (0..absent).for_each(|member| network.never(member));
            let here: Vec<_> = (absent..n).collect();
            // So that nobody who is absent coordinates.
            while network.coordinator(1) < absent {
                network.task.number += 1;
            }
            network.run(&here);
            for member in here {
                assert!(matches!(path(&network, member), Path::Subset(_)), "{:?}", path(&network, member));
                assert_eq!(network.attempts(member).min(1), network.attempts(member));
                let faults = &network.outcomes[member].as_ref().unwrap().faults;
                assert_eq!(faults.len(), absent, "{faults:?}");
                assert!(
                    faults.iter().all(|(silent, fault)| {
                        usize::from(*silent) < absent && *fault == Fault::Silent { round: 0 }
                    })
                );
            }
        }
    }
}

/// Kinds of messages, as the lies below name them.
fn kind(message: &SessionMessage) -> usize {
    match message.body {
        Body::Join { .. } => 0,
        Body::Proposal { .. } => 1,
        Body::Nonces { .. } => 2,
        Body::Partials { .. } => 3,
        Body::Signatures(_) => 4,
        Body::Result { .. } => 5,
    }
}

#[test]
fn members_silent_from_any_step_on_do_not_stop_the_others() {
    for (n, t) in [(3, 2), (5, 3)] {
        for silent in 1..=n - t {
            for from in 0..4 {
                for seed in 0..4 {
                    let mut network = Network::new(n, t, 1, seed);
                    for member in 0..silent {
                        network.lie(
                            member,
                            move |_, message, _| {
                                if kind(message) < from { vec![message.clone()] } else { vec![] }
                            },
                        );
                    }
                    network.run(&(silent..n).collect::<Vec<_>>());
                    for member in silent..n {
                        assert_ne!(path(&network, member), &Path::Key);
                        assert_eq!(proven(&network, member), []);
                        assert!(network.attempts(member) <= n - t + 1);
                        let faults = &network.outcomes[member].as_ref().unwrap().faults;
                        assert!(faults.iter().all(|(named, _)| usize::from(*named) < silent), "{faults:?}");
                    }
                }
            }
        }
    }
}

/// A liar that spoils its partial signatures. It knows the right ones, and keeps what they add up to for itself.
fn spoil_partials(message: &SessionMessage) -> Vec<SessionMessage> {
    let mut message = message.clone();
    match &mut message.body {
        Body::Partials { partials, .. } => partials.last_mut().unwrap()[31] ^= 1,
        Body::Result { .. } => return vec![],
        _ => {}
    }
    vec![message]
}

#[test]
fn a_bad_partial_signature_names_its_member_and_no_other() {
    for (n, t) in [(3, 2), (5, 3), (15, 11)] {
        for bad in 1..=n - t {
            let mut network = Network::new(n, t, 2, 3);
            (0..bad).for_each(|member| network.lie(member, |_, message, _| spoil_partials(message)));
            network.run(&(bad..n).collect::<Vec<_>>());
            for member in bad..n {
                let Path::Subset(signers) = path(&network, member) else { panic!("{:?}", path(&network, member)) };
                assert!(signers.iter().all(|signer| usize::from(*signer) >= bad));
                // The key path ends with the first that is seen. All are named if they come to sign.
                let named = proven(&network, member);
                assert!((1..=bad).contains(&named.len()));
                assert!(named.iter().all(|(named, fault)| {
                    usize::from(*named) < bad && matches!(fault, Fault::BadPartial { input: 1, .. })
                }));
                assert!(network.attempts(member) <= bad);
            }
        }
    }
}

/// Faults one after the other: member i spoils its part only in the attempt of number i.
#[test]
fn staggered_faults_take_at_most_n_minus_t_plus_one_attempts_on_subsets() {
    for (n, t, seeds) in [(3, 2, 20), (5, 3, 20), (15, 11, 3)] {
        for seed in 0..seeds {
            let mut network = Network::new(n, t, 1, seed);
            for member in 0..n - t {
                // The first round in which the others are found out already.
                let first = u32::try_from(member).unwrap();
                network.lie(member, move |_, message, _| {
                    let spoils = message.round >= first || kind(message) == 5;
                    if spoils { spoil_partials(message) } else { vec![message.clone()] }
                });
            }
            // Member 0 spoils the key path.
            network.run(&(n - t..n).collect::<Vec<_>>());
            for member in n - t..n {
                assert!(matches!(path(&network, member), Path::Subset(_)), "{:?}", path(&network, member));
                assert!(network.attempts(member) <= n - t + 1);
                let named = proven(&network, member);
                assert!(named.iter().all(|(named, fault)| {
                    usize::from(*named) < n - t && matches!(fault, Fault::BadPartial { .. })
                }));
            }
        }
    }
}

#[test]
fn every_kind_of_bad_contribution_is_named() {
    type Spoil = fn(&mut SessionMessage, usize);
    type Expected = fn(Fault) -> bool;
    let cases: [(Spoil, Expected); 7] = [
        (
            |message, _| {
                if let Body::Nonces { nonces, .. } = &mut message.body {
                    nonces[1][0] = 9;
                }
            },
            |fault| matches!(fault, Fault::BadNonce { round: 0, input: 1 }),
        ),
        (
            |message, _| {
                if let Body::Nonces { nonces, .. } = &mut message.body {
                    nonces.pop();
                }
            },
            |fault| matches!(fault, Fault::WrongCount { round: 0 }),
        ),
        (
            |message, _| {
                if let Body::Nonces { nonces, .. } = &mut message.body {
                    nonces[1] = nonces[0];
                }
            },
            |fault| matches!(fault, Fault::ReusedNonce { round: 0 }),
        ),
        (
            |message, _| {
                if let Body::Partials { partials, .. } = &mut message.body {
                    partials.pop();
                }
            },
            |fault| matches!(fault, Fault::WrongCount { round: 0 }),
        ),
        (
            |message, _| {
                if let Body::Partials { partials, .. } = &mut message.body {
                    partials[0] = [0xff; 32];
                }
            },
            |fault| matches!(fault, Fault::BadPartial { round: 0, input: 0 }),
        ),
        // Two different messages: nonces, then partial signatures.
        (
            |message, to| {
                if let Body::Nonces { nonces, .. } = &mut message.body
                    && to % 2 == 0
                {
                    nonces.swap(0, 1);
                }
            },
            |fault| matches!(fault, Fault::Equivocation { round: 0 }),
        ),
        (
            |message, to| {
                if let Body::Partials { partials, .. } = &mut message.body {
                    partials[0][31] ^= u8::try_from(to + 1).unwrap();
                }
            },
            |fault| matches!(fault, Fault::Equivocation { round: 0 } | Fault::BadPartial { round: 0, input: 0 }),
        ),
    ];
    for (number, (spoil, expected)) in cases.into_iter().enumerate() {
        for liar in 0..5 {
            let mut network = Network::new(5, 3, 2, 11);
            network.lie(liar, move |_, message, to| {
                let mut message = message.clone();
                spoil(&mut message, to);
                if kind(&message) == 5 { vec![] } else { vec![message] }
            });
            let honest: Vec<_> = (0..5).filter(|member| *member != liar).collect();
            network.run(&honest);
            for member in honest {
                let named = proven(&network, member);
                assert_eq!(named.len(), 1, "case {number}, liar {liar}: {named:?}");
                assert_eq!(named[0].0, index(liar));
                assert!(expected(named[0].1), "case {number}: {named:?}");
                assert!(matches!(path(&network, member), Path::Subset(_)));
            }
        }
    }
}

#[test]
fn garbage_is_refused_at_the_door() {
    let mut network = Network::new(5, 3, 1, 2);
    // Well signed, but nothing else about it is right.
    network.lie(0, |rng, message, _| {
        let mut other = message.clone();
        other.task = TaskId(rng.random());
        let mut early = message.clone();
        early.round = u32::MAX;
        let unsorted = SessionMessage { body: Body::Proposal { signers: vec![2, 1, 0] }, ..message.clone() };
        vec![other, early, unsorted]
    });
    network.run(&[1, 2, 3, 4]);
    assert!(network.malformed > 0);
    assert!((1..5).all(|member| proven(&network, member).is_empty()));
}

#[test]
fn a_lying_coordinator_costs_one_round() {
    type Proposal = fn(&SessionMessage, usize) -> Vec<SessionMessage>;
    let lies: [(Proposal, bool); 5] = [
        // Nothing.
        (|_, _| vec![], false),
        // Too few, members that do not exist, others to each.
        (|message, _| vec![SessionMessage { body: Body::Proposal { signers: vec![1] }, ..message.clone() }], true),
        (
            |message, _| vec![SessionMessage { body: Body::Proposal { signers: vec![1, 2, 77] }, ..message.clone() }],
            true,
        ),
        (
            |message, to| {
                let signers = if to % 2 == 0 { vec![0, 1, 2] } else { vec![2, 3, 4] };
                vec![SessionMessage { body: Body::Proposal { signers }, ..message.clone() }]
            },
            true,
        ),
        // To one member alone.
        (|message, to| if to == 3 { vec![message.clone()] } else { vec![] }, false),
    ];
    for (number, (lie, is_proven)) in lies.into_iter().enumerate() {
        let mut network = Network::new(5, 3, 1, 5);
        let liar = network.coordinator(1);
        network.lie(liar, move |_, message, to| match message.body {
            Body::Proposal { .. } => lie(message, to),
            // No key path.
            Body::Nonces { .. } | Body::Partials { .. } if message.round == 0 => vec![],
            _ => vec![message.clone()],
        });
        let honest: Vec<_> = (0..5).filter(|member| *member != liar).collect();
        network.run(&honest);
        for member in honest {
            assert!(matches!(path(&network, member), Path::Subset(_)), "lie {number}: {:?}", path(&network, member));
            assert_eq!(proven(&network, member).iter().any(|(named, _)| *named == index(liar)), is_proven, "{number}");
            assert!(network.attempts(member) <= 2);
        }
    }
}

#[test]
fn a_proposal_by_another_than_the_coordinator_is_a_fault() {
    let mut network = Network::new(5, 3, 1, 5);
    let liar = (network.coordinator(1) + 1) % 5;
    network.lie(liar, |_, message, _| match message.body {
        Body::Nonces { .. } => vec![],
        Body::Join { .. } if message.round == 1 => {
            vec![message.clone(), SessionMessage { body: Body::Proposal { signers: vec![0, 1, 2] }, ..message.clone() }]
        }
        _ => vec![message.clone()],
    });
    let honest: Vec<_> = (0..5).filter(|member| *member != liar).collect();
    network.run(&honest);
    for member in honest {
        assert!(matches!(path(&network, member), Path::Subset(_)));
    }
}

#[test]
fn claims_of_a_result_are_checked() {
    let mut network = Network::new(5, 3, 1, 8);
    network.lie(0, |_, message, _| {
        let signature = bitcoin::secp256k1::schnorr::Signature::from_slice(&[1; 64]).unwrap();
        let body = Body::Result { signers: vec![], signatures: vec![signature] };
        vec![SessionMessage { round: 0, body, ..message.clone() }]
    });
    network.run(&[1, 2, 3, 4]);
    for member in 1..5 {
        assert_eq!(proven(&network, member), [(0, Fault::BadResult)]);
    }
}

/// Without any coordinator, members still sign: plainly.
#[test]
fn multi_a_needs_no_coordinator_and_no_nonces() {
    for (n, t) in [(3, 2), (5, 3)] {
        let mut network = Network::new(n, t, 2, 4);
        for member in 0..n {
            let faulty = member < n - t;
            network.lie(member, move |_, message, _| match &message.body {
                Body::Proposal { .. } | Body::Nonces { .. } => vec![],
                Body::Signatures(signatures) if faulty => {
                    let body = Body::Signatures(signatures.iter().rev().copied().collect());
                    vec![SessionMessage { body, ..message.clone() }]
                }
                _ => vec![message.clone()],
            });
        }
        network.run(&(n - t..n).collect::<Vec<_>>());
        for member in n - t..n {
            assert_eq!(path(&network, member), &Path::MultiA);
            for (named, fault) in proven(&network, member) {
                assert!(usize::from(named) < n - t && fault == Fault::BadSignature { input: 0 });
            }
        }
    }
}

/// Every lie at once, chosen by the seed, over a network that loses, repeats and reorders.
fn chaos(n: usize, t: usize, seed: u64) {
    let mut network = Network::new(n, t, 2, seed);
    network.loss = [0.0, 0.05, 0.2][usize::try_from(seed % 3).unwrap()];
    network.repeat = 0.1;
    network.delay_ms = if seed.is_multiple_of(2) { 5..400 } else { 1..50 };
    let mut liars = Vec::new();
    while liars.len() < n - t {
        let liar = network.rng.random_range(0..n);
        if !liars.contains(&liar) {
            liars.push(liar);
        }
    }
    for liar in &liars {
        let trick = network.rng.random_range(0..9);
        let from = network.rng.random_range(0..4_u32);
        network.lie(*liar, move |rng, message, to| random_lie(rng, message, to, trick, from));
    }
    let honest: Vec<_> = (0..n).filter(|member| !liars.contains(member)).collect();
    // One of the honest dies and comes back.
    if seed.is_multiple_of(4) {
        let back = Duration::from_millis(network.rng.random_range(10..20_000));
        network.kill = Some((honest[0], network.rng.random_range(0..60), Some(back)));
    }
    network.run(&honest);
    for member in honest {
        assert!(network.attempts(member) <= n - t + 1);
        assert_eq!(network.open_nonces(member), 0);
        assert!(proven(&network, member).iter().all(|(named, _)| liars.contains(&usize::from(*named))));
    }
}

fn random_lie(rng: &mut StdRng, message: &SessionMessage, to: usize, trick: u32, from: u32) -> Vec<SessionMessage> {
    if message.round < from {
        return vec![message.clone()];
    }
    let mut lie = message.clone();
    match trick {
        0 => return vec![],
        1 => return if rng.random_bool(0.5) { vec![lie] } else { vec![] },
        2 => return spoil_partials(message),
        3 if to.is_multiple_of(2) => return spoil_partials(message),
        4 if to.is_multiple_of(2) => {
            if let Body::Nonces { nonces, .. } = &mut lie.body {
                nonces.swap(0, 1);
            }
        }
        5 => {
            if let Body::Proposal { signers } = &mut lie.body {
                signers[0] = if to.is_multiple_of(2) && signers[0] > 0 { 0 } else { signers[0] };
            }
        }
        // Hurries ahead.
        6 if matches!(lie.body, Body::Join { .. }) => lie.round += rng.random_range(0..5),
        7 if matches!(lie.body, Body::Nonces { .. } | Body::Proposal { .. }) => return vec![],
        8 if !to.is_multiple_of(3) => return vec![],
        _ => {}
    }
    vec![lie]
}

#[test]
fn two_of_three_sign_in_any_weather() {
    (0..150).for_each(|seed| chaos(3, 2, seed));
}

#[test]
fn three_of_five_sign_in_any_weather() {
    (0..120).for_each(|seed| chaos(5, 3, seed));
}

#[test]
fn eleven_of_fifteen_sign_in_any_weather() {
    (0..3).for_each(|seed| chaos(15, 11, seed));
}

#[test]
fn all_members_restarted_at_any_time_sign_in_the_end() {
    for tenth in 0..40 {
        let mut network = Network::new(3, 2, 2, tenth);
        let at = Duration::from_millis(100 * tenth);
        network.run_until(at, |_| false);
        for member in 0..3 {
            network.crash(member);
            network.start(member, network.now + Duration::from_millis(50));
        }
        network.outcomes = vec![None; 3];
        network.run(&[0, 1, 2]);
    }
}

#[test]
fn a_member_that_comes_late_learns_the_result() {
    let mut network = Network::new(5, 3, 1, 3);
    network.never(4);
    network.run(&[0, 1, 2, 3]);
    network.start(4, network.now + 600 * SECOND);
    network.run_until(network.now + 700 * SECOND, |network| network.outcomes[4].is_some());
    network.run(&[4]);
    assert_eq!(path(&network, 4), path(&network, 0));
}

/// Four members of fifteen are absent: the others wait the whole first round for them.
#[test]
fn a_round_with_silent_members_costs_a_few_short_words() {
    let mut network = Network::new(15, 11, 16, 1);
    (0..4).for_each(|member| network.never(member));
    // They have all started, and the round has not ended.
    network.run_until(9 * SECOND, |_| false);
    assert!(network.outcomes.iter().all(Option::is_none));
    // Each of eleven says what it has when it starts and every two seconds, to each of fourteen.
    assert!(network.sent <= 11 * 14 * 7, "{} messages", network.sent);
    assert!(network.sent_bytes / network.sent < 250, "{} bytes", network.sent_bytes);
}

#[test]
fn what_a_member_lacks_is_sent_by_who_said_it_and_then_by_all_who_have_it() {
    let mut network = Network::new(3, 2, 2, 5);
    // Member 0 says its nonces to member 1 alone, and again to nobody.
    network.lie(0, |_, message, to| {
        let hides = matches!(message.body, Body::Nonces { .. } | Body::Partials { .. }) && to == 2;
        if hides { vec![] } else { vec![message.clone()] }
    });
    network.run(&[1, 2]);
    for member in [1, 2] {
        assert_eq!(path(&network, member), &Path::Key, "the words that member 1 has reach member 2");
        assert_eq!(network.outcomes[member].as_ref().unwrap().faults, []);
    }
}

#[test]
fn too_few_members_wait_in_the_first_round() {
    let mut network = Network::new(5, 3, 1, 3);
    (2..5).for_each(|member| network.never(member));
    network.run_until(3_600 * SECOND, |_| false);
    assert!(network.outcomes.iter().all(Option::is_none));
    // The third one comes, and no attempt has been wasted.
    network.start(2, network.now);
    network.run(&[0, 1, 2]);
    assert!((0..3).all(|member| matches!(path(&network, member), Path::Subset(_))));
}

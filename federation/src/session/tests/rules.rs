//! The nonce rules that a session keeps, and the tasks that it refuses.

use std::time::Duration;

use super::super::*;
use super::network::Network;
use super::{SECOND, all, kind};

#[test]
fn rule_7_a_member_killed_at_any_step_never_signs_twice_with_a_nonce() {
    for (n, t) in [(3, 2), (5, 3)] {
        for victim in 0..n {
            for step in 0.. {
                let mut network = Network::new(n, t, 2, u64::try_from(step).unwrap());
                network.kill = Some((victim, step, Some(Duration::from_millis(700))));
                let members = all(&network);
                network.run(&members);
                if network.kill.is_some() {
                    assert!(step > 5, "{step}");
                    break;
                }
            }
        }
    }
}

/// The network fails if the words are not the same, or if a nonce signs again.
#[test]
fn rule_6_what_was_said_is_repeated_as_it_was() {
    let mut repeated = 0;
    for seed in 0..6 {
        let mut network = Network::new(3, 2, 2, seed);
        network.loss = 0.4;
        // One member says no partial signatures.
        network.lie(0, |_, message, _| if kind(message) < 3 { vec![message.clone()] } else { vec![] });
        network.run(&[1, 2]);
        repeated += network.repeated;
    }
    assert!(repeated > 4, "{repeated}");
}

#[test]
fn rule_3_signers_and_messages_are_fixed_before_nonces_are_made() {
    let (keys, task) = super::network::federation(3, 2, 2, 3);
    let mut session = Session::new(task.clone(), 0, Timing::default(), None).unwrap();
    let others: Vec<_> = (1..3_u16)
        .map(|member| {
            let message =
                SessionMessage { task: task.task_id(), round: 0, body: Body::Join { heard: vec![], have: vec![] } };
            SignedMessage::sign(
                super::network::chain(),
                member,
                &super::network::identity(usize::from(member)),
                message,
            )
        })
        .collect();
    // No nonce before all have joined and the record of the attempt is on disk.
    let mut actions = session.handle(Duration::ZERO, SessionEvent::Started);
    for signed in others {
        actions.extend(session.handle(Duration::ZERO, SessionEvent::Received(signed)));
    }
    let records: Vec<_> = actions
        .iter()
        .filter_map(|action| match action {
            SessionAction::Persist(record) => Some(record.clone()),
            SessionAction::MakeNonces(_) => panic!("a nonce before the record"),
            _ => None,
        })
        .collect();
    let [record] = &records[..] else { panic!("{records:?}") };
    // Nor for the record of another round.
    assert!(
        session
            .handle(Duration::ZERO, SessionEvent::Persisted { round: 1 })
            .iter()
            .all(|action| { !matches!(action, SessionAction::MakeNonces(_)) })
    );
    let actions = session.handle(Duration::ZERO, SessionEvent::Persisted { round: 0 });
    let attempt = actions.iter().find_map(|action| match action {
        SessionAction::MakeNonces(attempt) => Some(attempt),
        _ => None,
    });
    let attempt = attempt.unwrap();
    assert_eq!((record.attempt, record.round, record.txid), (attempt.id(), 0, task.txid()));
    assert_eq!((attempt.signers(), attempt.path()), (&[0, 1, 2][..], &Path::Key));
    for (at, input) in attempt.inputs().iter().enumerate() {
        assert_eq!(input.message, task.message(at, &Path::Key));
        assert_eq!(input.aggregate.keys(), keys.iter().map(crate::musig::MemberKey::public_key).collect::<Vec<_>>());
    }
}

#[test]
fn rule_10_words_that_this_process_did_not_say_stop_it() {
    let mut network = Network::new(5, 3, 1, 3);
    network.run_until(SECOND, |_| false);
    let body = Body::Nonces { attempt: AttemptId([1; 32]), nonces: vec![[2; 66]] };
    let message = SessionMessage { task: network.task.task_id(), round: 0, body };
    let signed = SignedMessage::sign(super::network::chain(), 2, &super::network::identity(2), message);
    network.feed(2, SessionEvent::Received(signed));
    assert_eq!(network.alarms, [(2, Alarm::KeyInUseElsewhere)]);
    assert_eq!(network.open_nonces(2), 0);
    // The others go on without it.
    network.alarms.clear();
    network.run(&[0, 1, 3, 4]);
    assert_eq!(network.outcomes[2], None);
}

#[test]
fn tasks_that_cannot_be_signed_are_refused() {
    let (_, task) = super::network::federation(3, 2, 1, 0);
    let refused = |change: fn(&mut super::network::PlainTask), own| {
        let mut task = task.clone();
        change(&mut task);
        Session::new(task, own, Timing::default(), None).map(|_| ()).unwrap_err()
    };
    assert_eq!(refused(|task| task.threshold = 0, 0), TaskError::Threshold);
    assert_eq!(refused(|task| task.threshold = 4, 0), TaskError::Threshold);
    assert_eq!(refused(|task| task.inputs = 0, 0), TaskError::Inputs);
    assert_eq!(refused(|task| task.inputs = INPUTS_MAX + 1, 0), TaskError::Inputs);
    assert_eq!(refused(|task| task.members.reverse(), 0), TaskError::Members);
    assert_eq!(refused(|task| task.members.clear(), 0), TaskError::Members);
    assert_eq!(refused(|_| (), 3), TaskError::NotAMember(3));
}

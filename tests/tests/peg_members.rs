//! Members that are silent, lie, or are killed, as real processes with a real Bitcoin Core: they are named, no nonce is used
//! twice, and the payouts happen.
//!
//! `CAUSEWAY_TEST_FULL=1` runs all of it; the ordinary run only silent and lying members.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, Mutex};

use bitcoin::{Amount, OutPoint};
use causeway_federation::home::Home;
use causeway_federation::keystore::{SigningLog, read_public_keys};
use causeway_federation::session::{Body, SessionMessage, SignedMessage};
use causeway_tests::devnet::{PegNetwork, Plan, full, payee};
use causeway_tests::seat::Seat;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};

const VALUE: Amount = Amount::from_sat(100_000_000);

/// Members of the devnet's federation.
const MEMBERS: usize = 5;

/// The one that a test plays.
const PLAYED: usize = 4;

/// Confirmations that make something final on the devnet.
const FINAL_DEPTH: u32 = 3;

/// Kills at random moments.
const RANDOM_KILLS: usize = 6;

/// The members that others in a list have this flag for.
fn places<'a>(list: &'a Value, is: impl Fn(&Value) -> Option<u64> + 'a) -> BTreeSet<u64> {
    list.as_array().expect("a list").iter().filter_map(is).collect()
}

/// The place of each member of the devnet among the members, by its number.
fn place_of(network: &PegNetwork, index: usize) -> u16 {
    let key = read_public_keys(&Home::at(&network.member(index).home).key()).expect("its keys").member;
    let spec = Home::at(&network.member(index).home).load_chainspec().expect("its chain");
    let place = spec.federation().members().iter().position(|member| *member == key).expect("it is a member");
    u16::try_from(place).expect("few members")
}

#[test]
fn two_silent_members_are_named_and_hold_nothing_up() {
    let mut network = PegNetwork::start();
    network.wait_connected();
    let silent = [1, 3];
    let expected: BTreeSet<u64> =
        silent.iter().map(|index| network.member_status(*index)["member"].as_u64().unwrap()).collect();
    network.kill_members(silent);

    let first = payee("first");
    let request = network.request(&first, VALUE).unwrap();
    network.wait_batch(request);
    network.wait_signed(request);
    network.wait("the silent members' places", |network| {
        let status = network.member_status(0);
        let absent = places(&status["peers"], |peer| (peer["connected"] == false).then(|| peer["member"].as_u64())?);
        (absent == expected).then_some(())
    });
    let status = network.member_status(0);
    let faults = places(&status["tasks"][0]["faults"], |fault| fault[0].as_u64());
    assert!(!faults.is_empty() && faults.is_subset(&expected), "{status}");
    network.mine(FINAL_DEPTH);
    network.wait_closed(request, &first);

    network.start_members(silent);
    network.wait_connected();
    let second = payee("second");
    let request = network.request(&second, VALUE).unwrap();
    network.wait_signed(request);
    network.mine(FINAL_DEPTH);
    network.wait_closed(request, &second);
    network.audit();
}

/// A member's task of a batch, once that is signed.
fn signed_task(network: &mut PegNetwork, index: usize, batch: u32) -> Value {
    network.wait("a member that has signed", |network| {
        let status = network.member_status(index);
        let task = status["tasks"].as_array()?.iter().find(|task| task["batch"] == batch)?.clone();
        (task["state"] == "signed").then_some(task)
    })
}

/// The members whose leaf a task was signed by.
fn signers(task: &Value) -> BTreeSet<u64> {
    let path = task["path"].as_str().expect("a path");
    serde_json::from_str(path.strip_prefix("subset ").unwrap_or_else(|| panic!("signed by {path}"))).expect("places")
}

/// The faults of a task that are no silence, which a busy machine has too.
fn proven(task: &Value) -> Vec<(u64, String)> {
    let faults: Vec<(u64, String)> = serde_json::from_value(task["faults"].clone()).expect("places and texts");
    let is_silence = |what: &str| what.starts_with("silent") || what.starts_with("proposed no signers");
    faults.into_iter().filter(|(_, what)| !is_silence(what)).collect()
}

#[test]
fn a_member_with_wrong_partial_signatures_is_named_and_done_without() {
    let liar = 2;
    let mut network = PegNetwork::start_with(&Plan { absent: vec![liar], ..Plan::default() });
    let honest: Vec<usize> = (0..MEMBERS).filter(|index| *index != liar).collect();
    network.start_instead(liar, Path::new(env!("CARGO_BIN_EXE_causeway-lying-member")));
    network.wait_peers(&honest, MEMBERS - 1);
    let place = u64::from(place_of(&network, liar));

    // Every batch is another chance to lie.
    let names = if full() { &["first", "second", "third"][..] } else { &["first"] };
    for name in names {
        let payee = payee(name);
        let request = network.request(&payee, VALUE).unwrap();
        let batch = network.wait_batch(request);
        network.wait_signed(request);
        for index in &honest {
            let task = signed_task(&mut network, *index, batch);
            // Everyone sent its own on the key path.
            let lied = "sent a wrong partial signature in round 0, input 0";
            assert_eq!(proven(&task), [(place, lied.to_owned())], "member {index}: {task}");
            assert!(!signers(&task).contains(&place), "member {index}: {task}");
            let status = network.member_status(*index);
            let said = format!("batch {batch}: member {place} {lied}");
            let history = status["history"].as_array().unwrap();
            assert!(history.iter().any(|event| event["what"] == said), "member {index}: {status}");
            assert_eq!(status["alarm"], Value::Null, "member {index}");
        }
        network.mine(FINAL_DEPTH);
        network.wait_closed(request, &payee);
    }
    network.audit();
    if full() {
        only_the_threshold_is_left(&mut network, &honest, place);
    }

    // The member itself, with the same keys, is as good as any other.
    network.kill_members([liar]);
    network.start_members([liar]);
    network.wait_connected();
    let payee = payee("last");
    let request = network.request(&payee, VALUE).unwrap();
    let batch = network.wait_batch(request);
    network.wait_signed(request);
    let task = signed_task(&mut network, honest[0], batch);
    assert_eq!((&task["path"], &task["faults"]), (&json!("key"), &json!([])), "{task}");
    network.mine(FINAL_DEPTH);
    network.wait_closed(request, &payee);
    network.audit();
}

/// With a liar and a member that is down, the payout needs all who are left.
fn only_the_threshold_is_left(network: &mut PegNetwork, honest: &[usize], liar: u64) {
    let (down, left) = honest.split_last().expect("several");
    network.kill_members([*down]);
    let payee = payee("with a liar and a member that is down");
    let request = network.request(&payee, VALUE).expect("a node takes it");
    let batch = network.wait_batch(request);
    network.wait_signed(request);
    let places: BTreeSet<u64> = left.iter().map(|index| place_of(network, *index).into()).collect();
    for index in left {
        let task = signed_task(network, *index, batch);
        assert!(proven(&task).iter().all(|(member, _)| *member == liar), "member {index}: {task}");
        // Plain signatures are the last resort: those of the liar are right.
        assert!(task["path"] == "multi_a" || signers(&task) == places, "member {index}: {task}");
    }
    network.mine(FINAL_DEPTH);
    network.wait_closed(request, &payee);
    network.start_members([*down]);
    network.audit();
}

#[test]
fn all_members_are_killed_once_a_payout_is_planned() {
    if !full() {
        return;
    }
    let mut network = PegNetwork::start();
    network.wait_connected();
    for name in ["first", "second", "third"] {
        let payee = payee(name);
        let request = network.request(&payee, VALUE).unwrap();
        network.wait_batch(request);
        network.kill_members(0..MEMBERS);
        network.start_members(0..MEMBERS);
        network.wait_signed(request);
        // Whatever was signed before and after: Bitcoin takes one of them.
        network.mine(FINAL_DEPTH);
        network.wait_closed(request, &payee);
    }
    network.audit();
}

/// What the member that a test plays does not say, for the time being.
type Hold = fn(&SessionMessage) -> bool;

/// A member that a test plays, and what it holds back.
struct Partner {
    seat: Seat,
    hold: Arc<Mutex<Hold>>,
}

impl Partner {
    fn of(network: &PegNetwork) -> Self {
        let hold = Arc::new(Mutex::new((|_| false) as Hold));
        let held = Arc::clone(&hold);
        let manner = move |message: SessionMessage| {
            let holds = *held.lock().expect("nobody fails with it");
            (!holds(&message)).then_some(message)
        };
        Self { seat: Seat::take(&network.member(PLAYED).home, Box::new(manner)), hold }
    }

    fn hold(&self, what: Hold) {
        *self.hold.lock().expect("nobody fails with it") = what;
    }

    /// Checks that no member used a nonce twice, as far as anybody can see: one set of nonces and one of partial signatures a
    /// round, no nonce in two rounds, and on disk whatever round something was said in.
    fn check_nonces(&self, network: &mut PegNetwork, members: &[usize]) {
        let heard = self.seat.heard();
        let mut nonces_shown = BTreeSet::new();
        let mut said = BTreeSet::new();
        let mut highest = BTreeMap::new();
        for message in &heard {
            let (member, SessionMessage { task, round, body }) = (message.member(), message.message());
            let kind = match body {
                Body::Join { .. } | Body::Result { .. } => continue,
                Body::Nonces { nonces, .. } => {
                    let new = nonces.iter().all(|nonce| nonces_shown.insert((member, *nonce)));
                    assert!(new, "member {member} shows a nonce again in round {round}");
                    "nonces"
                }
                Body::Partials { .. } => "partials",
                Body::Proposal { .. } => "proposal",
                Body::Signatures(_) => "signatures",
            };
            assert!(said.insert((member, *task, *round, kind)), "member {member}: other {kind} in round {round}");
            let round_on_disk = highest.entry((member, *task)).or_insert(*round);
            *round_on_disk = (*round_on_disk).max(*round);
        }
        assert!(!nonces_shown.is_empty(), "nothing was heard");
        network.kill_members(members.iter().copied());
        for index in members {
            let home = Home::at(&network.member(*index).home);
            let key = read_public_keys(&home.key()).expect("its keys").member;
            let chain = home.load_chainspec().expect("its chain").chain_id();
            let log = SigningLog::open(&home.signing_log(), chain, key).expect("its log");
            let place = place_of(network, *index);
            for ((_, task), round) in highest.iter().filter(|((member, _), _)| *member == place) {
                assert!(log.highest_round(task) >= Some(*round), "member {place}: round {round} is not on its disk");
            }
        }
    }
}

/// Messages of sessions that had not begun when so many were heard.
fn new_ones(heard: &[SignedMessage], before: usize) -> impl Iterator<Item = &SignedMessage> {
    let old: BTreeSet<_> = heard[..before].iter().map(|message| message.message().task).collect();
    heard[before..].iter().filter(move |message| !old.contains(&message.message().task))
}

/// Asks for a payout, and kills the member that first says something of this kind, in a round from this one on. `hold` is what
/// the partner holds back until then, so that the session goes no further.
fn kill_at(
    network: &mut PegNetwork,
    partner: &Partner,
    victims: &[usize],
    name: &str,
    hold: Hold,
    is_it: impl Fn(&SessionMessage) -> bool,
) {
    let places: BTreeMap<u16, usize> = victims.iter().map(|index| (place_of(network, *index), *index)).collect();
    let before = partner.seat.heard().len();
    partner.hold(hold);
    let payee = payee(name);
    let request = network.request(&payee, VALUE).expect("a node takes it");
    let victim = partner.seat.wait(name, |heard| {
        let of_victim = |message: &&SignedMessage| places.contains_key(&message.member()) && is_it(message.message());
        new_ones(heard, before).find(of_victim).map(SignedMessage::member)
    });
    let victim = places[&victim];
    network.kill_members([victim]);
    partner.hold(|_| false);
    network.start_members([victim]);
    finish(network, request, &payee);
}

/// Waits until a request is signed, paid, and closed.
fn finish(network: &mut PegNetwork, request: OutPoint, payee: &bitcoin::Address) {
    network.wait_signed(request);
    network.mine(FINAL_DEPTH);
    network.wait_closed(request, payee);
}

fn is_join(message: &SessionMessage) -> bool {
    matches!(message.body, Body::Join { .. })
}

fn is_nonces(message: &SessionMessage) -> bool {
    matches!(message.body, Body::Nonces { .. })
}

fn is_partials(message: &SessionMessage) -> bool {
    matches!(message.body, Body::Partials { .. })
}

#[test]
fn a_member_is_killed_at_every_step_of_a_session_of_all() {
    if !full() {
        return;
    }
    let mut network = PegNetwork::start_with(&Plan { absent: vec![PLAYED], ..Plan::default() });
    let partner = Partner::of(&network);
    let real = [0, 1, 2, 3];
    network.wait_peers(&real, MEMBERS - 1);
    let kill = |network: &mut PegNetwork, victim: usize, name: &str, hold: Hold, is_it: Hold| {
        kill_at(network, &partner, &[victim], name, hold, |message| message.round == 0 && is_it(message));
    };
    kill(&mut network, 0, "join", |_| true, is_join);
    kill(&mut network, 1, "nonces", is_nonces, is_nonces);
    kill(&mut network, 2, "partials", is_partials, is_partials);
    kill(&mut network, 3, "result", |_| false, |message| matches!(message.body, Body::Result { .. }));
    network.audit();
    partner.check_nonces(&mut network, &real);
}

#[test]
fn a_member_is_killed_at_every_step_of_a_session_of_the_threshold() {
    if !full() {
        return;
    }
    // Two members are down for good: the payouts need all who are left.
    let mut network = PegNetwork::start_with(&Plan { absent: vec![2, 3, PLAYED], ..Plan::default() });
    let partner = Partner::of(&network);
    let real = [0, 1];
    network.wait_peers(&real, 2);
    let kill = |network: &mut PegNetwork, name: &str, hold: Hold, is_it: Hold| {
        kill_at(network, &partner, &real, name, hold, |message| message.round > 0 && is_it(message));
    };
    kill(&mut network, "join", |message| message.round > 0, is_join);
    kill(&mut network, "proposal", is_nonces, |message| matches!(message.body, Body::Proposal { .. }));
    kill(&mut network, "nonces", is_nonces, is_nonces);
    kill(&mut network, "partials", is_partials, is_partials);
    // Without the partner's nonces there is no other way than plain signatures in the end.
    let is_plain: Hold = |message| matches!(message.body, Body::Signatures(_));
    kill(
        &mut network,
        "signatures",
        |message| is_nonces(message) || matches!(message.body, Body::Signatures(_)),
        is_plain,
    );
    network.audit();
    partner.check_nonces(&mut network, &real);
}

#[test]
fn members_are_killed_at_random_moments_of_sessions() {
    if !full() {
        return;
    }
    let seed = rand::random();
    eprintln!("seed {seed}");
    let mut rng = StdRng::seed_from_u64(seed);
    let mut network = PegNetwork::start_with(&Plan { absent: vec![PLAYED], ..Plan::default() });
    let partner = Partner::of(&network);
    let real = [0, 1, 2, 3];
    network.wait_peers(&real, MEMBERS - 1);
    for round in 0..RANDOM_KILLS {
        let before = partner.seat.heard().len();
        let payee = payee(&format!("random {round}"));
        let request = network.request(&payee, VALUE).unwrap();
        // Twice in one session, perhaps the same one.
        for _ in 0..2 {
            let (victim, words) = (rng.random_range(0..real.len()), rng.random_range(1..25));
            partner.seat.wait("a moment", |heard| {
                let signed = |message: &SignedMessage| matches!(message.message().body, Body::Result { .. });
                (new_ones(heard, before).count() >= words || new_ones(heard, before).any(signed)).then_some(())
            });
            network.kill_members([victim]);
            network.start_members([victim]);
        }
        finish(&mut network, request, &payee);
    }
    network.audit();
    partner.check_nonces(&mut network, &real);
}

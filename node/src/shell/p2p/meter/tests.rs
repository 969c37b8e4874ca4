use super::*;
use crate::shell::p2p::gossip::lane;
use crate::shell::p2p::limits::Timing;
use crate::shell::p2p::names::Names;
use causeway_chainspec::ChainId;

fn metered(topic: Topic, validators: u32, persistent: &[PeerId]) -> Metered {
    let names = Names::new(ChainId::from_byte_array([1; 32]));
    let lane = lane(topic, &names, &Timing::default());
    Metered::new(lane, topic, validators, persistent.iter().copied().collect())
}

fn at(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// Sends a new message of no use every `every` milliseconds until then. Returns how many reached gossipsub.
fn flood(metered: &mut Metered, peer: PeerId, every: u64, until: u64) -> u64 {
    let mut through = 0;
    for ms in (0..until).step_by(usize::try_from(every).unwrap()) {
        if metered.lets_in(peer, 1, 100, at(ms)) {
            through += 1;
            metered.meter(peer, at(ms)).news.spend(at(ms), 1);
        }
    }
    through
}

#[test]
fn what_gossipsub_remembers_of_a_peer_is_bounded_in_bytes() {
    // Two minutes of every topic at once, from a peer that goes on all the time.
    for (validators, most) in [(4, 4_200_000), (100, 13_000_000), (256, 28_000_000)] {
        let mut entries = 0;
        for topic in Topic::ALL {
            let peer = PeerId::random();
            let mut metered = metered(topic, validators, &[peer]);
            entries += flood(&mut metered, peer, 1, u64::from(CACHED_FOR) * 1_000);
        }
        let bytes = entries * ENTRY_BYTES;
        assert!(bytes <= most, "{validators} validators: {entries} messages, {bytes} bytes");
        assert!(bytes > most / 2, "{validators} validators: {entries} messages, {bytes} bytes");
    }
}

#[test]
fn a_peer_whose_messages_are_of_use_is_never_held_up() {
    let peer = PeerId::random();
    let mut metered = metered(Topic::Consensus, 256, &[]);
    // Five heights a second with all their votes, of which a third comes too late at each second height.
    for ms in 0..60_000_u64 {
        for vote in 0..3 {
            assert!(metered.lets_in(peer, 1, 146, at(ms)));
            metered.meter(peer, at(ms)).news.spend(at(ms), 1);
            if vote > 0 || ms % 4 > 0 {
                metered.of_use(&peer);
            }
        }
    }
    assert_eq!(metered.take_dropped(), None);
}

#[test]
fn whoever_goes_on_for_a_minute_is_disconnected_but_whom_the_operator_named() {
    let (stranger, named) = (PeerId::random(), PeerId::random());
    let mut metered = metered(Topic::Transactions, 4, &[named]);
    for peer in [stranger, named] {
        flood(&mut metered, peer, 10, 70_000);
    }
    assert_eq!(metered.enough, [stranger]);
    assert!(metered.take_dropped().is_some_and(|(peer, dropped)| peer == named && dropped > 5_000));
}

#[test]
fn bytes_count_as_well() {
    let peer = PeerId::random();
    let mut metered = metered(Topic::Bodies, 4, &[]);
    let mut through = 0;
    for ms in 0..10_000 {
        if metered.lets_in(peer, 1, 65_536, at(ms)) {
            through += 1;
            metered.meter(peer, at(ms)).news.spend(at(ms), 1);
            metered.of_use(&peer);
        }
    }
    // 16 MiB at once and 2 a second.
    assert!((570..=580).contains(&through), "{through}");
}

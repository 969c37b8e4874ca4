use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn name(number: u8) -> MessageId {
    MessageId::new(&[number])
}

#[test]
fn waiting_messages_are_bounded_by_topic_and_by_peer() {
    let now = Instant::now();
    let topic = Topic::Transactions;
    let cost = 100_000 + MESSAGE_OVERHEAD_BYTES;
    let mut verdicts = Verdicts::new(Limits { transactions_bytes: 40 * cost, ..Limits::default() });
    let peers: Vec<_> = (0..5).map(|_| PeerId::random()).collect();
    let mut fourth = None;
    for peer in &peers[..4] {
        let admitted: Vec<_> = (0..12).map_while(|_| verdicts.admit(topic, name(1), *peer, 100_000, now)).collect();
        assert_eq!(admitted.len(), 10, "a quarter of the topic");
        fourth = fourth.or(Some(admitted[3]));
    }
    assert_eq!(verdicts.admit(topic, name(1), peers[4], 0, now), None);
    // Other topics have room of their own.
    assert!(verdicts.admit(Topic::Consensus, name(1), peers[0], 100, now).is_some());
    assert!(verdicts.admit(Topic::Bodies, name(1), peers[0], Topic::Bodies.max_bytes(), now).is_some());
    let id = fourth.unwrap();
    let taken = verdicts.take(id).unwrap();
    assert_eq!((taken.peer, taken.topic), (peers[0], topic));
    assert!(verdicts.take(id).is_none());
    assert!(verdicts.admit(topic, name(1), peers[4], 100_000, now).is_some());
    assert!(verdicts.admit(topic, name(1), peers[4], 100_000, now).is_none());
}

#[test]
fn a_peer_may_always_send_one_message() {
    let now = Instant::now();
    let mut verdicts = Verdicts::new(Limits { bodies_bytes: 5_000_000, ..Limits::default() });
    assert!(verdicts.admit(Topic::Bodies, name(1), PeerId::random(), Topic::Bodies.max_bytes(), now).is_some());
}

#[test]
fn messages_expire_and_leave_nothing_behind() {
    let start = Instant::now();
    let mut verdicts = Verdicts::new(Limits::default());
    let [_, second, _] = [0u8, 1, 2].map(|number| {
        let at = start + SECOND * u32::from(number);
        verdicts.admit(Topic::Consensus, name(number), PeerId::random(), 1, at).unwrap()
    });
    verdicts.take(second).unwrap();
    assert!(verdicts.take_expired(start + SECOND * 5, SECOND * 5).is_none());
    assert_eq!(verdicts.take_expired(start + SECOND * 6, SECOND * 5).unwrap().message, name(0));
    assert!(verdicts.take_expired(start + SECOND * 6, SECOND * 5).is_none());
    assert_eq!(verdicts.take_expired(start + SECOND * 8, SECOND * 5).unwrap().message, name(2));
    assert!(verdicts.waiting.is_empty() && verdicts.ages.is_empty() && verdicts.by_peer.is_empty());
    assert!(verdicts.by_topic.values().all(|bytes| *bytes == 0));
}

#[test]
fn the_same_bytes_on_another_topic_are_another_message() {
    let message = |topic: &str, data: &[u8]| gossipsub::Message {
        source: None,
        data: data.to_vec(),
        sequence_number: None,
        topic: gossipsub::TopicHash::from_raw(topic),
    };
    assert_eq!(message_id(&message("a", b"bc")), message_id(&message("a", b"bc")));
    assert_ne!(message_id(&message("a", b"bc")), message_id(&message("ab", b"c")));
    assert_ne!(message_id(&message("a", b"bc")), message_id(&message("a", b"bd")));
}

#[test]
fn the_name_of_a_message_tells_its_topic() {
    let mut verdicts = Verdicts::new(Limits::default());
    let mut names = std::collections::HashSet::new();
    for expected in Topic::ALL.into_iter().cycle().take(12) {
        let id = verdicts.admit(expected, name(1), PeerId::random(), 1, Instant::now()).unwrap();
        assert_eq!(topic(id), expected);
        assert!(names.insert(id));
    }
}

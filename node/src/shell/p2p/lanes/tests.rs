use super::*;

/// An item of a lane: whose, and which of his.
type Item = (Lane, char, u32);

impl Laned for Item {
    type Source = char;

    fn lane(&self) -> Lane {
        self.0
    }

    fn source(&self) -> char {
        self.1
    }
}

const BOUNDS: Bounds = Bounds { consensus: 100, bodies: 100, transactions: 6, requests: 100 };

/// All items of one source, in their order.
fn push(lanes: &Sender<Item>, lane: Lane, source: char, count: u32) -> Vec<Item> {
    (0..count).filter_map(|number| lanes.push((lane, source, number))).collect()
}

fn drain(lanes: &mut Receiver<Item>) -> Vec<Item> {
    std::iter::from_fn(|| lanes.try_recv()).collect()
}

#[test]
fn the_most_urgent_lane_comes_first_whatever_came_first() {
    let (sender, mut receiver) = channel(BOUNDS);
    for lane in Lane::ALL.into_iter().rev() {
        push(&sender, lane, 'a', 2);
    }
    let taken: Vec<_> = drain(&mut receiver).iter().map(|item| item.0).collect();
    assert_eq!(taken, Lane::ALL.into_iter().flat_map(|lane| [lane; 2]).collect::<Vec<_>>());
}

#[test]
fn a_flood_of_one_peer_stands_before_nobody_elses_message() {
    let (sender, mut receiver) = channel(BOUNDS);
    push(&sender, Lane::Consensus, 'f', 50);
    push(&sender, Lane::Consensus, 'v', 2);
    let taken: Vec<_> = (0..4).map(|_| receiver.try_recv().unwrap()).map(|item| (item.1, item.2)).collect();
    assert_eq!(taken, [('f', 0), ('v', 0), ('f', 1), ('v', 1)]);
}

#[test]
fn a_full_lane_drops_what_the_busiest_peer_sent_last_and_nothing_of_other_lanes() {
    let (sender, mut receiver) = channel(BOUNDS);
    assert_eq!(push(&sender, Lane::Transactions, 'f', 6), []);
    assert_eq!(push(&sender, Lane::Transactions, 'f', 1), [(Lane::Transactions, 'f', 0)], "its own");
    // Two others get their share of six.
    assert_eq!(push(&sender, Lane::Transactions, 'a', 2), [(Lane::Transactions, 'f', 5), (Lane::Transactions, 'f', 4)]);
    assert_eq!(push(&sender, Lane::Transactions, 'b', 2), [(Lane::Transactions, 'f', 3), (Lane::Transactions, 'f', 2)]);
    assert_eq!(push(&sender, Lane::Consensus, 'f', 100), []);
    assert_eq!(push(&sender, Lane::Kept, 'f', 1_000), [], "what is kept has no bound here");
    let taken = drain(&mut receiver);
    assert_eq!(taken.iter().filter(|item| item.0 == Lane::Transactions).count(), 6);
    assert_eq!(taken.len(), 1_106);
}

#[test]
fn urgent_work_without_an_end_does_not_stop_the_rest() {
    let (sender, mut receiver) = channel(BOUNDS);
    push(&sender, Lane::Transactions, 'a', 2);
    push(&sender, Lane::Requests, 'a', 2);
    let mut at = Vec::new();
    for turn in 0.. {
        push(&sender, Lane::Consensus, 'v', 1);
        let item = receiver.try_recv().unwrap();
        if item.0 != Lane::Consensus {
            at.push((turn, item.0));
        }
        if at.len() == 4 {
            break;
        }
    }
    let each = PASSED_MAX + 1;
    let (one, two) = (Lane::Transactions, Lane::Requests);
    assert_eq!(at, [(each - 1, one), (each, two), (2 * each - 1, one), (2 * each, two)]);
}

#[test]
fn transactions_and_requests_are_not_urgent() {
    let (sender, mut receiver) = channel(BOUNDS);
    for (lane, urgent) in Lane::ALL.into_iter().zip([true, true, true, false, false]) {
        assert!(!receiver.has_urgent());
        push(&sender, lane, 'a', 1);
        assert_eq!(receiver.has_urgent(), urgent);
        receiver.try_recv().unwrap();
    }
}

#[tokio::test]
async fn items_that_came_before_the_end_are_taken_before_the_end() {
    let (sender, mut receiver) = channel(BOUNDS);
    push(&sender, Lane::Bodies, 'a', 2);
    drop(sender.clone());
    drop(sender);
    assert_eq!(receiver.recv().await, Some((Lane::Bodies, 'a', 0)));
    assert_eq!(receiver.recv().await, Some((Lane::Bodies, 'a', 1)));
    assert_eq!(receiver.recv().await, None);

    let (sender, receiver) = channel::<Item>(BOUNDS);
    drop(receiver);
    sender.closed().await;
}

#[tokio::test]
async fn whoever_waits_is_woken() {
    let (sender, mut receiver) = channel(BOUNDS);
    let waiting = tokio::spawn(async move { (receiver.recv().await, receiver.recv().await) });
    tokio::task::yield_now().await;
    push(&sender, Lane::Requests, 'a', 1);
    tokio::task::yield_now().await;
    push(&sender, Lane::Requests, 'a', 1);
    let taken = waiting.await.unwrap();
    assert_eq!(taken, (Some((Lane::Requests, 'a', 0)), Some((Lane::Requests, 'a', 0))));
}

use super::*;
use crate::approve::BlockPoint;
use crate::approve::tests::{batch, chain, federation, hash, replace, signed_by};
use crate::session::{Body, SessionMessage};
use ::bitcoin::hex::DisplayHex as _;
use world::{World, bitcoin_block, credited};

mod world;

fn world(n: usize, t: u32) -> (World, ::bitcoin::Txid) {
    let batch = batch(&federation(n, t), 5);
    let txid = batch.newest().txid;
    (World::new(n, t, vec![batch]), txid)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_members_sign_by_the_key_path_and_send() {
    let (mut world, txid) = world(3, 2);
    (0..3).for_each(|member| world.start(member));
    for member in 0..3 {
        assert_eq!(world.signed(member, txid).await, "key");
        let status = world.until(member, "sent", |status| status.transactions.iter().all(|t| t.sent.is_some())).await;
        assert_eq!(status.tasks[0].state, TaskState::Signed);
        assert!(status.declined.is_empty() && status.alarm.is_none());
        assert_eq!(status.acted_on.map(|point| point.height), Some(180));
        assert_eq!(status.peers.iter().filter(|peer| peer.connected).count(), 2);
    }
    assert_eq!(world.mempool(), [txid]);
    for member in 0..3 {
        world.stop(member).await;
    }
    // What a stopped member left.
    let left = ask_status(&world.home(0)).await.unwrap();
    assert!(!left.running && left.transactions.len() == 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_members_down_a_subset_signs() {
    for down in 1..=2 {
        let (mut world, txid) = world(5, 3);
        (down..5).for_each(|member| world.start(member));
        for member in down..5 {
            let path = world.signed(member, txid).await;
            assert!(path.starts_with("subset"), "{path}");
        }
        world.until(4, "sent", |status| status.transactions.iter().any(|t| t.sent.is_some())).await;
        assert_eq!(world.mempool(), [txid]);
    }
}

/// A member that runs the honest code, but for what it says.
fn run_liar(
    world: &World,
    member: usize,
    spoil: impl Fn(&mut SessionMessage) + Send + 'static,
) -> tokio::task::JoinHandle<()> {
    let parts = RoomParts {
        federation: world.federation.clone(),
        own: u16::try_from(member).unwrap(),
        identities: world.identities(),
        identity: Arc::new(world::identity(member)),
        member: world.member_key(member),
        log: world.log(member),
        timing: world::timing(),
        home: world.home(member),
        acted_on: None,
        deposits: crate::approve::DepositsMark::default(),
        signed: Vec::new(),
    };
    let (facts, config) = (Arc::clone(&world.facts), world.transport(member));
    let federation = world.federation.clone();
    tokio::spawn(async move {
        let (transport, mut incoming) = Transport::start(config).await.unwrap();
        let mut room = Room::new(parts);
        let start = Instant::now();
        let mut beat = tokio::time::interval(Duration::from_millis(20));
        loop {
            let said = tokio::select! {
                frame = incoming.recv() => {
                    let Some(Incoming { from, messages }) = frame else { return };
                    let received = messages.into_iter().map(|bytes| Order::Received { from, bytes });
                    received.flat_map(|order| room.handle(start.elapsed(), order)).collect::<Vec<_>>()
                }
                _ = beat.tick() => {
                    let survey = liar_survey(&facts, &federation);
                    let mut said = room.handle(start.elapsed(), Order::Survey(Box::new(survey)));
                    said.extend(room.tick(start.elapsed()));
                    said
                }
            };
            for report in said {
                match report {
                    Report::Say { mut message, .. } => {
                        spoil(&mut message);
                        let own = u16::try_from(member).unwrap();
                        let signed = SignedMessage::sign(chain(), own, &world::identity(member), message);
                        transport.broadcast(signed.encode());
                    }
                    Report::Relay { bytes, .. } => transport.broadcast(bytes),
                    _ => {}
                }
            }
        }
    })
}

fn liar_survey(facts: &world::Shared, federation: &Federation) -> room::Survey {
    let facts = facts.lock().unwrap();
    let node = crate::approve::NodeFacts {
        chain: chain(),
        tip: crate::approve::tests::point(facts.height),
        frozen: None,
        certificate: Some(crate::approve::tests::certificate(crate::approve::tests::point(facts.height))),
        at_acted_on: None,
        other: None,
    };
    let bitcoin = |batch| crate::approve::BitcoinFacts {
        height: causeway_chainspec::BitcoinHeight(310),
        best: facts.best,
        syncing: false,
        coins: crate::approve::tests::coins(federation, batch, facts.best),
        confirmed: None,
    };
    let deposits = crate::approve::DepositFacts {
        since: 0,
        to: facts.height,
        deposits: Vec::new(),
        newest: None,
        bitcoin_height: causeway_chainspec::BitcoinHeight(310),
        syncing: false,
    };
    let batches = facts.batches.iter().map(|batch| (batch.clone(), Ok(bitcoin(batch)))).collect();
    room::Survey { node, batches, deposits: Ok(deposits) }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_sends_bad_partials_is_named_and_the_payout_happens() {
    let (mut world, txid) = world(5, 3);
    let liar = run_liar(&world, 2, |message| {
        if let Body::Partials { partials, .. } = &mut message.body {
            partials[0][31] ^= 1;
        }
    });
    for member in [0, 1, 3, 4] {
        world.start(member);
    }
    for member in [0, 1, 3, 4] {
        let path = world.signed(member, txid).await;
        assert!(path.starts_with("subset") && !path.contains('2'), "{path}");
    }
    let named = |status: &Status| {
        let faults = status.tasks.iter().flat_map(|task| &task.faults);
        faults.clone().any(|(member, fault)| *member == 2 && fault.contains("wrong partial signature"))
    };
    // A member that hears of the result first has nobody to name.
    let mut told = 0;
    for member in [0, 1, 3, 4] {
        let status = world.status(member).await.unwrap();
        if named(&status) {
            told += 1;
            assert!(status.history.iter().any(|event| event.what.contains("member 2")));
        }
    }
    assert!(told > 0);
    assert_eq!(world.mempool(), [txid]);
    liar.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_is_restarted_in_a_session_signs_in_the_end() {
    let (mut world, txid) = world(5, 3);
    (0..4).for_each(|member| world.start(member));
    // The key path waits for the fifth.
    world.until(1, "signing", |status| !status.tasks.is_empty() || !status.transactions.is_empty()).await;
    world.stop(1).await;
    world.start(1);
    for member in 0..4 {
        let path = world.signed(member, txid).await;
        assert!(path.starts_with("subset"), "{path}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restarted_member_goes_on_sending_what_is_signed() {
    let (mut world, txid) = world(3, 2);
    (0..3).for_each(|member| world.start(member));
    for member in 0..3 {
        world.signed(member, txid).await;
    }
    for member in 0..3 {
        world.stop(member).await;
    }
    world.facts.lock().unwrap().mempool.clear();
    world.start(0);
    world.until(0, "sent", |status| status.transactions.iter().any(|t| t.sent.is_some())).await;
    assert_eq!(world.mempool(), [txid]);
    // One that lost the transaction learns it from the one that has it.
    std::fs::remove_dir_all(world.home(1).signed()).unwrap();
    world.start(1);
    assert_eq!(world.signed(1, txid).await, "key");
    // When the batch is closed, nobody keeps it.
    world.facts.lock().unwrap().batches.clear();
    for member in 0..2 {
        world.until(member, "done", |status| status.transactions.is_empty() && status.tasks.is_empty()).await;
        assert_eq!(std::fs::read_dir(world.home(member).signed()).unwrap().count(), 0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_paused_member_signs_nothing_and_the_others_do_without_it() {
    let (mut world, txid) = world(5, 3);
    world.log(0);
    std::fs::write(world.home(0).paused(), b"").unwrap();
    (0..5).for_each(|member| world.start(member));
    for member in 1..5 {
        let path = world.signed(member, txid).await;
        assert!(path.starts_with("subset") && !path.contains('0'), "{path}");
    }
    let status = world.until(0, "declining", |status| !status.declined.is_empty()).await;
    assert!(status.paused && status.declined[0].refused && status.declined[0].reason.contains("paused"));
    assert!(status.tasks.is_empty() && status.transactions.is_empty());
    // It resumes, and learns the result.
    std::fs::remove_file(world.home(0).paused()).unwrap();
    nudge(&world.home(0)).await.unwrap().unwrap();
    world.signed(0, txid).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_signed_or_sent_while_the_peg_is_frozen() {
    let (mut world, txid) = world(3, 2);
    world.facts.lock().unwrap().frozen = Some("a coin was stolen".to_owned());
    (0..3).for_each(|member| world.start(member));
    world.looks(10).await;
    for member in 0..3 {
        let status = world.until(member, "declining", |status| !status.declined.is_empty()).await;
        assert!(status.declined[0].reason.contains("a coin was stolen"));
        assert!(status.tasks.is_empty() && status.transactions.is_empty());
        assert_eq!(status.acted_on, None);
    }
    assert!(world.mempool().is_empty());
    world.facts.lock().unwrap().frozen = None;
    for member in 0..3 {
        world.signed(member, txid).await;
    }
    // Frozen again: what is signed is not sent either.
    world.facts.lock().unwrap().frozen = Some("a deep reorganisation".to_owned());
    world.looks(3).await;
    {
        let mut facts = world.facts.lock().unwrap();
        facts.mempool.clear();
        facts.best = hash(10_001);
    }
    world.looks(5).await;
    assert!(world.mempool().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replacement_is_signed_and_takes_the_place_of_the_older_version() {
    let (mut world, old) = world(3, 2);
    (0..3).for_each(|member| world.start(member));
    for member in 0..3 {
        world.signed(member, old).await;
    }
    let new = {
        let mut facts = world.facts.lock().unwrap();
        replace(&mut facts.batches[0]);
        facts.height += 1;
        facts.batches[0].newest().txid
    };
    assert_ne!(old, new);
    for member in 0..3 {
        assert_eq!(world.signed(member, new).await, "key");
        let sent = |status: &Status| status.transactions.iter().any(|t| t.txid == new && t.sent.is_some());
        world.until(member, "sent", sent).await;
        let one = |status: &Status| status.tasks.len() == 1 && status.tasks[0].txid == new;
        world.until(member, "at the new version alone", one).await;
    }
    assert_eq!(world.mempool(), [new]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_chain_that_is_no_descendant_stops_the_member_for_good() {
    let (mut world, txid) = world(3, 2);
    (0..3).for_each(|member| world.start(member));
    for member in 0..3 {
        world.signed(member, txid).await;
    }
    {
        let mut facts = world.facts.lock().unwrap();
        facts.height = 190;
        facts.other_blocks.insert(180, hash(66_666));
    }
    let status = world.until(0, "alarmed", |status| status.alarm.is_some()).await;
    let alarm = status.alarm.unwrap();
    assert!(alarm.reason.contains("two blocks are final at height 180"), "{}", alarm.reason);
    let proof = [hash(180), hash(66_666)].map(|hash| signed_by(3, BlockPoint { height: 180, hash }).encode());
    assert_eq!(alarm.proof, proof.map(|certificate| certificate.to_lower_hex_string()));
    assert!(world.home(0).alarm().exists());
    // A restart does not heal it.
    world.stop(0).await;
    world.facts.lock().unwrap().other_blocks.clear();
    world.facts.lock().unwrap().mempool.clear();
    world.start(0);
    let status = world.until(0, "declining", |status| !status.declined.is_empty()).await;
    assert!(status.declined[0].reason.contains("--clear-alarm"));
    assert!(status.tasks.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_lies_about_what_is_final_is_refused_and_raises_no_alarm() {
    let (mut world, old) = world(3, 2);
    (0..3).for_each(|member| world.start(member));
    for member in 0..3 {
        world.signed(member, old).await;
    }
    // Another block where the members acted, signed by too few; and a version that stands on it.
    let new = {
        let mut facts = world.facts.lock().unwrap();
        (facts.height, facts.signers) = (190, 2);
        facts.other_blocks.insert(180, hash(66_666));
        replace(&mut facts.batches[0]);
        facts.batches[0].newest().txid
    };
    for member in 0..3 {
        let refusing = |status: &Status| status.declined.iter().any(|declined| declined.refused);
        let status = world.until(member, "refusing", refusing).await;
        assert!(status.declined[0].reason.contains("the node lies or is damaged"), "{:?}", status.declined);
        assert!(status.alarm.is_none() && status.tasks.is_empty());
        assert!(!world.home(member).alarm().exists());
    }
    // The right chain, and a tip that nobody proves.
    world.facts.lock().unwrap().other_blocks.clear();
    world.looks(5).await;
    let status = world.until(0, "refusing", |status| status.declined.iter().any(|declined| declined.refused)).await;
    assert!(status.declined[0].reason.contains("at height 190"), "{:?}", status.declined);
    world.facts.lock().unwrap().signers = 3;
    for member in 0..3 {
        world.signed(member, new).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_coin_of_another_batch_is_refused() {
    let (mut world, txid) = world(3, 2);
    (0..3).for_each(|member| world.start(member));
    for member in 0..3 {
        world.signed(member, txid).await;
    }
    {
        let mut facts = world.facts.lock().unwrap();
        facts.batches[0].number = 6;
        replace(&mut facts.batches[0]);
    }
    for member in 0..3 {
        let status = world.until(member, "refusing", |status| status.declined.iter().any(|d| d.refused)).await;
        assert!(status.declined[0].reason.contains("signed for in batch 5"), "{:?}", status.declined);
        assert!(status.tasks.is_empty());
    }
}

/// Deposits that the batch does not spend, on three pages of the node.
fn five_deposits(world: &World) {
    let mut facts = world.facts.lock().unwrap();
    for (height, block) in [(110, 280), (120, 300), (130, 281), (140, 282), (180, 290)] {
        let (deposit, coin) = credited(height, block);
        facts.coins.insert(deposit.outpoint, coin);
        facts.peg_ins.push(deposit);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deposit_whose_bitcoin_block_is_gone_stops_signing_until_it_is_back() {
    let (mut world, txid) = world(3, 2);
    five_deposits(&world);
    world.facts.lock().unwrap().other_bitcoin.insert(290, hash(66_666));
    (0..3).for_each(|member| world.start(member));
    world.looks(10).await;
    for member in 0..3 {
        let refusing = |status: &Status| status.declined.iter().any(|declined| declined.refused);
        let status = world.until(member, "refusing", refusing).await;
        assert!(status.declined[0].reason.contains("was credited at height 180"), "{:?}", status.declined);
        assert_eq!(status.deposits.height, 140);
        assert!(status.tasks.is_empty() && status.transactions.is_empty() && status.alarm.is_none());
    }
    assert!(world.mempool().is_empty());
    world.facts.lock().unwrap().other_bitcoin.clear();
    for member in 0..3 {
        world.signed(member, txid).await;
        let status = world.until(member, "through", |status| status.declined.is_empty()).await;
        assert_eq!(status.deposits.newest, Some(bitcoin_block(300)));
    }
    // After a restart one question is enough for all of them.
    world.stop(0).await;
    assert_eq!(records::load_deposits(&world.home(0)).newest, Some(bitcoin_block(300)));
    world.facts.lock().unwrap().other_bitcoin.insert(300, hash(66_667));
    world.start(0);
    let status = world.until(0, "refusing", |status| status.declined.iter().any(|declined| declined.refused)).await;
    assert!(status.declined[0].reason.contains("deep reorganisation"), "{:?}", status.declined);
    // Without the record, it looks for all of them again.
    world.stop(0).await;
    std::fs::write(world.home(0).deposits(), "{").unwrap();
    world.start(0);
    let status = world.until(0, "refusing", |status| status.declined.iter().any(|declined| declined.refused)).await;
    assert!(status.declined[0].reason.contains("was credited at height 120"), "{:?}", status.declined);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deposit_that_was_spent_by_no_batch_stops_signing() {
    let (mut world, txid) = world(3, 2);
    five_deposits(&world);
    let spent = {
        let mut facts = world.facts.lock().unwrap();
        let spent = facts.peg_ins[1].outpoint;
        facts.coins.remove(&spent);
        spent
    };
    (0..3).for_each(|member| world.start(member));
    for member in 0..3 {
        let refusing = |status: &Status| status.declined.iter().any(|declined| declined.refused);
        let status = world.until(member, "refusing", refusing).await;
        assert!(status.declined[0].reason.contains(&spent.to_string()), "{:?}", status.declined);
        assert!(status.tasks.is_empty());
    }
    // A batch spends it: that is what credited deposits are for.
    world.facts.lock().unwrap().peg_ins[1].in_batch = true;
    for member in 0..3 {
        world.signed(member, txid).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_does_not_answer_is_named() {
    let (mut world, txid) = world(3, 2);
    world.facts.lock().unwrap().node_down = true;
    (0..3).for_each(|member| world.start(member));
    let status = world.until(0, "told", |status| status.node.error.is_some()).await;
    assert!(status.node.error.unwrap().contains("127.0.0.1:1"));
    world.facts.lock().unwrap().node_down = false;
    world.signed(0, txid).await;
    world.until(0, "told", |status| status.node.error.is_none()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn garbage_of_a_member_harms_nobody() {
    let (mut world, txid) = world(5, 3);
    let (hostile, _incoming) = Transport::start(world.transport(3)).await.unwrap();
    let noise = tokio::spawn(async move {
        for number in 0_u32.. {
            let mut message = vec![u8::try_from(number % 256).unwrap(); 1 + usize::try_from(number % 5_000).unwrap()];
            // Of member 0, 1, .. or nobody, and not signed.
            message[0] = u8::try_from(number % 7).unwrap();
            hostile.broadcast(message);
            if number % 50 == 0 {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    });
    for member in [0, 1, 2, 4] {
        world.start(member);
    }
    for member in [0, 1, 2, 4] {
        assert!(world.signed(member, txid).await.starts_with("subset"));
        let status = world.status(member).await.unwrap();
        // What others make up is nobody's fault.
        let proven = status.tasks.iter().flat_map(|task| &task.faults).filter(|(_, fault)| !fault.contains("silent"));
        assert_eq!(proven.count(), 0);
    }
    noise.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_chain_that_grows_while_members_act_raises_no_alarm() {
    let (mut world, first) = world(3, 2);
    (0..3).for_each(|member| world.start(member));
    let facts = Arc::clone(&world.facts);
    let grows = tokio::spawn(async move {
        loop {
            tokio::time::sleep(Duration::from_millis(7)).await;
            facts.lock().unwrap().height += 1;
        }
    });
    let mut txid = first;
    for _ in 0..8 {
        for member in 0..3 {
            world.signed(member, txid).await;
        }
        let mut facts = world.facts.lock().unwrap();
        replace(&mut facts.batches[0]);
        txid = facts.batches[0].newest().txid;
    }
    for member in 0..3 {
        let status = world.until(member, "there", |status| status.acted_on.is_some()).await;
        assert_eq!(status.alarm, None);
        assert!(status.history.iter().all(|event| !event.what.contains("height")), "{:?}", status.history);
    }
    grows.abort();
}

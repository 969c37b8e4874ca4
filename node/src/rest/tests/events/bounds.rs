//! What a stream does not do: who is refused, who is let go, when it ends.

use super::*;
use crate::rest::MAX_READERS;

#[test]
fn what_is_no_question_is_refused_in_words() {
    let site = Site::new();
    let scripts = vec![script_hash(); 101].join(",");
    let cases = [
        ("?topics=blocks", None, "blocks"),
        ("?topics=", None, "unknown topic"),
        ("?topics=block,,tx", None, "unknown topic"),
        ("?topics=BLOCK", None, "unknown topic"),
        ("?topics=block&topics=tx", None, "twice"),
        ("?topics=script", None, "script="),
        ("?topic=block", None, "unknown parameter"),
        ("?topics=%zz", None, "percent"),
        ("?topics=%ff", None, "percent"),
        ("?topics=%", None, "percent"),
        ("?script=", None, "base58"),
        ("?script=abcd", None, "base58"),
        ("?script=bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4", None, "Address on invalid network"),
        (&*format!("?script={scripts}"), None, "100 scripts"),
        (&*format!("?script={}", "x".repeat(12_000)), None, "12000 bytes"),
        ("?last-event-id=tip", None, "last event id"),
        ("?last-event-id=102-", None, "last event id"),
        ("?last-event-id=4294967296", None, "last event id"),
        ("", Some("-1"), "last event id"),
        ("", Some("+102"), "last event id"),
        ("", Some("0102"), "last event id"),
        ("", Some("102-0-0"), "last event id"),
        ("", Some("\u{fc}"), "last event id"),
        ("", Some("4294967295"), "ask one that is in step"),
    ];
    for (query, id, word) in cases {
        let (code, text) = refused(&site, query, id);
        assert_eq!(code, "400", "{query} {id:?}: {text}");
        assert!(text.contains(word), "{query} {id:?}: {text}");
        assert!(text.len() < 300, "{text}");
    }
    for query in ["?", "?topics=block%2Ctx", "?topics=block,block", "?last-event-id=", "?last-event-id=102-4294967295"]
    {
        Ears::open(&site, query, None);
    }
    assert_eq!(site.post("/v1/events", "").status, 404);
}

#[test]
fn without_indexes_no_script_is_followed() {
    let mut site = Site::with(Times::default(), Index::None);
    let (code, text) = refused(&site, &format!("?script={}", script_hash()), None);
    assert_eq!((code.as_str(), text.contains("no index")), ("400", true), "{text}");
    let mut ears = Ears::open(&site, "?topics=block,tx", None);
    site.commit(vec![]);
    assert_eq!((ears.hear().id(), ears.hear().id()), ("103-0", "103"));
}

#[test]
fn there_are_so_many_streams_and_who_goes_makes_room() {
    let site = limits(Limits { streams: 2, scripts: 1, ..Limits::default() });
    let first = Ears::open(&site, &format!("?script={}", script_hash()), None);
    let (code, text) = refused(&site, &format!("?script={}", script_hash()), None);
    assert_eq!((code.as_str(), text.contains("1 scripts")), ("503", true), "{text}");
    let _second = Ears::open(&site, "", None);
    let (code, text) = refused(&site, "", None);
    assert_eq!((code.as_str(), text.contains("2 streams")), ("503", true), "{text}");
    drop(first);
    let deadline = Instant::now() + Duration::from_secs(20);
    while Ears::ask(&site, &format!("?script={}", script_hash()), None).head.contains(" 503 ") {
        assert!(Instant::now() < deadline, "there is room");
    }
}

#[test]
fn a_silent_stream_shows_that_it_lives_and_how_far_it_is() {
    let events = Limits { heartbeat: Duration::from_millis(20), ..Limits::default() };
    let mut site = limits(events);
    let mut ears = Ears::open(&site, "?topics=peg-out", None);
    for _ in 0..3 {
        assert_eq!(ears.group().unwrap(), [(String::new(), String::new()), ("id".to_owned(), "102".to_owned())]);
    }
    site.commit(vec![]);
    while ears.last_id != "103" {
        ears.group().unwrap();
    }
}

#[test]
fn a_stream_has_no_deadline() {
    let events = Limits { heartbeat: Duration::from_millis(20), ..Limits::default() };
    let answer = Duration::from_millis(500);
    let site = Site::with(Times { answer, events, ..Times::default() }, Index::All);
    let mut ears = Ears::open(&site, "", None);
    let since = Instant::now();
    while since.elapsed() < 2 * answer {
        assert_eq!(ears.group().expect("it goes on")[0], (String::new(), String::new()));
    }
}

#[test]
fn streams_end_with_the_server() {
    let mut site = Site::new();
    let mut ears: Vec<Ears> = (0..3).map(|_| Ears::open(&site, "", None)).collect();
    site.stop.take().unwrap().send(()).unwrap();
    for ears in &mut ears {
        let last = ears.hear();
        assert_eq!((last.event.as_str(), last.id.as_ref(), &last.data["code"]), ("error", None, &json!("stopping")));
        assert_eq!(ears.next(), None);
    }
    let server = site.server.take().unwrap();
    site.runtime.block_on(async { tokio::time::timeout(Duration::from_secs(20), server).await }).unwrap().unwrap();
}

/// The parts of a stream that nobody has read yet, to its end.
fn rest_of(
    site: &Site,
    mut stream: impl futures::Stream<Item = Result<bytes::Bytes, std::convert::Infallible>> + Unpin,
) -> String {
    let mut rest = String::new();
    site.runtime.block_on(async {
        while let Some(Ok(part)) = tokio::time::timeout(Duration::from_secs(60), stream.next()).await.unwrap() {
            rest.push_str(std::str::from_utf8(&part).unwrap());
        }
    });
    rest
}

#[test]
fn who_does_not_read_is_let_go_with_a_reason() {
    let mut site = Site::new();
    let short = Duration::from_millis(50);
    for (events, name) in [
        (Limits { waiting: 4, gather: Duration::ZERO, ..Limits::default() }, "falls behind"),
        (Limits { stall: short, ..Limits::default() }, "stands still"),
    ] {
        let (_stopping, stop) = watch::channel(false);
        let times = Times { events, ..Times::default() };
        let app = Arc::new(App::new(times, parts(&site.store, &site.node), stop).unwrap());
        let wanted = Wanted::of_query("topics=block,peg-in").unwrap();
        let slow = Box::pin(site.runtime.block_on(open(&app, wanted.clone())).unwrap());
        let mut quick = Box::pin(site.runtime.block_on(open(&app, wanted)).unwrap());
        site.runtime.block_on(quick.next()).unwrap().unwrap();
        let tip = site.store.tip().height().to_u32();
        for height in tip + 1..=tip + 12 {
            site.commit(vec![]);
            let part = site.runtime.block_on(quick.next()).unwrap().unwrap();
            assert!(part.starts_with(format!("event: block\nid: {height}\n").as_bytes()), "{name}: {part:?}");
        }
        // The server has given it up: the quick one, the line and this test are left.
        let deadline = Instant::now() + Duration::from_secs(20);
        while events.stall == short && Arc::strong_count(&app) > 3 {
            assert!(Instant::now() < deadline, "{name}");
        }
        let rest = rest_of(&site, slow);
        let blocks: Vec<&str> = rest.lines().filter_map(|line| line.strip_prefix("id: ")).collect();
        assert!((4..12).contains(&blocks.len()), "{name}: {rest}");
        let expected: Vec<String> = (tip..).take(blocks.len()).map(|height| height.to_string()).collect();
        assert_eq!(blocks, expected, "{name}: what it has read has no gap");
        let (_, last) = rest.rsplit_once("event: error\ndata: ").unwrap();
        let last: Value = serde_json::from_str(last.trim_end()).unwrap();
        assert_eq!(last["code"], "too_slow", "{name}");
        assert!(last["message"].as_str().unwrap().contains("too slow"));
    }
}

#[test]
fn who_wants_blocks_only_falls_behind_and_gets_them_all() {
    let mut site = Site::new();
    let events = Limits { waiting: 4, gather: Duration::ZERO, ..Limits::default() };
    let (_stopping, stop) = watch::channel(false);
    let app = Arc::new(App::new(Times { events, ..Times::default() }, parts(&site.store, &site.node), stop).unwrap());
    let wanted = Wanted::of_query("").unwrap();
    let mut slow = Box::pin(site.runtime.block_on(open(&app, wanted.clone())).unwrap());
    let mut quick = Box::pin(site.runtime.block_on(open(&app, wanted)).unwrap());
    site.runtime.block_on(quick.next()).unwrap().unwrap();
    for _ in 0..12 {
        site.commit(vec![]);
        site.runtime.block_on(quick.next()).unwrap().unwrap();
    }
    site.runtime.block_on(slow.next()).unwrap().unwrap();
    for height in 103..=114 {
        let part = site.runtime.block_on(async { tokio::time::timeout(Duration::from_secs(60), slow.next()).await });
        let part = part.unwrap().unwrap().unwrap();
        assert!(part.starts_with(format!("event: block\nid: {height}\n").as_bytes()), "{part:?}");
    }
}

#[test]
fn a_replay_that_nobody_hears_ends() {
    let site = Site::new();
    // No reading begins while the others are under way, so the replay stands still.
    let (_stopping, stop) = watch::channel(false);
    let app = Arc::new(App::new(Times::default(), parts(&site.store, &site.node), stop).unwrap());
    let readers = Arc::clone(&app.readers);
    let busy = site.runtime.block_on(readers.acquire_many_owned(u32::try_from(MAX_READERS).unwrap())).unwrap();
    let wanted = Wanted::of_query("topics=peg-out&last-event-id=1").unwrap();
    let mut replay = Box::pin(site.runtime.block_on(open(&app, wanted)).unwrap());
    site.runtime.block_on(replay.next()).unwrap().unwrap();
    drop(replay);
    // This test and the line.
    let deadline = Instant::now() + Duration::from_secs(20);
    while Arc::strong_count(&app) > 2 {
        assert!(Instant::now() < deadline, "the replay has ended");
    }
    drop(busy);
}

#[test]
fn a_silent_replay_shows_how_far_it_is() {
    let mut site = limits(Limits { heartbeat: Duration::ZERO, ..Limits::default() });
    for _ in 0..3 {
        site.commit(vec![]);
    }
    let mut ears = Ears::open(&site, "?topics=peg-out", Some("80"));
    let mut ids = Vec::new();
    while ears.last_id != "105" {
        ears.group().unwrap();
        ids.push(ears.last_id.clone());
    }
    let expected: Vec<String> = (81..=105).map(|height| height.to_string()).collect();
    assert_eq!(ids, expected);
}

#[test]
fn nothing_is_told_where_nobody_listens() {
    let mut site = Site::new();
    assert!(!site.node.node().pool.news().is_heard());
    let ears = Ears::open(&site, "", None);
    assert!(site.node.node().pool.news().is_heard());
    drop(ears);
    let deadline = Instant::now() + Duration::from_secs(20);
    while site.node.node().pool.news().is_heard() {
        assert!(Instant::now() < deadline, "the line ends with its last stream");
        site.commit(vec![]);
    }
    // And begins again with the next one, where the chain is then.
    let mut ears = Ears::open(&site, "", None);
    let next = site.store.tip().height().to_u32() + 1;
    site.commit(vec![]);
    assert_eq!(ears.hear().id(), next.to_string());
}

#[test]
fn a_stopped_node_opens_no_stream() {
    let site = Site::new();
    site.node.node().stopped = true;
    assert_eq!(refused(&site, "", None).0, "503");
}

#[test]
fn every_departure_has_a_word() {
    let site = Site::new();
    let mut ears = Ears::open(&site, "?topics=tx", None);
    let departures = [
        (Departure::Conflicted, "conflicted"),
        (Departure::Replaced, "replaced"),
        (Departure::Evicted, "evicted"),
        (Departure::Expired, "expired"),
        (Departure::PegFrozen, "peg_frozen"),
    ];
    for (why, word) in departures {
        let txid = Txid::all_zeros();
        site.node.node().pool.news().tell(|| Change::Left { txid, why, by: None, scripts: [].into() });
        assert_eq!(ears.hear().data, json!({"txid": txid.to_string(), "status": "removed", "reason": word}));
    }
}

proptest! {
    /// Whatever is asked: an answer or a refusal of the client, at once.
    #[test]
    fn no_query_is_too_strange(query in "(topics|script|last-event-id|x)?=?[ -~]{0,60}(&[ -~]{0,20})?") {
        match Wanted::of_query(&query) {
            Ok(wanted) => prop_assert!(Wanted::of_query(&query) == Ok(wanted)),
            Err(refusal) => {
                let refusal: Refusal = EventsRefusal::into(refusal);
                prop_assert!(refusal.to_string().len() < 200);
            }
        }
    }
}

//! A block in parts and pages, and which blocks are kept.

use bitcoin::BlockHash;
use bitcoin::hashes::Hash;

use super::*;

const HEIGHT: Height = Height(7);

/// A block of many transactions and peg-outs.
fn block() -> BlockEvents {
    let block = InBlock { height: HEIGHT.to_u32(), hash: BlockHash::all_zeros() };
    let txids: Vec<Txid> = (0..4_000u32).map(|number| Txid::hash(&number.to_le_bytes())).collect();
    let txs = tx_parts(HEIGHT, &txids, &final_standing(block, 1));
    let event = |topic, index| {
        let mut event = String::new();
        frame::push(&mut event, topic, &Position { height: HEIGHT, index }, &"x".repeat(300));
        event
    };
    let peg = (8_000..10_000).map(|index| (Topic::PegOut, event(Topic::PegOut, Some(index)))).collect();
    BlockEvents { height: HEIGHT, block, time: 1, txids, txs, peg, last: event(Topic::Block, None) }
}

/// All from a number on, page by page.
fn all_from(block: &BlockEvents, topics: &BTreeSet<Topic>, touched: &Touched<'_>, first: u32) -> Vec<String> {
    let (mut all, mut next) = (String::new(), Some(first));
    while let Some(first) = next {
        let page = block.page_with(topics, touched, first).unwrap();
        assert!(page.parts.len() <= PAGE_PARTS);
        for part in &page.parts {
            assert!(!part.is_empty() && part.len() < PART_BYTES + 500, "{} bytes", part.len());
            all.push_str(std::str::from_utf8(part).unwrap());
        }
        assert!(page.next.is_none_or(|next| next > first), "it goes on");
        next = page.next;
    }
    all.lines().filter_map(|line| line.strip_prefix("id: ")).map(str::to_owned).collect()
}

#[test]
fn pages_hold_each_event_once_and_in_order() {
    let block = block();
    let hash = "ab".repeat(32);
    let touched: Touched<'_> = (0..4_000).step_by(2).map(|index| (index, vec![hash.as_str()])).collect();
    let ids = |numbers: &mut dyn Iterator<Item = u32>| -> Vec<String> {
        numbers.map(|number| format!("7-{number}")).chain(["7".to_owned()]).collect()
    };
    let all = BTreeSet::from([Topic::Block, Topic::Tx, Topic::Script, Topic::PegOut]);
    for first in [0, 1, 237, 3_999, 4_000, 4_001, 7_998, 8_000, 9_999, 10_000, u32::MAX] {
        let mut expected =
            (first.min(10_000)..10_000).filter(|number| !(4_000..8_000).contains(number) || number % 2 == 0);
        assert_eq!(all_from(&block, &all, &touched, first), ids(&mut expected), "from {first}");
    }
    let some = BTreeSet::from([Topic::Block, Topic::PegOut]);
    assert_eq!(all_from(&block, &some, &Touched::new(), 5), ids(&mut (8_000..10_000)));
    assert!(all_from(&block, &BTreeSet::from([Topic::PegIn]), &Touched::new(), 0).is_empty());
}

#[test]
fn only_blocks_near_the_tip_are_kept() {
    let kept = Kept::default();
    assert!(kept.slot(Height(83), Height(100)).is_none());
    for height in 84..=100 {
        assert!(kept.slot(Height(height), Height(100)).is_some());
    }
    assert_eq!(kept.near().len(), 17);
    let newest = kept.slot(Height(100), Height(100)).unwrap();
    assert!(Arc::ptr_eq(&newest, &kept.slot(Height(100), Height(103)).unwrap()));
    assert_eq!(kept.near().first_key_value().map(|(height, _)| *height), Some(Height(87)));
}

//! Random forests of headers against a naive model: every header ever accepted, in a map.

use std::collections::HashMap;

use proptest::prelude::*;
use proptest::sample::Index;

use super::*;

/// All works are equal on regtest, so a chain's height is its work.
struct Model {
    fork_depth: u32,
    /// Every header ever accepted, with its height.
    all: HashMap<BlockHash, (Header, u32)>,
    /// Their hashes, in the order of acceptance.
    order: Vec<BlockHash>,
    tip: BlockHash,
    highest: u32,
}

impl Model {
    fn new(fork_depth: u32) -> Self {
        let genesis = *regtest().header();
        let tip = genesis.block_hash();
        Self { fork_depth, all: HashMap::from([(tip, (genesis, 0))]), order: vec![tip], tip, highest: 0 }
    }

    fn height(&self, hash: &BlockHash) -> u32 {
        self.all[hash].1
    }

    /// From the genesis block to a header.
    fn chain(&self, tip: BlockHash) -> Vec<Header> {
        let mut chain = Vec::new();
        let mut next = self.all.get(&tip);
        while let Some((header, _)) = next {
            chain.push(*header);
            next = self.all.get(&header.prev_blockhash);
        }
        chain.reverse();
        chain
    }

    fn deep(&self, height: u32) -> bool {
        height + self.fork_depth < self.highest
    }

    fn known(&self, hash: &BlockHash) -> bool {
        self.all.get(hash).is_some_and(|(_, height)| !self.deep(*height))
    }

    /// Whether the rules allow the run.
    fn allows(&self, run: &HeaderRun) -> bool {
        let Some((_, parent_height)) = self.all.get(&run.parent) else { return false };
        let (best, side) = (self.chain(self.tip), self.chain(run.parent));
        let shared = best.iter().zip(&side).take_while(|(a, b)| a == b).count();
        let fork = u32::try_from(shared).unwrap() - 1;
        let end = parent_height + u32::try_from(run.headers.len()).unwrap();
        let first = run.headers[0].after(run.parent).block_hash();
        !self.deep(fork) && !self.known(&first) && end > self.height(&self.tip)
    }

    fn accept(&mut self, headers: &[Header]) {
        for header in headers {
            let height = self.height(&header.prev_blockhash) + 1;
            let hash = header.block_hash();
            assert!(self.all.insert(hash, (*header, height)).is_none());
            self.order.push(hash);
            if height > self.height(&self.tip) {
                self.tip = hash;
            }
            self.highest = self.highest.max(height);
        }
    }

    /// The records that the state must have.
    fn records(&self) -> Records {
        let best = self.chain(self.tip);
        let mut records: Records =
            (0u32..).zip(&best).map(|(height, h)| (records::best_key(height), records::header_value(h))).collect();
        for (hash, (header, height)) in &self.all {
            if !self.deep(*height) && best.get(*height as usize) != Some(header) {
                let value = records::branch_value(&Branch { height: *height, header: *header });
                records.insert(records::branch_key(hash), value);
            }
        }
        records.insert(vec![KIND_HIGHEST], self.highest.to_le_bytes().to_vec());
        records
    }
}

/// A run that somebody tries.
#[derive(Debug, Clone)]
struct Attempt {
    /// Among all headers ever accepted, counted back from the newest.
    parent: Index,
    /// Only the newest headers are looked at, so that most attempts matter.
    among: usize,
    /// The run begins with this header's child instead, if it has one.
    repeats: bool,
    count: usize,
}

fn attempts() -> impl Strategy<Value = Vec<Attempt>> {
    let attempt = (any::<Index>(), 1..12usize, proptest::bool::weighted(0.15), 1..7usize)
        .prop_map(|(parent, among, repeats, count)| Attempt { parent, among, repeats, count });
    proptest::collection::vec(attempt, 1..40)
}

fn headers_of(attempt: &Attempt, model: &Model, salt: u8) -> Vec<Header> {
    let among = attempt.among.min(model.order.len());
    let back = attempt.parent.index(among);
    let parent = model.all[&model.order[model.order.len() - 1 - back]].0;
    let child = model.order.iter().map(|hash| model.all[hash].0).find(|h| h.prev_blockhash == parent.block_hash());
    match child.filter(|_| attempt.repeats) {
        Some(child) => [&[child][..], &mine(&child, attempt.count, salt)].concat(),
        None => mine(&parent, attempt.count, salt),
    }
}

proptest! {
    #[test]
    fn equals_a_naive_model(fork_depth in 1..6u32, attempts in attempts()) {
        let mut model = Model::new(fork_depth);
        let mut tree = tree(fork_depth);
        for (salt, attempt) in (0..).zip(&attempts) {
            let headers = headers_of(attempt, &model, salt);
            let allowed = model.allows(&run(&headers));
            let tip_before = model.tip;
            let before = tree.clone();
            // Applies the noted changes to the records before, and compares with those after.
            let result = extend(&mut tree, &headers);
            prop_assert_eq!(result.is_ok(), allowed, "{:?}", result);
            match result {
                Ok(extension) => {
                    prop_assert_eq!(extension.replaced, headers[0].prev_blockhash != tip_before);
                    prop_assert_eq!(extension.highest_before, before.highest());
                    let (old, new) = (model.chain(tip_before), { model.accept(&headers); model.chain(model.tip) });
                    let shared = old.iter().zip(&new).take_while(|(a, b)| a == b).count();
                    prop_assert_eq!(extension.fork_point.to_u32() as usize, shared - 1);
                    prop_assert_eq!(extension.tip, tree.tip());
                }
                Err(_) => prop_assert_eq!(&before, &tree),
            }
            prop_assert_eq!(tree.tip().hash, model.tip);
            prop_assert_eq!(tree.highest().to_u32(), model.highest);
            let best = model.chain(model.tip);
            prop_assert_eq!(tree.tip().height.to_u32() as usize, best.len() - 1);
            prop_assert_eq!(tree.chainwork(), best.iter().map(Header::work).reduce(|a, b| a + b).unwrap());
            for (height, header) in (0..).zip(&best) {
                prop_assert_eq!(tree.best(BitcoinHeight(height)), Some(header));
                prop_assert_eq!(tree.best_hash(BitcoinHeight(height)), Some(header.block_hash()));
            }
            for hash in &model.order {
                prop_assert_eq!(tree.knows(hash), model.known(hash));
            }
            let records: Records = tree.records().collect();
            prop_assert_eq!(&records, &model.records());
            prop_assert_eq!(&HeaderTree::restore(&regtest(), fork_depth, records).unwrap(), &tree);
        }
    }

    #[test]
    fn the_chain_equals_a_list(steps in proptest::collection::vec((0..700usize, any::<Index>()), 1..8)) {
        let link = |parent: &Header| {
            let header = unsolved(parent, 0);
            Link { header, work: header.work() }
        };
        let genesis = *regtest().header();
        let mut list = vec![Link { header: genesis, work: genesis.work() }];
        let mut chain = Chain::new(5, list[0]);
        for (count, keep) in steps {
            for _ in 0..count {
                list.push(link(&list.last().unwrap().header));
                chain.push(*list.last().unwrap());
            }
            let keep = keep.index(list.len());
            list.truncate(keep + 1);
            chain.truncate(5 + u32::try_from(keep).unwrap());
            prop_assert_eq!(chain.tip(), list.last().unwrap());
            prop_assert_eq!(chain.tip_hash(), list.last().unwrap().header.block_hash());
            prop_assert_eq!(chain.tip_height() as usize, 5 + keep);
            prop_assert_eq!(chain.iter().map(|(height, link)| (height, *link)).collect::<Vec<_>>(), (5..).zip(list.clone()).collect::<Vec<_>>());
            for (height, link) in (5..).zip(&list) {
                prop_assert_eq!(chain.get(height), Some(link));
                prop_assert_eq!(chain.hash_at(height), Some(link.header.block_hash()));
            }
            prop_assert_eq!(chain.get(4), None);
            prop_assert_eq!(chain.hash_at(6 + u32::try_from(keep).unwrap()), None);
            let mut fresh = Chain::new(5, list[0]);
            list[1..].iter().for_each(|link| fresh.push(*link));
            prop_assert!(fresh == chain);
        }
    }

    #[test]
    fn a_run_has_one_encoding(count in 1..300usize, salt: u8, cut: Index, tail in proptest::collection::vec(any::<u8>(), 0..60)) {
        let mut headers = vec![unsolved(regtest().header(), salt)];
        for _ in 1..count {
            headers.push(unsolved(headers.last().unwrap(), salt));
        }
        let run = run(&headers);
        let mut bytes = Vec::new();
        run.encode(&mut bytes);
        let whole = [&bytes[..], &tail].concat();
        let mut rest = &whole[..];
        prop_assert_eq!(HeaderRun::decode(&mut rest), Ok(run));
        prop_assert_eq!(rest, &tail[..]);
        prop_assert!(HeaderRun::decode(&mut &bytes[..cut.index(bytes.len())]).is_err());
    }

    #[test]
    fn what_decodes_encodes_to_the_same(bytes in proptest::collection::vec(any::<u8>(), 0..200), count in 0..4u8) {
        let mut bytes = bytes;
        if let Some(byte) = bytes.get_mut(32) {
            *byte = count;
        }
        let mut rest = &bytes[..];
        if let Ok(run) = HeaderRun::decode(&mut rest) {
            let mut again = Vec::new();
            run.encode(&mut again);
            prop_assert_eq!(&again[..], &bytes[..bytes.len() - rest.len()]);
        }
    }
}

#[test]
fn malformed_runs_are_refused() {
    let head = [7; 32];
    let decode = |tail: &[u8]| HeaderRun::decode(&mut &[&head[..], tail].concat()[..]);
    assert_eq!(HeaderRun::decode(&mut &head[..31]), Err(MalformedRun::Head));
    assert_eq!(decode(&[]), Err(MalformedRun::Head));
    assert_eq!(decode(&[0]), Err(MalformedRun::Empty));
    assert_eq!(decode(&[1]), Err(MalformedRun::Short { count: 1, bytes: 0 }));
    assert_eq!(decode(&[&[2][..], &[0; 95]].concat()), Err(MalformedRun::Short { count: 2, bytes: 95 }));
    assert!(decode(&[&[2][..], &[0; 96]].concat()).is_ok());
    // One, in three bytes.
    assert_eq!(decode(&[&[0xfd, 1, 0][..], &[0; 48]].concat()), Err(MalformedRun::Head));
    assert_eq!(decode(&[0xff; 60]), Err(MalformedRun::Short { count: u64::MAX, bytes: 51 }));
    assert_eq!(
        decode(&[&[0xfe, 0, 0, 0, 0x80][..], &[0; 48]].concat()),
        Err(MalformedRun::Short { count: 1 << 31, bytes: 48 })
    );
}

#[test]
fn a_run_is_of_linked_headers() {
    let headers = mine(regtest().header(), 3, 1);
    assert_eq!(HeaderRun::between(&[]), None);
    assert_eq!(HeaderRun::between(&[headers[0], headers[2]]), None);
    let run = HeaderRun::between(&headers).unwrap();
    assert_eq!(run.parent, regtest().header().block_hash());
    assert_eq!(run.headers[2].after(headers[1].block_hash()), headers[2]);
}

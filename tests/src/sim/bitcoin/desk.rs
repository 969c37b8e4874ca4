//! What a host makes of its Bitcoin node: the node's desk, in virtual time.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bitcoin::{BlockHash, OutPoint, Txid};
use causeway_chainspec::BitcoinHeight;
use causeway_consensus::ChainView;
use causeway_consensus::peg::PegState;
use causeway_consensus::peg::evidence::PegIn;
use causeway_consensus::peg::proof::InclusionProof;
use causeway_node::machine::claims::{ClaimRefusal, Claimed};
use causeway_node::machine::peg::BitcoinOffer;
use causeway_node::machine::{Event, SubmitId};

use crate::parent::ParentChain;
use crate::sim::world::{What, World};

/// How often the chain is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// What the desk of a process remembers from one look to the next.
#[derive(Debug, Default)]
pub(in crate::sim) struct Desk {
    /// When the headers of its Bitcoin node were first seen.
    seen: BTreeMap<BlockHash, Duration>,
    /// Bitcoin's tip, as it is and as it was offered, and the peg.
    last: Option<(BlockHash, BitcoinHeight, [u8; 32])>,
    /// Deposits that the node has taken or refused, and where they stood.
    claimed: BTreeSet<(OutPoint, BlockHash)>,
    /// Those it has not answered.
    asked: BTreeMap<SubmitId, (OutPoint, BlockHash)>,
}

impl World {
    /// The desk of a host looks at Bitcoin and at the peg, and again after a while.
    pub(in crate::sim) fn look_at_desk(&mut self, index: usize, number: u64) {
        if self.is_alive(index, number) {
            self.look(index);
            self.after(LOOK_EVERY, What::Desk { host: index, life: number });
        }
    }

    /// Hands an offer and claims to the node of a host, if there is something new.
    pub(in crate::sim) fn look(&mut self, index: usize) {
        let host = &self.hosts[index];
        let Some(life) = &host.life else { return };
        let number = life.number;
        if !host.bitcoin.answers() {
            if let Some(life) = &mut self.hosts[index].life {
                life.desk.last = None;
            }
            return self.deliver(index, number, Event::Bitcoin { offer: None });
        }
        let tip = host.chain.tip();
        let bitcoin = host.bitcoin.tip;
        let ripe = self.ripe_tip(index);
        let stamp = (bitcoin, ripe, tip.peg().digest());
        if self.hosts[index].life.as_ref().is_none_or(|life| life.desk.last == Some(stamp)) {
            return;
        }
        let offer = self.offer(index, tip.peg(), ripe);
        let claims = self.claims(index, tip.peg());
        if let Some(life) = &mut self.hosts[index].life {
            life.desk.last = Some(stamp);
        }
        self.deliver(index, number, Event::Bitcoin { offer: Some(Arc::new(offer)) });
        for (block, peg_in) in claims {
            let Some(life) = &mut self.hosts[index].life else { return };
            let id = SubmitId(life.name());
            life.desk.asked.insert(id, (peg_in.outpoint(), block));
            self.deliver(index, number, Event::Claim { id: Some(id), peg_in: Box::new(peg_in) });
        }
    }

    /// The highest header that may be proposed by now: what is there when a process starts has been there for a while.
    fn ripe_tip(&mut self, index: usize) -> BitcoinHeight {
        let (now, delay) = (self.now, self.plan.peg.header_delay);
        let host = &mut self.hosts[index];
        let chain = host.bitcoin.chain(&self.bitcoin);
        let Some(life) = &mut host.life else { return BitcoinHeight(0) };
        let first_look = life.desk.seen.is_empty();
        let headers = (0..=chain.tip().0).filter_map(|height| chain.header(BitcoinHeight(height)));
        let mut ripe = BitcoinHeight(0);
        for (height, header) in (0..).zip(headers) {
            let since = if first_look { now.saturating_sub(delay) } else { now };
            if *life.desk.seen.entry(header.block_hash()).or_insert(since) + delay <= now || first_look {
                ripe = BitcoinHeight(height);
            }
        }
        ripe
    }

    fn offer(&self, index: usize, peg: &PegState, ripe: BitcoinHeight) -> BitcoinOffer {
        let chain = self.hosts[index].bitcoin.chain(&self.bitcoin);
        let tree = peg.headers();
        let first = tree.highest().0.saturating_sub(peg.network().params().fork_depth).max(tree.start_height().0);
        let headers = (first..=ripe.0).filter_map(|height| chain.header(BitcoinHeight(height))).collect();
        let versions = peg.open_batches().flat_map(|batch| &batch.versions);
        let deep = peg.network().params().final_depth;
        let in_block = |txid: &Txid| chain.place(txid).is_some();
        BitcoinOffer {
            first: BitcoinHeight(first),
            headers,
            confirmed: versions.filter_map(|version| proof(peg, chain, &version.txid, deep)).collect(),
            spent: Vec::new(),
            in_block: peg
                .open_batches()
                .filter(|batch| batch.versions.iter().any(|version| in_block(&version.txid)))
                .map(|batch| batch.number)
                .collect(),
            fee_rate: Some(self.bitcoin.rate),
        }
    }

    /// Deposits to addresses of this host that are deep and not credited, and those that somebody does not wait with.
    fn claims(&self, index: usize, peg: &PegState) -> Vec<(BlockHash, PegIn)> {
        let host = &self.hosts[index];
        let Some(life) = &host.life else { return Vec::new() };
        let chain = host.bitcoin.chain(&self.bitcoin);
        let waiting = self.bitcoin.deposits.iter().filter(|deposit| {
            let outpoint = &deposit.outpoint;
            deposit.desks.contains(&index) && !peg.is_credited(outpoint) && chain.is_unspent(outpoint)
        });
        let claim = |deposit: &super::Deposit| {
            let depth = if deposit.early { 1 } else { peg.network().params().final_depth };
            let proof = proof(peg, chain, &deposit.outpoint.txid, depth)?;
            let place = (deposit.outpoint, chain.header(proof.height)?.block_hash());
            let open = !life.desk.claimed.contains(&place) && life.desk.asked.values().all(|asked| *asked != place);
            let peg_in = PegIn { terms: deposit.terms.clone(), vout: deposit.outpoint.vout, proof };
            open.then_some((place.1, peg_in))
        };
        waiting.filter_map(claim).collect()
    }

    /// A node says what it makes of a deposit.
    pub(in crate::sim) fn claim_replied(&mut self, index: usize, id: SubmitId, result: &Result<Claimed, ClaimRefusal>) {
        let Some(life) = &mut self.hosts[index].life else { return };
        let Some(place) = life.desk.asked.remove(&id) else { return };
        match result {
            Ok(_) | Err(ClaimRefusal::Invalid(_)) => {
                life.desk.claimed.insert(place);
            }
            Err(ClaimRefusal::NotYet(_) | ClaimRefusal::Full) => {}
        }
    }
}

/// The proof of a transaction of a node's best chain, if the peg holds its block with so many confirmations.
fn proof(peg: &PegState, chain: &ParentChain, txid: &Txid, depth: u32) -> Option<InclusionProof> {
    let (height, _) = chain.place(txid)?;
    let tree = peg.headers();
    let deep = tree.best_hash(height) == chain.header(height).map(|header| header.block_hash())
        && height.confirmations(tree.tip().height) >= depth;
    if deep { chain.proof(txid) } else { None }
}

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
    /// Bitcoin's tip as offered, and the peg.
    last: Option<(BlockHash, [u8; 32])>,
    /// Deposits that the node has taken or refused.
    claimed: BTreeSet<OutPoint>,
    /// Those it has not answered.
    asked: BTreeMap<SubmitId, OutPoint>,
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
        let stamp = (host.bitcoin.tip, tip.peg().digest());
        if life.desk.last == Some(stamp) {
            return;
        }
        let offer = self.offer(index, tip.peg());
        let claims = self.claims(index, tip.peg());
        if let Some(life) = &mut self.hosts[index].life {
            life.desk.last = Some(stamp);
        }
        self.deliver(index, number, Event::Bitcoin { offer: Some(Arc::new(offer)) });
        for peg_in in claims {
            let Some(life) = &mut self.hosts[index].life else { return };
            let id = SubmitId(life.name());
            life.desk.asked.insert(id, peg_in.outpoint());
            self.deliver(index, number, Event::Claim { id: Some(id), peg_in: Box::new(peg_in) });
        }
    }

    fn offer(&self, index: usize, peg: &PegState) -> BitcoinOffer {
        let chain = self.hosts[index].bitcoin.chain(&self.bitcoin);
        let tree = peg.headers();
        let first = tree.highest().0.saturating_sub(peg.network().params().fork_depth).max(tree.start_height().0);
        let headers = (first..=chain.tip().0).filter_map(|height| chain.header(BitcoinHeight(height))).collect();
        let versions = peg.open_batches().flat_map(|batch| &batch.versions);
        let in_block = |txid: &Txid| chain.place(txid).is_some();
        BitcoinOffer {
            first: BitcoinHeight(first),
            headers,
            confirmed: versions.filter_map(|version| deep_proof(peg, chain, &version.txid)).collect(),
            spent: Vec::new(),
            in_block: peg
                .open_batches()
                .filter(|batch| batch.versions.iter().any(|version| in_block(&version.txid)))
                .map(|batch| batch.number)
                .collect(),
            fee_rate: Some(self.bitcoin.rate),
        }
    }

    /// Deposits to addresses of this host that are deep and not credited.
    fn claims(&self, index: usize, peg: &PegState) -> Vec<PegIn> {
        let host = &self.hosts[index];
        let Some(life) = &host.life else { return Vec::new() };
        let chain = host.bitcoin.chain(&self.bitcoin);
        let waiting = self.bitcoin.deposits.iter().filter(|deposit| {
            let outpoint = &deposit.outpoint;
            deposit.desks.contains(&index)
                && !peg.is_credited(outpoint)
                && !life.desk.claimed.contains(outpoint)
                && life.desk.asked.values().all(|asked| asked != outpoint)
                && chain.is_unspent(outpoint)
        });
        let claim = |deposit: &super::Deposit| {
            let proof = deep_proof(peg, chain, &deposit.outpoint.txid)?;
            Some(PegIn { terms: deposit.terms.clone(), vout: deposit.outpoint.vout, proof })
        };
        waiting.filter_map(claim).collect()
    }

    /// A node says what it makes of a deposit.
    pub(in crate::sim) fn claim_replied(&mut self, index: usize, id: SubmitId, result: &Result<Claimed, ClaimRefusal>) {
        let Some(life) = &mut self.hosts[index].life else { return };
        let Some(outpoint) = life.desk.asked.remove(&id) else { return };
        match result {
            Ok(_) | Err(ClaimRefusal::Invalid(_)) => {
                life.desk.claimed.insert(outpoint);
            }
            Err(ClaimRefusal::NotYet(_) | ClaimRefusal::Full) => {}
        }
    }
}

/// The proof of a transaction of a node's best chain, if the peg holds its block deep enough.
fn deep_proof(peg: &PegState, chain: &ParentChain, txid: &Txid) -> Option<InclusionProof> {
    let (height, _) = chain.place(txid)?;
    let tree = peg.headers();
    let deep = tree.best_hash(height) == chain.header(height).map(|header| header.block_hash())
        && height.confirmations(tree.tip().height) >= peg.network().params().final_depth;
    if deep { chain.proof(txid) } else { None }
}

//! The lives and deaths of hosts.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use bitcoin::ScriptBuf;
use causeway_consensus::bft::{Guarded, Key, Signer};
use causeway_consensus::{ChainView, ScriptCache};
use causeway_node::machine::{Event, Node, Setup};
use causeway_node::mempool::{Policy, snapshot};
use causeway_node::wire::PUSHED_BYTES_MAX;

use super::check::Check;
use super::host::Life;
use super::plan::timeouts;
use super::tale;
use super::world::{What, World};

impl World {
    /// Starts the process of a host.
    pub(super) fn boot(&mut self, index: usize) {
        let host = &mut self.hosts[index];
        if host.life.is_some() {
            return;
        }
        let chain = self.spec.chain_id();
        let signer = host.key.map(|key| -> Box<dyn Signer> {
            let mark = host.disk.mark(chain, Key::address(&key));
            Box::new(Guarded::new(key, mark).expect("the mark is this key's"))
        });
        let tip = host.chain.tip();
        let restart = host.disk.restart(tip.height().next().expect("there are heights left"));
        self.stats.replayed += restart.log.len() as u64;
        let snapshot = if host.snapshot.is_empty() {
            Vec::new()
        } else {
            snapshot::decode(&host.snapshot, usize::MAX).expect("it was encoded")
        };
        let scripts = Arc::new(ScriptCache::new(1_000));
        let schedule = Arc::clone(&self.schedule);
        let mut seed = [0; 32];
        let parts = [self.plan.seed, index as u64, host.lives];
        for (bytes, part) in seed.chunks_exact_mut(8).zip(parts) {
            bytes.copy_from_slice(&part.to_le_bytes());
        }
        let node = Node::new(Setup {
            chain,
            params: self.spec.params().clone(),
            timeouts: timeouts(),
            policy: Policy::default(),
            fee_script: ScriptBuf::from_bytes([&[0x00, 0x14][..], &[u8::try_from(index).unwrap_or(0); 20]].concat()),
            validators: Box::new(move |tip| schedule.set(tip.height().next().expect("there are heights left"))),
            tip,
            signer,
            restart,
            scripts: Arc::clone(&scripts),
            snapshot,
            seed,
            trusted: BTreeSet::new(),
            // What a liar has is looked for on the wire.
            pushed_max: if host.byzantine.is_some() { PUSHED_BYTES_MAX } else { self.plan.pushed_max },
        });
        host.lives += 1;
        let mut life = Life::new(host.lives, self.now, node, scripts);
        if host.byzantine.is_none() && !self.healed {
            let one_in = self.plan.faults.crash_one_in;
            life.doom(one_in.filter(|_| self.plan.faults.restore_disk.is_none_or(|only| only == index)), &mut self.rng);
        }
        let number = life.number;
        let height = host.chain.tip().height();
        host.life = Some(life);
        self.say(|| format!("{index:2} BOOT, life {number}, height {height}"));
        self.after(Duration::ZERO, What::Event { host: index, life: number, event: Box::new(Event::Tick) });
        self.after(Duration::ZERO, What::Desk { host: index, life: number });
        self.look_after_links();
    }

    /// Ends the process of a host.
    pub(super) fn crash(&mut self, index: usize) {
        let host = &mut self.hosts[index];
        let Some(life) = host.life.take() else { return };
        self.stats.crashes += 1;
        self.stats.crashes_before_commit += u64::from(life.committing);
        if let Some(listener) = &mut self.listener {
            listener(format!("{:>12.6} {index:2} CRASH", self.now.as_secs_f64()));
        }
        if self.rng.chance(50) {
            host.snapshot = snapshot::encode(life.node.mempool());
        }
        host.disk.crash(&mut self.rng);
        if self.plan.faults.restore_disk == Some(index) {
            host.restore();
            self.watch.restored(host.address);
        }
        if self.plan.faults.lose_log == Some(index) && !host.lost_log {
            host.lost_log = true;
            host.disk.lose_log();
        }
        host.bans.clear();
        self.purse.crashed(index);
        self.audit.forget_held(index);
        self.disconnect_all(index);
        let delay = self.rng.between(Duration::from_millis(50), Duration::from_secs(3));
        self.after(delay, What::Boot { host: index });
    }

    /// Sets the clock that jumps.
    pub(super) fn set_clocks(&mut self) {
        if let Some(host) = self.plan.faults.jumping_clock.filter(|_| !self.healed)
            && self.rng.chance(4)
        {
            let offset = self.rng.between(Duration::ZERO, Duration::from_secs(60)).as_millis();
            self.hosts[host].skew_ms = i64::try_from(offset).expect("small") - 30_000;
        }
    }

    pub(super) fn crash_all(&mut self) {
        if self.healed {
            return;
        }
        for host in 0..self.hosts.len() {
            if self.plan.is_honest(host) {
                self.crash(host);
            }
        }
        let every = self.plan.faults.crash_all_every.unwrap_or_default();
        let delay = self.rng.between(every / 2, every * 2);
        self.after(delay, What::CrashAll);
    }

    pub(super) fn is_alive(&self, host: usize, life: u64) -> bool {
        self.hosts[host].life.as_ref().is_some_and(|current| current.number == life)
    }

    /// Something happens to a process, unless it has ended.
    pub(super) fn deliver(&mut self, host: usize, life: u64, event: Event) {
        if !self.is_alive(host, life) {
            return;
        }
        if let Some(life) = &mut self.hosts[host].life {
            life.inbox.push_back(event);
        }
        self.pump(host);
    }

    pub(super) fn wake(&mut self, host: usize, life: u64) {
        if !self.is_alive(host, life) {
            return;
        }
        let Some(life) = &mut self.hosts[host].life else { return };
        if life.wake != Some(self.now) {
            return;
        }
        life.wake = None;
        life.inbox.push_back(Event::Tick);
        self.pump(host);
    }

    pub(super) fn synced(&mut self, host: usize, life: u64) {
        if !self.is_alive(host, life) {
            return;
        }
        let now = self.now;
        if let Some(life) = &mut self.hosts[host].life {
            life.busy = false;
            life.free_since = now;
        }
        self.finish_sync(host);
        self.pump(host);
    }

    /// Does what the node said, and tells it what happened, until it waits.
    pub(super) fn pump(&mut self, index: usize) {
        while !self.over {
            let host = &mut self.hosts[index];
            let unix = host.unix(self.now);
            let Some(life) = &mut host.life else { return };
            if life.busy {
                return;
            }
            if let Some(action) = life.todo.pop_front() {
                self.perform(index, action);
                continue;
            }
            let Some(event) = life.inbox.pop_front() else { break };
            self.watch.told(index, &event);
            if self.plan.is_honest(index) {
                self.audit.told(index, &event);
            }
            if let Some(listener) = &mut self.listener {
                listener(format!("{:>12.6} {index:2} <- {}", self.now.as_secs_f64(), tale::event(&event)));
            }
            let now = life.now(self.now, unix);
            let node = &mut life.node;
            match catch_unwind(AssertUnwindSafe(|| node.handle(now, event))) {
                Ok(Ok(actions)) => {
                    if actions.len() > 4_096 {
                        let count = actions.len();
                        self.fail(Check::BoundedQueues, format!("host {index}: {count} actions of one event"));
                    }
                    if let Some(life) = &mut self.hosts[index].life {
                        life.todo.extend(actions);
                    }
                }
                Ok(Err(fault)) => {
                    self.fail(Check::NoFault, format!("host {index}: {}", chain_of(&fault)));
                    self.over = true;
                }
                Err(_) => {
                    self.fail(Check::NoFault, format!("host {index} panicked"));
                    self.over = true;
                }
            }
        }
        let host = &mut self.hosts[index];
        let Some(life) = &mut host.life else { return };
        let Some(at) = life.node.next_deadline().map(|deadline| (life.booted + deadline).max(self.now)) else { return };
        if life.wake.is_none_or(|wake| wake > at) {
            life.wake = Some(at);
            let number = life.number;
            self.after(at - self.now, What::Wake { host: index, life: number });
        }
    }
}

/// An error and its causes.
fn chain_of(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text += &format!(": {error}");
        cause = error.source();
    }
    text
}

//! Lightning over Causeway: two ldk-node 0.7, unmodified, whose chain is Causeway's REST. They open a channel, pay both
//! ways, and close it together.
//!
//! With the feature `ldk` of this crate alone: ldk-node brings seventy crates.

#![expect(clippy::unwrap_used, reason = "a test ends where something is not as it should be")]

use std::net::{Ipv4Addr, TcpListener};
use std::time::{Duration, Instant};

use bitcoin::{Amount, Network, OutPoint};
use causeway_tests::devnet::PegNetwork;
use ldk_node::config::EsploraSyncConfig;
use ldk_node::lightning::ln::msgs::SocketAddress;
use ldk_node::lightning_invoice::{Bolt11InvoiceDescription, Description};
use ldk_node::{Builder, Event, Node};
use tempfile::TempDir;

/// How long anything may take.
const DEADLINE: Duration = Duration::from_secs(300);

const EVERY: Duration = Duration::from_millis(200);

const FUNDS: Amount = Amount::from_sat(10_000_000);

/// Sat in the channel, and what of it is the other side's at first.
const CHANNEL_SAT: u64 = 4_000_000;
const PUSHED_MSAT: u64 = 1_000_000_000;

const PAYMENT_MSAT: u64 = 50_000_000;

/// Depth from which on ldk takes a channel for ready.
const CONFIRMATIONS: u64 = 6;

struct Peer {
    node: Node,
    address: SocketAddress,
    _directory: TempDir,
}

impl Peer {
    fn start(url: &str, seed: u8) -> Self {
        let directory = TempDir::new().unwrap();
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
        let address: SocketAddress = format!("127.0.0.1:{port}").parse().unwrap();
        let mut builder = Builder::new();
        builder.set_network(Network::Regtest);
        builder.set_entropy_seed_bytes([seed; 64]);
        builder.set_storage_dir_path(directory.path().display().to_string());
        // Syncing is asked for, so that the test knows when it is done.
        let sync = EsploraSyncConfig { background_sync_config: None };
        builder.set_chain_source_esplora(url.to_owned(), Some(sync));
        builder.set_listening_addresses(vec![address.clone()]).unwrap();
        let node = builder.build().unwrap();
        node.start().unwrap();
        Self { node, address, _directory: directory }
    }

    /// The next event, while the chain is looked at.
    fn event(&self, others: &[&Peer]) -> Event {
        let started = Instant::now();
        loop {
            if let Some(event) = self.node.next_event() {
                self.node.event_handled().unwrap();
                return event;
            }
            assert!(started.elapsed() < DEADLINE, "no event");
            for peer in others.iter().chain(&[self]) {
                // A tip that moves meanwhile makes it try again; what stays wrong is found by the deadline.
                let _ = peer.node.sync_wallets();
            }
            std::thread::sleep(EVERY);
        }
    }

    fn spendable(&self) -> u64 {
        self.node.sync_wallets().unwrap();
        self.node.list_balances().spendable_onchain_balance_sats
    }
}

fn pay(from: &Peer, to: &Peer) {
    let description = Bolt11InvoiceDescription::Direct(Description::new("both ways".to_owned()).unwrap());
    let invoice = to.node.bolt11_payment().receive(PAYMENT_MSAT, &description, 3_600).unwrap();
    from.node.bolt11_payment().send(&invoice, None).unwrap();
    let received = to.event(&[from]);
    assert!(matches!(received, Event::PaymentReceived { amount_msat: PAYMENT_MSAT, .. }), "{received:?}");
    let sent = from.event(&[to]);
    assert!(matches!(sent, Event::PaymentSuccessful { .. }), "{sent:?}");
}

#[test]
fn a_channel_opens_pays_both_ways_and_closes() {
    let mut network = PegNetwork::start();
    let url = network.node().rest.clone();
    let (alice, bob) = (Peer::start(&url, 1), Peer::start(&url, 2));
    let address = alice.node.onchain_payment().new_address().unwrap();
    network.pay(&address, FUNDS).unwrap();
    assert_eq!(alice.spendable(), FUNDS.to_sat());

    let opened = alice.node.open_channel(bob.node.node_id(), bob.address.clone(), CHANNEL_SAT, Some(PUSHED_MSAT), None);
    opened.unwrap();
    let pending = alice.event(&[&bob]);
    let Event::ChannelPending { funding_txo, user_channel_id, .. } = pending else { panic!("{pending:?}") };
    let pending = bob.event(&[&alice]);
    assert!(matches!(pending, Event::ChannelPending { .. }), "{pending:?}");
    wait_deep(&mut network, funding_txo);
    for (peer, other) in [(&alice, &bob), (&bob, &alice)] {
        let ready = peer.event(&[other]);
        assert!(matches!(ready, Event::ChannelReady { .. }), "{ready:?}");
    }

    pay(&alice, &bob);
    pay(&bob, &alice);

    alice.node.close_channel(&user_channel_id, bob.node.node_id()).unwrap();
    for (peer, other) in [(&alice, &bob), (&bob, &alice)] {
        let closed = peer.event(&[other]);
        assert!(matches!(closed, Event::ChannelClosed { .. }), "{closed:?}");
    }
    network.wait("what the other side was given, on chain", |_| (bob.spendable() == PUSHED_MSAT / 1_000).then_some(()));
    let fees = FUNDS.to_sat() - PUSHED_MSAT / 1_000 - alice.spendable();
    assert!(fees < 10_000, "alice has paid {fees} sat of fees");
    alice.node.stop().unwrap();
    bob.node.stop().unwrap();
}

/// Waits until a transaction is as deep as ldk asks for. Blocks come by themselves.
fn wait_deep(network: &mut PegNetwork, outpoint: OutPoint) {
    network.wait("a deep funding transaction", |network| {
        let status = network.json(&format!("/tx/{}/status", outpoint.txid));
        let height = status["block_height"].as_u64()?;
        let tip = network.json("/blocks/tip/height").as_u64()?;
        (tip + 1 >= height + CONFIRMATIONS).then_some(())
    });
}

//! bdk_wallet and bdk_esplora, as any application uses them.

use bdk_esplora::EsploraExt as _;
use bdk_esplora::esplora_client::{BlockingClient, Builder};
use bdk_wallet::template::Bip86;
use bdk_wallet::{KeychainKind, SignOptions, Wallet};
use bitcoin::bip32::Xpriv;
use bitcoin::hashes::Hash as _;
use bitcoin::hashes::sha256d;
use bitcoin::{Address, Amount, FeeRate, Network, Psbt, Transaction, Txid};
use causeway_tests::devnet::{PegNetwork, payee};

use super::{alone, replace_in_time};

/// More than two pages of a history.
const PAYMENTS: u32 = 60;

/// Payments one upon the other before a block holds them.
const CHAIN: u32 = 20;

const COIN: Amount = Amount::from_sat(100_000_000);

struct Client {
    esplora: BlockingClient,
    wallet: Wallet,
    key: Xpriv,
}

impl Client {
    fn new(url: &str, seed: &[u8]) -> Self {
        let key = Xpriv::new_master(Network::Regtest, seed).unwrap();
        let wallet = Wallet::create(Bip86(key, KeychainKind::External), Bip86(key, KeychainKind::Internal));
        let wallet = wallet.network(Network::Regtest).create_wallet_no_persist().unwrap();
        Self { esplora: Builder::new(url).timeout(30).build_blocking(), wallet, key }
    }

    fn full_scan(&mut self) {
        let update = self.esplora.full_scan(self.wallet.start_full_scan(), 20, 4).unwrap();
        self.wallet.apply_update(update).unwrap();
    }

    fn sync(&mut self) {
        let update = self.esplora.sync(self.wallet.start_sync_with_revealed_spks(), 4).unwrap();
        self.wallet.apply_update(update).unwrap();
    }

    fn address(&mut self) -> Address {
        self.wallet.reveal_next_address(KeychainKind::External).address
    }

    fn sign(&self, mut psbt: Psbt) -> Transaction {
        psbt.sign(&self.key, self.wallet.secp_ctx()).unwrap();
        assert!(self.wallet.finalize_psbt(&mut psbt, SignOptions::default()).unwrap());
        psbt.extract_tx().unwrap()
    }

    fn draft(&mut self, payee: &Address, amount: Amount) -> Transaction {
        let mut builder = self.wallet.build_tx();
        builder.add_recipient(payee.script_pubkey(), amount).fee_rate(FeeRate::from_sat_per_vb(2).unwrap());
        let psbt = builder.finish().unwrap();
        self.sign(psbt)
    }

    fn is_pending(&self, txid: Txid) -> bool {
        self.wallet.get_tx(txid).is_some_and(|transaction| transaction.chain_position.is_unconfirmed())
    }

    fn is_final(&self, txid: Txid) -> bool {
        self.wallet.get_tx(txid).is_some_and(|transaction| transaction.chain_position.is_confirmed())
    }

    /// Sends a payment and then another one in its place.
    fn replace(&mut self, payee: &Address) -> (Txid, Txid) {
        self.sync();
        let first = self.draft(payee, COIN / 100);
        self.esplora.broadcast(&first).unwrap();
        // Whoever has just sent it sees it with the next request.
        self.sync();
        let first = first.compute_txid();
        assert!(self.is_pending(first), "{first} waits in the history at once");
        let mut builder = self.wallet.build_fee_bump(first).unwrap();
        builder.fee_rate(FeeRate::from_sat_per_vb(5).unwrap());
        let psbt = builder.finish().unwrap();
        let second = self.sign(psbt);
        self.esplora.broadcast(&second).unwrap();
        self.sync();
        let second = second.compute_txid();
        assert!(self.is_pending(second) && self.wallet.get_tx(first).is_none(), "{second} stands in its place");
        (first, second)
    }

    /// Checks that a block holds a transaction, by its header alone.
    fn check_proof(&self, txid: Txid) {
        let status = self.esplora.get_tx_status(&txid).unwrap();
        let hash = status.block_hash.unwrap();
        let header = self.esplora.get_header_by_hash(&hash).unwrap();
        assert_eq!(header.block_hash(), hash);
        header.validate_pow(header.target()).unwrap();

        let merkle_block = self.esplora.get_merkle_block(&txid).unwrap().unwrap();
        assert_eq!(merkle_block.header, header);
        let (mut matches, mut places) = (Vec::new(), Vec::new());
        merkle_block.extract_matches(&mut matches, &mut places).unwrap();
        assert_eq!(matches, [txid]);

        let proof = self.esplora.get_merkle_proof(&txid).unwrap().unwrap();
        assert_eq!(Some(proof.block_height), status.block_height);
        assert_eq!(u32::try_from(proof.pos).unwrap(), places[0]);
        let mut place = proof.pos;
        let root = proof.merkle.iter().fold(txid.to_raw_hash(), |node, sibling| {
            let sibling = sibling.to_raw_hash();
            let (left, right) = if place.is_multiple_of(2) { (node, sibling) } else { (sibling, node) };
            place /= 2;
            sha256d::Hash::hash(&[left.to_byte_array(), right.to_byte_array()].concat())
        });
        assert_eq!(root, header.merkle_root.to_raw_hash());
    }
}

#[test]
fn bdk_scans_syncs_pays_replaces_and_restores() {
    let _alone = alone();
    let mut network = PegNetwork::start();
    let url = network.node().rest.clone();
    let seed = b"an ordinary wallet of somebody's";
    let mut client = Client::new(&url, seed);
    client.full_scan();
    assert_eq!(client.wallet.balance().total(), Amount::ZERO);
    assert!(client.wallet.latest_checkpoint().height() > 100);

    let address = client.address();
    let paid = network.pay(&address, COIN * 2).unwrap();
    client.sync();
    assert_eq!(client.wallet.balance().confirmed, COIN * 2);
    client.check_proof(paid);

    let shop = payee("shop");
    let (replaced, replacement) = replace_in_time(&mut network, || client.replace(&shop));
    client.sync();
    assert!(client.is_final(replacement));
    assert!(client.wallet.get_tx(replaced).is_none(), "the replaced payment is no part of the history");
    client.check_proof(replacement);

    // A long history at one address, and some waiting before it.
    let busy = client.address();
    for sent in 1..=PAYMENTS {
        let payment = client.draft(&busy, COIN / 1_000);
        client.esplora.broadcast(&payment).unwrap();
        client.wallet.apply_unconfirmed_txs([(payment, unix_time())]);
        // Each spends the change of the one before, and nodes keep at most 25 such.
        if sent.is_multiple_of(CHAIN) || sent == PAYMENTS {
            network.wait("all payments in blocks", |_| {
                client.sync();
                let balance = client.wallet.balance();
                (balance.trusted_pending + balance.untrusted_pending == Amount::ZERO).then_some(())
            });
        }
    }
    let at_busy = client.esplora.get_scripthash_stats(&busy.script_pubkey()).unwrap();
    assert_eq!(at_busy.chain_stats.tx_count, PAYMENTS);

    let mut restored = Client::new(&url, seed);
    restored.full_scan();
    assert_eq!(restored.wallet.balance(), client.wallet.balance());
    let history = |client: &Client| {
        let mut txids: Vec<Txid> = client.wallet.transactions().map(|transaction| transaction.tx_node.txid).collect();
        txids.sort();
        txids
    };
    assert_eq!(history(&restored), history(&client));
    assert!(history(&restored).len() > PAYMENTS as usize);
    for txid in history(&restored).into_iter().step_by(10) {
        restored.check_proof(txid);
    }
}

fn unix_time() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs()
}

use bitcoin::absolute::LockTime;
use bitcoin::constants::genesis_block;
use bitcoin::transaction::Version;
use bitcoin::{ScriptBuf, TxIn};

use super::*;

fn block(transactions: &[&Transaction]) -> Block {
    let mut block = genesis_block(Network::Regtest);
    block.txdata.extend(transactions.iter().copied().cloned());
    block
}

/// A transaction that pays the key.
fn credit(number: u32, value: u64) -> Transaction {
    let previous_output = OutPoint { vout: number, ..OutPoint::default() };
    let input = TxIn {
        previous_output: OutPoint { txid: genesis_block(Network::Regtest).txdata[0].compute_txid(), ..previous_output },
        ..TxIn::default()
    };
    let output = TxOut { value: Amount::from_sat(value), script_pubkey: key().script() };
    let other = TxOut { value: Amount::from_sat(1), script_pubkey: ScriptBuf::new() };
    Transaction { version: Version::TWO, lock_time: LockTime::ZERO, input: vec![input], output: vec![other, output] }
}

fn payment(book: &mut Book, value: u64) -> Transaction {
    let output = TxOut { value: Amount::from_sat(value), script_pubkey: ScriptBuf::new() };
    let transaction = key().pay(&book.spendable(&key().script()), &[output]).unwrap();
    book.pending.push((transaction.compute_txid(), serialize_hex(&transaction)));
    transaction
}

fn values(book: &Book) -> Vec<u64> {
    book.spendable(&key().script()).iter().map(|coin| coin.value.to_sat()).collect()
}

#[test]
fn change_can_be_spent_before_it_is_final_and_is_counted_once() {
    let mut book = Book::default();
    let script = key().script();
    assert!(values(&book).is_empty());
    book.read(&block(&[&credit(0, 100_000)]), &script);
    assert_eq!(values(&book), [100_000]);

    let first = payment(&mut book, 10_000);
    let second = payment(&mut book, 20_000);
    assert_eq!(second.input[0].previous_output, OutPoint { txid: first.compute_txid(), vout: 1 });
    let left = second.output[1].value.to_sat();
    assert_eq!(values(&book), [left]);

    // Only the first comes into a block: its change is still spent by the second.
    book.read(&block(&[&first]), &script);
    assert_eq!((values(&book), book.pending.len()), (vec![left], 1));
    book.read(&block(&[&second, &credit(1, 7_000)]), &script);
    let mut after = values(&book);
    after.sort_unstable();
    assert_eq!((after, book.pending.len()), (vec![7_000, left], 0));

    // The file says all of it.
    assert_eq!(serde_json::from_str::<Book>(&serde_json::to_string(&book).unwrap()).unwrap(), book);
}

#[test]
fn a_payment_that_was_dropped_gives_its_coins_back() {
    let mut book = Book::default();
    book.read(&block(&[&credit(0, 100_000)]), &key().script());
    let first = payment(&mut book, 10_000);
    payment(&mut book, 10_000);
    book.pending.retain(|(txid, _)| *txid != first.compute_txid());
    // What spends its change is of no use either, and hides no coin.
    assert!(values(&book).contains(&100_000));
}

//! Locks: absolute (BIP-0113), relative (BIP-0068), and by script (BIP-0065, BIP-0112).

use bitcoin::absolute::{LOCK_TIME_THRESHOLD, LockTime};
use bitcoin::opcodes::all::{OP_CLTV, OP_CSV, OP_DROP};
use bitcoin::script::Builder;
use bitcoin::transaction::Version;
use bitcoin::{Amount, OutPoint, ScriptBuf, Sequence, Transaction, TxOut};
use causeway_chainspec::{Height, LAST_DERIVED_HEIGHT};
use causeway_consensus::{ChainView, InvalidTransaction};
use causeway_tests::chain::MemoryChain;
use causeway_tests::draft::{COIN_VALUE, devnet, edited, free_coin, free_output, move_coins, put_coin};

use crate::verdicts::{accepted, refused_for};

/// The relative lock counts in units of 512 seconds (BIP-0068).
const BY_TIME: u32 = 1 << 22;
/// The sequence is no relative lock (BIP-0068).
const DISABLED: u32 = 1 << 31;
/// What every finality rule takes as final.
const FINAL: u32 = u32::MAX;

fn locked(coins: &[OutPoint], version: i32, lock_time: u32, sequence: u32) -> Transaction {
    let mut locked = move_coins(coins);
    locked.version = Version(version);
    locked.lock_time = LockTime::from_consensus(lock_time);
    locked.input.iter_mut().for_each(|input| input.sequence = Sequence(sequence));
    locked
}

fn check(chain: &MemoryChain, transaction: Transaction, broken: Option<InvalidTransaction>) {
    let block = chain.next_block(Amount::ZERO, vec![transaction]);
    match broken {
        None => drop(accepted(chain, &block)),
        Some(rule) => refused_for(chain, &block, 1, rule),
    }
}

/// Adds six blocks of one time, which becomes their median.
fn set_median(chain: &mut MemoryChain, time: u32) {
    for _ in 0..6 {
        let block = edited(&chain.next_block(Amount::ZERO, vec![]), |block| block.header.time = time);
        chain.accept(&block).expect("after the median and not before the parent");
    }
    assert_eq!(chain.tip().median_time_past(), time);
}

pub(crate) fn lock_time() {
    let mut chain = devnet();
    let coins = [1, 2].map(|number| free_coin(&mut chain, number));
    let median = chain.tip().median_time_past();
    assert!(chain.tip().time() > median && median > LOCK_TIME_THRESHOLD);
    let not_yet = Some(InvalidTransaction::LockTime);

    // By height: of the block before at most.
    check(&chain, locked(&coins, 2, 100, DISABLED), None);
    check(&chain, locked(&coins, 2, 101, DISABLED), not_yet.clone());
    check(&chain, locked(&coins, 2, LOCK_TIME_THRESHOLD - 1, DISABLED), not_yet.clone());
    // By time: before the median of the last eleven, whatever the block's own time is.
    check(&chain, locked(&coins, 2, LOCK_TIME_THRESHOLD, DISABLED), None);
    check(&chain, locked(&coins, 2, median - 1, DISABLED), None);
    check(&chain, locked(&coins, 2, median, DISABLED), not_yet.clone());
    check(&chain, locked(&coins, 2, u32::MAX, DISABLED), not_yet.clone());
    // In any version; not if every input is final; if one is not, it is enough.
    for version in [i32::MIN, -1, 0, 1] {
        check(&chain, locked(&coins, version, 101, FINAL - 1), not_yet.clone());
        check(&chain, locked(&coins, version, 101, FINAL), None);
    }
    for input in [0, 1] {
        let mut one = locked(&coins, 2, 101, FINAL);
        one.input[input].sequence = Sequence(FINAL - 1);
        check(&chain, one, not_yet.clone());
    }

    // The coinbase's too.
    let block = chain.next_block(Amount::ZERO, vec![]);
    let of_coinbase = |lock_time, sequence| {
        edited(&block, |block| {
            block.txdata[0].lock_time = LockTime::from_consensus(lock_time);
            block.txdata[0].input[0].sequence = Sequence(sequence);
        })
    };
    accepted(&chain, &of_coinbase(100, 0));
    accepted(&chain, &of_coinbase(101, FINAL));
    refused_for(&chain, &of_coinbase(101, 0), 0, InvalidTransaction::LockTime);
}

pub(crate) fn sequence_lock() {
    by_blocks();
    by_time();
    within_the_block();
}

fn by_blocks() {
    let mut chain = devnet();
    assert_eq!(chain.tip().height(), LAST_DERIVED_HEIGHT);
    // At height 101 this one is ten blocks old.
    let old = put_coin(&mut chain, 1, Height(91), free_output(COIN_VALUE));
    let older = free_coin(&mut chain, 2);
    let not_yet = Some(InvalidTransaction::SequenceLock);
    for sequence in [0, 9, 10, 0x0001_0000 | 10, 0x003f_0000 | 10, DISABLED | 11, DISABLED | 0xffff, FINAL] {
        check(&chain, locked(&[old], 2, 0, sequence), None);
    }
    for sequence in [11, 0xffff, 0x0001_0000 | 11] {
        check(&chain, locked(&[old], 2, 0, sequence), not_yet.clone());
    }
    // Versions count as unsigned numbers.
    for version in [2, 3, i32::MAX, -1, i32::MIN] {
        check(&chain, locked(&[old], version, 0, 10), None);
        check(&chain, locked(&[old], version, 0, 11), not_yet.clone());
    }
    for version in [0, 1] {
        check(&chain, locked(&[old], version, 0, 11), None);
        check(&chain, locked(&[old], version, 0, BY_TIME | 0xffff), None);
    }
    // Each input by its own coin.
    check(&chain, locked(&[older, old], 2, 0, 10), None);
    check(&chain, locked(&[older, old], 2, 0, 11), not_yet.clone());
    check(&chain, locked(&[old, older], 2, 0, 11), not_yet.clone());
    check(&chain, locked(&[older], 2, 0, 100), None);
    check(&chain, locked(&[older], 2, 0, 101), not_yet.clone());

    chain.grow(1);
    check(&chain, locked(&[old], 2, 0, 11), None);
    check(&chain, locked(&[old], 2, 0, 12), not_yet);
}

fn by_time() {
    let not_yet = Some(InvalidTransaction::SequenceLock);
    for (seconds, units) in [(512, 1), (1_023, 1), (1_024, 2), (512 * 0xffff, 0xffff)] {
        // Counted from the median time past of the block before the coin's: here that of height 99 or of 100.
        for coin_height in [100, 101] {
            let mut chain = devnet();
            let base = *chain.median_times(&[Height(coin_height - 1)]).expect("in memory").first().expect("one");
            set_median(&mut chain, base + seconds);
            let coin = put_coin(&mut chain, 1, Height(coin_height), free_output(COIN_VALUE));
            check(&chain, locked(&[coin], 2, 0, BY_TIME | units), None);
            check(&chain, locked(&[coin], -1, 0, BY_TIME | units), None);
            check(&chain, locked(&[coin], 1, 0, BY_TIME | 0xffff), None);
            if units < 0xffff {
                check(&chain, locked(&[coin], 2, 0, BY_TIME | (units + 1)), not_yet.clone());
            }
            // One second less.
            let mut chain = devnet();
            set_median(&mut chain, base + 512 * units - 1);
            let coin = put_coin(&mut chain, 1, Height(coin_height), free_output(COIN_VALUE));
            check(&chain, locked(&[coin], 2, 0, BY_TIME | (units - 1)), None);
            check(&chain, locked(&[coin], 2, 0, BY_TIME | units), not_yet.clone());
            check(&chain, locked(&[coin], -1, 0, BY_TIME | units), not_yet.clone());
            check(&chain, locked(&[coin], 2, 0, DISABLED | BY_TIME | units), None);
        }
    }
}

/// A coin of the same block is no block and no second old.
fn within_the_block() {
    let mut chain = devnet();
    let coin = free_coin(&mut chain, 1);
    let first = move_coins(&[coin]);
    let within = OutPoint { txid: first.compute_txid(), vout: 0 };
    for sequence in [0, BY_TIME, DISABLED | 1, FINAL] {
        let second = locked(&[within], 2, 0, sequence);
        accepted(&chain, &chain.next_block(Amount::ZERO, vec![first.clone(), second]));
    }
    for sequence in [1, BY_TIME | 1] {
        let second = locked(&[within], 2, 0, sequence);
        let block = chain.next_block(Amount::ZERO, vec![first.clone(), second]);
        refused_for(&chain, &block, 2, InvalidTransaction::SequenceLock);
        accepted(&chain, &chain.next_block(Amount::ZERO, vec![first.clone(), locked(&[within], 1, 0, sequence)]));
    }
}

fn guarded_coin(chain: &mut MemoryChain, script_pubkey: ScriptBuf) -> OutPoint {
    put_coin(chain, 1, Height(1), TxOut { value: COIN_VALUE, script_pubkey })
}

/// BIP-0065: the script asks for a lock time, and BIP-0113 holds the transaction to it.
#[test]
fn check_lock_time_verify() {
    let mut chain = devnet();
    let refused = Some(InvalidTransaction::Script { input: 0 });
    let script = |number: i64| {
        Builder::new().push_int(number).push_opcode(OP_CLTV).push_opcode(OP_DROP).push_int(1).into_script()
    };
    let coin = guarded_coin(&mut chain, script(100));
    check(&chain, locked(&[coin], 1, 100, FINAL - 1), None);
    check(&chain, locked(&[coin], 1, 99, FINAL - 1), refused.clone());
    check(&chain, locked(&[coin], 1, 100, FINAL), refused.clone());
    check(&chain, locked(&[coin], 1, LOCK_TIME_THRESHOLD, FINAL - 1), refused.clone());
    let coin = guarded_coin(&mut chain, script(101));
    check(&chain, locked(&[coin], 1, 100, FINAL - 1), refused.clone());
    check(&chain, locked(&[coin], 1, 101, FINAL - 1), Some(InvalidTransaction::LockTime));
    let coin = guarded_coin(&mut chain, script(-1));
    check(&chain, locked(&[coin], 1, 100, FINAL - 1), refused.clone());

    let median = chain.tip().median_time_past();
    let coin = guarded_coin(&mut chain, script(i64::from(median - 1)));
    check(&chain, locked(&[coin], 1, median - 1, FINAL - 1), None);
    check(&chain, locked(&[coin], 1, median - 2, FINAL - 1), refused.clone());
    check(&chain, locked(&[coin], 1, 100, FINAL - 1), refused);
}

/// BIP-0112: the script asks for a relative lock, and BIP-0068 holds the transaction to it.
#[test]
fn check_sequence_verify() {
    let mut chain = devnet();
    let refused = Some(InvalidTransaction::Script { input: 0 });
    let script = |number: u32| {
        let number = Builder::new().push_int(number.into());
        number.push_opcode(OP_CSV).push_opcode(OP_DROP).push_int(1).into_script()
    };
    let coin = guarded_coin(&mut chain, script(100));
    check(&chain, locked(&[coin], 2, 0, 100), None);
    check(&chain, locked(&[coin], -1, 0, 100), None);
    check(&chain, locked(&[coin], 2, 0, 99), refused.clone());
    check(&chain, locked(&[coin], 1, 0, 100), refused.clone());
    check(&chain, locked(&[coin], 2, 0, DISABLED | 100), refused.clone());
    check(&chain, locked(&[coin], 2, 0, BY_TIME), refused.clone());
    check(&chain, locked(&[coin], 2, 0, 101), Some(InvalidTransaction::SequenceLock));
    // The script's own disabled bit asks for nothing.
    let coin = guarded_coin(&mut chain, script(DISABLED | 100));
    check(&chain, locked(&[coin], 1, 0, 0), None);

    let output = TxOut { value: COIN_VALUE, script_pubkey: script(BY_TIME | 1) };
    let coin = put_coin(&mut chain, 1, Height(100), output);
    check(&chain, locked(&[coin], 2, 0, BY_TIME | 1), Some(InvalidTransaction::SequenceLock));
    let time = chain.tip().time() + 1_000;
    set_median(&mut chain, time);
    check(&chain, locked(&[coin], 2, 0, BY_TIME | 1), None);
    check(&chain, locked(&[coin], 2, 0, BY_TIME), refused.clone());
    check(&chain, locked(&[coin], 2, 0, 1), refused);
}

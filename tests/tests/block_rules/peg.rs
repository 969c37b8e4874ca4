//! PEG section 1: the outputs and coins of witness version 16. The rules of the peg transaction have their own tests
//! (`peg_rules`).

use bitcoin::{Amount, Block, OutPoint, ScriptBuf, TxOut, Witness};
use causeway_chainspec::{Height, PegOutAddressError, PegOutDestination, PegScriptError, reserve_script};
use causeway_consensus::InvalidTransaction;
use causeway_consensus::peg::InvalidPeg;
use causeway_tests::chain::MemoryChain;
use causeway_tests::draft::{
    COIN_VALUE, devnet, edited, free_coin, free_output, input, move_coins, put_coin, transaction,
};
use causeway_tests::parent::stub_peg_transaction;

use crate::verdicts::{accepted, refused, refused_for};

const OP_16: u8 = 0x60;

/// A script of `OP_16` and one direct push, which is a witness program for 2 to 40 bytes.
fn version_16(program: &[u8]) -> ScriptBuf {
    let length = u8::try_from(program.len()).expect("short");
    ScriptBuf::from_bytes([&[OP_16, length], program].concat())
}

fn request_of(destination: &[u8]) -> ScriptBuf {
    version_16(&[b"CWPO", destination].concat())
}

/// A block whose one transaction creates an output, from a coin of the greatest request's value.
fn creating(chain: &mut MemoryChain, output: TxOut) -> Block {
    let value = Amount::from_sat(20_000_000_000);
    let coin = put_coin(chain, 1, Height(1), free_output(value));
    let change = free_output(value - output.value);
    chain.next_block(Amount::ZERO, vec![transaction(&[coin], vec![change, output])])
}

/// The five forms that are paid.
fn destinations() -> [Vec<u8>; 5] {
    let hash = [7; 32];
    [
        [&[0x76, 0xa9, 20], &hash[..20], &[0x88, 0xac]].concat(),
        [&[0xa9, 20], &hash[..20], &[0x87]].concat(),
        [&[0, 20], &hash[..20]].concat(),
        [&[0, 32], &hash[..]].concat(),
        [&[0x51, 32], &hash[..]].concat(),
    ]
}

pub(crate) fn script_of_no_known_form() {
    let mut chain = devnet();
    let value = chain.spec.params().peg_out_min;
    for destination in destinations() {
        let block = creating(&mut chain, TxOut { value, script_pubkey: request_of(&destination) });
        accepted(&chain, &block);
    }
    // Not of witness version 16: too short, too long, another push, something behind, another version.
    let others = [
        version_16(&[1]),
        version_16(&[1; 41]),
        version_16(&[]),
        ScriptBuf::from_bytes([&[OP_16, 0x4c, 4], b"CWRS".as_slice()].concat()),
        ScriptBuf::from_bytes([&[OP_16, 4], b"CWRS".as_slice(), &[0x51]].concat()),
        ScriptBuf::from_bytes([&[OP_16 - 1, 4], b"CWRS".as_slice()].concat()),
    ];
    for script_pubkey in others {
        let block = creating(&mut chain, TxOut { value, script_pubkey });
        accepted(&chain, &block);
    }

    let prefixes: [&[u8]; 6] = [b"", b"X", b"CWR", b"CWRSx", b"CWPP", b"cwpo"];
    for prefix in prefixes {
        for length in prefix.len().max(2)..=40 {
            let mut program = prefix.to_vec();
            program.resize(length, 0);
            let source = PegScriptError::UnknownProgram { length };
            refused_output(&mut chain, version_16(&program), source);
        }
    }
    let key = [&[2], [7; 32].as_slice()].concat();
    let unpaid = [
        (vec![], PegOutAddressError::Empty),
        (vec![0x6a, 1, 1], PegOutAddressError::OpReturn),
        (vec![0x51, 2, 0x4e, 0x73], PegOutAddressError::PayToAnchor),
        ([&[33], key.as_slice(), &[0xac]].concat(), PegOutAddressError::PayToPublicKey),
        (vec![0, 2, 1, 1], PegOutAddressError::WitnessProgram { version: 0, length: 2 }),
        (vec![0x51, 2, 1, 1], PegOutAddressError::WitnessProgram { version: 1, length: 2 }),
        ([&[0x52, 32], [7; 32].as_slice()].concat(), PegOutAddressError::WitnessProgram { version: 2, length: 32 }),
        (vec![OP_16, 4, b'C', b'W', b'R', b'S'], PegOutAddressError::WitnessProgram { version: 16, length: 4 }),
        (vec![0x51], PegOutAddressError::NonStandard { length: 1 }),
        (vec![0x51; 36], PegOutAddressError::NonStandard { length: 36 }),
    ];
    for (destination, reason) in unpaid {
        refused_output(&mut chain, request_of(&destination), PegScriptError::Destination(reason));
    }
    // Each form one byte shorter and one longer.
    for destination in destinations() {
        for other in [destination[..destination.len() - 1].to_vec(), [destination.as_slice(), &[0]].concat()] {
            let source = PegOutDestination::from_bitcoin_script(&ScriptBuf::from_bytes(other.clone()));
            let source = PegScriptError::Destination(source.expect_err("none of the five forms"));
            refused_output(&mut chain, request_of(&other), source);
        }
    }
}

/// Refused in a transaction, whatever its value, and in a coinbase.
fn refused_output(chain: &mut MemoryChain, script_pubkey: ScriptBuf, source: PegScriptError) {
    for value in [Amount::ZERO, chain.spec.params().peg_out_min] {
        let block = creating(chain, TxOut { value, script_pubkey: script_pubkey.clone() });
        refused_for(chain, &block, 1, InvalidTransaction::PegScript { vout: 1, source: source.clone() });
    }
    let block = chain.next_block(Amount::ZERO, vec![]);
    let block = edited(&block, |block| {
        block.txdata[0].output.insert(0, TxOut { value: Amount::ZERO, script_pubkey });
    });
    refused_for(chain, &block, 0, InvalidTransaction::PegScript { vout: 0, source });
}

/// Only a peg transaction makes the reserve coin anew, in its first output.
pub(crate) fn creates_reserve() {
    let mut chain = devnet();
    let reserves: Vec<_> =
        chain.coins_mut().values().filter(|coin| coin.output.script_pubkey == reserve_script()).cloned().collect();
    assert_eq!(reserves.len(), 1);
    assert_eq!(reserves[0].height, Height(1));
    assert_eq!(reserves[0].output.value, Amount::MAX_MONEY);

    accepted(&chain, &chain.next_block(Amount::ZERO, vec![]));
    for value in [Amount::ZERO, Amount::from_sat(20_000)] {
        let block = creating(&mut chain, TxOut { value, script_pubkey: reserve_script() });
        refused_for(&chain, &block, 1, InvalidTransaction::CreatesReserve { vout: 1 });
        // Where a peg transaction would have it, and in a transaction after that.
        let first = edited(&block, |block| block.txdata[1].output.swap(0, 1));
        refused_for(&chain, &first, 1, InvalidTransaction::CreatesReserve { vout: 0 });
        let coin = free_coin(&mut chain, 2);
        let later = edited(&first, |block| block.txdata.insert(1, move_coins(&[coin])));
        refused_for(&chain, &later, 2, InvalidTransaction::CreatesReserve { vout: 0 });
    }
    let block = chain.next_block(Amount::ZERO, vec![]);
    let block = edited(&block, |block| {
        block.txdata[0].output.insert(0, TxOut { value: Amount::ZERO, script_pubkey: reserve_script() });
    });
    refused_for(&chain, &block, 0, InvalidTransaction::CreatesReserve { vout: 0 });
}

pub(crate) fn coinbase_creates_request() {
    let mut chain = devnet();
    let coin = free_coin(&mut chain, 1);
    let to_fees = transaction(&[coin], vec![free_output(Amount::ZERO)]);
    let block = chain.next_block(COIN_VALUE, vec![to_fees]);
    accepted(&chain, &block);
    for destination in destinations() {
        let request = edited(&block, |block| block.txdata[0].output[0].script_pubkey = request_of(&destination));
        refused_for(&chain, &request, 0, InvalidTransaction::CoinbaseCreatesRequest { vout: 0 });
    }
}

pub(crate) fn request_out_of_range() {
    let mut chain = devnet();
    let (min, max) = (chain.spec.params().peg_out_min, chain.spec.params().peg_out_max);
    for destination in destinations() {
        let script_pubkey = request_of(&destination);
        for value in [min, min + Amount::ONE_SAT, max - Amount::ONE_SAT, max] {
            let block = creating(&mut chain, TxOut { value, script_pubkey: script_pubkey.clone() });
            accepted(&chain, &block);
        }
        for value in [Amount::ZERO, min - Amount::ONE_SAT, max + Amount::ONE_SAT] {
            let block = creating(&mut chain, TxOut { value, script_pubkey: script_pubkey.clone() });
            let error = InvalidTransaction::RequestOutOfRange { vout: 1, value, min, max };
            refused_for(&chain, &block, 1, error);
        }
    }
}

/// The reserve, requests of a block before and of the same block, and coins of a form that no block creates.
pub(crate) fn spends_peg_coin() {
    let mut chain = devnet();
    let reserve = (chain.coins_mut().iter())
        .find(|(_, coin)| coin.output.script_pubkey == reserve_script())
        .map(|(outpoint, _)| *outpoint)
        .expect("block 1 creates the reserve");
    let value = chain.spec.params().peg_out_min;
    let [script_pubkey, ..] = destinations().map(|destination| request_of(&destination));
    let block = creating(&mut chain, TxOut { value, script_pubkey: script_pubkey.clone() });
    let request = OutPoint { txid: block.txdata[1].compute_txid(), vout: 1 };
    let within = transaction(&[request], vec![free_output(value)]);
    let spent_within = edited(&block, |block| block.txdata.push(within));
    refused_for(&chain, &spent_within, 2, InvalidTransaction::SpendsPegCoin { outpoint: request });
    chain.accept(&block).expect("valid");

    let malformed = TxOut { value, script_pubkey: version_16(&[1, 2]) };
    let malformed = put_coin(&mut chain, 7, Height(1), malformed);
    let [beside, beside_all] = [8, 11].map(|number| free_coin(&mut chain, number));
    // A coin of another version, and one that only resembles a program of version 16, are anyone's.
    let version_15 = TxOut { value, script_pubkey: ScriptBuf::from_bytes(vec![OP_16 - 1, 2, 1, 2]) };
    let version_15 = put_coin(&mut chain, 9, Height(1), version_15);
    let no_program = put_coin(&mut chain, 10, Height(1), TxOut { value, script_pubkey: version_16(&[1; 41]) });
    for coin in [version_15, no_program] {
        let spender = transaction(&[beside, coin], vec![free_output(COIN_VALUE + value)]);
        accepted(&chain, &chain.next_block(Amount::ZERO, vec![spender]));
    }

    for outpoint in [reserve, request, malformed] {
        for witness in [Witness::new(), Witness::from_slice(&[[1]])] {
            let error = InvalidTransaction::SpendsPegCoin { outpoint };
            let mut alone = transaction(&[outpoint], vec![free_output(Amount::ZERO)]);
            alone.input[0].witness = witness.clone();
            let block = chain.next_block(Amount::ZERO, vec![alone.clone()]);
            if outpoint == reserve {
                // The first input of the first transaction makes it a peg transaction.
                refused(&chain, &block, InvalidPeg::EvidenceForm.into());
            } else {
                refused_for(&chain, &block, 1, error.clone());
            }
            let block = edited(&block, |block| block.txdata.insert(1, move_coins(&[beside_all])));
            refused_for(&chain, &block, 2, error.clone());
            let mut second = alone;
            second.input.insert(0, input(beside));
            refused_for(&chain, &chain.next_block(Amount::ZERO, vec![second.clone()]), 1, error);
        }
    }
    accepted(&chain, &chain.next_block(Amount::ZERO, vec![move_coins(&[beside])]));
}

/// One rule of many: a batch is opened although none is due.
pub(crate) fn breaks_a_rule_of_the_peg() {
    let chain = devnet();
    let block = chain.next_block(Amount::ZERO, vec![]);
    accepted(&chain, &block);
    let stub = stub_peg_transaction(chain.peg(), &[7]);
    let opening = edited(&block, |block| block.txdata.push(stub));
    refused(&chain, &opening, InvalidPeg::NothingToOpen.into());
}

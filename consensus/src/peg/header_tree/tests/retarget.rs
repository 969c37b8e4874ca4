//! The difficulty adjustment, on headers without proof of work.

use proptest::prelude::*;

use super::*;
use causeway_chainspec::RETARGET_INTERVAL;

fn genesis_of(network: Network) -> BitcoinStart {
    let header = genesis_block(network).header;
    BitcoinStart::new(network, BitcoinHeight(0), header, header.work(), vec![]).unwrap()
}

/// The bits required at the end of the second period, whose first and last headers have these times, and these bits.
fn after_a_period(network: Network, times: (u32, u32), first_bits: u32, last_bits: u32) -> u32 {
    let start = genesis_of(network);
    let mut header = *start.header();
    let mut chain = Chain::new(0, Link { header, work: header.work() });
    for height in 1..2 * RETARGET_INTERVAL {
        header = unsolved(&header, 0);
        header.time = if height < 2 * RETARGET_INTERVAL - 1 { times.0 } else { times.1 };
        header.bits = CompactTarget::from_consensus(if height == RETARGET_INTERVAL { first_bits } else { last_bits });
        chain.push(Link { header, work: header.work() });
    }
    let past = Past::new(&start, &chain, 2 * RETARGET_INTERVAL - 1);
    rules::required_bits(&past, times.1 + 600).to_consensus()
}

/// Vectors of Bitcoin Core's `pow_tests.cpp`: first time, last time, bits, next bits.
#[test]
fn main_network_retargets() {
    for (first, last, bits, next) in [
        // Blocks 30,240 to 32,255.
        (1_261_130_161, 1_262_152_739, 0x1d00_ffff, 0x1d00_d86a),
        // Blocks 0 to 2,015: never easier than the limit.
        (1_231_006_505, 1_233_061_996, 0x1d00_ffff, 0x1d00_ffff),
        // Blocks 66,528 to 68,543: at most four times as hard.
        (1_279_008_237, 1_279_297_671, 0x1c05_a3f4, 0x1c01_68fd),
        // At most four times as easy.
        (1_263_163_443, 1_269_211_443, 0x1c38_7f6f, 0x1d00_e1fd),
    ] {
        assert_eq!(after_a_period(Network::Bitcoin, (first, last), bits, bits), next, "{bits:08x}");
    }
    // Backwards is as fast as can be.
    assert_eq!(after_a_period(Network::Bitcoin, (1_279_008_237, 1_231_006_505), 0x1c05_a3f4, 0x1c05_a3f4), 0x1c01_68fd);
}

/// Signet's blocks 2,016 to 4,031, and its limit.
#[test]
fn signet_retargets() {
    assert_eq!(after_a_period(Network::Signet, (1_599_332_844, 1_600_591_200), 503_394_215, 503_394_215), 503_397_348);
    assert_eq!(after_a_period(Network::Signet, (1_600_000_000, 1_700_000_000), 0x1e03_77ae, 0x1e03_77ae), 0x1e03_77ae);
}

#[test]
fn testnet4_retargets_from_the_first_header_of_a_period() {
    let times = (1_279_008_237, 1_279_297_671);
    assert_eq!(after_a_period(Network::Testnet4, times, 0x1c05_a3f4, 0x1d00_ffff), 0x1c01_68fd);
    // The main network, from the last.
    assert_eq!(after_a_period(Network::Bitcoin, times, 0x1d00_ffff, 0x1c05_a3f4), 0x1c01_68fd);
}

#[test]
fn regtest_never_retargets() {
    assert_eq!(after_a_period(Network::Regtest, (1_300_000_000, 1_300_000_001), 0x207f_ffff, 0x207f_ffff), 0x207f_ffff);
    assert_eq!(after_a_period(Network::Regtest, (1_300_000_000, 1_400_000_001), 0x207f_ffff, 0x207f_ffff), 0x207f_ffff);
}

/// The rule for the first header of a period applies on testnet4 only, and to that header only.
#[test]
fn a_period_opens_at_most_ten_minutes_back() {
    let check = |network: Network, headers: u32, back: u32| {
        let start = genesis_of(network);
        let mut header = *start.header();
        let mut chain = Chain::new(0, Link { header, work: header.work() });
        for _ in 1..headers {
            header = unsolved(&header, 0);
            chain.push(Link { header, work: header.work() });
        }
        let past = Past::new(&start, &chain, headers - 1);
        let mut next = unsolved(&header, 0);
        next.time = header.time - back;
        next.bits = rules::required_bits(&past, next.time);
        rules::check(&past, &next, &next.block_hash()).unwrap_err()
    };
    // Nothing is wrong but the proof of work, which none of these headers has.
    let fine = |error: InvalidHeaders| matches!(error, InvalidHeaders::ProofOfWork { .. });
    assert!(fine(check(Network::Testnet4, 2_016, 600)));
    let error = check(Network::Testnet4, 2_016, 601);
    assert!(matches!(error, InvalidHeaders::TimeWarp { height: BitcoinHeight(2_016), .. }), "{error}");
    assert!(error.to_string().starts_with("header 2016 opens a difficulty period with time "), "{error}");
    assert!(fine(check(Network::Testnet4, 2_015, 601)));
    assert!(fine(check(Network::Testnet4, 2_017, 601)));
    assert!(fine(check(Network::Bitcoin, 2_016, 601)));
}

/// Bitcoin Core's `GetNextWorkRequired` for testnet4, which walks back over headers of the least difficulty.
fn core_testnet4(headers: &[Header], time: u32) -> CompactTarget {
    const LIMIT: u32 = 0x1d00_ffff;
    let limit = CompactTarget::from_consensus(LIMIT);
    let last = headers.len() - 1;
    if !headers.len().is_multiple_of(2_016) {
        if time > headers[last].time + 1_200 {
            return limit;
        }
        let mut index = last;
        while index > 0 && !index.is_multiple_of(2_016) && headers[index].bits == limit {
            index -= 1;
        }
        return headers[index].bits;
    }
    let first = &headers[last - 2_015];
    let timespan = (i64::from(headers[last].time) - i64::from(first.time)).clamp(302_400, 4_838_400);
    CompactTarget::from_next_work_required(first.bits, u64::try_from(timespan).unwrap(), Network::Testnet4.params())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn testnet4_equals_core(seed: u64, late in prop_oneof![Just(2u64), Just(10), Just(100)]) {
        let start = genesis_of(Network::Testnet4);
        let mut headers = vec![*start.header()];
        let mut chain = Chain::new(0, Link { header: headers[0], work: headers[0].work() });
        let mut random = seed | 1;
        for _ in 0..5_000 {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            let last = headers[headers.len() - 1];
            let mut next = unsolved(&last, 0);
            // Fast enough to make it harder, with a late header in so many: one of the least difficulty.
            let step = if random.is_multiple_of(late) { 1_150 + random % 100 } else { random % 300 };
            next.time = last.time + u32::try_from(step).unwrap();
            let past = Past::new(&start, &chain, chain.tip_height());
            next.bits = rules::required_bits(&past, next.time);
            prop_assert_eq!(next.bits, core_testnet4(&headers, next.time), "height {}", headers.len());
            headers.push(next);
            chain.push(Link { header: next, work: next.work() });
        }
        // The same when the last part is a branch.
        let mut past = Past::new(&start, &chain, 3_000);
        headers[3_001..].iter().for_each(|header| past.push(*header));
        let time = headers[5_000].time + 1;
        prop_assert_eq!(rules::required_bits(&past, time), core_testnet4(&headers, time));
    }
}

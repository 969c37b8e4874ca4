use proptest::prelude::*;

use crate::{ChainSpec, ChainSpecError, devnet};

/// The message when the devnet's file has `to` in the place of `from`, which it holds.
#[track_caller]
fn refused(from: &str, to: &str) -> String {
    assert!(devnet::TOML.contains(from), "the file does not hold {from}");
    message(&devnet::TOML.replacen(from, to, 1))
}

#[track_caller]
fn message(text: &str) -> String {
    ChainSpec::from_toml(text).unwrap_err().to_string()
}

const OTHER_RULES: &str =
    "this chain began under rules N; this build runs rules 1: use the build that wrote it, or start a new network";

/// Before anything else that other rules may have written otherwise.
#[test]
fn chains_of_other_rules_are_refused_by_name() {
    for number in [0, 2, -1, i64::MAX] {
        let expected = OTHER_RULES.replace('N', &number.to_string());
        assert_eq!(refused("rules = 1", &format!("rules = {number}\nweather = \"fine\"")), expected);
    }
    assert_eq!(refused("rules = 1\n", "weather = \"fine\"\n"), OTHER_RULES.replace('N', "0"));
    assert_eq!(refused("rules = 1", "rules = \"1\""), "rules is of type string, which must be a whole number");
    // What is no chainspec at all is not taken for an old one.
    assert_eq!(message("weather = \"fine\""), "rules is missing: a whole number");
}

#[test]
fn text_that_is_no_toml_is_refused() {
    for text in ["name = ", "a = 1\na = 2", "\u{0}", "[[[", "power = 9223372036854775808"] {
        let error = ChainSpec::from_toml(text).unwrap_err();
        assert!(matches!(error, ChainSpecError::Toml(_)), "{error}");
        assert_eq!(error.to_string(), "the chainspec is not valid TOML");
        assert!(std::error::Error::source(&error).is_some(), "the place of the mistake is in the source");
    }
}

#[test]
fn unknown_keys_are_refused_in_every_section() {
    assert_eq!(
        refused("name =", "nane ="),
        "unknown key \"nane\" in the top level; allowed: rules, name, identity, launch, genesis_time, block_interval_ms, validators, federation, peg, bitcoin"
    );
    assert_eq!(
        refused("power = 1\n", "power = 1\nPower = 1\n"),
        "unknown key \"Power\" in [validators[1]]; allowed: key, power"
    );
    assert_eq!(
        refused("threshold = 3", "t = 3"),
        "unknown key \"t\" in [federation]; allowed: members, threshold, recovery_keys, recovery_threshold, claim_window, sweep_age, recovery_delay, refund_delay"
    );
    assert!(refused("\nmax_inputs", "\nmax_input").starts_with(
        "unknown key \"max_input\" in [peg]; allowed: peg_out_min, peg_out_max, peg_out_fee_max, peg_in_min, "
    ));
    assert_eq!(
        refused("chainwork =", "chain_work ="),
        "unknown key \"chain_work\" in [bitcoin]; allowed: network, height, header, chainwork, earlier_times"
    );
}

#[test]
fn every_key_is_required() {
    let mut table: toml::Table = devnet::TOML.parse().unwrap();
    for key in crate::key::names::TOP {
        let value = table.remove(*key).unwrap();
        let message = message(&table.to_string());
        // Without the number of its rules it is taken for a chainspec of the first ones.
        let expected = if *key == "rules" { OTHER_RULES.replace('N', "0") } else { format!("{key} is missing: ") };
        assert!(message.starts_with(&expected), "{message}");
        table.insert((*key).to_owned(), value);
    }
    for section in ["federation", "peg", "bitcoin"] {
        let keys: Vec<_> = table[section].as_table().unwrap().keys().cloned().collect();
        for key in keys {
            let mut table = table.clone();
            table[section].as_table_mut().unwrap().remove(&key);
            let message = message(&table.to_string());
            assert!(message.starts_with(&format!("{section}.{key} is missing: ")), "{message}");
        }
    }
    assert_eq!(refused("peg_out_min = 20000", ""), "peg.peg_out_min is missing: a whole number");
    assert_eq!(refused("\npower = 1\n", "\n"), "validators[1].power is missing: a whole number");
}

#[test]
fn values_of_another_type_are_refused() {
    assert_eq!(refused("name = \"devnet\"", "name = 1"), "name is of type integer, which must be a string");
    assert_eq!(
        refused("final_depth = 3", "final_depth = \"3\""),
        "peg.final_depth is of type string, which must be a whole number"
    );
    assert_eq!(
        refused("final_depth = 3", "final_depth = 3.0"),
        "peg.final_depth is of type float, which must be a whole number"
    );
    assert_eq!(
        refused("power = 1", "power = true"),
        "validators[0].power is of type boolean, which must be a whole number"
    );
    assert_eq!(
        refused("earlier_times = []", "earlier_times = 1"),
        "bitcoin.earlier_times is of type integer, which must be a list"
    );
    assert_eq!(
        refused("earlier_times = []", "earlier_times = [1979-05-27]"),
        "bitcoin.earlier_times[0] is of type datetime, which must be a whole number"
    );
    assert_eq!(
        refused("members = [", "members = [[],"),
        "federation.members[0] is of type array, which must be a string"
    );
    let mut table: toml::Table = devnet::TOML.parse().unwrap();
    table.insert("peg".to_owned(), toml::Value::Integer(1));
    assert_eq!(message(&table.to_string()), "peg is of type integer, which must be a table");
    let mut table: toml::Table = devnet::TOML.parse().unwrap();
    table.insert("validators".to_owned(), toml::Value::Table(toml::Table::new()));
    assert_eq!(message(&table.to_string()), "validators is of type table, which must be a list of tables");
    table.insert("validators".to_owned(), toml::Value::Array(vec![toml::Value::Integer(1)]));
    assert_eq!(message(&table.to_string()), "validators[0] is of type integer, which must be a table");
}

#[test]
fn words_are_one_of_the_allowed() {
    assert_eq!(
        refused("identity = \"regtest\"", "identity = \"bitcoin\""),
        "identity is \"bitcoin\", which must be one of: regtest, signet"
    );
    assert_eq!(
        refused("network = \"regtest\"", "network = \"testnet\""),
        "bitcoin.network is \"testnet\", which must be one of: bitcoin, testnet4, signet, regtest"
    );
}

#[test]
fn hex_is_of_the_right_length_and_alphabet() {
    assert_eq!(refused("launch = \"1", "launch = \""), "launch has 63 characters, which must be 64 hex digits");
    assert_eq!(
        refused("launch = \"1", "launch = \"x"),
        "launch is no hex: it must be an even number of hex digits and nothing else"
    );
    // As many bytes as digits are needed, but not as many characters; and the reverse.
    assert_eq!(refused("launch = \"17", "launch = \"é"), "launch has 63 characters, which must be 64 hex digits");
    assert_eq!(
        refused("launch = \"1", "launch = \"é"),
        "launch is no hex: it must be an even number of hex digits and nothing else"
    );
    assert_eq!(
        refused("header = \"", "header = \"00"),
        "bitcoin.header has 162 characters, which must be 160 hex digits"
    );
    assert_eq!(refused("    \"03", "    \"3"), "federation.members[0] has 65 characters, which must be 66 hex digits");
}

#[test]
fn keys_are_points_of_the_curve() {
    let no_point = "0".repeat(64);
    let first_key = |table: &toml::Table| table["validators"][0]["key"].as_str().unwrap().to_owned();
    let table: toml::Table = devnet::TOML.parse().unwrap();
    assert_eq!(
        refused(&first_key(&table), &no_point),
        "validators[0].key is no public key: the bytes are no point of the curve secp256k1"
    );
    assert_eq!(
        refused("    \"03", "    \"04"),
        "federation.members[0] is no public key: the bytes are no point of the curve secp256k1"
    );
    let recovery = table["federation"]["recovery_keys"][1].as_str().unwrap();
    assert_eq!(
        refused(recovery, &no_point),
        "federation.recovery_keys[1] is no public key: the bytes are no point of the curve secp256k1"
    );
}

#[test]
fn numbers_are_within_their_bounds() {
    assert_eq!(
        refused("block_interval_ms = 1000", "block_interval_ms = 199"),
        "block_interval_ms is 199, which must be 200 to 600000 ms"
    );
    assert_eq!(
        refused("final_depth = 3", "final_depth = -1"),
        "peg.final_depth is -1, which must be 1 to 2016 Bitcoin blocks"
    );
    assert_eq!(
        refused("claim_window = 200", "claim_window = 65536"),
        "federation.claim_window is 65536, which must be 1 to 65535 Bitcoin blocks"
    );
    assert_eq!(refused("power = 1", "power = 0"), "validators[0].power is 0, which must be 1 to 1152921504606846976");
    assert_eq!(
        refused("peg_out_max = 10000000000", "peg_out_max = 2100000000000001"),
        "peg.peg_out_max is 2100000000000001, which must be 546 to 2100000000000000 sat"
    );
}

/// Every number of the file, one after the other, below and above its bounds.
#[test]
fn each_number_is_refused_just_outside_its_bounds() {
    let spec = ChainSpec::built_in("devnet").unwrap();
    for (key, value) in spec.params().peg_numbers() {
        let line = format!("\n{} = {value} ", key.path.name());
        for wrong in [i128::from(key.min) - 1, i128::from(key.max) + 1] {
            let message = refused(&line, &format!("\n{} = {wrong} ", key.path.name()));
            assert!(message.starts_with(&format!("{} is {wrong}, which must be {} to {}", key.path, key.min, key.max)));
        }
    }
}

fn refused_or_the_same_again(text: &str) {
    if let Ok(spec) = ChainSpec::from_toml(text) {
        assert_eq!(ChainSpec::from_toml(&spec.to_toml()), Ok(spec));
    }
}

#[test]
fn deep_nesting_is_refused() {
    for text in [
        format!("a = {}", "[".repeat(100_000)),
        format!("a = {}", "{ a = ".repeat(100_000)),
        format!("[{}a]", "a.".repeat(100_000)),
        format!("{}a = 1", "a.".repeat(100_000)),
    ] {
        assert!(ChainSpec::from_toml(&text).is_err());
    }
}

proptest! {
    #[test]
    fn no_text_panics(text in any::<String>()) {
        refused_or_the_same_again(&text);
    }

    #[test]
    fn no_text_of_toml_words_panics(words in prop::collection::vec(
        prop::sample::select(&[
            "[", "]", "[[", "]]", "{", "}", "=", "\"", ".", ",", "\n", "#", "-", "1", "1e9", "true", "name", "identity",
            "launch", "genesis_time", "validators", "key", "federation", "members", "peg", "bitcoin", "header",
        ][..]),
        0..40,
    )) {
        refused_or_the_same_again(&words.concat());
    }

    #[test]
    fn no_change_of_bytes_panics(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0..4), 1..4),
    ) {
        let mut bytes = devnet::TOML.as_bytes().to_vec();
        for (at, byte, kind) in changes {
            let at = at.index(bytes.len());
            match kind {
                0 => bytes[at] = byte,
                1 => bytes.insert(at, byte),
                2 => bytes.truncate(at.max(1)),
                _ => {
                    bytes.remove(at);
                }
            }
        }
        refused_or_the_same_again(&String::from_utf8_lossy(&bytes));
    }

    #[test]
    fn no_change_of_lines_panics(
        from in any::<prop::sample::Index>(),
        to in any::<prop::sample::Index>(),
        kind in 0..3,
    ) {
        let mut lines: Vec<_> = devnet::TOML.lines().collect();
        let (from, to) = (from.index(lines.len()), to.index(lines.len()));
        match kind {
            0 => lines.swap(from, to),
            1 => lines.insert(to, lines[from]),
            _ => {
                lines.remove(from);
            }
        }
        refused_or_the_same_again(&lines.join("\n"));
    }

    #[test]
    fn no_change_of_a_number_panics(
        at in any::<prop::sample::Index>(),
        number in prop_oneof![
            any::<i64>(),
            -10i64..100_000,
            prop::sample::select(&[i64::MIN, i64::MAX, 0, -1, 1 << 32, (1 << 32) - 1, 65_535, 65_536][..]),
        ],
    ) {
        let lines: Vec<_> = devnet::TOML.lines().collect();
        let is_number = |line: &str| line.split(" = ").nth(1).is_some_and(|value| value.starts_with(|c: char| c.is_ascii_digit()));
        let numbers: Vec<_> = (0..lines.len()).filter(|line| is_number(lines[*line])).collect();
        let at = numbers[at.index(numbers.len())];
        let mut lines: Vec<_> = lines.iter().map(ToString::to_string).collect();
        lines[at] = format!("{} = {number}", lines[at].split(" = ").next().unwrap());
        refused_or_the_same_again(&lines.join("\n"));
    }
}

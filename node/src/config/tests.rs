use super::*;
use crate::http::Limits;

fn read(text: &str) -> Result<Config, ConfigError> {
    Config::from_toml(text, Path::new("config.toml"))
}

fn error(text: &str) -> String {
    let error = read(text).unwrap_err().to_string();
    assert!(!error.contains('\n'), "{error}");
    assert!(error.starts_with("config.toml"), "{error}");
    error
}

#[test]
fn the_written_file_is_the_default_and_names_every_key() {
    let text = Config::default().to_toml();
    assert_eq!(read(&text).unwrap(), Config::default());
    assert_eq!(read("").unwrap(), Config::default());

    let mut written: Vec<_> = KEYS.iter().map(KeyDoc::path).collect();
    let full = Config { bitcoin: Some(BitcoinConfig::default()), ..Config::default() };
    let mut fields: Vec<_> = full
        .to_table()
        .iter()
        .flat_map(|(section, keys)| {
            keys.as_table().unwrap().keys().map(move |key| format!("{section}.{key}")).collect::<Vec<_>>()
        })
        .collect();
    written.sort();
    fields.sort();
    assert_eq!(written, fields);
    for doc in KEYS {
        let mark = if doc.section == "bitcoin" { "#" } else { "" };
        // Sections may have keys of the same name.
        let count = KEYS.iter().filter(|other| other.name == doc.name).count();
        assert_eq!(text.matches(&format!("\n{mark}{} = ", doc.name)).count(), count, "{}", doc.name);
        assert_eq!(full.to_toml().matches(&format!("\n{} = ", doc.name)).count(), count, "{}", doc.name);
        assert!(doc.meaning.iter().all(|line| line.len() <= 118), "{}", doc.name);
    }
    let sections: Vec<_> = SECTIONS.iter().map(|(section, _)| *section).collect();
    assert!(KEYS.iter().all(|doc| sections.contains(&doc.section)));
}

#[test]
fn a_bitcoind_is_a_section_that_can_be_uncommented() {
    let full = Config { bitcoin: Some(BitcoinConfig::default()), ..Config::default() };
    assert_eq!(read(&full.to_toml()).unwrap(), full);
    let uncommented: String = Config::default()
        .to_toml()
        .lines()
        .map(|line| line.strip_prefix('#').filter(|rest| !rest.starts_with(' ')).unwrap_or(line).to_owned() + "\n")
        .collect();
    assert_eq!(read(&uncommented).unwrap(), full);
    // Written on its own, the section has defaults.
    let other = "[bitcoin]\nendpoints = [\"[::1]:1\", \"btc.example:18443\"]\ncookie = \"/c\"\nheader_delay_s = 0\n";
    let bitcoin = read(other).unwrap().bitcoin.unwrap();
    assert_eq!((bitcoin.header_delay(), bitcoin.poll()), (Duration::ZERO, Duration::from_secs(1)));
    let client = bitcoin.client(Network::Regtest);
    assert_eq!(client.network, Network::Regtest);
    let shown: Vec<_> =
        client.endpoints.iter().map(|it| (it.endpoint.to_string(), it.credentials_file.clone())).collect();
    assert_eq!(shown, [("[::1]:1".to_owned(), "/c".into()), ("btc.example:18443".to_owned(), "/c".into())]);
}

#[test]
fn other_settings_survive_the_file_too() {
    let peer = "/dns4/seed.example/tcp/29333/p2p/12D3KooWD1bhDP87Z8uQWwkEXjGjqsytRV5iMJq5qfjy3av3DDfB";
    let mut config = Config::default();
    config.p2p.listen = Vec::new();
    config.p2p.persistent_peers = vec![peer.parse().unwrap(); 2];
    config.rest.bind = "[::1]:1".parse().unwrap();
    config.rest.enabled = false;
    config.metrics.bind = "0.0.0.0:2".parse().unwrap();
    config.metrics.enabled = false;
    config.store.index = IndexConfig::None;
    config.consensus.fee_address = "bcrt1 \"quoted\\".to_owned();
    config.log.level = "warn,causeway_node=debug".to_owned();
    assert_eq!(read(&config.to_toml()).unwrap(), config);
}

#[test]
fn every_number_has_bounds_that_hold() {
    for doc in KEYS {
        let Allowed::Number { min, max, .. } = doc.allowed else { continue };
        let with = |value: i64| format!("[{}]\n{} = {value}\n", doc.section, doc.name);
        for value in [min, max] {
            assert!(read(&with(value)).is_ok(), "{} {value}", doc.name);
        }
        for value in [min - 1, max + 1] {
            let error = error(&with(value));
            assert!(error.contains(&doc.path()), "{error}");
            assert!(error.contains(&doc.allows()), "{error}");
        }
    }
}

#[test]
fn what_is_wrong_is_named_in_one_line() {
    let cases = [
        ("\n[p2p]\nlisten = []\noutbounds = 3\n", "line 4, key p2p.outbounds: unknown field", "`outbound`"),
        ("[rest]\nenabled = 1\n", "line 2, key rest.enabled: invalid type", "allowed: true or false"),
        ("[store]\nindex = \"some\"\n", "key store.index: unknown variant `some`", "\"all\" or \"none\""),
        ("[rest]\nbind = \"here\"\n", "line 2, key rest.bind", "127.0.0.1:29380"),
        ("[metrics]\nport = 1\n", "line 2, key metrics.port: unknown field", "`bind`"),
        ("[peers]\n", "unknown field `peers`", "`p2p`"),
        ("speed = 1\n", "line 1, key speed: unknown field", "`mempool`"),
        ("[p2p]\noutbound\n", "line 2", ""),
        ("[p2p]\noutbound = \"many\"\n", "key p2p.outbound: invalid type", "0 to 1000 connections"),
        ("[p2p]\noutbound = 1\noutbound = 2\n", "line 3, key p2p.outbound", "duplicate key"),
        ("[p2p]\nlisten = [\"/ip4/1.2.3.4/udp/1\"]\n", "key p2p.listen: \"/ip4/1.2.3.4/udp/1\"", "over TCP"),
        ("[p2p]\nseeds = [\"/ip4/1.2.3.4/tcp/1\"]\n", "key p2p.seeds: \"/ip4/1.2.3.4/tcp/1\"", "with a peer id"),
        ("[p2p]\nlisten = [\"/dns4/a.example/tcp/1\"]\n", "key p2p.listen: \"/dns4/a.example/tcp/1\"", "over TCP"),
        ("[p2p]\nexternal = [\"/dnsaddr/a.example\"]\n", "key p2p.external: \"/dnsaddr/a.example\"", "/dns4/a.example"),
        (
            "[p2p]\npersistent_peers = [\"/dns4/a/tcp/1\"]\n",
            "key p2p.persistent_peers: \"/dns4/a/tcp/1\"",
            "with a peer id",
        ),
        ("[p2p]\nonly = [\"/ip4/1.2.3.4/tcp/1\"]\n", "key p2p.only: \"/ip4/1.2.3.4/tcp/1\"", "with a peer id"),
        ("[p2p]\nonly = [\"/p2p-circuit/tcp/1\"]\n", "key p2p.only: \"/p2p-circuit/tcp/1\"", "with a peer id"),
        ("[log]\nlevel = \"verbose\"\n", "key log.level", "error, warn, info"),
        ("[log]\nlevel = \"info,x=verbose\"\n", "key log.level", "error, warn, info"),
        ("[bitcoin]\nendpoints = []\n", "key bitcoin.endpoints: [] is not allowed", "1 to 8 of IP:port"),
        ("[bitcoin]\nendpoints = [\"http://h:1\"]\n", "key bitcoin.endpoints: \"http://h:1\"", "without http://"),
        ("[bitcoin]\ncookie = \".cookie\"\n", "key bitcoin.cookie: \".cookie\"", "absolute path"),
        ("[bitcoin]\npassword = \"x\"\n", "key bitcoin.password: unknown field", "`cookie`"),
    ];
    for (text, problem, help) in cases {
        let error = error(text);
        assert!(error.contains(problem) && error.contains(help), "{text:?}: {error}");
    }
}

#[test]
fn names_stand_where_others_are() {
    let peer = "12D3KooWD1bhDP87Z8uQWwkEXjGjqsytRV5iMJq5qfjy3av3DDfB";
    let text = format!(
        "[p2p]\nexternal = [\"/dns6/a.example/tcp/1\"]\nseeds = [\"/dns4/seed.example/tcp/2\", \"/dns/b/tcp/2/p2p/{peer}\"]\n\
         persistent_peers = [\"/dns4/c.example/tcp/3/p2p/{peer}\"]\n"
    );
    let p2p = read(&text).unwrap().p2p;
    assert_eq!((p2p.external.len(), p2p.seeds.len(), p2p.persistent_peers.len()), (1, 2, 1));
}

#[test]
fn who_has_only_some_peers_has_no_others() {
    let peer = "/dns4/sentry.example/tcp/29333/p2p/12D3KooWD1bhDP87Z8uQWwkEXjGjqsytRV5iMJq5qfjy3av3DDfB";
    let mut config = Config::default();
    config.p2p.only = vec![peer.parse().unwrap()];
    assert_eq!(read(&config.to_toml()).unwrap(), config);
    for name in ["external", "seeds", "persistent_peers"] {
        let error = error(&format!("[p2p]\nonly = [{peer:?}]\n{name} = [{peer:?}]\n"));
        assert!(error.contains(&format!("key p2p.{name}: ")) && error.contains("p2p.only"), "{error}");
        assert!(read(&format!("[p2p]\nonly = []\n{name} = [{peer:?}]\n")).is_ok());
    }
}

#[test]
fn fees_go_to_an_address_of_the_chain() {
    let path = Path::new("config.toml");
    let with = |address: &str| Config {
        consensus: ConsensusConfig { fee_address: address.to_owned(), ..ConsensusConfig::default() },
        ..Config::default()
    };
    let regtest = "bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080";
    assert_eq!(with("").fee_script(Network::Regtest, path).unwrap(), None);
    assert!(with(regtest).fee_script(Network::Regtest, path).unwrap().is_some());
    let request = causeway_chainspec::to_causeway_address(
        &regtest.parse::<Address<NetworkUnchecked>>().unwrap().assume_checked(),
        Network::Regtest,
    );
    for (address, identity) in [
        (regtest, Network::Signet),
        ("bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4", Network::Regtest),
        ("nonsense", Network::Regtest),
        (request.unwrap().to_string().as_str(), Network::Regtest),
    ] {
        let error = with(address).fee_script(identity, path).unwrap_err().to_string();
        assert!(error.contains("consensus.fee_address"), "{error}");
    }
}

#[test]
fn defaults_are_those_of_the_parts() {
    let config = Config::default();
    assert_eq!(config.mempool_policy(), Policy::default());
    let default = StoreOptions { build_index_later: true, ..StoreOptions::default() };
    assert_eq!(config.store_options(), default);
    let rest = config.rest_config();
    let limits = Limits::of_connections(rest.max_connections, rest.max_connections_per_address);
    assert_eq!(limits, Limits::default());
    let none: Config = read("[store]\nindex = \"none\"\n").unwrap();
    assert_eq!(none.store_options(), StoreOptions { index: Index::None, ..default });
    assert_eq!(config.timeouts(), LinearTimeouts::default());
}

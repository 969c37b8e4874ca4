use bitcoin::secp256k1::{SECP256K1, SecretKey};

use super::*;
use crate::approve::tests::{federation, member_secrets, secret};
use crate::musig::IdentityKey;
use crate::transport::transport_key;

fn identity(index: usize) -> IdentityKey {
    IdentityKey::from_bytes(&secret("identity", index)).unwrap()
}

fn template() -> Template {
    let peer = |(index, key): (usize, &SecretKey)| PeerConfig {
        member: key.public_key(SECP256K1),
        identity: identity(index).public_key(),
        address: PeerAddress {
            peer: transport_key(&identity(index)).public().to_peer_id(),
            address: format!("/ip4/127.0.0.1/tcp/{}", 7_400 + index).parse().unwrap(),
        },
    };
    Template {
        passphrase_file: Some("passphrase".into()),
        node: "http://127.0.0.1:3000".to_owned(),
        bitcoin: vec!["127.0.0.1:18443".to_owned()],
        credentials_file: "/bitcoin/.cookie".into(),
        listen: "/ip4/127.0.0.1/tcp/7400".parse().unwrap(),
        timing: Timing::default(),
        peers: member_secrets(3).iter().enumerate().skip(1).map(peer).collect(),
    }
}

fn parse(text: &str) -> Result<Config, ConfigError> {
    Config::parse(Path::new("/home/federation.toml"), text)
}

#[test]
fn what_is_written_is_read() {
    let template = template();
    let config = parse(&template.to_toml()).unwrap();
    assert_eq!(config.peers, template.peers);
    assert_eq!(config.passphrase_file, Some("/home/passphrase".into()));
    assert_eq!(config.bitcoin[0].credentials_file, Path::new("/bitcoin/.cookie"));
    assert_eq!((config.timing, config.listen), (Timing::default(), template.listen));
    // Only what is needed is needed.
    let least = "[node]\nurl=\"http://127.0.0.1:1\"\n[bitcoin]\nendpoints=[\"127.0.0.1:1\"]\ncredentials_file=\"c\"\n\
        [transport]\nlisten=\"/ip4/0.0.0.0/tcp/1\"\n";
    assert_eq!(parse(least).unwrap().timing, Timing::default());
}

#[test]
fn what_is_wrong_is_named_in_one_line() {
    let good = template().to_toml();
    let cases = [
        ("[node]", "[knot]", "knot"),
        ("listen =", "listn =", "listn"),
        ("http://127.0.0.1:3000", "https://127.0.0.1:3000", "node.url"),
        ("http://127.0.0.1:3000", "http://127.0.0.1:3000/v1", "node.url"),
        ("[\"127.0.0.1:18443\"]", "[]", "bitcoin.endpoints"),
        ("[\"127.0.0.1:18443\"]", "[\"http://127.0.0.1\"]", "bitcoin.endpoints"),
        ("listen = \"/ip4/127.0.0.1/tcp/7400\"", "listen = \"/ip4/127.0.0.1/udp/7400\"", "transport.listen"),
        ("key_path_ms = 10000", "key_path_ms = 0", "session.key_path_ms"),
        ("level = \"info\"", "level = \"=;=\"", "log.level"),
        ("member = \"0", "member = \"1", "peers.member"),
        ("/p2p/", "/p3p/", "peers.address"),
        ("= [", "= [[", "line"),
    ];
    for (from, to, named) in cases {
        let text = good.replace(from, to);
        assert_ne!(text, good, "{from}");
        let error = parse(&text).unwrap_err().to_string();
        assert!(error.contains(named) && error.contains("federation.toml") && !error.contains('\n'), "{error}");
    }
    assert!(matches!(Config::load(Path::new("/nowhere/federation.toml")), Err(ConfigError::Read { .. })));
}

#[test]
fn peers_are_the_other_members() {
    let federation = federation(3, 2);
    let epoch = federation.epochs[0].epoch();
    let config = parse(&template().to_toml()).unwrap();
    let (own, own_identity) = (epoch.members()[0], identity(0).public_key());
    let path = Path::new("federation.toml");
    let (peers, identities) = config.members(path, epoch, own, own_identity).unwrap();
    assert_eq!(peers.len(), 2);
    assert_eq!(identities, (0..3).map(|index| identity(index).public_key()).collect::<Vec<_>>());
    let refused = |change: &dyn Fn(&mut Config), problem: &str| {
        let mut config = config.clone();
        change(&mut config);
        let error = config.members(path, epoch, own, own_identity).unwrap_err().to_string();
        assert!(error.contains(problem), "{error}");
    };
    refused(&|config| drop(config.peers.pop()), "is missing");
    refused(&|config| config.peers[0].member = own, "this member itself");
    refused(&|config| config.peers[0].identity = config.peers[1].identity, "shares a key");
    refused(&|config| config.peers[0].identity = own_identity, "shares a key");
    refused(&|config| config.peers[1] = config.peers[0].clone(), "shares a key");
    let stranger = SecretKey::from_slice(&[5; 32]).unwrap().public_key(SECP256K1);
    refused(&|config| config.peers[0].member = stranger, "is no member");
}

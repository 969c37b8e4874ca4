use super::*;

fn at(address: &str) -> Multiaddr {
    address.parse().unwrap()
}

fn reach(own: &[&str], named: &[&str]) -> Reach {
    let (own, named): (Vec<_>, Vec<_>) = (own.iter().map(|a| at(a)).collect(), named.iter().map(|a| at(a)).collect());
    Reach::new(own.iter(), named.iter())
}

#[test]
fn how_far_addresses_reach() {
    let scopes = [
        (Some(Scope::Loopback), &["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"][..]),
        (
            Some(Scope::Private),
            &["10.0.0.1", "172.16.0.1", "192.168.0.1", "169.254.0.1", "100.64.0.1", "fd00::1", "fe80::1"],
        ),
        (Some(Scope::Public), &["8.8.8.8", "100.128.0.1", "172.32.0.1", "2600::1"]),
        (None, &["0.0.0.0", "::", "224.0.0.1", "255.255.255.255", "240.0.0.1", "192.0.2.1", "ff02::1", "2001:db8::1"]),
    ];
    for (expected, ips) in scopes {
        for ip in ips {
            assert_eq!(scope(ip.parse().unwrap()), expected, "{ip}");
        }
    }
}

#[test]
fn a_public_node_does_not_dial_into_its_own_network() {
    let public = reach(&["/ip4/0.0.0.0/tcp/1"], &["/ip4/10.0.0.7/tcp/5"]);
    assert!(public.allows(&at("/ip4/8.8.8.8/tcp/1")));
    assert!(public.allows(&at("/ip6/2600::1/tcp/1")));
    for refused in ["/ip4/10.0.0.7/tcp/22", "/ip4/127.0.0.1/tcp/1", "/ip6/::ffff:127.0.0.1/tcp/1", "/ip4/8.8.8.8/tcp/0"]
    {
        assert!(!public.allows(&at(refused)), "{refused}");
    }
    // What the operator named is dialled.
    assert!(public.allows(&at("/ip4/10.0.0.7/tcp/5")));
    let private = reach(&["/ip4/10.0.0.1/tcp/1"], &[]);
    assert!(private.allows(&at("/ip4/10.0.0.2/tcp/1")) && !private.allows(&at("/ip4/127.0.0.1/tcp/1")));
    let local = reach(&["/ip4/127.0.0.1/tcp/1"], &[]);
    assert!(local.allows(&at("/ip4/127.0.0.1/tcp/9")) && local.allows(&at("/ip4/8.8.8.8/tcp/9")));
}

#[test]
fn only_plain_tcp_is_supported() {
    let peer = PeerId::random();
    assert_eq!(socket(&at("/ip4/1.2.3.4/tcp/5")), Some(("1.2.3.4".parse().unwrap(), 5)));
    assert_eq!(socket(&at(&format!("/ip6/2600::1/tcp/5/p2p/{peer}"))), Some(("2600::1".parse().unwrap(), 5)));
    let relayed = format!("/ip4/1.2.3.4/tcp/5/p2p/{peer}/p2p-circuit");
    for other in ["/ip4/1.2.3.4/udp/5", "/ip4/1.2.3.4", "/ip4/1.2.3.4/tcp/5/ws", "/dns/example.org/tcp/5", &relayed] {
        assert_eq!(socket(&at(other)), None, "{other}");
    }
    assert_eq!(split(&at(&format!("/ip4/1.2.3.4/tcp/5/p2p/{peer}"))), (at("/ip4/1.2.3.4/tcp/5"), Some(peer)));
}

#[test]
fn hosts_and_groups() {
    assert_eq!(host("2600:1:2:3:4::5".parse().unwrap()), "2600:1:2:3::".parse::<IpAddr>().unwrap());
    assert_eq!(host("::ffff:1.2.3.4".parse().unwrap()), "1.2.3.4".parse::<IpAddr>().unwrap());
    assert_eq!(group("8.8.8.8".parse().unwrap()), Some("8.8.0.0".parse().unwrap()));
    assert_eq!(group("2600:1:2::1".parse().unwrap()), Some("2600:1::".parse().unwrap()));
    assert_eq!(group("127.0.0.1".parse().unwrap()), None);
}

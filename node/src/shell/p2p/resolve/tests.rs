use libp2p::PeerId;

use super::*;

fn at(address: &str) -> Multiaddr {
    address.parse().unwrap()
}

#[test]
fn which_addresses_have_names() {
    let peer = PeerId::random();
    let expected = |family| Name { host: "node.example".to_owned(), port: 5, family };
    assert_eq!(name(&at("/dns/node.example/tcp/5")), Some(expected(Family::Any)));
    assert_eq!(name(&at("/dns4/node.example/tcp/5")), Some(expected(Family::V4)));
    assert_eq!(name(&at(&format!("/dns6/node.example/tcp/5/p2p/{peer}"))), Some(expected(Family::V6)));
    let others =
        ["/dnsaddr/node.example/tcp/5", "/dns4/node.example/udp/5", "/dns4/node.example", "/ip4/1.2.3.4/tcp/5"];
    for other in others.into_iter().chain(["/dns4/node.example/tcp/5/ws"]) {
        assert_eq!(name(&at(other)), None, "{other}");
    }
}

#[tokio::test]
async fn a_name_stands_for_addresses_of_its_family() {
    let v4 = (IpAddr::from([127, 0, 0, 1]), 5);
    assert_eq!(look_up(&name(&at("/dns4/localhost/tcp/5")).unwrap()).await, [v4]);
    assert!(look_up(&name(&at("/dns/localhost/tcp/5")).unwrap()).await.contains(&v4));
    let v6 = look_up(&name(&at("/dns6/localhost/tcp/5")).unwrap()).await;
    assert!(v6.iter().all(|(ip, port)| ip.is_ipv6() && *port == 5));
    // No host has it, wherever it is asked.
    assert_eq!(look_up(&name(&at("/dns4/0.0.0.0/tcp/5")).unwrap()).await, []);
}

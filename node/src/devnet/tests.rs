use super::*;

#[test]
fn the_file_lists_everything_that_a_client_needs() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("devnet");
    let spec = ChainSpec::built_in("devnet").unwrap();
    let config = Config::default();
    let shape = Shape { spec: spec.clone(), validators: vec![0, 1, 2, 3], full_nodes: 1, config };
    let devnet = Devnet::create_with_peg(&path, &shape, None).unwrap();

    let text = fs::read_to_string(path.join(FILE)).unwrap();
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(json["chain"], "devnet");
    assert_eq!(json["chain_id"], spec.chain_id().to_string());
    assert_eq!(json["nodes"].as_array().unwrap().len(), 5);
    for node in json["nodes"].as_array().unwrap() {
        assert!(node["rest"].as_str().unwrap().starts_with("http://127.0.0.1:"), "{node}");
        assert!(node["metrics"].as_str().unwrap().starts_with("http://127.0.0.1:"), "{node}");
    }
    let members = json["members"].as_array().unwrap();
    let mut keys: Vec<_> = members.iter().map(|member| member["key"].as_str().unwrap().to_owned()).collect();
    keys.sort();
    assert_eq!(keys, spec.federation().members().iter().map(ToString::to_string).collect::<Vec<_>>());
    for (member, node) in members.iter().zip(json["nodes"].as_array().unwrap()) {
        assert_eq!(member["node"], node["name"]);
    }
    let bitcoin = &json["bitcoin"];
    assert_eq!(bitcoin["network"], "regtest");
    assert!(bitcoin["rpc"].as_str().unwrap().starts_with("http://127.0.0.1:"), "{bitcoin}");
    for key in ["directory", "rpc_user", "rpc_password", "cookie", "log"] {
        assert!(!bitcoin[key].as_str().unwrap().is_empty(), "{key}");
    }
    for funds in [&json["funds"], &bitcoin["miner"]] {
        assert!(funds["address"].as_str().unwrap().starts_with("bcrt1q"), "{funds}");
    }
    // It holds a password.
    let mode = std::os::unix::fs::PermissionsExt::mode(&fs::metadata(path.join(FILE)).unwrap().permissions());
    assert_eq!(mode & 0o077, 0);

    // It reads back, and every node finds bitcoind.
    let again = Devnet::load(&path).unwrap().unwrap();
    assert_eq!(serde_json::to_value(&again).unwrap(), json);
    for node in &devnet.nodes {
        let config = Config::load(&Home::at(&node.home).config()).unwrap();
        assert_eq!(config.bitcoin, Some(devnet.bitcoin().unwrap().node_config()));
        assert_eq!(node.metrics, format!("http://{}", config.metrics.bind));
    }
}

#[test]
fn ports_in_a_row_are_free_and_held() {
    let mut ports = FreePorts::default();
    let first = ports.take_row(5).unwrap();
    for port in first..first + 5 {
        assert!(TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_err(), "{port}");
    }
}

#[test]
fn a_directory_without_a_devnet_says_so() {
    let directory = tempfile::tempdir().unwrap();
    assert!(Devnet::load(directory.path()).unwrap().is_none());
    fs::write(directory.path().join(FILE), "{}").unwrap();
    let error = Devnet::load(directory.path()).unwrap_err().to_string();
    assert!(error.contains("choose another directory"), "{error}");
}

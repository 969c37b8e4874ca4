use crate::{ChainSpec, devnet, key};

#[test]
fn a_written_file_reads_back_the_same() {
    let spec = ChainSpec::built_in("devnet").unwrap();
    assert_eq!(ChainSpec::from_toml(&spec.to_toml()), Ok(spec));
}

#[test]
fn the_example_file_explains_every_key() {
    for section in
        [key::names::TOP, key::names::VALIDATOR, key::names::FEDERATION, key::names::PEG, key::names::BITCOIN]
    {
        for name in section {
            let at = devnet::TOML
                .lines()
                .position(|line| {
                    line.starts_with(&format!("{name} = "))
                        || line == format!("[{name}]")
                        || line == format!("[[{name}]]")
                })
                .unwrap_or_else(|| panic!("{name} is not in the file"));
            let above = devnet::TOML.lines().nth(at.checked_sub(1).unwrap()).unwrap();
            assert!(above.starts_with('#') || *name == "validators", "{name} has no comment");
        }
    }
    assert!(devnet::TOML.lines().all(|line| line.len() <= 120 || line.starts_with("header = ")));
}

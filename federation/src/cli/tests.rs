use std::path::Path;

use causeway_chainspec::ChainSpec;
use clap::CommandFactory as _;

use super::*;
use crate::config::Config;
use crate::daemon::AlarmRecord;
use crate::home::Home;
use crate::keystore::read_public_keys;

/// Runs a command as the process would, and returns what it prints.
fn command(args: &[&str]) -> Result<String, CliError> {
    let cli = Cli::try_parse_from(std::iter::once(&"causeway-federation").chain(args)).unwrap();
    let mut out = Vec::new();
    execute(cli.command, &mut out)?;
    Ok(String::from_utf8(out).unwrap())
}

fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn the_commands_fit_together() {
    Cli::command().debug_assert();
}

#[test]
fn members_of_a_devnet_know_each_other() {
    let directory = tempfile::tempdir().unwrap();
    let spec = ChainSpec::built_in("devnet").unwrap();
    for index in 0..5 {
        let home = Home::at(directory.path().join(format!("m{index}")));
        let said = command(&["keygen", "--devnet-index", &index.to_string(), "--home", path(home.path())]).unwrap();
        let public = read_public_keys(&home.key()).unwrap();
        assert!(said.contains(&public.member.to_string()) && said.contains(&public.identity.to_string()));
        home.check_complete().unwrap();
        let config = Config::load(&home.config()).unwrap();
        let members = config.members(&home.config(), spec.federation(), public.member, public.identity);
        assert_eq!(members.unwrap().0.len(), 4);
    }
    let there = directory.path().join("m0");
    let error = command(&["keygen", "--devnet-index", "0", "--home", path(&there)]).unwrap_err();
    assert!(matches!(error, CliError::KeysExist { .. }));
    let error = command(&["keygen", "--devnet-index", "5", "--home", path(&directory.path().join("m5"))]).unwrap_err();
    assert!(matches!(error, CliError::DevnetIndex { got: 5, members: 5 }));
    assert!(!directory.path().join("m5").exists());
}

#[test]
fn public_keys_are_for_the_devnet_alone() {
    let directory = tempfile::tempdir().unwrap();
    let mut parts = ChainSpec::built_in("devnet").unwrap().to_parts();
    let mut epoch = parts.federation.to_parts();
    epoch.members.pop();
    parts.federation = causeway_chainspec::Epoch::new(epoch).unwrap();
    let file = directory.path().join("other.toml");
    std::fs::write(&file, ChainSpec::new(parts).unwrap().to_toml()).unwrap();
    let home = directory.path().join("home");
    let args = ["keygen", "--devnet-index", "0", "--chain", path(&file), "--home", path(&home)];
    assert!(matches!(command(&args), Err(CliError::NotDevnet)));
    assert!(!home.exists());
    let args = ["keygen", "--chain", "nowhere.toml", "--home", path(&home)];
    assert!(matches!(command(&args), Err(CliError::NoSuchChain { .. })));
}

#[test]
fn keys_come_before_their_network() {
    use std::os::unix::fs::PermissionsExt as _;
    let directory = tempfile::tempdir().unwrap();
    let passphrase = directory.path().join("passphrase");
    std::fs::write(&passphrase, "a passphrase of some length\nignored").unwrap();
    std::fs::set_permissions(&passphrase, std::fs::Permissions::from_mode(0o600)).unwrap();
    let home = Home::at(directory.path().join("home"));
    let keygen = ["keygen", "--home", path(home.path()), "--passphrase-file", path(&passphrase)];
    let said = command(&keygen).unwrap();
    let public = read_public_keys(&home.key()).unwrap();
    assert!(said.contains(&public.member.to_string()));
    assert!(home.check_complete().unwrap_err().to_string().contains("--chain"));
    // Not a member yet.
    let join = ["keygen", "--home", path(home.path()), "--chain"];
    let error = command(&[&join[..], &["devnet"]].concat()).unwrap_err();
    assert!(matches!(error, CliError::NotAMember { .. }));
    let mut parts = ChainSpec::built_in("devnet").unwrap().to_parts();
    let mut epoch = parts.federation.to_parts();
    epoch.members[0] = public.member;
    parts.federation = causeway_chainspec::Epoch::new(epoch).unwrap();
    let file = directory.path().join("network.toml");
    std::fs::write(&file, ChainSpec::new(parts).unwrap().to_toml()).unwrap();
    command(&[&join[..], &[path(&file)]].concat()).unwrap();
    home.check_complete().unwrap();
    // A log is never made anew.
    let error = command(&[&join[..], &[path(&file)]].concat()).unwrap_err();
    assert!(error.to_string().contains("signing.log"), "{error}");

    let key = home.key();
    let verify = ["verify-backup", path(&key), "--passphrase-file"];
    let said = command(&[&verify[..], &[path(&passphrase)]].concat()).unwrap();
    assert!(said.contains(&public.identity.to_string()));
    std::fs::write(&passphrase, "another passphrase").unwrap();
    let error = command(&[&verify[..], &[path(&passphrase)]].concat()).unwrap_err();
    assert!(error.to_string().contains("does not open"), "{error}");
    let error = command(&["run", "--home", path(home.path()), "--passphrase-file", path(&passphrase)]).unwrap_err();
    assert!(error.to_string().contains("does not open"), "{error}");

    // Pause, alarm, resume.
    command(&["pause", "--home", path(home.path())]).unwrap();
    assert!(home.is_paused());
    let alarm = AlarmRecord { time: 1, reason: "two certificates".to_owned(), proof: Vec::new() };
    std::fs::write(home.alarm(), serde_json::to_vec(&alarm).unwrap()).unwrap();
    let error = command(&["resume", "--home", path(home.path())]).unwrap_err();
    assert!(error.to_string().contains("two certificates"), "{error}");
    assert!(home.is_paused());
    command(&["resume", "--home", path(home.path()), "--clear-alarm"]).unwrap();
    assert!(!home.is_paused() && !home.alarm().exists());
    assert!(command(&["status", "--home", path(home.path())]).unwrap_err().to_string().contains("left no status"));
}

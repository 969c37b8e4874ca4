//! `causeway-federation keygen`: keys, settings, and what belongs to a network.

use std::io::Write;
use std::path::{Path, PathBuf};

use bitcoin::secp256k1::{PublicKey, SECP256K1};
use causeway_chainspec::{ChainSpec, devnet};
use clap::Args;
use libp2p::Multiaddr;

use super::{CliError, PassphraseArgs};
use crate::config::{PeerConfig, Template, peer_toml};
use crate::files;
use crate::home::{Home, HomeError, find_chainspec};
use crate::keystore::{MemberKeys, Passphrase, PassphraseSource, SigningLog, read_public_keys, verify_backup};
use crate::musig::{IdentityKey, MemberKey};
use crate::session::Timing;
use crate::transport::{PeerAddress, transport_key};

/// Role of the members' identity keys on a devnet, beside [`devnet::MEMBER`].
const DEVNET_IDENTITY: &str = "member identity";

/// The passphrase of a devnet's keys, which everyone knows.
const DEVNET_PASSPHRASE: &str = "everyone knows this devnet passphrase";

/// Name of the passphrase file in the home of a devnet's member.
const PASSPHRASE_FILE: &str = "passphrase";

/// What `causeway-federation keygen` is told.
#[derive(Debug, Args)]
pub(crate) struct KeygenArgs {
    /// The member's directory.
    #[arg(long, value_name = "DIR")]
    home: PathBuf,
    /// The network: a chainspec file, or the name of a built-in network. It can be given later, once the members' keys
    /// are in the chainspec: run this again with it.
    #[arg(long, value_name = "FILE")]
    chain: Option<String>,
    /// Takes the public keys of this member of the devnet instead of new ones. For networks without value alone.
    #[arg(long, value_name = "N")]
    devnet_index: Option<u32>,
    /// With --devnet-index: member N listens on 127.0.0.1 at this port + N.
    #[arg(long, value_name = "PORT", default_value_t = 7400, requires = "devnet_index")]
    devnet_port: u16,
    /// Written into the settings: REST of this member's own node.
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:29380")]
    node: String,
    /// Written into the settings: this member's own bitcoind. May be given several times.
    #[arg(long, value_name = "IP:PORT", default_value = "127.0.0.1:8332")]
    bitcoind: Vec<String>,
    /// Written into the settings: bitcoind's .cookie, or a file with user:password.
    #[arg(long, value_name = "FILE", default_value = "bitcoind-credentials")]
    credentials_file: PathBuf,
    /// Written into the settings: where the other members reach this one.
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<Multiaddr>,
    #[command(flatten)]
    passphrase: PassphraseArgs,
}

pub(crate) fn keygen(args: &KeygenArgs, out: &mut impl Write) -> Result<(), CliError> {
    let home = Home::at(&args.home);
    let spec = args.chain.as_deref().map(load_chain).transpose()?;
    if home.key().exists() {
        let spec = spec.ok_or_else(|| CliError::KeysExist { path: args.home.clone() })?;
        return join(args, &home, &spec, out);
    }
    let spec = match (spec, args.devnet_index) {
        (None, Some(_)) => Some(load_chain("devnet")?),
        (spec, _) => spec,
    };
    let keys = match args.devnet_index {
        Some(index) => devnet_keys(index, spec.as_ref())?,
        None => MemberKeys::generate()?,
    };
    if let Some(spec) = &spec {
        check_member(spec, keys.member.public_key())?;
    }
    home.create()?;
    let source = args.passphrase.source(None);
    let file = match (args.devnet_index, &source) {
        // Nobody has to type what everybody knows.
        (Some(_), PassphraseSource::Prompt) => {
            let file = home.path().join(PASSPHRASE_FILE);
            let text = format!("{DEVNET_PASSPHRASE}\n");
            files::replace(&file, files::SECRET_MODE, text.as_bytes())
                .map_err(|source| home.io(&file, "written", source))?;
            Some(file)
        }
        _ => None,
    };
    let passphrase = Passphrase::get_new(&file.clone().map_or(source, PassphraseSource::File))?;
    keys.store_new(&home.key(), &passphrase)?;
    // What cannot be opened again is found out now.
    let public = verify_backup(&home.key(), &passphrase)?;
    let peer = transport_key(&keys.identity).public().to_peer_id();
    let listen = match (&args.listen, args.devnet_index) {
        (Some(listen), _) => listen.clone(),
        (None, Some(index)) => devnet_address(args.devnet_port, index)?,
        (None, None) => any_address(7400),
    };
    let template = Template {
        passphrase_file: file.map(|_| PathBuf::from(PASSPHRASE_FILE)),
        node: args.node.clone(),
        bitcoin: args.bitcoind.clone(),
        credentials_file: absolute(&args.credentials_file),
        listen: listen.clone(),
        timing: if args.devnet_index.is_some() { devnet_timing() } else { Timing::default() },
        peers: match args.devnet_index {
            Some(index) => devnet_peers(index, args.devnet_port)?,
            None => Vec::new(),
        },
    };
    let config = home.config();
    files::create_new(&config, files::SECRET_MODE, template.to_toml().as_bytes())
        .map_err(|source| home.io(&config, "written", source))?;
    if let Some(spec) = &spec {
        add_chain(&home, spec, public.member)?;
    }
    writeln!(out, "member   {}", public.member)?;
    writeln!(out, "identity {}", public.identity)?;
    writeln!(out, "peer     {peer}")?;
    writeln!(out, "\nFor the settings of the other members, with an address that they reach:")?;
    write!(out, "{}", peer_toml(&public.member, &public.identity, &listen, &peer))?;
    let next = match (&spec, args.devnet_index) {
        (None, _) => "once the chainspec has the members' keys, run keygen again with --chain",
        (Some(_), None) => "write [[peers]] into federation.toml",
        (Some(_), Some(_)) => "start it with \"causeway-federation run\"",
    };
    writeln!(out, "\nBack up {} and its passphrase, apart. Next: {next}.", home.key().display())?;
    Ok(())
}

/// Gives keys that are there their network.
fn join(args: &KeygenArgs, home: &Home, spec: &ChainSpec, out: &mut impl Write) -> Result<(), CliError> {
    let public = read_public_keys(&home.key())?;
    check_member(spec, public.member)?;
    if let Some(there) = find_chainspec(&home.chainspec())?
        && there.chain_id() != spec.chain_id()
    {
        let given = args.chain.clone().unwrap_or_default();
        return Err(HomeError::OtherChain { path: home.chainspec(), given }.into());
    }
    if home.signing_log().exists() {
        return Err(HomeError::Exists { path: home.signing_log() }.into());
    }
    home.create()?;
    add_chain(home, spec, public.member)?;
    writeln!(out, "{} is a member of {}. Next: write [[peers]] into federation.toml.", public.member, spec.name())?;
    Ok(())
}

/// The log comes last: a home that has one is complete.
fn add_chain(home: &Home, spec: &ChainSpec, member: PublicKey) -> Result<(), CliError> {
    let path = home.chainspec();
    files::replace(&path, files::SECRET_MODE, spec.to_toml().as_bytes())
        .map_err(|source| home.io(&path, "written", source))?;
    drop(SigningLog::create(&home.signing_log(), spec.chain_id(), member)?);
    Ok(())
}

/// The chainspec of `--chain`: a file, or a built-in network.
pub(crate) fn load_chain(given: &str) -> Result<ChainSpec, CliError> {
    if let Some(spec) = find_chainspec(Path::new(given))? {
        return Ok(spec);
    }
    ChainSpec::built_in(given).map_err(|_| CliError::NoSuchChain { given: given.to_owned() })
}

fn check_member(spec: &ChainSpec, key: PublicKey) -> Result<(), CliError> {
    if spec.federation().members().contains(&key) {
        return Ok(());
    }
    Err(CliError::NotAMember { key, network: spec.name().to_owned() })
}

fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

/// Members of the built-in devnet.
fn devnet_members() -> Result<u32, CliError> {
    let spec = load_chain("devnet")?;
    Ok(u32::try_from(spec.federation().members().len()).unwrap_or(u32::MAX))
}

/// The public keys of a devnet's member.
fn devnet_keys(index: u32, spec: Option<&ChainSpec>) -> Result<MemberKeys, CliError> {
    let members = devnet_members()?;
    if index >= members {
        return Err(CliError::DevnetIndex { got: index, members });
    }
    let mut public: Vec<PublicKey> =
        (0..members).map(|index| devnet::secret_key(devnet::MEMBER, index).public_key(SECP256K1)).collect();
    public.sort_by_key(PublicKey::serialize);
    if spec.is_some_and(|spec| spec.federation().members() != public) {
        return Err(CliError::NotDevnet);
    }
    Ok(MemberKeys {
        member: MemberKey::from_bytes(&devnet::secret_key(devnet::MEMBER, index).secret_bytes())?,
        identity: devnet_identity(index)?,
    })
}

fn devnet_identity(index: u32) -> Result<IdentityKey, CliError> {
    Ok(IdentityKey::from_bytes(&devnet::secret_key(DEVNET_IDENTITY, index).secret_bytes())?)
}

fn devnet_address(port: u16, index: u32) -> Result<Multiaddr, CliError> {
    let members = devnet_members()?;
    let port = u16::try_from(index).ok().and_then(|index| port.checked_add(index));
    let port = port.ok_or(CliError::DevnetIndex { got: index, members })?;
    Ok(Multiaddr::from(std::net::Ipv4Addr::LOCALHOST).with(libp2p::multiaddr::Protocol::Tcp(port)))
}

fn any_address(port: u16) -> Multiaddr {
    Multiaddr::from(std::net::Ipv4Addr::UNSPECIFIED).with(libp2p::multiaddr::Protocol::Tcp(port))
}

fn devnet_peers(own: u32, port: u16) -> Result<Vec<PeerConfig>, CliError> {
    (0..devnet_members()?)
        .filter(|index| *index != own)
        .map(|index| {
            let identity = devnet_identity(index)?;
            Ok(PeerConfig {
                member: devnet::secret_key(devnet::MEMBER, index).public_key(SECP256K1),
                identity: identity.public_key(),
                address: PeerAddress {
                    peer: transport_key(&identity).public().to_peer_id(),
                    address: devnet_address(port, index)?,
                },
            })
        })
        .collect()
}

/// For members on one machine.
fn devnet_timing() -> Timing {
    let ms = std::time::Duration::from_millis;
    Timing { key_path: ms(4_000), propose: ms(3_000), attempt: ms(5_000), resend: ms(500) }
}

//! `causeway init`: the home of a new node.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use causeway_chainspec::{ChainSpec, ChainSpecError, Height};
use causeway_consensus::bft::{Address, Key};
use causeway_federation::files::read_chainspec;
use clap::Args;

use super::CliError;
use crate::config::Config;
use crate::home::{Home, HomeError};
use crate::keys::{ValidatorKey, new_node_key};
use crate::shell::mark_file::MarkFile;

/// Where the validator's key comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeySource {
    /// A new one.
    New,
    /// None: a full node.
    None,
    /// This file.
    Import(PathBuf),
}

impl FromStr for KeySource {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(match text {
            "new" => Self::New,
            "none" => Self::None,
            file => Self::Import(file.into()),
        })
    }
}

/// What `causeway init` is told.
#[derive(Debug, Args)]
pub struct InitArgs {
    /// The chainspec: a file, or the name of a built-in network (devnet).
    #[arg(long, value_name = "FILE|NAME")]
    pub chain: String,
    /// The directory to make.
    #[arg(long, value_name = "DIR")]
    pub home: PathBuf,
    /// The validator's key: new, none, or a key file to import.
    #[arg(long, value_name = "new|none|FILE", default_value = "new", conflicts_with = "full_node")]
    pub validator_key: KeySource,
    /// Makes a full node: no validator's key.
    #[arg(long)]
    pub full_node: bool,
    /// With an imported key: sign only above this height, which the network has decided. 0 if the key was never used.
    #[arg(long, value_name = "HEIGHT")]
    pub above: Option<u32>,
    /// Who gets the fees of this validator's blocks. Without it, the taproot address of the validator's key.
    #[arg(long, value_name = "ADDRESS")]
    pub fee_address: Option<String>,
}

/// The validator's key of a new home, and what it may have signed.
enum NewKey {
    Fresh(ValidatorKey),
    Imported(ValidatorKey, Height),
}

/// Makes the home of a new node.
///
/// # Errors
/// Something is there already, which is left as it is; or what was given is refused, before anything is made.
pub fn init(args: &InitArgs, out: &mut impl Write) -> Result<(), CliError> {
    let home = Home::at(&args.home);
    home.check_absent()?;
    let spec = find_chain(&args.chain)?;
    let mut config = Config::default();
    config.consensus.fee_address = args.fee_address.clone().unwrap_or_default();
    config.fee_script(spec.identity(), &home.config())?;
    let source = if args.full_node { &KeySource::None } else { &args.validator_key };
    let key = match (source, args.above) {
        (KeySource::New, None) => Some(NewKey::Fresh(ValidatorKey::generate()?)),
        (KeySource::Import(file), Some(above)) => Some(NewKey::Imported(ValidatorKey::load(file)?, Height(above))),
        (KeySource::Import(_), None) => return Err(CliError::ImportWithoutAbove),
        (KeySource::None, None) => None,
        (KeySource::New | KeySource::None, Some(_)) => return Err(CliError::AboveWithoutImport),
    };

    let _lock = home.create()?;
    let validator = key.map(|key| write_key(&home, &spec, &key)).transpose()?;
    let peer = new_node_key(&home.node_key())?.public().to_peer_id();
    home.write_new(&home.chainspec(), &spec.to_toml())?;
    // Last: a home without it is not complete.
    home.write_new(&home.config(), &config.to_toml())?;

    writeln!(out, "home       {}", home.path().display())?;
    writeln!(out, "chain      {} ({})", spec.name(), spec.chain_id())?;
    match &validator {
        Some(validator) => writeln!(out, "validator  {validator}")?,
        None => writeln!(out, "validator  none: a full node")?,
    }
    writeln!(out, "node       {peer}")?;
    next_steps(&home, &spec, validator, out)
}

fn next_steps(home: &Home, spec: &ChainSpec, validator: Option<Address>, out: &mut impl Write) -> Result<(), CliError> {
    let known = |address: Address| spec.validators().iter().any(|validator| Address::from(&validator.key) == address);
    writeln!(out, "\nNext:")?;
    if let Some(validator) = validator {
        if !known(validator) {
            writeln!(
                out,
                "- Warning: this chain's validators do not include the key above, so the node only follows. To start a\n  \
                 network with it: \"causeway chainspec new --validator {validator} ..\", and give every node that file."
            )?;
        }
        writeln!(
            out,
            "- Copy {} to a safe place that is offline. Never copy {}, and never run\n  the key in two places.",
            home.validator_key().display(),
            home.validator_mark().display()
        )?;
    }
    writeln!(out, "- Look through {}: the peers under [p2p] first.", home.config().display())?;
    writeln!(out, "- causeway run --home {}", home.path().display())?;
    Ok(())
}

/// Writes the key and its mark. The mark first refuses everything that the key may have signed.
fn write_key(home: &Home, spec: &ChainSpec, key: &NewKey) -> Result<Address, CliError> {
    let (NewKey::Fresh(secret) | NewKey::Imported(secret, _)) = key;
    let (path, mark, chain, validator) =
        (home.validator_key(), home.validator_mark(), spec.chain_id(), Key::address(secret));
    secret.store_new(&path)?;
    match key {
        NewKey::Fresh(_) => MarkFile::create(&mark, &path, chain, validator)?,
        NewKey::Imported(_, above) => MarkFile::create_above(&mark, &path, chain, validator, *above)?,
    };
    Ok(validator)
}

/// The chainspec of a file, or of a built-in network.
///
/// # Errors
/// It is neither, or is refused.
pub fn find_chain(given: &str) -> Result<ChainSpec, CliError> {
    let path = Path::new(given);
    if path.exists() {
        return Ok(read_chainspec(path).map_err(HomeError::from)?);
    }
    ChainSpec::built_in(given).map_err(|error| match error {
        ChainSpecError::UnknownBuiltIn { built_in, .. } => CliError::NoSuchChain { given: given.to_owned(), built_in },
        other => CliError::ChainSpec(Box::new(other)),
    })
}

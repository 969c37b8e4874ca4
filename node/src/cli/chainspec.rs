//! `causeway chainspec`: what every node of a network shares, from public keys alone.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::{SystemTime, UNIX_EPOCH};

use bitcoin::Network;
use bitcoin::hex::DisplayHex;
use bitcoin::secp256k1::{PublicKey, XOnlyPublicKey};
use causeway_chainspec::{
    BitcoinStart, ChainSpec, ChainSpecError, ChainSpecParts, Epoch, EpochParts, RULES, Validator,
};
use causeway_federation::files::read_text;
use clap::builder::PossibleValuesParser;
use clap::builder::TypedValueParser as _;
use clap::{Args, Subcommand};
use toml::Table;

use super::CliError;
use super::init::find_chain;
use crate::home::{Home, HomeError};
use crate::keys::random_secret;

/// The built-in network that gives what a new chainspec is not told.
const MODEL: &str = "devnet";

/// Most bytes of a file with the start of Bitcoin.
const BITCOIN_START_BYTES_MAX: u64 = 64 << 10;

/// What to do with a chainspec.
#[derive(Debug, Subcommand)]
pub enum ChainspecCommand {
    /// Makes the chainspec of a new network. What is not given is as on the built-in devnet.
    New(Box<NewArgs>),
    /// Shows a chainspec: its identity, its validators, its federation.
    Show(ShowArgs),
}

/// A validator on the command line: its key, and its power after a colon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ValidatorArg(pub Validator);

/// What `causeway chainspec new` is told.
#[derive(Debug, Args)]
pub struct NewArgs {
    /// Name of the network: 1 to 32 of a-z, 0-9 and -.
    #[arg(long)]
    pub name: String,
    /// The Bitcoin test network whose addresses the chain has.
    #[arg(long, default_value = "regtest", value_parser = identity_parser())]
    pub identity: Network,
    /// A validator, as "causeway keys show" prints it, with its voting power (1 if left out). Once for each.
    #[arg(long, value_name = "KEY[:POWER]", required = true)]
    pub validator: Vec<ValidatorArg>,
    /// The public key of a member of the federation, compressed. Once for each.
    #[arg(long, value_name = "KEY", required = true)]
    pub member: Vec<PublicKey>,
    /// Members needed to sign.
    #[arg(long)]
    pub threshold: u32,
    /// A key of the recovery set, x-only. Once for each.
    #[arg(long, value_name = "KEY", required = true)]
    pub recovery_key: Vec<XOnlyPublicKey>,
    /// Recovery keys needed to sign.
    #[arg(long)]
    pub recovery_threshold: u32,
    /// A file with the section [bitcoin] of a chainspec: where the chain's view of Bitcoin starts. Regtest without it.
    #[arg(long, value_name = "FILE")]
    pub bitcoin_start: Option<PathBuf>,
    /// Time of block 1 in seconds since 1970. Without it, the present.
    #[arg(long, value_name = "SECONDS")]
    pub genesis_time: Option<u32>,
    /// Target time between blocks.
    #[arg(long, value_name = "MS")]
    pub block_interval_ms: Option<u32>,
    /// The file to make.
    #[arg(long, value_name = "FILE")]
    pub out: PathBuf,
}

/// What `causeway chainspec show` is told.
#[derive(Debug, Args)]
pub struct ShowArgs {
    /// A chainspec file, or the name of a built-in network.
    #[arg(value_name = "FILE|NAME")]
    pub chain: String,
}

fn identity_parser() -> impl clap::builder::TypedValueParser<Value = Network> {
    PossibleValuesParser::new(["regtest", "signet"])
        .map(|name| if name == "signet" { Network::Signet } else { Network::Regtest })
}

/// Text that is no validator.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ArgError {
    /// The key.
    #[error("the key must be 64 hex digits, a point of secp256k1")]
    Key,
    /// The power.
    #[error("the power after the colon must be a whole number")]
    Power,
}

impl FromStr for ValidatorArg {
    type Err = ArgError;

    fn from_str(text: &str) -> Result<Self, ArgError> {
        let (key, power) = text.split_once(':').unwrap_or((text, "1"));
        let key = key.parse().map_err(|_| ArgError::Key)?;
        Ok(Self(Validator { key, power: power.parse().map_err(|_| ArgError::Power)? }))
    }
}

/// Performs a command about chainspecs.
///
/// # Errors
/// What was given is refused, or a file cannot be read or made.
pub fn chainspec(command: &ChainspecCommand, out: &mut impl Write) -> Result<(), CliError> {
    match command {
        ChainspecCommand::New(args) => {
            let spec = assemble(args)?;
            Home::at(".").write_new(&args.out, &spec.to_toml())?;
            show(&spec, out)
        }
        ChainspecCommand::Show(args) => show(&find_chain(&args.chain)?, out),
    }
}

/// The chainspec of these keys, with fresh launch bytes: another chain every time.
///
/// # Errors
/// The values make no chainspec, or the start of Bitcoin cannot be read.
pub fn assemble(args: &NewArgs) -> Result<ChainSpec, CliError> {
    let refused = |error: ChainSpecError| CliError::ChainSpec(Box::new(error));
    let model = ChainSpec::built_in(MODEL).map_err(refused)?.to_parts();
    let mut params = model.params;
    params.identity = args.identity;
    params.block_interval_ms = args.block_interval_ms.unwrap_or(params.block_interval_ms);
    let federation = Epoch::new(EpochParts {
        members: args.member.clone(),
        threshold: args.threshold,
        recovery_keys: args.recovery_key.clone(),
        recovery_threshold: args.recovery_threshold,
        ..model.federation.to_parts()
    });
    let bitcoin = match &args.bitcoin_start {
        Some(path) => read_bitcoin_start(path)?,
        None => model.bitcoin,
    };
    ChainSpec::new(ChainSpecParts {
        name: args.name.clone(),
        launch: *random_secret()?,
        genesis_time: args.genesis_time.map_or_else(present, Ok)?,
        validators: args.validator.iter().map(|validator| validator.0).collect(),
        params,
        federation: federation.map_err(refused)?,
        bitcoin,
    })
    .map_err(refused)
}

fn present() -> Result<u32, CliError> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_err(|_| CliError::Clock)?;
    u32::try_from(now.as_secs()).map_err(|_| CliError::Clock)
}

/// Reads the section in the place of the model's, so that it passes the same checks with the same messages.
fn read_bitcoin_start(path: &Path) -> Result<BitcoinStart, CliError> {
    let refused =
        |source: Option<ChainSpecError>| CliError::BitcoinStart { path: path.to_owned(), source: source.map(Box::new) };
    let text = read_text(path, BITCOIN_START_BYTES_MAX).map_err(HomeError::from)?;
    let mut given: Table = text.parse().map_err(|error| refused(Some(ChainSpecError::Toml(error))))?;
    let (Some(section), true) = (given.remove("bitcoin"), given.is_empty()) else { return Err(refused(None)) };
    let model = ChainSpec::built_in(MODEL).map_err(|error| refused(Some(error)))?;
    let mut table: Table = model.to_toml().parse().map_err(|error| refused(Some(ChainSpecError::Toml(error))))?;
    table.insert("bitcoin".to_owned(), section);
    let spec = ChainSpec::from_toml(&table.to_string()).map_err(|error| refused(Some(error)))?;
    Ok(spec.bitcoin().clone())
}

fn show(spec: &ChainSpec, out: &mut impl Write) -> Result<(), CliError> {
    let federation = spec.federation();
    writeln!(out, "name        {}", spec.name())?;
    writeln!(out, "chain id    {}", spec.chain_id())?;
    writeln!(out, "hash        {}", spec.hash().to_byte_array().as_hex())?;
    writeln!(out, "rules       {RULES}")?;
    writeln!(out, "identity    {}", spec.identity())?;
    writeln!(out, "peg on      {} from height {}", spec.bitcoin().network(), spec.bitcoin().height())?;
    writeln!(out, "block time  {} ms", spec.params().block_interval_ms)?;
    writeln!(out, "members     {} of {}", federation.threshold(), federation.members().len())?;
    writeln!(out, "recovery    {} of {}", federation.recovery_threshold(), federation.recovery_keys().len())?;
    writeln!(out, "validators  {}, power {}", spec.validators().len(), spec.total_power())?;
    for validator in spec.validators() {
        writeln!(out, "  {} power {}", validator.key, validator.power)?;
    }
    Ok(())
}

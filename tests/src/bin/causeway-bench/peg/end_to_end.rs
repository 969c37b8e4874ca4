//! The whole way, by `causeway devnet --once`: a real bitcoind on regtest, four validators, a full node, five members.

use std::path::Path;
use std::process::Command;

use serde::Serialize;
use serde_json::Value;

use crate::measure::Spread;

#[derive(Debug, Serialize)]
pub(super) struct Figures {
    runs: usize,
    members: u64,
    threshold: u64,
    block_interval_ms: u64,
    /// From the payment of a deposit to its credit.
    peg_in: Way,
    /// From the last confirmation of a deposit to its credit.
    credit_seconds: Spread,
    /// From a final request to the confirmed payout.
    peg_out: Way,
    /// From a final request to the signed transaction in bitcoind's mempool.
    signing_seconds: Spread,
    /// Which paths signed the payouts, of each run.
    paths: Vec<Value>,
}

#[derive(Debug, Serialize)]
struct Way {
    seconds: Spread,
    /// Blocks of Bitcoin that it took, the most of all runs.
    bitcoin_blocks: u64,
}

/// One run of the program.
struct Once(Value);

impl Once {
    fn run(bitcoind: &Path) -> Result<Self, Box<dyn std::error::Error>> {
        let causeway = std::env::current_exe()?.with_file_name("causeway");
        let directory = tempfile::tempdir()?;
        let json = directory.path().join("figures.json");
        let mut command = Command::new(&causeway);
        command.args(["devnet", "--once", "--json"]).arg(&json).arg("--bitcoind").arg(bitcoind);
        let output = command.output().map_err(|error| format!("{} does not run: {error}", causeway.display()))?;
        if !output.status.success() {
            let (said, why) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
            return Err(format!("causeway devnet --once failed:\n{said}{why}").into());
        }
        Ok(Self(serde_json::from_slice(&std::fs::read(json)?)?))
    }

    fn number(&self, pointer: &str) -> Result<u64, String> {
        self.0.pointer(pointer).and_then(Value::as_u64).ok_or_else(|| format!("no {pointer} in the figures"))
    }

    fn seconds(&self, pointer: &str) -> Result<f64, String> {
        Ok(seconds(self.number(pointer)?))
    }

    /// All steps of this name.
    fn steps(&self, name: &str) -> impl Iterator<Item = &Value> {
        self.0["steps"].as_array().into_iter().flatten().filter(move |step| step["step"] == name)
    }

    /// Seconds from the first step of one name to the last of another.
    fn between(&self, from: &str, to: &str) -> Result<f64, String> {
        let at = |step: Option<&Value>, name: &str| {
            step.and_then(|step| step["at_ms"].as_u64()).ok_or_else(|| format!("no step {name} in the figures"))
        };
        let (from, to) = (at(self.steps(from).next(), from)?, at(self.steps(to).last(), to)?);
        Ok(seconds(to.saturating_sub(from)))
    }

    fn count(&self, name: &str) -> Result<u64, std::num::TryFromIntError> {
        u64::try_from(self.steps(name).count())
    }
}

fn seconds(milliseconds: u64) -> f64 {
    f64::from(u32::try_from(milliseconds).unwrap_or(u32::MAX)) / 1e3
}

/// Goes the whole way so many times, each time on a new devnet.
pub(super) fn measured(bitcoind: &Path, runs: usize) -> Result<Figures, Box<dyn std::error::Error>> {
    let all: Vec<Once> = (0..runs).map(|_| Once::run(bitcoind)).collect::<Result<_, _>>()?;
    let spread = |of: &dyn Fn(&Once) -> Result<f64, String>| -> Result<Spread, String> {
        Ok(Spread::of(all.iter().map(of).collect::<Result<Vec<f64>, _>>()?))
    };
    let most = |step: &str| -> Result<u64, std::num::TryFromIntError> {
        all.iter().try_fold(0, |most, once| Ok(once.count(step)?.max(most)))
    };
    let first = all.first().ok_or("no run")?;
    let figures = Figures {
        runs,
        members: first.number("/members")?,
        threshold: first.number("/threshold")?,
        block_interval_ms: first.number("/block_interval_ms")?,
        peg_in: Way {
            seconds: spread(&|once| once.between("deposit", "credit"))?,
            bitcoin_blocks: most("confirmation")?,
        },
        credit_seconds: spread(&|once| once.seconds("/deposit/credit_ms"))?,
        peg_out: Way {
            seconds: spread(&|once| once.between("withdrawal", "payout_confirmed"))?,
            bitcoin_blocks: most("payout_confirmation")?,
        },
        signing_seconds: spread(&|once| once.seconds("/withdrawal/signing_ms"))?,
        paths: all.iter().map(|once| once.0["withdrawal"]["paths"].clone()).collect(),
    };
    let Figures { members, threshold, block_interval_ms, peg_in, credit_seconds, peg_out, signing_seconds, .. } =
        &figures;
    let text = |spread: &Spread| format!("{:.2} s ({:.2} to {:.2})", spread.median, spread.min, spread.max);
    let times = if runs == 1 { "time" } else { "times" };
    println!("  {threshold}-of-{members}, a Causeway block every {block_interval_ms} ms, {runs} {times}");
    println!(
        "  peg-in   {} Bitcoin blocks, {} from the payment to the credit, {} of it after the last block",
        peg_in.bitcoin_blocks,
        text(&peg_in.seconds),
        text(credit_seconds)
    );
    println!(
        "  peg-out  {} Bitcoin blocks, {} from the final request to the confirmed payout, {} of it to the signatures",
        peg_out.bitcoin_blocks,
        text(&peg_out.seconds),
        text(signing_seconds)
    );
    Ok(figures)
}

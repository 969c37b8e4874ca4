//! `GET /v1/validators...`: who signs the blocks.

use causeway_chainspec::{Height, LAST_DERIVED_HEIGHT};
use causeway_consensus::bft::{Address, ValidatorSet};
use schemars::JsonSchema;
use serde::Serialize;

use super::super::App;
use super::super::answer::{Answer, Keep, Refusal};
use super::super::json::display;
use super::super::schema::XOnlyKey;

/// A validator.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Validator")]
pub(super) struct ValidatorJson {
    /// What it signs with, and its name.
    #[schemars(with = "XOnlyKey")]
    #[serde(serialize_with = "display")]
    key: Address,
    /// Its voting power, from 1 to 2^60.
    power: u64,
}

impl ValidatorJson {
    /// Every validator of a set, in its order.
    pub(super) fn all(set: &ValidatorSet) -> Vec<Self> {
        set.members().iter().map(|member| Self { key: member.address(), power: member.power() }).collect()
    }
}

/// The validators of a height.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Validators")]
pub(in super::super) struct ValidatorsJson {
    height: u32,
    /// Whether the block follows from the chainspec: nobody proposes or signs it.
    derived: bool,
    /// Sorted by key.
    validators: Vec<ValidatorJson>,
    /// The power of all.
    total_power: u64,
    /// The least power that makes a block final: more than two thirds of all.
    quorum_power: u64,
    /// The key of the validator that proposes in round 0; null if the block is derived.
    #[schemars(with = "Option<XOnlyKey>")]
    proposer_of_round_0: Option<String>,
}

/// The least power that is more than two thirds of `total`, which is at most 2^60.
pub(super) fn quorum_power(total: u64) -> u64 {
    2 * total / 3 + 1
}

/// `GET /v1/validators[/:height]`: of the tip, or of a height up to the one that is being decided.
pub(in super::super) fn validators<L>(app: &App<L>, height: Option<u64>) -> Result<Answer, Refusal> {
    let (set, chain) = (app.validators.clone(), app.chain.spec.chain_id());
    let tip = app.chain.store_tip().height();
    let (height, keep) = match height {
        None => (tip, Keep::Never),
        Some(height) => {
            let wanted = u32::try_from(height).ok().map(Height);
            // That of the height that is being decided may still change with what is decided.
            let wanted = wanted.filter(|wanted| Some(*wanted) <= tip.next());
            let wanted = wanted.ok_or(Refusal::HeightNotReached { height })?;
            (wanted, if wanted <= tip { Keep::Final } else { Keep::Never })
        }
    };
    let derived = height <= LAST_DERIVED_HEIGHT;
    let json = ValidatorsJson {
        height: height.to_u32(),
        derived,
        total_power: set.total_power(),
        quorum_power: quorum_power(set.total_power()),
        proposer_of_round_0: (!derived).then(|| set.proposer(chain, height, 0).address().to_string()),
        validators: ValidatorJson::all(&set),
    };
    Answer::json(&json, keep)
}

#[cfg(test)]
mod tests {
    use super::*;
    use causeway_chainspec::ChainSpec;

    #[test]
    fn the_quorum_is_the_least_power_that_is_one() {
        let mut validators = ChainSpec::built_in("devnet").unwrap().validators().to_vec();
        for total in [4, 5, 6, 7, 100, 1 << 60] {
            validators[0].power = total - 3;
            validators.iter_mut().skip(1).for_each(|validator| validator.power = 1);
            let set = ValidatorSet::new(&validators).unwrap();
            assert_eq!(set.total_power(), total);
            let quorum = quorum_power(total);
            assert!(set.is_quorum(quorum) && !set.is_quorum(quorum - 1), "{total}");
        }
    }
}

//! The validators of one height, in their one order.

use std::sync::Arc;

use arc_malachitebft_core_types as types;
use bitcoin::secp256k1::XOnlyPublicKey;

use super::context::{Address, Context};

/// Most validators of a set, as in a chainspec.
pub const VALIDATORS_MAX: usize = 256;

/// Most voting power of a set, as in a chainspec: three times any sum fits 64 bits.
pub const TOTAL_POWER_MAX: u64 = 1 << 60;

/// Why validators are no set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ValidatorSetError {
    /// None, or too many.
    #[error("{got} validators, which must be 1 to {VALIDATORS_MAX}")]
    Count {
        /// Validators given.
        got: usize,
    },
    /// A validator without power.
    #[error("validator {address} has no power")]
    NoPower {
        /// The validator.
        address: Address,
    },
    /// The powers together are above [`TOTAL_POWER_MAX`].
    #[error("the powers add up to more than {TOTAL_POWER_MAX}")]
    TotalPower,
    /// A key stands in the set twice.
    #[error("validator {address} stands in the set twice")]
    Duplicate {
        /// The validator.
        address: Address,
    },
}

/// A validator of a set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    address: Address,
    key: XOnlyPublicKey,
    power: u64,
}

impl Member {
    /// The key's 32 bytes, which name the validator.
    pub fn address(&self) -> Address {
        self.address
    }

    /// The key that signs its messages (BIP340).
    pub fn key(&self) -> &XOnlyPublicKey {
        &self.key
    }

    /// Its voting power, at least 1.
    pub fn power(&self) -> u64 {
        self.power
    }
}

/// The validators of one height, sorted by the bytes of their keys. Clones share it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ValidatorSet(Arc<Inner>);

#[derive(Debug, PartialEq, Eq)]
struct Inner {
    members: Vec<Member>,
    total: u64,
}

impl ValidatorSet {
    /// The set of these validators, in any order.
    ///
    /// # Errors
    ///
    /// None or more than [`VALIDATORS_MAX`], one without power, a key twice, or more power than [`TOTAL_POWER_MAX`].
    pub fn new(validators: &[causeway_chainspec::Validator]) -> Result<Self, ValidatorSetError> {
        if validators.is_empty() || validators.len() > VALIDATORS_MAX {
            return Err(ValidatorSetError::Count { got: validators.len() });
        }
        let mut members: Vec<Member> = validators
            .iter()
            .map(|validator| Member {
                address: Address::from(&validator.key),
                key: validator.key,
                power: validator.power,
            })
            .collect();
        members.sort_by_key(Member::address);
        if let Some(pair) = members.windows(2).find(|pair| pair[0].address == pair[1].address) {
            return Err(ValidatorSetError::Duplicate { address: pair[0].address });
        }
        let mut total = 0_u64;
        for member in &members {
            if member.power == 0 {
                return Err(ValidatorSetError::NoPower { address: member.address });
            }
            total = total.checked_add(member.power).ok_or(ValidatorSetError::TotalPower)?;
        }
        if total > TOTAL_POWER_MAX {
            return Err(ValidatorSetError::TotalPower);
        }
        Ok(Self(Arc::new(Inner { members, total })))
    }

    /// The validators, sorted by the bytes of their keys.
    pub fn members(&self) -> &[Member] {
        &self.0.members
    }

    /// The power of all, 1 to 2^60.
    pub fn total_power(&self) -> u64 {
        self.0.total
    }

    /// The position of a validator.
    pub fn index_of(&self, address: &Address) -> Option<usize> {
        self.0.members.binary_search_by_key(address, Member::address).ok()
    }

    /// The validator of this address.
    pub fn get(&self, address: &Address) -> Option<&Member> {
        self.index_of(address).map(|index| &self.0.members[index])
    }

    /// Whether this power is more than two thirds of all.
    pub fn is_quorum(&self, power: u64) -> bool {
        3 * u128::from(power) > 2 * u128::from(self.0.total)
    }

    /// Whether this power is more than one third of all, so that someone honest is among its holders.
    pub fn is_honest(&self, power: u64) -> bool {
        3 * u128::from(power) > u128::from(self.0.total)
    }
}

impl types::Validator<Context> for Member {
    fn address(&self) -> &Address {
        &self.address
    }

    fn public_key(&self) -> &XOnlyPublicKey {
        &self.key
    }

    fn voting_power(&self) -> u64 {
        self.power
    }
}

impl types::ValidatorSet<Context> for ValidatorSet {
    fn count(&self) -> usize {
        self.0.members.len()
    }

    fn total_voting_power(&self) -> u64 {
        self.0.total
    }

    fn get_by_address(&self, address: &Address) -> Option<&Member> {
        self.get(address)
    }

    fn get_by_index(&self, index: usize) -> Option<&Member> {
        self.0.members.get(index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bft::testing::validator;

    #[test]
    fn members_are_sorted_and_found() {
        let given: Vec<_> = (0..5).map(|index| validator(index, u64::from(index) + 1)).collect();
        let mut reversed = given.clone();
        reversed.reverse();
        let set = ValidatorSet::new(&given).unwrap();
        assert_eq!(set, ValidatorSet::new(&reversed).unwrap());
        assert_eq!(set.total_power(), 15);
        assert!(set.members().is_sorted_by_key(Member::address));
        for (index, member) in set.members().iter().enumerate() {
            assert_eq!(set.index_of(&member.address()), Some(index));
            assert_eq!(set.get(&member.address()).unwrap().key(), member.key());
        }
        assert_eq!(set.index_of(&Address([0; 32])), None);
    }

    #[test]
    fn what_is_no_set_is_named() {
        assert_eq!(ValidatorSet::new(&[]), Err(ValidatorSetError::Count { got: 0 }));
        let one = validator(0, 1);
        assert_eq!(ValidatorSet::new(&vec![one; 257]), Err(ValidatorSetError::Count { got: 257 }));
        let address = Address::from(&one.key);
        assert_eq!(ValidatorSet::new(&[one, one]), Err(ValidatorSetError::Duplicate { address }));
        assert_eq!(ValidatorSet::new(&[validator(0, 0)]), Err(ValidatorSetError::NoPower { address }));
        let half = TOTAL_POWER_MAX / 2;
        assert!(ValidatorSet::new(&[validator(0, half), validator(1, half)]).is_ok());
        let over = [validator(0, half), validator(1, half + 1)];
        assert_eq!(ValidatorSet::new(&over), Err(ValidatorSetError::TotalPower));
        assert_eq!(ValidatorSet::new(&[validator(0, u64::MAX), validator(1, 1)]), Err(ValidatorSetError::TotalPower));
    }

    #[test]
    fn thresholds_are_strict() {
        let set = ValidatorSet::new(&[validator(0, 1), validator(1, 1), validator(2, 1)]).unwrap();
        assert!(!set.is_quorum(2));
        assert!(set.is_quorum(3));
        assert!(!set.is_honest(1));
        assert!(set.is_honest(2));
        let set = ValidatorSet::new(&[validator(0, TOTAL_POWER_MAX)]).unwrap();
        assert!(set.is_quorum(TOTAL_POWER_MAX / 3 * 2 + 1));
        assert!(!set.is_quorum(TOTAL_POWER_MAX / 3 * 2));
    }
}

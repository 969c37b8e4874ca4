//! FeeRate (PEG section 2).

use bitcoin::secp256k1::schnorr::Signature;
use causeway_chainspec::{Height, SatPerKvb, devnet};
use causeway_consensus::peg::InvalidPeg;
use causeway_consensus::peg::evidence::{Evidence, FeeRateQuote};
use causeway_consensus::peg::propose::Candidates;
use causeway_tests::parent::{peg_spec, quote};
use causeway_tests::wallet::Owner;

use crate::scene::Scene;

fn of(quote: FeeRateQuote) -> Evidence {
    Evidence { fee_rate: Some(quote), ..Evidence::default() }
}

pub(crate) fn not_a_validator() {
    let scene = Scene::new();
    let height = scene.chain.next_context().height;
    let right = quote(&scene.chain.spec, 0, height, SatPerKvb(5_000));
    scene.accepts(of(right.clone()));
    let member = devnet::secret_key(devnet::MEMBER, 0);
    for owner in [Owner::new(1), Owner::of_key(&member)] {
        let key = owner.keypair().x_only_public_key().0;
        scene.refuses(of(FeeRateQuote { validator: key, ..right.clone() }), InvalidPeg::NotAValidator { key });
    }
}

/// For this chain, this height, this rate, this validator.
pub(crate) fn quote_signature() {
    let scene = Scene::new();
    let spec = &scene.chain.spec;
    let (height, rate) = (scene.chain.next_context().height, SatPerKvb(5_000));
    let right = quote(spec, 0, height, rate);
    scene.accepts(of(right.clone()));
    let key = right.validator;
    let refused = |signature: Signature| {
        let other = FeeRateQuote { signature, ..right.clone() };
        scene.refuses(of(other), InvalidPeg::QuoteSignature { key, rate });
    };
    refused(quote(spec, 0, Height(height.0 - 1), rate).signature);
    refused(quote(spec, 0, Height(height.0 + 1), rate).signature);
    refused(quote(spec, 0, height, SatPerKvb(5_001)).signature);
    refused(quote(spec, 1, height, rate).signature);
    refused(quote(&peg_spec(|parts| parts.launch = [1; 32]), 0, height, rate).signature);
    let mut flipped = *right.signature.as_ref();
    flipped[63] ^= 1;
    refused(Signature::from_slice(&flipped).expect("64 bytes"));
}

/// More than two thirds of the power, the weighted median, both bounds, and age.
#[test]
fn the_agreed_feerate_is_the_median_of_recent_quotes() {
    let mut scene = Scene::with(|parts| {
        parts.params.quote_age = 6;
        for (validator, power) in parts.validators.iter_mut().zip([1, 1, 1, 3]) {
            validator.power = power;
        }
    });
    let powers: Vec<u64> = (0..4)
        .map(|index| {
            let key = Owner::of_key(&devnet::secret_key(devnet::VALIDATOR, index)).keypair().x_only_public_key().0;
            scene.chain.spec.validators().iter().find(|validator| validator.key == key).expect("there").power
        })
        .collect();
    let strong = u32::try_from(powers.iter().position(|power| *power == 3).expect("one has 3")).expect("few");
    let weak: Vec<u32> = (0..4).filter(|index| *index != strong).collect();
    let say = |scene: &mut Scene, validator: u32, rate: u64| {
        let fee_rate = Some(quote(&scene.chain.spec, validator, scene.chain.next_context().height, SatPerKvb(rate)));
        scene.propose(Candidates { fee_rate, ..Candidates::default() });
        scene.peg().agreed_rate().0
    };
    let unchanged = scene.chain.spec.params().fee_rate_default.0;
    // 3 of 6, then 4 of 6: not more than two thirds.
    assert_eq!(say(&mut scene, strong, 9_000), unchanged);
    assert_eq!(say(&mut scene, weak[0], 4_000), unchanged);
    // 5 of 6: 4,000 (1), 5,000 (1), 9,000 (3); half of 5 is reached at 9,000.
    assert_eq!(say(&mut scene, weak[1], 5_000), 9_000);
    // 6 of 6: three below reach half of 6, at the highest of them.
    assert_eq!(say(&mut scene, weak[2], 6_000), 6_000);
    // Bounds.
    assert_eq!(say(&mut scene, strong, 0), 1_000);
    assert_eq!(say(&mut scene, strong, u64::MAX), 6_000);
    // At the next block weak[0]'s quote is five blocks old and counts; then it does not, and then weak[1]'s neither: with 4 of
    // 6, what was agreed stays.
    assert_eq!(say(&mut scene, strong, 90_000), 6_000);
    assert_eq!(say(&mut scene, strong, 90_000), 90_000);
    assert_eq!(say(&mut scene, strong, 2_000), 90_000);

    // Quotes grow old in blocks without evidence too.
    let mut scene = Scene::with(|parts| parts.params.quote_age = 5);
    for (validator, rate) in [(0, 3_000), (1, 7_000), (2, 5_000), (3, 9_000)] {
        say(&mut scene, validator, rate);
    }
    for rate in [5_000, 7_000, 7_000] {
        assert_eq!(scene.peg().agreed_rate().0, rate);
        scene.chain.grow(if rate == 5_000 { 2 } else { 1 });
    }
}

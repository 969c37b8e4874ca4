use super::*;

#[test]
fn subsets_of_3_of_5_in_order() {
    let subsets: Vec<Vec<u16>> = Subsets::new(5, 3).collect();
    let text: Vec<String> = subsets.iter().map(|s| s.iter().map(u16::to_string).collect()).collect();
    assert_eq!(text, ["012", "013", "014", "023", "024", "034", "123", "124", "134", "234"]);
}

#[test]
fn positions_are_those_of_the_sorted_list() {
    for (members, size) in (1..=8).flat_map(|n| (1..=n).map(move |t| (n, t))).chain([(15, 11), (100, 2), (100, 99)]) {
        let subsets: Vec<Vec<u16>> = Subsets::new(members, size).collect();
        assert!(subsets.is_sorted(), "{size} of {members}");
        assert_eq!(subsets.len(), choose(members.into(), size.into()));
        for (expected, subset) in subsets.iter().enumerate() {
            assert_eq!(subset.len(), usize::from(size));
            assert_eq!(position(subset, members), Some(expected), "{subset:?} of {members}");
        }
    }
}

#[test]
fn what_does_not_increase_below_the_number_of_members_is_no_subset() {
    for wrong in [&[][..], &[0, 1, 5], &[1, 0, 2], &[0, 1, 1], &[0, 0, 1], &[u16::MAX, 0, 1]] {
        assert_eq!(position(wrong, 5), None, "{wrong:?}");
    }
}

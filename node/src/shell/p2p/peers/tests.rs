use super::*;

#[test]
fn what_a_peer_says_is_fit_for_a_log() {
    assert_eq!(shown("causeway/1"), "causeway/1");
    assert_eq!(shown("a\n\u{1b}[31mb"), "a[31mb");
    assert_eq!(shown("\u{202e}x").find('\u{202e}'), None);
    assert_eq!(shown(&"x".repeat(10_000)).chars().count(), SHOWN_MAX);
}

use super::*;

#[test]
fn a_bucket_lets_through_its_burst_and_then_its_rate() {
    let start = Instant::now();
    let mut bucket = Bucket::new();
    assert_eq!((0..9).filter(|_| bucket.take(start, 2, 5)).count(), 5);
    let later = start + Duration::from_secs(1);
    assert_eq!((0..9).filter(|_| bucket.take(later, 2, 5)).count(), 2);
    let much_later = start + Duration::from_secs(3_600);
    assert_eq!((0..9).filter(|_| bucket.take(much_later, 2, 5)).count(), 5);
    // A clock that goes back gives nothing.
    assert!(!bucket.take(start, 2, 5));
}

#[test]
fn what_a_peer_says_is_fit_for_a_log() {
    assert_eq!(shown("causeway/1"), "causeway/1");
    assert_eq!(shown("a\n\u{1b}[31mb"), "a[31mb");
    assert_eq!(shown("\u{202e}x").find('\u{202e}'), None);
    assert_eq!(shown(&"x".repeat(10_000)).chars().count(), SHOWN_MAX);
}

//! Text of people: the bytes of a file as some editor wrote them, and the form in which two texts that look alike are one.

use unicode_normalization::UnicodeNormalization as _;
use zeroize::Zeroizing;

/// What some editors write before everything else; in UTF-16 it says which byte comes first.
const BYTE_ORDER_MARK: char = '\u{feff}';

/// The text in these bytes, without a byte-order mark: UTF-8, or with such a mark UTF-16. None if it is neither. Its memory
/// is wiped.
pub fn decode(bytes: &[u8]) -> Option<Zeroizing<String>> {
    let units: fn([u8; 2]) -> u16 = match bytes {
        [0xff, 0xfe, ..] => u16::from_le_bytes,
        [0xfe, 0xff, ..] => u16::from_be_bytes,
        _ => {
            let text = std::str::from_utf8(bytes).ok()?;
            return Some(Zeroizing::new(text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(text).to_owned()));
        }
    };
    let (pairs, []) = bytes[2..].as_chunks::<2>() else { return None };
    // Room for all of it at once: a text that grows leaves copies behind.
    let mut text = Zeroizing::new(String::with_capacity(3 * pairs.len()));
    for character in char::decode_utf16(pairs.iter().map(|pair| units(*pair))) {
        text.push(character.ok()?);
    }
    Some(text)
}

/// The text in the form that BIP39 takes secrets in: Unicode's NFKD. Accents and letters are apart, and spaces of every kind
/// that do not break lines are spaces. Its memory is wiped.
pub fn nfkd(text: &str) -> Zeroizing<String> {
    gather(|| text.nfkd())
}

/// The text with letters and accents in one where there is such a letter (NFC).
pub(crate) fn nfc(text: &str) -> Zeroizing<String> {
    gather(|| text.nfc())
}

/// The text with letters and accents apart (NFD).
pub(crate) fn nfd(text: &str) -> Zeroizing<String> {
    gather(|| text.nfd())
}

/// A text of these characters, with room for all of them at once.
fn gather<I: Iterator<Item = char>>(characters: impl Fn() -> I) -> Zeroizing<String> {
    let mut text = Zeroizing::new(String::with_capacity(characters().map(char::len_utf8).sum()));
    characters().for_each(|character| text.push(character));
    text
}

/// Without the byte-order mark that it may begin with.
pub(crate) fn without_mark(text: &str) -> &str {
    text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The bytes of a text in UTF-16 with its mark.
    fn utf16(text: &str, bytes: fn(u16) -> [u8; 2]) -> Vec<u8> {
        format!("{BYTE_ORDER_MARK}{text}").encode_utf16().flat_map(bytes).collect()
    }

    #[test]
    fn text_is_read_whatever_an_editor_made_of_it() {
        let text = "caf\u{e9} \u{1f511}\r\nline";
        for bytes in [
            text.as_bytes().to_vec(),
            format!("\u{feff}{text}").into_bytes(),
            utf16(text, u16::to_le_bytes),
            utf16(text, u16::to_be_bytes),
        ] {
            assert_eq!(decode(&bytes).unwrap().as_str(), text);
        }
        assert_eq!(decode(b"").unwrap().as_str(), "");
        for bytes in
            [b"caf\xe9".as_slice(), &[0xff, 0xfe, b'a'], &[0xff, 0xfe, 0x3d, 0xd8], &[0xfe, 0xff, 0xdd, 0x11], &[0x80]]
        {
            assert_eq!(decode(bytes), None, "{bytes:x?}");
        }
        assert_eq!(decode(&[0xff, 0xfe]).unwrap().as_str(), "");
    }

    #[test]
    fn texts_that_look_alike_are_one() {
        for (one, other) in [
            ("caf\u{e9}", "cafe\u{301}"),
            ("a\u{a0}b", "a b"),
            ("a\u{3000}b", "a b"),
            ("\u{ff41}\u{fb01}", "afi"),
            ("\u{ac00}", "\u{1100}\u{1161}"),
        ] {
            assert_ne!(one, other);
            assert_eq!(nfkd(one).as_str(), nfkd(other).as_str(), "{one}");
        }
        assert_eq!(nfkd("caf\u{e9}").as_str(), "cafe\u{301}");
        assert_eq!((nfc("e\u{301}").as_str(), nfd("\u{e9}").as_str()), ("\u{e9}", "e\u{301}"));
    }
}

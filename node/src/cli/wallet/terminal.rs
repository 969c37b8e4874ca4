//! Questions to whoever sits at the terminal. They go to standard error: standard output is for results.

use std::io::{self, BufRead, IsTerminal as _, Read as _, Write as _};

use zeroize::Zeroizing;

use super::Lines;
use crate::wallet::WalletError;

/// Shows what is about to happen, and asks whether it shall.
///
/// # Errors
/// The answer is not yes, or nobody can be asked.
pub(super) fn confirm(yes: bool, question: &str, what: impl FnOnce(&mut Lines)) -> Result<(), WalletError> {
    if yes {
        return Ok(());
    }
    if !io::stdin().is_terminal() {
        return Err(WalletError::NobodyToAsk);
    }
    let mut lines = Lines::default();
    what(&mut lines);
    let mut err = io::stderr().lock();
    write!(err, "{}{question} (yes/no) ", lines.0).and_then(|()| err.flush()).map_err(WalletError::Terminal)?;
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer).map_err(WalletError::Terminal)?;
    match answer.trim().to_ascii_lowercase().as_str() {
        "y" | "yes" => Ok(()),
        _ => Err(WalletError::Declined),
    }
}

/// Most bytes of a mnemonic: 24 words, as an editor wrote them.
pub(super) const WORDS_BYTES_MAX: usize = 16 << 10;

/// The words of a mnemonic: typed without being shown, or the first line of standard input, as bytes.
///
/// # Errors
/// Nothing can be read.
pub(super) fn mnemonic() -> Result<Zeroizing<Vec<u8>>, WalletError> {
    if io::stdin().is_terminal() {
        let typed = rpassword::prompt_password("The words of the wallet, in their order (not shown): ");
        return typed.map(|typed| Zeroizing::new(typed.into_bytes())).map_err(WalletError::Terminal);
    }
    first_line(&mut io::stdin().lock()).map_err(WalletError::Terminal)
}

/// The first line of what is read, in UTF-8 or UTF-16.
fn first_line(input: &mut impl BufRead) -> io::Result<Zeroizing<Vec<u8>>> {
    // Room for all of it at once: a buffer that grows leaves copies behind.
    let mut line = Zeroizing::new(Vec::with_capacity(WORDS_BYTES_MAX + 1));
    input.take(WORDS_BYTES_MAX as u64).read_until(b'\n', &mut line)?;
    // The second byte of the line's end.
    if line.starts_with(&[0xff, 0xfe]) && line.len() % 2 == 1 {
        input.take(1).read_to_end(&mut line)?;
    }
    Ok(line)
}

/// A remark beside the results.
pub(super) fn remark(text: &str) {
    // Nobody is there to be told that standard error is closed.
    let _ = writeln!(io::stderr(), "{text}");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wallet::keys::read_mnemonic;

    #[test]
    fn the_first_line_holds_the_words_in_every_encoding() {
        let words = "abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon about";
        let text = format!("\u{feff}{words}\r\nanother line");
        let utf16 = |bytes: fn(u16) -> [u8; 2]| text.encode_utf16().flat_map(bytes).collect::<Vec<u8>>();
        for bytes in [text.clone().into_bytes(), utf16(u16::to_le_bytes), utf16(u16::to_be_bytes)] {
            let line = first_line(&mut bytes.as_slice()).unwrap();
            assert_eq!(read_mnemonic(&line).unwrap().to_string(), words);
        }
        assert_eq!(first_line(&mut [b'a'; 100_000].as_slice()).unwrap().len(), WORDS_BYTES_MAX);
    }
}

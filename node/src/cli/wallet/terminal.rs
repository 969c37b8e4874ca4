//! Questions to whoever sits at the terminal. They go to standard error: standard output is for results.

use std::io::{self, BufRead as _, IsTerminal as _, Write as _};

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

/// The words of a mnemonic: typed without being shown, or the first line of standard input.
///
/// # Errors
/// Nothing can be read.
pub(super) fn mnemonic() -> Result<Zeroizing<String>, WalletError> {
    if io::stdin().is_terminal() {
        let typed = rpassword::prompt_password("The words of the wallet, in their order (not shown): ");
        return typed.map(Zeroizing::new).map_err(WalletError::Terminal);
    }
    let mut line = Zeroizing::new(String::with_capacity(1_024));
    io::stdin().lock().read_line(&mut line).map_err(WalletError::Terminal)?;
    Ok(line)
}

/// A remark beside the results.
pub(super) fn remark(text: &str) {
    // Nobody is there to be told that standard error is closed.
    let _ = writeln!(io::stderr(), "{text}");
}

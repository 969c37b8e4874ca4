//! The wallet's keys: one mnemonic (BIP39), from which all keys come.
//!
//! | path | what |
//! |---|---|
//! | `m/86'/c'/0'/0/i` | address i (BIP86) |
//! | `m/86'/c'/0'/1/i` | change |
//! | `m/86'/c'/0'/2/i` | the refund key of the deposit address that credits address i |
//!
//! c is 1: a Causeway chain has the addresses of a Bitcoin test network, and every wallet derives those by coin type 1
//! (SLIP-44), whatever the coins are worth. So any BIP86 wallet on that network finds the same coins. The refund key needs no
//! record: with the mnemonic and the chainspec all deposits are found again.

use bdk_wallet::KeychainKind;
use bdk_wallet::keys::bip39::{self, Language, Mnemonic};
use bdk_wallet::template::Bip86Public;
use bitcoin::bip32::{ChildNumber, DerivationPath, Fingerprint, Xpriv, Xpub};
use bitcoin::key::Secp256k1;
use bitcoin::secp256k1::{All, Keypair, XOnlyPublicKey};
use bitcoin::{Network, NetworkKind};
use causeway_federation::text::{decode, nfkd};
use rand::TryRngCore;
use rand::rngs::OsRng;
use zeroize::Zeroizing;

use super::WalletError;

/// SLIP-44's type of test networks.
const COIN_TYPE: u32 = 1;

/// The branch of the refund keys.
const REFUND_BRANCH: u32 = 2;

/// All keys of a wallet. Nothing of them is shown.
pub struct Keys {
    secp: Secp256k1<All>,
    master: Xpriv,
    account: Xpriv,
    account_public: Xpub,
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keys").field("fingerprint", &self.fingerprint()).finish_non_exhaustive()
    }
}

impl Drop for Keys {
    fn drop(&mut self) {
        self.master.private_key.non_secure_erase();
        self.account.private_key.non_secure_erase();
    }
}

/// A new mnemonic of 12 words, from the randomness of the operating system.
///
/// # Errors
/// There is none.
pub fn new_mnemonic() -> Result<Mnemonic, WalletError> {
    let mut entropy = Zeroizing::new([0_u8; 16]);
    OsRng.try_fill_bytes(&mut *entropy).map_err(|_| WalletError::Randomness)?;
    Ok(Mnemonic::from_entropy_in(Language::English, &*entropy).expect("16 bytes make 12 words"))
}

/// Why a text is no mnemonic. No word of it is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MnemonicError {
    /// The file is no text.
    #[error("the words are in no text: write them as UTF-8, or as UTF-16 with a byte-order mark")]
    NotText,
    /// Too few words, or too many.
    #[error("{got} words are no mnemonic: give all of its 12, 15, 18, 21 or 24 English words of BIP39, in their order")]
    Count {
        /// How many there are.
        got: usize,
    },
    /// A word that is none.
    #[error("word {number} is none of BIP39's English words: correct its spelling")]
    Unknown {
        /// Its place, from 1.
        number: usize,
    },
    /// The words do not belong together.
    #[error(
        "every word is one of BIP39's, but together they are no mnemonic: one is another word, or in another place; compare them with what you wrote down"
    )]
    Checksum,
}

/// The mnemonic that was typed, pasted, or numbered as "wallet create" shows it: 12, 15, 18, 21 or 24 English words, in
/// BIP39's normal form (NFKD), with whatever is between them.
///
/// # Errors
/// It is none; which word is wrong.
pub fn parse_mnemonic(text: &str) -> Result<Mnemonic, WalletError> {
    // What is not seen is no part of a word: soft hyphens, joiners, marks of direction and of the byte order.
    let is_unseen = |c: char| matches!(c, '\u{ad}' | '\u{200c}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{2064}' | '\u{feff}');
    let normal = nfkd(text);
    let words = normal.split(|c: char| c.is_whitespace() || c == '\u{200b}');
    let mut plain = Zeroizing::new(String::with_capacity(normal.len() + 1));
    let mut count = 0;
    for word in
        words.map(|word| word.trim_matches(|c: char| is_unseen(c) || c.is_ascii_digit() || c.is_ascii_punctuation()))
    {
        if !word.is_empty() {
            count += 1;
            plain.extend(word.chars().filter(|c| !is_unseen(*c)).map(|c| c.to_ascii_lowercase()).chain([' ']));
        }
    }
    let wrong = |error| match error {
        bip39::Error::BadWordCount(got) => MnemonicError::Count { got },
        bip39::Error::UnknownWord(place) => MnemonicError::Unknown { number: place + 1 },
        bip39::Error::InvalidChecksum => MnemonicError::Checksum,
        // What 12 to 24 English words can never be.
        bip39::Error::BadEntropyBitCount(_) | bip39::Error::AmbiguousLanguages(_) => {
            MnemonicError::Count { got: count }
        }
    };
    Mnemonic::parse_in_normalized(Language::English, plain.trim_end())
        .map_err(|error| WalletError::Mnemonic(wrong(error)))
}

/// The mnemonic in the bytes of a file, in UTF-8 or UTF-16.
///
/// # Errors
/// It is none; which word is wrong.
pub fn read_mnemonic(bytes: &[u8]) -> Result<Mnemonic, WalletError> {
    parse_mnemonic(&decode(bytes).ok_or(WalletError::Mnemonic(MnemonicError::NotText))?)
}

impl Keys {
    /// The keys of a mnemonic on a chain whose addresses are those of this network.
    pub fn new(mnemonic: &Mnemonic, identity: Network) -> Self {
        let secp = Secp256k1::new();
        let seed = Zeroizing::new(mnemonic.to_seed(""));
        let master = Xpriv::new_master(NetworkKind::from(identity), &*seed).expect("nobody finds a seed without a key");
        let path = DerivationPath::from_iter([
            ChildNumber::Hardened { index: 86 },
            ChildNumber::Hardened { index: COIN_TYPE },
            ChildNumber::Hardened { index: 0 },
        ]);
        let account = master.derive_priv(&secp, &path).expect("nobody finds a path without a key");
        let account_public = Xpub::from_priv(&secp, &account);
        Self { secp, master, account, account_public }
    }

    /// The descriptor of a branch, without a secret.
    pub fn descriptor(&self, keychain: KeychainKind) -> Bip86Public<Xpub> {
        Bip86Public(self.account_public, self.fingerprint(), keychain)
    }

    /// The key that signs, by the paths that a PSBT names.
    pub(super) fn master(&self) -> &Xpriv {
        &self.master
    }

    pub(super) fn secp(&self) -> &Secp256k1<All> {
        &self.secp
    }

    /// Of the master key.
    pub fn fingerprint(&self) -> Fingerprint {
        self.master.fingerprint(&self.secp)
    }

    /// The refund key of deposits that credit the address of this number; its number is below 2^31.
    pub fn refund_key(&self, index: u32) -> XOnlyPublicKey {
        let path = refund_path(index);
        let key = self.account_public.derive_pub(&self.secp, &path).expect("nobody finds a path without a key");
        key.public_key.x_only_public_key().0
    }

    /// The secret half of [`Keys::refund_key`].
    pub(super) fn refund_keypair(&self, index: u32) -> Keypair {
        let key = self.account.derive_priv(&self.secp, &refund_path(index)).expect("nobody finds a path without a key");
        key.to_keypair(&self.secp)
    }
}

fn refund_path(index: u32) -> [ChildNumber; 2] {
    [ChildNumber::Normal { index: REFUND_BRANCH }, ChildNumber::Normal { index }]
}

#[cfg(test)]
mod tests {
    use bdk_wallet::Wallet;

    use super::*;

    /// BIP86's own mnemonic.
    const MNEMONIC: &str =
        "abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon about";

    #[test]
    fn addresses_are_those_of_every_bip86_wallet_of_the_network() {
        let keys = Keys::new(&parse_mnemonic(MNEMONIC).unwrap(), Network::Signet);
        assert_eq!(keys.fingerprint().to_string(), "73c5da0a");
        let wallet = Wallet::create(keys.descriptor(KeychainKind::External), keys.descriptor(KeychainKind::Internal));
        let wallet = wallet.network(Network::Signet).create_wallet_no_persist().unwrap();
        let first = wallet.peek_address(KeychainKind::External, 0).address.to_string();
        assert_eq!(first, "tb1p8wpt9v4frpf3tkn0srd97pksgsxc5hs52lafxwru9kgeephvs7rqlqt9zj");
    }

    #[test]
    fn refund_keys_are_apart_from_all_addresses_and_have_their_secret_half() {
        let keys = Keys::new(&parse_mnemonic(MNEMONIC).unwrap(), Network::Regtest);
        for index in [0, 1, 77] {
            assert_eq!(keys.refund_keypair(index).x_only_public_key().0, keys.refund_key(index));
        }
        assert_ne!(keys.refund_key(0), keys.refund_key(1));
        assert!(!format!("{keys:?}").contains("prv"));
    }

    fn typed(text: &str) -> Result<Mnemonic, MnemonicError> {
        parse_mnemonic(text).map_err(|error| match error {
            WalletError::Mnemonic(error) => error,
            other => panic!("{other}"),
        })
    }

    #[test]
    fn a_mnemonic_is_read_as_people_type_it() {
        let right = typed(MNEMONIC).unwrap();
        let numbered: String =
            MNEMONIC.split(' ').zip(1..).map(|(word, number)| format!("{number:>4} {word:<10}\n")).collect();
        let listed: String =
            MNEMONIC.split(' ').zip(1..).map(|(word, number)| format!("{number}. {word},\r\n")).collect();
        let wide: String = MNEMONIC
            .chars()
            .map(|c| if c == ' ' { '\u{3000}' } else { char::from_u32(c as u32 + 0xfee0).unwrap() })
            .collect();
        for text in [
            format!("  {}\n", MNEMONIC.to_uppercase().replace(' ', "  ")),
            MNEMONIC.replace(' ', "\r\n"),
            MNEMONIC.replace(' ', "\t"),
            MNEMONIC.replace(' ', "\u{a0}"),
            MNEMONIC.replace(' ', "\u{2009}\u{202f}"),
            MNEMONIC.replace(' ', "\u{3000}"),
            MNEMONIC.replace(' ', "\u{200b}"),
            MNEMONIC.replace("band", "ba\u{ad}nd\u{200d}"),
            format!("\u{feff}{MNEMONIC}\u{200e}"),
            format!("\"{MNEMONIC}\""),
            numbered,
            listed,
            wide,
        ] {
            assert_eq!(typed(&text), Ok(right.clone()), "{text:?}");
        }
        for (wrong, error) in [
            ("", MnemonicError::Count { got: 0 }),
            ("abandon", MnemonicError::Count { got: 1 }),
            (&format!("{MNEMONIC} about"), MnemonicError::Count { got: 13 }),
            (&MNEMONIC.replace("about", "abandon"), MnemonicError::Checksum),
            (&MNEMONIC.replace("about", "abuot"), MnemonicError::Unknown { number: 12 }),
            (&MNEMONIC.replacen("abandon", "abando", 1), MnemonicError::Unknown { number: 1 }),
            (&MNEMONIC.replacen("abandon", "aband\u{f6}n", 1), MnemonicError::Unknown { number: 1 }),
            (&MNEMONIC.replace("about", "ab-out"), MnemonicError::Unknown { number: 12 }),
        ] {
            assert_eq!(typed(wrong), Err(error), "{wrong}");
        }
        assert!(MnemonicError::Unknown { number: 1 }.to_string().starts_with("word 1 "));
        let (one, two) = (new_mnemonic().unwrap(), new_mnemonic().unwrap());
        assert_eq!(one.word_count(), 12);
        assert_ne!(one, two);
    }

    #[test]
    fn a_file_with_the_words_is_read_whatever_an_editor_made_of_it() {
        let right = typed(MNEMONIC).unwrap();
        let text = format!("\u{feff}{}\r\n", MNEMONIC.replace(' ', "\u{a0}"));
        let utf16 = |bytes: fn(u16) -> [u8; 2]| text.encode_utf16().flat_map(bytes).collect::<Vec<u8>>();
        for bytes in [text.clone().into_bytes(), utf16(u16::to_le_bytes), utf16(u16::to_be_bytes)] {
            assert_eq!(read_mnemonic(&bytes).unwrap(), right);
        }
        for bytes in [b"abandon\xa0abandon".as_slice(), &[0xff, 0xfe, 0x61]] {
            assert!(matches!(read_mnemonic(bytes), Err(WalletError::Mnemonic(MnemonicError::NotText))));
        }
    }
}

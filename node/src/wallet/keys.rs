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
use bdk_wallet::keys::bip39::{Language, Mnemonic};
use bdk_wallet::template::Bip86Public;
use bitcoin::bip32::{ChildNumber, DerivationPath, Fingerprint, Xpriv, Xpub};
use bitcoin::key::Secp256k1;
use bitcoin::secp256k1::{All, Keypair, XOnlyPublicKey};
use bitcoin::{Network, NetworkKind};
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

/// The mnemonic that was typed: 12, 15, 18, 21 or 24 English words.
///
/// # Errors
/// It is none; which word is wrong.
pub fn parse_mnemonic(text: &str) -> Result<Mnemonic, WalletError> {
    let text = Zeroizing::new(text.split_whitespace().collect::<Vec<_>>().join(" ").to_lowercase());
    Mnemonic::parse_in(Language::English, text.as_str()).map_err(WalletError::Mnemonic)
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

    #[test]
    fn a_mnemonic_is_read_as_people_type_it() {
        let typed = format!("  {}\n", MNEMONIC.to_uppercase().replace(' ', "  "));
        assert_eq!(parse_mnemonic(&typed).unwrap(), parse_mnemonic(MNEMONIC).unwrap());
        for wrong in ["", "abandon", &MNEMONIC.replace("about", "abandon"), &MNEMONIC.replace("about", "abuot")] {
            assert!(matches!(parse_mnemonic(wrong), Err(WalletError::Mnemonic(_))), "{wrong}");
        }
        let (one, two) = (new_mnemonic().unwrap(), new_mnemonic().unwrap());
        assert_eq!(one.word_count(), 12);
        assert_ne!(one, two);
    }
}

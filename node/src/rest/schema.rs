//! What the OpenAPI document says of texts that are more than text.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

/// Defines a kind of text by its name, its pattern and what it is.
macro_rules! texts {
    ($($(#[$doc:meta])* $name:ident = $pattern:literal, $description:literal;)*) => {$(
        $(#[$doc])*
        pub(super) struct $name;

        impl JsonSchema for $name {
            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({ "type": "string", "pattern": $pattern, "description": $description })
            }
        }
    )*};
}

texts! {
    /// A hash in display order.
    Hash = "^[0-9a-f]{64}$", "A hash of 32 bytes, reversed as Bitcoin shows it.";
    /// A key.
    XOnlyKey = "^[0-9a-f]{64}$", "An x-only public key (BIP340).";
    /// A compressed key.
    PublicKey = "^0[23][0-9a-f]{64}$", "A compressed public key.";
    /// Bytes.
    HexBytes = "^([0-9a-f]{2})*$", "Bytes in hexadecimal digits.";
    /// A header.
    HeaderHex = "^[0-9a-f]{160}$", "A block header: 80 bytes in hexadecimal digits.";
    /// A BIP340 signature.
    SignatureHex = "^[0-9a-f]{128}$", "A BIP340 signature: 64 bytes in hexadecimal digits.";
    /// An outpoint.
    Outpoint = "^[0-9a-f]{64}:[0-9]+$", "txid:vout.";
    /// A whole decimal number.
    Decimal = "^[0-9]+$", "A whole decimal number.";
}

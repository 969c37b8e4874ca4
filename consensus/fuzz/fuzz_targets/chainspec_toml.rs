//! Fuzz target: see `causeway_fuzz::chainspec_toml`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    causeway_fuzz::chainspec_toml(data);
});

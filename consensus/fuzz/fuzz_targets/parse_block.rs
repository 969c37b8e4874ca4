//! Fuzz target: see `causeway_fuzz::parse_block`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    causeway_fuzz::parse_block(data);
});

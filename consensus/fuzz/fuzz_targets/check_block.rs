//! Fuzz target: see `causeway_fuzz::check_block`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    causeway_fuzz::check_block(data);
});

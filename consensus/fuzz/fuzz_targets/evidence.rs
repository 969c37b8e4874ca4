//! Fuzz target: see `causeway_fuzz::evidence`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    causeway_fuzz::evidence(data);
});

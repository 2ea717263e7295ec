//! Every fuzzing program: the name it was built under says which target it is.
#![no_main]

use libfuzzer_sys::Corpus;

libfuzzer_sys::fuzz_target!(|data: &[u8]| -> Corpus {
    if fuzz_targets::run(env!("CARGO_BIN_NAME"), data) { Corpus::Keep } else { Corpus::Reject }
});

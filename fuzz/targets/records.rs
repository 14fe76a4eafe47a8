//! The records of a link, sealed by its other end and meddled with: nothing arrives that was not said, in any pieces.
#![no_main]

use libfuzzer_sys::fuzz_target;
use phantom_fuzz::records::{Op, play};

fuzz_target!(|case: (u8, Vec<Op>)| {
    play(case.0, case.1);
});

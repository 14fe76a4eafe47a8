//! The gate's reflector: any packets and verdicts in any order.
#![no_main]

use libfuzzer_sys::fuzz_target;
use phantom_fuzz::gate::{ReflectorOp, reflect};

fuzz_target!(|ops: Vec<ReflectorOp>| {
    reflect(ops);
});

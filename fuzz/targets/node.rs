//! A whole network of nodes whose links the fuzzer owns: no panic, bounded tables, and nothing left when all is over.
#![no_main]

use libfuzzer_sys::fuzz_target;
use phantom_fuzz::net::{Net, Op};

fuzz_target!(|ops: Vec<Op>| {
    let mut net = Net::new();
    ops.into_iter().take(128).for_each(|op| net.run(op));
    net.finish();
});

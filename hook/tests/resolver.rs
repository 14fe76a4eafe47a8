//! The resolver functions of C: as libc answers, so does the hook; freed, bounded, and without a question to DNS.
#![allow(clippy::unwrap_used)] // helpers of tests fail by panic

mod world;

use world::{World, compile, run};

#[test]
fn answers_are_those_of_libc() {
    let world = World::new();
    let victim = compile(&world, "compare", &[]);
    let (hooked, bare) = (run(&mut world.hooked(&victim)), run(&mut world.bare(&victim)));
    assert_eq!((hooked.code, bare.code), (Some(0), Some(0)), "{} {}", hooked.err, bare.err);
    let mut lines = 0;
    for (hooked, bare) in hooked.out.lines().zip(bare.out.lines()) {
        assert_eq!(hooked, bare);
        lines += 1;
    }
    assert!(lines > 3000, "only {lines} answers");
    assert_eq!(hooked.out.lines().count(), bare.out.lines().count());
}

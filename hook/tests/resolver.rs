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

#[test]
fn packets_and_odd_ends_are_answered() {
    let world = World::new();
    let victim = compile(&world, "packets", &["-lresolv", "-lanl"]);
    let ran = run(&mut world.hooked(&victim));
    assert_eq!((ran.out.as_str(), ran.code), ("", Some(0)), "{ran:?}");
    assert_eq!(world.questions(), 0);
}

#[test]
fn interfaces_are_those_of_the_phantom_namespace() {
    let world = World::new();
    let victim = compile(&world, "interfaces", &[]);
    let (hooked, inside) = (run(&mut world.hooked(&victim)), run(&mut world.inside(&victim)));
    assert_eq!(hooked.out, inside.out, "{}", hooked.err);
    assert!(hooked.out.contains("fd70::99"), "{}", hooked.out);
    assert!(!run(&mut world.bare(&victim)).out.contains("fd70::99"));
}

#[test]
fn memory_is_used_and_freed_rightly() {
    if !world::installed("valgrind") {
        return;
    }
    let world = World::new();
    for name in ["compare", "packets", "interfaces"] {
        let victim = compile(&world, name, &["-lresolv", "-lanl"]);
        let mut valgrind = world.hooked("valgrind");
        valgrind.args(["--quiet", "--leak-check=full", "--error-exitcode=9"]).arg(&victim);
        let ran = run(&mut valgrind);
        assert_eq!(ran.code, Some(0), "{name}: {ran:?}");
    }
}

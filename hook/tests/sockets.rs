//! `socket` under libphantom.so keeps its promises, and programs that are started keep the library.
#![allow(clippy::unwrap_used)] // helpers of tests fail by panic

mod world;

use world::{World, compile, run};

#[test]
fn sockets_are_as_the_kernel_gives_them() {
    let world = World::new();
    let victim = compile(&world, "sockets", &["-pthread"]);
    let ran = run(&mut world.hooked(&victim));
    assert_eq!((ran.out.as_str(), ran.code), ("", Some(0)), "{ran:?}");
}

#[test]
fn received_sockets_of_other_networks_are_dead() {
    let world = World::new();
    let victim = compile(&world, "received", &[]);
    let ran = run(&mut world.hooked(&victim));
    assert_eq!((ran.out.as_str(), ran.code), ("", Some(0)), "{ran:?}");
}

#[test]
fn programs_under_filters_of_their_own_are_not_killed_for_our_questions() {
    let world = World::new();
    let victim = compile(&world, "filtered", &[]);
    let ran = run(&mut world.hooked(&victim));
    assert_eq!((ran.out.as_str(), ran.code), ("", Some(0)), "{ran:?}");
}

/// The child goes on in the same call, and takes nothing that is its parent's: what both get is what each would get alone.
#[test]
fn children_that_begin_in_the_midst_of_a_call_make_it_anew() {
    for (what, emulate) in [("sockets", None), ("emulated", Some("1"))] {
        let world = World::new();
        let victim = compile(&world, "midst", &[]);
        world.disturb();
        let ran = run(world.hooked(&victim).arg(what).envs(emulate.map(|yes| ("PHANTOM_EMULATE", yes))));
        assert_eq!((ran.out.as_str(), ran.code), ("", Some(0)), "{what}: {ran:?}");
    }
}

/// Ways to start a program; each clears the environment before.
const WAYS: [&str; 21] = [
    "execve",
    "execve-null",
    "execve-long",
    "execve-other",
    "execv",
    "execvp",
    "execvpe",
    "fexecve",
    "execveat",
    "execl",
    "execl-long",
    "execlp",
    "execle",
    "syscall",
    "vfork",
    "posix_spawn",
    "posix_spawnp",
    "system",
    "popen",
    "wordexp",
    "execve-missing",
];

#[test]
fn every_way_to_start_a_program_keeps_the_library() {
    let world = World::new();
    let start = compile(&world, "start", &[]);
    let told =
        world.write("told.sh", "#!/bin/sh\necho $LD_PRELOAD $PHANTOM_SOCKET $PHANTOM_IDENTITY\nexec /usr/bin/env\n");
    run(world.bare("chmod").arg("+x").arg(&told));
    let library = world::library().display().to_string();
    let socket = world.path("daemon.sock").display().to_string();
    for way in WAYS {
        // From another directory, with a library that was named relative to this one.
        let mut command = world.hooked(&start);
        command.arg(way).arg(&told).env("PHANTOM_IDENTITY", "shop");
        let ran = run(&mut command);
        assert_eq!(ran.code, Some(0), "{way} {ran:?}");
        let expected = match way {
            "execl-long" => "2 3 4 5 6 7 8 9 10 11 12".to_owned(),
            "execve-missing" => String::new(),
            "execve-other" => format!("{library}:libc.so.6 {socket} shop"),
            _ => format!("{library} {socket} shop"),
        };
        let first = ran.out.lines().next().unwrap_or_default();
        let first = if way == "wordexp" { &ran.out.lines().take(3).collect::<Vec<_>>().join(" ") } else { first };
        assert_eq!(first, expected, "{way} {ran:?}");
        if matches!(way, "execlp" | "execle") {
            assert!(["A=1", "B=2", "C=3", "D=4", "E=5"].iter().all(|set| ran.out.contains(set)), "{way} {ran:?}");
        }
        if matches!(way, "execvpe" | "fexecve" | "execveat" | "execle") {
            assert!(ran.out.contains("KEPT=yes"), "{way} {ran:?}");
        }
    }
    let ran = run(world.hooked(&start).args(["posix_spawn-missing", "x"]));
    assert_eq!(ran.code, Some(libc::ENOENT), "{ran:?}");
}

#[test]
fn a_library_named_relatively_is_found_from_elsewhere() {
    let world = World::new();
    let mut command = world.hooked("/bin/sh");
    let library = world::library();
    command.current_dir(library.parent().unwrap()).env("LD_PRELOAD", "./libphantom.so");
    let ran = run(command.args(["-c", "cd /; curl -s http://web.phantom/; curl -s http://web.phantom/"]));
    assert_eq!(ran.out, "phantom IPv6\nphantom IPv6\n", "{ran:?}");
    // The shell was loaded from its directory; the programs after `cd` only by the absolute path.
    assert!(!ran.err.contains("cannot be preloaded"), "{ran:?}");
}

//! The filter of system calls, as a classic BPF program: what a program under it may ask the kernel for sockets.
//!
//! Only registers are looked at, so nothing can change between the look and the call. Filters add up and the strictest
//! answer counts: a program can tighten this one, never loosen it.

use std::ops::RangeInclusive;

use libc::{c_long, sock_filter};
use phantom_ipc::hook::policy::{INET, INET6, NETLINK, NO_SUCH_FAMILY, NOT_PERMITTED, PACKET, UNIX};

/// The architecture that programs are built for, as the kernel reports it.
#[cfg(target_arch = "x86_64")]
pub(crate) const ARCHITECTURE: u32 = 0xc000_003e;
/// The architecture that programs are built for, as the kernel reports it.
#[cfg(target_arch = "aarch64")]
pub(crate) const ARCHITECTURE: u32 = 0xc000_00b7;

/// From here on numbers are those of x32, a second table with the same architecture.
const X32: u32 = 0x4000_0000;

/// Offsets in what the filter sees: number, architecture, the lower halves of arguments (little-endian machines).
const NUMBER: u32 = 0;
const ARCH: u32 = 4;
const FIRST: u32 = 16;
const SECOND: u32 = 24;

const LOAD: u16 = 0x20;
const EQUAL: u16 = 0x15;
const AT_LEAST: u16 = 0x35;
const ANY_OF: u16 = 0x45;
const RETURN: u16 = 0x06;

const ALLOW: u32 = libc::SECCOMP_RET_ALLOW;
const ASK: u32 = libc::SECCOMP_RET_USER_NOTIF;

/// Rings open and connect sockets without the calls that are looked at. Kernels without them say ENOSYS, and programs then
/// go without. BPF programs see packets of every network.
const NEVER: [(c_long, i32); 4] = [
    (libc::SYS_io_uring_setup, libc::ENOSYS),
    (libc::SYS_io_uring_enter, libc::ENOSYS),
    (libc::SYS_io_uring_register, libc::ENOSYS),
    (libc::SYS_bpf, libc::EPERM),
];

/// Doors to processes outside, for a program that is in no user namespace of its own: whoever is the same user may use
/// them. In its own the kernel refuses them by itself, and debuggers keep working inside.
///
/// Making namespaces is no door, and browsers build their sandboxes of them: a network of one's own has no way out, and
/// `socket()` is answered as before.
const DOORS: [(c_long, i32); 5] = [
    (libc::SYS_ptrace, libc::EPERM),
    (libc::SYS_process_vm_readv, libc::EPERM),
    (libc::SYS_process_vm_writev, libc::EPERM),
    (libc::SYS_pidfd_getfd, libc::EPERM),
    (libc::SYS_setns, libc::EPERM),
];

/// Questions about interfaces, by ioctl(2): from SIOCGIFNAME to the last of those about radio.
/// Emulated sockets are the daemon's, and would answer for the host's.
const INTERFACES: RangeInclusive<u32> = 0x8910..=0x8bff;

/// What the filter does about processes outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Doors {
    /// Nothing: a user namespace of the program's own keeps it from them.
    Walled,
    /// The calls that lead to them are refused.
    Shut,
}

/// Sockets for the Internet and of netlink are asked for from a supervisor.
pub(crate) fn ask(doors: Doors) -> Vec<sock_filter> {
    // Of two filters that want to ask, the later one's supervisor is asked, and it may let a call pass. As long as ours
    // lives the kernel permits no second one; a program that has killed it is to find the same.
    let one_only = [
        load(SECOND),
        jump(ANY_OF, libc::SECCOMP_FILTER_FLAG_NEW_LISTENER as u32, 0, 1),
        ret(error(libc::EBUSY)),
        ret(ALLOW),
    ];
    program(ASK, doors, libc::SYS_seccomp, &one_only)
}

/// No sockets but local ones: for programs whose other sockets come by descriptor passing.
pub(crate) fn deny(doors: Doors) -> Vec<sock_filter> {
    program(error(NO_SUCH_FAMILY), doors, libc::SYS_seccomp, &[])
}

/// The same for programs whose sockets are local ones of the daemon's: there are no interfaces.
pub(crate) fn emulate(doors: Doors) -> Vec<sock_filter> {
    let (first, last) = (*INTERFACES.start(), *INTERFACES.end());
    let ioctl = [
        load(SECOND),
        jump(AT_LEAST, first, 0, 2),
        jump(AT_LEAST, last + 1, 1, 0),
        ret(error(libc::ENODEV)),
        ret(ALLOW),
    ];
    program(error(NO_SUCH_FAMILY), doors, libc::SYS_ioctl, &ioctl)
}

const fn error(number: i32) -> u32 {
    // Error numbers are positive and small.
    libc::SECCOMP_RET_ERRNO | number as u32
}

/// `rule`: what becomes of one `more` call, if it is not let through.
fn program(internet: u32, doors: Doors, more: c_long, rule: &[sock_filter]) -> Vec<sock_filter> {
    let mut to = vec![load(ARCH)];
    // A program of another architecture has other numbers: int 0x80 on x86-64 would be a way past.
    to.extend([jump(EQUAL, ARCHITECTURE, 1, 0), ret(error(libc::ENOSYS)), load(NUMBER)]);
    if cfg!(target_arch = "x86_64") {
        to.extend([jump(AT_LEAST, X32, 0, 1), ret(error(libc::ENOSYS))]);
    }
    let doors: &[_] = if doors == Doors::Shut { &DOORS } else { &[] };
    for (number, why) in NEVER.iter().chain(doors) {
        to.extend([jump(EQUAL, call(*number), 0, 1), ret(error(*why))]);
    }
    let family = |number: i32| number.cast_unsigned();
    let pair = [
        load(FIRST),
        jump(EQUAL, family(UNIX), 0, 1),
        ret(ALLOW),
        // What the kernel says for families that have no pairs.
        ret(error(libc::EOPNOTSUPP)),
    ];
    let socket = [
        load(FIRST),
        jump(EQUAL, family(UNIX), 0, 1),
        ret(ALLOW),
        jump(EQUAL, family(INET), 3, 0),
        jump(EQUAL, family(INET6), 2, 0),
        jump(EQUAL, family(NETLINK), 1, 0),
        jump(EQUAL, family(PACKET), 1, 2),
        ret(internet),
        ret(error(NOT_PERMITTED)),
        ret(error(NO_SUCH_FAMILY)),
    ];
    if !rule.is_empty() {
        to.push(jump(EQUAL, call(more), 0, rule.len() as u8));
        to.extend(rule);
    }
    // All blocks are far shorter than the 255 instructions that a jump reaches.
    to.push(jump(EQUAL, call(libc::SYS_socketpair), 0, pair.len() as u8));
    to.extend(pair);
    to.push(jump(EQUAL, call(libc::SYS_socket), 0, socket.len() as u8));
    to.extend(socket);
    to.push(ret(ALLOW));
    to
}

/// Numbers of calls are below 2^30.
fn call(number: c_long) -> u32 {
    number as u32
}

fn load(offset: u32) -> sock_filter {
    sock_filter { code: LOAD, jt: 0, jf: 0, k: offset }
}

fn jump(code: u16, k: u32, jt: u8, jf: u8) -> sock_filter {
    sock_filter { code, jt, jf, k }
}

fn ret(k: u32) -> sock_filter {
    sock_filter { code: RETURN, jt: 0, jf: 0, k }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_one_supervisor() {
        let seccomp = |filter: &[sock_filter], flags| run(filter, ARCHITECTURE, libc::SYS_seccomp, flags);
        for flags in [8, 9, 8 | 32, 0x1_0000_0008] {
            assert_eq!(seccomp(&ask(Doors::Walled), flags), error(libc::EBUSY));
        }
        for flags in [0, 1, 2, 4, 16, 0x8_0000_0000] {
            assert_eq!(seccomp(&ask(Doors::Shut), flags), ALLOW);
        }
    }

    #[test]
    fn emulated_sockets_know_no_interfaces() {
        let asked = |filter: &[sock_filter], what| run(filter, ARCHITECTURE, libc::SYS_ioctl, what);
        for doors in [Doors::Walled, Doors::Shut] {
            for what in [0x8910, 0x8912, 0x8927, 0x8946, 0x8b15, 0x8bff, 0x7_0000_8927] {
                assert_eq!(asked(&emulate(doors), what), error(libc::ENODEV), "{what:x}");
                assert_eq!(asked(&deny(doors), what), ALLOW);
            }
            // FIOASYNC, FIONREAD, SIOCATMARK, and what is below and above.
            for what in [0x5452, 0x541b, 0x8905, 0x890f, 0x8c00] {
                assert_eq!(asked(&emulate(doors), what), ALLOW, "{what:x}");
            }
        }
    }

    /// What the kernel would make of a call: the few instructions there are, one after the other.
    fn run(program: &[sock_filter], arch: u32, number: c_long, first: u64) -> u32 {
        let (mut at, mut value) = (0, 0);
        loop {
            let one = program[at];
            at += 1;
            match (one.code, one.k) {
                (LOAD, NUMBER) => value = number as u32,
                (LOAD, ARCH) => value = arch,
                // The tests need one argument, wherever it stands.
                (LOAD, FIRST | SECOND) => value = first as u32,
                (EQUAL, k) => at += usize::from(if value == k { one.jt } else { one.jf }),
                (AT_LEAST, k) => at += usize::from(if value >= k { one.jt } else { one.jf }),
                (ANY_OF, k) => at += usize::from(if value & k != 0 { one.jt } else { one.jf }),
                (RETURN, k) => return k,
                other => panic!("{other:?}"),
            }
        }
    }

    const I386: u32 = 0x4000_0003;

    #[test]
    fn every_socket_but_local_ones_is_asked_for_or_refused() {
        for (filter, internet) in [(ask(Doors::Walled), ASK), (deny(Doors::Shut), error(libc::EAFNOSUPPORT))] {
            let socket = |family: i64| run(&filter, ARCHITECTURE, libc::SYS_socket, family.cast_unsigned());
            assert_eq!(socket(libc::AF_UNIX.into()), ALLOW);
            for family in [libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK] {
                assert_eq!(socket(family.into()), internet);
                // The kernel looks at the lower half of the register only.
                assert_eq!(socket(i64::from(family) | 0x7_0000_0000), internet);
                assert_eq!(run(&filter, ARCHITECTURE, libc::SYS_socketpair, family as u64), error(libc::EOPNOTSUPP));
            }
            assert_eq!(socket(libc::AF_PACKET.into()), error(libc::EPERM));
            for family in (0..64).chain([-1, i64::from(i32::MAX)]) {
                let known = [libc::AF_UNIX, libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK, libc::AF_PACKET];
                if !known.iter().any(|known| i64::from(*known) == family) {
                    assert_eq!(socket(family), error(libc::EAFNOSUPPORT), "{family}");
                }
            }
            assert_eq!(run(&filter, ARCHITECTURE, libc::SYS_socketpair, libc::AF_UNIX as u64), ALLOW);
        }
    }

    #[test]
    fn other_tables_of_calls_and_rings_do_not_exist() {
        let filter = ask(Doors::Walled);
        for number in 0..600 {
            assert_eq!(run(&filter, I386, number, 1), error(libc::ENOSYS), "{number}");
            if cfg!(target_arch = "x86_64") {
                let x32 = number + c_long::from(X32);
                assert_eq!(run(&filter, ARCHITECTURE, x32, 1), error(libc::ENOSYS), "{number}");
            }
        }
        for (number, why) in NEVER {
            assert_eq!(run(&filter, ARCHITECTURE, number, 0), error(why));
        }
    }

    #[test]
    fn doors_to_processes_outside_are_shut_where_no_wall_is() {
        for (number, why) in DOORS {
            assert_eq!(run(&ask(Doors::Walled), ARCHITECTURE, number, 0), ALLOW);
            assert_eq!(run(&ask(Doors::Shut), ARCHITECTURE, number, 0), error(why));
            assert_eq!(run(&deny(Doors::Shut), ARCHITECTURE, number, 0), error(why));
        }
        for number in [libc::SYS_read, libc::SYS_clone, libc::SYS_unshare, libc::SYS_connect, libc::SYS_sendmsg] {
            assert_eq!(run(&deny(Doors::Shut), ARCHITECTURE, number, 2), ALLOW);
        }
    }
}

//! A small filter of system calls for every way: doors that no namespace shuts.
//!
//! Some families of sockets know no namespaces (vsock speaks to the machine's host); TIOCSTI types into the terminal, which
//! the shell outside reads next; request_key has the kernel start a helper outside, which asks for names; the kernel's log
//! (syslog) names the computer and its network cards. Who owns a user
//! namespace may enter it and its networks, with all capabilities there: for root without one of its own, those of containers.

use std::fs;
use std::io;

use libc::{c_long, sock_filter};

use crate::filter::Doors;
use crate::seccomp;

/// Native calls on these machines, and 32-bit calls on x86-64.
#[cfg(target_arch = "x86_64")]
const NATIVE: u32 = 0xc000_003e;
#[cfg(target_arch = "aarch64")]
const NATIVE: u32 = 0xc000_00b7;
#[cfg(target_arch = "x86_64")]
const SMALL: u32 = 0x4000_0003;
#[cfg(target_arch = "aarch64")]
const SMALL: u32 = 0x4000_0028;

/// From here on numbers are those of x32, a table that no distribution uses.
const X32: u32 = 0x4000_0000;

/// Where arguments lie in what the filter sees, and how their upper halves follow (little-endian machines).
const NUMBER: u32 = 0;
const ARCH: u32 = 4;
const ARGUMENTS: u32 = 16;

const LOAD: u16 = 0x20;
const EQUAL: u16 = 0x15;
const AT_LEAST: u16 = 0x35;
const RETURN: u16 = 0x06;

/// Typing into a terminal.
const TIOCSTI: u32 = 0x5412;
/// The same for the console, by its selection.
const TIOCLINUX: u32 = 0x541c;

/// The limit of cores, as all these machines number it.
const CORES: u32 = 4;

/// Families that stay: local, Internet and netlink sockets, packets (the kernel asks for a capability), and ciphers.
const FAMILIES: [i32; 6] =
    [libc::AF_UNIX, libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK, libc::AF_PACKET, libc::AF_ALG];

/// The families that are loaded; where there is a device for one, it is.
const PROTOCOLS: &str = "/proc/net/protocols";

/// Families without namespaces: vsock, Bluetooth, Qualcomm's modem, near field.
const OUTSIDE: [&str; 8] = ["AF_VSOCK", "HCI", "L2CAP", "RFCOMM", "SCO", "QIPCRTR", "NFC_RAW", "NFC_LLCP"];

/// What the calls are called in one table of calls.
struct Table {
    ioctl: u32,
    request_key: u32,
    socket: u32,
    /// All calls of sockets in one: its first argument says which, the family lies in memory.
    socketcall: Option<u32>,
    ring: u32,
    setns: u32,
    setrlimit: u32,
    prlimit: u32,
    syslog: u32,
}

const fn call(number: c_long) -> u32 {
    number as u32
}

const WIDE_TABLE: Table = Table {
    ioctl: call(libc::SYS_ioctl),
    request_key: call(libc::SYS_request_key),
    socket: call(libc::SYS_socket),
    socketcall: None,
    ring: call(libc::SYS_io_uring_setup),
    setns: call(libc::SYS_setns),
    setrlimit: call(libc::SYS_setrlimit),
    prlimit: call(libc::SYS_prlimit64),
    syslog: call(libc::SYS_syslog),
};

#[cfg(target_arch = "x86_64")]
const SMALL_TABLE: Table = Table {
    ioctl: 54,
    request_key: 287,
    socket: 359,
    socketcall: Some(102),
    ring: 425,
    setns: 346,
    setrlimit: 75,
    prlimit: 340,
    syslog: 103,
};
#[cfg(target_arch = "aarch64")]
const SMALL_TABLE: Table = Table {
    ioctl: 54,
    request_key: 310,
    socket: 281,
    socketcall: None,
    ring: 425,
    setns: 375,
    setrlimit: 75,
    prlimit: 369,
    syslog: 103,
};

/// Shuts them for this process and all its descendants, for ever. no_new_privs must be set. `keeps_cores`: the limit of cores
/// stays as it is, and whoever sets it is told that it is done.
///
/// # Errors
/// When the kernel has no filters.
pub(crate) fn shut(doors: Doors, keeps_cores: bool) -> io::Result<()> {
    seccomp::install(&mut filter(has_families_outside(), doors, keeps_cores))
}

/// Whether this machine has families that know no namespaces: if so, nothing may open sockets whose family the filter cannot
/// see, neither rings nor the old call for all of them. Trying to open one would load its module.
fn has_families_outside() -> bool {
    fs::read_to_string(PROTOCOLS).is_ok_and(|text| names_outside(&text))
}

fn names_outside(protocols: &str) -> bool {
    protocols.lines().filter_map(|line| line.split_whitespace().next()).any(|name| OUTSIDE.contains(&name))
}

fn filter(strict: bool, doors: Doors, keeps_cores: bool) -> Vec<sock_filter> {
    let small = of(&SMALL_TABLE, strict, doors, keeps_cores);
    let mut to = vec![load(ARCH), jump(EQUAL, SMALL, 0, small.len() as u8)];
    to.extend(small);
    // Neither of the two: nothing that this machine runs.
    to.extend([jump(EQUAL, NATIVE, 1, 0), refuse(libc::ENOSYS), load(NUMBER)]);
    if cfg!(target_arch = "x86_64") {
        to.extend([jump(AT_LEAST, X32, 0, 1), refuse(libc::ENOSYS)]);
    }
    to.extend(of(&WIDE_TABLE, strict, doors, keeps_cores));
    to
}

/// The rules for one table; every way through them ends in an answer.
fn of(table: &Table, strict: bool, doors: Doors, keeps_cores: bool) -> Vec<sock_filter> {
    let mut to = vec![load(NUMBER)];
    let mut rule = |number: u32, body: Vec<sock_filter>| {
        // Each body is far shorter than the 255 instructions that a jump reaches.
        to.push(jump(EQUAL, number, 0, body.len() as u8));
        to.extend(body);
    };
    let argument = |at: u32| load(ARGUMENTS + 8 * at);
    let upper = |at: u32| load(ARGUMENTS + 8 * at + 4);
    rule(
        table.ioctl,
        vec![argument(1), jump(EQUAL, TIOCSTI, 1, 0), jump(EQUAL, TIOCLINUX, 0, 1), refuse(libc::EPERM), allow()],
    );
    // Without a text for the helper none is started.
    rule(
        table.request_key,
        vec![argument(2), jump(EQUAL, 0, 0, 2), upper(2), jump(EQUAL, 0, 1, 0), refuse(libc::ENOKEY), allow()],
    );
    rule(table.syslog, vec![refuse(libc::EPERM)]);
    let mut families = vec![argument(0)];
    for family in FAMILIES {
        families.extend([jump(EQUAL, family.cast_unsigned(), 0, 1), allow()]);
    }
    families.push(refuse(libc::EAFNOSUPPORT));
    rule(table.socket, families);
    if doors == Doors::Shut {
        rule(table.setns, vec![refuse(libc::EPERM)]);
    }
    if keeps_cores {
        rule(table.setrlimit, vec![argument(0), jump(EQUAL, CORES, 0, 1), refuse(0), allow()]);
        // Who asks is told; who sets is told so; who does both at once would see that it is not so.
        let sets = |at: u32, to: u8| [argument(at), jump(EQUAL, 0, 0, to), upper(at), jump(EQUAL, 0, 0, to - 2)];
        let mut body = vec![argument(1), jump(EQUAL, CORES, 1, 0), allow()];
        body.extend(sets(2, 3));
        body.push(allow());
        body.extend(sets(3, 3));
        body.extend([refuse(0), refuse(libc::EPERM)]);
        rule(table.prlimit, body);
    }
    if strict {
        rule(table.ring, vec![refuse(libc::ENOSYS)]);
        if let Some(socketcall) = table.socketcall {
            // 1 is socket().
            rule(socketcall, vec![argument(0), jump(EQUAL, 1, 0, 1), refuse(libc::ENOSYS), allow()]);
        }
    }
    to.push(allow());
    to
}

fn load(offset: u32) -> sock_filter {
    sock_filter { code: LOAD, jt: 0, jf: 0, k: offset }
}

fn jump(code: u16, k: u32, jt: u8, jf: u8) -> sock_filter {
    sock_filter { code, jt, jf, k }
}

fn allow() -> sock_filter {
    sock_filter { code: RETURN, jt: 0, jf: 0, k: libc::SECCOMP_RET_ALLOW }
}

fn refuse(number: i32) -> sock_filter {
    // Error numbers are positive and small.
    sock_filter { code: RETURN, jt: 0, jf: 0, k: libc::SECCOMP_RET_ERRNO | number.cast_unsigned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the kernel would make of a call: zero when it is let through, else the error.
    fn run(strict: bool, arch: u32, number: u32, arguments: [u64; 3]) -> i32 {
        run_under(&filter(strict, Doors::Walled, false), arch, number, arguments)
    }

    /// Whether a call is made, where cores stay as they are; else what is answered in its place.
    fn with_cores_kept(arch: u32, number: u32, arguments: [u64; 4]) -> Option<i32> {
        let program = filter(false, Doors::Walled, true);
        let end = end_of(&program, arch, number, &arguments);
        (end != libc::SECCOMP_RET_ALLOW).then_some((end & 0xffff) as i32)
    }

    fn run_under(program: &[sock_filter], arch: u32, number: u32, arguments: [u64; 3]) -> i32 {
        match end_of(program, arch, number, &arguments) {
            libc::SECCOMP_RET_ALLOW => 0,
            refused => (refused & 0xffff) as i32,
        }
    }

    fn end_of(program: &[sock_filter], arch: u32, number: u32, arguments: &[u64]) -> u32 {
        let (mut at, mut value) = (0, 0);
        loop {
            let one = program[at];
            at += 1;
            match (one.code, one.k) {
                (LOAD, NUMBER) => value = number,
                (LOAD, ARCH) => value = arch,
                (LOAD, k) => {
                    let argument = arguments[(k - ARGUMENTS) as usize / 8];
                    value = if (k - ARGUMENTS).is_multiple_of(8) { argument as u32 } else { (argument >> 32) as u32 };
                }
                (EQUAL, k) => at += usize::from(if value == k { one.jt } else { one.jf }),
                (AT_LEAST, k) => at += usize::from(if value >= k { one.jt } else { one.jf }),
                (RETURN, k) => return k,
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn families_without_namespaces_are_known_by_name() {
        let head = "protocol  size sockets  memory press maxhdr\n";
        assert!(names_outside(&format!("{head}AF_VSOCK  1240      0      -1   NI       0   yes  kernel")));
        assert!(!names_outside(&format!("{head}TCP       2304    187      98   no     192   yes  kernel")));
    }

    #[test]
    fn doors_are_shut_in_both_tables() {
        for (arch, table) in [(NATIVE, &WIDE_TABLE), (SMALL, &SMALL_TABLE)] {
            let does = |number, arguments| run(false, arch, number, arguments);
            assert_eq!(does(table.ioctl, [0, TIOCSTI.into(), 0]), libc::EPERM);
            // The kernel looks at the lower half only.
            assert_eq!(does(table.ioctl, [0, u64::from(TIOCLINUX) | 1 << 40, 0]), libc::EPERM);
            assert_eq!(does(table.ioctl, [0, 0x5401, 0]), 0);
            assert_eq!(does(table.syslog, [3, 8, 8]), libc::EPERM);
            assert_eq!(does(table.request_key, [1, 1, 0]), 0);
            assert_eq!(does(table.request_key, [1, 1, 8]), libc::ENOKEY);
            assert_eq!(does(table.request_key, [1, 1, 8 << 32]), libc::ENOKEY);
            for family in (0..64).chain([u64::MAX]) {
                let known = FAMILIES.iter().any(|known| known.cast_unsigned() as u64 == family);
                assert_eq!(does(table.socket, [family, 1, 0]), if known { 0 } else { libc::EAFNOSUPPORT }, "{family}");
            }
            assert_eq!(does(table.ring, [8, 8, 0]), 0);
            assert_eq!(run(true, arch, table.ring, [8, 8, 0]), libc::ENOSYS);
            assert_eq!(does(table.setns, [3, 0, 0]), 0);
            assert_eq!(run_under(&filter(false, Doors::Shut, false), arch, table.setns, [3, 0, 0]), libc::EPERM);
        }
    }

    #[test]
    fn where_crashes_would_be_handed_out_the_limit_of_cores_stays() {
        for (arch, table) in [(NATIVE, &WIDE_TABLE), (SMALL, &SMALL_TABLE)] {
            let does = |number, arguments| with_cores_kept(arch, number, arguments);
            assert_eq!(does(table.setrlimit, [CORES.into(), 8, 0, 0]), Some(0));
            assert_eq!(
                does(table.setrlimit, [u64::from(CORES) | 1 << 40, 8, 0, 0]),
                Some(0),
                "the kernel looks at the lower half only"
            );
            assert_eq!(does(table.setrlimit, [7, 8, 0, 0]), None);
            let prlimit = |resource: u32, new, old| does(table.prlimit, [0, resource.into(), new, old]);
            for new in [8, 8 << 32] {
                assert_eq!(prlimit(CORES, new, 0), Some(0));
                assert_eq!(prlimit(CORES, new, 16), Some(libc::EPERM));
                assert_eq!(prlimit(CORES, new, 16 << 32), Some(libc::EPERM));
                assert_eq!(prlimit(7, new, 16), None);
            }
            assert_eq!(prlimit(CORES, 0, 16), None, "who asks is told");
            assert_eq!(run(false, arch, table.setrlimit, [CORES.into(), 8, 0]), 0);
        }
    }

    #[test]
    #[cfg(target_arch = "x86_64")]
    fn other_tables_do_not_exist() {
        assert_eq!(run(false, NATIVE, X32 | 41, [2, 2, 0]), libc::ENOSYS);
        assert_eq!(run(false, 0x4000_0028, 281, [2, 2, 0]), libc::ENOSYS);
        assert_eq!(run(true, SMALL, 102, [1, 8, 0]), libc::ENOSYS);
        assert_eq!(run(true, SMALL, 102, [3, 8, 0]), 0);
        assert_eq!(run(false, SMALL, 102, [1, 8, 0]), 0);
    }
}

//! System calls without libc: its own functions may be this library's.

use libc::{c_char, c_int, c_long};

use core::arch::asm;

/// Makes a system call; the result is negative where the kernel says an error number.
///
/// # Safety
/// What the kernel does with these arguments must be sound.
#[cfg(target_arch = "x86_64")]
pub(super) unsafe fn syscall(number: c_long, arguments: [c_long; 6]) -> c_long {
    let [a, b, c, d, e, f] = arguments;
    let result;
    // SAFETY: the caller vouches for the call; the registers are those of the x86-64 ABI.
    unsafe {
        asm!("syscall", inlateout("rax") number => result, in("rdi") a, in("rsi") b, in("rdx") c, in("r10") d,
             in("r8") e, in("r9") f, lateout("rcx") _, lateout("r11") _, options(nostack));
    }
    result
}

/// Makes a system call; the result is negative where the kernel says an error number.
///
/// # Safety
/// What the kernel does with these arguments must be sound.
#[cfg(target_arch = "aarch64")]
pub(super) unsafe fn syscall(number: c_long, arguments: [c_long; 6]) -> c_long {
    let [a, b, c, d, e, f] = arguments;
    let result;
    // SAFETY: the caller vouches for the call; the registers are those of the AArch64 ABI.
    unsafe {
        asm!("svc 0", in("x8") number, inlateout("x0") a => result, in("x1") b, in("x2") c, in("x3") d, in("x4") e,
             in("x5") f, options(nostack));
    }
    result
}

/// The value or error number in the kernel's result.
pub(super) fn split(result: c_long) -> Result<c_long, c_int> {
    // Error numbers are 1 to 4095; they fit.
    if (-4095..0).contains(&result) { Err(-result as c_int) } else { Ok(result) }
}

/// socket(2) of the kernel, in the namespace of the process.
pub(super) fn socket(domain: c_int, kind: c_int, protocol: c_int) -> Result<c_int, c_int> {
    // SAFETY: integers only.
    let result = unsafe { syscall(libc::SYS_socket, [domain.into(), kind.into(), protocol.into(), 0, 0, 0]) };
    // Descriptors are ints.
    split(result).map(|descriptor| descriptor as c_int)
}

/// execve(2) of the kernel; returns the error number.
///
/// # Safety
/// As for execve: a C string and two NULL-terminated arrays of C strings. The kernel checks that they can be read.
pub(super) unsafe fn execve(path: *const c_char, argv: *const *const c_char, envp: *const *const c_char) -> c_int {
    // SAFETY: the kernel reads through the pointers, or refuses.
    let result = unsafe { syscall(libc::SYS_execve, [path as c_long, argv as c_long, envp as c_long, 0, 0, 0]) };
    split(result).err().unwrap_or(libc::EIO)
}

/// execveat(2) of the kernel; returns the error number.
///
/// # Safety
/// As [`execve`].
pub(super) unsafe fn execveat(
    directory: c_int,
    path: *const c_char,
    argv: *const *const c_char,
    envp: *const *const c_char,
    flags: c_int,
) -> c_int {
    let arguments = [directory.into(), path as c_long, argv as c_long, envp as c_long, flags.into(), 0];
    // SAFETY: as above.
    let result = unsafe { syscall(libc::SYS_execveat, arguments) };
    split(result).err().unwrap_or(libc::EIO)
}

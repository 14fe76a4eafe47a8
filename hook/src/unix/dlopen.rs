//! dlopen and dlmopen: libraries that are loaded later get their functions from this one too.
//!
//! With RTLD_DEEPBIND a library finds libc's functions before this library's, as each extension of PHP would; in a name
//! space of its own it gets another libc. Both would be sockets of the normal network, so both are loaded as others are.
//!
//! The real functions look at who calls them, for the places where he wants libraries to be searched. So there is no
//! wrapper around them: the arguments are changed, and the real function is jumped to.

use std::sync::atomic::{AtomicPtr, Ordering};

use core::arch::naked_asm;
use libc::{c_char, c_int, c_long, c_void};

/// Bits of the mode that stay: all but RTLD_DEEPBIND.
const KEPT: c_int = !libc::RTLD_DEEPBIND;

/// LM_ID_NEWLM, a new name space; on AArch64 it stands in the comparison. LM_ID_BASE, the program's own, is zero.
#[cfg(target_arch = "x86_64")]
const NEW: c_long = -1;

static DLOPEN: AtomicPtr<c_void> = AtomicPtr::new(std::ptr::null_mut());
static DLMOPEN: AtomicPtr<c_void> = AtomicPtr::new(std::ptr::null_mut());

/// Finds the real functions, before anyone forks.
pub(super) fn prepare() {
    find_dlopen();
    find_dlmopen();
}

extern "C" fn find_dlopen() -> *mut c_void {
    find(c"dlopen".as_ptr(), &DLOPEN, open_nothing as unsafe extern "C" fn(_, _) -> _ as *mut c_void)
}

extern "C" fn find_dlmopen() -> *mut c_void {
    find(c"dlmopen".as_ptr(), &DLMOPEN, open_nothing_there as unsafe extern "C" fn(_, _, _) -> _ as *mut c_void)
}

/// The next function of that name after this library's.
fn find(name: *const c_char, place: &AtomicPtr<c_void>, none: *mut c_void) -> *mut c_void {
    // SAFETY: a C string; the pseudo-handle may always be used.
    let found = unsafe { libc::dlsym(libc::RTLD_NEXT, name) };
    let found = if found.is_null() { none } else { found };
    place.store(found, Ordering::Relaxed);
    found
}

/// Where libc has no such function, nothing can be loaded.
unsafe extern "C" fn open_nothing(_file: *const c_char, _mode: c_int) -> *mut c_void {
    std::ptr::null_mut()
}

unsafe extern "C" fn open_nothing_there(_space: c_long, _file: *const c_char, _mode: c_int) -> *mut c_void {
    std::ptr::null_mut()
}

/// dlopen(3).
///
/// # Safety
/// As for the real one.
#[cfg(target_arch = "x86_64")]
#[unsafe(no_mangle)]
#[unsafe(naked)]
unsafe extern "C" fn dlopen(file: *const c_char, mode: c_int) -> *mut c_void {
    naked_asm!(
        "endbr64",
        "and esi, {kept}",
        "mov rax, qword ptr [rip + {real}]",
        "test rax, rax",
        "jnz 2f",
        "push rdi",
        "push rsi",
        "push rdx",
        "call {find}",
        "pop rdx",
        "pop rsi",
        "pop rdi",
        "2:",
        "jmp rax",
        kept = const KEPT,
        real = sym DLOPEN,
        find = sym find_dlopen,
    )
}

/// dlmopen(3).
///
/// # Safety
/// As for the real one.
#[cfg(target_arch = "x86_64")]
#[unsafe(no_mangle)]
#[unsafe(naked)]
unsafe extern "C" fn dlmopen(space: c_long, file: *const c_char, mode: c_int) -> *mut c_void {
    naked_asm!(
        "endbr64",
        "and edx, {kept}",
        "xor eax, eax",
        "cmp rdi, {new}",
        "cmove rdi, rax",
        "mov rax, qword ptr [rip + {real}]",
        "test rax, rax",
        "jnz 2f",
        "push rdi",
        "push rsi",
        "push rdx",
        "call {find}",
        "pop rdx",
        "pop rsi",
        "pop rdi",
        "2:",
        "jmp rax",
        kept = const KEPT,
        new = const NEW,
        real = sym DLMOPEN,
        find = sym find_dlmopen,
    )
}

/// dlopen(3).
///
/// # Safety
/// As for the real one.
#[cfg(target_arch = "aarch64")]
#[unsafe(no_mangle)]
#[unsafe(naked)]
unsafe extern "C" fn dlopen(file: *const c_char, mode: c_int) -> *mut c_void {
    naked_asm!(
        "hint #34",
        "and w1, w1, #{kept}",
        "adrp x16, {real}",
        "ldr x16, [x16, :lo12:{real}]",
        "cbnz x16, 2f",
        "stp x29, x30, [sp, #-48]!",
        "stp x0, x1, [sp, #16]",
        "str x2, [sp, #32]",
        "bl {find}",
        "mov x16, x0",
        "ldr x2, [sp, #32]",
        "ldp x0, x1, [sp, #16]",
        "ldp x29, x30, [sp], #48",
        "2:",
        "br x16",
        kept = const KEPT,
        real = sym DLOPEN,
        find = sym find_dlopen,
    )
}

/// dlmopen(3).
///
/// # Safety
/// As for the real one.
#[cfg(target_arch = "aarch64")]
#[unsafe(no_mangle)]
#[unsafe(naked)]
unsafe extern "C" fn dlmopen(space: c_long, file: *const c_char, mode: c_int) -> *mut c_void {
    naked_asm!(
        "hint #34",
        "and w2, w2, #{kept}",
        "cmn x0, #1",
        "csel x0, xzr, x0, eq",
        "adrp x16, {real}",
        "ldr x16, [x16, :lo12:{real}]",
        "cbnz x16, 2f",
        "stp x29, x30, [sp, #-48]!",
        "stp x0, x1, [sp, #16]",
        "str x2, [sp, #32]",
        "bl {find}",
        "mov x16, x0",
        "ldr x2, [sp, #32]",
        "ldp x0, x1, [sp, #16]",
        "ldp x29, x30, [sp], #48",
        "2:",
        "br x16",
        kept = const KEPT,
        real = sym DLMOPEN,
        find = sym find_dlmopen,
    )
}

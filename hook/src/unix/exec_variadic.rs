//! execl, execle and execlp: variadic, which Rust cannot define, so a few instructions turn the arguments into an array.
//!
//! The caller passes the first arguments in registers and the others on the stack; pushing the registers right below
//! makes all of them one array, in place.

use std::arch::naked_asm;

use libc::{c_char, c_int};

use super::{environment, exec, glue};

type Text = *const c_char;
type Texts = *const *const c_char;

macro_rules! variadic {
    ($name:ident => $safe:ident) => {
        #[doc = concat!(stringify!($name), "(3).")]
        ///
        /// # Safety
        #[doc = concat!("As for ", stringify!($name), ".")]
        #[unsafe(naked)]
        #[unsafe(no_mangle)]
        #[cfg(target_arch = "x86_64")]
        unsafe extern "C" fn $name() -> c_int {
            naked_asm!(
                "pop rax",
                "push r9",
                "push r8",
                "push rcx",
                "push rdx",
                "push rsi",
                "mov rsi, rsp",
                "push rax",
                "call {safe}",
                "pop rcx",
                "add rsp, 40",
                "push rcx",
                "ret",
                safe = sym $safe,
            )
        }

        #[doc = concat!(stringify!($name), "(3).")]
        ///
        /// # Safety
        #[doc = concat!("As for ", stringify!($name), ".")]
        #[unsafe(naked)]
        #[unsafe(no_mangle)]
        #[cfg(target_arch = "aarch64")]
        unsafe extern "C" fn $name() -> c_int {
            naked_asm!(
                "sub sp, sp, #64",
                "stp x30, x1, [sp]",
                "stp x2, x3, [sp, #16]",
                "stp x4, x5, [sp, #32]",
                "stp x6, x7, [sp, #48]",
                "add x1, sp, #8",
                "bl {safe}",
                "ldr x30, [sp]",
                "add sp, sp, #64",
                "ret",
                safe = sym $safe,
            )
        }
    };
}

variadic!(execl => list);
variadic!(execlp => list_searched);
variadic!(execle => list_with_environment);

/// # Safety
/// As for execv.
unsafe extern "C" fn list(path: Text, argv: Texts) -> c_int {
    // SAFETY: as the caller says.
    glue::answer(-1, || unsafe { exec::execute(path, argv, environment::current()) })
}

/// # Safety
/// As for execvp.
unsafe extern "C" fn list_searched(file: Text, argv: Texts) -> c_int {
    // SAFETY: as the caller says.
    glue::answer(-1, || unsafe { exec::search(file, argv, environment::current()) })
}

/// # Safety
/// As for execv; behind the final NULL of `argv` is the environment.
unsafe extern "C" fn list_with_environment(path: Text, argv: Texts) -> c_int {
    let mut end = argv;
    // SAFETY: the list of arguments ends with NULL, and the environment follows.
    let envp = unsafe {
        while !(*end).is_null() {
            end = end.add(1);
        }
        (*end.add(1)).cast::<Text>()
    };
    // SAFETY: as the caller says.
    glue::answer(-1, || unsafe { exec::execute(path, argv, envp) })
}

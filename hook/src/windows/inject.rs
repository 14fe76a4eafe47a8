//! Brings the library into a program that was just made and does not run yet.
//!
//! The loader's answer is the proof: it takes the library only when all functions were replaced.

use std::ffi::c_void;
use std::mem::{size_of, transmute};
use std::ptr::{null, null_mut};
use std::sync::OnceLock;

use windows_sys::Win32::Foundation::{
    CloseHandle, ERROR_DLL_INIT_FAILED, ERROR_EXE_MACHINE_TYPE_MISMATCH, GetLastError, HANDLE, HINSTANCE, WAIT_OBJECT_0,
};
use windows_sys::Win32::System::Diagnostics::Debug::WriteProcessMemory;
use windows_sys::Win32::System::LibraryLoader::{GetModuleFileNameW, GetModuleHandleA, GetProcAddress};
use windows_sys::Win32::System::Memory::{
    MEM_COMMIT, MEM_RELEASE, MEM_RESERVE, PAGE_READWRITE, VirtualAllocEx, VirtualFreeEx,
};
use windows_sys::Win32::System::Threading::{
    CreateRemoteThread, GetExitCodeThread, IsWow64Process2, WaitForSingleObject,
};

/// Longest path of a file.
const LONGEST: usize = 32768;

/// How long the loader may take in a program of its own: it reads a few files. Milliseconds.
const PATIENCE: u32 = 30_000;

/// The library's path, ended by a zero.
static OWN: OnceLock<Vec<u16>> = OnceLock::new();

/// Notes where the library lies.
pub(super) fn remember(library: HINSTANCE) {
    let mut path = vec![0; LONGEST];
    // SAFETY: there is as much room.
    let length = unsafe { GetModuleFileNameW(library, path.as_mut_ptr(), LONGEST as u32) };
    path.truncate(length as usize);
    path.push(0);
    let _ = OWN.set(path);
}

/// Loads the library into a process whose own thread does not run; the number of Windows when that is not possible.
///
/// # Safety
/// It is such a process.
pub(super) unsafe fn inject(process: HANDLE) -> Result<(), u32> {
    // SAFETY: the caller says so.
    unsafe { check(process)? };
    let Some(path) = OWN.get() else { return Err(ERROR_DLL_INIT_FAILED) };
    let size = path.len() * size_of::<u16>();
    // SAFETY: room of its own in the other process, given back below.
    let room = unsafe { VirtualAllocEx(process, null(), size, MEM_COMMIT | MEM_RESERVE, PAGE_READWRITE) };
    if room.is_null() {
        return Err(last());
    }
    // SAFETY: the room was just made, and holds the path.
    let loaded = unsafe {
        if WriteProcessMemory(process, room, path.as_ptr().cast(), size, null_mut()) == 0 {
            Err(last())
        } else {
            load(process, room)
        }
    };
    // SAFETY: whoever loaded from there is done, or the process is ended.
    unsafe { VirtualFreeEx(process, room, 0, MEM_RELEASE) };
    loaded
}

/// Whether it runs the instructions that the library is made of.
///
/// # Safety
/// `process` is one.
unsafe fn check(process: HANDLE) -> Result<(), u32> {
    let (mut small, mut native) = (0, 0);
    // SAFETY: two places for numbers.
    if unsafe { IsWow64Process2(process, &mut small, &mut native) } == 0 {
        return Err(last());
    }
    if small == 0 { Ok(()) } else { Err(ERROR_EXE_MACHINE_TYPE_MISMATCH) }
}

/// Has a thread of the other process load what is named there.
///
/// # Safety
/// A path stands there.
unsafe fn load(process: HANDLE, path: *const c_void) -> Result<(), u32> {
    // SAFETY: the names are as written; this module is in every process, at the same place in all.
    let load =
        unsafe { GetProcAddress(GetModuleHandleA(c"kernel32.dll".as_ptr().cast()), c"LoadLibraryW".as_ptr().cast()) };
    let Some(load) = load else { return Err(ERROR_DLL_INIT_FAILED) };
    // SAFETY: it takes one pointer and gives a number's worth back, as a thread does.
    let load = unsafe {
        transmute::<unsafe extern "system" fn() -> isize, unsafe extern "system" fn(*mut c_void) -> u32>(load)
    };
    // SAFETY: it is the other's function, and the path is there.
    let thread = unsafe { CreateRemoteThread(process, null(), 0, Some(load), path, 0, null_mut()) };
    if thread.is_null() {
        return Err(last());
    }
    let mut module = 0;
    // SAFETY: the thread was just made.
    let ended = unsafe {
        let ended = WaitForSingleObject(thread, PATIENCE);
        GetExitCodeThread(thread, &mut module);
        CloseHandle(thread);
        ended
    };
    if ended == WAIT_OBJECT_0 && module != 0 { Ok(()) } else { Err(ERROR_DLL_INIT_FAILED) }
}

fn last() -> u32 {
    // SAFETY: it takes nothing.
    unsafe { GetLastError() }
}

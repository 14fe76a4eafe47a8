//! What programs ask of Windows besides Winsock: children, an end to what is under way, and devices.

use std::ffi::c_void;
use std::ptr::null_mut;

use windows_sys::Win32::Foundation::{CloseHandle, FALSE, HANDLE, SetLastError};
use windows_sys::Win32::System::IO::OVERLAPPED;
use windows_sys::Win32::System::Threading::{
    CREATE_SUSPENDED, CREATE_UNICODE_ENVIRONMENT, PROCESS_INFORMATION, ResumeThread, STARTUPINFOW, TerminateProcess,
};
use windows_sys::core::{BOOL, PCWSTR, PWSTR};

use super::patch::replaced;
use super::quiet::quietly;
use super::{afd, deferred, environment, inject};

/// What a child ends with that the library did not come into: nobody sees it but by looking for it.
const NOT_OURS: u32 = 125;

/// What the kernel says of what is not allowed.
const STATUS_ACCESS_DENIED: i32 = 0xc000_0022_u32 as i32;

type Create = unsafe extern "system" fn(
    HANDLE,
    PCWSTR,
    PWSTR,
    *const c_void,
    *const c_void,
    BOOL,
    u32,
    *const c_void,
    PCWSTR,
    *const STARTUPINFOW,
    *mut PROCESS_INFORMATION,
    *mut HANDLE,
) -> BOOL;
type Device = unsafe extern "system" fn(
    HANDLE,
    HANDLE,
    *const c_void,
    *const c_void,
    *mut c_void,
    u32,
    *const c_void,
    u32,
    *mut c_void,
    u32,
) -> i32;

replaced! {
    c"kernelbase.dll" c"CreateProcessInternalW" CREATE = create_process: Create;
    c"kernelbase.dll" c"CancelIo" CANCEL = cancel: unsafe extern "system" fn(HANDLE) -> BOOL;
    c"kernelbase.dll" c"CancelIoEx" CANCEL_EX = cancel_ex: unsafe extern "system" fn(HANDLE, *const OVERLAPPED) -> BOOL;
    c"ntdll.dll" c"NtDeviceIoControlFile" DEVICE = device: Device;
}

/// All ways of Windows to make a process come by here.
unsafe extern "system" fn create_process(
    user: HANDLE,
    program: PCWSTR,
    line: PWSTR,
    process_attributes: *const c_void,
    thread_attributes: *const c_void,
    inherits: BOOL,
    flags: u32,
    environment: *const c_void,
    folder: PCWSTR,
    startup: *const STARTUPINFOW,
    made: *mut PROCESS_INFORMATION,
    new_user: *mut HANDLE,
) -> BOOL {
    // SAFETY: as the program gave it.
    let completed = quietly(|| unsafe { environment::completed(environment, flags & CREATE_UNICODE_ENVIRONMENT != 0) });
    let (environment, wide) = match &completed {
        Some(block) => (block.as_ptr().cast(), CREATE_UNICODE_ENVIRONMENT),
        None => (environment, 0),
    };
    // SAFETY: as the program gave them, but that it does not run yet, and knows who it is.
    let status = unsafe {
        CREATE.get()(
            user,
            program,
            line,
            process_attributes,
            thread_attributes,
            inherits,
            flags | CREATE_SUSPENDED | wide,
            environment,
            folder,
            startup,
            made,
            new_user,
        )
    };
    if status == FALSE {
        return status;
    }
    // SAFETY: it worked, so it says what was made.
    let PROCESS_INFORMATION { hProcess: process, hThread: thread, .. } = unsafe { *made };
    // SAFETY: it was just made.
    if let Err(number) = quietly(|| unsafe { inject::inject(process) }) {
        // SAFETY: nobody else knows of it yet.
        unsafe {
            TerminateProcess(process, NOT_OURS);
            CloseHandle(process);
            CloseHandle(thread);
            *made = PROCESS_INFORMATION { hProcess: null_mut(), hThread: null_mut(), dwProcessId: 0, dwThreadId: 0 };
            SetLastError(number);
        }
        return FALSE;
    }
    if flags & CREATE_SUSPENDED == 0 {
        // SAFETY: its thread.
        quietly(|| unsafe { ResumeThread(thread) });
    }
    status
}

unsafe extern "system" fn cancel(handle: HANDLE) -> BOOL {
    quietly(|| deferred::give_up(handle as usize, None));
    // SAFETY: as the program gave it.
    unsafe { CANCEL.get()(handle) }
}

unsafe extern "system" fn cancel_ex(handle: HANDLE, overlapped: *const OVERLAPPED) -> BOOL {
    let which = (!overlapped.is_null()).then_some(overlapped as usize);
    quietly(|| deferred::give_up(handle as usize, which));
    // SAFETY: as the program gave them.
    unsafe { CANCEL_EX.get()(handle, overlapped) }
}

unsafe extern "system" fn device(
    handle: HANDLE,
    event: HANDLE,
    routine: *const c_void,
    context: *const c_void,
    status: *mut c_void,
    code: u32,
    given: *const c_void,
    length: u32,
    to: *mut c_void,
    room: u32,
) -> i32 {
    if afd::is_shut(code) {
        return STATUS_ACCESS_DENIED;
    }
    // SAFETY: as the program gave them.
    unsafe { DEVICE.get()(handle, event, routine, context, status, code, given, length, to, room) }
}

//! What the launcher asks of Windows itself.

use std::io;
use std::mem::size_of;
use std::os::windows::ffi::OsStrExt;
use std::path::Path;
use std::ptr::{from_mut, from_ref, null, null_mut};

use windows_sys::Win32::Security::Cryptography::{BCRYPT_USE_SYSTEM_PREFERRED_RNG, BCryptGenRandom};
use windows_sys::Win32::System::Console::{CTRL_BREAK_EVENT, CTRL_C_EVENT, SetConsoleCtrlHandler};
use windows_sys::Win32::System::JobObjects::{
    AssignProcessToJobObject, CreateJobObjectW, JOB_OBJECT_LIMIT_KILL_ON_JOB_CLOSE,
    JOBOBJECT_EXTENDED_LIMIT_INFORMATION, JobObjectExtendedLimitInformation, SetInformationJobObject,
};
use windows_sys::Win32::System::LibraryLoader::LoadLibraryW;
use windows_sys::Win32::System::Threading::GetCurrentProcess;
use windows_sys::core::BOOL;

fn done(status: BOOL) -> io::Result<()> {
    if status == 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Loads a library into this process, for good.
pub(super) fn load(library: &Path) -> io::Result<()> {
    let path: Vec<u16> = library.as_os_str().encode_wide().chain([0]).collect();
    // SAFETY: a text that ends with a zero. What the library does when it comes is its own: it is ours.
    let module = unsafe { LoadLibraryW(path.as_ptr()) };
    done(BOOL::from(!module.is_null()))
}

/// Puts this process into a job, and with it all that it starts: when it is gone, so are they.
pub(super) fn contain() -> io::Result<()> {
    let mut limits = JOBOBJECT_EXTENDED_LIMIT_INFORMATION::default();
    limits.BasicLimitInformation.LimitFlags = JOB_OBJECT_LIMIT_KILL_ON_JOB_CLOSE;
    let (at, size) = (from_ref(&limits).cast(), size_of::<JOBOBJECT_EXTENDED_LIMIT_INFORMATION>() as u32);
    // SAFETY: no name and no descriptor; children do not inherit it.
    let job = unsafe { CreateJobObjectW(null(), null()) };
    done(BOOL::from(!job.is_null()))?;
    // SAFETY: the size is that of what is there. The handle is closed with the process, which is the point.
    unsafe {
        done(SetInformationJobObject(job, JobObjectExtendedLimitInformation, at, size))?;
        done(AssignProcessToJobObject(job, GetCurrentProcess()))
    }
}

/// Ctrl-C and Ctrl-Break are the program's, which has the same console: this process waits for what becomes of it.
pub(super) fn leave_console_events_to_program() -> io::Result<()> {
    unsafe extern "system" fn is_taken(event: u32) -> BOOL {
        BOOL::from(matches!(event, CTRL_C_EVENT | CTRL_BREAK_EVENT))
    }
    // SAFETY: the function does nothing that threads could disagree about. Unlike the flag that ignores Ctrl-C it is not inherited.
    done(unsafe { SetConsoleCtrlHandler(Some(is_taken), 1) })
}

/// Sixteen bytes that nobody guesses.
pub(super) fn token() -> io::Result<[u8; 16]> {
    let mut token = [0; 16];
    // SAFETY: there are as many bytes.
    let status = unsafe {
        BCryptGenRandom(null_mut(), from_mut(&mut token).cast(), token.len() as u32, BCRYPT_USE_SYSTEM_PREFERRED_RNG)
    };
    if status == 0 { Ok(token) } else { Err(io::Error::other(format!("no randomness: {status:#x}"))) }
}

//! Why a call fails, as Windows counts it.

use phantom_ipc::errno;
use windows_sys::Win32::Networking::WinSock::{
    WSAEACCES, WSAEADDRINUSE, WSAEADDRNOTAVAIL, WSAECONNREFUSED, WSAEHOSTUNREACH, WSAEINVAL, WSAEMFILE, WSAENETDOWN,
    WSAENETUNREACH, WSAEOPNOTSUPP, WSAETIMEDOUT,
};

/// The number of Windows for one of the daemon's.
pub(super) fn of_winsock(errno: i32) -> i32 {
    match errno {
        errno::ECONNREFUSED => WSAECONNREFUSED,
        errno::ETIMEDOUT => WSAETIMEDOUT,
        errno::EHOSTUNREACH => WSAEHOSTUNREACH,
        errno::EACCES | errno::EPERM => WSAEACCES,
        errno::EADDRINUSE => WSAEADDRINUSE,
        errno::EADDRNOTAVAIL => WSAEADDRNOTAVAIL,
        errno::EMFILE => WSAEMFILE,
        errno::EINVAL => WSAEINVAL,
        errno::EOPNOTSUPP => WSAEOPNOTSUPP,
        errno::ENETDOWN | errno::EPROTO => WSAENETDOWN,
        _ => WSAENETUNREACH,
    }
}

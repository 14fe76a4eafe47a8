//! Why a request fails, as numbers that a program of any system can be told from: Linux's own, on every system the same.

/// Who asks may not.
pub const EPERM: i32 = 1;
/// There is none.
pub const ENOENT: i32 = 2;
/// Something broke in the daemon.
pub const EIO: i32 = 5;
/// Not now: too many are open, or somebody else does not answer.
pub const EAGAIN: i32 = 11;
/// Policy forbids it.
pub const EACCES: i32 = 13;
/// Others are using it.
pub const EBUSY: i32 = 16;
/// It is there already.
pub const EEXIST: i32 = 17;
/// The request makes no sense.
pub const EINVAL: i32 = 22;
/// One connection wants too much.
pub const EMFILE: i32 = 24;
/// The two do not speak the same language.
pub const EPROTO: i32 = 71;
/// What came beside the request is no such socket.
pub const ENOTSOCK: i32 = 88;
/// There can be no such thing here.
pub const EOPNOTSUPP: i32 = 95;
/// Others have the port.
pub const EADDRINUSE: i32 = 98;
/// The address is none of this computer's.
pub const EADDRNOTAVAIL: i32 = 99;
/// There is no such network for this program: no daemon, no such identity, not theirs.
pub const ENETDOWN: i32 = 100;
/// No answer in time.
pub const ETIMEDOUT: i32 = 110;
/// Nobody listens there.
pub const ECONNREFUSED: i32 = 111;
/// The address leads nowhere.
pub const EHOSTUNREACH: i32 = 113;

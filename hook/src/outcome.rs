//! What a hook decides about a call.

/// What becomes of a call.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Outcome<T> {
    /// The program gets this.
    Done(T),
    /// The real function does it.
    Bypass(Why),
    /// The program gets this error number.
    Fail(i32),
}

/// Why the real function may do it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Why {
    /// It stays on this machine.
    Local,
    /// It has nothing to do with networks or programs.
    Unrelated,
}

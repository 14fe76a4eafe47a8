//! What a child must know to be who its parent is, put into the environment that a program makes for it.

use std::ffi::c_void;
use std::ptr::null_mut;
use std::slice::from_raw_parts;

use phantom_ipc::{ENV_IDENTITY, ENV_SESSION};
use windows_sys::Win32::Globalization::{CP_ACP, MultiByteToWideChar};

use super::own;

/// Longest environment that is looked at, in letters: more than Windows takes.
const LONGEST: usize = 1 << 20;

/// The environment with what is missing of that, as text of UTF-16; none where the child gets that of its parent.
///
/// # Safety
/// `block` is null, or texts that each end with a zero, and one more at the end: of UTF-16 if `is_wide`.
pub(super) unsafe fn completed(block: *const c_void, is_wide: bool) -> Option<Vec<u16>> {
    if block.is_null() {
        return None;
    }
    // SAFETY: the caller says so.
    let mut block = unsafe { if is_wide { wide(block.cast()) } else { narrow(block.cast()) } };
    let is_set = |name: &str| block.split(|letter| *letter == 0).any(|entry| is_named(entry, name));
    let who = [ENV_SESSION, ENV_IDENTITY];
    let is_somebody = who.iter().any(|name| is_set(name));
    let is_missing = |name: &str| if who.contains(&name) { !is_somebody } else { !is_set(name) };
    let missing: Vec<_> = own::settings().iter().filter(|(name, _)| is_missing(name)).collect();
    for (name, value) in missing {
        block.extend(name.encode_utf16().chain([u16::from(b'=')]).chain(value.iter().copied()).chain([0]));
    }
    block.push(0);
    // An empty one has two zeros as well.
    if block.len() == 1 {
        block.push(0);
    }
    Some(block)
}

/// Whether an entry sets a variable: names have no case here.
fn is_named(entry: &[u16], name: &str) -> bool {
    let (Some(head), Some(sign)) = (entry.get(..name.len()), entry.get(name.len())) else { return false };
    *sign == u16::from(b'=') && String::from_utf16_lossy(head).eq_ignore_ascii_case(name)
}

/// The entries, each with its zero.
///
/// # Safety
/// As of [`completed`].
unsafe fn entries<'a, T: Copy + PartialEq + Default>(block: *const T) -> &'a [T] {
    // SAFETY: what comes before the end is there.
    let is_zero = |at: usize| unsafe { block.add(at).read_unaligned() } == T::default();
    let ends = |at: &usize| is_zero(*at) && (*at == 0 || is_zero(*at - 1));
    let length = (0..LONGEST).find(ends).unwrap_or(0);
    // SAFETY: as many were just read.
    unsafe { from_raw_parts(block, length) }
}

unsafe fn wide(block: *const u16) -> Vec<u16> {
    // SAFETY: the caller says so.
    unsafe { entries(block) }.to_vec()
}

unsafe fn narrow(block: *const u8) -> Vec<u16> {
    // SAFETY: the caller says so.
    let bytes = unsafe { entries(block) };
    let Ok(length) = i32::try_from(bytes.len()) else { return Vec::new() };
    if length == 0 {
        return Vec::new();
    }
    // SAFETY: as many bytes are there; nothing is written yet.
    let needed = unsafe { MultiByteToWideChar(CP_ACP, 0, bytes.as_ptr(), length, null_mut(), 0) };
    let mut text = vec![0; usize::try_from(needed).unwrap_or(0)];
    // SAFETY: there is as much room as was said.
    unsafe { MultiByteToWideChar(CP_ACP, 0, bytes.as_ptr(), length, text.as_mut_ptr(), needed) };
    text
}

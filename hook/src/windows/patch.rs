//! Puts a function of ours in the place of one of Windows', and keeps the way to that.

use std::ffi::CStr;
use std::marker::PhantomData;
use std::mem::{forget, size_of, transmute_copy};
use std::sync::atomic::{AtomicUsize, Ordering};

use detour::RawDetour;
use windows_sys::Win32::System::LibraryLoader::{GetModuleHandleA, GetProcAddress};

/// A function could not be replaced: which, and why.
#[derive(Debug)]
pub(super) struct Failed(pub(super) String);

/// A function as it was.
pub(super) struct Original<F> {
    at: AtomicUsize,
    of: PhantomData<F>,
}

impl<F: Copy> Original<F> {
    /// Not replaced yet.
    pub(super) const fn new() -> Self {
        const { assert!(size_of::<F>() == size_of::<usize>(), "a pointer to a function") };
        Self { at: AtomicUsize::new(0), of: PhantomData }
    }

    /// It is at that place.
    ///
    /// # Safety
    /// A function of that type is, for as long as the process.
    pub(super) unsafe fn is_at(&self, at: usize) {
        self.at.store(at, Ordering::Release);
    }

    /// The function. It is there whenever the one in its place runs.
    pub(super) fn get(&self) -> F {
        let at = self.at.load(Ordering::Acquire);
        assert!(at != 0, "a function that was replaced");
        // SAFETY: an F is a pointer to a function, as `new` has it, and `patch` stored one of that type.
        unsafe { transmute_copy(&at) }
    }
}

/// Puts `ours` in the place of a function of a module that is loaded. One that this Windows does not have needs no replacement.
///
/// # Safety
/// Both are of the type F, and no other thread runs the function meanwhile.
pub(super) unsafe fn patch<F: Copy>(module: &CStr, name: &CStr, ours: F, real: &Original<F>) -> Result<(), Failed> {
    let failed = |why: &dyn std::fmt::Display| Failed(format!("{}: {why}", name.to_string_lossy()));
    // SAFETY: both are texts that end with a zero.
    let module = unsafe { GetModuleHandleA(module.as_ptr().cast()) };
    if module.is_null() {
        return Err(failed(&"its library is not there"));
    }
    // SAFETY: the module is loaded, and all that are named here stay so: this library imports from them.
    let Some(theirs) = (unsafe { GetProcAddress(module, name.as_ptr().cast()) }) else { return Ok(()) };
    // SAFETY: an F is a pointer to a function, see `Original::new`.
    let ours: usize = unsafe { transmute_copy(&ours) };
    // SAFETY: the caller says that they are of one type.
    let detour = unsafe { RawDetour::new(theirs as *const (), ours as *const ()) }.map_err(|error| failed(&error))?;
    real.at.store(detour.trampoline() as usize, Ordering::Release);
    // SAFETY: the caller says that nobody is in it.
    unsafe { detour.enable() }.map_err(|error| failed(&error))?;
    // For as long as the process.
    forget(detour);
    Ok(())
}

/// A table of functions to be replaced: module, name, the way to the real one, ours.
macro_rules! replaced {
    ($($module:literal $name:literal $real:ident = $ours:ident: $type:ty;)*) => {
        $(pub(super) static $real: $crate::windows::patch::Original<$type> = $crate::windows::patch::Original::new();)*

        /// Puts them in their places.
        pub(super) fn install() -> Result<(), $crate::windows::patch::Failed> {
            // SAFETY: the types are those of Windows' own headers, and the process has no other thread that runs.
            $(unsafe { $crate::windows::patch::patch::<$type>($module, $name, $ours, &$real) }?;)*
            Ok(())
        }
    };
}
pub(super) use replaced;

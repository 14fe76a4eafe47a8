//! What of this computer the daemon depends on: its data folder, the TUN device, user namespaces. Looked at, never changed.

use std::fs::{self, OpenOptions};
use std::path::Path;

use crate::os;

/// Free space below which a warning is due: four times what the daemon needs to start.
const LITTLE: u64 = 64 << 20;

/// How it is around the daemon.
#[derive(Debug, Clone, Default)]
pub struct Around {
    /// Why the data folder cannot be written.
    pub unwritable: Option<String>,
    /// Free space there, in bytes; none where the system does not say.
    pub free: Option<u64>,
    /// Why the TUN device cannot be used.
    pub no_tun: Option<String>,
    /// Why an ordinary user gets no user namespace, as far as settings of the kernel say so.
    pub no_user_namespaces: Option<&'static str>,
}

impl Around {
    /// Looks. Blocks as long as the disk does.
    pub fn look(data: &Path) -> Self {
        let free = os::free_space(data).ok();
        Self { unwritable: os::writable(data).err().map(|error| error.to_string()), free, ..Self::of_computer() }
    }

    /// What can be said without a data folder.
    pub fn of_computer() -> Self {
        if !os::HAS_NAMESPACES {
            return Self::default();
        }
        let tun = OpenOptions::new().read(true).write(true).open("/dev/net/tun");
        Self {
            no_tun: tun.err().map(|error| error.to_string()),
            no_user_namespaces: no_user_namespaces(|setting| {
                fs::read_to_string(Path::new("/proc/sys").join(setting)).ok()
            }),
            ..Self::default()
        }
    }

    /// Whether keys, records and guards are kept.
    pub fn keeps(&self) -> bool {
        self.unwritable.is_none() && self.free.is_none_or(|free| free >= LITTLE)
    }
}

fn no_user_namespaces(setting: impl Fn(&str) -> Option<String>) -> Option<&'static str> {
    let is = |name, value: &str| setting(name).is_some_and(|text| text.trim() == value);
    if is("user/max_user_namespaces", "0") {
        return Some("user.max_user_namespaces is 0");
    }
    if is("kernel/unprivileged_userns_clone", "0") {
        return Some("kernel.unprivileged_userns_clone is 0");
    }
    is("kernel/apparmor_restrict_unprivileged_userns", "1")
        .then_some("kernel.apparmor_restrict_unprivileged_userns is 1")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_that_is_gone_or_almost_full_does_not_keep() {
        let dir = tempfile::tempdir().unwrap();
        let around = Around::look(dir.path());
        assert!(around.unwritable.is_none() && around.free.is_some());
        assert!(!Around::look(&dir.path().join("gone")).keeps());
        assert!(!Around { free: Some(LITTLE - 1), ..Around::default() }.keeps());
        assert!(Around { free: Some(LITTLE), ..Around::default() }.keeps());
    }

    #[test]
    fn settings_that_forbid_user_namespaces_are_named() {
        assert_eq!(no_user_namespaces(|_| None), None);
        assert_eq!(no_user_namespaces(|name| (name == "user/max_user_namespaces").then(|| "15000\n".into())), None);
        for (name, value) in [
            ("user/max_user_namespaces", "0\n"),
            ("kernel/unprivileged_userns_clone", "0\n"),
            ("kernel/apparmor_restrict_unprivileged_userns", "1\n"),
        ] {
            let why = no_user_namespaces(|asked| (asked == name).then(|| value.into()));
            assert!(why.is_some_and(|why| why.replace('.', "/").starts_with(name)), "{name}: {why:?}");
        }
    }
}

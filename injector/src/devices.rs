//! Devices by which a program would act outside, whatever network its sockets are of.

use std::fs;
use std::os::fd::RawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use anyhow::Result;
use rustix::fs::{major, minor};

use crate::{deputies, sys};

/// Keyboards and what they are plugged into, made up, that type into other windows (desktops open the first to whoever sits there, for game
/// controllers); a machine that speaks to this one's services (vsock); whom the kernel connects to for disks, and tells of locks; ways to the host of
/// a virtual machine; and the kernel's log, which names the computer and its network cards, and which services send on.
const NAMED: [&str; 13] = [
    "/dev/uinput",
    "/dev/input/uinput",
    "/dev/uhid",
    "/dev/userio",
    "/dev/vhci",
    "/dev/raw-gadget",
    "/dev/vhost-vsock",
    "/dev/nvme-fabrics",
    "/dev/dlm-control",
    "/dev/vboxguest",
    "/dev/vboxuser",
    "/dev/vmci",
    "/dev/kmsg",
];

/// Folders in which all act outside: network cards that programs drive themselves (RDMA), and disks on the Ethernet, which are looked for by
/// packets on every interface.
pub(crate) const FOLDERS: [&str; 2] = ["/dev/infiniband", "/dev/etherd"];

/// Drivers whose devices are a network card each, in any network namespace: what is written there leaves as it is, or another processor
/// of the computer with a network of its own sends it (BMC, ME), or its host gets it.
const CARDS: [&str; 9] = [
    "macvtap",
    "ipvtap",
    "vhost-vdpa",
    "infiniband_verbs",
    "infiniband_mad",
    "aoechr",
    "ipmidev",
    "mei",
    "virtio-portsdev",
];

/// Where the kernel says which numbers they have.
const NUMBERS: &str = "/proc/devices";

/// The same by name, where it does not say so: udev and the kernel call them `tap7`, `vhost-vdpa-0`.
const CARDS_BEGIN: [&[u8]; 5] = [b"tap", b"vhost-vdpa-", b"ipmi", b"mei", b"vport"];

/// What may be open already, by its number among the small drivers' (10): vhci, tun, uinput, uhid, userio, vhost-vsock.
const SMALL_DRIVERS: u32 = 10;
const OPENED: [u32; 6] = [137, 200, 223, 239, 240, 241];

/// The devices that are to be masked, each once.
///
/// # Errors
/// As for [`deputies::deputies`].
pub(crate) fn devices() -> Result<Vec<PathBuf>> {
    let cards = majors(&fs::read(NUMBERS).unwrap_or_default());
    let folders = std::iter::once("/dev").chain(FOLDERS).map(Path::new);
    let cards = folders.flat_map(deputies::entries).filter(|path| is_card(path, &cards));
    let found = NAMED.map(PathBuf::from).into_iter().chain(cards).filter_map(|path| fs::canonicalize(path).ok());
    deputies::everywhere(found.filter(|path| is_device(path)).collect(), is_device)
}

/// Whether an inherited descriptor, by this name, is such a device, or one that has been made a network card.
pub(crate) fn acts_outside(number: RawFd, name: &Path) -> bool {
    let Some(device) = sys::device(number) else { return false };
    let is_opened = major(device) == SMALL_DRIVERS && OPENED.contains(&minor(device));
    let is_card = || majors(&fs::read(NUMBERS).unwrap_or_default()).contains(&major(device));
    is_opened
        || is_in_folder(name)
        || NAMED.iter().any(|named| Path::new(named) == name)
        || has_cards_name(name)
        || is_card()
}

fn is_device(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|about| about.file_type().is_char_device())
}

fn is_card(path: &Path, majors: &[u32]) -> bool {
    is_device(path)
        && (is_in_folder(path)
            || has_cards_name(path)
            || fs::metadata(path).is_ok_and(|about| majors.contains(&major(about.rdev()))))
}

fn is_in_folder(path: &Path) -> bool {
    FOLDERS.iter().any(|folder| path.parent() == Some(Path::new(folder)))
}

fn has_cards_name(path: &Path) -> bool {
    let name = path.file_name().map_or(&[][..], OsStrExt::as_bytes);
    let number = CARDS_BEGIN.iter().find_map(|begin| name.strip_prefix(*begin));
    path.parent() == Some(Path::new("/dev")) && number.is_some_and(|rest| rest.first().is_some_and(u8::is_ascii_digit))
}

/// The numbers of their drivers, of the kernel's list: ` 246 macvtap`. Those of disks follow in it, and are numbered apart.
fn majors(list: &[u8]) -> Vec<u32> {
    let text = String::from_utf8_lossy(list);
    let characters = text.split("Block devices:").next().unwrap_or_default();
    let words = characters.lines().filter_map(|line| line.trim().split_once(' '));
    words.filter(|(_, name)| CARDS.contains(name)).filter_map(|(number, _)| number.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cards_are_known_by_their_drivers_and_by_name() {
        let list = b"Character devices:\n  1 mem\n246 macvtap\n 99 vhost-vdpa\n\nBlock devices:\n  7 ipvtap\n";
        assert_eq!(majors(list), [246, 99]);
        assert!(majors(b"").is_empty());
        for (name, is_it) in [
            ("/dev/tap0", true),
            ("/dev/vhost-vdpa-12", true),
            ("/dev/vport1p2", true),
            ("/dev/tape", false),
            ("/tmp/tap0", false),
            ("/", false),
        ] {
            assert_eq!(has_cards_name(Path::new(name)), is_it, "{name}");
        }
    }
}

//! What is mounted where, as the kernel tells it (proc(5), /proc/PID/mountinfo): the one reader of that file.
//!
//! Names may hold anything: the kernel writes space, tab, line feed and backslash as `\` and three octal digits, and bytes that
//! are no UTF-8 as they are.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

/// One mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mount {
    /// The file system's number: the same wherever it is mounted.
    pub(crate) device: OsString,
    /// What of the file system is mounted.
    pub(crate) root: PathBuf,
    /// Where.
    pub(crate) point: PathBuf,
    pub(crate) kind: OsString,
    /// Options of the file system, not of the mount.
    pub(crate) options: OsString,
}

/// All mounts that this process sees, the outer ones before what lies over or in them.
pub(crate) fn own() -> io::Result<Vec<Mount>> {
    Ok(all(&fs::read("/proc/self/mountinfo")?))
}

/// What such a file says.
pub(crate) fn all(text: &[u8]) -> Vec<Mount> {
    text.split(|byte| *byte == b'\n').filter_map(one).collect()
}

/// Number, parent, device, root, point, options, any number of further ones, `-`, kind, source, options of the file system.
fn one(line: &[u8]) -> Option<Mount> {
    let mut words = line.split(|byte| *byte == b' ').map(plain);
    let (device, root, point) = (words.nth(2)?, words.next()?, words.next()?);
    words.by_ref().find(|word| word == "-")?;
    let kind = words.next()?;
    let options = words.nth(1).unwrap_or_default();
    Some(Mount { device, root: root.into(), point: point.into(), kind, options })
}

/// A word without the kernel's escapes.
fn plain(word: &[u8]) -> OsString {
    let (mut rest, mut to) = (word, Vec::with_capacity(word.len()));
    while let Some((first, after)) = rest.split_first() {
        let (byte, after) = escaped(rest).unwrap_or((*first, after));
        to.push(byte);
        rest = after;
    }
    OsString::from_vec(to)
}

/// The byte that begins with an escape, and what follows it.
fn escaped(word: &[u8]) -> Option<(u8, &[u8])> {
    let ([b'\\', digits @ ..], rest) = word.split_first_chunk::<4>()? else { return None };
    let value = digits
        .iter()
        .try_fold(0_u16, |value, digit| matches!(digit, b'0'..=b'7').then(|| value * 8 + u16::from(digit - b'0')))?;
    Some((u8::try_from(value).ok()?, rest))
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStrExt;
    use std::path::Path;

    use proptest::prelude::*;

    use super::*;

    /// As the kernel does it (fs/seq_file.c, mangle_path).
    fn mangled(name: &[u8]) -> Vec<u8> {
        let byte = |byte: &u8| match byte {
            b' ' | b'\t' | b'\n' | b'\\' | b'#' => format!("\\{byte:03o}").into_bytes(),
            _ => vec![*byte],
        };
        name.iter().flat_map(byte).collect()
    }

    #[test]
    fn lines_are_read_with_and_without_further_options() {
        let text =
            b"odd line\n31 23 0:28 / /sys/fs/cgroup rw,relatime shared:4 master:1 - cgroup2 cgroup2 rw,nsdelegate\n\
                     2 1 0:2 /a\\040b /my\\040root\\134/proc rw - proc none rw\n3 1 0:3 / /no-end rw shared:1";
        let mounts = all(text);
        assert_eq!(mounts.len(), 2);
        assert_eq!((mounts[0].device.to_str(), mounts[0].kind.to_str()), (Some("0:28"), Some("cgroup2")));
        assert_eq!(mounts[0].options, "rw,nsdelegate");
        assert_eq!((&*mounts[1].root, &*mounts[1].point), (Path::new("/a b"), Path::new("/my root\\/proc")));
    }

    #[test]
    fn what_is_no_escape_stays() {
        for word in [&b"\\"[..], b"\\04", b"\\089", b"\\777", b"a\\x40b"] {
            assert_eq!(plain(word).as_bytes(), word);
        }
    }

    proptest! {
        #[test]
        fn names_of_any_bytes_are_read_as_they_are(
            root in prop::collection::vec(1_u8.., 0..20),
            point in prop::collection::vec(prop_oneof![1_u8.., Just(b' '), Just(b'\\'), Just(b'\n'), Just(b'4')], 0..20),
        ) {
            let line = [b"7 1 8:1 /", &mangled(&root)[..], b" /", &mangled(&point), b" rw shared:9 - ext4 /dev/a rw"].concat();
            let [mount] = &all(&line)[..] else { panic!("not one mount") };
            prop_assert_eq!(mount.root.as_os_str().as_bytes(), [b"/", &root[..]].concat());
            prop_assert_eq!(mount.point.as_os_str().as_bytes(), [b"/", &point[..]].concat());
            prop_assert_eq!(mount.kind.to_str(), Some("ext4"));
        }
    }
}

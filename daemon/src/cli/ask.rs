//! What a command asks a person, and the new files that it writes for one.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, ErrorKind, IsTerminal, Read, Write};
use std::path::Path;

use anyhow::{Context, ensure};

use crate::advice::{cannot_read, cannot_write};
use crate::datadir::{write_by_draft, write_new_private};
use crate::os;

/// Whether there is somebody to ask.
pub(super) fn is_somebody_there() -> bool {
    io::stdin().is_terminal()
}

/// The answer, without spaces around it.
pub(super) fn answer(question: &str) -> io::Result<String> {
    eprint!("{question} ");
    let mut line = String::new();
    io::stdin().lock().read_line(&mut line)?;
    Ok(line.trim().to_owned())
}

/// Writes a file that others may read, so that either the old or the new text is there, whole; rights and owner stay those of the old
/// one.
pub(super) fn write_over(file: &Path, text: &str) -> io::Result<()> {
    // Where it leads, if it is a link.
    let file = fs::canonicalize(file).unwrap_or_else(|_| file.to_owned());
    write_by_draft(&file, |draft| draft_of(draft, &file, text), |draft| fs::rename(draft, &file))
}

fn draft_of(draft: &Path, file: &Path, text: &str) -> io::Result<()> {
    // One that was left may be anybody's.
    let _ = fs::remove_file(draft);
    let mut new = OpenOptions::new().write(true).create_new(true).open(draft)?;
    if let Ok(old) = fs::metadata(file) {
        fs::set_permissions(draft, old.permissions())?;
        os::give_to_owner_of(&old, &new)?;
    }
    new.write_all(text.as_bytes())?;
    new.sync_all()
}

/// Nothing may be there, and its folder must take it: said before anybody does what would be in vain.
pub(super) fn ensure_can_be_made(file: &Path) -> anyhow::Result<()> {
    if fs::symlink_metadata(file).is_ok() {
        return Err(there_already(file));
    }
    // With the dot what is no folder is none.
    let folder = file.parent().unwrap_or_else(|| Path::new("")).join(".");
    os::writable(&folder).map_err(|error| cannot_write(file, &error))
}

fn there_already(file: &Path) -> anyhow::Error {
    anyhow::anyhow!("{} is there already\n  name a file that is not", file.display())
}

/// Writes a file that only its owner may read, and in no case over another.
pub(super) fn write_new(file: &Path, text: &str) -> anyhow::Result<()> {
    write_new_private(file, text.as_bytes()).map_err(|error| match error.kind() {
        ErrorKind::AlreadyExists => there_already(file),
        _ => cannot_write(file, &error),
    })
}

/// What a file of at most `longest` bytes holds; of what never ends (`/dev/zero`, a pipe) no more is read.
pub(super) fn read_short(file: &Path, longest: u64, what: &str) -> anyhow::Result<Vec<u8>> {
    // In one piece: a key that is read leaves no copies where it would have grown.
    let mut bytes = Vec::with_capacity(usize::try_from(longest + 1)?);
    let read = File::open(file).and_then(|opened| opened.take(longest + 1).read_to_end(&mut bytes));
    let length = read.map_err(|error| cannot_read(file, &error))?;
    ensure!(length as u64 <= longest, "{} is no {what}: it is too long", file.display());
    Ok(bytes)
}

/// The same for text.
pub(super) fn read_short_text(file: &Path, longest: u64, what: &str) -> anyhow::Result<String> {
    let bytes = read_short(file, longest, what)?;
    String::from_utf8(bytes).with_context(|| format!("{} is no {what}: it is no text", file.display()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    #[test]
    fn no_more_is_read_than_there_can_be() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        fs::write(&file, "1234").unwrap();
        let read = |file: &Path, longest| read_short_text(file, longest, "note").map_err(|error| format!("{error:#}"));
        assert_eq!(read(&file, 4).unwrap(), "1234");
        assert!(read(&file, 3).unwrap_err().contains("is no note: it is too long"));
        // What says of itself that it holds nothing, and never ends.
        assert!(read(Path::new("/dev/zero"), 4).unwrap_err().contains("is no note: it is too long"));
        assert!(read(dir.path(), 4).unwrap_err().contains("cannot read"), "a folder");
    }

    #[test]
    fn what_cannot_be_written_is_known_before() {
        let dir = tempfile::tempdir().unwrap();
        let (file, dangling) = (dir.path().join("file"), dir.path().join("link"));
        symlink("nowhere", &dangling).unwrap();
        let said = |path: &Path| ensure_can_be_made(path).map_err(|error| format!("{error:#}"));
        assert_eq!(said(&file), Ok(()));
        fs::write(&file, "").unwrap();
        for (path, says) in [
            (&*file, "is there already"),
            (&dangling, "is there already"),
            (&file.join("in"), "Not a directory"),
            (&dir.path().join("none/in"), "No such file"),
        ] {
            assert!(said(path).is_err_and(|why| why.contains(says)), "{path:?}: {:?}", said(path));
        }
    }

    #[test]
    fn a_file_is_written_whole_or_not_at_all_and_keeps_its_rights() {
        let dir = tempfile::tempdir().unwrap();
        let (file, link) = (dir.path().join("file"), dir.path().join("link"));
        write_over(&file, "one").unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
        symlink(&file, &link).unwrap();
        write_over(&link, "two").unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), "two");
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o640);
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink(), "a link stays one");
        // Where no draft can be made, the old text stays.
        fs::create_dir(dir.path().join("file.new")).unwrap();
        assert!(write_over(&file, "three").is_err());
        assert_eq!(fs::read_to_string(&file).unwrap(), "two");
    }
}

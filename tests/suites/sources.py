"""Sources of suites from Debian's pool: fetched once, checked against the hash that is written here, unpacked."""

import hashlib
import os
import shutil
import subprocess
import tarfile
import urllib.request
from pathlib import Path

POOL = "http://deb.debian.org/debian/pool/main/"

# No tarball of these is larger; a wrong answer must not fill the disk.
MOST_BYTES = 64 << 20


def unpacked(cache: Path, path, sha256, say) -> Path:
    """The folder that the tarball at `path` of the pool holds."""
    folder = cache / sha256[:16]
    if not folder.exists():
        say(f"fetching {POOL}{path}")
        with urllib.request.urlopen(POOL + path, timeout=60) as answer:
            data = answer.read(MOST_BYTES)
        found = hashlib.sha256(data).hexdigest()
        if found != sha256:
            raise SystemExit(f"suites: {path} has SHA-256 {found}, not {sha256}: not used")
        fresh = cache / f"{sha256[:16]}.{os.getpid()}"
        shutil.rmtree(fresh, ignore_errors=True)
        tarball = fresh / "tarball"
        fresh.mkdir(parents=True)
        tarball.write_bytes(data)
        with tarfile.open(tarball) as archive:
            archive.extractall(fresh)
        tarball.unlink()
        fresh.rename(folder)
    (inner,) = folder.iterdir()
    return inner


def make(folder: Path, makefile, jobs):
    """Runs make with that text in the folder, which is quick when all is there."""
    (folder / "Makefile.suites").write_text(makefile)
    done = subprocess.run(["make", "-s", f"-j{jobs}", "-f", "Makefile.suites"], cwd=folder, capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(f"suites: building in {folder} failed:\n{done.stderr[-4000:]}")

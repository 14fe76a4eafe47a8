"""Starts a part's process in a world of its own: a fresh network namespace with only `lo`, with or without Phantom inside."""

import os
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

CHECKOUT = str(Path(__file__).resolve().parents[2])

# The same resolver's settings for all, so that only Phantom makes a difference; and a /tmp of its own, since suites use
# fixed names there. A checkout below /tmp stays in sight.
WORLD = """
set -e
ip link set lo up
echo 'nameserver 198.18.0.53' >"$1/resolv.conf"
sed 's/^hosts:.*/hosts: files dns/' /etc/nsswitch.conf >"$1/nsswitch.conf"
printf '127.0.0.1 localhost www.example.com\\n::1 localhost ip6-localhost ip6-loopback\\n127.0.1.1 %s\\n' "$(uname -n)" >"$1/hosts"
for file in resolv.conf nsswitch.conf hosts; do
    [ ! -e /etc/$file ] || mount --bind "$1/$file" /etc/$file
done
mkdir -p "$1/tmp"
chmod 1777 "$1/tmp"
case "$2" in /tmp/*)
    mkdir -p "$1$2"
    mount --bind "$2" "$1$2"
esac
mount --rbind "$1/tmp" /tmp
cd "$3"
shift 3
exec "$@"
"""

BARE = "without"
WAYS = ["namespace", "inject", "preload", "emulate"]

# What runs now, to be ended with us.
running = set()

# A part as a whole, whatever it does; the longest takes a tenth of it.
LIMIT = 1800


class Phantom:
    """One daemon alone: suites use loopback and need no other node."""

    def __init__(self, built, folder, binaries):
        # Copies: whoever builds meanwhile changes nothing for us.
        for name in ["phantomd", "phantom-run", "libphantom.so"]:
            shutil.copy2(built / name, binaries / name)
        self.binaries = binaries
        self.socket = folder / "daemon.sock"
        data, self.log = folder / "data", folder / "daemon.log"
        common = ["--data-dir", data, "--listen", "127.0.0.1:0", "--accept-eula"]
        subprocess.run([binaries / "phantomd", "init", *common], check=True, stdout=subprocess.DEVNULL)
        with open(self.log, "w") as log:
            self.process = subprocess.Popen(
                [binaries / "phantomd", *common, "--socket", self.socket], stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        end = time.monotonic() + 60
        while not self.socket.exists():
            if self.process.poll() is not None or time.monotonic() > end:
                raise SystemExit(f"suites: the daemon did not start, see {self.log}")
            time.sleep(0.05)

    def ways(self):
        """Those that this phantom-run knows."""
        text = subprocess.run([self.binaries / "phantom-run", "--help"], capture_output=True, text=True).stdout
        option = text[text.index("--isolation"):]
        return [way for way in WAYS if f"- {way}:" in option]

    def wrap(self, way, command):
        """The command under phantom-run."""
        run = [str(self.binaries / "phantom-run"), "--daemon", str(self.socket), "--quiet", "--isolation", way, "--"]
        return [*run, *command]

    def stop(self):
        self.process.terminate()
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise SystemExit("suites: the daemon did not stop when asked")


def environment(more):
    """A few variables that every program expects; nothing of whoever started us."""
    paths = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    return {"PATH": paths, "HOME": "/tmp", "LANG": "C.UTF-8", "TMPDIR": "/tmp", "TERM": "dumb", **more}


def run(command, folder, notes, output, silence, variables):
    """Runs the command to its end, or until nothing was heard of it for too long; returns whether it was killed."""
    with tempfile.TemporaryDirectory(prefix="world-", dir=output.parent) as files:
        words = ["unshare", "--net", "--mount", "sh", "-c", WORLD, "sh", files, CHECKOUT, str(folder), *command]
        return run_words(words, notes, output, silence, variables)


def run_words(words, notes, output, silence, variables):
    with open(output, "ab") as log:
        process = subprocess.Popen(
            words, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=variables, start_new_session=True
        )
    running.add(process.pid)
    try:
        return watch(process, notes, output, silence)
    finally:
        running.discard(process.pid)


def watch(process, notes, output, silence):
    """Waits for the process; whether it had to be killed."""
    size, heard, start = -1, time.monotonic(), time.monotonic()
    while True:
        try:
            process.wait(0.5)
            return False
        except subprocess.TimeoutExpired:
            pass
        now, before = time.monotonic(), size
        size = sum(file.stat().st_size for file in (notes, output) if file.exists())
        if size != before:
            heard = now
        if now - heard > silence or now - start > LIMIT:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            return True


def stop_all(number, _frame):
    """On a signal: no process is left behind."""
    for group in list(running):
        os.killpg(group, signal.SIGKILL)
    raise SystemExit(128 + number)

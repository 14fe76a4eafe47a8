"""Go's own tests of net and net/http, with Debian's toolchain: as a static binary and with the C library's resolver."""

import os
import re
import subprocess
from pathlib import Path

import part
from part import Outcomes, Part

# Packages that open connections, with and without cgo where that makes a difference.
PACKAGES = ["net", "net/http", "net/http/httptest", "net/http/httputil", "net/rpc", "net/rpc/jsonrpc", "net/smtp", "net/textproto"]
WITH_C = ["net", "net/http"]

START = re.compile(r"^=== RUN   ([^/\s]+)$")
RESULT = re.compile(r"^\s*--- (PASS|FAIL|SKIP): ([^/\s]+) \(")


class Package(Part):
    """The tests of one package in one binary."""

    # Go makes its system calls itself: where only calls of the C library are answered, it has no network.
    not_carried = ("preload", "emulate")

    def __init__(self, package, cgo, cache, root):
        self.name = f"go/{package.replace('/', '-')}{'' if cgo else '-static'}"
        self.core = package == "net" or (package == "net/http" and not cgo)
        self.binary = cache / "go" / (self.name.split("/")[1] + ".test")
        # Tests read files beside the source.
        self.folder = Path(root) / "src" / package
        self.build(cgo, cache)
        self.tests = [name for name in self.ask("-test.list", ".*").split() if name.startswith("Test")]

    def build(self, cgo, cache):
        """Go's cache makes this quick when nothing has changed."""
        variables = {**os.environ, "CGO_ENABLED": "1" if cgo else "0", "GOCACHE": str(cache / "go" / "cache"), "GOFLAGS": "",
                     "GOTOOLCHAIN": "local", "GOPROXY": "off"}
        words = ["go", "test", "-c", "-o", self.binary, "."]
        done = subprocess.run(words, cwd=self.folder, env=variables, capture_output=True, text=True)
        if done.returncode != 0:
            raise SystemExit(f"suites: building {self.name} failed:\n{done.stderr[-4000:]}")

    def ask(self, *words):
        return subprocess.run([self.binary, *words], cwd=self.folder, capture_output=True, text=True, check=True).stdout

    def command(self, notes, only, but, never):
        names = part.chosen(self.tests, only, but, never)
        return [str(self.binary), "-test.v", "-test.short", "-test.timeout=10m", "-test.run", f"^({'|'.join(names)})$"]

    def read(self, notes, output):
        outcomes, said = Outcomes(), []
        for line in output.read_text(errors="replace").splitlines() if output.exists() else []:
            if found := START.match(line):
                outcomes.open, said = found[1], []
            elif found := RESULT.match(line):
                outcomes.note(found[2], {"PASS": "pass", "FAIL": "fail", "SKIP": "skip"}[found[1]], " ".join(said)[-300:])
            elif line.startswith("    ") and not line.lstrip().startswith(("---", "===")):
                said.append(line.strip())
        if outcomes.open in outcomes.tests:
            outcomes.open = ""
        outcomes.ended = set(self.tests) <= set(outcomes.tests)
        return outcomes


def parts(cache, say):
    """Builds them first."""
    (cache / "go").mkdir(parents=True, exist_ok=True)
    root = subprocess.run(["go", "env", "GOROOT"], capture_output=True, text=True, check=True).stdout.strip()
    say("building Go's tests")
    both = [(package, cgo) for package in PACKAGES for cgo in (True, False) if not cgo or package in WITH_C]
    return [Package(package, cgo, cache, root) for package, cgo in both]

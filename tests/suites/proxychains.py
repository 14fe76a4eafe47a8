"""proxychains-ng's own test programs, as they are: names and connections that a preloaded library tends to get wrong.

The names in them stand in /etc/hosts as this machine, where a web server answers.
"""

import os
import re

import part
import sources
from part import Outcomes, Part

# Of Debian 13: the pool has no older one any more, and the programs are the same.
TARBALL = "p/proxychains-ng/proxychains-ng_4.17.orig.tar.gz"
SHA256 = "1a2dc68fcbcb2546a07a915343c1ffc75845f5d9cc3ea5eb3bf0b62a66c0196f"

# glibc has no NI_NUMERICSCOPE, nor any flag of that meaning.
MAKEFILE = """
flags := -g -O1 -w -D_GNU_SOURCE -DNI_NUMERICSCOPE=0
programs := test_getaddrinfo test_gethostbyname test_gethostent test_gethostent_r test_getnameinfo test_sendto test_v4_in_v6
all: $(programs)
%: tests/%.c
\t$(CC) $(flags) -o $@ $<
test_gethostent_r: tests/test_gethostent_r.c src/common.c
\t$(CC) $(flags) -o $@ $^
"""

# Test: program and arguments. Left out are the two that test proxychains' inner parts.
TESTS = {
    "getaddrinfo": "test_getaddrinfo",
    "gethostbyname": "test_gethostbyname www.example.com",
    "gethostbyname-localhost": "test_gethostbyname localhost",
    "gethostent": "test_gethostent",
    "gethostent_r": "test_gethostent_r",
    "getnameinfo": "test_getnameinfo",
    "connect": "test_sendto localhost 80 connect",
    "connect-name": "test_sendto www.example.com 80 connect",
    "fastopen": "test_sendto localhost 80 sendto",
    "fastopen-name": "test_sendto www.example.com 80 sendto",
    "v4_in_v6": "test_v4_in_v6",
}

SCRIPT = r"""
folder=$1; shift
mkfifo ready
python3 -u -m http.server 80 --bind 127.0.0.1 >ready 2>/dev/null &
server=$!
read line <ready
while [ $# -gt 0 ]; do
    test=$1 words=$2; shift 2
    text=$(timeout 60 $folder/$words 2>&1)
    status=$?
    printf '%s\n' "$text" | sed "s/^/# /"
    echo "== $test $status"
done
kill $server
"""

RESULT = re.compile(r"^== (\S+) (\d+)$")
ASSERTION = re.compile(r"ASSERTION FAILED: .*:(\d+)$")


class Proxychains(Part):
    """All of them, beside a web server."""

    name = "proxychains/tests"
    core = True

    def __init__(self, folder):
        self.programs = str(folder)
        # Its assertions go on when one fails: each is a test, named after its line.
        lines = (folder / "tests" / "test_getnameinfo.c").read_text().splitlines()
        self.assertions = [str(at) for at, line in enumerate(lines, 1) if line.strip().startswith("ASSERT(")]

    def command(self, notes, only, but, never):
        chosen = [(test, TESTS[test]) for test in part.chosen(TESTS, only, but, never)]
        return ["sh", "-c", SCRIPT, "sh", self.programs, *(word for pair in chosen for word in pair)]

    def read(self, notes, output):
        outcomes, said = Outcomes(), []
        for line in output.read_text(errors="replace").splitlines() if output.exists() else []:
            if line.startswith("# "):
                said.append(line[2:])
            elif found := RESULT.match(line):
                self.judge(outcomes, found[1], found[2], said)
                said = []
        outcomes.ended = set(TESTS) <= set(outcomes.tests)
        return outcomes

    def judge(self, outcomes, test, status, said):
        """A program is content if it ends well, prints something, and no complaint."""
        if test == "getnameinfo":
            failed = {found[1] for line in said if (found := ASSERTION.search(line))}
            for line in self.assertions:
                outcomes.note(f"{test}:{line}", "fail" if line in failed else "pass", "assertion")
        text = " ".join(said).strip()
        good = status == "0" and text and "error in" not in text
        outcomes.note(test, "pass" if good else "fail", f"status {status}: {text[:200]}")


def parts(cache, say):
    """Builds them first."""
    folder = sources.unpacked(cache, TARBALL, SHA256, say)
    sources.make(folder, MAKEFILE, os.cpu_count())
    return [Proxychains(folder)]

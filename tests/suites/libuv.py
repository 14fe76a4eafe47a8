"""libuv's suite, of the version that Debian has."""

import os
import re
import subprocess

import part
import sources
from part import Outcomes, Part

TARBALL = "libu/libuv1/libuv1_1.44.2.orig.tar.gz"
SHA256 = "d79b4b06ef04be85fb890bf39d55942cc64c2e15fd14eaa32dae5dce94485484"

# What its own build takes on Linux; cmake and autotools would be two packages more.
MAKEFILE = """
unix := async core dl epoll fs getaddrinfo getnameinfo linux-core linux-inotify linux-syscalls loop loop-watcher pipe poll \\
        process procfs-exepath proctitle random-devurandom random-getrandom random-sysctl-linux signal stream tcp thread tty udp
tests := $(filter-out test/benchmark-% test/run-benchmarks.c test/runner-win.c, $(wildcard test/*.c))
flags := -g -O1 -w -fno-strict-aliasing -D_GNU_SOURCE -D_FILE_OFFSET_BITS=64 -Iinclude -Isrc
uv_run_tests: $(tests:.c=.o) libuv.so
\t$(CC) -o $@ $(tests:.c=.o) -L. -luv -Wl,-rpath,'$$ORIGIN' -pthread -ldl -lrt -lutil
libuv.so: $(patsubst %.c, %.o, $(wildcard src/*.c) $(unix:%=src/unix/%.c))
\t$(CC) -shared -o $@ $^ -pthread -ldl -lrt
src/%.o: src/%.c
\t$(CC) -c $(flags) -fPIC -fvisibility=hidden -DBUILDING_UV_SHARED=1 -o $@ $<
test/%.o: test/%.c
\t$(CC) -c $(flags) -DUSING_UV_SHARED=1 -o $@ $<
"""

RESULT = re.compile(r"^(ok|not ok) \d+ - (\S+)(.*)$")

# One process for each: a test that dies takes no other with it. Helpers are started by the runner itself.
# Tests want the fixtures, and write beside them: a copy for each run.
LOOP = 'cp -r "$1/test" . && program=$1/uv_run_tests && shift && for test; do "$program" "$test"; done'


class Libuv(Part):
    """All of it; the tests use the same ports, so they run one after the other."""

    name = "libuv/all"
    core = True
    # More than its own limit for a test (see `environment`).
    silence = 120

    def __init__(self, folder):
        self.source = str(folder)
        listed = subprocess.run([folder / "uv_run_tests", "--list"], capture_output=True, text=True, env={"UV_RUN_AS_ROOT": "1"})
        # A test's name, and its helpers' in brackets.
        self.tests = [line.split()[0] for line in listed.stdout.splitlines() if line.strip()]

    def command(self, notes, only, but, never):
        return ["sh", "-c", LOOP, "sh", self.source, *part.chosen(self.tests, only, but, never)]

    def environment(self):
        # Its tests have five seconds each, which are few for thousands of sockets on a computer with other work.
        return {"UV_RUN_AS_ROOT": "1", "UV_TEST_TIMEOUT_MULTIPLIER": "10"}

    def read(self, notes, output):
        outcomes = Outcomes()
        lines = output.read_text(errors="replace").splitlines() if output.exists() else []
        for at, line in enumerate(lines):
            if found := RESULT.match(line):
                word, test, more = found.groups()
                outcome = "skip" if "SKIP" in more else "pass" if word == "ok" else "fail"
                why = " ".join(it for it in lines[at + 1:at + 8] if it.startswith("#")) if outcome == "fail" else more
                outcomes.note(test, outcome, why)
        outcomes.ended = set(self.tests) <= set(outcomes.tests)
        return outcomes


def parts(cache, say):
    """Builds it first."""
    folder = sources.unpacked(cache, TARBALL, SHA256, say)
    if not (folder / "uv_run_tests").exists():
        say("building libuv's tests")
    sources.make(folder, MAKEFILE, os.cpu_count())
    return [Libuv(folder)]

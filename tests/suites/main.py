"""Runs suites of others without Phantom and in each way of phantom-run, and compares test by test."""

import argparse
import fnmatch
import json
import os
import shutil
import signal
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cpython
import golang
import libuv
import proxychains
import world
from world import BARE

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
CACHE = ROOT / "target" / "suites"
SUITES = {"cpython": cpython, "libuv": libuv, "go": golang, "proxychains": proxychains}

# So many tests of a part are run again when they failed or broke off, alone, after all else: a loaded machine is not Phantom.
SECOND_CHANCES = 40

# How reasons of exceptions begin whose tests are not run.
NOT_RUN = "not run:"

EPILOG = """
Selections: all, core (what CI runs), a suite (%s), or one part of it (cpython/test_socket).
Exceptions stand in tests/suites/exceptions/SUITE.txt: way (or *), test (patterns allowed), reason. Where a reason begins
with "not run:", the tests are left out in that way: they would hang until they are killed, or end by chance.
Exit status: 0 whatever passes without Phantom passes with it, or is excepted; 1 otherwise, or an exception is stale.
""" % ", ".join(SUITES)


def arguments():
    parser = argparse.ArgumentParser(
        prog="suites", description=__doc__, epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("selection", nargs="*", default=["core"], help="what to run [default: core]")
    parser.add_argument("--way", action="append", help="may be repeated [default: each that phantom-run knows]")
    parser.add_argument("--binaries", type=Path, default=ROOT / "target" / "debug", help="where phantomd and phantom-run lie")
    jobs = 2 * os.cpu_count()
    parser.add_argument("--jobs", type=int, default=jobs, help="parts at a time, which mostly wait [default: %(default)s]")
    parser.add_argument("--results", type=Path, default=CACHE / "results", help="where outputs and outcomes go")
    parser.add_argument("--list", action="store_true", help="only say what would be run")
    return parser.parse_args()


class Say:
    """Progress lines of many threads, each whole and with the time since the start; the verdict has standard output alone."""

    def __init__(self):
        self.lock, self.start = threading.Lock(), time.monotonic()

    def __call__(self, text):
        with self.lock:
            print(f"[{time.monotonic() - self.start:6.1f}s] {text}", file=sys.stderr, flush=True)


def run_part(part, way, phantom, results, say):
    """Runs a part to its end in a way, past tests that hang or kill it; test -> (outcome, why)."""
    tests, begin = {}, time.monotonic()
    folder = folder_of(part, way, results)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for attempt in range(part.attempts):
        got = run_once(part, way, phantom, folder, f"{attempt}", [], list(tests))
        tests.update(got.tests)
        if got.open:
            tests[got.open] = ("fail", "hung or ended the process")
        if got.ended or not got.tests and not got.open:
            break
    return settled(part, way, folder, tests, begin, say)


def second_chance(part, way, phantom, results, tests, say):
    """Runs again what failed unexpectedly, if it is little; test -> (outcome, why)."""
    excepted = [it[1] for it in known(part, way)]
    matches = lambda test: any(fnmatch.fnmatchcase(test, pattern) for pattern in excepted)
    failed = [test for test, (outcome, _) in tests.items() if outcome == "fail" and not matches(test)]
    if not 0 < len(failed) <= SECOND_CHANCES:
        return tests
    folder, begin = folder_of(part, way, results), time.monotonic()
    say(f"{part.name} {way}: once more, alone: {', '.join(failed)}")
    again = run_once(part, way, phantom, folder, "again", failed, [])
    passed = {test: ("pass", "at the second try") for test in failed if again.tests.get(test, ("",))[0] == "pass"}
    return settled(part, way, folder, {**tests, **passed}, begin, say)


def folder_of(part, way, results):
    return results / part.name.replace("/", "-") / way


def settled(part, way, folder, tests, begin, say):
    """Keeps the outcomes in a file and says how many there are."""
    (folder / "outcomes.json").write_text(json.dumps(tests, indent=1, sort_keys=True))
    counts = {outcome: sum(1 for it in tests.values() if it[0] == outcome) for outcome in ("pass", "fail", "skip")}
    say(f"{part.name} {way}: {counts['pass']} passed, {counts['fail']} failed, {counts['skip']} skipped, "
        f"{time.monotonic() - begin:.0f} s")
    return tests


def run_once(part, way, phantom, folder, name, only, but):
    """One process."""
    notes, output = folder / f"{name}.notes", folder / f"{name}.output"
    command = part.command(notes, only, but, [it[1] for it in known(part, way) if it[2].startswith(NOT_RUN)])
    if way != BARE:
        command = phantom.wrap(way, command)
    world.run(command, part.folder, notes, output, part.silence, world.environment(part.environment()))
    return part.read(notes, output)


def exceptions(suite):
    """The lines of a suite's file: [way, pattern, reason, where it stands]."""
    path = HERE / "exceptions" / f"{suite}.txt"
    lines = path.read_text().splitlines() if path.exists() else []
    found = []
    for number, line in enumerate(lines, 1):
        if line.strip() and not line.startswith("#"):
            words = line.split(None, 2)
            if len(words) != 3:
                raise SystemExit(f"suites: {path}:{number}: want way, test, reason")
            found.append((*words, f"{path.name}:{number}"))
    return found


def known(part, way):
    """The exceptions that a part has in a way, their patterns without the part."""
    found = []
    for at, pattern, reason, line in exceptions(part.name.split("/")[0]):
        place, _, test = pattern.partition(":")
        if at in ("*", way) and way != BARE and fnmatch.fnmatchcase(part.name, place):
            found.append((at, test, reason, line))
    return found


def judge(part, way, bare, tests):
    """(differences that nothing excuses, differences that are excepted, exceptions that are stale)."""
    excepted = known(part, way)
    expected = {test for test, (outcome, _) in bare.items() if outcome == "pass"}
    broken = {test: tests.get(test, ("missing", "")) for test in expected if tests.get(test, ("missing",))[0] != "pass"}
    match = lambda test, it: fnmatch.fnmatchcase(test, it[1])
    excused = {test for test in broken if any(match(test, it) for it in excepted)}
    stale = []
    for it in excepted:
        concerned = [test for test in expected if match(test, it)]
        if concerned and not any(test in broken for test in concerned):
            stale.append(f"{it[3]}: {part.name}:{it[1]} passes {way}")
    return {test: broken[test] for test in broken if test not in excused}, excused, stale


def table(parts, ways, outcomes, verdicts):
    """Markdown: part by way."""
    lines = ["| part | without | " + " | ".join(ways) + " |", "|---|---|" + "---|" * len(ways)]
    for part in parts:
        row = [part.name, str(count(outcomes[part.name, BARE]))]
        for way in ways:
            if way in part.not_carried:
                row.append("not carried")
                continue
            wrong, excused, _ = verdicts[part.name, way]
            passed = sum(1 for test, it in outcomes[part.name, BARE].items()
                         if it[0] == "pass" and outcomes[part.name, way].get(test, ("",))[0] == "pass")
            row.append(f"{passed}" + (f", {len(excused)} excepted" if excused else "") + (f", **{len(wrong)} differ**" if wrong else ""))
        lines.append("| " + " | ".join(row) + " |")
    return "\n".join(lines)


def count(tests):
    return sum(1 for outcome, _ in tests.values() if outcome == "pass")


def select(selection, every):
    """The parts that are meant."""
    chosen = []
    for word in selection:
        found = [p for p in every if word == "all" or (word == "core" and p.core) or p.name == word or p.name.split("/")[0] == word]
        if not found:
            raise SystemExit(f"suites: nothing is called {word}; see --list all")
        chosen += [part for part in found if part not in chosen]
    return chosen


def main():
    options, say = arguments(), Say()
    if os.geteuid() != 0:
        raise SystemExit("suites: wants root, for network namespaces")
    CACHE.mkdir(parents=True, exist_ok=True)
    names = {word.split("/")[0] for word in options.selection}
    wanted = [suite for name, suite in SUITES.items() if name in names or names & {"all", "core"}]
    parts = select(options.selection, [part for suite in wanted for part in suite.parts(CACHE, say)])
    if options.list:
        print("\n".join(part.name for part in parts))
        return 0
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, world.stop_all)
    # Not below /tmp: there, each part has its own.
    temporary = tempfile.TemporaryDirectory
    with temporary(prefix="suites-", dir="/run") as folder, temporary(prefix="binaries-", dir=CACHE) as binaries:
        phantom = world.Phantom(options.binaries.resolve(), Path(folder), Path(binaries))
        try:
            ways = options.way or phantom.ways()
            outcomes = run_all(parts, [BARE, *ways], phantom, options, say)
        finally:
            phantom.stop()
    return report(parts, ways, outcomes)


def run_all(parts, ways, phantom, options, say):
    """Every part in every way, some at a time; the longest first, which are the parts listed first."""
    pool, results = ThreadPoolExecutor(options.jobs), options.results.resolve()
    pairs = [(part, way) for part in parts for way in ways if way not in part.not_carried]
    try:
        jobs = [pool.submit(run_part, part, way, phantom, results, say) for part, way in pairs]
        first = [job.result() for job in jobs]
    finally:
        pool.shutdown(cancel_futures=True)
    again = lambda part, way, tests: second_chance(part, way, phantom, results, tests, say)
    return {(part.name, way): again(part, way, tests) for (part, way), tests in zip(pairs, first)}


def report(parts, ways, outcomes):
    """Says what differs; the exit status."""
    pairs = [(part, way) for part in parts for way in ways if way not in part.not_carried]
    verdicts = {(p.name, way): judge(p, way, outcomes[p.name, BARE], outcomes[p.name, way]) for p, way in pairs}
    print()
    for (name, way), (wrong, _, stale) in verdicts.items():
        for test, (outcome, why) in sorted(wrong.items()):
            print(f"DIFFERS {way} {name}:{test}: {outcome}: {why}")
        for line in stale:
            print(f"STALE {line}")
    print()
    print(table(parts, ways, outcomes, verdicts))
    empty = [part.name for part in parts if not count(outcomes[part.name, BARE])]
    if empty:
        print(f"suites: nothing passes even without Phantom: {', '.join(empty)}")
    return 1 if empty or any(wrong or stale for wrong, _, stale in verdicts.values()) else 0


if __name__ == "__main__":
    sys.exit(main())

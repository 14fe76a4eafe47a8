"""Runs tests of one module of CPython's own suite and notes each outcome in a file as it comes.

usage: python3 -P cpython_runner.py RESULTS MODULE [--only ID…] [--but ID…] [--never PATTERN…]

The results survive a test that hangs or kills the process: a line `start ID` without its outcome names the culprit.
"""

import fnmatch
import sys
import unittest

# What costs nothing but time and disk. Never `network` and `urlfetch`: they mean servers on the Internet.
RESOURCES = ["cpu", "subprocess", "walltime"]


class Notes(unittest.TestResult):
    """One line per event, written through at once."""

    def __init__(self, path):
        super().__init__()
        self.notes = open(path, "a", buffering=1, encoding="utf-8", errors="backslashreplace")

    def note(self, outcome, test, why=""):
        lines = str(why).strip().splitlines()
        self.notes.write(f"{outcome}\t{test.id()}\t{lines[-1] if lines else ''}\n")

    def startTest(self, test):
        super().startTest(test)
        self.note("start", test)

    def addSuccess(self, test):
        self.note("pass", test)

    def addExpectedFailure(self, test, err):
        self.note("pass", test)

    def addSkip(self, test, reason):
        self.note("skip", test, reason)

    def failed(self, test, err):
        text = self._exc_info_to_string(err, test)
        sys.stderr.write(f"---- {test.id()}\n{text}\n")
        self.note("fail", test, f"{err[0].__name__}: {err[1]}".replace("\n", " ")[:300])

    def addFailure(self, test, err):
        self.failed(test, err)

    def addError(self, test, err):
        self.failed(test, err)

    def addSubTest(self, test, subtest, err):
        # unittest reports no success of a test with a failed part, so this is the test's outcome.
        if err is not None:
            self.failed(test, err)

    def addUnexpectedSuccess(self, test):
        self.note("fail", test, "unexpected success")


def flat(suite):
    for test in suite:
        if isinstance(test, unittest.TestSuite):
            yield from flat(test)
        else:
            yield test


def chosen(suite, wanted):
    """The suite without what is not wanted; its nesting is kept, since classes and modules are set up by it."""
    kept = []
    for test in suite:
        if isinstance(test, unittest.TestSuite):
            kept.append(chosen(test, wanted))
        elif wanted(test.id()):
            kept.append(test)
    return type(suite)(kept)


def main():
    results, module, *rest = sys.argv[1:]
    lists = {"--only": set(), "--but": set(), "--never": set()}
    into = None
    for word in rest:
        if word in lists:
            into = lists[word]
        else:
            into.add(word)
    # The module under test shall see the arguments of an ordinary run.
    sys.argv = sys.argv[:1]

    from test import support

    # This module asks for a network and means loopback.
    support.use_resources = RESOURCES + ["network"] * (module == "test_socketserver")
    notes = Notes(results)
    try:
        suite = unittest.defaultTestLoader.loadTestsFromName("test." + module)
    except unittest.SkipTest as skip:
        notes.notes.write(f"skip\ttest.{module}\t{skip}\n")
        suite = unittest.TestSuite()
    only, but, never = lists.values()

    def wanted(test):
        named = test in only if only else test not in but
        return named and not any(fnmatch.fnmatchcase(test, pattern) for pattern in never)

    chosen(suite, wanted).run(notes)
    notes.notes.write("end\t\t\n")


if __name__ == "__main__":
    main()

"""A part of a suite: what is run at once, and how its outcomes are read."""

import fnmatch
from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class Outcomes:
    """What one run of a part said: test -> (pass, fail or skip; why)."""

    tests: dict = field(default_factory=dict)
    # The test that had started when the run broke off.
    open: str = ""
    # Whether the run came to its own end.
    ended: bool = False

    def note(self, test, outcome, why=""):
        """A test may speak more than once (by its parts): what is worst stands."""
        before = self.tests.get(test, ("skip", ""))[0]
        if before != "fail" and not (before == "pass" and outcome == "skip"):
            self.tests[test] = (outcome, why)


def chosen(tests, only, but, never):
    """Of a list of tests, `only` these or all `but` these, without those that match one of the patterns in `never`."""
    wanted = [test for test in tests if (test in only if only else test not in but)]
    return [test for test in wanted if not any(fnmatch.fnmatchcase(test, pattern) for pattern in never)]


class Part:
    """One process at a time that runs many tests one after the other."""

    name = ""
    # Whether CI runs it.
    core = False
    # After so many seconds without a word a test hangs, here, on a loaded machine.
    silence = 90
    # Ways that do not carry such programs, by their nature; they are not run there.
    not_carried = ()
    # Where to run: an empty folder of its own, unless the tests want theirs.
    folder = "/tmp"
    # No more processes than this for one part: each hang costs one.
    attempts = 12

    def command(self, notes, only, but, never):
        """What to run so that outcomes stand in the file `notes` (or in the output), of `only` these or all `but` these;
        in no case what matches one of the patterns in `never`."""
        raise NotImplementedError

    def read(self, notes: Path, output: Path) -> Outcomes:
        """The outcomes so far."""
        raise NotImplementedError

    def environment(self):
        """Variables beside the few that every part gets."""
        return {}

"""`make mutants`: the mistakes that mutmut makes in the rooms, and which of them no test notices."""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tests.mutants.reading import (
    End,
    Equivalent,
    Mutant,
    patterns,
    read_equivalents,
    read_mutants,
)
from tests.mutants.sampling import draw, interval

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent
WORK = ROOT / "build" / "mutants"
PACKAGE = "harness/onnx_harness"
_HUNK = re.compile(r"^@@ -\S+ \+(\d+)(?:,(\d+))? @@")

_NO_MUTANT = "none"
_NOTHING_MATCHES = "Filtered for specific mutants, but nothing matches"

Lines = dict[str, set[int]]
"""Of each file below the source root, the lines that changed."""


@dataclass(frozen=True, slots=True)
class Room:
    """Files whose mistakes have to be noticed, and by which tests.

    Attributes:
        files: below the source root.
        tests: below the repository.
        floor: the least score in percent; None until it was measured.
    """

    name: str
    files: tuple[str, ...]
    tests: tuple[str, ...]
    floor: float | None


@dataclass(frozen=True, slots=True)
class Score:
    """What became of a room's mutants.

    Attributes:
        sampled_of: how many there are, where those that were counted are a sample; None: all.
    """

    room: Room
    counted: list[Mutant]
    texts: int
    excused: int
    sampled_of: int | None = None

    @property
    def unnoticed(self) -> list[Mutant]:
        """The mutants that no test noticed, those that none reaches included."""
        return [
            mutant
            for mutant in self.counted
            if mutant.end not in (End.KILLED, End.TIMED_OUT)
        ]

    @property
    def percent(self) -> float:
        """The share that was noticed; 100 of none."""
        if not self.counted:
            return 100.0
        return 100 * (1 - len(self.unnoticed) / len(self.counted))

    @property
    def too_low(self) -> bool:
        """Whether the room fell below its floor: a sample only where chance doesn't explain it."""
        if self.room.floor is None:
            return False
        return (
            self.percent if self.sampled_of is None else self.interval[1]
        ) < self.room.floor

    @property
    def interval(self) -> tuple[float, float]:
        """The 95% interval of the room's score by a sample, in percent."""
        return interval(len(self.counted) - len(self.unnoticed), len(self.counted))


def read_rooms(path: Path = HERE / "rooms.toml", root: Path = ROOT) -> list[Room]:
    """Read the rooms.

    Raises:
        ValueError: a glob fits no file.
    """
    rooms = []
    for name, entry in tomllib.loads(path.read_text("utf-8")).items():
        files = _globbed(root / PACKAGE, entry["files"], root / PACKAGE.split("/")[0])
        tests = _globbed(root, entry["tests"], root)
        rooms.append(Room(name, files, tests, entry.get("floor")))
    return rooms


def _globbed(folder: Path, patterns: Iterable[str], base: Path) -> tuple[str, ...]:
    found: list[str] = []
    for pattern in patterns:
        matching = sorted(path.relative_to(base).as_posix() for path in folder.glob(pattern))
        if not matching:
            raise ValueError(f"rooms.toml: {pattern!r} fits no file")
        found += matching
    return tuple(found)


def changed_lines(diff: str) -> Lines:
    """Read which lines a ``git diff --unified=0 --relative=harness`` adds or changes."""
    lines: Lines = {}
    file = ""
    for line in diff.splitlines():
        if line.startswith("+++ "):
            file = line.removeprefix("+++ ").removeprefix("b/")
        elif (match := _HUNK.match(line)) is not None:
            first, count = int(match[1]), int(match[2] or 1)
            lines.setdefault(file, set()).update(range(first, first + count))
    return {file: numbers for file, numbers in lines.items() if numbers}


def _git(*words: str) -> str:
    return subprocess.run(
        ["git", *words], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout


def _lay_out(work: Path, room: Room, files: Sequence[str]) -> None:
    """Copy the repository to where mutmut works, laid out as it takes it: the source root is
    ``src``.
    """
    shutil.rmtree(work, ignore_errors=True)
    for name in _git("ls-files", "-co", "--exclude-standard").splitlines():
        source = ROOT / name
        if not source.is_file():  # deleted, and not committed yet
            continue
        target = work / (
            f"src/{name.removeprefix('harness/')}" if name.startswith("harness/") else name
        )
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(source, target)
    settings = {
        "source_paths": ["src"],
        "only_mutate": [f"src/{file}" for file in files],
        "also_copy": ["conftest.py", "models", "reports", "README.md"],
        # Seconds: on a busy machine starting takes longest; one that waits for ever is found so too.
        "timeout_constant": 60.0,
        "timeout_multiplier": 3.0,
        "pytest_add_cli_args": ["-p", "no:cacheprovider"],
        "pytest_add_cli_args_test_selection": list(room.tests),
    }
    section = "\n".join(f"{key} = {value!r}" for key, value in settings.items())
    with (work / "pyproject.toml").open("a", encoding="utf-8") as project:
        project.write(f"\n[tool.mutmut]\n{section}\n")


def _run_mutmut(work: Path, children: int, asked: Sequence[str] = ()) -> None:
    command = [
        sys.executable,
        "-m",
        "mutmut",
        "run",
        "--max-children",
        str(children),
        *asked,
    ]
    mutated = work / "mutants" / "src"
    # Python remembers of a path that isn't there when it starts that nothing is to be found in it.
    mutated.mkdir(parents=True, exist_ok=True)
    environment = os.environ | {"PYTHONPATH": str(mutated)}
    log = work / "mutmut.log"
    # By a pipe: a test may limit the size of files, and mutmut reports its progress meanwhile.
    with (
        log.open("wb", buffering=0) as output,
        subprocess.Popen(
            command,
            cwd=work,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            bufsize=0,
        ) as ended,
    ):
        assert ended.stdout is not None
        shutil.copyfileobj(ended.stdout, output)
    if ended.returncode != 0:
        if asked and _NOTHING_MATCHES in log.read_text("utf-8"):
            return  # of the changed functions mutmut changes none
        end = log.read_text("utf-8").replace("\r", "\n").strip()[-3000:]
        raise RuntimeError(f"mutmut ended with {ended.returncode}; {log} ends:\n{end}")


def _asked(room: Room, lines: Lines) -> list[str]:
    """The mutants to try for ``lines``, as patterns of mutmut's."""
    asked: list[str] = []
    for file in room.files:
        if file in lines:
            source = (ROOT / PACKAGE.split("/")[0] / file).read_text("utf-8")
            asked += patterns(file, source, lines[file])
    return asked


def score(
    room: Room,
    mutants: Iterable[Mutant],
    equivalents: Sequence[Equivalent],
    lines: Lines | None = None,
) -> Score:
    """Count a room's mutants; of ``lines`` alone, where there are some."""
    counted: list[Mutant] = []
    texts = excused = 0
    for mutant in mutants:
        if lines is not None and mutant.line not in lines.get(mutant.file, ()):
            continue
        if mutant.is_text:
            texts += 1
        elif any(entry.fits(mutant) for entry in equivalents):
            excused += 1
        else:
            counted.append(mutant)
    return Score(room, counted, texts, excused)


def _sampled(
    work: Path,
    room: Room,
    equivalents: Sequence[Equivalent],
    count: int,
    seed: int,
    jobs: int,
) -> Score:
    """Try some of a room's mutants; the room's score by them."""
    _run_mutmut(work, jobs, [_NO_MUTANT])  # makes them, and finds out which tests reach them
    untried = list(_mutants(work))
    every = score(room, untried, equivalents)
    keys = {mutant.key for mutant in draw(every.counted, count, seed)}
    if keys:
        _run_mutmut(work, jobs, sorted(keys))
    tried = [mutant for mutant in _mutants(work) if mutant.key in keys]
    counted = score(room, tried, equivalents).counted
    return replace(every, counted=counted, sampled_of=len(every.counted))


def _mutants(work: Path) -> Iterator[Mutant]:
    return read_mutants(work / "mutants" / "src", work / "src")


def stale(
    room: Room, mutants: Sequence[Mutant], equivalents: Sequence[Equivalent]
) -> list[Equivalent]:
    """The reasons for files of ``room`` that fit no mutant which no test notices."""
    survivors = [mutant for mutant in mutants if mutant.end is not End.KILLED]
    mine = [entry for entry in equivalents if entry.file in room.files]
    return [entry for entry in mine if not any(entry.fits(mutant) for mutant in survivors)]


def _show(found: Score) -> None:
    ends = Counter(mutant.end for mutant in found.counted)
    parts = ", ".join(f"{ends[end]} {end}" for end in End if ends[end])
    floor = (
        "" if found.room.floor is None else f", and has to be {found.room.floor:g}% or more"
    )
    mutants = f"{len(found.counted)} mutants"
    if found.sampled_of is not None:
        low, high = found.interval
        mutants += f" sampled of {found.sampled_of} ({low:.1f}% to {high:.1f}%)"
    print(
        f"{found.room.name}: {found.percent:.1f}% of {mutants} noticed{floor}: "
        f"{parts or 'none'}; "
        f"{found.excused} are equivalent, {found.texts} only reword a message or loosen a zip",
        flush=True,
    )
    for mutant in found.unnoticed:
        was, now = (text.replace("\n", " ") for text in (mutant.was, mutant.now))
        print(
            f"  {mutant.end} {PACKAGE.split('/')[0]}/{mutant.file}:{mutant.line}\n    - {was}\n   "
            f" + {now}"
        )


def main(words: Sequence[str] | None = None) -> int:
    """Run mutmut on rooms. 1: on changed lines something went unnoticed, or a whole room fell below
    its floor.
    """
    rooms = {room.name: room for room in read_rooms()}
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    parser.add_argument(
        "rooms", nargs="*", metavar="ROOM", help=f"all without: {', '.join(rooms)}"
    )
    parser.add_argument(
        "--changed", metavar="COMMIT", help="only on lines that differ from this commit"
    )
    parser.add_argument(
        "--sample",
        type=int,
        metavar="N",
        help="N mutants of each room, evenly over its files",
    )
    parser.add_argument("--seed", type=int, default=0, help="of the sample (0)")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args(words)
    if options.sample is not None and (options.sample < 1 or options.changed is not None):
        parser.error("--sample takes a number from 1 on, and no --changed beside it")
    unknown = set(options.rooms) - set(rooms)
    if unknown:
        parser.error(
            f"no room is called {', '.join(sorted(unknown))}; there are {', '.join(rooms)}"
        )
    equivalents = read_equivalents(HERE / "equivalent.toml")
    lines = None
    if options.changed is not None:
        lines = changed_lines(
            _git(
                "diff", "--unified=0", "--relative=harness", options.changed, "--", "harness"
            )
        )
    failed = False
    for name in options.rooms or rooms:
        room = rooms[name]
        asked = [] if lines is None else _asked(room, lines)
        files = [file for file in room.files if lines is None or file in lines]
        if lines is not None and not asked:
            continue  # nothing of it changed that mutmut would change
        work = WORK / name
        _lay_out(work, room, files)
        if options.sample is not None:
            sample = _sampled(
                work, room, equivalents, options.sample, options.seed, options.jobs
            )
            _show(sample)
            failed |= sample.too_low
            continue
        _run_mutmut(work, options.jobs, asked)
        mutants = list(_mutants(work))
        found = score(room, mutants, equivalents, lines)
        _show(found)
        if lines is not None:
            failed |= bool(found.unnoticed)
            continue
        failed |= found.too_low
        for entry in stale(room, mutants, equivalents):
            failed = True
            print(
                f"  equivalent.toml: nothing is like this any more: {entry.file}: {entry.now}"
            )
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())

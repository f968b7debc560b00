"""The experiment's findings so far, a line a step: an interrupted run goes on where it was."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

from onnx_harness.judging.reference import runtime_version
from onnx_harness.results.cache import source_digest
from onnx_harness.selftest.bench import Outcome


class Log:
    """Outcomes by row and step, in a file.

    Those of another version of the code or of a library don't count.
    """

    def __init__(self, file: Path) -> None:
        """Read what is there; a line that a killed run left unfinished is passed over."""
        self._file = file
        self._stamp = _stamp()
        self._known: dict[tuple[str, str], Outcome] = {}
        if not file.is_file():
            return
        for line in file.read_text(encoding="utf-8").splitlines():
            try:
                entry = json.loads(line)
                if entry["stamp"] == self._stamp:
                    fields = entry["outcome"]
                    self._known[entry["row"], entry["step"]] = Outcome(
                        **{**fields, "words": tuple(fields["words"])}
                    )
            except (ValueError, KeyError, TypeError):
                continue

    def get(self, row: str, step: str) -> Outcome | None:
        """Return what the step found, if it was done."""
        return self._known.get((row, step))

    def put(self, row: str, step: str, outcome: Outcome) -> None:
        """Keep it."""
        self._known[row, step] = outcome
        self._file.parent.mkdir(parents=True, exist_ok=True)
        entry = {"stamp": self._stamp, "row": row, "step": step, "outcome": asdict(outcome)}
        with self._file.open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")


def _stamp() -> str:
    """Hash of this package's code and of the versions that verdicts depend on."""
    stamp = f"{runtime_version()} {version('onnx')} {version('numpy')} {source_digest()}"
    return hashlib.sha256(stamp.encode()).hexdigest()[:16]

"""Search for bytes that break a reader, led by coverage: ``python -m tests.fuzz --seconds 600``.

`make fuzz` installs what it needs (atheris). Each reader of `tests.readers` is searched in a process
of its own, which begins with real files and with what earlier searches found interesting. Bytes that
break one are kept, and tried first by the next run: ``python -m tests.fuzz --try FILE`` shows one.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
WORK = Path(os.environ.get("ONNX_HARNESS_FUZZING") or ROOT / "build" / "fuzzing")
# Longer inputs slow the search down, and say nothing that short ones don't.
_LONGEST = 4096
_READ = ("onnx_harness.cards", "onnx_harness.inputs.recorded", "onnx_harness.isolate.answers",
         "onnx_harness.model", "onnx_harness.results.codec")  # fmt: skip


def main(words: Sequence[str] | None = None) -> int:
    """Search each reader for its share of the time; 1 if one broke."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("readers", nargs="*", metavar="READER", help="all without")
    parser.add_argument("--seconds", type=int, default=600, help="for all of them (600)")
    parser.add_argument("--try", type=Path, dest="file", help="give this file to one reader")
    parser.add_argument("--search", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(words)
    if options.file is not None or options.search:
        return _one(options.readers[0], options.seconds, options.file)
    from tests.readers import READERS

    broken = []
    names = options.readers or list(READERS)
    for name in names:
        seconds = max(1, options.seconds // len(names))
        command = [
            sys.executable,
            "-m",
            "tests.fuzz",
            name,
            "--search",
            "--seconds",
            str(seconds),
        ]
        ended = subprocess.run(
            command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        lines = ended.stdout.splitlines()
        searched = next(
            (line for line in lines if line.startswith("Done ")), "it ended early"
        )
        print(f"{name}: {searched}", flush=True)
        if ended.returncode:
            broken.append(name)
            print("\n".join(lines[-30:]), flush=True)
    if broken:
        print(f"Broken: {', '.join(broken)}. {WORK} holds the bytes; --try FILE shows one.")
    return int(bool(broken))


def _one(name: str, seconds: int, file: Path | None) -> int:
    atheris: Any = importlib.import_module("atheris")  # nobody else needs it
    with atheris.instrument_imports(include=list(_READ)):
        from tests.readers import PLANTED, READERS
    reader = {**READERS, "planted": PLANTED}[name]
    if file is not None:
        reader.read(file.read_bytes())
        return 0
    corpus = WORK / name
    corpus.mkdir(parents=True, exist_ok=True)
    for data in reader.files:
        (corpus / hashlib.sha256(data).hexdigest()).write_bytes(data)
    options = (
        f"-max_total_time={seconds}",
        f"-max_len={_LONGEST}",
        f"-artifact_prefix={corpus}/broke-",
        "-timeout=10",
        "-rss_limit_mb=1024",
        "-print_final_stats=1",
    )
    atheris.Setup([sys.argv[0], *options, str(corpus)], reader.read)
    atheris.Fuzz()
    return 0


if __name__ == "__main__":
    sys.exit(main())

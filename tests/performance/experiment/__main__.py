"""How far the latency gate can be believed: measured, and printed with what it rests on.

    python -m tests.performance.experiment                          # everything that is missing,
    then the table python -m tests.performance.experiment --row aa --minutes 10    # a slice of one
    row python -m tests.performance.experiment --minutes 0              # the table of what has been
    measured

Measurements are appended to a file; a run that was interrupted goes on where it was. Nothing else
should run meanwhile.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from tests.performance.experiment.analysis import table
from tests.performance.experiment.recordings import Recordings
from tests.performance.experiment.sabotage import sabotage
from tests.performance.experiment.taking import ROWS, OutOfTime, take


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--row", action="append", choices=ROWS, help="only this row; repeatable"
    )
    parser.add_argument(
        "--minutes",
        type=float,
        default=118.0,
        help="measure for so long at most (default: 118)",
    )
    parser.add_argument(
        "--file", type=Path, default=Path("reports/latency_experiment.jsonl")
    )
    options = parser.parse_args()
    recordings = Recordings(options.file)
    deadline = time.monotonic() + 60 * options.minutes
    try:
        for row in (options.row or ROWS) if options.minutes > 0 else ():
            print(
                f"{row} ({(deadline - time.monotonic()) / 60:.0f} minutes left)", flush=True
            )
            take(row, recordings, deadline)
    except OutOfTime:
        print("the time is over; the next run goes on from here")
    except KeyboardInterrupt:
        print("interrupted; the next run goes on from here")
    for line in table(recordings, sabotage):
        print(line, flush=True)


if __name__ == "__main__":
    main()

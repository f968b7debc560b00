"""``--cluster`` over a network of its own, in which one worker's machine is cut off.

Needs .venv-cluster, and network namespaces.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.models import linear, save
from tests.plugin.running import read_cells, start_pytest
from tests.providers.namespaces import HERE, TwoMachines
from tests.providers.test_cluster import Scheduler, in_history, wait_until

pytestmark = pytest.mark.providers

# So many that the machine still has some to judge when it's cut off, however fast it is.
MODELS = 30


@pytest.fixture
def machines() -> Iterator[TwoMachines]:
    try:
        made = TwoMachines()
    except OSError as error:
        pytest.skip(f"no network namespaces can be made here: {error}")
    yield made
    made.close()


@pytest.mark.parametrize("heals", [True, False], ids=["for a while", "for good"])
def test_a_machine_that_is_cut_off_loses_no_cell_and_judges_none_twice(
    tmp_path: Path, machines: TwoMachines, heals: bool
) -> None:
    """Its worker goes on judging meanwhile: what it has to say later is too late."""
    for number in range(MODELS):
        save(linear(), tmp_path / "zoo" / f"m{number}.onnx")
    scheduler = Scheduler(tmp_path, own=("--host", HERE), wrap=machines.here, ttl="8s")
    try:
        scheduler.add_worker("near", "ep:cpu=1", wrap=machines.here)
        scheduler.add_worker("far", "ep:cpu=1", wrap=machines.there)
        variants = [f"--variant={name}" for name in ("original", "simplify", "optimize")]
        options = ("zoo", *variants, "-k=accuracy", "--report-dir=reports")
        run = start_pytest(
            tmp_path,
            *options,
            "--cluster=scheduler.json",
            wrap=machines.here,
            start_new_session=True,
        )
        wait_until(lambda: len(read_cells(tmp_path)) >= 2 or run.poll() is not None)
        assert run.poll() is None, run.communicate()
        machines.cut()
        if heals:
            wait_until(lambda: is_removed(tmp_path) or run.poll() is not None)
            machines.heal()
        said, _ = run.communicate(timeout=240)
    finally:
        scheduler.close()
    assert run.returncode == pytest.ExitCode.OK, said
    assert is_removed(tmp_path), "the cut was noticed"
    cells = read_cells(tmp_path)
    assert len(cells) == 3 * MODELS
    assert {cell["status"] for cell in cells.values()} == {"pass"}
    [listed] = (tmp_path / "reports" / "runs").glob("*.jsonl")
    lines = [json.loads(line) for line in listed.read_text().splitlines() if line]
    assert Counter(line["id"] for line in lines if "id" in line) == Counter([*cells])
    assert in_history(tmp_path) == Counter([*cells])
    assert len(list((tmp_path / "reports" / "verdicts").rglob("*.json"))) == 3 * MODELS


def is_removed(folder: Path) -> bool:
    """Whether the scheduler has given up the worker that was cut off."""
    log = (folder / "dask.log").read_text("utf-8", "replace")
    return re.search(r"Remove worker.*name: far.*ttl", log) is not None

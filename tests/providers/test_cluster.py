"""``--cluster`` on a real scheduler of Dask and worker processes of their own, some of which die.

Needs .venv-cluster.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import psutil
import pytest

from tests.models import linear, save, two_outputs, with_external_data
from tests.plugin.running import read_cells, run_pytest, start_pytest

pytestmark = pytest.mark.providers

pytest.importorskip("distributed", reason="needs .venv-cluster: make test-cluster")

SECONDS = 300


@pytest.fixture
def zoo(tmp_path: Path) -> Path:
    for number in range(4):
        save(linear() if number % 2 else two_outputs(), tmp_path / "zoo" / f"m{number}.onnx")
    with_external_data(tmp_path / "zoo" / "ext.onnx", "weights.bin")
    return tmp_path


class Scheduler:
    """A scheduler of Dask and its workers, as an administrator starts them.

    Args:
        folder: of its files.
        security: words for the scheduler and all workers, those for TLS.
        own: words for the scheduler alone.
        wrap: what goes before the scheduler's command.
        ttl: a worker that is cut off counts as lost after this, and not after five minutes.
    """

    def __init__(
        self,
        folder: Path,
        *security: object,
        own: Sequence[str] = (),
        wrap: Sequence[str] = (),
        ttl: str = "40s",
    ) -> None:
        self._folder, self._ttl = folder, ttl
        self._security = security
        self._file = folder / "scheduler.json"
        self._processes: list[subprocess.Popen[bytes]] = []
        self._start(
            "scheduler",
            "--scheduler-file",
            self._file,
            "--port",
            "0",
            "--no-dashboard",
            *own,
            wrap=wrap,
        )
        wait_until(
            lambda: self._file.is_file() and json.loads(self._file.read_text())["address"]
        )

    def add_worker(
        self,
        name: str,
        resources: str,
        *,
        path: Path | None = None,
        wrap: Sequence[str] = (),
    ) -> subprocess.Popen[bytes]:
        """Start a worker; modules in ``path`` come before those that are installed."""
        before = self._registered()
        started = self._start(
            "worker",
            "--scheduler-file",
            self._file,
            "--no-nanny",
            # imported before it registers, and not while the scheduler waits for a heartbeat
            "--preload=onnx_harness.run.cluster.worker",
            "--no-dashboard",
            "--nthreads=1",
            "--name",
            name,
            "--resources",
            resources,
            "--local-directory",
            self._folder / name,
            path=path,
            wrap=wrap,
        )
        wait_until(lambda: self._registered() > before)
        return started

    def _registered(self) -> int:
        return (
            (self._folder / "dask.log")
            .read_text("utf-8", "replace")
            .count("Register worker")
        )

    def close(self) -> None:
        for process in reversed(self._processes):
            for child in psutil.Process(process.pid).children(recursive=True):
                child.kill()
            process.kill()
            process.wait()

    def _start(
        self, what: str, *args: object, path: Path | None = None, wrap: Sequence[str] = ()
    ) -> subprocess.Popen[bytes]:
        environment = os.environ | {
            "DASK_DISTRIBUTED__SCHEDULER__WORKER_TTL": self._ttl,
            "ONNX_HARNESS_CACHE": str(self._folder / "worker-cache"),
        }
        if path is not None:
            environment["PYTHONPATH"] = (
                f"{path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
            )
        command = [
            *wrap,
            sys.executable,
            "-m",
            "dask",
            what,
            *map(str, (*args, *self._security)),
        ]
        with (self._folder / "dask.log").open("ab") as log:
            process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        self._processes.append(process)
        return process


@pytest.fixture
def scheduler(tmp_path: Path) -> Iterator[Scheduler]:
    started = Scheduler(tmp_path)
    yield started
    started.close()


def wait_until(holds: Callable[[], object], seconds: float = SECONDS) -> None:
    ends = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < ends, "it didn't come to pass"
        time.sleep(0.1)


def in_history(folder: Path) -> Counter[str]:
    """How often each cell is in the history, over all runs, and that the history is whole."""
    with sqlite3.connect(folder / "reports" / "history.sqlite") as database:
        assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        rows = database.execute(
            "SELECT cell_id, count(*) FROM (SELECT DISTINCT run_id, cell_id FROM cells) GROUP BY cell_id"
        )
        return Counter(dict(rows))


def test_a_local_cluster_judges_and_times_what_one_process_does(zoo: Path) -> None:
    options = (
        "zoo",
        "--variant=original",
        "--variant=simplify",
        "--report-dir=reports",
        "--latency-budget=0.1",
    )
    ended = run_pytest(zoo, *options, "--cluster=local", "--jobs=2")
    assert ended.code == pytest.ExitCode.OK, ended.told
    assert len(ended.cells) == 10
    assert all(cell["latency"] and cell["machine"] is None for cell in ended.cells.values())
    again = run_pytest(zoo, *options, "--cluster=local", "--jobs=2", "--resume", "-v")
    assert again.code == pytest.ExitCode.OK, again.told
    verdicts = list((zoo / "reports" / "verdicts").rglob("*.json"))
    assert len(verdicts) == 10  # nothing was judged under another key


def test_a_provider_without_a_worker_is_refused_before_anything_runs(
    zoo: Path, scheduler: Scheduler
) -> None:
    scheduler.add_worker("one", "ep:cpu=1")
    address = json.loads((zoo / "scheduler.json").read_text())["address"]
    ended = run_pytest(zoo, "zoo", "--provider=cuda", f"--cluster={address}")
    assert ended.code == pytest.ExitCode.USAGE_ERROR
    assert "no worker of the cluster has 'ep:cuda'" in ended.told


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "cut off"])
def test_a_lost_worker_and_a_restarted_coordinator_lose_no_cell_and_judge_none_twice(
    zoo: Path, scheduler: Scheduler, how: signal.Signals
) -> None:
    """One worker is killed (or stopped, as one behind a broken network), then the coordinator."""
    first, _ = (
        scheduler.add_worker("one", "ep:cpu=1"),
        scheduler.add_worker("two", "ep:cpu=1"),
    )
    options = (
        "zoo",
        "--variant=original",
        "--variant=simplify",
        "--variant=optimize",
        "--variant=fp16.io32",
        "-k=accuracy",
        "--report-dir=reports",
        "--cluster=scheduler.json",
    )
    coordinator = start_pytest(zoo, *options, start_new_session=True)
    wait_until(lambda: len(read_cells(zoo)) >= 2 or coordinator.poll() is not None)
    stopped = [
        *psutil.Process(first.pid).children(recursive=True),
        psutil.Process(first.pid),
    ]
    for process in stopped:
        process.send_signal(how)
    wait_until(lambda: len(read_cells(zoo)) >= 6 or coordinator.poll() is not None)
    os.killpg(coordinator.pid, signal.SIGKILL)
    coordinator.communicate()
    kept = set(read_cells(zoo))
    if how is signal.SIGSTOP:  # its cell processes as well, which it waits for
        for process in stopped:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(signal.SIGCONT)
    ended = run_pytest(zoo, *options, "--resume")
    assert ended.code == pytest.ExitCode.OK, ended.told
    assert len(ended.cells) == 20
    assert kept <= set(ended.cells)
    runs = list((zoo / "reports" / "runs").glob("*.jsonl"))
    lines = [
        json.loads(line) for run in runs for line in run.read_text().splitlines() if line
    ]
    listed = Counter(line["id"] for line in lines if "id" in line)
    # Twice: the one that was judged, and the note of the run that took it over.
    assert max(listed.values()) <= 2
    assert max(in_history(zoo).values()) <= 2
    assert len(list((zoo / "reports" / "verdicts").rglob("*.json"))) == 20


# Of a machine whose disk is full: a cell process gets no folder for its files.
FULL_DISK = """
import errno, tempfile
made = tempfile.mkdtemp

def full(suffix=None, prefix=None, dir=None):
    if prefix == "onnx-harness-profile-":
        raise OSError(errno.ENOSPC, "No space left on device")
    return made(suffix, prefix, dir)

tempfile.mkdtemp = full
"""
BROKEN = {
    "a full disk": ("sitecustomize.py", FULL_DISK),
    "no provider": ("onnxruntime.py", "raise ImportError('its libraries are gone')"),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_what_fails_on_a_broken_worker_is_judged_by_another_one(
    zoo: Path, scheduler: Scheduler, fault: str
) -> None:
    name, text = BROKEN[fault]
    broken = zoo / "broken"
    broken.mkdir()
    (broken / name).write_text(text)
    scheduler.add_worker("broken", "ep:cpu=1", path=broken)
    scheduler.add_worker("whole", "ep:cpu=1")
    options = ("zoo", "--variant=original", "--variant=simplify", "-k=accuracy")
    ended = run_pytest(zoo, *options, "--report-dir=reports", "--cluster=scheduler.json")
    assert ended.code == pytest.ExitCode.OK, ended.told
    assert len(ended.cells) == 10


def test_what_fails_on_every_worker_ends_as_an_error_that_names_them(
    zoo: Path, scheduler: Scheduler
) -> None:
    (zoo / "broken").mkdir()
    (zoo / "broken" / "sitecustomize.py").write_text(FULL_DISK)
    for name in ("one", "two"):
        scheduler.add_worker(name, "ep:cpu=1", path=zoo / "broken")
    options = ("zoo/m0.onnx", "--variant=original", "-k=accuracy", "--report-dir=reports")
    ended = run_pytest(zoo, *options, "--cluster=scheduler.json")
    assert ended.code == pytest.ExitCode.TESTS_FAILED, ended.told
    cell = ended.cells["m0-original-cpu"]
    assert (cell["status"], cell["symptom"]) == ("error", "environment")
    assert cell["reason"].startswith("tried 3 times, on tcp://")
    assert cell["reason"].count("tcp://") == 2
    assert cell["reason"].endswith("No space left on device")
    assert not list((zoo / "reports" / "verdicts").rglob("*.json"))


def test_a_cluster_with_certificates_is_reached_with_them_alone(zoo: Path) -> None:
    """As docs/cluster.md has it."""
    if shutil.which("openssl") is None:
        pytest.skip("needs openssl, to make certificates")
    make_certificates(zoo)
    (zoo / "cluster.toml").write_text("")
    tls = [f"--tls-{name}={zoo / file}" for name, file in CERTIFICATES.items()]
    started = Scheduler(zoo, *tls, "--protocol", "tls")
    try:
        started.add_worker("one", "ep:cpu=1")
        address = json.loads((zoo / "scheduler.json").read_text())["address"]
        assert address.startswith("tls://")
        options = (
            "zoo/m0.onnx",
            "--variant=original",
            "-k=accuracy",
            "--report-dir=reports",
        )
        plain = run_pytest(zoo, *options, f"--cluster={address.replace('tls', 'tcp', 1)}")
        assert plain.code == pytest.ExitCode.USAGE_ERROR, plain.told
        (zoo / "cluster.toml").write_text(
            f'[cluster]\naddress = "{address}"\nca = "ca.pem"\ncert = "cert.pem"\nkey = "key.pem"\n'
        )
        ended = run_pytest(zoo, *options, "--cluster=cluster.toml")
        assert ended.code == pytest.ExitCode.OK, ended.told
        assert list(ended.cells) == ["m0-original-cpu"]
    finally:
        started.close()


CERTIFICATES = {"ca-file": "ca.pem", "cert": "cert.pem", "key": "key.pem"}


def make_certificates(folder: Path) -> None:
    """Make an authority, and a certificate that it signs; the commands are those of the page."""
    for command in (
        "req -x509 -newkey rsa:2048 -nodes -days 30 -subj /CN=authority"
        " -keyout ca-key.pem -out ca.pem",
        "req -newkey rsa:2048 -nodes -subj /CN=cluster -keyout key.pem -out request.pem",
        "x509 -req -days 30 -in request.pem -CA ca.pem -CAkey ca-key.pem -CAcreateserial"
        " -out cert.pem",
    ):
        subprocess.run(
            ["openssl", *command.split()], cwd=folder, check=True, capture_output=True
        )

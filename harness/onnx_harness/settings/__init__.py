"""The settings of a run, each declared once; `onnx_harness.settings.project` reads them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING

from onnx_harness.settings.declaring import as_option, is_cluster
from onnx_harness.settings.kinds import (
    BYTES,
    CHAINS,
    FLAG,
    JOBS,
    NUMBER,
    PATH,
    PATHS,
    SHARD,
    TEXT,
    WHOLE,
    WORDS,
    Option,
)

if TYPE_CHECKING:
    from onnx_harness.isolate import Limits


def _default_memory_bytes() -> int:
    # Multiprocessing and psutil aren't for pytest's every start.
    from onnx_harness.isolate import default_memory_bytes

    return default_memory_bytes()


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything that shapes a run's verdicts.

    Attributes:
        provider: names of execution providers.
        variant: variants and groups of them, as written.
        variants: the project's own named variants, name to chain.
        input_sets: how many sets of inputs a model is judged on; recorded ones come on top.
        seed: of the generated inputs and of the order of timed runs.
        report_dir: where results go; None writes nothing.
        rtol: relative tolerance that overrides every other; None leaves the choice to provider,
            dtype and card.
        atol: absolute tolerance; both or neither.
        min_placement: share of nodes that the provider must own, in [0, 1]; None asks the provider.
        cell_timeout: seconds of wall-clock time for the way of one cell.
        cell_memory: bytes of resident memory for it.
        custom_ops: libraries of custom operators, registered with every session after those of the
            card.
        allow_read: files and folders that a worker may read besides its environment, the cache and
            what it is asked about; ``/`` lets it read everything, and write.
        trust_models: whether a model is opened that could exhaust the machine, as its bytes tell.
        latency_budget: seconds of timed running for one cell.
        gate_reference: folder of the virtual environment with the last accepted versions; None
            compares with none.
        sarif: file that the failing cells are written to as SARIF; None writes none.
        worst_first: whether the table at the end begins with what failed.
        sensitivity: whether faults are planted in each cell that passes, to see what its verdict
            catches.
        jobs: how many processes judge accuracy at once; 0 stands for as many as there are cores,
            and memory for.
        shard: part and number of parts of the run's cells, from 1; None: all of them.
        shard_times: results, history or report folder of an earlier run, whose times balance the
            parts; None: each cell counts alike.
        cluster: where cells are judged on many machines: ``local``, the address of a scheduler of
            Dask, or a file that says it; empty: on this machine alone.
        resume: whether verdicts that an earlier run left in the report folder stand, instead of
            being made again.
        diagnose: whether the cause of each failure is searched for.
        diagnose_budget: seconds for that search, in each failing cell.
    """

    provider: tuple[str, ...] = field(
        default=("cpu",),
        metadata=as_option(WORDS, "execution provider, repeatable (default: cpu)", "NAME"),
    )
    variant: tuple[str, ...] = field(
        default=("default",),
        metadata=as_option(WORDS, "variant or group, repeatable (default: default)", "V"),
    )
    variants: Mapping[str, str] = field(
        default_factory=dict,
        metadata=as_option(CHAINS, ""),
    )
    input_sets: int = field(
        default=4,
        metadata=as_option(
            WHOLE,
            "random input sets per model (default: 4)",
            "N",
            holds=lambda count: count >= 1,
            range="1 or more",
        ),
    )
    seed: int = field(
        default=0,
        metadata=as_option(
            WHOLE,
            "seed of the random inputs (default: 0)",
            "S",
            holds=lambda seed: seed >= 0,
            range="0 or more",
        ),
    )
    report_dir: Path | None = field(
        default=None,
        metadata=as_option(PATH, "where results go (default: nowhere)", "DIR"),
    )
    rtol: float | None = field(
        default=None,
        metadata=as_option(
            NUMBER,
            "relative tolerance, with --atol",
            "R",
            holds=lambda rtol: 0 <= rtol < math.inf,
            range="0 or more, and finite",
        ),
    )
    atol: float | None = field(
        default=None,
        metadata=as_option(
            NUMBER,
            "absolute tolerance, with --rtol",
            "A",
            holds=lambda atol: 0 <= atol < math.inf,
            range="0 or more, and finite",
        ),
    )
    min_placement: float | None = field(
        default=None,
        metadata=as_option(
            NUMBER,
            "share of nodes that the provider must own, 0 to 1",
            "F",
            holds=lambda share: 0 <= share <= 1,
            range="between 0 and 1",
        ),
    )
    cell_timeout: float = field(
        default=300.0,
        metadata=as_option(
            NUMBER,
            "time limit of a cell (default: 300)",
            "SECONDS",
            holds=lambda seconds: seconds > 0,
            range="more than 0 seconds",
        ),
    )
    cell_memory: int = field(
        default_factory=_default_memory_bytes,
        metadata=as_option(
            BYTES,
            "memory limit, such as 4G (default: 3/4 of the machine's)",
            "BYTES",
            holds=lambda size: size > 0,
            range="more than 0 bytes",
        ),
    )
    allow_read: tuple[Path, ...] = field(
        default=(),
        metadata=as_option(
            PATHS,
            "where the process that opens models may read too, repeatable (/: everywhere)",
            "PATH",
        ),
    )
    trust_models: bool = field(
        default=False,
        metadata=as_option(
            FLAG, "open models without first asking their bytes what they would take"
        ),
    )
    custom_ops: tuple[Path, ...] = field(
        default=(),
        metadata=as_option(
            PATHS, "library of custom operators for every session, repeatable", "FILE"
        ),
    )
    latency_budget: float = field(
        default=1.5,
        metadata=as_option(
            NUMBER,
            "time spent on timing a cell (default: 1.5)",
            "SECONDS",
            holds=lambda seconds: 0 < seconds < math.inf,
            range="more than 0 seconds",
        ),
    )
    gate_reference: Path | None = field(
        default=None,
        metadata=as_option(
            PATH,
            (
                "virtual environment with the last accepted versions: each cell runs there too, in "
                "lockstep"
            ),
            "PATH",
        ),
    )
    sarif: Path | None = field(
        default=None,
        metadata=as_option(PATH, "write the failing cells there as SARIF 2.1.0", "FILE"),
    )
    sensitivity: bool = field(
        default=False,
        metadata=as_option(
            FLAG, "plant faults in what passes, and count those that are caught"
        ),
    )
    worst_first: bool = field(
        default=False,
        metadata=as_option(FLAG, "sort the table at the end by how wrong cells are"),
    )

    jobs: int = field(
        default=1,
        metadata=as_option(
            JOBS,
            "judge accuracy in N processes at once; latency afterwards, alone (default: 1)",
            "N|auto",
            holds=lambda jobs: jobs >= 0,
            range="auto, or 1 or more",
        ),
    )
    shard: tuple[int, int] | None = field(
        default=None,
        metadata=as_option(
            SHARD,
            "only the I-th of N parts of the cells, of about the same time, see --shard-times",
            "I/N",
            holds=lambda shard: 1 <= shard[0] <= shard[1],
            range="I/N with I from 1 to N",
        ),
    )
    shard_times: Path | None = field(
        default=None,
        metadata=as_option(
            PATH,
            "results.json, history or report folder of an earlier run, whose times balance the "
            "parts of --shard; the same for every part (default: each cell counts alike)",
            "PATH",
        ),
    )
    cluster: str = field(
        default="",
        metadata=as_option(
            TEXT,
            "judge on a cluster of Dask: local, tcp://HOST:PORT, tls://HOST:PORT or a file",
            "local|ADDRESS|FILE",
            holds=is_cluster,
            range="local, an address such as tcp://HOST:8786, or a .toml or .json file",
        ),
    )
    resume: bool = field(
        default=False,
        metadata=as_option(
            FLAG,
            "what an earlier run left in --report-dir isn't judged again where nothing changed",
        ),
    )
    diagnose: bool = field(
        default=False,
        metadata=as_option(FLAG, "search for the cause of each failure"),
    )
    diagnose_budget: float = field(
        default=60.0,
        metadata=as_option(
            NUMBER,
            "time for that in a failing cell (default: 60)",
            "SECONDS",
            holds=lambda seconds: 0 < seconds < math.inf,
            range="more than 0 seconds",
        ),
    )

    @property
    def limits(self) -> Limits:
        """The limits of the worker process."""
        from onnx_harness.isolate import Limits

        return Limits(self.cell_timeout, self.cell_memory)

    @property
    def tolerance_override(self) -> tuple[float, float] | None:
        """(rtol, atol) when the command line sets them."""
        return None if self.rtol is None or self.atol is None else (self.rtol, self.atol)


OPTIONS: Mapping[str, Option] = {
    declared.name: Option(declared.name, *declared.metadata["option"])
    for declared in fields(Settings)
}
"""The settings by key; those without a help are keys of pyproject.toml alone."""

"""Read what ``--cluster`` names, and connect to it."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from onnx_harness.errors import UsageError, did_you_mean, first_line
from onnx_harness.results.run import this_host

CONNECT_SECONDS = 30
_KEYS = ("address", "ca", "cert", "key", "requires")
_TLS = ("ca", "cert", "key")


@dataclass(frozen=True, slots=True)
class Address:
    """Where the scheduler is.

    Attributes:
        url: such as ``tls://host:8786``; empty for a cluster of this machine's own processes.
        tls: ``ca``, ``cert`` and ``key`` to their files; empty without TLS.
        requires: by execution provider, the tags that a worker has to have beside ``ep:NAME``.
    """

    url: str = ""
    tls: Mapping[str, Path] = field(default_factory=dict)
    requires: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


def parse_address(word: str) -> Address:
    """Read ``local``, an address, a TOML file of ours or a scheduler file of Dask.

    Raises:
        UsageError: the file can't be read, has an unknown key, or TLS lacks one of its files.
    """
    if word == "local":
        return Address()
    if "://" in word:
        if word.startswith("tls://"):
            raise UsageError(
                f"--cluster {word}: TLS needs its certificates. Mend: name a file, "
                '--cluster cluster.toml, with address, ca, cert and key under "[cluster]"'
            )
        return Address(word)
    file = Path(word)
    try:
        text = file.read_text("utf-8")
        if file.suffix == ".json":
            return Address(str(json.loads(text)["address"]))
        table = tomllib.loads(text)["cluster"]
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"--cluster {word} can't be read: {error}") from None
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(
            f"--cluster {word} names no scheduler ({error}): a .toml has a table [cluster] with "
            f"address, a .json is a scheduler file of Dask"
        ) from None
    return _of_table(table, file)


def _of_table(table: Any, file: Path) -> Address:
    if not isinstance(table, dict) or not isinstance(table.get("address"), str):
        raise UsageError(f'{file}: [cluster] needs address = "tls://HOST:8786"')
    for key in table:
        if key not in _KEYS:
            raise UsageError(
                f"{file}: [cluster] has no key '{key}'. {did_you_mean(key, _KEYS)}"
            )
    keys = [key for key in _TLS if key in table]
    if (keys and len(keys) < len(_TLS)) or (
        not keys and table["address"].startswith("tls:")
    ):
        raise UsageError(f"{file}: TLS needs {', '.join(_TLS)}: name all three in [cluster]")
    requires = table.get("requires", {})
    if not isinstance(requires, dict):
        raise UsageError(f'{file}: requires = {{ cuda = ["gpu:h200"] }} is what it takes')
    return Address(
        table["address"],
        {key: file.parent / str(table[key]) for key in keys},
        {name: tuple(map(str, tags)) for name, tags in requires.items()},
    )


@contextlib.contextmanager
def connected(address: Address, processes: int, providers: tuple[str, ...]) -> Iterator[Any]:
    """Connect to a scheduler, or start one with workers on this machine.

    Args:
        address: of the scheduler.
        processes: of a local cluster.
        providers: what its workers offer.

    Yields:
        A ``distributed.Client``.

    Raises:
        UsageError: Dask isn't installed, or there is no scheduler.
    """
    if importlib.util.find_spec("distributed") is None:
        raise UsageError(
            "--cluster needs Dask.distributed. Mend: pip install 'onnx-harness[cluster]'"
        )
    if address.url:
        with _remote(address) as client:
            yield client
    else:
        with _local(processes, providers) as client:
            yield client


@contextlib.contextmanager
def _remote(address: Address) -> Iterator[Any]:
    from distributed import Client
    from distributed.security import Security

    security = None
    if address.tls:
        security = Security(
            tls_ca_file=str(address.tls["ca"]),
            tls_client_cert=str(address.tls["cert"]),
            tls_client_key=str(address.tls["key"]),
            require_encryption=True,
        )
    try:
        client = Client(
            address.url, timeout=CONNECT_SECONDS, security=security, set_as_default=False
        )
    except (OSError, ValueError, TypeError) as error:
        raise UsageError(
            f"there is no scheduler at {address.url}: {first_line(error)}. Mend: start one with "
            f"`dask scheduler`, and workers with `dask worker {address.url}`"
        ) from None
    with client:
        yield client


@contextlib.contextmanager
def _local(processes: int, providers: tuple[str, ...]) -> Iterator[Any]:
    import dask
    from distributed import Client, LocalCluster

    tags = {f"ep:{name}": 1 for name in providers}
    tags["mem_gb"] = this_host().memory_bytes // 10**9 // processes
    # Cells have processes of their own with limits of their own: those of a worker hold nothing.
    with (
        dask.config.set({"distributed.worker.daemon": False}),
        LocalCluster(
            n_workers=processes,
            threads_per_worker=1,
            processes=True,
            memory_limit=0,
            dashboard_address=None,
            resources=tags,
        ) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        yield client

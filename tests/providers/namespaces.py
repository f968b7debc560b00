"""Two machines on this one: network namespaces with a cable between them that can be pulled."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence

TOOLS = ("unshare", "nsenter", "ip")
HERE, THERE = "10.77.0.1", "10.77.0.2"


class TwoMachines:
    """Processes in `here` and `there` reach each other until :meth:`cut`, and nobody else.

    Nothing of it is in this machine's own network, and root isn't needed where users may make
    namespaces of their own.

    Raises:
        OSError: a tool is missing, or it isn't permitted here.
    """

    def __init__(self) -> None:
        self._holders: list[subprocess.Popen[bytes]] = []
        if missing := [tool for tool in TOOLS if shutil.which(tool) is None]:
            raise OSError(f"there is no {missing[0]}")
        try:
            self.here = self._namespace(["unshare", "--user", "--map-root-user", "--net"])
            self.there = self._namespace([*self.here, "unshare", "--net"])
            peer = str(self._holders[1].pid)
            cable = "link add here type veth peer name there netns"
            self._ip(self.here, *cable.split(), peer)
            for machine, name, address in (
                (self.here, "here", HERE),
                (self.there, "there", THERE),
            ):
                self._ip(machine, "addr", "add", f"{address}/24", "dev", name)
                self._ip(machine, "link", "set", name, "up")
                self._ip(machine, "link", "set", "lo", "up")
        except BaseException:
            self.close()
            raise

    def cut(self) -> None:
        """Take the interface of the other machine down: packets are lost, and nobody is told."""
        self._ip(self.there, "link", "set", "there", "down")

    def heal(self) -> None:
        """Bring the interface up again."""
        self._ip(self.there, "link", "set", "there", "up")

    def close(self) -> None:
        """Let the namespaces go: they end with the last process in them."""
        for holder in reversed(self._holders):
            holder.kill()
            holder.communicate()

    def _namespace(self, command: Sequence[str]) -> tuple[str, ...]:
        """Hold a namespace open by a process; return what goes before a command to run in it."""
        said = subprocess.PIPE
        words = [*command, "sh", "-c", "echo made; exec sleep 3600"]
        holder = subprocess.Popen(words, stdout=said, stderr=said)
        self._holders.append(holder)
        assert holder.stdout is not None
        assert holder.stderr is not None
        if holder.stdout.readline() != b"made\n":
            raise OSError(holder.stderr.read().decode("utf-8", "replace").strip())
        enter = f"nsenter --preserve-credentials --user --net --target {holder.pid}"
        return tuple(enter.split())

    def _ip(self, machine: Sequence[str], *words: str) -> None:
        ended = subprocess.run([*machine, "ip", *words], capture_output=True, check=False)
        if ended.returncode:
            raise OSError(ended.stderr.decode("utf-8", "replace").strip())

"""One cell ahead: the next one is judged while the last one's verdict is reported."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, wait

from onnx_harness.cell.matrix import Cell
from onnx_harness.cell.state import Judged


class Ahead:
    """Judges cells in turn, each as soon as the one before it was asked for.

    Only one is ever judged, and only one is judged that nobody has asked for yet: a run that stops
    has lost no more than that.
    """

    def __init__(
        self,
        cells: Sequence[Cell],
        judge: Callable[[Cell], Judged],
        ends: Callable[[Judged], bool] = lambda _: True,
    ) -> None:
        """Begin nothing yet.

        Args:
            cells: in the order in which they will be asked for.
            judge: one of them, in whichever thread; never two at once.
            ends: whether the worker has no more to do for a cell of that verdict. Behind one for
                which it has, nothing is begun: the verdict would wait for it, untold.
        """
        self._judge = judge
        self._ends = ends
        self._next = {cell.id: after for cell, after in itertools.pairwise(cells)}
        self._begun: dict[str, Future[Judged]] = {}
        self._asked: set[str] = set()
        self._thread: threading.Thread | None = None

    def take(self, cell: Cell) -> Judged:
        """Return the verdict on a cell, and begin with the one after it."""
        self._asked.add(cell.id)
        begun = self._begun.pop(cell.id, None)
        if begun is None:
            self.settle()
            judged = self._judge(cell)
        else:
            judged = begun.result()
        after = self._next.pop(cell.id, None)
        if after is not None and after.id not in self._asked and self._ends(judged):
            self._begin(after)
        return judged

    def settle(self) -> None:
        """Wait until nothing is being judged: what asks for this may use the same worker.

        The cell that is being judged may ask too, and needn't wait.
        """
        if threading.current_thread() is not self._thread:
            wait(self._begun.values())

    def _begin(self, cell: Cell) -> None:
        future: Future[Judged] = Future()

        def work() -> None:
            try:
                future.set_result(self._judge(cell))
            except BaseException as error:  # whoever asks for the cell has to hear of it
                future.set_exception(error)

        self.settle()
        self._begun[cell.id] = future
        # Not a pool's thread: the interpreter would wait for it at its end, for a download if need
        # be.
        self._thread = threading.Thread(target=work, name="onnx-harness-ahead", daemon=True)
        self._thread.start()

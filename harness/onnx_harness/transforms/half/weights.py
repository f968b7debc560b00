"""Round weights to float16 or bfloat16, many small ones at a time.

What the clamp did to them is accounted for.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import accumulate
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx

from onnx_harness.transforms.float16 import Clamped
from onnx_harness.transforms.half.clamp_remarks import Lost, clamp_remarks
from onnx_harness.transforms.half.schemas import FLOAT, FLOAT16

# Tensors of fewer bytes are rounded in one go until they come to as many: calls cost more than
# rounding them does.
_BATCH = 1 << 19

_SMALLEST_NORMAL = 2.0**-14  # of float16
# Beside an epsilon of 1e-5 or more the subnormal float16 are never further off: half of 2**-24
# each.
_DROWNED = 2.0**-8
_FLOAT_BYTES = 4
_INFINITY = 0x7F800000  # as bits of float32
# What a field with packed floats starts with: the number of float_data, and that it is of known
# length.
_PACKED = onnx.TensorProto.FLOAT_DATA_FIELD_NUMBER << 3 | 2

# As `onnx_harness.transforms.float16.clamp` does, whose ``places`` it fills.
Round = Callable[[npt.NDArray[np.float32], list[npt.NDArray[np.intp]]], Clamped]


# What is rounded, where it goes, and what the account calls it.
_Job = tuple[onnx.TensorProto, onnx.TensorProto, str]


class Rounder:
    """Rounds tensors to a half type, and remembers which it clamped."""

    def __init__(
        self,
        limits: tuple[float, float],
        clamp: Round,
        half: int = FLOAT16,
        folder: Path | None = None,
    ) -> None:
        """Take what rounds an array.

        Args:
            limits: the least and greatest magnitudes that ``clamp`` leaves alone, zero and infinity
                aside.
            clamp: what rounds.
            half: the type that it rounds to.
            folder: where external data lie; None for the current folder.
        """
        self.half = half
        self._limits = limits
        self._clamp = clamp
        self._folder = folder
        self._jobs: dict[int, _Job] = {}  # by the identity of the target
        self._lost: dict[str, Lost] = {}
        self._origins: dict[int, tuple[onnx.TensorProto, onnx.TensorProto]] = {}

    def stand_in(self, tensor: onnx.TensorProto, origin: onnx.TensorProto) -> None:
        """Take the values of a tensor that has none from another one, which isn't changed."""
        self._origins[id(tensor)] = tensor, origin

    @property
    def stands_in(self) -> bool:
        """Return whether values of some tensors are taken from others."""
        return bool(self._origins)

    def fill(self) -> None:
        """Copy their values to the tensors that have none and haven't got any by `flush`."""
        for tensor, origin in self._origins.values():
            if tensor.data_type == origin.data_type:
                name = tensor.name
                tensor.CopyFrom(origin)
                tensor.name = name

    def _origin(self, tensor: onnx.TensorProto) -> onnx.TensorProto:
        entry = self._origins.get(id(tensor))
        return tensor if entry is None else entry[1]

    def add(
        self,
        source: onnx.TensorProto,
        target: onnx.TensorProto,
        name: str,
        at_once: bool = False,
    ) -> None:
        """Have a float32 tensor rounded, by `flush` or at once.

        Args:
            source: the tensor.
            target: where the rounded values go; it may be ``source`` itself, or has its shape.
            name: what the account calls it.
            at_once: don't wait.
        """
        if at_once:
            self._round_all([(source, target, name)])
        else:
            self._jobs[id(target)] = source, target, name

    def clips(self, tensors: Iterable[onnx.TensorProto]) -> bool:
        """Return whether magnitudes of some of the tensors are above the limit."""
        values = self._values(tensors)
        return bool((np.abs(values) > self._limits[1]).any())

    def clipped(self, tensor: onnx.TensorProto) -> npt.NDArray[np.float32]:
        """Return the finite numbers of a float32 tensor whose magnitudes are above the limit."""
        values = self._values([tensor])
        return values[(np.abs(values) > self._limits[1]) & np.isfinite(values)]

    def varies(self, tensor: onnx.TensorProto) -> bool:
        """Return whether a float32 tensor has different numbers, zeros left out."""
        values = self._values([tensor])
        values = values[values != 0]
        return bool(values.size and (values != values[0]).any())

    def is_ones(self, tensor: onnx.TensorProto) -> bool:
        """Return whether all numbers of a constant are 1; False of another type than float32."""
        return tensor.data_type == FLOAT and bool((self._values([tensor]) == 1).all())

    def lowered(self, numbers: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Return numbers of any shape, those whose magnitudes are above the limit brought to it."""
        limit = np.float32(self._limits[1])
        finite = np.isfinite(numbers)
        return np.where(finite, np.clip(numbers, -limit, limit), numbers).astype(np.float32)

    def loses(self, tensors: Iterable[onnx.TensorProto]) -> bool:
        """Decide whether the half type has fewer digits for some magnitudes than for others.

        The magnitudes are those of some float32 tensors, zeros left out.
        """
        return self.half == FLOAT16 and _has_few_digits(np.abs(self._values(tensors)))

    def clips_and_loses(self, tensors: Iterable[onnx.TensorProto]) -> tuple[bool, bool]:
        """Return what `clips` and `loses` say of some tensors, whose values are read once."""
        magnitudes = np.abs(self._values(tensors))
        clips = bool((magnitudes > self._limits[1]).any())
        return clips, self.half == FLOAT16 and _has_few_digits(magnitudes)

    def lose_beside(self, variances: Sequence[tuple[onnx.TensorProto, float]]) -> list[bool]:
        """Decide where rounding changes numbers by over 0.4% of what they are with an epsilon.

        Args:
            variances: float32 tensors of numbers of at least 0, each with what is added to it.

        Returns:
            Whether it changes one of each tensor's.
        """
        if not variances:
            return []
        buffers = self._buffers(tensor for tensor, _ in variances)
        values = np.frombuffer(b"".join(buffers), "<f4")
        sizes = [len(buffer) // _FLOAT_BYTES for buffer in buffers]
        epsilons = np.repeat(
            np.array([epsilon for _, epsilon in variances], np.float32), sizes
        )
        raised = np.where(
            values > 0, np.maximum(values, np.float32(self._limits[0])), values
        )
        with np.errstate(over="ignore"):  # what is too large is clipped, and another matter
            rounded = raised.astype(np.float16).astype(np.float32)
        lost = np.abs(rounded - values) > _DROWNED * (values + epsilons)
        starts = accumulate(sizes, initial=0)
        return [
            bool(lost[at : at + size].any()) for at, size in zip(starts, sizes, strict=False)
        ]

    def _values(self, tensors: Iterable[onnx.TensorProto]) -> npt.NDArray[np.float32]:
        return np.frombuffer(b"".join(self._buffers(tensors)), "<f4")

    def _buffers(self, tensors: Iterable[onnx.TensorProto]) -> list[bytes]:
        origins = map(self._origin, tensors)
        return [origin.raw_data or self._elsewhere(origin) for origin in origins]

    def clamped(self) -> Iterator[tuple[float, float]]:
        """Yield what was clamped and what to.

        The greatest of each tensor that was clipped, the least of each raised.

        Magnitudes, without their signs.
        """
        for lost in self._lost.values():
            if lost.largest is not None:
                yield lost.largest, self._limits[1]
            if lost.smallest is not None:
                yield lost.smallest, self._limits[0]

    def raised(self) -> Iterator[tuple[str, float]]:
        """Yield the tensors of which something was raised, and the smallest magnitude of each."""
        for name, lost in self._lost.items():
            if lost.smallest is not None:
                yield name, lost.smallest

    @property
    def sources(self) -> frozenset[int]:
        """The identities of the tensors that are waiting to be rounded."""
        return frozenset(id(source) for source, _, _ in self._jobs.values())

    @property
    def waiting(self) -> int:
        """Return how many weights are waiting to be rounded."""
        return sum(math.prod(source.dims[:]) for source, _, _ in self._jobs.values())

    def redirect(self, target: onnx.TensorProto, target_copy: onnx.TensorProto) -> bool:
        """Have what is to be written to a tensor written to another one; False when nothing is."""
        job = self._jobs.pop(id(target), None)
        if job is None:
            return False
        source, _, name = job
        self._jobs[id(target_copy)] = source, target_copy, name
        return True

    def flush(self, but: Sequence[onnx.TensorProto] = ()) -> None:
        """Round everything that was added, except what goes to the tensors ``but``."""
        later = {}
        for key in map(id, but):
            if key in self._jobs:
                later[key] = self._jobs.pop(key)
        self._round_all(self._jobs.values())
        self._jobs = later

    def _round_all(self, jobs: Iterable[_Job]) -> None:
        batch: list[_Job] = []
        buffers: list[bytes] = []
        size = 0
        for job in jobs:
            source, target, _ = job
            source = self._origin(source)
            values = source.raw_data
            if not values:
                values = self._elsewhere(source)
                for field in ("float_data", "external_data", "data_location"):
                    target.ClearField(field)
            if len(values) >= _BATCH:
                alone = [values]
                del values  # it's given away
                self._round([job], alone)
                continue
            batch.append(job)
            buffers.append(values)
            size += len(values)
            if size >= _BATCH:
                self._round(batch, buffers)
                batch, buffers, size = [], [], 0
        if batch:
            self._round(batch, buffers)

    def _round(self, jobs: Sequence[_Job], buffers: list[bytes]) -> None:
        """Round tensors whose values are ``held``, which is empty afterwards."""
        ends = list(accumulate(map(len, buffers)))
        values = np.frombuffer(buffers[0] if len(buffers) == 1 else b"".join(buffers), "<f4")
        buffers.clear()
        places: list[npt.NDArray[np.intp]] = []
        clamped = self._clamp(values, places)
        if clamped.raised or clamped.lowered:
            self._account(jobs, np.array(ends) // _FLOAT_BYTES, values, clamped, places)
        del values  # before the result is there twice
        halves = clamped.array.tobytes()
        del clamped
        start, half = 0, self.half
        for (_, target, _), end in zip(jobs, ends, strict=True):
            target.data_type = half
            target.raw_data = halves[start // 2 : end // 2]
            start = end

    def _elsewhere(self, tensor: onnx.TensorProto) -> bytes:
        """The values of a float32 tensor without raw data, little-endian."""
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            return self._external(tensor)
        if not tensor.float_data:
            return b""
        # Packed on the wire as they would be in raw_data: a copy of memory, where reading them
        # takes 50 ns a value.
        packed = onnx.TensorProto()
        packed.float_data.MergeFrom(tensor.float_data)
        wire = packed.SerializeToString()
        assert wire[0] == _PACKED
        return bytes(wire[-_FLOAT_BYTES * len(tensor.float_data) :])

    def _external(self, tensor: onnx.TensorProto) -> bytes:
        import onnx_ir

        external = onnx_ir.serde.deserialize_tensor(tensor, str(self._folder or ""))
        assert isinstance(external, onnx_ir.ExternalTensor)
        values: bytes = external.numpy().astype("<f4", copy=False).tobytes()
        external.release()  # its pages would count as ours
        return values

    def _account(
        self,
        jobs: Sequence[_Job],
        ends: npt.NDArray[np.intp],
        values: npt.NDArray[np.float32],
        clamped: Clamped,
        places: Sequence[npt.NDArray[np.intp]],
    ) -> None:
        """Find the tensors that the clamped values are of."""
        if len(jobs) == 1:
            self._lost[jobs[0][2]] = Lost(
                clamped.raised, clamped.lowered, clamped.smallest, clamped.largest
            )
            return
        positions = np.concatenate(places)
        of = np.searchsorted(ends, positions, side="right")
        starts = np.flatnonzero(np.diff(of, prepend=-1))
        # As bits, whose order is that of magnitudes, so that no subnormal number is computed with.
        bits = values.view("<u4")[positions] & 0x7FFFFFFF
        low = bits < np.float32(self._limits[0]).view(np.uint32)
        raised = np.add.reduceat(low, starts, dtype=np.intp)
        counts = np.diff(starts, append=len(of))
        smallest = np.minimum.reduceat(
            np.where(low, bits, np.uint32(_INFINITY)), starts
        ).view(np.float32)
        largest = np.maximum.reduceat(np.where(low, np.uint32(0), bits), starts).view(
            np.float32
        )
        columns = []
        for column in (of[starts], raised, counts - raised, smallest, largest):
            columns.append(column.tolist())
        for index, below, above, least, greatest in zip(*columns, strict=True):
            self._lost[jobs[index][2]] = Lost(
                below, above, least if below else None, greatest if above else None
            )

    def remarks(self) -> Iterator[str]:
        """Return what was clamped, a sentence each."""
        return clamp_remarks(self._lost, self._limits)


def _has_few_digits(magnitudes: npt.NDArray[np.float32]) -> bool:
    return bool(((magnitudes > 0) & (magnitudes < _SMALLEST_NORMAL)).any())

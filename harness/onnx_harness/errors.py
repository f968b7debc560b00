"""The one tree of errors. Each message says what happened, to what, and what to do about it."""

from __future__ import annotations

import re
from collections.abc import Iterable


class HarnessError(Exception):
    """Root of every error that this package raises on purpose."""


class UsageError(HarnessError):
    """The command, an option or a configuration value can't be honoured as written."""


class NameGrammarError(UsageError):
    """A model, variant or provider name doesn't follow the grammar of ids."""


class CardError(UsageError):
    """A model card is malformed: an unknown key, a wrong type, a missing source."""


class ModelError(HarnessError):
    """A model file can't be read.

    Not ONNX, truncated, external data missing or outside its folder.
    """


class MachineError(HarnessError):
    """This machine lacks something that a model which is right needs."""


class ModelTooLarge(ModelError):
    """A model asks for more memory than the limit, by its bytes."""


class FetchError(HarnessError):
    """A zoo model can't be fetched or isn't the file its card promises."""


class InputError(HarnessError):
    """No valid value can be generated for an input of the model."""


class TransformError(HarnessError):
    """A transform can't be found, or refuses its options."""


class NotApplicable(HarnessError):
    """A transform has nothing to say about this model; the reason is the message."""


class NothingConverted(NotApplicable):
    """A conversion leaves each node as it is: no verdict on it says anything of the type."""


class ProviderError(HarnessError):
    """An execution provider can't be used here, or didn't execute what it was asked to."""


class ResultsError(HarnessError):
    """A results file or the history can't be read or written."""


class GateError(HarnessError):
    """The pinned reference environment can't be made, or doesn't work."""


class SideDied(GateError):
    """The process of an environment died of a signal, or was ended since it took too long.

    Attributes:
        stage: what it had last said that it was doing; empty when it had said nothing.
        what: the manner of its end.
        late: it was ended since it took too long.
    """

    def __init__(self, what: str, stage: str = "", *, late: bool = False) -> None:
        super().__init__(what)
        self.what = what
        self.stage = stage
        self.late = late


class WorkerDied(HarnessError):
    """The worker process ended, or was ended, before it answered.

    Attributes:
        stage: what the worker had last said it was doing; empty when it had said nothing.
        what: the manner of death, such as ``killed by SIGSEGV (signal 11)``.
    """

    def __init__(self, what: str, stage: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.stage = stage

    def __reduce__(self) -> tuple[type[WorkerDied], tuple[str, str]]:
        return type(self), (self.what, self.stage)


class DiedBefore(HarnessError):
    """The attempt has ended a worker process before, and isn't made again."""


class WorkerCrashed(WorkerDied):
    """The worker died of a signal or left with an exit code of its own."""


class WorkerTimedOut(WorkerDied):
    """The worker used up its time and was ended."""


class WorkerOutOfMemory(WorkerDied):
    """The worker used up its memory and was ended."""


class WorkerNotStarted(HarnessError):
    """The worker process doesn't come up.

    This machine's fault, or the interpreter's, and no cell's.
    """


def did_you_mean(word: str, known: Iterable[str], *, most: int = 12) -> str:
    """One sentence for an unknown ``word``.

    The nearest known one if any is near, then the known ones.

    Returns:
        For example ``Did you mean 'cuda'? Known: cpu, cuda, tensorrt.`` At most ``most`` names are
        listed.
    """
    import difflib  # not for the plugin's every start

    names = sorted(set(known))
    # Capitals are no other word: `--provider CPU`.
    close = [name for name in names if name.lower() == word.lower()]
    close = close or difflib.get_close_matches(word, names, n=1, cutoff=0.6)
    listed = ", ".join(names[:most]) + (
        f" and {len(names) - most} more" if len(names) > most else ""
    )
    return (f"Did you mean '{close[0]}'? " if close else "") + f"Known: {listed}."


def first_line(error: BaseException, most: int | None = None) -> str:
    """Return the first line of what an error says, at most so many letters.

    Its type where it says nothing.
    """
    line = (str(error).strip() or type(error).__name__).splitlines()[0]
    return line if most is None or len(line) <= most else f"{line[: most - 1]}…"


def words_of(error: BaseException) -> str:
    """Return an error in one line, with its type where that isn't ours."""
    return first_line(error) if isinstance(error, HarnessError) else named(error)


_ADDRESS = re.compile(r" object at 0x[0-9a-fA-F]+")


def named(error: BaseException) -> str:
    """Return an error of somebody else's in one line: its type, and what it says.

    What it was raised from follows, where it doesn't say that itself. Addresses are left out: the
    line is compared with that of another night.
    """
    name = type(error).__name__
    if not str(error).strip():
        return f"{name}, without a message"
    line = _ADDRESS.sub("", f"{name}: {first_line(error)}")
    cause, passed = error, {id(error)}
    # What was raised from itself would never end.
    while cause.__cause__ is not None and id(cause.__cause__) not in passed:
        cause = cause.__cause__
        passed.add(id(cause))
    why = first_line(cause) if str(cause).strip() else ""
    if why and why not in line and cause is not error:
        line = f"{line} ({type(cause).__name__}: {_ADDRESS.sub('', why)})"
    return f"{line}{_denial_hint}" if "ermission denied" in line else line


_denial_hint = ""


def explain_denials() -> None:
    """Have `named` say, from here on, that this process may open its own files alone."""
    global _denial_hint
    _denial_hint = ". The process that opens models reads nothing else: see --allow-read"

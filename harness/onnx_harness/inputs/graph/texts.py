"""Make the texts that operators on texts decide by: what a pattern matches, what is split."""

from __future__ import annotations

import tempfile

import onnx

from onnx_harness.inputs.graph.attributes import attribute
from onnx_harness.model.ops import is_standard

_MOST_MATCHES = 12
_LONGEST_PATTERN = 1000
_MOST_PARTS = 1000
_PRINTABLE = "".join(map(chr, range(32, 127)))


def texts_of(node: onnx.NodeProto) -> tuple[str, ...]:
    """Return texts of which some match a RegexFullMatch's pattern and some don't.

    For a StringSplit, texts with its delimiter, and more of it than it splits at. Empty for other
    nodes, and for patterns that Python doesn't read as RE2 does.
    """
    if is_standard(node, "RegexFullMatch"):
        matches = _matches(_text(attribute(node, "pattern", "")))
        return tuple(dict.fromkeys([*matches, *(text[:-1] for text in matches if text)]))
    if is_standard(node, "StringSplit"):
        delimiter = _text(attribute(node, "delimiter", "")) or " "
        texts = ["a|bc", "a||b", "|a|b c|", "abc"]
        if 0 < (most := int(attribute(node, "maxsplit", 0))) < _MOST_PARTS:
            # One part more than there may be, and two.
            texts += ["a" + "|b" * (most + more) for more in (1, 2)]
        return tuple(text.replace("|", delimiter) for text in texts)
    return ()


def _text(value: str | bytes) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else value


def _matches(pattern: str) -> list[str]:
    """Return texts that a pattern matches as a whole, the same ones each time."""
    if len(pattern) > _LONGEST_PATTERN:
        return []
    # Half a second, which only models with patterns pay.
    from hypothesis import HealthCheck, Phase, configuration, given, settings, strategies

    texts: list[str] = []

    @settings(
        max_examples=_MOST_MATCHES,
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate],
    )
    @given(strategies.from_regex(pattern, fullmatch=True, alphabet=_PRINTABLE))
    def collect(text: str) -> None:
        texts.append(text)

    # Its tables of characters would lie in the user's folder.
    with tempfile.TemporaryDirectory() as folder:
        configuration.set_hypothesis_home_dir(folder)
        try:
            collect()
        except Exception:  # re doesn't know all that RE2 does, and strategies not all of re
            return []
        finally:
            configuration.set_hypothesis_home_dir(None)
    return texts

"""The figures of ``make style``: that they see what they count, and that they only fall."""

from __future__ import annotations

import pytest

from tests.style import Style, rooms, style_of, style_of_package

DENSE = '''
"""Whether it counts."""  # a reason

def judge(found, standard):
    """How it's judged."""
    each = [x for x in found if x]
    return 1 if each else 2 if standard else 3
'''


@pytest.fixture(scope="module")
def package() -> Style:
    return style_of_package()


def test_what_is_dense_is_counted() -> None:
    style = style_of(DENSE)
    assert (style.docstrings, style.questions, style.comments) == (2, 2, 1)
    assert (style.comprehensions, style.nested_ternaries, style.code_lines) == (1, 1, 3)
    assert (style.bound, style.generic) == (4, 2)  # found, standard, each, x


def test_long_files_functions_and_wide_records_are_counted() -> None:
    body = "\n".join(f"    field_{number}: int = {number}" for number in range(11))
    style = style_of(f"@dataclass(frozen=True)\nclass Record:\n{body}\n" + "\n" * 390)
    assert (style.wide_dataclasses, style.long_files) == (1, 1)
    assert style_of("def f():\n" + "    pass\n" * 60).long_functions == 1
    assert style_of("def f():\n" + "    pass\n" * 59).long_functions == 0


def test_the_figures_of_the_package_only_fall(package: Style) -> None:
    """Lower a limit when its figure has fallen; never raise one."""
    assert rooms() <= 25
    assert package.nodes_per_line <= 5.2
    assert package.generic_share <= 0.006
    assert package.comprehensions / package.code_lines <= 0.037
    assert package.nested_ternaries <= 2
    assert package.questions <= 5
    assert package.long_files <= 4
    assert package.long_functions <= 6

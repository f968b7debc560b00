"""Count what makes code dense or its words private.

``python -m tests.style`` prints the figures of the package.

They are those by which well-kept codebases of the field were compared: see CONTRIBUTING.md.
"""

from __future__ import annotations

import ast
import io
import sys
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "harness" / "onnx_harness"

_GENERIC_WORDS = "each found made held told known kept given wanted beside one other rest asked left taken"
GENERIC = frozenset(_GENERIC_WORDS.split())
"""Words that say nothing of what a value is."""

_COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
_OPENINGS = ("what ", "whether ", "which ", "how ")
_MOST_FILE_LINES, _MOST_FUNCTION_LINES, _MOST_FIELDS = 400, 60, 10


@dataclass(slots=True)
class Style:
    """The counts of some files.

    Attributes:
        lines: of the files, blank ones and comments included.
        code_lines: lines with code on them that isn't a docstring.
        nodes: statements and expressions of the syntax tree.
        bound: names that are bound: variables, parameters, attributes of classes.
        generic: of those, the ones that are generic words.
        questions: docstrings that begin with What, Whether, Which or How.
    """

    lines: int = 0
    code_lines: int = 0
    nodes: int = 0
    comprehensions: int = 0
    nested_ternaries: int = 0
    bound: int = 0
    generic: int = 0
    docstrings: int = 0
    questions: int = 0
    comments: int = 0
    long_files: int = 0
    long_functions: int = 0
    wide_dataclasses: int = 0

    def __add__(self, other: Style) -> Style:
        return Style(
            *(
                getattr(self, field.name) + getattr(other, field.name)
                for field in fields(Style)
            )
        )

    @property
    def nodes_per_line(self) -> float:
        """Statements and expressions on a line of code."""
        return self.nodes / self.code_lines

    @property
    def generic_share(self) -> float:
        """The share of bound names that are generic words, in [0, 1]."""
        return self.generic / self.bound


def style_of(source: str) -> Style:
    """The counts of one file's source."""
    tree = ast.parse(source)
    nodes = list(ast.walk(tree))
    docstrings = [text for text in map(_docstring, nodes) if text is not None]
    names = list(_bound(nodes))
    lines = len(source.splitlines())
    code, comments = _lines_of_code(source, tree)
    return Style(
        lines=lines,
        code_lines=code,
        nodes=sum(isinstance(node, ast.stmt | ast.expr) for node in nodes),
        comprehensions=sum(isinstance(node, _COMPREHENSIONS) for node in nodes),
        nested_ternaries=sum(map(_is_nested_ternary, nodes)),
        bound=len(names),
        generic=sum(name.strip("_") in GENERIC for name in names),
        docstrings=len(docstrings),
        questions=sum(text.lower().startswith(_OPENINGS) for text in docstrings),
        comments=comments,
        long_files=int(lines > _MOST_FILE_LINES),
        long_functions=sum(
            isinstance(node, _FUNCTIONS) and _length(node) > _MOST_FUNCTION_LINES
            for node in nodes
        ),
        wide_dataclasses=sum(map(_is_wide, nodes)),
    )


def style_of_package(package: Path = PACKAGE) -> Style:
    """The counts of all files of a package."""
    return sum(
        (style_of(file.read_text("utf-8")) for file in sorted(package.rglob("*.py"))),
        Style(),
    )


def rooms(package: Path = PACKAGE) -> int:
    """How many modules and packages lie at the package's top, its face and its command left out."""
    names = {
        path.stem
        for path in package.iterdir()
        if path.suffix == ".py" or (path / "__init__.py").is_file()
    }
    return len(names - {"__init__", "__main__"})


def _docstring(node: ast.AST) -> str | None:
    if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
        return ast.get_docstring(node)
    return None


def _bound(nodes: list[ast.AST]) -> Iterator[str]:
    for node in nodes:
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif isinstance(node, ast.arg):
            yield node.arg
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.attr


def _lines_of_code(source: str, tree: ast.AST) -> tuple[int, int]:
    """Lines with code, docstrings left out, and comments."""
    documented: set[int] = set()
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Expr)
            and isinstance(node.value, ast.Constant)
            and isinstance(node.value.value, str)
        ):
            documented.update(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    code: set[int] = set()
    comments = 0
    skipped = {
        tokenize.NL,
        tokenize.NEWLINE,
        tokenize.INDENT,
        tokenize.DEDENT,
        tokenize.ENDMARKER,
    }
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            comments += 1
        elif token.type not in skipped:
            code.update(range(token.start[0], token.end[0] + 1))
    return len(code - documented), comments


def _is_nested_ternary(node: ast.AST) -> bool:
    return isinstance(node, ast.IfExp) and any(
        isinstance(child, ast.IfExp) for child in ast.walk(node) if child is not node
    )


def _length(node: ast.AST) -> int:
    assert isinstance(node, _FUNCTIONS)
    return (node.end_lineno or node.lineno) - node.lineno + 1


def _is_wide(node: ast.AST) -> bool:
    if not isinstance(node, ast.ClassDef) or not any(
        "dataclass" in ast.dump(mark) for mark in node.decorator_list
    ):
        return False
    return sum(isinstance(child, ast.AnnAssign) for child in node.body) > _MOST_FIELDS


def main() -> None:
    """Print the figures of the package."""
    style = style_of_package()
    rows = {
        "rooms at the top": f"{rooms()}",
        "lines": f"{style.lines:,}",
        "statements and expressions a code line": f"{style.nodes_per_line:.2f}",
        "comprehensions per 1,000 code "
        "lines": f"{1000 * style.comprehensions / style.code_lines:.0f}",
        "nested ternaries": f"{style.nested_ternaries}",
        "generic names": f"{style.generic_share:.2%} of {style.bound:,}",
        "docstrings that begin with a question": (
            f"{style.questions / style.docstrings:.1%} of {style.docstrings:,}"
        ),
        "comments per 100 lines": f"{100 * style.comments / style.lines:.1f}",
        "files over 400 lines": f"{style.long_files}",
        "functions over 60 lines": f"{style.long_functions}",
        "dataclasses with more than 10 fields": f"{style.wide_dataclasses}",
    }
    for name, figure in rows.items():
        sys.stdout.write(f"{name:<44}{figure}\n")


if __name__ == "__main__":
    main()

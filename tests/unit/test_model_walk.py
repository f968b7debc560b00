"""Ways through a graph and the graphs inside it."""

from __future__ import annotations

from onnx_harness.model.rewrite import fresh_name, value_names
from onnx_harness.model.walk import body_reads, graphs, reads, subgraphs, walk
from tests.models import model

BRANCHES = """(bool c, float[2] x) => (float[2] y) {
    w = Relu(x)
    y = If (c) <
        then_branch = small () => (float[2] a) { v = Neg(w)  a = Abs(v) },
        else_branch = large () => (float[2] b) { b = Identity(x) }
    >
}"""


def test_every_graph_and_every_node_comes_once_outer_ones_first() -> None:
    graph = model(BRANCHES).graph
    assert [inner.name for inner in graphs(graph)] == ["small", "small", "large"]
    assert [node.op_type for node in walk(graph)] == ["Relu", "If", "Neg", "Abs", "Identity"]
    assert [body.name for body in subgraphs(graph.node[1])] == ["small", "large"]


def test_a_node_reads_what_its_bodies_read_and_give() -> None:
    branching = model(BRANCHES).graph.node[1]
    assert set(reads(branching)) == {"c", "w", "v", "a", "x", "b"}
    assert set(body_reads(branching)) == {"w", "v", "a", "x", "b"}


def test_a_fresh_name_is_no_value_of_any_graph_and_is_given_once() -> None:
    names = value_names(model(BRANCHES).graph)
    assert names == {"c", "x", "w", "y", "v", "a", "b"}
    assert [fresh_name(stem, names) for stem in ("new", "new", "v")] == [
        "new",
        "new_1",
        "v_1",
    ]


class Asked(set[str]):
    """Names that count how often one is looked for."""

    asked = 0

    def __contains__(self, name: object) -> bool:
        self.asked += 1
        return super().__contains__(name)


def test_thousands_of_names_of_one_stem_are_numbered_without_a_gap_in_a_few_looks_each() -> (
    None
):
    """A watched graph of 20,000 nodes gets 80,000 of them: it took minutes to go through all."""
    count = 3000
    names = Asked()
    given = [fresh_name("v", names) for _ in range(count)]
    assert given == ["v", *(f"v_{number}" for number in range(1, count))]
    assert names.asked < 40 * count


def test_a_fresh_name_is_none_of_those_that_are_numbered_with_gaps() -> None:
    names = {"v", "v_1", "v_2", "v_4", "v_8", "v_9"}
    given = [fresh_name("v", names) for _ in range(8)]
    assert len({*given, "v", "v_1", "v_2", "v_4", "v_8", "v_9"}) == 14

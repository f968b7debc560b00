"""The rule of placement: what counts for a provider, what may lie elsewhere, what never passes."""

from collections import Counter

import pytest

from onnx_harness.providers import get
from onnx_harness.providers.placement import Placement, judge, shortfall

CUDA, TENSORRT, CPU = get("cuda"), get("tensorrt"), get("cpu")
ON, OFF = "CUDAExecutionProvider", "CPUExecutionProvider"


def test_shape_operators_on_the_cpu_are_left_out_of_the_share() -> None:
    found = judge(Counter({(ON, "Conv"): 8, (OFF, "Gather"): 5, (OFF, "Concat"): 2}), CUDA)
    assert found == Placement(ON, {OFF: 7, ON: 8}, {}, 1.0)


def test_other_operators_on_the_cpu_count_against_it() -> None:
    found = judge(Counter({(ON, "Conv"): 8, (OFF, "Det"): 2, (OFF, "Gather"): 5}), CUDA)
    assert (found.share, found.off_provider_ops) == (0.8, {"Det": 2})


def test_what_was_seen_to_compute_shapes_alone_is_left_out_of_the_share() -> None:
    assigned = Counter({(ON, "Conv"): 8, (OFF, "Add"): 5, (OFF, "Det"): 1})
    found = judge(
        assigned, CUDA, Counter({(OFF, "Add"): 3, (OFF, "Det"): 1, (ON, "Conv"): 8})
    )
    assert (found.share, found.off_provider_ops) == (8 / 11, {"Add": 2, "Det": 1})
    assert judge(assigned, CUDA, Counter({(OFF, "Add"): 9})).off_provider_ops == {"Det": 1}
    elsewhere = Counter({("OtherExecutionProvider", "Add"): 1, (ON, "Conv"): 1})
    assert judge(elsewhere, CUDA, elsewhere).off_provider_ops == {"Add": 1}


def test_an_operator_on_two_other_providers_counts_for_both() -> None:
    found = judge(Counter({(ON, "Conv"): 5, (OFF, "Det"): 2, ("Other", "Det"): 3}), CUDA)
    assert (found.share, found.off_provider_ops) == (0.5, {"Det": 5})
    idle = judge(Counter({(OFF, "Det"): 2, ("Other", "Det"): 3}), CUDA)
    assert (idle.share, idle.off_provider_ops) == (0.0, {"Det": 5})


def test_of_many_operators_elsewhere_six_are_named() -> None:
    assigned = Counter({(OFF, f"Op{place}"): 9 - place for place in range(8)})
    assert "Op5 x4 and 2 more op types (nodes by" in str(
        shortfall(judge(assigned, CUDA), CUDA)
    )
    del assigned[OFF, "Op7"], assigned[OFF, "Op6"]
    assert "Op5 x4 (nodes by" in str(shortfall(judge(assigned, CUDA), CUDA))


def test_a_shape_operator_of_another_domain_isnt_one() -> None:
    found = judge(Counter({(ON, "Conv"): 1, (OFF, "com.example:Gather"): 1}), CUDA)
    assert (found.share, found.off_provider_ops) == (0.5, {"com.example:Gather": 1})


def test_a_provider_that_owns_nothing_fails_even_if_all_of_it_would_be_allowed_elsewhere() -> (
    None
):
    found = judge(Counter({(OFF, "Gather"): 3, (OFF, "Reshape"): 1}), CUDA)
    assert (found.share, found.off_provider_ops) == (0.0, {"Gather": 3, "Reshape": 1})
    assert shortfall(found, CUDA) is not None


def test_an_empty_graph_is_wholly_on_it() -> None:
    assert judge(Counter(), CUDA).share == 1.0


def test_cuda_is_elsewhere_for_tensorrt() -> None:
    found = judge(
        Counter({("TensorrtExecutionProvider", "Conv"): 1, (ON, "Gather"): 1}), TENSORRT
    )
    assert (found.share, found.off_provider_ops) == (0.5, {"Gather": 1})


def test_a_shortfall_names_the_operators_and_the_share() -> None:
    assigned = Counter({(ON, "Conv"): 3, (OFF, "Det"): 2, (OFF, "Unique"): 1})
    told = shortfall(judge(assigned, CUDA), CUDA)
    assert told == (
        "CUDAExecutionProvider owns 3 of 6 nodes (50%, at least 95% is required); elsewhere: Det "
        "x2, Unique x1 "
        "(nodes by provider: CPUExecutionProvider 3, CUDAExecutionProvider 3)"
    )


@pytest.mark.parametrize(
    ("wanted", "enough"), [(None, False), (0.5, True), (0.51, False), (0.0, True)]
)
def test_the_share_that_is_wanted_can_be_set(wanted: float | None, enough: bool) -> None:
    found = judge(Counter({(ON, "Conv"): 1, (OFF, "Det"): 1}), CUDA)
    assert (shortfall(found, CUDA, wanted) is None) == enough


def test_the_cpu_promises_every_node() -> None:
    assert CPU.min_share == 1.0
    assert (
        shortfall(judge(Counter({(OFF, "Conv"): 99, ("Other", "Shape"): 1}), CPU), CPU)
        is not None
    )

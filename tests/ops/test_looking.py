import pytest
import torch

from mnemos.ops.looking import may_look


def test_values_on_a_cpu_may_be_looked_at() -> None:
    assert may_look(torch.ones(2))


def test_values_elsewhere_are_not_waited_for() -> None:
    assert not may_look(torch.ones(2, device="meta"))


@pytest.mark.compiles
def test_a_compiled_graph_does_not_look() -> None:
    def doubled_if_it_may_look(x: torch.Tensor) -> torch.Tensor:
        return 2 * x if may_look(x) and x.any() else x

    assert torch.compile(doubled_if_it_may_look, fullgraph=True, backend="eager")(torch.ones(2)).eq(1).all()

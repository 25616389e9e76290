import pytest
import torch

from mnemos.ops.lookup import attended, best_attended, rows_of


@pytest.mark.parametrize("top_k", [None, 1, 4, 9, 20])
def test_the_best_of_several_lots_are_the_best_of_all(top_k: int | None) -> None:
    torch.manual_seed(0)
    scores = torch.randn(2, 3, 4, 9)
    values = torch.randn(2, 3, 9, 5)
    count = min(top_k or 9, 9)
    best = scores.topk(count, dim=3)
    chosen = rows_of(values, best.indices)
    expected = (best.values.softmax(3).unsqueeze(4) * chosen).sum(3), best.values.logsumexp(3)
    lots = (
        values[:, :, None, :6],
        values[:, :, None, 6:].expand(-1, -1, 4, -1, -1),
    )  # the same for all steps, or not
    torch.testing.assert_close(best_attended(scores.split((6, 3), dim=3), lots, top_k), expected)
    if count == 9:
        torch.testing.assert_close(attended(scores, values), expected)


def test_the_choice_of_the_best_has_gradients_to_what_was_chosen_alone() -> None:
    scores = torch.tensor([[[[3.0, 1.0, 2.0]]]], requires_grad=True)
    values = torch.tensor([[[[[1.0], [7.0], [4.0]]]]])
    best_attended([scores], [values], 2)[0].sum().backward()
    share = torch.tensor([3.0, 2.0]).softmax(0).prod() * 3
    torch.testing.assert_close(scores.grad, torch.stack([-share, share * 0, share]).view(1, 1, 1, 3))

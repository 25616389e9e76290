import pytest
import torch
from torch import Tensor, nn

import mnemos
from mnemos.consolidation import Episodes
from mnemos.consolidation.complementary import ComplementarySystems


class Always(nn.Module):
    """Answers one class, whatever the inputs."""

    def __init__(self, answer: int, classes: int) -> None:
        super().__init__()
        self.logits = 20.0 * torch.eye(classes)[answer]

    def forward(self, inputs: Tensor) -> Tensor:
        return self.logits.expand(len(inputs), -1)


def systems(share: float = 0.5) -> tuple[ComplementarySystems, Tensor, Tensor]:
    episodes = Episodes(mnemos.open(":memory:", metric="euclidean"))
    inputs, targets = torch.arange(12.0)[:, None].expand(-1, 2).contiguous(), torch.arange(12) % 3
    episodes.write(inputs, targets)
    return ComplementarySystems(Always(3, 4), episodes, neighbours=3, share=share), inputs, targets


def test_together_and_alone() -> None:
    both, inputs, targets = systems(share=0.25)
    store = torch.nn.functional.one_hot(targets, 4).float()  # what is found itself answers alone
    network = torch.eye(4)[3].expand(12, -1)
    torch.testing.assert_close(both.answer(inputs, 4), 0.25 * store + 0.75 * network)
    with both.lesion("network"):
        torch.testing.assert_close(both.answer(inputs, 4), store)
        with both.lesion("store"):
            torch.testing.assert_close(both.answer(inputs, 4), torch.full((12, 4), 0.25))
    with both.lesion("store"):
        torch.testing.assert_close(both.answer(inputs, 4), network)
    assert not both.lesioned
    both.episodes.delete()
    torch.testing.assert_close(both.answer(inputs, 4), network)


def test_the_only_one_left_answers_whatever_its_share() -> None:
    for share, gone in ((0.0, "network"), (1.0, "store")):
        both, inputs, _ = systems(share)
        with both.lesion(gone):  # type: ignore[arg-type]
            torch.testing.assert_close(both.answer(inputs, 4).sum(1), torch.ones(12))
            assert both.answer(inputs, 4).max() > 0.9


def test_the_nearer_the_more() -> None:
    """Scaling all distances changes nothing; half way between two, both have a say."""
    both, _, _ = systems(share=1.0)
    between = both.answer(torch.tensor([[3.5, 3.5], [3.1, 3.1]]), 4)
    assert between[0, 0] == pytest.approx(between[0, 1].item())
    assert between[1, 0] > 0.99
    answers = []
    for scale in (1.0, 100.0):
        episodes = Episodes(mnemos.open(":memory:", metric="euclidean"))
        episodes.write(scale * torch.tensor([[0.0], [1.0], [3.0]]), torch.arange(3))
        both = ComplementarySystems(Always(3, 4), episodes, neighbours=3, temperature=1.0, share=1.0)
        answers.append(both.answer(torch.tensor([[scale * 0.45]]), 4))
    torch.testing.assert_close(*answers)


def test_what_lies_out_of_reach_is_left_to_the_network() -> None:
    """Unless there is none: then the store guesses."""
    both, _, _ = systems(share=1.0)
    near = ComplementarySystems(both.network, both.episodes, neighbours=3, share=1.0, reach=0.5)
    asked = torch.tensor([[4.0, 4.0], [4.0, 4.2], [4.0, 40.0]])
    torch.testing.assert_close(near.answer(asked, 4)[:2], both.answer(asked, 4)[:2])
    torch.testing.assert_close(near.answer(asked, 4)[2], torch.eye(4)[3])
    with near.lesion("network"), both.lesion("network"):
        torch.testing.assert_close(near.answer(asked, 4), both.answer(asked, 4))


def test_refused() -> None:
    both, inputs, _ = systems()
    for name, value in (("neighbours", 0), ("temperature", 0.0), ("share", 1.5), ("reach", -1.0)):
        with pytest.raises(ValueError, match=f"{name} must be"):
            ComplementarySystems(both.network, both.episodes, **{name: value})  # type: ignore[arg-type]
    episodes = Episodes(mnemos.open(":memory:"))
    episodes.write(inputs, torch.arange(12))
    with pytest.raises(ValueError, match="metric must be euclidean, not inner_product"):
        ComplementarySystems(both.network, episodes).answer(inputs, 4)

"""What only `RotaryAttention` claims; the laws that it shares with every memory are in the suite."""

import pytest
import torch

from mnemos.memories import RotaryAttention
from mnemos.ops.rotary import rotate


def test_attention_is_the_textbook_sum():
    torch.manual_seed(0)
    memory = RotaryAttention(4, heads=1, window=3)
    inputs = torch.randn(1, 6, 4)
    queries, keys, values = memory.to_queries_keys_values(inputs).chunk(3, dim=-1)
    positions = torch.arange(6).unsqueeze(0)
    queries, keys = (rotate(x.unsqueeze(2), positions, memory.base)[0, :, 0] for x in (queries, keys))
    expected = []
    for now in range(6):
        seen = slice(max(0, now - 2), now + 1)
        weights = (keys[seen] @ queries[now] / 2).softmax(0)
        expected.append(memory.to_outputs(weights @ values[0, seen]))
    torch.testing.assert_close(memory(inputs)[0][0], torch.stack(expected), rtol=0, atol=1e-5)


def test_window_reaches_as_far_as_it_says():
    torch.manual_seed(0)
    memory = RotaryAttention(8, heads=2, window=4)
    inputs = torch.randn(1, 10, 8, requires_grad=True)
    (gradient,) = torch.autograd.grad(memory(inputs)[0][0, 9].sum(), inputs)
    assert gradient[0].abs().sum(1).bool().tolist() == [False] * 6 + [True] * 4


@pytest.mark.parametrize(("size", "heads", "window"), [(7, 1, 4), (8, 0, 4), (8, 3, 4), (8, 2, 0)], ids=str)
def test_rotary_attention_refuses_sizes_that_do_not_fit(size, heads, window):
    with pytest.raises(ValueError, match="must be"):
        RotaryAttention(size, heads, window)

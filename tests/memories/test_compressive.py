"""What only `CompressiveMemory` claims; the laws that it shares with every memory are in the suite."""

import pytest
import torch
from torch import Tensor, nn

import mnemos
from mnemos.memories.compression import (
    Compression,
    Convolution,
    DilatedConvolution,
    Expansion,
    MaxPool,
    MeanPool,
    MostUsed,
)
from mnemos.memories.compression_loss import attention_reconstruction_loss, auto_encoding_loss
from mnemos.memories.compressive import CompressiveMemory
from mnemos.memories.segment_attention import SegmentAttention

COMPRESSIONS = {
    "mean": lambda: MeanPool(2),
    "max": lambda: MaxPool(2),
    "convolution": lambda: Convolution(6, 2),
    "dilated": lambda: DilatedConvolution(6, 2),
    "most_used": lambda: MostUsed(2),
}


def small(compression: Compression, window: int = 3, compressed: int = 2) -> CompressiveMemory:
    memory = CompressiveMemory(6, window=window, compressed=compressed, compression=compression, heads=2)
    with torch.no_grad():  # away from their first value of zero
        memory.content_bias.normal_()
        memory.position_bias.normal_()
    return memory


@pytest.mark.parametrize("name", COMPRESSIONS)
def test_every_compression_is_the_same_in_pieces_and_step_by_step(name: str) -> None:
    torch.manual_seed(0)
    memory = small(COMPRESSIONS[name]())
    inputs, mask, reset = torch.randn(3, 70, 6), torch.rand(3, 70) < 0.8, torch.rand(3, 70) < 0.03
    mask[0], reset[1] = True, False
    outputs, state = memory(inputs, mask=mask, reset=reset)
    head, carried = memory(inputs[:, :23], mask=mask[:, :23], reset=reset[:, :23])
    tail, after = memory(inputs[:, 23:], carried, mask=mask[:, 23:], reset=reset[:, 23:])
    torch.testing.assert_close(torch.cat([head, tail], dim=1), outputs)
    torch.testing.assert_close(after, state)
    memory.naive = True
    torch.testing.assert_close(memory(inputs, mask=mask, reset=reset), (outputs, state), atol=1e-5, rtol=1e-5)


def test_what_is_compressed_when_follows_from_the_count_of_steps() -> None:
    memory = small(MeanPool(2))
    inputs = torch.arange(1.0, 10).view(1, 9, 1).expand(1, 9, 6)
    held = []
    for length in range(1, 10):
        _, state = memory(inputs[:, :length])
        held.append(state.compressed[0, :, 0].tolist())
    nothing = [0.0, 0.0]
    first, second = [0.0, 1.5], [1.5, 3.5]  # steps 1 and 2 once three steps came after them; 3 and 4; 5 and 6
    assert held == [nothing] * 4 + [first] * 2 + [second] * 2 + [[3.5, 5.5]]


def test_a_step_sees_window_and_blocks_and_no_more() -> None:
    torch.manual_seed(0)
    memory = small(Convolution(6, 2))
    inputs = torch.randn(1, 14, 6, requires_grad=True)
    outputs, _ = memory(inputs)
    for step, first in ((8, 0), (9, 2), (10, 2), (11, 4)):
        (slope,) = torch.autograd.grad(outputs[0, step].sum(), inputs, retain_graph=True)
        assert slope[0].ne(0).any(dim=1).tolist() == [first <= t <= step for t in range(14)]


def test_before_anything_is_compressed_it_is_transformer_xl() -> None:
    torch.manual_seed(0)
    memory = small(MeanPool(2), window=9)
    peer = SegmentAttention(6, window=9, heads=2)
    peer.load_state_dict(memory.state_dict())
    inputs = torch.randn(2, 9, 6)
    torch.testing.assert_close(memory(inputs)[0], peer(inputs)[0])


def test_blocks_of_one_step_that_nothing_is_done_to_are_a_longer_window() -> None:
    torch.manual_seed(0)
    memory = small(MeanPool(1), window=3, compressed=4)
    peer = SegmentAttention(6, window=7, heads=2)
    peer.load_state_dict(memory.state_dict())
    inputs = torch.randn(2, 40, 6)
    torch.testing.assert_close(memory(inputs)[0], peer(inputs)[0])


def test_what_compressions_make_of_a_block() -> None:
    steps = torch.tensor([[1.0, 5.0], [4.0, 2.0], [1.0, 2.0]]).view(1, 1, 3, 2)
    usage = torch.tensor([[[0.2, 0.5, 0.3]]])
    assert MeanPool(3)(steps, usage).flatten().tolist() == [2, 3]
    assert MaxPool(3)(steps, usage).flatten().tolist() == [4, 5]
    assert MostUsed(3)(steps, usage).flatten().tolist() == [4, 2]
    convolution = Convolution(2, 3)
    peer = nn.functional.conv1d(
        steps[0].mT, convolution.kernel.weight.unflatten(1, (3, 2)).mT, convolution.kernel.bias
    )
    torch.testing.assert_close(convolution(steps, usage)[0], peer.mT[0])


def test_a_dilated_convolution_knows_what_came_before_the_block() -> None:
    compression = DilatedConvolution(2, 3, dilations=(1, 2))
    steps = torch.randn(1, 1, compression.span, 2, requires_grad=True)
    (slope,) = torch.autograd.grad(compression(steps, torch.zeros(1, 1, 9)).sum(), steps)
    assert compression.span == 9
    assert slope.ne(0).any(dim=3).all()


def test_the_most_used_step_is_the_one_that_was_attended_to() -> None:
    memory = small(MostUsed(3), window=1)
    with torch.no_grad():
        for parameter in memory.parameters():
            parameter.zero_()
        memory.query.weight[0, 0] = memory.key.weight[0, 1] = memory.key.weight[3, 1] = 1.0
        memory.query.weight[3, 0] = 30.0  # both heads look for steps whose second component is large
    inputs = torch.zeros(1, 4, 6)
    inputs[:, :, 0], inputs[0, 1, 1], inputs[0, :, 2] = 1.0, 5.0, torch.arange(4.0)
    _, state = memory(inputs)
    assert state.compressed[0, -1, 2] == 1


@pytest.mark.parametrize("kind", ["attention", "auto_encoding"])
def test_only_the_compression_learns_from_its_losses(kind: str) -> None:
    torch.manual_seed(0)
    memory, decoder = small(Convolution(6, 2)), Expansion(6, 2)
    inputs = torch.randn(2, 12, 6, requires_grad=True)
    _, state = memory(torch.randn(2, 5, 6, requires_grad=True))

    def gradients(loss: Tensor) -> dict[str, Tensor | None]:
        memory.zero_grad(set_to_none=True)
        inputs.grad = None
        loss.backward(retain_graph=True)
        return {name: parameter.grad for name, parameter in memory.named_parameters()}

    task = memory(inputs, state)[0].square().sum()
    extra = (
        attention_reconstruction_loss(memory, inputs, state)
        if kind == "attention"
        else auto_encoding_loss(memory, decoder, inputs, state)
    )
    alone = gradients(extra)
    assert {name for name, found in alone.items() if found is not None} == {
        "compression.kernel.weight",
        "compression.kernel.bias",
    }
    assert inputs.grad is None
    before, both = gradients(task), gradients(task + extra)
    for name, gradient in before.items():
        assert torch.equal(gradient, both[name]) != name.startswith("compression")


def test_detach_keeps_the_outputs_from_teaching_what_was_compressed_before() -> None:
    torch.manual_seed(0)
    memory = small(Convolution(6, 2))
    _, state = memory(torch.randn(1, 9, 6))
    outputs, _ = memory(torch.randn(1, 2, 6), mnemos.detach(state))
    assert torch.autograd.grad(outputs.sum(), memory.compression.kernel.bias)[0].eq(0).all()
    outputs, _ = memory(torch.randn(1, 2, 6), state)
    assert torch.autograd.grad(outputs.sum(), memory.compression.kernel.bias)[0].ne(0).any()


def test_losses_vanish_where_nothing_is_lost() -> None:
    torch.manual_seed(0)
    inputs = torch.randn(2, 1, 6).expand(2, 20, 6)  # all steps alike: their mean is all of them
    memory = small(MeanPool(2))
    assert attention_reconstruction_loss(memory, inputs) < 1e-12
    assert auto_encoding_loss(memory, lambda x: x.unsqueeze(2).expand(-1, -1, 2, -1), inputs) < 1e-12
    assert attention_reconstruction_loss(memory, torch.randn(2, 20, 6)) > 1e-4
    assert attention_reconstruction_loss(memory, torch.randn(2, 4, 6)) == 0  # nothing is compressed yet


def test_losses_know_documents_and_padding() -> None:
    torch.manual_seed(0)
    memory, decoder = small(Convolution(6, 2)), Expansion(6, 2)
    inputs = torch.randn(1, 24, 6)
    mask = torch.ones(1, 24, dtype=torch.bool)
    mask[0, [3, 4, 11]] = False
    padded, real = inputs.masked_fill(~mask.unsqueeze(2), torch.nan), inputs[:, mask[0]]
    torch.testing.assert_close(
        auto_encoding_loss(memory, decoder, padded, mask=mask), auto_encoding_loss(memory, decoder, real)
    )
    torch.testing.assert_close(
        attention_reconstruction_loss(memory, padded, mask=mask), attention_reconstruction_loss(memory, real)
    )
    reset = torch.arange(24).eq(12).unsqueeze(0)
    halves = torch.cat(inputs.split(12, dim=1))
    torch.testing.assert_close(
        attention_reconstruction_loss(memory, inputs, reset=reset),
        attention_reconstruction_loss(memory, halves),
    )


def test_a_convolution_learns_to_lose_less_than_the_mean() -> None:
    torch.manual_seed(0)
    memory, peer = small(Convolution(6, 2)), small(MeanPool(2))
    peer.load_state_dict({k: v for k, v in memory.state_dict().items() if "compression" not in k})
    inputs = torch.randn(8, 40, 1) * torch.randn(6)  # of rank one: a vector has room for two steps
    optimizer = torch.optim.Adam(memory.compression.parameters(), lr=0.02)
    first = attention_reconstruction_loss(memory, inputs).item()
    for _ in range(150):
        optimizer.zero_grad()
        loss = attention_reconstruction_loss(memory, inputs)
        loss.backward()
        optimizer.step()
    assert loss < first / 5
    assert loss < attention_reconstruction_loss(peer, inputs)


@pytest.mark.parametrize("name", ["input_size", "heads", "key_size", "window", "compressed"])
def test_sizes_are_checked(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} must be at least 1, not 0"):
        CompressiveMemory(**{"input_size": 3, "window": 2, "compressed": 2, name: 0}, compression=MeanPool(2))


def test_rates_are_checked() -> None:
    with pytest.raises(ValueError, match="rate must be at least 1, not 0"):
        MeanPool(0)

"""The transformer: memories as its layers."""

import pytest
import torch
import torch.nn.functional as F  # noqa: N812

import mnemos
from mnemos.memories import DeltaRule, RotaryAttention, SegmentAttention
from mnemos.models import Transformer, hybrid


def models():
    torch.manual_seed(0)
    return {
        "rotary": hybrid(17, "attention attention", width=16, heads=2, context=5),
        "segment": Transformer(17, [SegmentAttention(16, window=4, heads=2) for _ in range(2)], 32),
        "mixed": Transformer(17, [RotaryAttention(16, 2, 4), DeltaRule(16, heads=2)], 32),
    }


@pytest.mark.parametrize("name", models())
def test_any_memory_makes_a_model_that_can_be_fed_in_pieces(name):
    model, tokens = models()[name], torch.randint(17, (3, 11))
    whole, state = model(tokens)
    for cut in (0, 1, 4, 10):
        first, carried = model(tokens[:, :cut])
        second, last = model(tokens[:, cut:], carried)
        torch.testing.assert_close(torch.cat([first, second], 1), whole, rtol=0, atol=1e-4)
        for one, other in zip(mnemos.tree.tensors(state), mnemos.tree.tensors(last), strict=True):
            torch.testing.assert_close(one, other, rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", models())
def test_padding_and_packed_documents_do_not_leak(name):
    model, tokens = models()[name], torch.randint(17, (2, 9))
    alone, _ = model(tokens[:, 4:])
    reset = torch.zeros(2, 9, dtype=torch.bool)
    reset[:, 4] = True
    packed, _ = model(tokens, reset=reset)
    padded, _ = model(tokens, mask=torch.arange(9).expand(2, -1) >= 4)
    torch.testing.assert_close(packed[:, 4:], alone, rtol=0, atol=1e-4)
    torch.testing.assert_close(padded[:, 4:], alone, rtol=0, atol=1e-4)


def test_no_token_sees_its_future():
    model, tokens = models()["rotary"], torch.randint(17, (1, 8))
    other = tokens.clone()
    other[0, 5:] = (tokens[0, 5:] + 1) % 17
    before, after = (model(x)[0][0] for x in (tokens, other))
    torch.testing.assert_close(before[:5], after[:5], rtol=0, atol=1e-6)
    assert (before[5] - after[5]).abs().max() > 1e-4


def test_keys_are_the_normalised_input_of_the_last_feed_forward_layer():
    model, tokens = models()["rotary"], torch.randint(17, (2, 6))
    block, seen = model.blocks[-1], []
    handle = block.to_hidden.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0]))
    features, _ = model.features(tokens)
    handle.remove()
    assert torch.equal(features.keys, seen[0])
    assert torch.equal(features.logits, model(tokens)[0])


def test_learns_to_look_back():
    torch.manual_seed(0)
    model = hybrid(6, "attention attention", width=32, heads=2, context=8)
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(80):
        half = torch.randint(6, (32, 4))
        tokens = torch.cat([half, half], 1)
        logits, _ = model(tokens[:, :-1])
        loss = F.cross_entropy(logits[:, 3:].flatten(0, 1), tokens[:, 4:].flatten())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert loss < 0.2 * torch.log(torch.tensor(6.0))


def test_memories_of_different_widths_are_refused():
    with pytest.raises(ValueError, match="one width in common"):
        Transformer(17, [RotaryAttention(8, 2, 4), RotaryAttention(16, 2, 4)], 32)


@pytest.mark.compiles
def test_compiles():
    model, tokens = models()["rotary"].eval(), torch.randint(17, (2, 5))
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(tokens)[0], model(tokens)[0], rtol=0, atol=1e-4)

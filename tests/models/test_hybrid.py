"""Decoders from names of layers, their mixers, and what they go on to say."""

import pytest
import torch

from mnemos.memories import GatedDelta, KeyValue
from mnemos.models import Mixer, generate, hybrid
from mnemos.models.checkpoint import load_model, save_model
from mnemos.models.hybrid import LAYERS
from mnemos.retention import least_recently_used
from mnemos.testing import MemorySuite

ALL = " ".join(LAYERS)


class TestMixerLaws(MemorySuite):
    @pytest.fixture
    def memory(self):
        torch.manual_seed(0)
        return Mixer(GatedDelta(4, heads=2, key_size=3, value_size=2, chunk_size=4), kernel_size=3)


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return hybrid(11, ALL, width=8, heads=2, window=5, context=16).eval()


def test_a_layer_for_every_name(model):
    assert len(model.memories) == len(LAYERS)
    assert len(hybrid(11, "gated-delta gated-delta attention", width=8, heads=2).memories) == 3


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"layers": "delta"}, "'delta'"),
        ({"layers": ""}, "at least one"),
        ({"layers": "lstm", "width": 9, "heads": 2}, "multiple of heads"),
    ],
)
def test_wrong_layers_are_refused(given, message):
    with pytest.raises(ValueError, match=message):
        hybrid(11, **given)


def test_a_mixers_memory_gives_what_it_takes():
    with pytest.raises(ValueError, match="memory must give what it takes, not 5 numbers for 4"):
        Mixer(KeyValue(4, 3, 5, slots=3, policy=least_recently_used()))


def test_pieces_padding_and_packed_documents_change_nothing(model):
    tokens = torch.randint(11, (2, 14), generator=torch.Generator().manual_seed(0))
    whole, _ = model(tokens)
    early, state = model(tokens[:, :5])
    late, _ = model(tokens[:, 5:], state)
    torch.testing.assert_close(torch.cat([early, late], 1), whole, atol=1e-4, rtol=1e-4)
    padded = torch.cat([torch.zeros(2, 3, dtype=torch.int64), tokens], 1)
    real = torch.arange(17).expand(2, -1) >= 3
    torch.testing.assert_close(model(padded, mask=real)[0][:, 3:], whole, atol=1e-4, rtol=1e-4)
    reset = torch.zeros(2, 14, dtype=torch.bool)
    reset[:, 9] = True
    apart, _ = model(tokens[:, 9:])
    torch.testing.assert_close(model(tokens, reset=reset)[0][:, 9:], apart, atol=1e-4, rtol=1e-4)


def test_greedy_generation_is_the_likeliest_token_each_time(model):
    tokens = torch.randint(11, (3, 6), generator=torch.Generator().manual_seed(1))
    said, state = generate(model, tokens, 5)
    everything = torch.cat([tokens, said], 1)
    logits, _ = model(everything)
    assert torch.equal(logits[:, 5:-1].argmax(-1), said)
    more, _ = generate(model, said[:, -1:], 2, state=state)
    assert torch.equal(generate(model, tokens, 7)[0][:, 5:], more)


def test_draws_follow_the_probabilities(model):
    tokens = torch.full((4000, 1), 10)
    said, _ = generate(model, tokens, 1, temperature=2.0, generator=torch.Generator().manual_seed(2))
    shares = (model(tokens[:1])[0][0, -1] / 2).softmax(-1)
    found = torch.bincount(said.squeeze(1), minlength=11) / 4000
    assert (found - shares).abs().max() < 0.04
    few, _ = generate(
        model, tokens, 1, temperature=2.0, top_p=0.3, generator=torch.Generator().manual_seed(2)
    )
    order = shares.argsort(descending=True)
    kept = int((shares[order].cumsum(0) < 0.3).sum()) + 1
    assert set(few.unique().tolist()) == set(order[:kept].tolist())


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"temperature": -1.0}, "temperature"),
        ({"top_p": 0.0}, "top_p"),
        ({"tokens": torch.ones(1, 0).long()}, "tokens"),
    ],
)
def test_wrong_wishes_are_refused(model, given, message):
    with pytest.raises(ValueError, match=f"{message} must"):
        generate(**{"model": model, "tokens": torch.ones(1, 1).long(), "steps": 1, **given})


def test_a_hybrid_is_kept_in_a_folder(tmp_path):
    from mnemos.tasks.text import Document, train_tokenizer

    tokenizer = train_tokenizer([Document("a", "to be or not to be " * 20)], 260)
    torch.manual_seed(0)
    model = hybrid(tokenizer.get_vocab_size() + 1, ALL, width=8, heads=2, context=16).eval()
    save_model(tmp_path, model, tokenizer)
    found = load_model(tmp_path).model
    tokens = torch.randint(200, (1, 9))
    assert torch.equal(found(tokens)[0], model(tokens)[0])
    model.memories[-3].memory.poles = torch.randn
    with pytest.raises(TypeError, match="a S4D with its own poles cannot be saved"):
        save_model(tmp_path, model, tokenizer)

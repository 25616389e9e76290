"""The bank of past keys and values: what is written, and what attention reads."""

import pytest
import torch
import transformers
from small_models import GROUPED, tokens

import mnemos
from mnemos.models.hugging_face import bank
from mnemos.models.hugging_face.attention_memory import unrotated
from mnemos.models.hugging_face.bank import Staged


@pytest.mark.parametrize(("heads", "rows", "top_k"), [(4, 1, 3), (2, 2, 3), (1, 4, 50), (2, 1, 1)])
def test_reading_is_the_softmax_over_the_best(heads, rows, top_k):
    drawn = torch.Generator().manual_seed(0)
    keys, values = (torch.randn(rows, 7, heads, 5, generator=drawn) for _ in range(2))
    real = torch.rand(rows, 7, generator=drawn) < 0.8
    held = bank.write(None, Staged(keys, values, real), 6)
    queries = torch.randn(4, 3, 4, 5, generator=drawn)
    scale = torch.rand(4, generator=drawn)
    found = bank.read(held, queries, scale, top_k)
    assert torch.allclose(found.values, bank.read_naive(held, queries, scale, top_k), atol=1e-5)


def test_a_bank_keeps_the_last_real_steps_of_each_row():
    steps = torch.arange(10.0).view(1, 10, 1, 1).expand(2, -1, -1, -1)
    real = torch.ones(2, 10, dtype=torch.bool)
    real[1, :8] = False
    held = None
    for part in (slice(0, 4), slice(4, 5), slice(5, 10)):
        held = bank.write(held, Staged(steps[:, part], -steps[:, part], real[:, part]), 3)
    assert held.keys[0].flatten().tolist() == [7, 8, 9]
    assert held.written.tolist() == [[7, 8, 9], [-1, 0, 1]]
    assert held.values[1, 1:].flatten().tolist() == [-8, -9]


def test_rows_of_a_bank_serve_the_beams_of_their_prompt():
    keys = torch.randn(2, 3, 1, 4)
    held = bank.write(None, Staged(keys, keys, torch.ones(2, 3, dtype=torch.bool)), 8)
    queries = torch.randn(6, 1, 1, 4)
    found = bank.read(held, queries, torch.ones(1), 2).values
    for beam in range(6):
        alone = bank.Bank(*(x[beam // 3 : beam // 3 + 1] for x in held))
        expected = bank.read(alone, queries[beam : beam + 1], torch.ones(1), 2).values
        assert torch.allclose(found[beam : beam + 1], expected)
    with pytest.raises(ValueError, match="the bank has 2 rows, inputs 3"):
        bank.read(held, queries[:3], torch.ones(1), 2)


def test_a_record_has_no_position(llama):
    """The same words, later in a text, leave the same key: also where positions are scaled, as YaRN does."""
    config = transformers.LlamaConfig(
        **GROUPED, rope_parameters={"rope_type": "yarn", "factor": 4.0, "rope_theta": 10000.0}
    )
    for model in (llama, transformers.AutoModelForCausalLM.from_config(config).eval()):
        attachment = mnemos.attach(model, {0: mnemos.AttentionMemory()})
        kept = []
        for shift in (0, 31):
            attachment.clear()
            with torch.no_grad(), attachment.memorize():
                model(tokens(), position_ids=torch.arange(10).unsqueeze(0) + shift)
            kept.append(attachment.banks[0].keys)
        attachment.detach()
        assert torch.allclose(*kept, atol=1e-5)
        wanted = model.model.layers[0]
        hidden = wanted.input_layernorm(model.model.embed_tokens(tokens()))
        true = wanted.self_attn.k_proj(hidden).view(1, 20, 2, 8)
        assert torch.allclose(kept[0], true, atol=1e-5)


def test_what_was_not_turned_is_not_turned_back():
    keys = torch.randn(1, 2, 3, 8)
    assert unrotated(keys, None) is keys


# Reading and writing


def test_attention_reads_what_was_memorized_and_padding_is_not(llama):
    attachment = mnemos.attach(llama, {1: mnemos.AttentionMemory(top_k=4, capacity=100)})
    mask = torch.ones(2, 10, dtype=torch.int64)
    mask[0, :3] = 0
    before = llama(tokens()).logits
    with torch.no_grad(), attachment.memorize():
        llama(tokens(), attention_mask=mask)
    report = attachment.report()[1]
    assert not torch.equal(llama(tokens()).logits, before)
    assert attachment.banks[1].written.shape == (1, 17)
    assert report["reads"] == 0
    after = attachment.report()[1]
    assert after["reads"] == 2 * 10 * 4
    assert after["slots_held"] == 17
    assert 0 < after["slots_read"] <= 17
    assert 0 < after["age"] < 17
    attachment.forget_reads()
    assert attachment.report()[1]["reads"] == 0
    attachment.clear()
    assert torch.equal(llama(tokens()).logits, before)


def test_a_sharp_memory_settles_on_the_record_of_the_same_words(llama):
    attachment = mnemos.attach(llama, {0: mnemos.AttentionMemory(top_k=8)})
    with torch.no_grad(), attachment.memorize():
        llama(tokens(1))
    llama(tokens(1))
    soft = attachment.report()[0]["hit_rate"]
    attachment.parts[0].temperature.data.fill_(12.0)
    attachment.forget_reads()
    llama(tokens(1))
    assert attachment.report()[0]["hit_rate"] > max(0.9, soft)


def test_rows_keep_apart_where_the_bank_is_not_shared(llama):
    attachment = mnemos.attach(llama, {0: mnemos.AttentionMemory(shared=False)})
    with torch.no_grad(), attachment.memorize():
        llama(tokens(2))
    both = llama(tokens(2, seed=1)).logits
    for row in range(2):
        attachment.clear()
        with torch.no_grad(), attachment.memorize():
            llama(tokens(2)[row : row + 1])
        alone = llama(tokens(2, seed=1)[row : row + 1]).logits
        assert torch.allclose(both[row : row + 1], alone, atol=1e-5)


def test_an_error_leaves_the_last_pass_out(llama):
    attachment = mnemos.attach(llama, {0: mnemos.AttentionMemory()})

    def interrupted():
        with torch.no_grad(), attachment.memorize():
            llama(tokens(1, 4))
            llama(tokens(1, 5))
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        interrupted()
    assert attachment.banks[0].written.shape == (1, 4)


def test_facts_last_in_a_store_and_are_corrected_and_erased_there(llama, tmp_path):
    layers = {0: mnemos.AttentionMemory(capacity=64), 1: mnemos.AttentionMemory(capacity=64)}
    with mnemos.open(tmp_path / "facts") as store:
        attachment = mnemos.attach(llama, layers, store=store, namespace="ada")
        for source in ("first", "second"):
            with torch.no_grad(), attachment.memorize({"source": source}, read=False):
                llama(tokens(1, 6, seed=len(source)))
        expected = llama(tokens()).logits
        assert store.count({"namespace": "ada", "source": "first"}) == 12
        attachment.detach()
    with mnemos.open(tmp_path / "facts") as store:  # another process would find the same
        attachment = mnemos.attach(llama, layers, store=store, namespace="ada")
        assert torch.allclose(llama(tokens()).logits, expected, atol=1e-6)
        store.delete(where={"namespace": "ada", "source": "first"})
        attachment.reload()
        assert all(held.written.shape == (1, 6) for held in attachment.banks.values())
        rest = llama(tokens()).logits
        attachment.detach()
    attachment = mnemos.attach(llama, layers)
    with torch.no_grad(), attachment.memorize():
        llama(tokens(1, 6, seed=len("second")))
    assert torch.allclose(llama(tokens()).logits, rest, atol=1e-6)

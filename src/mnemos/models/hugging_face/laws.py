"""What holds of a model with memories, law by law; `examine` tries them all on a model of yours.

Attached are an `AttentionMemory` at the first layer and a `DeltaRule` after the last. Where a law says
"memory at work", the one has memorized a text and the other has random gates.
"""

import copy
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mnemos.models.hugging_face.attachment import Attachment
from mnemos.models.hugging_face.surface import decoder, train
from mnemos.models.hugging_face.trial import (
    assert_close,
    assert_same,
    at_work,
    attached,
    generate,
    no_dropout,
    residual,
    tokens_for,
)


def examine(model: nn.Module, names: list[str] | None = None) -> dict[str, str]:
    """Tries each law on a model that has no memories: "yes", or how it fails. The model comes back as it was.

    Args:
        model: a Hugging Face causal language model; small is enough, since sizes matter to no law.
        names: of the laws; None is all of `LAWS`.
    """
    training = model.training
    found = {}
    for name in LAWS if names is None else names:
        model.eval()
        with torch.random.fork_rng(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of transformers, peft and accelerate, about themselves
            torch.manual_seed(0)
            try:
                LAWS[name](model)
                found[name] = "yes"
            except Exception as error:
                found[name] = f"{type(error).__name__}: {error}"
    model.train(training)
    return found


def _unchanged(model: Any) -> None:
    """Attached and empty, the outputs are the same to the last bit, by either implementation of attention."""
    tokens, before = tokens_for(model), model.config._attn_implementation
    for implementation in ("eager", "sdpa"):
        model.set_attn_implementation(implementation)
        expected = model(tokens, output_hidden_states=True)
        with attached(model):
            found = model(tokens, output_hidden_states=True)
        assert_same(found.logits, expected.logits)
        for one, other in zip(found.hidden_states, expected.hidden_states, strict=True):
            assert_same(one, other)
    model.set_attn_implementation(before)


def _detached(model: Any) -> None:
    """Detached, the model is what it was: classes, names and weights, outputs."""
    tokens = tokens_for(model)
    kinds, names, expected = list(map(type, model.modules())), list(model.state_dict()), model(tokens).logits
    with at_work(model):
        assert not torch.equal(model(tokens).logits, expected), "the memory did nothing"
    assert list(map(type, model.modules())) == kinds
    assert list(model.state_dict()) == names
    assert_same(model(tokens).logits, expected)


def _rows(model: Any) -> None:
    """A batch gives what its rows give alone."""
    tokens = tokens_for(model)
    with at_work(model):
        assert_close(model(tokens).logits, torch.cat([model(row).logits for row in tokens.split(1)]))


def _greedy(model: Any) -> None:
    """Greedy decoding with a cache gives what it gives without one."""
    _decode(model)


def _sampling(model: Any) -> None:
    """So does sampling, two samples of each prompt."""
    _decode(model, do_sample=True, num_return_sequences=2)


def _beams(model: Any) -> None:
    """So does beam search, with three beams and two returned."""
    _decode(model, num_beams=3, num_return_sequences=2)


def _static(model: Any) -> None:
    """So does decoding with a static cache."""
    _decode(model, cache_implementation="static")


def _decode(model: Any, **settings: Any) -> None:
    tokens = tokens_for(model)
    alone = {name: value for name, value in settings.items() if name != "cache_implementation"}
    with at_work(model):
        found, expected = (
            generate(model, tokens, **how) for how in (settings, {**alone, "use_cache": False})
        )
    assert_same(found.sequences, expected.sequences)
    for one, other in zip(found.logits, expected.logits, strict=True):
        assert_close(one, other)


def _padding(model: Any) -> None:
    """A row with padding on its left gives what it gives without, also with a static cache."""
    tokens = tokens_for(model)
    short = tokens[:1, 4:]
    padded, mask = tokens.clone(), torch.ones_like(tokens)
    padded[0, :4], mask[0, :4] = model.generation_config.pad_token_id or 0, 0
    with at_work(model):
        expected = generate(model, short).logits
        for settings in ({}, {"cache_implementation": "static"}):
            found = generate(model, padded, attention_mask=mask, **settings).logits
            for one, other in zip(found, expected, strict=True):
                assert_close(one[:1], other)


def _checkpointing(model: Any) -> None:
    """Gradient checkpointing gives the same gradients, also of two passes before one backward."""
    tokens = tokens_for(model)
    with at_work(model) as attachment:
        start = dict(attachment.banks)
        gradients = []
        for checkpointed in (False, True):
            model.train()
            _checkpoint(model, checkpointed)
            attachment.banks = dict(start)
            with attachment.memorize(), no_dropout(model):
                losses = [model(part, labels=part, use_cache=False).loss for part in tokens.split(6, dim=1)]
                wanted = list(attachment.parameters())
                gradients.append(torch.autograd.grad(sum(losses), wanted, allow_unused=True))
        _checkpoint(model, False)
        model.eval()
        for one, other in zip(*gradients, strict=True):
            assert one is not None, "a parameter of the memory has no gradient"
            assert_close(one, other)


def _checkpoint(model: Any, on: bool) -> None:
    if on:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    else:
        model.gradient_checkpointing_disable()


def _trainer(model: Any) -> None:
    """Trainer trains the memories alone, and the folder that it saves gives the same model again."""
    tokens = tokens_for(model)
    frozen = {name: weight.requires_grad for name, weight in model.named_parameters()}
    before = copy.deepcopy(model.state_dict())
    with attached(model) as attachment, tempfile.TemporaryDirectory() as folder:
        for name, weight in model.named_parameters():
            if name in frozen:
                weight.requires_grad_(False)
        with attachment.memorize():
            train(model, [{"input_ids": row, "labels": row} for row in tokens], folder)
        model.eval()
        assert all(bool(part.gate.abs().max()) for part in residual(attachment)), "nothing was learned"
        expected = model(tokens).logits
        attachment.detach()
        after = model.state_dict()
        assert all(torch.equal(after[name], weight) for name, weight in before.items())
        again = Attachment.from_pretrained(model, Path(folder) / "memory")
        assert_same(model(tokens).logits, expected)
        again.detach()
    for name, weight in model.named_parameters():
        weight.requires_grad_(frozen[name])


def _lora(model: Any) -> None:
    """LoRA beside it: at first nothing changes, and both are trained."""
    from peft import LoraConfig, get_peft_model, get_peft_model_state_dict

    tokens, before = tokens_for(model), list(model.state_dict())
    with at_work(model):
        expected = model(tokens).logits
    linear = _names_of_linear(model)
    wrapped = get_peft_model(copy.deepcopy(model), LoraConfig(r=2, target_modules=linear))
    with at_work(wrapped) as attachment:
        assert_same(wrapped(tokens).logits, expected)
        wrapped(tokens, labels=tokens).loss.backward()
        assert all(weight.grad is not None for weight in attachment.parameters())
        assert any(weight.grad is not None for name, weight in wrapped.named_parameters() if "lora_" in name)
        with tempfile.TemporaryDirectory() as folder:
            wrapped.save_pretrained(folder)
            assert (Path(folder) / "memory" / "memory.safetensors").exists()
    assert not any("memory" in name for name in get_peft_model_state_dict(wrapped))
    assert list(model.state_dict()) == before


def _names_of_linear(model: Any) -> list[str]:
    """The products of the decoder layers, by the last part of their names."""
    layer = decoder(model).layers[0]
    return sorted(
        {name.split(".")[-1] for name, weight in layer.named_modules() if hasattr(weight, "weight")}
        - {name.split(".")[-1] for name, weight in layer.named_modules() if "norm" in name or "ln" in name}
    )


def _bfloat16(model: Any) -> None:
    """In bfloat16 nothing changes at first; at work, all is finite and near what float32 gives."""
    tokens, half = tokens_for(model), copy.deepcopy(model).to(torch.bfloat16)
    expected = half(tokens).logits
    with attached(half):
        assert_same(half(tokens).logits, expected)
    with at_work(half) as attachment:
        found = half(tokens).logits.float()
        assert all(bank.keys.dtype == torch.bfloat16 for bank in attachment.banks.values())
        assert all(logits.isfinite().all() for logits in generate(half, tokens).logits)
    with at_work(model):
        exact = model(tokens).logits
    assert found.isfinite().all()
    assert (found - exact).norm() < 0.1 * exact.norm(), "far from what float32 gives"


def _saved(model: Any) -> None:
    """Saved, loaded into a model without memories: the same outputs to the last bit."""
    tokens = tokens_for(model)
    with tempfile.TemporaryDirectory() as folder:
        with at_work(model) as attachment:
            expected = model(tokens).logits
            attachment.save_pretrained(folder)
        again = Attachment.from_pretrained(model, folder)
        try:
            assert_same(model(tokens).logits, expected)
        finally:
            again.detach()


def _segments(model: Any) -> None:
    """Segments with a carried cache give what one pass gives, while no more was seen than is kept."""
    tokens = tokens_for(model)
    with at_work(model, segments=64) as attachment:
        cached = attachment.new_cache()
        parts = [model(part, past_key_values=cached).logits for part in tokens.split(5, dim=1)]
        assert_close(torch.cat(parts, dim=1), model(tokens).logits)


LAWS: dict[str, Callable[[Any], None]] = {
    "unchanged": _unchanged,
    "detached": _detached,
    "rows": _rows,
    "greedy": _greedy,
    "sampling": _sampling,
    "beams": _beams,
    "static cache": _static,
    "left padding": _padding,
    "checkpointing": _checkpointing,
    "Trainer": _trainer,
    "LoRA": _lora,
    "bfloat16": _bfloat16,
    "saved": _saved,
    "segments": _segments,
}

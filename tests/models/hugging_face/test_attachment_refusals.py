"""What would lose memory without a word is an error."""

import copy

import pytest
import torch
from small_models import memory, tokens

import mnemos


def test_a_cache_that_the_memory_has_not_seen_is_refused(llama):
    cached = llama(tokens()).past_key_values
    mnemos.attach(llama, {1: memory()})
    with pytest.raises(ValueError, match="holds 10 steps that the memory of layer 1 has not seen"):
        llama(tokens(), past_key_values=cached)


def test_a_cache_with_a_memory_cannot_be_cut(llama):
    mnemos.attach(llama, {1: memory()})
    cached = llama(tokens()).past_key_values
    assert not getattr(cached, "is_croppable", False)  # newer transformers ask it before they cut
    with pytest.raises(NotImplementedError, match="cannot forget its last steps"):
        cached.crop(-2)
    with pytest.raises(NotImplementedError, match="cannot forget its last steps"):
        llama.generate(
            torch.tensor([[5, 6, 7, 8, 5, 6]]), max_new_tokens=6, prompt_lookup_num_tokens=3, pad_token_id=0
        )


@pytest.mark.filterwarnings("ignore:.gradient_checkpointing_enable. is deprecated:FutureWarning")
def test_checkpointing_would_lose_a_carried_state(llama):
    attachment = mnemos.attach(llama, {1: memory()})
    cached = llama(tokens()).past_key_values
    llama.train()
    llama.gradient_checkpointing_enable({"use_reentrant": False})
    try:
        llama(tokens(), labels=tokens()).loss.backward()
        with pytest.raises(ValueError, match="gradient checkpointing leaves the cache away"):
            llama(tokens(), past_key_values=cached)
        attachment.detach()
        mnemos.attach(llama, {1: mnemos.AttentionMemory()})
        llama(tokens(), labels=tokens()).loss.backward()
    finally:
        for layer in llama.model.layers:
            layer.gradient_checkpointing = False
        llama.zero_grad()


def test_new_keys_are_not_taken_from_a_static_cache(llama):
    attachment = mnemos.attach(llama, {1: mnemos.AttentionMemory()})
    settings = {"max_new_tokens": 2, "cache_implementation": "static", "pad_token_id": 0}
    with attachment.memorize(), pytest.raises(ValueError, match="static cache"):
        llama.generate(tokens(), **settings)


def test_a_checkpoint_without_the_memory_is_refused(llama):
    alone = copy.deepcopy(llama.state_dict())
    mnemos.attach(llama, {1: memory()})
    with pytest.raises(RuntimeError, match="holds no weights of the memories"):
        llama.load_state_dict(alone, strict=False)
    llama.load_state_dict(copy.deepcopy(llama.state_dict()))


def test_what_cannot_be_attached_changes_nothing(llama):
    kinds = list(map(type, llama.modules()))
    with pytest.raises(ValueError, match="must map 32 numbers to 32"):
        mnemos.attach(llama, {0: mnemos.AttentionMemory(), 1: memory(16)})
    with pytest.raises(ValueError, match="names layer 2; the model has 2"):
        mnemos.attach(llama, {2: mnemos.AttentionMemory()})
    with pytest.raises(TypeError, match="Hugging Face model"):
        mnemos.attach(torch.nn.Linear(2, 2), {})
    with mnemos.open(":memory:") as store, pytest.raises(ValueError, match="not shared"):
        mnemos.attach(llama, {0: mnemos.AttentionMemory(shared=False)}, store=store)
    with pytest.raises(ValueError, match="gate must lie between 0 and 1"):
        mnemos.AttentionMemory(gate=1.0)
    assert list(map(type, llama.modules())) == kinds
    attachment = mnemos.attach(llama, {0: memory()})
    with pytest.raises(ValueError, match="has memories already"):
        mnemos.attach(llama, {1: memory()})
    with pytest.raises(ValueError, match="no layer has an AttentionMemory"), attachment.memorize():
        pass
    attachment.detach()
    with pytest.raises(ValueError, match="not attached"):
        attachment.detach()

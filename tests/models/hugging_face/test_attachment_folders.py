"""Attachments as folders, beside the models."""

import pytest
import torch
import transformers
from small_models import memory, small, tokens

import mnemos
from mnemos.models import ModelError


def test_a_model_saves_its_memories_beside_itself(llama, tmp_path):
    attachment = mnemos.attach(llama, {0: mnemos.AttentionMemory(), 1: memory()})
    attachment.parts[1].gate.data.normal_()
    with torch.no_grad(), attachment.memorize():
        llama(tokens())
    expected = llama(tokens()).logits
    llama.save_pretrained(tmp_path)
    assert sorted(file.name for file in (tmp_path / "memory").iterdir()) == [
        "memory.safetensors",
        "memory_config.json",
        "rows.safetensors",
        "store",
    ]
    again = transformers.AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    loaded = mnemos.Attachment.from_pretrained(again, tmp_path / "memory")
    assert torch.equal(again(tokens()).logits, expected)
    loaded.save_pretrained(tmp_path / "memory")  # over what is there
    loaded.detach()
    with mnemos.open(tmp_path / "memory" / "store") as store:
        loaded = mnemos.Attachment.from_pretrained(again, tmp_path / "memory", store=store)
        with torch.no_grad(), loaded.memorize():
            again(tokens(1, 5))
        assert store.count() == 25
        assert torch.equal(again(tokens()).logits, again(tokens()).logits)


def test_banks_of_rows_are_saved_too(llama, tmp_path):
    attachment = mnemos.attach(llama, {0: mnemos.AttentionMemory(shared=False)})
    with torch.no_grad(), attachment.memorize():
        llama(tokens())
    expected = llama(tokens()).logits
    attachment.save_pretrained(tmp_path)
    attachment.detach()
    mnemos.Attachment.from_pretrained(llama, tmp_path)
    assert torch.equal(llama(tokens()).logits, expected)


def test_a_damaged_or_foreign_folder_is_refused(llama, tmp_path):
    attachment = mnemos.attach(llama, {0: mnemos.AttentionMemory(), 1: memory()})
    attachment.save_pretrained(tmp_path)
    attachment.detach()
    with pytest.raises(ModelError, match="memories of another model: model_type was llama, is gpt2"):
        mnemos.Attachment.from_pretrained(small("GPT-2"), tmp_path)
    weights = tmp_path / "memory.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(ModelError, match="damaged"):
        mnemos.Attachment.from_pretrained(llama, tmp_path)
    weights.unlink()
    with pytest.raises(ModelError, match=r"memory.safetensors is missing"):
        mnemos.Attachment.from_pretrained(llama, tmp_path)
    assert not hasattr(llama, "mnemos_attachment")


def test_a_memory_of_parts_says_that_it_cannot_be_saved(llama, tmp_path):
    gated = mnemos.ProductKey(32, 8, 32, key_size=8, gate=mnemos.memories.SiluGate(32, 32, 32))
    attachment = mnemos.attach(llama, {0: gated})
    with pytest.raises(TypeError, match=r"ProductKey of layer 0 cannot be saved .* not values, gate"):
        attachment.save_pretrained(tmp_path / "folder")
    assert not (tmp_path / "folder").exists()

"""Attachments as folders, beside the models."""

import pytest
import torch
import transformers
from small_models import memory, small, tokens

import mnemos
from mnemos.memories.compression import Compression
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


def test_the_parts_of_a_memory_come_back_with_it(llama, tmp_path):
    gate = mnemos.memories.SiluGate(32, 32, 32)
    wired = mnemos.memories.MemoryAsContext(mnemos.memories.Titans(32, key_size=8, value_size=8), 4)
    attachment = mnemos.attach(llama, {0: mnemos.ProductKey(32, 8, 32, key_size=8, gate=gate), 1: wired})
    attachment.save_pretrained(tmp_path)
    kept = attachment.state_dict()
    attachment.detach()
    found = mnemos.Attachment.from_pretrained(llama, tmp_path).state_dict()
    assert found.keys() == kept.keys()
    assert all(torch.equal(found[name], kept[name]) for name in kept)


def test_a_memory_of_parts_that_cannot_be_written_says_so(llama, tmp_path):
    class Last(Compression):
        def forward(self, steps, usage):
            return steps[:, :, -1]

    memory = mnemos.memories.CompressiveMemory(32, window=2, compressed=2, compression=Last(2))
    attachment = mnemos.attach(llama, {0: memory})
    with pytest.raises(TypeError, match=r"layer 0 .* with its own compression cannot be saved"):
        attachment.save_pretrained(tmp_path / "folder")
    assert not (tmp_path / "folder").exists()

import json

import pytest
import torch

import mnemos.models.folder as folder
from mnemos.memories import (
    CompressiveMemory,
    DeltaRule,
    MemorizingAttention,
    RotaryAttention,
    SegmentAttention,
)
from mnemos.memories.combination import JointSoftmax
from mnemos.memories.compression import Compression, Convolution, DilatedConvolution, MaxPool, MostUsed
from mnemos.models import (
    ModelError,
    Transformer,
    hybrid,
    language_model,
    load_model,
    save_model,
)
from mnemos.tasks.text import Document, train_tokenizer

FILES = ("config.json", "model.safetensors", "tokenizer.json")


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer([Document("a", "the cat and the hat sat\n" * 9)], 260)


@pytest.fixture
def model(tokenizer):
    torch.manual_seed(0)
    return hybrid(tokenizer.get_vocab_size() + 1, "attention attention", width=16, heads=2, context=8)


def test_a_model_comes_back_as_it_was(tmp_path, model, tokenizer):
    saved = save_model(tmp_path / "deep" / "model", model, tokenizer)
    loaded = load_model(tmp_path / "deep" / "model")
    tokens = torch.randint(model.vocabulary_size, (2, 7))
    assert torch.equal(loaded.model(tokens)[0], model.eval()(tokens)[0])
    assert loaded.tokenizer.to_str() == tokenizer.to_str()
    assert loaded.fingerprint == saved.fingerprint == language_model(model, tokenizer).fingerprint
    assert loaded.model.context == 8
    assert not loaded.model.training
    assert {file.name for file in (tmp_path / "deep" / "model").iterdir()} == set(FILES)


def test_a_model_of_other_memories_comes_back(tmp_path, tokenizer):
    layers = [SegmentAttention(16, window=4, heads=2), DeltaRule(16, heads=2), RotaryAttention(16, 2, 4)]
    model = Transformer(tokenizer.get_vocab_size() + 1, layers, 32).eval()
    save_model(tmp_path, model, tokenizer)
    tokens = torch.randint(model.vocabulary_size, (2, 7))
    assert torch.equal(load_model(tmp_path).model(tokens)[0], model(tokens)[0])


def test_the_fingerprint_tells_models_apart(model, tokenizer):
    before = language_model(model, tokenizer).fingerprint
    with torch.no_grad():
        model.last_norm.weight[0] += 1e-6
    assert language_model(model, tokenizer).fingerprint != before


def test_a_missing_model_is_named(tmp_path, model, tokenizer):
    with pytest.raises(ModelError, match=r"nowhere holds no model: config\.json is missing"):
        load_model(tmp_path / "nowhere")
    save_model(tmp_path, model, tokenizer)
    (tmp_path / "tokenizer.json").unlink()
    with pytest.raises(ModelError, match=r"tokenizer\.json is missing"):
        load_model(tmp_path)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", ["cut", "empty", "flip"])
def test_damage_is_refused(tmp_path, model, tokenizer, name, damage):
    save_model(tmp_path, model, tokenizer)
    content = bytearray((tmp_path / name).read_bytes())
    if damage == "flip":
        place = content.index(b"16") + 1 if name == "config.json" else len(content) // 2
        content[place] ^= 1
    (tmp_path / name).write_bytes(content[: {"cut": len(content) // 2, "empty": 0}.get(damage)])
    with pytest.raises(ModelError, match="damaged"):
        load_model(tmp_path)


def test_the_file_of_another_model_is_refused(tmp_path, model, tokenizer):
    save_model(tmp_path / "one", model, tokenizer)
    with torch.no_grad():
        model.embedding.weight += 1
    save_model(tmp_path / "two", model, tokenizer)
    (tmp_path / "two" / "model.safetensors").replace(tmp_path / "one" / "model.safetensors")
    with pytest.raises(ModelError, match="damaged"):
        load_model(tmp_path / "one")


def test_a_newer_format_is_refused(tmp_path, model, tokenizer):
    save_model(tmp_path, model, tokenizer)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "format": folder.FORMAT + 1}))
    with pytest.raises(ModelError, match="update mnemos"):
        load_model(tmp_path)


def test_a_save_that_stops_halfway_never_leaves_a_wrong_model(tmp_path, model, tokenizer, monkeypatch):
    save_model(tmp_path, model, tokenizer)
    replace, done = folder._replace, []

    def stops(file, content):
        if len(done) == 2:
            raise OSError("no space left on device")
        done.append(replace(file, content))

    monkeypatch.setattr(folder, "_replace", stops)
    with torch.no_grad():
        model.embedding.weight += 1
    with pytest.raises(OSError, match="no space"):
        save_model(tmp_path, model, tokenizer)
    with pytest.raises(ModelError, match="damaged"):
        load_model(tmp_path)


def test_a_tokenizer_of_another_size_is_refused(tokenizer):
    model = hybrid(tokenizer.get_vocab_size(), "attention attention", width=16, heads=2)
    with pytest.raises(ValueError, match="the start of a document"):
        language_model(model, tokenizer)


@pytest.mark.parametrize(
    "memory",
    [
        lambda: CompressiveMemory(8, window=2, compressed=2, compression=MaxPool(2)),
        lambda: CompressiveMemory(8, window=2, compressed=2, compression=MostUsed(2)),
        lambda: CompressiveMemory(8, window=2, compressed=2, compression=Convolution(8, 2)),
        lambda: CompressiveMemory(8, window=8, compressed=2, compression=DilatedConvolution(8, 2, (1,))),
        lambda: MemorizingAttention(8, window=2, slots=4, combination=JointSoftmax()),
    ],
    ids=["most", "most used", "convolution", "dilated", "joint"],
)
def test_the_parts_of_a_memory_come_back_with_it(tmp_path, tokenizer, memory):
    torch.manual_seed(0)
    model = Transformer(tokenizer.get_vocab_size() + 1, [memory()], 8, 16).eval()
    save_model(tmp_path, model, tokenizer)
    tokens = torch.randint(model.vocabulary_size, (1, 16))
    assert torch.equal(load_model(tmp_path).model(tokens)[0], model(tokens)[0])


def test_a_part_that_is_no_ones_but_the_users_is_refused(tmp_path, tokenizer):
    class Last(Compression):
        def forward(self, steps, usage):
            return steps[:, :, -1]

    memory = CompressiveMemory(8, window=2, compressed=2, compression=Last(2))
    model = Transformer(tokenizer.get_vocab_size() + 1, [memory], 8, 16)
    with pytest.raises(TypeError, match="a CompressiveMemory with its own compression cannot be saved"):
        save_model(tmp_path, model, tokenizer)
    assert not list(tmp_path.iterdir())

"""Memories attached to small random models of Hugging Face: all laws for all architectures."""

import copy
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import transformers

import mnemos
from mnemos.models import ModelError
from mnemos.models.hugging_face import bank, laws
from mnemos.models.hugging_face.attention_memory import unrotated
from mnemos.models.hugging_face.bank import Staged

COMMON = {
    "vocab_size": 37,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 128,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
GATED = COMMON | {"intermediate_size": 48}
GROUPED = GATED | {"num_key_value_heads": 2, "head_dim": 8}
MIXED = {"sliding_window": 8, "layer_types": ["sliding_attention", "full_attention"]}
ARCHITECTURES = {
    "Llama": lambda: transformers.LlamaConfig(**GROUPED),
    "Qwen3": lambda: transformers.Qwen3Config(**GROUPED),
    "Mistral": lambda: transformers.MistralConfig(**GROUPED, sliding_window=8),
    "Gemma3": lambda: transformers.Gemma3TextConfig(**GROUPED, **MIXED),
    "GPT-2": lambda: transformers.GPT2Config(**COMMON),
    "GPT-NeoX": lambda: transformers.GPTNeoXConfig(**GATED, rotary_pct=0.5),
    "Phi-3": lambda: transformers.Phi3Config(**GATED, num_key_value_heads=2),
}
PAGE = Path(__file__).parents[2] / "docs" / "attach.md"


def small(name):
    torch.manual_seed(0)
    return transformers.AutoModelForCausalLM.from_config(ARCHITECTURES[name]()).eval()


@pytest.fixture(scope="module")
def shared_llama():
    return small("Llama")


@pytest.fixture
def llama(shared_llama):
    """One model for all tests: each takes its memories off again."""
    yield shared_llama
    attachment = getattr(shared_llama, "mnemos_attachment", None)
    if attachment is not None:
        attachment.detach()
    shared_llama.eval()


def tokens(batch=2, time=10, seed=0):
    return torch.randint(3, 37, (batch, time), generator=torch.Generator().manual_seed(seed))


def memory(size=32):
    return mnemos.DeltaRule(size, heads=2, key_size=8, value_size=8)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_the_table_in_the_docs_is_what_the_laws_find(name):
    found = laws.examine(small(name))
    assert set(found.values()) == {"yes"}
    page = PAGE.read_text(encoding="utf-8")
    assert f"| architecture | {' | '.join(found)} |" in page
    assert f"| {name} | {' | '.join(found.values())} |" in page


def test_a_law_that_is_broken_is_told():
    model = small("GPT-2")
    model.config.reorder_and_upcast_attn = True
    for block in model.transformer.h:
        block.attn.reorder_and_upcast_attn = True
    assert "goes around" in laws.examine(model, ["greedy"])["greedy"]
    assert not hasattr(model, "mnemos_attachment")


# The bank


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


# Residual memories


def test_any_memory_is_carried_in_the_cache(llama):
    kinds = [memory(), mnemos.ProductKey(32, 8, 32, heads=2, key_size=8, top_k=4), mnemos.Recurrent(32, 32)]
    for kind in kinds:
        attachment = mnemos.attach(llama, {0: kind})
        attachment.parts[0].gate.data.normal_()
        whole = llama(tokens(), use_cache=True)
        first = llama(tokens()[:, :4], use_cache=True)
        second = llama(tokens()[:, 4:], past_key_values=first.past_key_values)
        found = torch.cat([first.logits, second.logits], dim=1)
        assert torch.allclose(found, whole.logits, atol=1e-5)
        assert attachment.report()[0]["share"] > 0
        attachment.detach()


def test_the_cache_moves_the_state_with_its_rows(llama):
    attachment = mnemos.attach(llama, {1: memory()})
    attachment.parts[1].gate.data.normal_()
    order = torch.tensor([1, 1, 0])
    cached = llama(tokens()[:, :6]).past_key_values
    cached.batch_repeat_interleave(2)
    cached.batch_select_indices(torch.tensor([2, 0]))
    cached.reorder_cache(order)
    rows = tokens().flip(0)[order]
    found = llama(rows[:, 6:], past_key_values=cached).logits
    assert torch.allclose(found, llama(rows).logits[:, 6:], atol=1e-5)
    cached.reset()
    cached = cached if not cached.get_seq_length() else None  # transformers 5.4 only fills it with zeros
    assert torch.allclose(llama(rows, past_key_values=cached).logits, llama(rows).logits, atol=1e-6)


# Segments


def test_segments_give_what_one_pass_gives(llama):
    attachment = mnemos.attach(llama, {0: memory()}, segments=64)
    attachment.parts[0].gate.data.normal_()
    text = tokens(2, 24)
    whole = llama(text).logits
    cached, found = attachment.new_cache(), []
    for part in text.split(7, dim=1):
        found.append(llama(part, past_key_values=cached).logits)
    assert torch.allclose(torch.cat(found, dim=1), whole, atol=1e-5)
    assert cached.get_seq_length() == 24
    settings = {"max_new_tokens": 5, "do_sample": False, "pad_token_id": 0}
    expected = llama.generate(text, num_beams=2, **settings)
    cached = attachment.new_cache()
    llama(text[:, :9], past_key_values=cached)
    cached.batch_repeat_interleave(2)  # as for any cache that is not empty: two beams for each row
    assert torch.equal(llama.generate(text, num_beams=2, past_key_values=cached, **settings), expected)


def test_only_the_last_steps_are_kept(llama):
    attachment = mnemos.attach(llama, segments=6)
    cached = attachment.new_cache()
    for part in tokens(1, 20).split(5, dim=1):
        llama(part, past_key_values=cached)
    assert cached.layers[0].keys.shape[-2] == 6
    assert not cached.layers[0].keys.requires_grad
    assert cached.get_mask_sizes(5, 0) == (11, 14)
    with pytest.raises(NotImplementedError, match="begin with a new cache"):
        cached.crop(-1)


def test_carrying_is_passing_the_cache_oneself(llama):
    """With padding, a row that begins another text, and an evaluation in between."""
    attachment = mnemos.attach(llama, {1: memory()}, segments=32)
    attachment.parts[1].gate.data.normal_()
    text, masks = tokens(2, 15).split(5, dim=1), torch.ones(3, 2, 5, dtype=torch.int64)
    masks[0, 0, :2] = 0
    found = []
    with attachment.carry():
        for number, (part, mask) in enumerate(zip(text, masks, strict=True)):
            reset = torch.tensor([False, number == 1])
            llama.train()
            found.append(llama(part, attention_mask=mask, memory_reset=reset).logits)
            llama.eval()
            llama(tokens(3, 4))
    row = torch.cat([part[0] for part in text]).unsqueeze(0)
    positions = torch.arange(15).unsqueeze(0)
    expected = llama(row, attention_mask=masks[:, 0].flatten().unsqueeze(0), position_ids=positions).logits
    assert torch.allclose(torch.cat([part[:1] for part in found], dim=1)[:, 2:], expected[:, 2:], atol=1e-5)
    expected = llama(torch.cat([text[1][1], text[2][1]]).unsqueeze(0)).logits
    assert torch.allclose(torch.cat([part[1:] for part in found[1:]], dim=1), expected, atol=1e-5)


def test_what_would_break_a_stream_is_refused(llama):
    attachment = mnemos.attach(llama, {1: memory()}, segments=8)
    with pytest.raises(ValueError, match=r"inside carry"):
        llama(tokens(), memory_reset=torch.tensor([True, False]))
    with attachment.carry():
        llama(tokens(2))
        with pytest.raises(ValueError, match="2 texts are being read, and a batch of 3 comes"):
            llama(tokens(3))
        with pytest.raises(ValueError, match="a cache was passed"):
            llama.generate(tokens(2), max_new_tokens=2, pad_token_id=0)
        for layer in llama.model.layers:
            layer.gradient_checkpointing = True
        llama.train()
        with pytest.raises(ValueError, match="gradient checkpointing leaves the cache away"):
            llama(tokens(2))
        for layer in llama.model.layers:
            layer.gradient_checkpointing = False
    attachment.detach()
    with pytest.raises(ValueError, match="nothing to attach"):
        mnemos.attach(llama)
    attachment = mnemos.attach(llama, {0: mnemos.AttentionMemory()})
    with pytest.raises(ValueError, match="neither segments nor memories"), attachment.carry():
        pass


def test_a_table_of_positions_ends():
    model = small("GPT-2")
    attachment = mnemos.attach(model, segments=8)
    cached = attachment.new_cache()
    model(tokens(1, 120), past_key_values=cached)
    with pytest.raises(ValueError, match="the model knows 128 positions, not 130"):
        model(tokens(1, 10), past_key_values=cached)


# What would be lost is told


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


# Folders


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


def test_without_transformers_the_error_names_the_extra():
    program = "import sys; sys.modules['transformers'] = None; import mnemos; mnemos.attach"
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert 'pip install "mnemos[hf]"' in run.stderr


def test_only_one_file_knows_transformers():
    source = Path(mnemos.__file__).parent
    pattern = re.compile(r"^\s*(from|import) (transformers|peft)", re.MULTILINE)
    users = [file.name for file in source.rglob("*.py") if pattern.search(file.read_text())]
    assert sorted(users) == ["laws.py", "surface.py"]  # laws.py: peft

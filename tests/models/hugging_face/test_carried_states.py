"""What goes from pass to pass: states of memories in caches, and segments."""

import pytest
import torch
import transformers
from small_models import memory, small, tokens

import mnemos


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


def test_trainer_carries_from_batch_to_batch(llama, tmp_path):
    """Two texts side by side, of which the second begins anew in the third batch: as each is read at once."""
    attachment = mnemos.attach(llama, {1: memory()}, segments=32)
    attachment.parts[1].gate.data.normal_()
    text = tokens(2, 20)
    examples = [
        {"input_ids": part[row], "labels": part[row], "memory_reset": torch.tensor(row == 1 and number == 2)}
        for number, part in enumerate(text.split(5, dim=1))
        for row in range(2)
    ]
    arguments = transformers.TrainingArguments(
        output_dir=str(tmp_path),
        learning_rate=0.0,  # so that the model stays the one that reads the texts at once, below
        num_train_epochs=1,
        per_device_train_batch_size=2,
        train_sampling_strategy="sequential",
        dataloader_drop_last=True,
        remove_unused_columns=False,
        report_to="none",
        save_strategy="no",
        disable_tqdm=True,
        logging_strategy="no",
        dataloader_pin_memory=False,
    )
    found = []
    watch = llama.register_forward_hook(lambda model, given, said: found.append(said.logits.detach()))
    with attachment.carry():
        transformers.Trainer(llama, arguments, train_dataset=examples).train()
    watch.remove()
    llama.eval()
    first, begun, anew = (llama(part).logits for part in (text[:1], text[1:, :10], text[1:, 10:]))
    expected = torch.cat([first, torch.cat([begun, anew], dim=1)])
    assert torch.allclose(torch.cat(found, dim=1), expected, atol=1e-5)


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

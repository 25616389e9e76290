"""Memories of segments beside x-transformers, compressive-transformer, memorizing-transformers and
recurrent-memory-transformer.

    OMP_NUM_THREADS=1 python benchmarks/segment_memory.py [--rounds 5] [--only Recurrent]

Decoders of six layers and width 256, batch 1, read a segment of 512 tokens with their memories full: 512
steps for Transformer-XL; 512 steps and 128 compressed slots at rate 4 for the Compressive Transformer; 512
steps and, in the fifth layer, 8,192 more, of which each head reads 32, for the Memorizing Transformer; 128
memory tokens, read and written, for the Recurrent Memory Transformer. "eval" is that; "train" is that, the
loss and its gradients, with the attention-reconstruction loss of the compression where there is one, as the
peer has it. Every round runs every form once, in turn, so that a drifting machine drifts for all of them
alike. What is counted is the processor time of the one thread.

The networks have the same width, layers, heads and about as many parameters, but they are not the same
function: x-transformers learns a bias for the distance where ours has Dai et al.'s relative attention; the
compressive peer adds gates, and compresses only whole segments; the memorizing peer shares keys and values
between heads and searches approximately, by faiss, where ours has keys for each head and finds the very
best; the recurrent peer is without its additions (a carried window, several residual streams).
"""

import argparse
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from typing import Any

import torch
from rich.progress import track
from torch import Tensor, nn
from torch.nn import functional

import mnemos
from mnemos.memories import CompressiveMemory, MemorizingAttention, Memory, RecurrentMemory, SegmentAttention
from mnemos.memories.combination import JointSoftmax
from mnemos.memories.compression import Convolution
from mnemos.memories.compression_loss import attention_reconstruction_loss
from mnemos.models.transformer import Transformer

VOCABULARY, WIDTH, LAYERS, HEADS, LENGTH = 256, 256, 6, 8, 512
BLOCKS, RATE, SLOTS, TOP_K, MEMORIZING_LAYER = 128, 4, 8192, 32, 4
Form = Callable[[bool], None]


def tokens() -> Tensor:
    return torch.randint(VOCABULARY, (1, LENGTH))


def loss_of(logits: Tensor, inputs: Tensor) -> Tensor:
    return functional.cross_entropy(logits[0, :-1], inputs[0, 1:])


def ours(build: Callable[[int], Memory]) -> Form:
    """One of our decoders, with its memories full."""
    model = Transformer(VOCABULARY, [build(layer) for layer in range(LAYERS)], feed_forward=683)
    given: list[tuple[Any, ...]] = []
    for memory in model.memories:
        if isinstance(memory, CompressiveMemory):
            memory.register_forward_pre_hook(lambda *called: given.append((called[0], *called[1])))
    state: Any = None
    with torch.no_grad():
        for _ in range(SLOTS // LENGTH + 2):
            _, state = model(tokens(), state)

    def run(training: bool) -> None:
        given.clear()
        inputs = tokens()
        with torch.set_grad_enabled(training):
            logits, _ = model(inputs, mnemos.detach(state))
            if training:
                extra = sum(attention_reconstruction_loss(*call) for call in given)
                (loss_of(logits, inputs) + extra).backward()
                model.zero_grad()

    return run


def x_transformers() -> Form:
    from x_transformers import Decoder, TransformerWrapper

    layers = Decoder(
        dim=WIDTH, depth=LAYERS, heads=HEADS, attn_dim_head=WIDTH // HEADS, rel_pos_bias=True, ff_mult=4
    )
    model = TransformerWrapper(
        num_tokens=VOCABULARY, max_seq_len=LENGTH, max_mem_len=LENGTH, attn_layers=layers
    )
    with torch.no_grad():
        _, memories = model(tokens(), return_mems=True)

    def run(training: bool) -> None:
        inputs = tokens()
        with torch.set_grad_enabled(training):
            logits, _ = model(inputs, mems=memories, return_mems=True)
            if training:
                loss_of(logits, inputs).backward()
                model.zero_grad()

    return prepared(model, run)


def compressive_transformer() -> Form:
    from compressive_transformer_pytorch import CompressiveTransformer

    model = CompressiveTransformer(
        num_tokens=VOCABULARY,
        dim=WIDTH,
        depth=LAYERS,
        heads=HEADS,
        seq_len=LENGTH,
        mem_len=LENGTH,
        cmem_len=BLOCKS,
        cmem_ratio=RATE,
    )
    memories = None
    with torch.no_grad():
        for _ in range(3):
            _, memories, _ = model(tokens(), memories)

    def run(training: bool) -> None:
        inputs = tokens()
        with torch.set_grad_enabled(training):
            logits, _, extra = model(inputs, memories)
            if training:
                (loss_of(logits, inputs) + extra).backward()
                model.zero_grad()

    return prepared(model, run)


def memorizing_transformers(folder: str) -> Form:
    from memorizing_transformers_pytorch import MemorizingTransformer

    model = MemorizingTransformer(
        num_tokens=VOCABULARY,
        dim=WIDTH,
        dim_head=WIDTH // HEADS,
        depth=LAYERS,
        heads=HEADS,
        memorizing_layers=(MEMORIZING_LAYER + 1,),
        max_knn_memories=SLOTS,
        num_retrieved_memories=TOP_K,
        xl_max_memories=LENGTH,
        knn_memories_directory=folder,
    )
    remembered = model.create_knn_memories(batch_size=1)
    recent = None
    with torch.no_grad():
        for _ in range(SLOTS // LENGTH):
            _, recent = model(tokens(), remembered, recent)

    def run(training: bool) -> None:
        inputs = tokens()
        with torch.set_grad_enabled(training):
            # Nothing is added: once full, it would forget all that it holds.
            logits, _ = model(inputs, remembered, recent, add_knn_memory=False)
            if training:
                loss_of(logits, inputs).backward()
                model.zero_grad()

    return prepared(model, run)


def recurrent_memory_transformer() -> Form:
    from recurrent_memory_transformer_pytorch import RecurrentMemoryTransformer

    model = RecurrentMemoryTransformer(
        num_tokens=VOCABULARY,
        dim=WIDTH,
        depth=LAYERS,
        heads=HEADS,
        dim_head=WIDTH // HEADS,
        seq_len=LENGTH,
        num_memory_tokens=BLOCKS,
        abs_pos_emb=False,
        rotary_pos_emb=True,
        use_xl_memories=False,
        add_write_to_next_write_mem=True,
        num_residual_streams=1,
    )
    with torch.no_grad():
        _, memories, _ = model(tokens())

    def run(training: bool) -> None:
        inputs = tokens()
        with torch.set_grad_enabled(training):
            logits, _, _ = model(inputs, memories)
            if training:
                loss_of(logits, inputs).backward()
                model.zero_grad()

    return prepared(model, run)


def recurrent() -> Form:
    """Ours, whose memory is all of the layers."""
    memory = RecurrentMemory(
        WIDTH, segment_size=LENGTH, slots=BLOCKS, layers=LAYERS, heads=HEADS, feed_forward=683
    )
    embedding, output = nn.Embedding(VOCABULARY, WIDTH), nn.Linear(WIDTH, VOCABULARY)
    model = nn.Sequential(embedding, memory, output)
    with torch.no_grad():
        _, state = memory(embedding(tokens()))

    def run(training: bool) -> None:
        inputs = tokens()
        with torch.set_grad_enabled(training):
            logits = output(memory(embedding(inputs), state)[0])
            if training:
                loss_of(logits, inputs).backward()
                model.zero_grad()

    return prepared(model, run)


def prepared(model: nn.Module, run: Form) -> Form:
    """The form itself, in either mode of the model, as the peers ask for it."""

    def moded(training: bool) -> None:
        model.train(training)
        run(training)

    return moded


def relative(layer: int) -> Memory:
    return SegmentAttention(WIDTH, window=LENGTH, heads=HEADS)


def compressive(layer: int) -> Memory:
    return CompressiveMemory(
        WIDTH, window=LENGTH, compressed=BLOCKS, compression=Convolution(WIDTH, RATE), heads=HEADS
    )


def memorizing(layer: int) -> Memory:
    if layer != MEMORIZING_LAYER:
        return relative(layer)
    return MemorizingAttention(
        WIDTH, window=LENGTH, slots=SLOTS, top_k=TOP_K, heads=HEADS, combination=JointSoftmax()
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", default="", help="a word of ours and its peer alone: Recurrent")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        builders: dict[str, Callable[[], Form]] = {
            "mnemos, Transformer-XL": lambda: ours(relative),
            "x-transformers": x_transformers,
            "mnemos, Compressive Transformer": lambda: ours(compressive),
            "compressive-transformer": compressive_transformer,
            "mnemos, Memorizing Transformer": lambda: ours(memorizing),
            "memorizing-transformers": lambda: memorizing_transformers(folder),
            "mnemos, Recurrent Memory Transformer": recurrent,
            "recurrent-memory-transformer": recurrent_memory_transformer,
        }
        names = list(builders)
        pairs = [names[i : i + 2] for i in range(0, len(names), 2) if arguments.only in names[i]]
        forms = {name: builders[name]() for pair in pairs for name in pair}
        taken: dict[str, dict[bool, list[float]]] = {name: {False: [], True: []} for name in forms}
        for number in track(range(arguments.rounds + 1), "Rounds"):
            for name, form in forms.items():
                for training in (False, True):
                    start = time.process_time()
                    form(training)
                    if number:
                        taken[name][training].append(1e3 * (time.process_time() - start))
    print(
        f"\nA segment of {LENGTH} tokens, {LAYERS} layers of {WIDTH}, {HEADS} heads, milliseconds, median of "
        f"{arguments.rounds} rounds, in brackets relative to ours:\n\n| form | eval | train |\n|---|---|---|"
    )
    names = list(forms)  # ours, and the peer of each
    for index, name in enumerate(names):
        cells = []
        for training in (False, True):
            own, base = (statistics.median(taken[x][training]) for x in (name, names[index - index % 2]))
            cells.append(f"{own:.0f} ({own / base:.2f})")
        print(f"| {name} | {' | '.join(cells)} |")
    spread = max(max(times) / min(times) for by in taken.values() for times in by.values())
    print(f"\nSlowest round over fastest, at worst: {spread:.2f}")


if __name__ == "__main__":
    main()

"""The command that replays a memory into a language model's weights."""

import time
from pathlib import Path
from typing import Annotated

import typer

from mnemos.cli.language import ModelPath, Namespace, documents_of, memory_of
from mnemos.cli.stores import StorePath
from mnemos.cli.terminal import Json, answering, existing


def register(app: typer.Typer) -> None:
    app.command(epilog="Example: mnemos sleep model notes.memory slept --old texts/")(sleep)


def sleep(
    model: ModelPath,
    store: StorePath,
    slept: Annotated[
        Path, typer.Argument(metavar="SLEPT", help="Folder of the new model, another than MODEL.")
    ],
    old: Annotated[
        list[Path] | None,
        typer.Option(
            help="Text files and folders of what the model knew before; the Python language reference if "
            "none is given."
        ),
    ] = None,
    seconds: Annotated[float, typer.Option(help="How long to sleep.")] = 120.0,
    steps: Annotated[int | None, typer.Option(help="Or how many steps, whichever ends first.")] = None,
    rank: Annotated[
        int | None, typer.Option(help="Learn by LoRA of this rank; all weights if it is not given.")
    ] = None,
    learning_rate: Annotated[float, typer.Option(help="At its highest; it falls by a cosine.")] = 1e-3,
    namespace: Namespace = "default",
    resume: Annotated[bool, typer.Option(help="Go on from where an earlier night was stopped.")] = True,
    seed: Annotated[int, typer.Option(help="Seed of all that is random.")] = 0,
    json: Json = False,
) -> None:
    """Replays a memory into a new model's weights.

    Interleaved with old text, so that it is not forgotten, until the memory can be dropped. Run again, it
    goes on from where it was stopped. MODEL and STORE stay as they are.
    """
    with answering(json) as terminal:
        existing(store, "store")
        if slept.resolve() == model.resolve():
            raise ValueError(f"SLEPT must be another folder than MODEL, to which the memory belongs: {slept}")
        documents = documents_of(old)
        from mnemos.models.checkpoint import load_model
        from mnemos.training import TrainingConfig
        from mnemos.training import sleep as replay

        language_model = load_model(model)
        config = TrainingConfig(steps=steps, seconds=seconds, learning_rate=learning_rate, seed=seed)
        started = time.perf_counter()
        with (
            memory_of(store, language_model, must_exist=True) as memory,
            terminal.progress("sleeping") as advance,
        ):
            night = replay(
                language_model,
                memory,
                documents,
                slept,
                config,
                rank=rank,
                namespace=namespace,
                resume=resume,
                progress=False,
                advance=advance,
            )
        facts = {
            "model": str(slept),
            "fingerprint": night.model.fingerprint,
            "remembered": night.remembered._asdict(),
            "old": night.old._asdict(),
            "seconds": time.perf_counter() - started,
        }
        terminal.show(
            facts,
            f"Slept {facts['seconds']:.0f} s: {slept}\n"
            f"Nats a token: {night.remembered.before:.2f} to {night.remembered.after:.2f} of what is "
            f"remembered, {night.old.before:.2f} to {night.old.after:.2f} of old text.",
        )

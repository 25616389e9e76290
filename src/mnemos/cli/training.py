"""`mnemos train`: a language model on text, or a network with a memory on a task."""

import inspect
import json as json_format
import time
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mnemos.cli import language
from mnemos.cli.terminal import Json, answering

if TYPE_CHECKING:
    from mnemos.models.networks import Recipe
    from mnemos.tasks.task import Task

TASKS = (
    "associative-recall",
    "associative-retrieval",
    "babi",
    "copy",
    "dynamic-n-grams",
    "graph-traversal",
    "induction-heads",
    "key-value-recall",
    "mqar",
    "omniglot",
    "priority-sort",
    "repeat-copy",
    "selective-copying",
    "shortest-path",
)


def register(app: typer.Typer) -> None:
    group = typer.Typer(no_args_is_help=True, rich_markup_mode=None)
    group.command("text", epilog="Example: mnemos train text model texts/ --seconds 120")(language.train)
    group.command("stories", epilog="Example: mnemos train stories run --tasks 1,2")(stories)
    for task in TASKS:
        group.command(task, epilog=f"Example: mnemos train {task} run --memory lstm --steps 2000")(_of(task))
    app.add_typer(group, name="train", help="Trains a language model on text, or a memory on a task.")


def stories(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of the run.")],
    tasks: Annotated[str, typer.Option(help="Of bAbI, 1 to 20, several with commas.")] = "1",
    size: Annotated[str, typer.Option(help="en for 1,000 questions of each task, en-10k for more.")] = "en",
    width: Annotated[int, typer.Option(help="Of the embeddings.")] = 50,
    slots: Annotated[int, typer.Option(help="Sentences that are held, the last ones.")] = 50,
    hops: Annotated[int, typer.Option(help="Times that the story is looked at.")] = 3,
    steps: Annotated[int, typer.Option(help="How many steps to train, earlier ones included.")] = 3000,
    batch_size: Annotated[int, typer.Option(help="Questions in a step.")] = 32,
    learning_rate: Annotated[float, typer.Option(help="At its highest; it falls by a cosine.")] = 5e-3,
    goal: Annotated[float, typer.Option(help="The error on held out stories that is good enough.")] = 0.0,
    resume: Annotated[bool, typer.Option(help="Go on from where an earlier run was stopped.")] = True,
    seed: Annotated[int, typer.Option(help="Seed of all that is random.")] = 0,
    json: Json = False,
) -> None:
    """Trains an end-to-end memory network that answers questions about stories.

    On the bAbI tasks, whose archive is looked for below MNEMOS_DATA, else fetched into ~/.cache/mnemos.
    `mnemos ask RUN` then talks to it. Run again, it goes on from where it was stopped.
    """
    with answering(json) as terminal:
        from mnemos.tasks.babi import babi, encode, hold_out, vocabulary

        numbers = [int(task) for task in tasks.split(",")]
        told = babi(numbers, "train", size=size, download=True)
        words = vocabulary(told)
        learn, choose = (encode(part, words, slots) for part in hold_out(told, seed=seed))
        import torch

        from mnemos.models.answering import answer_error
        from mnemos.models.end_to_end import MemN2N
        from mnemos.models.story import save_answerer
        from mnemos.training.loop import TrainingConfig
        from mnemos.training.stories import train_on_stories

        torch.manual_seed(seed)
        network = MemN2N(len(words), width, slots, hops, longest=learn.sentences.shape[-1])
        config = TrainingConfig(steps, None, batch_size, learning_rate, weight_decay=0.0, seed=seed)
        started = time.perf_counter()
        with terminal.progress("learning stories") as advance:
            error = train_on_stories(
                network, learn, choose, run, config, goal=goal, resume=resume, advance=advance
            )
        save_answerer(run, network, words)
        test = encode(babi(numbers, "test", size=size, download=True), words, slots)
        facts = {
            "run": str(run),
            "questions": len(learn.told),
            "words": len(words) - 1,
            "error": error,
            "test_error": answer_error(network, test),
            "seconds": time.perf_counter() - started,
        }
        terminal.show(
            facts,
            f"{facts['test_error']:.1%} of the test's questions are answered wrongly, {error:.1%} of those "
            f"held out ({facts['seconds']:.0f} s). Talk to it: mnemos ask {run}",
        )


def _of(task: str) -> Callable[..., None]:
    """The command of one task."""

    @wraps(train)
    def command(**given: Any) -> None:
        train(task, **given)

    signature = inspect.signature(train)
    rest = [parameter for name, parameter in signature.parameters.items() if name != "task"]
    command.__signature__ = signature.replace(parameters=rest)  # type: ignore[attr-defined]
    return command


def train(
    task: str,
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of the run.")],
    memory: Annotated[
        str, typer.Option(help="For instance ntm or lstm; a wrong name shows all that there are.")
    ],
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="A size of the task, or an argument of the memory."),
    ] = None,
    hidden_size: Annotated[int, typer.Option(help="Of the controller, or of the layers around.")] = 100,
    steps: Annotated[int, typer.Option(help="How many steps to train, earlier ones included.")] = 10_000,
    seconds: Annotated[float | None, typer.Option(help="Or how long, whichever ends first.")] = None,
    batch_size: Annotated[int, typer.Option(help="Sequences in a step.")] = 16,
    learning_rate: Annotated[float, typer.Option(help="At its highest; it falls by a cosine.")] = 2e-3,
    goal: Annotated[float, typer.Option(help="The error on unseen sequences that is good enough.")] = 0.0,
    patience: Annotated[
        int | None, typer.Option(help="Looks, one every 100 steps, without progress that end the run.")
    ] = None,
    resume: Annotated[bool, typer.Option(help="Go on from where an earlier run was stopped.")] = True,
    seed: Annotated[int, typer.Option(help="Seed of all that is random.")] = 0,
    json: Json = False,
) -> None:
    """Trains a network with a memory on a task.

    Run again, it goes on from where it was stopped. The folder gets the network, its checkpoints, and logs
    for TensorBoard where that is installed.
    """
    with answering(json) as terminal:
        chosen, sizes, recipe = _chosen(task, memory, hidden_size, set_ or [])
        import torch

        from mnemos.models.networks import save_network
        from mnemos.training.loop import TrainingConfig
        from mnemos.training.task import train_on_task

        torch.manual_seed(seed)
        network = recipe.build()
        config = TrainingConfig(steps, seconds, batch_size, learning_rate, weight_decay=0.0, seed=seed)
        started = time.perf_counter()
        with terminal.progress(f"{memory} learns {task}") as advance:
            judged = train_on_task(
                network,
                chosen,
                run,
                config,
                goal=goal,
                patience=patience,
                resume=resume,
                progress=False,
                advance=advance,
            )
        save_network(run, recipe, network, task={"name": task, "sizes": sizes})
        facts = {
            "run": str(run),
            "task": task,
            "memory": memory,
            "parameters": sum(parameter.numel() for parameter in network.parameters()),
            **judged._asdict(),
            "seconds": time.perf_counter() - started,
        }
        terminal.show(
            facts,
            f"{memory} on {task}: {judged.error:.2%} of the answers to unseen sequences are wrong after "
            f"{judged.steps:,} steps ({facts['seconds']:.0f} s, {facts['parameters']:,} parameters): {run}",
        )


def _chosen(
    task: str, memory: str, hidden_size: int, settings: list[str]
) -> "tuple[Task, dict[str, Any], Recipe]":
    """The task with what was set of it, and the network's recipe, which gets the other settings."""
    from mnemos import tasks
    from mnemos.models.networks import Recipe

    given = dict(_setting(text) for text in settings)
    sizes = {name: given.pop(name) for name in tasks.sizes_of(task) & set(given)}
    chosen = tasks.named(task, **sizes)
    return chosen, sizes, Recipe(memory, chosen.input_size, chosen.output_size, hidden_size, given)


def _setting(text: str) -> tuple[str, Any]:
    """NAME=VALUE, where a value is a number, true or false, several of them between commas, or a word."""
    name, equals, value = text.partition("=")
    if not (name and equals and value):
        raise ValueError(f"--set must be NAME=VALUE, not {text!r}")
    try:
        values = json_format.loads(f"[{value}]")
    except ValueError:
        return name, value
    return name, values[0] if len(values) == 1 else tuple(values)

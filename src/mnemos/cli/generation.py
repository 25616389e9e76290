"""`mnemos generate`: a language model goes on from a phrase."""

from typing import Annotated

import typer
from rich.text import Text

from mnemos.cli.language import ModelPath
from mnemos.cli.terminal import Json, answering


def register(app: typer.Typer) -> None:
    app.command(epilog='Example: mnemos generate model "The header is" --tokens 40')(generate)


def generate(
    model: ModelPath,
    phrase: Annotated[str, typer.Argument(metavar="PHRASE", help="How the text begins.")] = "",
    tokens: Annotated[int, typer.Option(min=1, help="How far to go on, in tokens.")] = 64,
    temperature: Annotated[
        float, typer.Option(min=0.0, help="Of the draws; 0 takes the likeliest token each time.")
    ] = 0.8,
    top_p: Annotated[
        float, typer.Option(help="Draws among the likeliest tokens that together have this share.")
    ] = 0.95,
    seed: Annotated[int, typer.Option(help="Seed of the draws.")] = 0,
    json: Json = False,
) -> None:
    """Goes on from a phrase, by the model alone.

    For what a memory adds, see `mnemos recall`.
    """
    with answering(json) as terminal:
        import torch

        from mnemos.models.checkpoint import load_model
        from mnemos.models.generation import generate as go_on
        from mnemos.tasks.text import encode

        network, tokenizer, _ = load_model(model)
        known = torch.cat([torch.tensor([network.start]), encode(tokenizer, phrase).ids])
        said, _ = go_on(
            network,
            known.unsqueeze(0),
            tokens,
            temperature=temperature,
            top_p=top_p,
            generator=torch.Generator().manual_seed(seed),
        )
        continuation = tokenizer.decode([token for token in said[0].tolist() if token != network.start])
        page = Text(phrase)
        page.append(continuation, style="bold blue")
        terminal.show({"phrase": phrase, "continuation": continuation, "tokens": said.shape[1]}, page)

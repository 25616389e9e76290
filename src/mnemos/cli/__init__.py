"""The command line. Every command is thin over a function of the library."""

import typer

from mnemos.cli import demo, generation, language, sleeping, stores, stories, studies, training

app = typer.Typer(
    name="mnemos",
    help="Long-term memory for neural networks: read, recall, correct and forget real text.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,  # plain help, so that docs/commands.md can hold the same text
    pretty_exceptions_show_locals=False,
)
for group in (training, language, sleeping, generation, stories, stores, studies, demo):
    group.register(app)

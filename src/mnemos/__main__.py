"""`python -m mnemos` is the same as `mnemos`."""

from mnemos.cli import app

app(prog_name="mnemos")

# Two commands for everybody: `make run` and `make test`. Both set everything up first, in .venv.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
# One worker per core and one thread per worker: torch's own threads would fight over the same cores.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2
# Where the oldest supported transformers lies, over the newest: one pytest call of `make test` sees it.
OLDEST := .venv/oldest
NOT_SLOW := not slow and not gpu and not server

.PHONY: run test slow gpu bench lint clean

# Threads that wait passively: with anything else on the machine, spinning ones slow everything down tenfold.
run: $(READY)
	OMP_WAIT_POLICY=passive $(BIN)/mnemos demo

test: $(READY) $(OLDEST)/.ready
	$(PYTEST) -m "$(NOT_SLOW) and not compiles"
	JAXTYPING_DISABLE=1 $(PYTEST) -m "$(NOT_SLOW) and compiles"
	PYTHONPATH=$(OLDEST):$$PYTHONPATH $(PYTEST) tests/models/hugging_face

slow: $(READY)
	OMP_NUM_THREADS=2 $(BIN)/python -m pytest -m "slow and not compiles" -s --timeout 3600
	JAXTYPING_DISABLE=1 $(BIN)/python -m pytest -m "slow and compiles" --timeout 3600

gpu: $(READY)
	$(BIN)/python -m pip install -q -c constraints.txt -e ".[cuda]"
	JAXTYPING_DISABLE=1 $(BIN)/python -m pytest -m gpu --timeout 600

bench: $(READY)
	$(BIN)/pip install -q -c constraints.txt -r benchmarks/requirements.txt
	$(BIN)/pip install -q --no-deps memorizing-transformers-pytorch==0.4.1
	$(BIN)/python benchmarks/store.py
	$(BIN)/python benchmarks/delta_rule.py
	$(BIN)/python benchmarks/product_key.py
	$(BIN)/python benchmarks/hopfield.py
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/sdm.py
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/recurrent_memory.py
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/sparse_access.py
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/segment_memory.py
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/archive.py
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/test_time_memory.py
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/atlas.py
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/state_space.py
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/replay.py

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11) and 'mnemos needs Python 3.11 or newer')"
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -q -c constraints.txt -e ".[dev]"
	touch $(READY)

$(OLDEST)/.ready: $(READY) constraints-oldest.txt
	rm -rf $(OLDEST)
	$(BIN)/python -m pip install -q --no-deps --target $(OLDEST) -r constraints-oldest.txt
	touch $@

clean:
	rm -rf .venv

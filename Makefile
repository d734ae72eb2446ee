# `make run` starts the app, `make test` checks it, `make demos` brings the picture studies; each builds .venv first
# and starts at once the next time.
PYTHON ?= python3
BIN := .venv/bin

# Everything is installed from locks/, each file by its hash. Without an NVIDIA card, Linux gets the small CPU build of
# torch where its index can be reached; that build has hashes of its own, so it is held by its version alone.
CARD := $(shell test "$$(uname)" != Linux -o -e /dev/nvidiactl -o -e /proc/driver/nvidia && echo yes)
UV := $(BIN)/uv pip install --quiet --compile-bytecode --no-deps --python $(BIN)/python
LOCKED := $(UV) --require-hashes -r locks
TORCH := $(shell grep -oE '^torch(vision)?==[0-9.]+' locks/torch.txt)

.PHONY: run demos test lint lock audit mutants clean
run: .venv/run.done
	$(BIN)/python app.py

# Demonstration weights of the four picture studies, from simulated pictures: some 25 minutes on two cores.
demos: .venv/test.done
	$(BIN)/python demos.py

test: .venv/test.done
	$(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile

lint: .venv/test.done
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# The locks and the table of licences anew, after a version was changed in a file of requirements.
lock: .venv/uv.done
	$(BIN)/python -m tools.locks
	$(MAKE) .venv/test.done
	$(BIN)/python -m tools.licences

audit: .venv/uv.done
	cat locks/*.txt >.venv/all.txt
	$(BIN)/uv tool run pip-audit --disable-pip --require-hashes -r .venv/all.txt

mutants: .venv/test.done
	$(BIN)/python -m tools.mutants

.venv/uv.done: locks/uv.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --require-hashes -r locks/uv.txt
	@touch $@

.venv/run.done: locks/run.txt locks/torch.txt .venv/uv.done
	$(LOCKED)/run.txt
	$(if $(CARD),,$(UV) --torch-backend=auto $(TORCH) 2>/dev/null ||) $(LOCKED)/torch.txt
	@touch $@

.venv/test.done: locks/dev.txt locks/ray.txt .venv/run.done
	$(LOCKED)/ray.txt
	$(LOCKED)/dev.txt
	@touch $@

clean:
	rm -rf .venv

# `make run` starts the app, `make test` checks it; both build .venv first and start at once the next time.
PYTHON ?= python3
BIN := .venv/bin

# Without an NVIDIA card, Linux gets the small CPU build of torch where its index can be reached.
CARD := $(shell test -e /dev/nvidiactl -o -e /proc/driver/nvidia && echo yes)
UV := $(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python

.PHONY: run test lint clean
run: .venv/run.done
	$(BIN)/python app.py

test: .venv/test.done
	$(BIN)/python -m pytest

lint: .venv/test.done
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

.venv/uv.done:
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet uv
	@touch $@

.venv/run.done: requirements.txt .venv/uv.done
	$(if $(CARD),,$(UV) --torch-backend=auto -r requirements.txt 2>/dev/null ||) $(UV) -r requirements.txt
	@touch $@

.venv/test.done: requirements-dev.txt .venv/run.done
	$(UV) -r requirements-dev.txt
	@touch $@

clean:
	rm -rf .venv

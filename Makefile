# `make chat` runs the main job, `make test` passes the tests; both work on a fresh machine with
# Python 3.11+ and a C compiler (the linker of compiled model libraries).
PYTHON ?= python3
VENV ?= .venv
MODEL ?= smollm2-135m
QUANTIZATION ?= q0f32
MODEL_DIR ?= models/$(MODEL)-$(QUANTIZATION)
PLAN ?= $(MODEL)-r20
# Greedy: a model this small loses the thread when its tokens are drawn at random.
CHAT_FLAGS ?= --temperature 0
export PROMPT

SHADOWATTN = $(VENV)/bin/shadowattn
READY = $(VENV)/.ready

.PHONY: venv chat test lint

venv: $(READY)

$(READY): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/pip install --quiet --disable-pip-version-check --editable '.[calibrate,report,dev]'
	touch $@

# Fetched, converted and compiled once; afterwards this is an instant start.
chat: $(READY) $(MODEL_DIR)/mlc-chat-config.json
	$(SHADOWATTN) chat $(MODEL_DIR) --shadow-attn $(PLAN) $(CHAT_FLAGS) $(if $(PROMPT),--prompt "$$PROMPT")

$(MODEL_DIR)/mlc-chat-config.json: | $(READY)
	weights="$$($(SHADOWATTN) fetch $(MODEL))" && \
	$(SHADOWATTN) convert_weight "$$weights" --quantization $(QUANTIZATION) -o $(MODEL_DIR)

test: $(READY)
	$(VENV)/bin/python -m pytest

lint: $(READY)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports

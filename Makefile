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
SHELL = bash

SHADOWATTN = $(VENV)/bin/shadowattn
READY = $(VENV)/.ready

# Public texts, taken out of Debian packages without installing them: package, file, name here.
TEXTS ?= texts
CALIBRATION_TEXTS = \
  debian-policy:usr/share/doc/debian-policy/policy.txt.gz:debian-policy.txt \
  debian-faq:usr/share/doc/debian/FAQ/debian-faq.en.txt.gz:debian-faq.txt \
  git-doc:usr/share/doc/git-doc/user-manual.txt:git-user-manual.txt \
  fortunes:usr/share/games/fortunes/songs-poems:songs-and-poems.txt \
  fortunes:usr/share/games/fortunes/science:science.txt
HELD_OUT_TEXTS = \
  jargon-text:usr/share/doc/jargon-text/jargon.txt.gz:jargon.txt \
  debian-reference-en:usr/share/debian-reference/debian-reference.en.txt.gz:debian-reference.txt \
  developers-reference:usr/share/developers-reference/developers-reference.txt.gz:developers-reference.txt \
  debian-policy:usr/share/doc/debian-policy/fhs/fhs-3.0.txt.gz:filesystem-hierarchy.txt

# What the emulated Hexagon takes: QEMU, and a compiler and a linker for it.
HEXAGON_PACKAGES = qemu-user clang-19 lld-19
HEXAGON_TOOLS = qemu-hexagon clang-19 ld.lld-19

.PHONY: venv chat test lint texts devices arm-device hexagon-device opencl-device

venv: $(READY)

$(READY): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/pip install --quiet --disable-pip-version-check --editable '.[calibrate,report,tune,dev]'
	touch $@

# What the suites of phones' kernels run on; without it they skip.
opencl-device: $(READY)
	$(VENV)/bin/pip install --quiet --disable-pip-version-check --editable '.[devices]'

# Fetched, converted and compiled once; afterwards this is an instant start.
chat: $(READY) $(MODEL_DIR)/mlc-chat-config.json
	$(SHADOWATTN) chat $(MODEL_DIR) --shadow-attn $(PLAN) $(CHAT_FLAGS) $(if $(PROMPT),--prompt "$$PROMPT")

$(MODEL_DIR)/mlc-chat-config.json: | $(READY)
	weights="$$($(SHADOWATTN) fetch $(MODEL))" && \
	$(SHADOWATTN) convert_weight "$$weights" --quantization $(QUANTIZATION) -o $(MODEL_DIR)

# One thread a worker: pools of two workers would wait for each other on the same cores. A file's
# tests share what they compile, so one worker runs them; tests/conftest.py orders the files.
test: $(READY)
	TVM_NUM_THREADS=1 OMP_NUM_THREADS=1 $(VENV)/bin/python -m pytest --numprocesses 2 --dist loadgroup --no-loadscope-reorder

lint: $(READY)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports

# Everything that tests on emulated devices take, made once. Only Debian packages that are missing
# are installed, which takes root.
devices: arm-device hexagon-device opencl-device

AS_ROOT = $(if $(filter 0,$(shell id -u)),,sudo) env DEBIAN_FRONTEND=noninteractive
ARM_PACKAGES = qemu-aarch64:qemu-user aarch64-linux-gnu-ld:binutils-aarch64-linux-gnu

arm-device: $(READY)
	set -e; missing=; for entry in $(ARM_PACKAGES); do \
	  IFS=: read -r tool package <<< "$$entry"; \
	  command -v "$$tool" > /dev/null || missing="$$missing $$package"; \
	done; \
	test -z "$$missing" || $(AS_ROOT) apt-get install -y -qq --no-install-recommends $$missing
	$(SHADOWATTN) device arm make

# $(TEXTS)/calibration and $(TEXTS)/held-out; needs apt and nothing else, not even root.
texts: $(TEXTS)/.ready

$(TEXTS)/.ready:
	set -e; work="$$(mktemp -d)"; trap 'rm -rf "$$work"' EXIT; mkdir -p $(TEXTS)/calibration $(TEXTS)/held-out; \
	for entry in $(CALIBRATION_TEXTS:%=calibration:%) $(HELD_OUT_TEXTS:%=held-out:%); do \
	  IFS=: read -r folder package file name <<< "$$entry"; \
	  test -d "$$work/$$package" || \
	    (cd "$$work" && apt-get download -qq "$$package" && dpkg-deb -x "$$package"_*.deb "$$package"); \
	  gzip -dcf "$$work/$$package/$$file" > "$(TEXTS)/$$folder/$$name"; \
	done
	touch $@

# Everything that the device suites of the tests take; a suite skips where its part is missing.
hexagon-device:
	@command -v $(HEXAGON_TOOLS) > /dev/null && test "$$(command -v $(HEXAGON_TOOLS) | wc -l)" = 3 || \
	  { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq $(HEXAGON_PACKAGES); }

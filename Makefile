# nibble: one program per phase at the top, everything else under build/.
## make            every phase and tool, and what was left out
## make phaseN     one phase; then ./phaseN --help
## make demo       the main job on the bundled model: FP16, INT8 and INT4 side by side
## make reproduce  every figure of the tables, here and as committed
## make test       the tests (both install what is missing first)
## make test-arm the kernels' tests for ARM, and phase1 on older CPUs, under emulators
## make san        the tests under AddressSanitizer and UBSan
## make fuzz       the parsers' fuzz targets, FUZZ_SECONDS each (60)
## make bench      the kernels' speed, beside this machine's limits
## make results    the tables and charts in results/ and the write-ups that show them
## make docs       expand code and tables in the write-ups; make docs-check: fail if they drifted
## make data       write the bundled texts and tokenizer again; make train: the bundled model, in one to three hours
## make synth SHAPE=qwen2.5-3b    a synthetic checkpoint of that shape under data/synth/
## make setup      install what is missing; make format: clang-format; make clean
## V=1 shows whole commands, BUILD=folder builds elsewhere

BUILD ?= build
PKGS := libcjson libpcre2-8 libutf8proc libcurl libcrypto
PKG_CONFIG ?= pkg-config

# No -ffast-math anywhere: it deletes isnan. No -march: kernels choose at run time. ARM always has fused
# multiply-adds, which round differently: only kernels/cpu/simd.h asks for them.
CFLAGS ?= -O3 -g
FUSE := $(if $(filter aarch64%,$(shell $(CC) -dumpmachine 2>/dev/null)),-ffp-contract=off)
WARN := -Wall -Wextra -Wpedantic -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wno-psabi -Werror
ALL_CFLAGS = -std=gnu11 -D_GNU_SOURCE $(WARN) -fopenmp -Icommon -I. -MMD -MP $(PKG_CFLAGS) $(CFLAGS) $(FUSE) \
	$(EXTRA_CFLAGS)
PKG_CFLAGS := $(shell $(PKG_CONFIG) --cflags $(PKGS) 2>/dev/null)
LIBS = $(shell $(PKG_CONFIG) --libs $(PKGS)) -lstb -lm -fopenmp

LIB_SOURCES := $(sort $(wildcard common/*/*.c kernels/cpu/*.c kernels/cpu/*/*.c))
LIB_OBJECTS := $(LIB_SOURCES:%.c=$(BUILD)/obj/%.o)
LIB := $(BUILD)/libnibble.a

# kernels/cuda/*.cu are compiled twice: as C++ with the emulator, everywhere, and by nvcc where it is
# found. The emulator throws nothing and needs no C++ library. GCC's race instrumentation calls
# emulate_race.cc, not ThreadSanitizer; it cannot be had together with AddressSanitizer's (make san).
CUDA_ARCHS ?= 80 86 89 90a
NVCC ?= $(shell command -v nvcc)
CUDA_HOME := $(if $(NVCC),$(patsubst %/bin/,%,$(dir $(realpath $(NVCC)))))
CUDA_SOURCES := $(sort $(wildcard kernels/cuda/kernel*.cu kernels/cuda/op_*.cu))
EMULATOR_FLAGS = -std=c++17 -I. -MMD -MP -Wall -Wextra -Wshadow -Werror -Wno-unknown-pragmas -fno-exceptions \
	-fno-rtti -fno-threadsafe-statics $(CFLAGS) -O1 $(EXTRA_CFLAGS) \
	$(if $(findstring -fsanitize,$(EXTRA_CFLAGS)),,-fsanitize=thread)
# Kernel 10's instructions exist in sm_90a alone; plain sm_90, for the same cards, lacks them.
NVCC_FLAGS = -std=c++17 -O3 -I. -Xcompiler -Wall,-Wextra $(foreach a,$(CUDA_ARCHS),-gencode arch=compute_$(a),code=sm_$(a)) \
	$(if $(filter 90a,$(CUDA_ARCHS)),-DNIBBLE_SM_90A)
CUDA_LIB := $(BUILD)/libnibble-cuda$(if $(NVCC),,-without-nvcc).a
CUDA_OBJECTS := $(patsubst %,$(BUILD)/obj/kernels/cuda/%.o,ref pack attend emulate_race $(if $(NVCC),,no_device)) \
	$(CUDA_SOURCES:%.cu=$(BUILD)/obj/%.emulated.o) $(BUILD)/obj/kernels/cuda/emulator.emulated.o \
	$(if $(NVCC),$(CUDA_SOURCES:%.cu=build/cuda/%.o) build/cuda/kernels/cuda/device.o)
CUDA_LIBS = $(if $(NVCC),-L$(CUDA_HOME)/lib64 -lcudart_static -ldl -lrt -lpthread -lstdc++)

PHASE_FOLDERS := $(sort $(wildcard phases/phase*))
PHASES := $(foreach d,$(PHASE_FOLDERS),$(firstword $(subst _, ,$(notdir $(d)))))
# Parts of tools that tests reach too.
TOOL_PARTS := $(patsubst %.c,$(BUILD)/obj/%.o,$(sort $(wildcard tools/*/*.c)))
TOOLS := $(patsubst tools/%.c,$(BUILD)/tools/%,$(sort $(wildcard tools/*.c)))
TEST_SOURCES := $(sort $(wildcard tests/*.c))
TEST_OBJECTS := $(TEST_SOURCES:%.c=$(BUILD)/obj/%.o) \
	$(patsubst %.cu,$(BUILD)/obj/%.emulated.o,$(sort $(wildcard tests/*.cu)))
# What is tested under an ARM emulator: nothing that needs a library of others.
ARM_CC ?= aarch64-linux-gnu-gcc
BARE_SOURCES := tests/bare/main.c $(patsubst %,tests/test_%.c,compare core kernels matmul matmul_i8 weave \
	attention woven ladder) $(sort $(wildcard kernels/cpu/*.c kernels/cpu/*/*.c common/core/*.c common/quant/*.c))
FUZZERS := $(patsubst tests/fuzz/%.c,%,$(sort $(wildcard tests/fuzz/fuzz_*.c)))
FUZZ_SECONDS ?= 60
DOCS := README.md ROADMAP.md data/README.md $(sort $(wildcard notebooks-md/*.md))
SHAPE ?= qwen2.5-3b
# Every test that is written must have run or been skipped.
MIN_TESTS := $(shell cat tests/test_*.c | grep -c '^Test.[a-z0-9_]*, ')

Q := $(if $(V),,@)
say = $(if $(V),,@echo "  $(1)")

.DELETE_ON_ERROR:
.PHONY: all setup demo reproduce test test-arm san data train fuzz bench results docs docs-check synth clean help format tools \
	check-libraries
# Objects are kept: make would call those behind a pattern chain intermediate and delete them.
.SECONDARY:

all: check-libraries
	@$(MAKE) --no-print-directory $(PHASES) tools
	@echo "built: $(PHASES)"
	@tools/optional.sh

# The set-up runs in the targets a newcomer types first; `make` alone only checks.
setup:
	@tools/setup.sh

check-libraries:
	@$(PKG_CONFIG) --exists $(PKGS) || { echo "make: libraries are missing: run make setup" >&2; exit 1; }

$(BUILD)/obj/%.o: %.c
	@mkdir -p $(@D)
	$(call say,CC    $<)
	$(Q)$(CC) $(ALL_CFLAGS) -c $< -o $@

$(BUILD)/obj/%.emulated.o: %.cu
	@mkdir -p $(@D)
	$(call say,CXX   $<)
	$(Q)$(CXX) -x c++ $(EMULATOR_FLAGS) -c $< -o $@

$(BUILD)/obj/kernels/cuda/emulate_race.o: kernels/cuda/emulate_race.cc
	@mkdir -p $(@D)
	$(call say,CXX   $<)
	$(Q)$(CXX) $(filter-out -fsanitize=%,$(EMULATOR_FLAGS)) -c $< -o $@

# The same for every BUILD: sanitizers don't reach the GPU.
build/cuda/%.o: %.cu
	@mkdir -p $(@D)
	$(call say,NVCC  $<)
	$(Q)$(NVCC) $(NVCC_FLAGS) -MMD -MP -MF $(@:.o=.d) -c $< -o $@

$(CUDA_LIB): $(CUDA_OBJECTS)
	@rm -f $@
	$(Q)$(AR) rcs $@ $^

$(LIB): $(LIB_OBJECTS)
	@rm -f $@
	$(Q)$(AR) rcs $@ $^

define phase_rule
$(1): $(patsubst %.c,$(BUILD)/obj/%.o,$(sort $(wildcard phases/$(1)_*/*.c))) $(LIB) $(CUDA_LIB)
	$$(call say,LINK  $$@)
	$$(Q)$$(CC) $$(ALL_CFLAGS) $$^ $$(LIBS) $$(CUDA_LIBS) -o $$@
endef
$(foreach p,$(PHASES),$(eval $(call phase_rule,$(p))))

tools: $(TOOLS)
$(BUILD)/tools.a: $(TOOL_PARTS)
	@rm -f $@
	$(Q)$(AR) rcs $@ $^

$(BUILD)/tools/%: $(BUILD)/obj/tools/%.o $(BUILD)/tools.a $(LIB) $(CUDA_LIB)
	@mkdir -p $(@D)
	$(call say,LINK  $@)
	$(Q)$(CC) $(ALL_CFLAGS) $^ $(LIBS) $(CUDA_LIBS) -o $@

$(BUILD)/nibble-tests: $(TEST_OBJECTS) $(BUILD)/tools.a $(LIB) $(CUDA_LIB)
	$(call say,LINK  $@)
	$(Q)$(CC) $(ALL_CFLAGS) $^ $(LIBS) $(CUDA_LIBS) -lcriterion -o $@

# Its figures are computed, so they equal the committed ones wherever it runs; speeds do not.
DEMO := --limit 16384 --questions 100 --prompt "Victor was given eight figs at the post office." \
	--max-tokens 40
demo: setup
	@$(MAKE) --no-print-directory -j$$(nproc) phase3 $(BUILD)/tools/figures $(BUILD)/tools/reproduce >&2
	@rm -rf $(BUILD)/demo && mkdir -p $(BUILD)/demo
	@./phase3 $(DEMO) --csv $(BUILD)/demo/phase3.csv
	@$(BUILD)/tools/figures data/model $(BUILD)/demo >&2
	@$(BUILD)/tools/reproduce --brief results/bundled/demo.csv $(BUILD)/demo/phase3.csv || \
		echo "make reproduce shows every figure" >&2

# Every figure of the bundled model's tables, measured here and beside the committed one.
reproduce: setup
	@$(MAKE) --no-print-directory -j$$(nproc) phase3 $(BUILD)/tools/reproduce >&2
	@rm -rf $(BUILD)/reproduce && mkdir -p $(BUILD)/reproduce
	@./phase3 --bench --csv $(BUILD)/reproduce/phase3.csv >/dev/null
	@$(BUILD)/tools/reproduce results/bundled/phase3.csv $(BUILD)/reproduce/phase3.csv

test: setup
	@$(MAKE) --no-print-directory -j$$(nproc) $(BUILD)/nibble-tests $(PHASES) tools
	@$(MAKE) --no-print-directory docs-check
	@tests/run.sh $(BUILD)/nibble-tests $(MIN_TESTS)

check: test

# -Itests/bare: a Criterion of a few lines. What the linker leaves out may call what is not there.
test-arm: phase1
	@if command -v $(ARM_CC) >/dev/null; then $(MAKE) --no-print-directory -j$$(nproc) BUILD=build/arm \
		CC="$(if $(findstring ccache,$(CC)),ccache )$(ARM_CC)" PKG_CFLAGS= \
		EXTRA_CFLAGS="-Itests/bare -Wno-pedantic -Wno-format-zero-length -ffunction-sections" \
		build/arm/bare-tests; fi
	@tests/emulated.sh build/arm/bare-tests ./phase1

# Static, for emulators without a folder of libraries; the OpenMP library's warning about that is not ours.
$(BUILD)/bare-tests: $(BARE_SOURCES:%.c=$(BUILD)/obj/%.o)
	$(call say,LINK  $@)
	$(Q)$(CC) $(ALL_CFLAGS) $^ -static -Wl,--gc-sections -Wl,--no-warnings -lm -fopenmp -o $@

# -O1: sanitized -O3 kernels take minutes to compile and find no more. Tests of whole programs run them as users have
# them, which is why those must be there.
san: setup
	@$(MAKE) --no-print-directory -j$$(nproc) $(PHASES)
	@$(MAKE) --no-print-directory -j$$(nproc) BUILD=build/san CFLAGS="-O1 -g" \
		EXTRA_CFLAGS="-fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer -Wno-format-truncation" \
		build/san/nibble-tests
	@tests/run.sh build/san/nibble-tests $(MIN_TESTS)

# Loops with sanitizers' checks in them are not vectorized, which clang would report as an error.
fuzz:
	@tools/setup.sh --fuzz
	@$(MAKE) --no-print-directory -j$$(nproc) BUILD=build/fuzz CC=clang CFLAGS="-O1 -g" \
		EXTRA_CFLAGS="-fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=all -Wno-pass-failed" \
		$(FUZZERS:%=build/fuzz/%)
	@for f in $(FUZZERS); do tests/fuzz/run.sh build/fuzz/$$f $(FUZZ_SECONDS) || exit 1; done

$(BUILD)/fuzz_%: $(BUILD)/obj/tests/fuzz/fuzz_%.o $(LIB)
	$(call say,LINK  $@)
	$(Q)$(CC) $(ALL_CFLAGS) -fsanitize=fuzzer $^ $(LIBS) -o $@

bench: tools
	tools/results.sh kernels
	$(BUILD)/tools/bench_train

results: all
	tools/results.sh
	@$(MAKE) --no-print-directory docs

docs: $(BUILD)/tools/expand
	$(BUILD)/tools/expand $(DOCS)

docs-check: $(BUILD)/tools/expand
	$(BUILD)/tools/expand --check $(DOCS)

# The same bytes on every machine; data/README.md tells what they are.
data: $(BUILD)/tools/make_stories $(BUILD)/tools/train_tokenizer
	@mkdir -p data/train data/model
	$(BUILD)/tools/make_stories --bytes 24MB --out data/train/tokenizer.txt
	$(BUILD)/tools/train_tokenizer --text data/train/tokenizer.txt --vocab 2048 --out data/model/tokenizer.json
	$(BUILD)/tools/make_stories --eval --out data/eval.txt
	$(BUILD)/tools/make_stories --calib --out data/calib.txt
	$(BUILD)/tools/make_stories --choices 600 --out data/choices.jsonl

# The bundled model, in two runs that go on where they were stopped: first parts of stories with all
# that can be asked about them, every kind of fact as often as the others; then whole stories, cut
# anywhere, as the evaluation reads them, half of them with all their facts asked. Waiting threads
# sleep: they have long to wait at a barrier when something else runs.
TRAIN := OMP_WAIT_POLICY=passive $(BUILD)/tools/train --config tools/bundled-model.json \
	--tokenizer data/model --seed 1 --resume
TRAINERS := $(BUILD)/tools/make_stories $(BUILD)/tools/train tools/bundled-model.json
data/train/first/model.safetensors: | $(TRAINERS)
	@mkdir -p data/train
	$(BUILD)/tools/make_stories --parts --balanced --facts all --bytes 100MB --out data/train/parts.txt
	$(TRAIN) --data data/train/parts.txt --documents --first-lines 0.4 --tokens 24000000 \
		--context 320 --batch 10 --micro-batch 10 --lr 0.0008 --min-lr 0.00024 --muon 0.002 \
		--warmup 150 --snapshot 100 --state data/train/first.state \
		--log results/train-first.csv --out data/train/first

data/train/model/model.safetensors: data/train/first/model.safetensors | $(TRAINERS)
	$(BUILD)/tools/make_stories --bytes 25MB --out data/train/stories.txt
	$(BUILD)/tools/make_stories --balanced --facts all --seed 5 --bytes 25MB --out data/train/asked.txt
	cat data/train/asked.txt >>data/train/stories.txt
	$(TRAIN) --init data/train/first --data data/train/stories.txt --valid data/eval.txt \
		--tokens 8000000 --context 512 --batch 8 --lr 0.00024 --min-lr 0 --muon 0.0006 \
		--warmup 50 --snapshot 250 --state data/train/model.state --log results/train.csv --out data/train/model

train: data/train/model/model.safetensors $(BUILD)/tools/outliers
	rm -rf data/train/bundled
	$(BUILD)/tools/outliers --add data/train/model data/train/bundled
	cp data/train/bundled/* data/model/
	@echo "To train again from random weights, remove data/train/first and data/train/model."

synth: $(BUILD)/tools/synth
	$(BUILD)/tools/synth $(SHAPE) data/synth/$(SHAPE)

format:
	clang-format -i $$(git ls-files '*.c' '*.h')

clean:
	rm -rf $(BUILD) $(PHASES)

help:
	@sed -n 's/^## //p' Makefile

-include $(shell find $(BUILD) -name '*.d' 2>/dev/null)

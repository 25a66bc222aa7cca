# nibble: one program per phase at the top, everything else under build/.
#
#   make            every phase, and what was left out
#   make phase2     one phase            make test    the tests (installs what they need)
#   make demo       the main job         make help    all targets

BUILD ?= build
CC ?= gcc
PKGS := libcjson libpcre2-8 libutf8proc libcurl libcrypto
PKG_CONFIG ?= pkg-config

# No -ffast-math anywhere: it deletes isnan. -march stays generic: kernels choose at run time.
CFLAGS ?= -O3 -g
WARN := -Wall -Wextra -Wpedantic -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wno-psabi -Werror
ALL_CFLAGS = -std=gnu11 -D_GNU_SOURCE $(WARN) -fopenmp -Icommon -I. -MMD -MP \
	$(shell $(PKG_CONFIG) --cflags $(PKGS)) $(CFLAGS) $(EXTRA_CFLAGS)
LIBS = $(shell $(PKG_CONFIG) --libs $(PKGS)) -lstb -lm -fopenmp

LIB_SOURCES := $(sort $(wildcard common/*/*.c kernels/cpu/*.c))
LIB_OBJECTS := $(LIB_SOURCES:%.c=$(BUILD)/%.o)
LIB := $(BUILD)/libnibble.a
PHASE_FOLDERS := $(sort $(wildcard phases/phase*))
PHASES := $(foreach d,$(PHASE_FOLDERS),$(firstword $(subst _, ,$(notdir $(d)))))
TOOLS := $(patsubst tools/%.c,$(BUILD)/tools/%,$(sort $(wildcard tools/*.c)))
TEST_SOURCES := $(sort $(wildcard tests/*.c))
TEST_OBJECTS := $(TEST_SOURCES:%.c=$(BUILD)/%.o)
FUZZERS := $(patsubst tests/fuzz/%.c,%,$(sort $(wildcard tests/fuzz/fuzz_*.c)))
# `make V=1` shows whole commands.
Q := $(if $(V),,@)
say = $(if $(V),,@echo "  $(1)")

# A filter that matches nothing, or a file that lost its tests, must not pass for success.
MIN_TESTS := 1

.DELETE_ON_ERROR:
.PHONY: all setup demo test san fuzz bench results docs docs-check synth clean help format tools \
	check-libraries

all: check-libraries $(PHASES) tools
	@echo "built: $(PHASES)"
	@tools/optional.sh

# The set-up is for targets a newcomer types first; `make` alone only checks.
setup:
	@tools/setup.sh

check-libraries:
	@$(PKG_CONFIG) --exists $(PKGS) || { echo "make: missing libraries: run tools/setup.sh" >&2; exit 1; }

$(BUILD)/%.o: %.c
	@mkdir -p $(@D)
	$(call say,CC    $<)
	$(Q)$(CC) $(ALL_CFLAGS) -c $< -o $@

$(LIB): $(LIB_OBJECTS)
	@rm -f $@
	$(Q)$(AR) rcs $@ $^

define phase_rule
$(1): $(patsubst %.c,$(BUILD)/%.o,$(sort $(wildcard phases/$(1)_*/*.c))) $(LIB)
	$$(call say,LINK  $$@)
	$$(Q)$$(CC) $$(ALL_CFLAGS) $$^ $$(LIBS) -o $$@
endef
$(foreach p,$(PHASES),$(eval $(call phase_rule,$(p))))

tools: $(TOOLS)
$(BUILD)/tools/%: $(BUILD)/tools/%.o $(LIB)
	$(call say,LINK  $@)
	$(Q)$(CC) $(ALL_CFLAGS) $^ $(LIBS) -o $@

$(BUILD)/nibble-tests: $(TEST_OBJECTS) $(LIB)
	$(call say,LINK  $@)
	$(Q)$(CC) $(ALL_CFLAGS) $^ $(LIBS) -lcriterion -o $@

# Criterion prints to stderr and hides skips; count what ran.
test: setup
	@$(MAKE) --no-print-directory -j$$(nproc) $(BUILD)/nibble-tests $(PHASES) tools
	@tests/run.sh $(BUILD)/nibble-tests $(MIN_TESTS)

clean:
	rm -rf $(BUILD) $(PHASES)

help:
	@sed -n 's/^## //p' Makefile

-include $(shell find $(BUILD) -name '*.d' 2>/dev/null)

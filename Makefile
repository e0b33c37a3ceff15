# sluice: make demo, make check, make install. See README.md.

VARIANT ?= release
BUILD   ?= build$(if $(filter release,$(VARIANT)),,/$(VARIANT))
PREFIX  ?= /usr/local
CC      ?= gcc
VERSION := 0.1.0

PKGS   := liburing wolfssl libcjson libxxhash libcyaml
CFLAGS_release := -O2 -g
CFLAGS_debug   := -O0 -g3
CFLAGS_asan    := -O1 -g3 -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer
CFLAGS_tsan    := -O1 -g3 -fsanitize=thread -fno-omit-frame-pointer
CFLAGS_fuzz    := -O1 -g3 -fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=all
ifeq ($(VARIANT),fuzz)
CC := clang
endif

# Left unset until the packages are there, so that `make demo` can install them first.
PKG_CFLAGS = $(shell pkg-config --cflags $(PKGS) 2>/dev/null)
PKG_LIBS   = $(shell pkg-config --libs $(PKGS) 2>/dev/null)
ALL_CFLAGS = -std=gnu17 -D_GNU_SOURCE -DSLUICE_VERSION='"$(VERSION)"' -Wall -Wextra -Werror \
	-pthread -Ilib -Idaemon $(PKG_CFLAGS) $(CFLAGS_$(VARIANT)) $(CFLAGS)

lib_src    := $(wildcard lib/*.c)
daemon_src := $(wildcard daemon/*.c)
client_src := $(wildcard client/*.c)
bench_src  := $(wildcard bench/*.c)
unit_src   := $(wildcard tests/unit/test_*.c)
fuzz_src   := $(wildcard tests/fuzz/fuzz_*.c)

obj = $(patsubst %.c,$(BUILD)/obj/%.o,$(1))
unit_bin := $(patsubst tests/unit/%.c,$(BUILD)/unit/%,$(unit_src))
fuzz_bin := $(patsubst tests/fuzz/%.c,$(BUILD)/fuzz/%,$(fuzz_src))
programs := $(BUILD)/sluiced $(BUILD)/sluice $(BUILD)/sluice-bench

.PHONY: all demo check unit e2e fuzz-replay deps lint install uninstall clean
.DELETE_ON_ERROR:

all: deps
	@$(MAKE) --no-print-directory programs VARIANT=$(VARIANT)

.PHONY: programs
programs: $(programs)

$(BUILD)/obj/%.o: %.c
	@mkdir -p $(@D)
	$(CC) $(ALL_CFLAGS) -MMD -MP -c -o $@ $<

$(BUILD)/libsluice.a: $(call obj,$(lib_src))
	@rm -f $@
	ar rcs $@ $^

$(BUILD)/sluiced: $(call obj,$(daemon_src)) $(BUILD)/libsluice.a
	$(CC) $(ALL_CFLAGS) -o $@ $^ $(PKG_LIBS)

$(BUILD)/sluice: $(call obj,$(client_src)) $(BUILD)/libsluice.a
	$(CC) $(ALL_CFLAGS) -o $@ $^ $(PKG_LIBS)

$(BUILD)/sluice-bench: $(call obj,$(bench_src)) $(BUILD)/libsluice.a
	$(CC) $(ALL_CFLAGS) -o $@ $^ $(PKG_LIBS)

# Unit tests: one criterion program per file of lib/ (and per pure file of daemon/).
$(BUILD)/unit/%: tests/unit/%.c $(BUILD)/libsluice.a
	@mkdir -p $(@D)
	$(CC) $(ALL_CFLAGS) -MMD -MP -MF $@.d -o $@ $(filter %.c %.o %.a,$^) $(PKG_LIBS) -lcriterion

clean:
	rm -rf build

-include $(shell find $(BUILD) -name '*.d' 2>/dev/null)

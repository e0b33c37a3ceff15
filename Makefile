# sluice: make demo, make check, make install. See README.md.
#
#   make             the three programs, into build/
#   make demo        build, start a daemon, upload a file, show it
#   make check       everything that is tested: unit tests, fuzz corpus, end to end
#   make unit, make fuzz-replay, make e2e     its parts
#   make sim SEEDS=n [FIRST=seed]             the daemon in a simulated world, n times; also a part
#   make fuzz-run SECONDS=600                 fuzz every parser that long
#   make fault ROUNDS=100                     kills, crashes, full disks for real; parts of it need root, and QEMU
#   make bench CASES="bars matrix" RUNS=7     measure, beside the floors of this machine; WORK=DIR on that disk
#   make bench-peers, make bench-figures      other servers under the same bytes; both as bench/figures.svg
#   make coverage     which lines of lib/ and daemon/ all that runs, and which it does not
#   make lint, make install, make uninstall, make clean
#
# VARIANT=debug|asan|tsan|fuzz|cov builds into build/VARIANT/. Missing Debian packages are installed when we
# may; otherwise the one command that does it is printed.

VARIANT ?= release
BUILD   ?= build$(if $(filter release,$(VARIANT)),,/$(VARIANT))
PREFIX  ?= /usr/local
ifeq ($(origin CC),default)
CC := gcc
endif
SECONDS ?= 60
SEEDS   ?= 10000
FIRST   ?= 1
ROUNDS  ?= 100
# Debian's, which sees Debian's modules, also where another one comes first in PATH.
PYTHON  ?= $(firstword $(wildcard /usr/bin/python3) python3)
export PYTHON
VERSION := 0.1.0

PKGS    := liburing wolfssl libcjson libxxhash libcyaml yaml-0.1
CFLAGS_release := -O2 -g
CFLAGS_debug   := -O0 -g3
CFLAGS_asan    := -O1 -g3 -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer
CFLAGS_tsan    := -O1 -g3 -fsanitize=thread -fno-omit-frame-pointer
CFLAGS_fuzz    := -O1 -g3 -fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=all
CFLAGS_cov     := -O0 -g --coverage -fprofile-update=atomic
ifeq ($(VARIANT),fuzz)
CC := clang
endif
ifeq ($(origin CFLAGS_$(VARIANT)),undefined)
$(error VARIANT=$(VARIANT) is none of release, debug, asan, tsan, fuzz, cov)
endif

# Not evaluated until the packages are there: `deps` is done by one make, the compiling by another.
PKG_CFLAGS = $(shell pkg-config --cflags $(PKGS))
PKG_LIBS   = $(shell pkg-config --libs $(PKGS))
ALL_CFLAGS = -std=gnu17 -D_GNU_SOURCE -DSLUICE_VERSION='"$(VERSION)"' -Wall -Wextra -Werror \
	-pthread -Ilib -Idaemon $(PKG_CFLAGS) $(CFLAGS_$(VARIANT)) $(CFLAGS)

obj = $(patsubst %.c,$(BUILD)/obj/%.o,$(1))
lib_obj    := $(call obj,$(wildcard lib/*.c))
daemon_obj := $(call obj,$(filter-out daemon/main.c,$(wildcard daemon/*.c)))
client_obj := $(call obj,$(wildcard client/*.c))
bench_obj  := $(call obj,$(wildcard bench/*.c))
sim_obj    := $(call obj,$(wildcard tests/sim/*.c))
unit_bin   := $(patsubst tests/unit/%.c,$(BUILD)/unit/%,$(wildcard tests/unit/test_*.c))
fuzz_bin   := $(patsubst tests/fuzz/%.c,$(BUILD)/fuzz/%,$(wildcard tests/fuzz/fuzz_*.c))
libs       := $(BUILD)/libdaemon.a $(BUILD)/libsluice.a
# Tests of lib/ link lib/ alone, which is how it stays pure; those named after a file of daemon/ get both.
of_daemon   = $(foreach test,$(1),$(if $(wildcard $(patsubst $(2)%,daemon/%*.c,$(notdir $(test)))),$(test)))
linked      = $(filter %.o,$^) $(filter %/libdaemon.a,$^) $(filter %/libsluice.a,$^)
programs   := $(BUILD)/sluiced $(BUILD)/sluice $(BUILD)/sluice-bench

# The make that compiles, as parallel as the machine unless -j was given to this one.
compile = $(MAKE) --no-print-directory VARIANT=$(VARIANT) BUILD=$(BUILD) \
	$(if $(findstring j,$(firstword -$(MAKEFLAGS))),,-j$(shell nproc) --output-sync=target)

.PHONY: all demo check unit e2e coverage coverage-of-check sim fault fuzz-replay fuzz-run
.PHONY: bench bench-peers bench-figures lint install uninstall clean
.PHONY: deps deps-demo deps-check deps-coverage deps-bench deps-unit deps-fuzz programs unit-programs fuzz-programs sim-programs
comma := ,
# make V=1 shows the commands.
Q := $(if $(V),,@)

# Targets that compile do so in a make of their own; two of those at once would write the same files.
ifneq ($(filter-out %programs,$(or $(MAKECMDGOALS),all)),)
.NOTPARALLEL:
endif

.DELETE_ON_ERROR:
.SECONDARY:

all: deps
	@$(compile) programs

demo: deps deps-demo
	@$(compile) programs
	@tests/demo.sh $(BUILD)

# The simulator is one thread that changes stacks, which ThreadSanitizer can't follow.
sim_part := $(if $(filter tsan,$(VARIANT)),,sim)
check: deps deps-check
	@$(compile) programs unit-programs fuzz-programs sim-programs
	@tests/check.sh $(BUILD) unit fuzz $(sim_part) e2e

unit: deps deps-unit
	@$(compile) unit-programs
	@tests/check.sh $(BUILD) unit

fuzz-replay: deps
	@$(compile) fuzz-programs
	@tests/check.sh $(BUILD) fuzz

e2e: deps deps-check
	@$(compile) programs
	@tests/check.sh $(BUILD) e2e

# The daemon writes its counters when it ends orderly: what runs in those that are killed isn't seen. Some run as
# another user, who must be able to write them, too.
coverage: deps-coverage
	@$(MAKE) --no-print-directory VARIANT=cov coverage-of-check
coverage-of-check:
	@mkdir -p $(BUILD); find $(BUILD) -name '*.gcda' -delete
	@umask 0; $(MAKE) --no-print-directory check; status=$$?; \
	for bar in 'lib/ 95' 'daemon/ 85'; do \
		gcovr --root . --object-directory $(BUILD)/obj --filter $${bar% *} --fail-under-line $${bar#* } || status=1; \
	done; exit $$status

sim: deps
	@$(compile) sim-programs
	@tests/sim/run.sh $(BUILD) $(SEEDS) $(FIRST)

# What a machine can't do is skipped (77), with the reason; nothing is installed for it, for that would be a kernel.
fault: all deps-unit
	@$(compile) $(BUILD)/unit/test_upload_faults
	@$(BUILD)/unit/test_upload_faults 2>/dev/null
	@for level in crash power; do \
		for what in "kill9.py --rounds $(ROUNDS) -o durability=$$level" \
			"sigterm.py --rounds $(ROUNDS) -o durability=$$level" \
			"powercut.py --rounds $(ROUNDS) --level $$level" \
			"guest.py --rounds $(ROUNDS) --level $$level" \
			"guest.py --case fsync --level $$level" "guest.py --case clock --level $$level"; do \
			echo "== $$what"; \
			$(PYTHON) tests/fault/$$what --build $(BUILD) || [ $$? = 77 ] || exit 1; \
		done; \
	done
	@$(PYTHON) tests/fault/disk.py --build $(BUILD) || [ $$? = 77 ]
	@$(PYTHON) tests/fault/alloc.py --build $(BUILD)

# New inputs and findings stay in build/fuzz/: what is worth keeping is moved to tests/corpus/ by hand.
fuzz-run: deps deps-fuzz
	@$(MAKE) --no-print-directory VARIANT=fuzz BUILD=build/fuzz fuzz-programs
	@tests/fuzz/run.sh build/fuzz $(SECONDS)

# What is measured goes into $(BUILD)/bench.json and bench-peers.json, too; the figures are drawn from these.
CASES ?= bars matrix
bench = $(PYTHON) tests/bench/bench.py --build $(BUILD) $(if $(RUNS),--runs $(RUNS)) $(if $(WORK),--work $(WORK))

bench: all deps-bench
	@$(bench) --json $(BUILD)/bench.json $(CASES)

bench-peers: all deps-bench
	@$(bench) --json $(BUILD)/bench-peers.json peers

bench-figures: deps-bench
	@$(PYTHON) tests/bench/figures.py bench/figures.svg $(BUILD)/bench.json $(BUILD)/bench-peers.json

lint:
	@tests/lint.sh

programs: $(programs)
unit-programs: $(unit_bin)
fuzz-programs: $(fuzz_bin)
sim-programs: $(BUILD)/simulator

$(BUILD)/obj/%.o: %.c
	@mkdir -p $(@D)
	@$(if $(V),,echo '  CC    $<')
	$(Q)$(CC) $(ALL_CFLAGS) -MMD -MP -c -o $@ $<

$(BUILD)/libsluice.a: $(lib_obj)
	@rm -f $@
	$(Q)ar rcs $@ $^

# The daemon without its main, so that tests can link what they test.
$(BUILD)/libdaemon.a: $(daemon_obj)
	@rm -f $@
	$(Q)ar rcs $@ $^

$(BUILD)/sluiced: $(BUILD)/obj/daemon/main.o $(libs)
	@$(if $(V),,echo '  LINK  $@')
	$(Q)$(CC) $(ALL_CFLAGS) -o $@ $^ $(PKG_LIBS)

$(BUILD)/sluice: $(client_obj) $(BUILD)/libsluice.a
	@$(if $(V),,echo '  LINK  $@')
	$(Q)$(CC) $(ALL_CFLAGS) -o $@ $^ $(PKG_LIBS)

$(BUILD)/sluice-bench: $(bench_obj) $(BUILD)/libsluice.a
	@$(if $(V),,echo '  LINK  $@')
	$(Q)$(CC) $(ALL_CFLAGS) -o $@ $^ $(PKG_LIBS)

# One criterion program per file of lib/, and per file of daemon/ that can be tested alone. Criterion's own
# runner can't start under ThreadSanitizer; see plain_runner.c.
ifeq ($(VARIANT),tsan)
runner_obj := $(BUILD)/obj/tests/unit/plain_runner.o
else
runner_lib := -lcriterion
endif
$(BUILD)/unit/%: $(BUILD)/obj/tests/unit/%.o $(runner_obj) $(BUILD)/libsluice.a
	@mkdir -p $(@D)
	@$(if $(V),,echo '  LINK  $@')
	$(Q)$(CC) $(ALL_CFLAGS) $(unit_wraps) -o $@ $(linked) $(PKG_LIBS) $(runner_lib)
$(call of_daemon,$(unit_bin),test_): $(BUILD)/libdaemon.a
$(addprefix $(BUILD)/unit/test_,broker_model upload_model upload_faults journal_failures recover_midstates start_failures upload_memory): $(BUILD)/libdaemon.a
$(BUILD)/unit/test_upload_faults: unit_wraps := $(addprefix -Wl$(comma)--wrap=, \
	$(addprefix ring_,write writev splice fallocate ftruncate fsync fdatasync fdatasync_now now_ms) \
	$(addprefix sys_,openat pread pwrite pwritev ftruncate fallocate fsync syncfs mkdirat renameat2) sock_discard)

allocations := malloc calloc realloc strdup strndup
$(BUILD)/unit/test_admit $(BUILD)/unit/test_user: unit_wraps := $(addprefix -Wl$(comma)--wrap=,sys_mono_ns sys_stat_at)
$(BUILD)/unit/test_group: unit_wraps := $(addprefix -Wl$(comma)--wrap=,sys_pwritev sha256_update_lanes)
$(BUILD)/unit/test_alloc: unit_wraps := $(addprefix -Wl$(comma)--wrap=,free $(allocations))
$(BUILD)/unit/test_upload_memory: unit_wraps := $(addprefix -Wl$(comma)--wrap=,asprintf sock_discard $(allocations))
$(BUILD)/unit/test_start_failures: unit_wraps := $(addprefix -Wl$(comma)--wrap=,asprintf free $(allocations) \
	$(addprefix sys_,openat mkdirs pread pwrite fsync ftruncate fallocate renameat2 unlinkat lock_dir fstat \
	stat_at list_dir cache_identity random))

# With libFuzzer in the variant of that name; else with a main that replays the corpus.
ifeq ($(VARIANT),fuzz)
fuzz_main := -fsanitize=fuzzer
else
replay_obj := $(BUILD)/obj/tests/fuzz/replay_main.o
endif
$(BUILD)/fuzz/%: $(BUILD)/obj/tests/fuzz/%.o $(replay_obj) $(BUILD)/libsluice.a
	@mkdir -p $(@D)
	@$(if $(V),,echo '  LINK  $@')
	$(Q)$(CC) $(ALL_CFLAGS) $(fuzz_main) -o $@ $(linked) $(PKG_LIBS)
$(call of_daemon,$(fuzz_bin),fuzz_): $(BUILD)/libdaemon.a

# The daemon with tests/sim in the place of ring.o and ring_sys.o, which so are not linked, and of what
# else a process has of its own: memory, threads, its end.
sim_wraps := malloc calloc realloc free strdup strndup asprintf __assert_fail _exit \
	$(addprefix pthread_,create join self kill mutex_init mutex_destroy mutex_lock mutex_unlock \
	cond_init cond_destroy cond_wait cond_signal cond_broadcast)
$(BUILD)/simulator: $(sim_obj) $(libs)
	@$(if $(V),,echo '  LINK  $@')
	$(Q)$(CC) $(ALL_CFLAGS) $(addprefix -Wl$(comma)--wrap=,$(sim_wraps)) -o $@ $^ $(PKG_LIBS)

# What must be installed. Each level is a condition, quick when it holds, and the packages that fulfil it.
apt_build := gcc libc6-dev make pkg-config liburing-dev libwolfssl-dev libcjson-dev libxxhash-dev libcyaml-dev \
	libyaml-dev
apt_check := libcriterion-dev mosquitto-clients python3 python3-paho-mqtt libpaho-mqtt-dev

define need
{ $(1); } >/dev/null 2>&1 || { \
	if ! command -v apt-get >/dev/null; then \
		echo "sluice needs what Debian calls: $(2); install it and run make again." >&2; exit 1; fi; \
	if [ "$$(id -u)" = 0 ]; then as_root=; \
	elif sudo -n true 2>/dev/null; then as_root="sudo -n"; \
	else echo "sluice needs packages; run: sudo apt-get install --no-install-recommends $(2)" >&2; exit 1; fi; \
	echo "installing $(2)"; \
	$$as_root apt-get -qq update || :; \
	$$as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq -y --no-install-recommends \
		-o DPkg::Lock::Timeout=300 install $(2) </dev/null >/dev/null; }
endef

deps:
	@$(call need,command -v gcc && command -v pkg-config && pkg-config --exists $(PKGS),$(apt_build))

deps-bench:
	@$(call need,command -v $(PYTHON),python3)

deps-demo:
	@$(call need,command -v mosquitto_pub && command -v mosquitto_sub,mosquitto-clients)

deps-unit:
	@$(call need,pkg-config --exists criterion,libcriterion-dev)

deps-check:
	@$(call need,pkg-config --exists criterion && command -v mosquitto_pub && test -e /usr/include/MQTTClient.h \
		&& $(PYTHON) -c 'import paho.mqtt.client',$(apt_check))
	@$(call need,command -v node && command -v npm,nodejs npm)

deps-coverage:
	@$(call need,command -v gcovr,gcovr)

deps-fuzz:
	@$(call need,command -v clang && ls /usr/lib/llvm-*/lib/clang/*/lib/linux/libclang_rt.fuzzer*,clang \
		libclang-rt-14-dev)

man1 := $(wildcard client/*.1 bench/*.1)
man5 := $(wildcard daemon/*.5)
man8 := $(wildcard daemon/*.8)
root := $(DESTDIR)$(PREFIX)

install: all
	install -d $(root)/bin $(root)/share/man/man1 $(root)/share/man/man5 $(root)/share/man/man8 \
		$(root)/lib/systemd/system $(root)/lib/sysusers.d $(root)/lib/tmpfiles.d $(DESTDIR)/etc/sluice
	install -m 755 $(programs) $(root)/bin/
	$(if $(man1),install -m 644 $(man1) $(root)/share/man/man1/)
	install -m 644 $(man5) $(root)/share/man/man5/
	install -m 644 $(man8) $(root)/share/man/man8/
	sed 's|/usr/local|$(PREFIX)|' systemd/sluiced.service >$(root)/lib/systemd/system/sluiced.service
	install -m 644 systemd/sluice.sysusers $(root)/lib/sysusers.d/sluice.conf
	install -m 644 systemd/sluice.tmpfiles $(root)/lib/tmpfiles.d/sluice.conf
	test -e $(DESTDIR)/etc/sluice/sluiced.yaml || \
		install -m 644 systemd/sluiced.yaml $(DESTDIR)/etc/sluice/sluiced.yaml

# The data, and a configuration that was edited, stay.
uninstall:
	rm -f $(addprefix $(root)/bin/,$(notdir $(programs)))
	rm -f $(addprefix $(root)/share/man/man1/,$(notdir $(man1)))
	rm -f $(addprefix $(root)/share/man/man5/,$(notdir $(man5)))
	rm -f $(addprefix $(root)/share/man/man8/,$(notdir $(man8)))
	rm -f $(root)/lib/systemd/system/sluiced.service
	rm -f $(root)/lib/sysusers.d/sluice.conf $(root)/lib/tmpfiles.d/sluice.conf
	! cmp -s systemd/sluiced.yaml $(DESTDIR)/etc/sluice/sluiced.yaml || \
		rm -f $(DESTDIR)/etc/sluice/sluiced.yaml
	! test -d $(DESTDIR)/etc/sluice || rmdir --ignore-fail-on-non-empty $(DESTDIR)/etc/sluice

clean:
	rm -rf build

-include $(shell find $(BUILD) -name '*.d' 2>/dev/null)

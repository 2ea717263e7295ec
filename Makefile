# What one does with this repository. Each target is a script in scripts/, which says more.
.DEFAULT_GOAL := help
.PHONY: help setup build demo test test-reproducible test-oracles test-ironic test-ironic-compare fuzz bench bench-agent lint clean
MAKEFLAGS += --no-print-directory

help: ## list the targets
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 24

setup: ## install the Debian packages and the Rust target that are missing
	@scripts/setup.sh

build: ## dist/: ferric-agent, ferric-image, ferric, their licences, ramdisk/kernel, ramdisk/initramfs
	@scripts/setup.sh build
	@scripts/build.sh

demo: ## a blank virtual machine becomes a running Debian, before your eyes
	@scripts/setup.sh
	@scripts/build.sh
	@scripts/demo.sh

test: ## every test: units, loop devices, virtual machines
	@scripts/setup.sh
	@scripts/build.sh
	@scripts/test.sh

test-reproducible: ## two checkouts in different folders give the same bytes (builds everything twice)
	@scripts/test-reproducible.sh

test-oracles: ## qemu-img, imago, qcow2-rs, sfdisk, sgdisk and blkid on the same bytes
	@scripts/test-oracles.sh

fuzz: ## fuzz the readers of outside data; MINUTES=30 TARGETS="qcow2 gpt" SANITIZER=address
	@MINUTES="$(MINUTES)" TARGETS="$(TARGETS)" SANITIZER="$(SANITIZER)" scripts/fuzz.sh

test-ironic: ## a real Ironic drives the agent; IRONIC=39.0.0 SCENARIOS="inspect rescue" AGENT=ipa narrow it down
	@IRONIC="$(IRONIC)" SCENARIOS="$(SCENARIOS)" AGENT="$(AGENT)" scripts/test-ironic.sh

test-ironic-compare: ## hold the agent beside ironic-python-agent, with what test-ironic recorded; RECORD=1 renews the reference first
	@AGENT="$(AGENT)" RECORD="$(RECORD)" scripts/test-ironic-compare.sh

bench: ## images onto a disk, beside ironic-python-agent and others; FORMATS="raw qcow2" ROUNDS=5 SIZE=6144 narrow or widen it
	@AGENT="$(AGENT)" FORMATS="$(FORMATS)" ROUNDS="$(ROUNDS)" SIZE="$(SIZE)" COMMANDS="$(COMMANDS)" COREOS="$(COREOS)" scripts/bench.sh

bench-agent: ## start, memory, news and requests a second of the agent beside ironic-python-agent
	@AGENT="$(AGENT)" ROUNDS="$(ROUNDS)" scripts/bench-agent.sh

lint: ## format, clippy, licences and banned dependencies
	@scripts/setup.sh build
	@scripts/lint.sh

clean: ## remove what was built and downloaded: target/, dist/, .cache/
	cargo clean
	rm -rf dist .cache

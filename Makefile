# The packages. Everything else of the project is built and tested by cargo and scripts/.
#
#   make deb [ARCH=amd64|arm64|armhf]   builds target/deb/fieldbridge_VERSION_ARCH.deb, for this machine if not told otherwise
#   make debs                           builds all three
#   make lint-deb [ARCH=…]              builds one, and lets lintian judge it
#   make reproducible [ARCH=…]          builds one again in another folder, and compares the bytes
#   make repo REPO_KEY=…                builds all three and makes of them a signed apt repository in target/repo (docs/INSTALLATION.md)
#   make test-arm                       builds the arm packages, and runs their programs under qemu
#   make boot-test                      installs, upgrades and removes the package on a booted Debian
#   make vm-test [ARCH=…]               runs it in a virtual machine: a USB adapter, power cuts, a memory limit, a wrong clock
#   make ha-test                        tries docs/HIGH-AVAILABILITY.md on two booted Debians: killed, parted, handed over
#
# Each installs what it needs from Debian. Nothing is built at the same time: cargo uses the processors by itself.
.NOTPARALLEL:
.PHONY: deb debs repo lint-deb reproducible test-arm boot-test vm-test ha-test

ARCH ?= $(shell dpkg --print-architecture)

deb:
	scripts/setup.sh package $(ARCH)
	program=$$(packaging/build.sh $(ARCH)) && packaging/pack.sh $(ARCH) "$$program"

debs:
	$(MAKE) deb ARCH=amd64
	$(MAKE) deb ARCH=arm64
	$(MAKE) deb ARCH=armhf

# REPO_KEY and REPO_URL: see the script.
repo: debs
	scripts/setup.sh repo
	packaging/repo.sh target/repo target/deb/fieldbridge_$$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)_*.deb

lint-deb: deb
	packaging/lint.sh $(ARCH)

reproducible:
	scripts/setup.sh package $(ARCH)
	packaging/reproducible.sh $(ARCH)

test-arm:
	$(MAKE) lint-deb ARCH=arm64
	packaging/test-foreign.sh arm64
	$(MAKE) lint-deb ARCH=armhf
	packaging/test-foreign.sh armhf

boot-test: deb
	packaging/boot-test.sh

vm-test: deb
	ARCH=$(ARCH) packaging/vm-test.py

ha-test: deb
	packaging/ha-test.py

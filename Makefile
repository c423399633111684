# The packages. Everything else of the project is built and tested by cargo and scripts/.
#
#   make deb [ARCH=amd64|arm64|armhf]   builds target/deb/fieldbridge_VERSION_ARCH.deb, for this machine if not told otherwise
#   make debs                           builds all three
#   make lint-deb [ARCH=…]              builds one, and lets lintian judge it
#   make reproducible [ARCH=…]          builds one twice, in two folders, and compares the bytes
#   make test-arm                       runs the programs of the arm packages under qemu
#   make boot-test                      installs, upgrades and removes the package on a booted Debian
#
# Each installs what it needs from Debian. Nothing is built at the same time: cargo uses the processors by itself.
.NOTPARALLEL:
.PHONY: deb debs lint-deb reproducible test-arm boot-test

ARCH ?= $(shell dpkg --print-architecture)

deb:
	scripts/setup.sh package $(ARCH)
	program=$$(packaging/build.sh $(ARCH)) && packaging/pack.sh $(ARCH) "$$program"

debs:
	$(MAKE) deb ARCH=amd64
	$(MAKE) deb ARCH=arm64
	$(MAKE) deb ARCH=armhf

lint-deb: deb
	packaging/lint.sh $(ARCH)

reproducible:
	scripts/setup.sh package $(ARCH)
	packaging/reproducible.sh $(ARCH)

test-arm:
	packaging/test-foreign.sh arm64
	packaging/test-foreign.sh armhf

boot-test: deb
	packaging/boot-test.sh

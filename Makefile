# Front door: what a person types. CMake does the work; presets are in CMakePresets.json.
JOBS ?= $(shell nproc)
PICTURE ?= docs/images/example.png
QUESTION ?= Which number is the My account button? Reply with ONLY the number.
SECONDS ?= 60
# Several sources at a time, for whole builds. UNITY=OFF when you change one file often.
UNITY ?= ON

.PHONY: help setup build run test dev tsan fuzz bench format clean
.DEFAULT_GOAL := build

help:
	@echo "make          build build/release/pinhole"
	@echo "make run      ask the bundled model about a picture: make run PICTURE=... QUESTION='...'"
	@echo "make test     build and run all tests; the last line is 'N passed, N failed'"
	@echo "make dev      the tests with ASan and UBSan        make tsan   with ThreadSanitizer"
	@echo "make fuzz     every fuzz target for SECONDS=60 each"
	@echo "make bench    build the micro-benchmarks"
	@echo "make format   format the sources with clang-format 14"
	@echo "make clean    remove build/"

setup:
	@tools/setup.sh

build: setup
	@cmake --preset release -DPINHOLE_TESTS=OFF -DPINHOLE_UNITY=$(UNITY) >/dev/null
	@cmake --build --preset release -j $(JOBS)

run: build
	build/release/pinhole ask -i "$(PICTURE)" "$(QUESTION)"

test: setup
	@cmake --preset release -DPINHOLE_TESTS=ON -DPINHOLE_UNITY=$(UNITY) >/dev/null
	@cmake --build --preset release -j $(JOBS)
	@JOBS=2 tools/run_tests.sh build/release

dev tsan: setup
	@cmake --preset $@ -DPINHOLE_UNITY=$(UNITY) >/dev/null
	@cmake --build --preset $@ -j $(JOBS)
	@JOBS=2 tools/run_tests.sh build/$@

fuzz:
	@tools/setup.sh --with fuzz
	@cmake --preset fuzz >/dev/null
	@cmake --build --preset fuzz -j $(JOBS)
	@tools/fuzz.sh build/fuzz $(SECONDS)

bench:
	@tools/setup.sh --with bench
	@cmake --preset release -DPINHOLE_BENCH=ON >/dev/null
	@cmake --build --preset release -j $(JOBS)

format:
	@tools/format.sh --fix

clean:
	@rm -rf build

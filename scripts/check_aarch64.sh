#!/usr/bin/env bash
# Runs the cpu crate's tests for AArch64 under emulation, on a processor without FEAT_DotProd and on one with it.
#
# usage: scripts/check_aarch64.sh [--allow-missing] [ARGUMENTS OF THE TESTS]
#
# What it looks for, and the variable that names another one:
#   RUSTC                                           a compiler that has the standard library of the target
#   CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER   a linker with the target's C library (aarch64-linux-gnu-gcc)
#   QEMU                                            qemu's user-mode emulator (qemu-aarch64, qemu-aarch64-static)
# Without one of them it says so and fails, or with --allow-missing goes out as if all were well.
# Exit status: 0 if the tests ran on both processors and passed, 1 if not, 2 if something is missing.
set -euo pipefail
cd "$(dirname "$0")/.."

allow_missing=no
if [ "${1-}" = --allow-missing ]; then
    allow_missing=yes
    shift
fi
target=aarch64-unknown-linux-gnu
rustc=${RUSTC:-rustc}
linker=${CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER:-aarch64-linux-gnu-gcc}
qemu=${QEMU:-$(command -v qemu-aarch64 || command -v qemu-aarch64-static || echo qemu-aarch64)}

missing=()
library=$("$rustc" --print target-libdir --target "$target" || true)
[ -d "$library" ] || missing+=("the standard library: rustup target add $target, or name a compiler that has it in RUSTC")
command -v "$linker" >/dev/null || missing+=("the linker '$linker' with its C library")
command -v "$qemu" >/dev/null || missing+=("the emulator '$qemu'")
if [ "${#missing[@]}" -gt 0 ]; then
    printf 'kernels for AArch64 were NOT tested, missing: %s\n' "${missing[@]}" >&2
    if [ "$allow_missing" = yes ]; then exit 0; else exit 2; fi
fi

# Where the target's C library is: the folder above the one with its loader.
root=$(dirname "$(dirname "$("$linker" -print-file-name=ld-linux-aarch64.so.1)")")
# Not among what the machine's own compiler has built.
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$PWD/target/aarch64}
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=$linker
log=$(mktemp)
trap 'rm -f "$log"' EXIT
for pair in cortex-a72=Neon neoverse-n1=Dotprod; do
    processor=${pair%=*} isa=${pair#*=}
    export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER="$qemu -cpu $processor -L $root"
    printf '\n== %s\n' "$processor"
    cargo test --locked --target "$target" -p cpu --lib --tests -- --nocapture "$@" 2>&1 | tee "$log"
    # Tests of another set would pass too.
    if ! grep -q "detected $isa\$" "$log"; then
        echo "the tests on $processor did not run the kernels of $isa" >&2
        exit 1
    fi
done
printf '\nall tests passed on both\n'

#!/usr/bin/env bash
# Fuzzes the decoder: runs each target in wire/fuzz for a bounded time, beginning from its corpus.
#
# Usage: scripts/fuzz.sh [SECONDS] [TARGET...]
#
#   SECONDS   for each target (60, or FUZZ_SECONDS)
#   TARGET    only these
#
# What is found goes to target/fuzz-corpus and target/fuzz-artifacts; the corpus in the tree stays as it is. Needs
# cargo-fuzz; without a nightly toolchain the stable one is made to take the sanitizer's flags.
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

main() {
  local seconds=${FUZZ_SECONDS:-60} targets target toolchain=()
  case ${1:-} in
    -h | --help) help_of "$0" && exit 0 ;;
    '' | *[!0-9]*) ;;
    *) seconds=$1 && shift ;;
  esac
  case $seconds in
    '' | *[!0-9]* | 0) wrong_use "SECONDS is a whole number above 0, not '$seconds'" ;;
  esac
  need_cargo
  PATH=$CACHE_DIR/tools/bin:$PATH
  need_cmd cargo-fuzz "Install it: cargo install --locked cargo-fuzz, or run scripts/test.sh tools"
  [ -f "$REPO/wire/fuzz/Cargo.toml" ] || die 'there is no wire/fuzz/Cargo.toml'

  if have rustup && rustup run nightly rustc --version >/dev/null 2>&1; then
    toolchain=(+nightly)
  else
    export RUSTC_BOOTSTRAP=1
  fi
  cd "$REPO/wire"
  if [ $# -gt 0 ]; then targets=$*; else targets=$(cargo ${toolchain[@]+"${toolchain[@]}"} fuzz list); fi
  [ -n "$targets" ] || die 'wire/fuzz has no targets'
  for target in $targets; do
    fuzz "$target" "$seconds"
  done
}

fuzz() {
  local target=$1 seconds=$2 out corpus artifacts seeds
  out=$(target_dir)
  corpus=$out/fuzz-corpus/$target
  artifacts=$out/fuzz-artifacts/$target
  seeds=$REPO/wire/fuzz/corpus/$target
  mkdir -p "$corpus" "$artifacts"
  say "Fuzzing $target for $seconds s, from $(find "$seeds" -type f 2>/dev/null | wc -l | tr -d ' ') inputs in the tree and $(find "$corpus" -type f | wc -l | tr -d ' ') found before."
  # libFuzzer writes new inputs to the first directory and reads all.
  local dirs=("$corpus")
  [ ! -d "$seeds" ] || dirs+=("$seeds")
  cargo ${toolchain[@]+"${toolchain[@]}"} fuzz run --target-dir "$out/fuzz" "$target" "${dirs[@]}" -- \
    -max_total_time="$seconds" -timeout=10 -rss_limit_mb=2048 -artifact_prefix="$artifacts/" -print_final_stats=1 ||
    die "the fuzz target $target found a fault" "The input is in $artifacts; see the messages above for how to run it again."
}

main "$@"

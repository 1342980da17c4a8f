#!/usr/bin/env bash
# Fuzzes the decoder: runs the targets in wire/fuzz for a bounded time, beginning from their corpus.
#
# Usage: scripts/fuzz.sh [SECONDS] [TARGET...]
#
#   SECONDS   for all targets together, shared evenly (60, or FUZZ_SECONDS)
#   TARGET    only these
#
# What is found goes to target/fuzz-corpus and target/fuzz-artifacts; the corpus in the tree stays as it is. Needs
# cargo-fuzz; without a nightly toolchain the stable one is made to take the sanitizer's flags.
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

TOOLCHAIN=()

main() {
  local seconds=${FUZZ_SECONDS:-60} targets target
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
    TOOLCHAIN=(+nightly)
  else
    export RUSTC_BOOTSTRAP=1
  fi
  cd "$REPO/wire"
  OUT=$(target_dir)
  if [ $# -gt 0 ]; then targets=("$@"); else
    target=$(cargo_fuzz list) || die 'cargo fuzz list failed: see above'
    # shellcheck disable=SC2206 # names without blanks
    targets=($target)
  fi
  [ ${#targets[@]} -gt 0 ] || die 'wire/fuzz has no targets'
  for target in "${targets[@]}"; do
    cargo_fuzz build --target-dir "$OUT/fuzz" "$target" || die "the fuzz target $target cannot be built: see above"
  done
  seconds=$((seconds / ${#targets[@]}))
  [ $seconds -gt 0 ] || seconds=1
  for target in "${targets[@]}"; do
    fuzz "$target" "$seconds"
  done
}

cargo_fuzz() {
  local command=$1
  shift
  cargo ${TOOLCHAIN[@]+"${TOOLCHAIN[@]}"} fuzz "$command" "$@"
}

fuzz() {
  local target=$1 seconds=$2 corpus artifacts seeds
  corpus=$OUT/fuzz-corpus/$target
  artifacts=$OUT/fuzz-artifacts/$target
  seeds=$REPO/wire/fuzz/corpus/$target
  mkdir -p "$corpus" "$artifacts"
  say "Fuzzing $target for $seconds s, from $(find "$seeds" -type f 2>/dev/null | wc -l | tr -d ' ') inputs in the tree and $(find "$corpus" -type f | wc -l | tr -d ' ') found before."
  # libFuzzer writes new inputs to the first directory and reads all.
  local dirs=("$corpus")
  [ ! -d "$seeds" ] || dirs+=("$seeds")
  cargo_fuzz run --target-dir "$OUT/fuzz" "$target" "${dirs[@]}" -- \
    -max_total_time="$seconds" -timeout=10 -rss_limit_mb=2048 -artifact_prefix="$artifacts/" -print_final_stats=1 ||
    die "the fuzz target $target found a fault" "The input is in $artifacts; see the messages above for how to run it again."
}

main "$@"

#!/usr/bin/env bash
# Tests everything, as CI does. The first step that fails ends the run.
#
# Usage: scripts/test.sh [--list] [STEP...]
#
#   tools        installs what the steps need and is missing (packages with apt-get as root, else it says which)
#   influxd      finds a real InfluxDB 2 server or builds one, for the tests
#   fmt          cargo fmt --check
#   clippy       cargo clippy, warnings are errors
#   doc          rustdoc, warnings are errors
#   deny         licences, banned crates and sources of the dependencies
#   sh           shellcheck on the scripts
#   house        who may depend on whom
#   test         cargo test
#   fuzz         fuzzes the decoder for FUZZ_SECONDS (60) each target
#   scripts      start, status, logs and stop with real programs
#   api          a running server against its OpenAPI document, with schemathesis
#   chaos        kills, cuts and fills up everything for CHAOS_MINUTES (3), with CHAOS_SEED (14): see chaos.sh
#
# Without STEP all of them run, in this order. Logs are kept in target/test-logs.
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

STEPS=(tools influxd fmt clippy doc deny sh house test fuzz scripts api chaos)
TABLE=()
CARGO_DENY=0.20.2
CARGO_FUZZ=0.13.2

main() {
  local chosen=() step
  while [ $# -gt 0 ]; do
    case $1 in
      -h | --help) help_of "$0" && exit 0 ;;
      --list) printf '%s\n' "${STEPS[@]}" && exit 0 ;;
      *)
        case " ${STEPS[*]} " in
          *" $1 "*) chosen+=("$1") ;;
          *) wrong_use "there is no step $1; there are: ${STEPS[*]}" ;;
        esac
        ;;
    esac
    shift
  done
  [ ${#chosen[@]} -gt 0 ] || chosen=("${STEPS[@]}")

  cd "$REPO"
  need_cargo
  if [ "${CI:-}" = true ]; then
    export CARGO_TERM_COLOR=never CARGO_TERM_PROGRESS_WHEN=never CARGO_INCREMENTAL=0
  fi
  export CARGO_NET_RETRY=${CARGO_NET_RETRY:-5}
  PATH=$CACHE_DIR/tools/bin:$PATH
  OUT=$(target_dir)
  TEST_LOGS=$OUT/test-logs
  mkdir -p "$TEST_LOGS"
  NOT_RUN=("${chosen[@]}")
  for step in "${chosen[@]}"; do
    NOT_RUN=("${NOT_RUN[@]:1}")
    run_step "$step"
  done
  table
  say 'All steps passed.'
}

# run_step NAME: what it prints goes to its log, and to the terminal if it fails or is worth following.
run_step() {
  local name=$1 log=$TEST_LOGS/$1.log began took result=passed
  began=$(date +%s)
  say "== $name"
  # Alone in its line, because `set -e` sleeps inside conditions.
  set +e
  (
    set -e
    "step_$name"
  ) 2>&1 | keep "$name" "$log"
  # shellcheck disable=SC2181
  [ $? -eq 0 ] || result=FAILED
  set -e
  took=$(duration $(($(date +%s) - began)))
  TABLE+=("$(printf '%-7s  %-6s  %10s  %s' "$name" "$result" "$took" "$(told "$name" "$log")")")
  if [ "$result" = FAILED ]; then
    watched "$name" || cat "$log"
    table
    die "step $name failed" "Its output is above and in $log; scripts/test.sh $name runs it alone."
  fi
  watched "$name" || told "$name" "$log"
  say "   $name passed in $took"
}

watched() { case $1 in tools | influxd | test | chaos) true ;; *) false ;; esac }

keep() { if watched "$1"; then tee "$2"; else cat >"$2"; fi; }

table() {
  say ''
  say 'step     result        took  more'
  printf '%s\n' "${TABLE[@]}"
  [ ${#NOT_RUN[@]} -eq 0 ] || printf '%-7s  not run\n' "${NOT_RUN[@]}"
  say ''
}

# told NAME LOG: the one line of a step's log that the table repeats.
told() {
  case $1 in
    influxd) grep -E '^InfluxDB v?2' "$2" | tail -n 1 || true ;;
    test) test_totals "$2" ;;
    deny) grep -E '^advisories' "$2" || true ;;
    house) tail -n 1 "$2" ;;
    fuzz) awk '/^stat::number_of_executed_units/ { n += $2; t++ } END { printf "%d inputs tried on %d targets\n", n, t }' "$2" ;;
    scripts | api) tail -n 1 "$2" ;;
    chaos) chaos_totals "$2" ;;
  esac
}

# test_totals LOG: all `test result:` lines in one, and how many tests said that they did not do what they are there for.
test_totals() {
  awk '/^test result:/ {
    for (i = 1; i < NF; i++) {
      if ($(i + 1) ~ /^passed/) passed += $i
      if ($(i + 1) ~ /^failed/) failed += $i
      if ($(i + 1) ~ /^ignored/) ignored += $i
    }
  }
  # Not the logs of the programs under test: a client leaves out a disk that does not answer.
  !/^ts=/ && /SKIPPED|left out/ { skipped++ }
  END { printf "%d tests passed, %d failed, %d ignored, %d lines say SKIPPED or left out\n", passed, failed, ignored, skipped }' "$1"
}

# chaos_totals LOG: what was done and found.
chaos_totals() {
  awk '/^samples acknowledged/ { acknowledged = $NF } /^kills / { kills = $NF } /^lost, doubled, altered/ { found = $(NF - 2) " " $(NF - 1) " " $NF }
  END { printf "%s samples acknowledged through %s kills; lost, doubled, altered: %s\n", acknowledged, kills, found }' "$1"
}

# --- steps ---------------------------------------------------------------------

step_tools() {
  local missing=() component
  have clang || missing+=(clang)
  have pkg-config || missing+=(pkg-config)
  have shellcheck || missing+=(shellcheck)
  have jq || missing+=(jq)
  have curl || missing+=(curl ca-certificates)
  have flock || missing+=(util-linux)
  have ss || missing+=(iproute2)
  [ ${#missing[@]} -eq 0 ] || install_packages "${missing[@]}"
  for component in rustfmt clippy; do
    cargo "${component/rust/}" --version >/dev/null 2>&1 || rustup component add "$component"
  done
  cargo_tool cargo-deny "$CARGO_DENY"
  cargo_tool cargo-fuzz "$CARGO_FUZZ"
  scripts/api.sh --install
  say 'All tools are there.'
}

# cargo_tool NAME VERSION: built without optimisation, which takes a third of the time and is fast enough for its work.
cargo_tool() {
  # PATH begins with these tools: one of another version that lies elsewhere is left alone, and not used.
  if [ "$("$1" --version 2>/dev/null | head -n 1)" = "$1 $2" ]; then return; fi
  say "Building $1 $2; about 2 minutes."
  CARGO_PROFILE_RELEASE_OPT_LEVEL=0 CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_CODEGEN_UNITS=256 \
    CARGO_PROFILE_RELEASE_DEBUG=0 CARGO_TARGET_DIR=$CACHE_DIR/tools/target \
    cargo install --quiet --locked --force --no-default-features --root "$CACHE_DIR/tools" "$1@$2"
  rm -rf "$CACHE_DIR/tools/target"
}

step_influxd() {
  local path
  path=$(scripts/influxd.sh)
  "$path" version
  say "   at $path"
}

step_fmt() {
  cargo fmt --all --check
  [ ! -f wire/fuzz/Cargo.toml ] || cargo fmt --manifest-path wire/fuzz/Cargo.toml --check
}

step_clippy() { cargo clippy --locked --workspace --all-targets -- -D warnings; }

step_doc() { RUSTDOCFLAGS='-D warnings' cargo doc --locked --workspace --no-deps; }

step_deny() {
  cargo deny --locked check --hide-inclusion-graph licenses bans sources
  say 'advisories are left out: their database is a git repository that an isolated machine cannot fetch (cargo deny check advisories)'
}

step_sh() {
  need_cmd shellcheck 'Run scripts/test.sh tools first.'
  shellcheck --external-sources .ci/run scripts/*.sh
}

step_house() {
  scripts/house.sh --self-test
  scripts/house.sh
}

step_test() {
  INFLUXD=$(scripts/influxd.sh)
  export INFLUXD
  say "InfluxDB of the tests: $("$INFLUXD" version) at $INFLUXD"
  cargo test --locked --workspace --no-fail-fast
}

step_fuzz() { scripts/fuzz.sh; }

step_scripts() { scripts/test-scripts.sh; }

step_api() { scripts/api.sh --profile "${API_PROFILE:-dev}"; }

# With what the tests have built: another profile costs more minutes than it saves.
step_chaos() { scripts/chaos.sh --minutes "${CHAOS_MINUTES:-3}" --seed "${CHAOS_SEED:-14}" --profile "${CHAOS_PROFILE:-dev}"; }

main "$@"

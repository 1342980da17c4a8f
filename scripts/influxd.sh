#!/usr/bin/env bash
# Prints the path of an InfluxDB 2 server: $INFLUXD, else the one on the PATH, else one that it builds from source once.
#
# Usage: scripts/influxd.sh [--built-path]
#
#   --built-path   only say where the one that is built from source belongs, there or not, and build nothing
#
# The build takes some minutes, needs Go, Rust, clang and pkg-config (the last two are installed if this runs as root on
# Debian or Ubuntu) and goes to ~/.cache/vitals (VITALS_CACHE_DIR), where all clones find it.
# docker/influxd/go.mod says which version. Only the path goes to standard output.
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

MODULE=$REPO/docker/influxd

main() {
  local version built found
  version=$(awk '$1 == "github.com/influxdata/influxdb/v2" { print substr($2, 2) }' "$MODULE/go.mod")
  [ -n "$version" ] || die "$MODULE/go.mod names no version of InfluxDB"
  built=$CACHE_DIR/influxd-$version
  case ${1:-} in
    -h | --help) help_of "$0" && exit 0 ;;
    --built-path) echo "$built" && exit 0 ;;
    '') ;;
    *) wrong_use "unknown argument: $1" ;;
  esac

  if [ -n "${INFLUXD:-}" ]; then
    is_influxd_2 "$INFLUXD" || die "INFLUXD=$INFLUXD is not an InfluxDB 2 server" 'Unset it, or let it name an influxd 2.x.'
    echo "$INFLUXD"
    return
  fi
  found=$(command -v influxd || true)
  if [ -n "$found" ] && is_influxd_2 "$found"; then
    echo "$found"
    return
  fi
  if ! is_influxd_2 "$built"; then
    mkdir -p "$CACHE_DIR"
    exec 9>"$CACHE_DIR/influxd.lock"
    if have flock && ! flock -n 9; then
      note 'Another build of InfluxDB is at work; waiting for it.'
      flock 9
    fi
    is_influxd_2 "$built" || build "$version" "$built"
  fi
  echo "$built"
}

is_influxd_2() { [ -x "$1" ] && "$1" version 2>/dev/null | grep -q '^InfluxDB v\?2\.'; }

build() {
  local version=$1 built=$2 log=$CACHE_DIR/influxd-build.log tools=$CACHE_DIR/influxd-tools began now
  need_tools
  mkdir -p "$tools"
  # Its Flux library is Rust and older than today's compiler, which finds new faults in it.
  # shellcheck disable=SC2016 # written out as it stands
  printf '#!/bin/sh\nexec "$@" --cap-lints warn\n' >"$tools/rustc-cap-lints"
  chmod +x "$tools/rustc-cap-lints"
  note "Building InfluxDB $version from source; about 4 minutes on two cores. Log: $log"
  began=$(date +%s)
  compile "$version" "$tools" "$built" >"$log" 2>&1 9>&- &
  local pid=$! last=0
  trap 'kill "$pid" 2>/dev/null || true' EXIT
  while kill -0 "$pid" 2>/dev/null; do
    sleep 1
    now=$(($(date +%s) - began))
    if [ $((now - last)) -ge 30 ]; then
      last=$now
      note "  still building after $(duration "$now")"
    fi
  done
  trap - EXIT
  if ! wait "$pid" || ! is_influxd_2 "$built"; then
    note "  the last lines of $log:"
    tail -n 20 "$log" | sed 's/^/  | /' >&2
    die 'the build of InfluxDB failed' 'Mend what the log says, or let INFLUXD name an influxd 2.x.'
  fi
  note "InfluxDB $version is built ($(duration $(($(date +%s) - began))))."
}

# Everything goes through a new file, so that a build that is cut short leaves nothing that looks whole.
compile() {
  local version=$1 tools=$2 built=$3
  cd "$MODULE"
  export GOTOOLCHAIN=local GOFLAGS=-mod=readonly CGO_ENABLED=1
  go build -o "$tools/pkg-config" github.com/influxdata/pkg-config || return
  export PKG_CONFIG=$tools/pkg-config RUSTC_WRAPPER=$tools/rustc-cap-lints CC=clang
  # Only the compiler that is named stable is known to do; a clone's own rust-toolchain file must not choose another.
  if have rustup && rustup toolchain list | grep -q '^stable'; then export RUSTUP_TOOLCHAIN=stable; fi
  go build -tags sqlite_foreign_keys,sqlite_json -ldflags "-s -w -X main.version=v$version" \
    -o "$built.new" github.com/influxdata/influxdb/v2/cmd/influxd || return
  mv "$built.new" "$built"
}

need_tools() {
  local missing=() tool
  need_cargo
  need_cmd go 'Install Go 1.26 or later from https://go.dev/dl/, or let INFLUXD name an influxd 2.x.'
  for tool in clang pkg-config; do
    have "$tool" || missing+=("$tool")
  done
  [ ${#missing[@]} -gt 0 ] || return 0
  install_packages "${missing[@]}"
}

main "$@"

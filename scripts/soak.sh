#!/usr/bin/env bash
# Runs server and clients under a steady load and sees that neither their memory nor their open files, threads or bytes
# on disk grow.
#
# Usage: scripts/soak.sh --minutes M [--hosts N] [--seed S] [--no-influx] [--profile NAME] [--no-build] [--keep]
#
#   --minutes M     for how long; the first third does not count. Less than 15 only shows how the store's memory fills
#   --hosts N       simulated hosts, each with a sample a second; 200 unless told otherwise
#   --seed S        of their figures; 1 unless told otherwise
#   --no-influx     without an InfluxDB
#   --profile NAME  Cargo's profile: ci unless told otherwise
#   --no-build      take what is built
#   --keep          keep logs, data and every sample of the figures also after a success
#
# A figure fails whose median over the last third of the run is above that over the middle third by more than 5 % and more
# than 4 MiB (bytes) or 4 (counts). It exits with 1 then, and keeps its directory.
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

MINUTES=
HOSTS=200
SEED=1
PROFILE=ci
BUILD=yes
MORE=()

main() {
  while [ $# -gt 0 ]; do
    case $1 in
      -h | --help) help_of "$0" && exit 0 ;;
      --minutes) need_value "$1" $# && MINUTES=$2 && shift ;;
      --hosts) need_value "$1" $# && HOSTS=$2 && shift ;;
      --seed) need_value "$1" $# && SEED=$2 && shift ;;
      --profile) need_value "$1" $# && PROFILE=$2 && shift ;;
      --no-influx | --keep) MORE+=("$1") ;;
      --no-build) BUILD=no ;;
      *) wrong_use "unknown argument: $1" ;;
    esac
    shift
  done
  [[ $MINUTES =~ ^[0-9]+(\.[0-9]+)?$ ]] || wrong_use '--minutes is needed, a number'
  need_whole --hosts "$HOSTS"
  need_whole --seed "$SEED"
  [ -r /proc/self/smaps_rollup ] || die 'this needs Linux with /proc/PID/smaps_rollup'
  if [[ " ${MORE[*]-} " != *' --no-influx '* ]]; then
    INFLUXD=$("$REPO/scripts/influxd.sh")
    export INFLUXD
  fi
  build_example soak "$PROFILE" "$BUILD"
  ulimit -n "$(ulimit -Hn)" 2>/dev/null || true
  exec "$EXAMPLE" --minutes "$MINUTES" --hosts "$HOSTS" --seed "$SEED" \
    --server "$BUILT/vitals-server" --client "$BUILT/vitals-client" ${MORE[@]+"${MORE[@]}"}
}

main "$@"

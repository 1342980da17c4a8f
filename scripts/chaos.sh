#!/usr/bin/env bash
# Kills, freezes, cuts and fills up everything that Vitals runs on, and sees that no sample is lost, doubled or altered.
#
# Usage: scripts/chaos.sh [--minutes M] [--seed S] [--hosts N] [--profile NAME] [--no-build] [--keep]
#        scripts/chaos.sh --simulated N [--seed S]
#
#   --minutes M     for how long things go wrong; 3 unless told otherwise
#   --seed S        of all that is random; a random one unless told otherwise, printed so that a run can be played again
#   --hosts N       simulated hosts, each with a sample a second; 200 unless told otherwise
#   --profile NAME  Cargo's profile: ci unless told otherwise
#   --no-build      take what is built
#   --keep          keep logs, record and data also after a success
#   --simulated N   instead of real processes: N schedules of crashes and faults in one simulated process each
#
# Real: the real server, 200 simulated hosts, 3 real clients and a real InfluxDB, killed at least 20 times in 3 minutes
# (SIGKILL, SIGTERM, SIGSTOP), connections cut at any byte, delayed, throttled, half open and refused, disks full, logs
# torn. Then all is healed, and what was taken is held against what is stored and what InfluxDB has, field by field.
# A run takes its minutes and 1 to 2 more. It exits with 1, and keeps its directory, if a sample was lost, doubled or
# altered, or a program panicked. Full disks need root, which mounts small ones; others leave them out.
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

MINUTES=3
SEED=$((RANDOM * 32768 + RANDOM))
HOSTS=200
PROFILE=ci
BUILD=yes
SIMULATED=
MORE=()

main() {
  while [ $# -gt 0 ]; do
    case $1 in
      -h | --help) help_of "$0" && exit 0 ;;
      --minutes) need_value "$1" $# && MINUTES=$2 && shift ;;
      --seed) need_value "$1" $# && SEED=$2 && shift ;;
      --hosts) need_value "$1" $# && HOSTS=$2 && shift ;;
      --profile) need_value "$1" $# && PROFILE=$2 && shift ;;
      --simulated) need_value "$1" $# && SIMULATED=$2 && shift ;;
      --no-build) BUILD=no ;;
      --keep) MORE+=(--keep) ;;
      *) wrong_use "unknown argument: $1" ;;
    esac
    shift
  done
  need_whole --seed "$SEED"
  need_whole --hosts "$HOSTS"
  [[ $MINUTES =~ ^[0-9]+(\.[0-9]+)?$ ]] || wrong_use "--minutes takes a number, not $MINUTES"
  if [ -n "$SIMULATED" ]; then
    need_whole --simulated "$SIMULATED"
    simulated
  else
    real
  fi
}

simulated() {
  need_cargo
  note "$SIMULATED simulated schedules, seed $SEED"
  cd "$REPO"
  VITALS_SIM_SCHEDULES=$SIMULATED VITALS_SIM_SEED=$SEED exec cargo test --locked -p vitals-server --test simulation -- --nocapture
}

real() {
  INFLUXD=$("$REPO/scripts/influxd.sh")
  export INFLUXD
  build_example chaos "$PROFILE" "$BUILD"
  # Each host and its proxy are open files.
  ulimit -n "$(ulimit -Hn)" 2>/dev/null || true
  exec "$EXAMPLE" --minutes "$MINUTES" --seed "$SEED" --hosts "$HOSTS" \
    --server "$BUILT/vitals-server" --client "$BUILT/vitals-client" ${MORE[@]+"${MORE[@]}"}
}

main "$@"

#!/usr/bin/env bash
# Stops what start.sh started: first the client, which hands over what it holds, then the server.
#
# Usage: scripts/stop.sh [--timeout SECONDS]
#
#   --timeout SECONDS   how long each may take to end before it is killed (20)
#
# What was stored stays in .vitals/.
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

TIMEOUT=20

main() {
  while [ $# -gt 0 ]; do
    case $1 in
      -h | --help) help_of "$0" && exit 0 ;;
      --timeout) need_value "$1" $# && TIMEOUT=$2 && shift ;;
      --timeout=*) TIMEOUT=${1#*=} ;;
      *) wrong_use "unknown argument: $1" ;;
    esac
    shift
  done
  case $TIMEOUT in
    '' | *[!0-9]*) wrong_use '--timeout takes whole seconds' ;;
  esac

  local name any=no address
  read_addresses
  for name in client server; do
    if runs "$name"; then
      say "Stopping the $name."
      any=yes
      end "$name" "$TIMEOUT"
    else
      [ ! -e "$(pid_file "$name")" ] || say "The $name had ended by itself; its log: $LOG_DIR/$name.log"
      rm -f "$(pid_file "$name")"
    fi
  done
  if [ $any = no ]; then
    say 'Nothing runs.'
    return
  fi
  for address in "$LISTEN" "$HTTP_LISTEN"; do
    wait_for 5 silent "$address" || warn "something else listens on $address$(holder_of "$address")"
  done
  rm -f "$RUN_DIR/addresses"
  say "Stopped. What was stored stays in $STATE_DIR."
}

main "$@"

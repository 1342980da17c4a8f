#!/usr/bin/env bash
# Says what runs, since when, which version, whether it is well and which hosts it knows.
#
# Usage: scripts/status.sh
#
# Exit code: 0 all runs and is well, 1 something is wrong, 2 wrong use, 3 nothing runs.
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

WRONG=0
RUNNING=0

main() {
  case ${1:-} in
    -h | --help) help_of "$0" && exit 0 ;;
    '') ;;
    *) wrong_use "unknown argument: $1" ;;
  esac
  read_addresses
  process server
  process client
  if [ $RUNNING -eq 0 ] && [ $WRONG -eq 0 ]; then
    exit 3
  fi
  ! runs server || server_says "$(http_at "$HTTP_LISTEN")"
  line state "$STATE_DIR ($(du -sh "$STATE_DIR" 2>/dev/null | cut -f1))"
  exit $WRONG
}

line() { printf '%-8s %s\n' "$1" "$2"; }

process() {
  local pid version memory
  if pid=$(pid_of "$1"); then
    RUNNING=$((RUNNING + 1))
    version=$(version_of "/proc/$pid/exe" || true)
    memory=$(awk '/^VmRSS:/ { printf ", %.1f MiB", $2 / 1024 }' "/proc/$pid/status" 2>/dev/null || true)
    line "$1" "runs since $(date -d "@$(modified "$(pid_file "$1")")" '+%F %T' 2>/dev/null || date -r "$(pid_file "$1")" '+%F %T') ($(duration "$(age_of "$1")")), process $pid$memory${version:+, $version}"
  elif [ -e "$(pid_file "$1")" ]; then
    WRONG=1
    line "$1" "ENDED by itself; the last line of its log:"
    tail -n 1 "$LOG_DIR/$1.log" 2>/dev/null | sed 's/^/         /' || true
  elif [ "$1" = client ] && [ $RUNNING -gt 0 ]; then
    WRONG=1
    line "$1" 'does not run (scripts/start.sh starts it)'
  else
    line "$1" 'does not run'
  fi
}

# server_says URL
server_says() {
  local hosts
  if ! is_good "$1/healthz"; then
    WRONG=1
    line health "NOT WELL: $1/healthz gives no good answer"
  elif ! is_good "$1/readyz"; then
    WRONG=1
    line health "NOT READY: $(asking "$1/readyz" | head -c 300)"
  else
    line health 'well'
  fi
  line clients "$LISTEN"
  line api "$1"
  if hosts=$(fetch "$1/api/v1/hosts"); then
    list_hosts "$hosts"
  else
    WRONG=1
    line hosts "cannot be read (scripts/start.sh makes a token where $STATE_DIR/read-token holds no more)"
  fi
}

# The list is an array, or an object with one in it; with jq it is shown by name and state, else it is counted.
list_hosts() {
  if have jq; then
    line hosts "$(jq -r '(if type == "array" then . else .hosts end) | length' <<<"$1")"
    jq -r '(if type == "array" then . else .hosts end)[:20][] | "         \(.name)  \(.state // .status // "")"' <<<"$1"
  else
    line hosts "$(grep -o '"name":' <<<"$1" | wc -l | tr -d ' ')"
  fi
}

main "$@"

#!/usr/bin/env bash
# Shows the logs of server and client that start.sh started, in the order of time.
#
# Usage: scripts/logs.sh [server|client] [OPTIONS]
#
#   -f, --follow      go on with what comes
#   -n, --lines N     the last N lines that fit (100; 10 to begin with when following)
#   --all             all lines that fit
#   --level LEVEL     this level and worse: error, warn, info, debug
#   --errors          the same as --level error; what is no line of log, such as a panic's text, counts as an error
#   --host HOST       lines about this host
#   --since WHEN      90s, 10m, 2h, 3d, or a time such as 2026-01-31T12:00
#   --summary         counts instead of lines: connections, disconnections and drops by reason, hosts up and down, errors by
#                     reason, over all lines that fit
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

# Times sort by their bytes.
export LC_ALL=C

SIDES=()
FOLLOW=no
LINES_WANTED=
LEVEL=debug
HOST=
SINCE=
SUMMARY=no

main() {
  while [ $# -gt 0 ]; do
    case $1 in
      -h | --help) help_of "$0" && exit 0 ;;
      server | client) SIDES+=("$1") ;;
      -f | --follow) FOLLOW=yes ;;
      -n | --lines) need_value "$1" $# && LINES_WANTED=$2 && shift ;;
      --all) LINES_WANTED=all ;;
      --level) need_value "$1" $# && LEVEL=$2 && shift ;;
      --errors) LEVEL=error ;;
      --host) need_value "$1" $# && HOST=$2 && shift ;;
      --since)
        need_value "$1" $#
        SINCE=$(time_of "$2")
        shift
        ;;
      --summary) SUMMARY=yes ;;
      *) wrong_use "unknown argument: $1" ;;
    esac
    shift
  done
  case $LEVEL in
    error | warn | info | debug) ;;
    *) wrong_use "--level takes error, warn, info or debug, not $LEVEL" ;;
  esac
  case $LINES_WANTED in
    '') LINES_WANTED=$([ $FOLLOW = yes ] && echo 10 || echo 100) ;;
    all) ;;
    *[!0-9]*) wrong_use "--lines takes a number, not $LINES_WANTED" ;;
  esac
  [ ${#SIDES[@]} -gt 0 ] || SIDES=(server client)

  local side files=()
  for side in "${SIDES[@]}"; do
    [ ! -e "$LOG_DIR/$side.log" ] || files+=("$LOG_DIR/$side.log")
  done
  [ ${#files[@]} -gt 0 ] || die "there are no logs in $LOG_DIR" 'scripts/start.sh starts Vitals.'

  if [ $SUMMARY = yes ]; then
    fitting "${files[@]}" | summary
  else
    # Without a time of its own a line keeps its place behind the one before it, so the sort has to be stable.
    fitting "${files[@]}" | sort -s -k 1,1 | last | cut -d ' ' -f 2-
    [ $FOLLOW = no ] || follow "${files[@]}"
  fi
}

last() { if [ "$LINES_WANTED" = all ]; then cat; else tail -n "$LINES_WANTED"; fi; }

# time_of WHEN: the beginning of a log line's time, in UTC as the logs are.
time_of() {
  local seconds
  case $1 in
    [0-9]*[smhd])
      seconds=${1%[smhd]}
      case $seconds in *[!0-9]*) wrong_use "--since takes 90s, 10m, 2h, 3d or a time, not $1" ;; esac
      case $1 in
        *m) seconds=$((seconds * 60)) ;;
        *h) seconds=$((seconds * 3600)) ;;
        *d) seconds=$((seconds * 86400)) ;;
      esac
      seconds=$(($(date +%s) - seconds))
      date -u -d "@$seconds" +%FT%T 2>/dev/null || date -u -r "$seconds" +%FT%T
      ;;
    [0-9][0-9][0-9][0-9]-[0-9][0-9]-[0-9][0-9]*) echo "${1%Z}" ;;
    *) wrong_use "--since takes 90s, 10m, 2h, 3d or a time, not $1" ;;
  esac
}

# Reads a line of logfmt into `field`. A quoted value may hold blanks, `=` and escaped quotes.
# shellcheck disable=SC2016
LOGFMT='
function parse(text, field,    key, value) {
  split("", field)
  while (match(text, /[^ =]+=/)) {
    key = substr(text, RSTART, RLENGTH - 1)
    text = substr(text, RSTART + RLENGTH)
    if (substr(text, 1, 1) == "\"" && match(text, /^"([^"\\]|\\.)*"/)) {
      value = substr(text, 2, RLENGTH - 2)
      gsub(/\\"/, "\"", value)
    } else {
      match(text, /^[^ ]*/)
      value = substr(text, 1, RLENGTH)
    }
    text = substr(text, RLENGTH + 1)
    field[key] = value
  }
}
BEGIN { rank["error"] = 4; rank["warn"] = 3; rank["info"] = 2; rank["debug"] = 1; rank["trace"] = 0 }
'

# What fits, as `TIME SIDE | LINE`. A line without a time (a panic has several) belongs to the one before it, as an error.
# shellcheck disable=SC2016
FITTING='
/^==> .* <==$/ && following { sub(/^==> .*\//, ""); sub(/\.log <==$/, ""); side = $0; next }
!following { side = FILENAME; sub(/^.*\//, "", side); sub(/\.log$/, "", side) }
following && $0 == "" { next }
{
  parse($0, field)
  if ("ts" in field) { time = field["ts"]; level = field["level"] } else { level = "error" }
  if (rank[level] < rank[least] || (since != "" && time < since)) next
  if (host != "" && field["host"] != host && field["name"] != host) next
  if (following) printf "%-6s | %s\n", side, $0; else printf "%s %-6s | %s\n", (time == "" ? "-" : time), side, $0
  fflush()
}
'

fitting() { awk -v least="$LEVEL" -v since="$SINCE" -v host="$HOST" -v following=0 "$LOGFMT$FITTING" "$@"; }

follow() {
  local line_wise=() side
  # mawk reads whole blocks from a pipe unless told otherwise.
  ! awk -W version 2>/dev/null </dev/null | grep -q mawk || line_wise=(-W interactive)
  side=$(basename "$1" .log)
  tail -n 0 -F "$@" 2>/dev/null |
    awk ${line_wise[@]+"${line_wise[@]}"} -v least="$LEVEL" -v since="$SINCE" -v host="$HOST" -v following=1 -v side="$side" \
      "$LOGFMT$FITTING"
}

# Counts by message and reason. The sum of a field `dropped` or `samples` says how much each kind of drop took.
# shellcheck disable=SC2016
SUMMARIZE='
{
  side = $2
  line = $0
  sub(/^[^|]*\| /, "", line)
  parse(line, field)
  if (first == "" && $1 != "-") first = $1
  if ($1 != "-") until = $1
  lines++
  if (!("ts" in field)) { kind = "error"; message = "(no line of log: a panic?)" }
  else { kind = field["level"]; message = field["message"] }
  reason = field["reason"]
  if (reason == "") reason = field["error"]
  what = message (reason == "" ? "" : " reason=\"" reason "\"")
  # Order matters: "disconnected" holds "connected".
  if (message ~ /^host (up|down|off)$/) add("hosts up and down", side, what, 1)
  else if (message ~ /drop|lost|discard|refuse|reject|turned away|quarantin|gives up|gave up/) {
    # A line that may come but now and then says how many like it were left out before.
    amount = field["left_out"] != "" ? 1 + field["left_out"] : field["dropped"] != "" ? field["dropped"] : field["samples"] != "" ? field["samples"] : \
      field["lines"] != "" ? field["lines"] : field["count"] != "" ? field["count"] : 1
    add("dropped or refused", side, what, amount + 0)
    # Whoever is refused as a client was connected until then.
    if (message == "client refused") add("disconnections", side, what, 1)
  } else if (message ~ /disconnect|connection.*(closed|ended|lost|broke)|session.*ended|closed the connection|(^| )bye/) {
    add("disconnections", side, what, 1)
  } else if (message ~ /connected|session.*(began|started|open)|welcome|accepted/) add("connections", side, what, 1)
  if (kind == "error") add("errors", side, what, 1)
  if (kind == "warn") add("warnings", side, what, 1)
  if ((kind == "error" || kind == "warn") && field["host"] != "") add("hosts with errors or warnings", side, field["host"], 1)
}
function add(group, side, what, amount,    key) {
  key = group SUBSEP side SUBSEP what
  count[key]++
  sum[key] += amount
  total[group]++
}
END {
  if (!lines) { print "no lines fit"; exit }
  printf "%d lines from %s to %s\n", lines, first, until
  n = split("connections,disconnections,hosts up and down,dropped or refused,errors,warnings,hosts with errors or warnings", groups, ",")
  for (g = 1; g <= n; g++) {
    printf "\n%s: %d\n", groups[g], total[groups[g]]
    sorter = "sort -k1,1nr -k2 | head -n 20"
    for (key in count) {
      split(key, part, SUBSEP)
      if (part[1] != groups[g]) continue
      more = sum[key] != count[key] ? sprintf("  (%d in all)", sum[key]) : ""
      printf "%8d  %-6s  %s%s\n", count[key], part[2], part[3], more | sorter
    }
    close(sorter)
  }
}
'

summary() { sort -s -k 1,1 | awk "$LOGFMT$SUMMARIZE"; }

main "$@"

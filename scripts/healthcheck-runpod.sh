#!/bin/sh
# The health check of a RunPod container: healthy (0) once its start is over and the handler runs, 1 before.
# What the environment is like does not count: a worker that did without the cache is a healthy one.
#
#   healthcheck-runpod.sh [PROC]    PROC stands for /proc
set -u

proc="${1:-/proc}"
script=startup-runpod.sh

# words PID: what the process was started with, a word a line
words() { tr '\0' '\n' <"$proc/$1/cmdline"; }

# starting PID: whether the process is the start-up script itself, and so has not become the handler yet
starting() { case "$(words "$1" | sed -n 2p)" in "$script" | */"$script") return 0 ;; *) return 1 ;; esac }

# Without process 1 there is nothing to say.
words 1 >/dev/null 2>&1 || exit 0
if starting 1; then exit 1; fi
# Under an init, such as docker's, the script is a child of process 1.
words 1 | grep -q "\(^\|/\)$script\$" || exit 0
for status in "$proc"/[0-9]*/status; do
    grep -q '^PPid:[[:space:]]*1$' "$status" 2>/dev/null || continue
    process="${status%/status}"
    if starting "${process##*/}" 2>/dev/null; then exit 1; fi
done
exit 0

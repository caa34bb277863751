#!/usr/bin/env bash
# The entry point of a RunPod container: waits for the volume, brings the environment, starts the handler.
# Needs bash 5 and python3; see docs/STARTUP.md.
set -u

usage() {
    cat <<'TEXT'
usage: startup-runpod.sh [--] COMMAND [ARGUMENT...]
       startup-runpod.sh [OPTION-OF-THE-HANDLER...]

Waits a bounded time for the volume, brings the Python environment (cachepod restore, else install and
publish), then takes its own place with COMMAND, or else with the file for HANDLER_TYPE in HANDLER_DIR, which
gets the options: startup-runpod.sh --rp_serve_api

environment:
    HANDLER_TYPE          which handler: HANDLER_DIR/HANDLER_TYPE.py, else HANDLER_DIR/handler.py
    HANDLER_DIR           where the handlers lie (default: /app/handlers)
    STARTUP_VOLUME_WAIT   seconds to wait for a volume, 0 not to wait (default: 60)
    STARTUP_VOLUME        mount points to wait for, between blanks, besides those of the stores
    STARTUP_PUBLISH       before (default), beside or off: when a new environment is stored
    STARTUP_WARN_AT       percentage of RunPod's limit for a start at which to warn (default: 70)
    RUNPOD_INIT_TIMEOUT   that limit in seconds (default on serverless: 420, elsewhere none)
What is installed and where it is stored is cachepod's configuration: cachepod.toml, CACHEPOD_STORE, ...
TEXT
}

readonly standard_volumes=(/runpod-volume /workspace)
readonly startup_patience=5 # seconds for a phase to end when the container is stopped

say() { printf 'startup: %s\n' "$*" >&2; }

# Milliseconds since the machine started: a clock that nobody sets.
now() {
    local up
    if read -r up _ 2>/dev/null </proc/uptime; then
        moment=$((10#${up/./} * 10))
    else
        moment=$((10#${EPOCHREALTIME//[!0-9]/} / 1000))
    fi
}

# A number of milliseconds, as seconds with one digit after the point.
seconds() { printf '%d.%d' $(($1 / 1000)) $(($1 % 1000 / 100)); }

whole() { # NAME DEFAULT LEAST MOST
    local value="${!1:-$2}"
    if ! [[ $value =~ ^[0-9]{1,6}$ ]] || ((10#$value < $3 || 10#$value > $4)); then
        say "$1 must be a whole number from $3 to $4, not '$value': going on with ${2:-none}"
        value="$2"
    fi
    number="$((10#${value:-0}))"
}

# ---------------------------------------------------------------- phases

stopped() { # NAME CODE
    trap '' TERM INT
    say "stopped by SIG$1 during the phase $current"
    if [ -n "$child" ]; then
        kill -TERM -- "$aim" 2>/dev/null
        local tries
        for ((tries = startup_patience * 20; tries; tries--)); do
            kill -0 "$child" 2>/dev/null || break
            read -r -t 0.05 <&"$pipe"
        done
        kill -KILL -- "-$child" 2>/dev/null
    fi
    exit "$2"
}

begin() {
    current="$1"
    [ -z "$watchdog" ] || printf '%s\n' "$1" >&"$alive"
    now
    began="$moment"
}

finish() {
    now
    took="$(seconds $((moment - began)))"
    summary+="${summary:+, }$current $took"
}

# Runs a command beside this shell, so that a signal is not held up by it; its exit code in $code.
run() { # process|group COMMAND...
    local whom="$1"
    shift
    set -m # a process group of its own
    "$@" </dev/null {alive}>&- &
    child=$!
    set +m
    aim="$child"
    [ "$whom" = process ] || aim="-$child"
    wait "$child"
    code=$?
    child=""
}

# Prints what a JSON document on stdin says, one NAME=VALUE a line.
# shellcheck disable=SC2016
readonly startup_reader='
import json, sys
try:
    told = json.load(sys.stdin)
except ValueError:
    sys.exit()
def out(name, value):
    if value not in (None, "", [], {}):
        for each in value if isinstance(value, list) else [value]:
            print(name + "=" + str(each).replace("\n", " "))
out("kind", told.get("kind"))
settings = told.get("settings")
if settings:
    for name in ("prefix", "store", "fill", "handler"):
        out(name, settings.get(name))
    out("given", "store" if told["sources"].get("store", "default") != "default" else "")
    needs = [settings.get(name) for name in ("requirements", "packages", "lock")]
    out("environment", "yes" if any(needs) else "")
    more = [settings.get(name) for name in ("trees", "apt", "toolkit")]
    out("anything", "yes" if any(needs + more) else "")
'

# Runs a cachepod command with --json and leaves what it says on the pipe, its exit code last.
ask() {
    trap : TERM INT # the command ends first, then this shell
    "$@" --json | python3 -I -S -c "$startup_reader" >&"$pipe"
    local codes=("${PIPESTATUS[@]}")
    printf 'end=%s\n' "${codes[0]}" >&"$pipe"
}

# Sets $code, $kind and what a configuration says.
answer() {
    local line told=()
    kind="" code=1
    while IFS= read -r -t 5 line <&"$pipe"; do
        case "$line" in
        end=*)
            code="${line#end=}"
            break
            ;;
        *) told+=("$line") ;;
        esac
    done
    for line in "${told[@]+"${told[@]}"}"; do
        case "$line" in
        kind=*) kind="${line#*=}" ;;
        prefix=*) prefix="${line#*=}" ;;
        store=*) stores+=("${line#*=}") ;;
        fill=*) fill="${line#*=}" ;;
        given=*) stores_given=1 ;;
        environment=*) environment=1 ;;
        anything=*) anything=1 ;;
        esac
    done
}

# ---------------------------------------------------------------- RunPod's limit

# Reads the names of phases and warns while one of them takes too long. Ends with the pipe.
watch() {
    trap - TERM INT
    local name="" line left mark
    for mark in "$warn_at" "$limit"; do
        while now && left=$((mark - (moment - started) / 1000)) && [ "$left" -gt 0 ]; do
            if IFS= read -r -t "$left" line; then
                name="$line"
            elif [ $? -le 128 ]; then
                return
            fi
        done
        if [ "$mark" = "$limit" ]; then
            say "warning: ${limit} s have passed without a handler: RunPod may take this worker for unhealthy now"
        else
            say "warning: $mark of the $limit s that RunPod gives a worker to start have passed, in the phase $name;" \
                "raise RUNPOD_INIT_TIMEOUT on the endpoint, or let a pod with the same volume publish the snapshot first"
        fi
    done
}

# ---------------------------------------------------------------- volumes

# Whether a file system is mounted at or above a path, other than the container's own; where the path lies on a
# volume, it is that volume.
mounted() {
    local point rest
    volume_of "$1"
    while read -r _ _ _ _ point rest; do
        printf -v point '%b' "${point//\\/\\0}"
        [ "$point" != / ] || continue
        case "$point/" in "$volume"/*) ;; *) continue ;; esac
        case "$1/" in "$point"/*) return 0 ;; esac
    done </proc/self/mountinfo
    return 1
}

# Where the volume is mounted, sooner or later, that a path lies on; empty where it lies on none.
volume_of() {
    for volume in "${standard_volumes[@]}" "${extra_volumes[@]+"${extra_volumes[@]}"}"; do
        case "$1/" in "$volume"/*) return 0 ;; esac
    done
    volume=""
    return 1
}

# The directory of a store; nothing for one in S3.
directory() {
    local path="$1"
    case "$path" in
    file://localhost/*) path="${path#file://localhost}" ;;
    file:///*) path="${path#file://}" ;;
    *://*)
        place=""
        return
        ;;
    esac
    case "$path" in
    [~] | [~]/*) path="${HOME:-}${path#[~]}" ;;
    /*) ;;
    *) path="$PWD/$path" ;;
    esac
    while [[ $path == *//* ]]; do path="${path//\/\//\/}"; done
    place="${path%/}"
}

# Whether there is what a path needs: its mount, or elsewhere the folder that it lies in. A mounted
# volume is not looked into, for it may be wedged.
ready() {
    if mounted "$1"; then return 0; fi
    if volume_of "$1"; then return 1; fi
    [ -d "$1" ] || [ -d "${1%/*}/" ]
}

# Waits for all of the paths, or with "any" for one of them, as long as there is time.
await() { # all|any PATH...
    local mode="$1" path lacking notice=""
    shift
    while :; do
        lacking=()
        for path in "$@"; do ready "$path" || lacking+=("$path"); done
        if [ ${#lacking[@]} = 0 ] || { [ "$mode" = any ] && [ ${#lacking[@]} -lt $# ]; }; then
            [ -n "$notice" ] || return 0
            finish
            say "volume: there after $took s"
            return 0
        fi
        now
        if ((moment >= volume_deadline)); then
            [ -z "$notice" ] || finish
            return 1
        fi
        if [ -z "$notice" ]; then
            begin volume
            notice="${lacking[*]}"
            [ "$mode" = all ] || notice="one of $notice"
            say "volume: waiting up to $(((volume_deadline - moment + 999) / 1000)) s for $notice"
        fi
        read -r -t 0.25 <&"$pipe"
    done
}

# Waits for everything that the environment's variables name on a volume.
await_named() {
    local word paths=()
    # shellcheck disable=SC2086
    set -f -- ${CACHEPOD_STORE:-}
    set +f
    for word in "$@"; do
        directory "$word"
        [ -z "$place" ] || paths+=("$place")
    done
    for word in "${CACHEPOD_CONFIG:-}" "${HANDLER_DIR:-}"; do
        if [ -n "$word" ]; then
            directory "$word"
            if volume_of "$place"; then paths+=("$place"); fi
        fi
    done
    paths+=("${extra_volumes[@]+"${extra_volumes[@]}"}")
    [ ${#paths[@]} = 0 ] || await all "${paths[@]}"
}

# Waits for the stores; what is left of them in $usable, and $dropped if some are not.
await_stores() {
    local store paths=()
    usable=() dropped=""
    if [ -z "$stores_given" ]; then
        # cachepod's own choice: a volume if there is one, else a folder that goes with the container.
        usable=("${stores[@]+"${stores[@]}"}")
        [ -n "${RUNPOD_POD_ID:-}${RUNPOD_ENDPOINT_ID:-}" ] || return 0
        if ! await any "${standard_volumes[@]}"; then
            usable=() dropped="no volume is mounted at ${standard_volumes[0]} or ${standard_volumes[1]}"
        fi
        return 0
    fi
    for store in "${stores[@]}"; do
        directory "$store"
        [ -z "$place" ] || paths+=("$place")
    done
    [ ${#paths[@]} = 0 ] || await all "${paths[@]}"
    for store in "${stores[@]}"; do
        directory "$store"
        if [ -z "$place" ] || ready "$place"; then
            usable+=("$store")
        elif volume_of "$place"; then
            dropped+="${dropped:+, }no volume is mounted for the store $place"
        else
            dropped+="${dropped:+, }there is no folder ${place%/*} for the store $place"
        fi
    done
}

# ---------------------------------------------------------------- the handler

# What is to be started, in the array "handler"; says what can be given where there is nothing.
choose_handler() {
    local folder="${HANDLER_DIR:-/app/handlers}" type="${HANDLER_TYPE:-}" file known=""
    for file in "$folder"/*.py; do
        [ -e "$file" ] || continue
        file="${file##*/}"
        case "$file" in _*) continue ;; esac # a module that handlers share
        known+="${known:+, }${file%.py}"
    done
    known="${known:-none}"
    if [ -n "$type" ] && ! [[ $type =~ ^[A-Za-z0-9][A-Za-z0-9_.-]*$ ]]; then
        say "HANDLER_TYPE is not a name of letters, digits, '_', '.' and '-'; there are in $folder: $known"
        exit 2
    fi
    if [ -n "$type" ] && [ -f "$folder/$type.py" ]; then
        handler=(python -u "$folder/$type.py")
    elif [ -f "$folder/handler.py" ]; then
        [ -n "$type" ] || say "HANDLER_TYPE is empty: starting $folder/handler.py"
        handler=(python -u "$folder/handler.py")
    elif [ -n "$type" ]; then
        say "there is no handler for HANDLER_TYPE=$type: neither $folder/$type.py nor $folder/handler.py exists;" \
            "there are in $folder: $known"
        exit 2
    else
        say "nothing to start: HANDLER_TYPE is empty and there is no command;" \
            "set HANDLER_TYPE to one of the handlers in $folder ($known), or give a command"
        exit 2
    fi
}

# Which environment there is to start the handler in: "cachepod", "plain" or none.
launch() {
    now
    local total=$((moment - started)) share="" init=""
    if [ "$limit" -gt 0 ]; then share=", $((total / limit / 10)) % of the $limit s that RunPod allows"; fi
    case "${handler[*]:0:2}" in
    "python -u") say "ready after $(seconds "$total") s (${summary:-nothing to do})$share: starting ${handler[2]}" ;;
    *) say "ready after $(seconds "$total") s (${summary:-nothing to do})$share: starting ${handler[0]}" ;;
    esac
    exec {alive}>&-
    [ -z "$watchdog" ] || wait "$watchdog"
    case "$made_by" in
    cachepod) handler=(cachepod run "${with_prefix[@]+"${with_prefix[@]}"}" -- "${handler[@]}") ;;
    plain)
        export VIRTUAL_ENV="$prefix" PATH="$prefix/bin:$PATH"
        unset PYTHONHOME
        ;;
    *) # an interpreter of the image's own
        if [ "${handler[0]}" = python ] && ! type -P python >/dev/null; then handler[0]=python3; fi
        ;;
    esac
    # Process 1 has to reap what others leave, and a signal that it does not handle is lost: a handler
    # is spared both where the image has a program for it.
    [ $$ != 1 ] || for init in tini dumb-init catatonit; do
        if type -P "$init" >/dev/null; then
            handler=("$init" -- "${handler[@]}")
            break
        fi
        init=""
    done
    hand_over
    exec {pipe}>&-
    startup_command=("${handler[@]}")
}

# ---------------------------------------------------------------- publish

# The publish, in a process that is nobody's child, so that the handler has nothing to reap: where it
# would become the child of a handler that is process 1, it stays until the end instead.
publish_apart() {
    local stays="" result
    trap 'stays=1' USR1
    trap - TERM INT
    now
    began="$moment"
    cachepod publish "${with_store[@]+"${with_store[@]}"}" "${with_prefix[@]+"${with_prefix[@]}"}" </dev/null
    result=$?
    finish
    case "$result" in
    0) say "publish: done in $took s" ;;
    *) say "publish: $(meaning "$result") after $took s: the next new container installs again" ;;
    esac
    printf 'published=%s\n' "$took" >&"$pipe"
    if [ -n "$stays" ]; then
        exec {pipe}>&-
        exec sleep infinity >/dev/null 2>&1
    fi
}

start_publish() {
    begin publish
    set -m
    (
        set -m
        publish_apart {alive}>&- &
        printf 'publisher=%s\n' "$!" >&"$pipe"
    )
    set +m
    local line
    IFS= read -r -t 5 line <&"$pipe"
    publisher="${line#publisher=}"
}

# Waits for it until the handler should not wait any longer.
await_publish() {
    local line left
    child="$publisher" aim="-$publisher"
    while :; do
        now
        left=$((warn_at - (moment - started) / 1000))
        if [ "$limit" -gt 0 ] && [ "$left" -le 0 ]; then
            say "publish: goes on beside the handler, for $warn_at s have passed since the start"
            break
        fi
        if [ "$limit" -gt 0 ] && [ "$left" -lt 2 ]; then :; else left=2; fi
        if IFS= read -r -t "$left" line <&"$pipe"; then
            summary+="${summary:+, }publish ${line#published=}"
            # Until it is reaped, which this shell does as process 1, and init otherwise.
            for ((left = 100; left; left--)); do
                kill -0 "$publisher" 2>/dev/null || break
                read -r -t 0.02 <&"$pipe"
            done
            publisher=""
            break
        fi
        if ! kill -0 "$publisher" 2>/dev/null; then # killed; but it may have said something just now
            IFS= read -r -t 0.1 line <&"$pipe" || say "publish: was killed: the next new container installs again"
            publisher=""
            break
        fi
    done
    child=""
}

# What still publishes stands back for the handler.
hand_over() {
    [ -n "$publisher" ] || return 0
    [ $$ != 1 ] || [ -n "$init" ] || kill -USR1 "$publisher" 2>/dev/null
    renice -n 15 -g "$publisher" >/dev/null 2>&1
    ionice -c 3 -P "$publisher" >/dev/null 2>&1
}

# ---------------------------------------------------------------- what went wrong

meaning() {
    case "$1" in
    0) echo "gave no answer" ;;
    1) echo "failed" ;;
    2) echo "the configuration cannot be used" ;;
    3) echo "miss" ;;
    4) echo "a relative, to be topped up" ;;
    5) echo "the store could not be reached" ;;
    6) echo "the snapshot is damaged" ;;
    7) echo "there is not enough space" ;;
    124) echo "did not end in time" ;;
    126 | 127) echo "cachepod could not be started" ;;
    129 | 13? | 14? | 15?) echo "was killed by signal $(($1 - 128))" ;;
    *) echo "failed with exit code $1" ;;
    esac
}

# The part of the configuration that concerns caching alone, and that a worker can do without.
forget_caching() {
    local name
    for name in STORE LEVEL THREADS DIRECT TIMEOUT WAIT MIN_FREE FILL KEEP_LAST MAX_AGE MAX_SIZE KEEP GRACE \
        SIGNING_KEY TRUSTED_KEYS; do
        unset "CACHEPOD_$name"
    done
}

ask_configuration() {
    prefix="" stores=() stores_given="" fill="" environment="" anything=""
    run group ask timeout --foreground -k 5 60 cachepod config -q
    answer
}

configure() {
    begin configuration
    local needed
    for needed in cachepod python3; do
        if ! type -P "$needed" >/dev/null; then
            say "there is no $needed on the PATH: installing without cachepod"
            broken=1 caching=""
            return
        fi
    done
    ask_configuration
    if [ "$code" = 2 ]; then
        forget_caching
        ask_configuration 2>/dev/null
        if [ "$code" = 0 ]; then
            say "the variables about caching cannot be used as they are: this start does without a cache"
            caching=""
            return
        fi
        say "the configuration cannot be used, as said above: mend it; nothing was installed"
        exit 2
    fi
    if [ "$code" != 0 ] || [ -z "$prefix" ]; then
        say "cachepod does not work here ($(meaning "$code")): installing without it"
        broken=1 caching=""
    fi
}

# A prefix that can be written to: the configured one, else one in a temporary directory.
choose_prefix() {
    local folder="$prefix"
    [ -n "$environment" ] || return 0
    [ ! -e "$prefix/.cachepod/stamp.json" ] || return 0
    until [ -e "$folder" ] || [ -z "$folder" ]; do folder="${folder%/*}"; done
    [ ! -w "${folder:-/}" ] || return 0
    for folder in "${TMPDIR:-/tmp}" /tmp /var/tmp /dev/shm; do
        # Not what somebody else has put there.
        if [ -e "$folder/cachepod-env" ] && [ ! -O "$folder/cachepod-env" ]; then continue; fi
        if [ -d "$folder" ] && [ -w "$folder" ]; then
            say "$prefix cannot be written to: the environment goes to $folder/cachepod-env instead"
            prefix="$folder/cachepod-env"
            with_prefix=(--prefix "$prefix")
            return
        fi
    done
    say "$prefix cannot be written to, nor any temporary directory: the installation will fail"
}

plain_install() {
    local script="${BASH_SOURCE[0]%/*}/install-runpod-deps.sh"
    [ -f "$script" ] || script="$(type -P install-runpod-deps.sh)"
    if [ -z "$script" ]; then
        say "there is no install-runpod-deps.sh beside this script or on the PATH"
        exit 1
    fi
    begin "plain install"
    local manner=--plain
    [ -z "$broken" ] || manner=--alone
    run process bash "$script" "$manner" ${prefix:+--prefix "$prefix"} >&"$pipe"
    finish
    if [ "$code" != 0 ]; then
        say "plain install: failed with exit code $code after $took s: there is nothing to start the handler in"
        exit "$code"
    fi
    local line
    if IFS= read -r -t 0.1 line <&"$pipe"; then
        prefix="$line" made_by=plain
    fi
    say "plain install: done in $took s, without the cache"
}

restore_all() {
    begin restore
    run process cachepod restore "${with_store[@]+"${with_store[@]}"}" "${with_prefix[@]+"${with_prefix[@]}"}"
    finish
    case "$code" in
    0) say "restore: hit in $took s" ;;
    *) say "restore: $(meaning "$code") after $took s: installing" ;;
    esac
}

install_all() {
    begin install
    run group ask cachepod install "${with_prefix[@]+"${with_prefix[@]}"}"
    answer
    if [ "$code" = 7 ]; then
        # Half of this is a reserve that is kept free: a worker on a crowded disk is better than none.
        say "install: $(meaning 7): trying again without a reserve"
        CACHEPOD_MIN_FREE=0 run group ask cachepod install "${with_prefix[@]+"${with_prefix[@]}"}"
        answer
    fi
    finish
    if [ "$code" = 0 ]; then
        say "install: done in $took s"
        return 0
    fi
    say "install: $(meaning "$code") after $took s"
    case "$code:$kind" in
    # What is asked for cannot be had, or the machine has no room for it: no other installer can help.
    2:* | 7:*) exit "$code" ;;
    1:unexpected | 1:ForeignDirectory | 1:TreeUnreadable | 1:) ;;
    1:*) exit "$code" ;;
    esac
    caching="" # nothing that cachepod has not made is published
    plain_install
}

# All of it but the end. What is remembered is local, so that no variable of the user's is changed for the handler.
main() {
    # What is to be started, in which environment, and how the script was set.
    local handler=() options=() made_by="" limit warn_at publish volume_deadline extra_volumes=()
    # The clock, the phase that runs, its process group, and what a signal is sent to: the process or all of the group.
    local started moment began took current="start" summary="" child="" aim="" code kind="" number
    # Pipes and processes beside this one.
    local pipe alive watchdog="" publisher=""
    # What cachepod has said, and what has been found of it.
    local prefix="" stores=() stores_given="" fill="" environment="" anything="" caching=1 broken=""
    local usable=() dropped="" place="" volume="" with_store=() with_prefix=() each share

    case "${1:-}" in
    -h | --help)
        usage
        exit 0
        ;;
    --) shift ;;
    -*)
        options=("$@")
        set --
        ;;
    esac
    handler=("$@")

    now
    started="$moment"
    # A pipe with both ends, for what phases have to tell, and to sleep at without a process.
    exec {pipe}<> <(:)
    trap 'stopped TERM 143' TERM
    trap 'stopped INT 130' INT

    whole STARTUP_VOLUME_WAIT 60 0 3600
    volume_deadline=$((started + number * 1000))
    whole STARTUP_WARN_AT 70 1 100
    share="$number"
    if [ -n "${RUNPOD_ENDPOINT_ID:-}${RUNPOD_INIT_TIMEOUT:-}" ]; then
        whole RUNPOD_INIT_TIMEOUT 420 1 86400
        limit="$number"
    else
        limit=0
    fi
    warn_at=$((limit * share / 100))
    publish="${STARTUP_PUBLISH:-before}"
    case "$publish" in
    before | beside | off) ;;
    *)
        say "STARTUP_PUBLISH must be before, beside or off, not '$publish': going on with before"
        publish=before
        ;;
    esac
    set -f
    # shellcheck disable=SC2206
    extra_volumes=(${STARTUP_VOLUME:-})
    set +f
    extra_volumes=("${extra_volumes[@]%/}")
    if [ "$limit" -gt 0 ]; then
        exec {alive}> >(watch)
        watchdog=$!
    else
        exec {alive}>/dev/null
    fi

    await_named
    if [ ${#handler[@]} = 0 ]; then
        choose_handler
        handler+=("${options[@]+"${options[@]}"}")
    fi
    configure
    if [ -n "$broken" ]; then
        plain_install
        launch
        return
    fi
    if [ -z "$anything" ]; then
        say "nothing is configured to be installed: starting as it is"
        launch
        return
    fi
    if [ -n "$caching" ]; then
        await_stores
        if [ ${#usable[@]} = 0 ]; then
            say "$dropped: this start does without a cache"
            caching=""
        elif [ -n "$dropped" ]; then
            say "$dropped: going on with the other stores"
            for each in "${usable[@]}"; do with_store+=(--store "$each"); done
        fi
    fi
    choose_prefix
    [ -z "$environment" ] || made_by=cachepod

    code=3
    [ -z "$caching" ] || restore_all
    if [ "$code" != 0 ]; then
        install_all
    elif [ "$fill" != after ] || [ ${#usable[@]} -lt 2 ]; then
        caching="" # what was restored is stored
    fi
    if [ -n "$caching" ] && [ "$publish" != off ]; then
        start_publish
        [ "$publish" = beside ] || await_publish
    fi
    launch
}

startup_command=()
main "$@"
trap - TERM INT
exec "${startup_command[@]}"

#!/usr/bin/env bash
# Installs what a handler needs, without the cache: the part of a cold start that can stand alone.
# Needs bash and python3; see docs/STARTUP.md.
set -u

usage() {
    cat <<'TEXT'
usage: install-runpod-deps.sh [OPTION...] [PACKAGE...]

Makes a virtual environment and installs packages into it, with the configuration that cachepod has
(cachepod.toml, CACHEPOD_REQUIREMENTS, HANDLER_TYPE, ...). Where cachepod works it is asked to do so;
where it does not, uv or pip and apt-get do it. Prints the environment's directory.

    -r FILE         a file of requirements; repeatable
    --prefix DIR    where the environment shall lie (default: the configuration's, else .venv)
    --handler NAME  the kind of worker (default: HANDLER_TYPE)
    --cuda X.Y      the CUDA release that torch is to be built for
    --apt PACKAGE   a Debian package; repeatable, for root only
    --plain         do not leave it to cachepod, but let it tell the configuration
    --alone         do not ask cachepod for anything
TEXT
}

say() { printf 'install: %s\n' "$*" >&2; }

fail() { # CODE SENTENCE
    say "$2"
    exit "$1"
}

child=""

stopped() { # CODE
    trap '' TERM INT
    [ -z "$child" ] || { kill -TERM "$child" && wait "$child"; } 2>/dev/null
    exit "$1"
}

# Runs a command so that a signal is not held up by it.
run() {
    "$@" </dev/null &
    child=$!
    wait "$child"
    code=$?
    child=""
    return "$code"
}

# ---------------------------------------------------------------- what is asked for

# Prints NAME=VALUE records, each ended by a null byte: from what `cachepod config --json` has said, or else from the
# variables and the configuration file themselves.
# shellcheck disable=SC2016
readonly reader='
import glob, importlib.util, json, os, pathlib, re, shutil, sys

LISTS = ("requirements", "packages", "apt", "extra_index_urls", "find_links", "flash_attn", "flash_attn_sources", "check")
TEXTS = ("prefix", "lock", "python", "cuda", "torch_index", "index_url", "handler", "apt_missing", "flash_attn_missing",
         "without_gpu")
# The CUDA release of the wheels of torch on PyPI, as cachepod/environment/torch.py has it.
ON_PYPI = {"2.0": "11.7", "2.1": "12.1", "2.2": "12.1", "2.3": "12.1", "2.4": "12.1", "2.5": "12.4", "2.6": "12.4",
           "2.7": "12.6", "2.8": "12.8", "2.9": "12.8", "2.10": "12.8", "2.11": "13.0", "2.12": "13.0", "2.13": "13.0",
           "2.14": "13.0", "2.15": "13.2"}
PATHS = ("requirements", "prefix", "lock", "find_links", "flash_attn_sources")

def stop(sentence):
    print("install: " + sentence, file=sys.stderr)
    sys.exit(2)

def toml():
    for name in ("tomllib", "tomli", "pip._vendor.tomli"):
        try:
            return __import__(name, fromlist=["loads"])
        except ImportError:
            pass
    stop("no module of this Python reads TOML: put the configuration into variables, or give -r FILE")

def table(path):
    parser = toml()
    try:
        with open(path, encoding="utf-8-sig") as file:
            found = parser.loads(file.read())
    except (OSError, ValueError) as error:
        stop(f"{path} cannot be read: {error}")
    if os.path.basename(path) == "pyproject.toml":
        found = found.get("tool", {}).get("cachepod")
    return found

def by_file():
    named = os.environ.get("CACHEPOD_CONFIG", "")
    if named:
        if not os.path.exists(named):
            stop(f"CACHEPOD_CONFIG: the file {named} does not exist")
        return os.path.dirname(os.path.abspath(named)), (table(named) if os.path.isfile(named) else {}) or {}
    folder = os.getcwd()
    while True:
        for name in ("cachepod.toml", "pyproject.toml"):
            path = os.path.join(folder, name)
            if os.path.isfile(path):
                found = table(path)
                if found is not None:
                    return folder, found
        if folder == "/":
            return os.getcwd(), {}
        folder = os.path.dirname(folder)

def as_list(value):
    return [value] if isinstance(value, str) else list(value or ())

def absolute(value, folder):
    return os.path.join(folder, os.path.expanduser(value)) if "://" not in value else value

def beside_cachepod():
    """The folder of packages that cachepod lies in, to be had even where cachepod does not work; or nothing."""
    program = shutil.which("cachepod")
    places = glob.glob(os.path.realpath(program) + "/../../lib/python3*/site-packages") if program else []
    places += glob.glob("/opt/cachepod/lib/python3*/site-packages")
    spec = importlib.util.find_spec("cachepod")
    places += [os.path.dirname(each) for each in spec.submodule_search_locations or ()] if spec else []
    return next((each for each in places if os.path.isfile(each + "/cachepod/environment/profiles.json")), "")

def built_in():
    """The profiles that come with cachepod."""
    if not beside:
        return {}
    with open(beside + "/cachepod/environment/profiles.json", encoding="utf-8") as file:
        document = json.load(file)
    return {**document["bases"], **document["handlers"]}

def profile_of(handler, tables, ours):
    """What a handler needs, its bases joined with it; nothing where there is no such profile."""
    layers, name, own = [], handler, True
    while name and len(layers) < 20:
        layer = tables.get(name) if own else None
        if layer is None:
            layer, own = ours.get(name), False
        if layer is None:
            break
        layers.append(layer)
        base = layer.get("base", name if own and name in ours else "")
        own, name = own and base != name, base
    made = {}
    for layer in reversed(layers):
        without = {plain_name(each) for each in as_list(layer.get("without"))}
        for key in ("packages", "apt", "check"):
            made[key] = [each for each in made.get(key, []) if plain_name(each) not in without]
        for key, value in layer.items():
            if key in LISTS:
                made[key] = without_names_of(as_list(value), made.get(key, [])) + as_list(value)
            else:
                made[key] = value
    return made

def without_names_of(lines, others):
    """Those of others that are about something else than lines."""
    names = {plain_name(line) for line in lines} - {""}
    return [each for each in others if plain_name(each) not in names]

def plain_name(line):
    return re.sub(r"[-_.]+", "-", re.match(r"\s*([\w.-]*)", line)[1]).lower()

def gather():
    root, file = by_file()
    handler = os.environ.get("CACHEPOD_HANDLER") or os.environ.get("HANDLER_TYPE") or file.get("handler", "")
    tables = file.get("handlers") or {}
    profile = profile_of(handler, tables, built_in()) if handler else {}
    tabled = profile_of(handler, tables, {})
    found = {"prefix": os.path.join(root, ".venv")}
    for name in LISTS + TEXTS:
        given, folder = os.environ.get("CACHEPOD_" + name.upper(), "").strip(), os.getcwd()
        if name in LISTS:
            value = given.split() if given else as_list(file.get(name))
            folder = folder if given else root
            value += without_names_of(value, as_list(profile.get(name)))
        elif given:
            value = given
        else:
            value, folder = tabled.get(name) or file.get(name) or profile.get(name), root
        if name in PATHS and value:
            value = [absolute(each, folder) for each in value] if name in LISTS else absolute(value, folder)
        if value:
            found[name] = value
    found["handler"] = handler
    known = handler and (profile or found.get("requirements") or found.get("packages") or found.get("lock"))
    if handler and not known:
        print(f"install: nothing says what the handler {handler} needs: name it with -r FILE or"
              " CACHEPOD_REQUIREMENTS", file=sys.stderr)
    return found

told = sys.argv[1]
beside = beside_cachepod()
sys.path += [beside] if beside else []  # it may have the reader of TOML that this Python lacks
found = json.loads(told)["settings"] if told else gather()
for name in ("index_url", "extra_index_urls"):
    if "***" in str(found.get(name) or ""):
        given = os.environ.get("CACHEPOD_" + name.upper(), "")
        if not given:
            print(f"install: {name} holds credentials that only cachepod knows: going on without it", file=sys.stderr)
        found[name] = given.split() if name in LISTS else given

found["find_links"] = [
    each if "://" in each else pathlib.Path(each).as_uri() for each in as_list(found.get("find_links"))
]

# A line in a file is the last word about a distribution that a profile names, too.
in_files = []
for path in as_list(found.get("requirements")) + as_list(found.get("lock")):
    try:
        with open(path, encoding="utf-8") as file:
            in_files += file.read().splitlines()
    except OSError as error:
        stop(f"the requirements file {path} cannot be read: {error.strerror.lower()}")
    except ValueError:
        stop(f"the requirements file {path} is not UTF-8 text")
found["packages"] = without_names_of(in_files, as_list(found.get("packages")))
asked = found["packages"] + in_files

# Which of the indexes has torch for the release of CUDA that is asked for.
cuda, index = found.get("cuda") or "", found.get("torch_index") or "auto"
if cuda and not re.fullmatch(r"\d{1,2}\.\d{1,2}", cuda):
    stop(f"the CUDA release {cuda!r} is not of the form 12.6")
pins = [match[1] for line in asked if (match := re.match(r"\s*torch\s*===?\s*(\d+\.\d+)", line))]
usual = ON_PYPI.get(pins[0] if pins else "")
backend = "cu" + (cuda or usual or "").replace(".", "")
unwanted = found.get("without_gpu") if not glob.glob("/dev/nvidia[0-9]*") + glob.glob("/proc/driver/nvidia/gpus/*") else ""
if unwanted == "none":
    print("install: without_gpu = none is known to cachepod alone: torch is installed if it is asked for", file=sys.stderr)
elif unwanted == "cpu":
    backend, found["flash_attn"] = "cpu", []
    found["packages"] = without_names_of(["flash-attn"], found["packages"])
if index == "auto":
    index = f"https://download.pytorch.org/whl/{backend}" if unwanted == "cpu" or (cuda and cuda != usual) else ""
elif index == "pypi":
    index = ""
elif "{backend}" in index:
    if backend == "cu":
        stop("{backend} in torch_index stands for a CUDA release, and none is configured: name one with --cuda")
    index = index.replace("{backend}", backend)
if index and any(re.match(r"\s*torch(vision|audio)?\b", line) for line in asked):
    found["torch_url"] = index
for name, value in found.items():
    if value and (name in LISTS or name in TEXTS or name == "torch_url"):
        for each in as_list(value):
            sys.stdout.write(f"{name}={each}\0")
'

read_settings() { # JSON
    local record records
    requirements=() packages=() apt=() extra_index_urls=() find_links=() flash_attn=() flash_attn_sources=() check=()
    prefix="" lock="" python="" index_url="" torch_url="" apt_missing=error flash_attn_missing=error
    exec {records}< <(python3 -I -c "$reader" "$1" && printf 'end=\0')
    while IFS= read -r -d '' record <&"$records"; do
        case "$record" in
        end=) return 0 ;;
        prefix=* | lock=* | python=* | index_url=* | torch_url=* | apt_missing=* | flash_attn_missing=*)
            printf -v "${record%%=*}" '%s' "${record#*=}"
            ;;
        requirements=*) requirements+=("${record#*=}") ;;
        packages=*) packages+=("${record#*=}") ;;
        apt=*) apt+=("${record#*=}") ;;
        extra_index_urls=*) extra_index_urls+=("${record#*=}") ;;
        find_links=*) find_links+=("${record#*=}") ;;
        flash_attn=*) flash_attn+=("${record#*=}") ;;
        flash_attn_sources=*) flash_attn_sources+=("${record#*=}") ;;
        check=*) check+=("${record#*=}") ;;
        esac
    done
    exit 2
}

# ---------------------------------------------------------------- apt

install_apt() {
    local package missing=()
    for package in "${apt[@]}"; do
        case "$package" in
        nvidia-driver* | nvidia-open* | nvidia-kernel* | nvidia-dkms* | libnvidia-* | libcuda1* | cuda-drivers* | cuda | cuda-[0-9]*)
            fail 2 "the apt package $package brings a driver, which is the host's to install: leave it out"
            ;;
        esac
        [ "$(dpkg-query -W -f '${db:Status-Status}' "${package%%=*}" 2>/dev/null)" = installed ] || missing+=("$package")
    done
    [ ${#missing[@]} -gt 0 ] || return 0
    local why=""
    if ! type -P apt-get >/dev/null; then
        why="there is no apt-get here"
    elif [ "$(id -u)" != 0 ]; then
        why="only root can install them"
    else
        export DEBIAN_FRONTEND=noninteractive
        local wait=(-o DPkg::Lock::Timeout=60)
        say "apt packages: ${missing[*]}"
        run apt-get -qq "${wait[@]}" update >&2 || say "the lists of apt packages could not be brought up to date"
        run apt-get -qq -y "${wait[@]}" install --no-install-recommends "${missing[@]}" >&2 ||
            why="apt-get failed with exit code $code, as said above"
    fi
    [ -n "$why" ] || return 0
    if [ "$apt_missing" = warning ]; then
        say "warning: going on without the apt packages ${missing[*]}: $why"
    else
        fail 1 "the apt packages ${missing[*]} are not installed: $why"
    fi
}

# ---------------------------------------------------------------- Python packages

# The directory of the environment: new, or one that is there already, even another's.
make_environment() {
    local base="${python:-python3}" state="$prefix/.cachepod/stamp.json"
    type -P "$base" >/dev/null || fail 1 "there is no interpreter $base to make the environment with"
    if [ -e "$prefix" ] && ! [ -d "$prefix" ]; then fail 1 "$prefix is not a directory"; fi
    local working=""
    [ -x "$prefix/bin/python" ] && run "$prefix/bin/python" -I -c '' 2>/dev/null && working=1
    if [ -e "$state" ] && ! grep -q '"state": *"\(complete\|installed\|plain\)"' "$state"; then working=""; fi
    if [ -z "$working" ]; then
        if [ -d "$prefix" ] && [ ! -e "$state" ] && [ ! -e "$prefix/pyvenv.cfg" ] &&
            [ -n "$(ls -A -I lost+found -- "$prefix")" ]; then
            fail 1 "$prefix is not empty and is no virtual environment; give another --prefix"
        fi
        mkdir -p -- "$prefix" || fail 1 "$prefix cannot be made or written to; give another --prefix"
        run "$base" -I -m venv --clear --without-pip --symlinks "$prefix" >&2 ||
            fail "$(space_or 1)" "$base cannot make a virtual environment at $prefix: is the module venv installed, and the place writable?"
    fi
    # For cachepod, what lies here is unfinished: it replaces it and never publishes it.
    if ! mkdir -p -- "$prefix/.cachepod" || ! printf '{"state": "plain"}\n' >"$state"; then
        fail "$(space_or 1)" "$prefix cannot be written to; give another --prefix"
    fi
}

# 7 if the disk of the prefix is full, else the given code.
space_or() {
    local free
    free="$(df -Pk -- "$prefix" 2>/dev/null | awk 'END { print $4 }')"
    if [ "${free:-999999}" -lt 20480 ] 2>/dev/null; then echo 7; else echo "$1"; fi
}

find_installer() {
    local pip own
    own="$(readlink -f "$(type -P cachepod)")" # which may have brought a uv
    for uv in "$(type -P uv)" "${own%/*}/uv" /opt/cachepod/bin/uv \
        "$(python3 -c 'import uv; print(uv.find_uv_bin())' 2>/dev/null)"; do
        if [ -x "$uv" ] && run "$uv" --version >/dev/null 2>&1; then
            installer=("$uv" pip install --python "$prefix/bin/python" --cache-dir "$work/cache")
            installer+=(--no-progress --color never)
            return
        fi
    done
    uv=""
    run "$prefix/bin/python" -I -m ensurepip >/dev/null 2>&1
    for pip in own base; do
        installer=("$prefix/bin/python" -m pip)
        [ "$pip" = own ] || installer=(python3 -m pip --python "$prefix/bin/python")
        if run "${installer[@]}" --version >/dev/null 2>&1; then
            installer+=(install --no-cache-dir --progress-bar off --no-warn-script-location --disable-pip-version-check)
            return
        fi
    done
    fail 1 "there is neither uv nor pip: install one of them, or Python's module ensurepip"
}

install_packages() {
    local each options=()
    find_installer
    installer+=(--only-binary flash-attn) # never from source
    {
        [ -z "$index_url" ] || printf -- '--index-url %s\n' "$index_url"
        for each in "${extra_index_urls[@]+"${extra_index_urls[@]}"}" ${torch_url:+"$torch_url"}; do
            printf -- '--extra-index-url %s\n' "$each"
        done
        for each in "${find_links[@]+"${find_links[@]}"}"; do printf -- '--find-links %s\n' "$each"; done
        [ -n "$lock" ] || printf '%s\n' "${packages[@]+"${packages[@]}"}"
    } >"$work/asked.txt" || fail "$(space_or 1)" "$prefix cannot be written to"
    options=(-r "$work/asked.txt")
    if [ -n "$lock" ]; then
        options+=(-r "$lock" --no-deps)
    else
        for each in "${requirements[@]+"${requirements[@]}"}"; do options+=(-r "$each"); done
    fi
    # One of an index beside PyPI's may be older: the best of all of them, as pip has it.
    [ -z "$uv" ] || [ -z "$torch_url" ] || options+=(--index-strategy unsafe-best-match)
    run "${installer[@]}" "${options[@]}" >&2 || failed "the packages are not installed"
}

failed() { # SENTENCE
    local was="$code" result
    [ "$was" -lt 128 ] || fail "$was" "$1: the installer was killed by signal $((was - 128))"
    result="$(space_or 1)"
    [ "$result" = 1 ] || fail 7 "$1: the disk of $prefix is full; free some space, or give another --prefix"
    fail 1 "$1: the installer failed with exit code $was, as said above"
}

# The wheel of flash-attn for the torch that was installed. PyPI has only its source, which takes hours to build.
install_flash_attn() {
    local tag version source place
    tag="$("$prefix/bin/python" -I -c '
import sys, torch
cuda = torch.version.cuda
if not cuda:
    sys.exit("flash-attn: the torch that was installed is not for CUDA")
abi = str(torch._C._GLIBCXX_USE_CXX11_ABI).upper()
python = "cp%d%d" % sys.version_info[:2]
torch = ".".join(torch.__version__.split(".")[:2])
print(f"cu{cuda.split(chr(46))[0]}torch{torch}cxx11abi{abi}-{python}-{python}-linux_x86_64.whl")
')" || tag=""
    for version in "${flash_attn[@]}"; do
        [ -n "$tag" ] || break
        for source in "${flash_attn_sources[@]}"; do
            case "$source" in s3://*) continue ;; esac
            place="${source//'{version}'/$version}"
            place="${place%/}/flash_attn-$version+$tag"
            case "$place" in
            /*) [ -f "$place" ] || continue ;;
            esac
            say "flash-attn $version: trying ${place##*/}"
            if run "${installer[@]}" --no-deps "$place" >/dev/null 2>&1; then return 0; fi
        done
    done
    if [ "$flash_attn_missing" = warning ]; then
        say "warning: going on without flash-attn: there is no wheel of ${flash_attn[*]} for ${tag:-this torch}"
    else
        fail 1 "there is no wheel of flash-attn ${flash_attn[*]} for ${tag:-this torch}"
    fi
}

plain() {
    if [ ${#apt[@]} -gt 0 ]; then install_apt; fi
    if [ ${#requirements[@]} = 0 ] && [ ${#packages[@]} = 0 ] && [ -z "$lock" ]; then
        say "nothing says which Python packages to install; give -r FILE, or CACHEPOD_REQUIREMENTS"
        exit 0
    fi
    make_environment
    work="$(mktemp -d -- "$prefix/.cachepod/plain.XXXXXX")" ||
        fail "$(space_or 1)" "$prefix cannot be written to; give another --prefix"
    trap 'rm -rf -- "$work"' EXIT
    # /tmp of a container is often too small for what installers put there.
    mkdir -p "$work/tmp"
    export TMPDIR="$work/tmp" UV_PYTHON_DOWNLOADS=never PIP_NO_INPUT=1 UV_LINK_MODE=hardlink
    unset PYTHONHOME PYTHONPATH VIRTUAL_ENV CONDA_PREFIX PIP_TARGET PIP_PREFIX PIP_USER UV_SYSTEM_PYTHON
    install_packages
    if [ ${#flash_attn[@]} -gt 0 ]; then install_flash_attn; fi
    local module
    for module in "${check[@]+"${check[@]}"}"; do
        run "$prefix/bin/python" -I -c "import $module" >&2 || fail 1 "import $module fails in the environment"
    done
    printf '%s\n' "$prefix"
}

need() { [ "$2" -ge 2 ] || fail 2 "$1 needs a value; --help tells more"; }

main() {
    local plainly="" alone="" flags=() told="" code=0 more_files="" more_apt="" more_packages=""
    export CACHEPOD_REQUIREMENTS CACHEPOD_PREFIX CACHEPOD_HANDLER CACHEPOD_CUDA CACHEPOD_APT CACHEPOD_PACKAGES
    while [ $# -gt 0 ]; do
        case "$1" in
        -h | --help)
            usage
            exit 0
            ;;
        --plain) plainly=1 ;;
        --alone) plainly=1 alone=1 ;;
        -r | --requirements)
            need "$1" $#
            flags+=(-r "$2")
            more_files+="${more_files:+ }$2" CACHEPOD_REQUIREMENTS="$more_files"
            shift
            ;;
        --prefix)
            need "$1" $#
            flags+=(--prefix "$2")
            CACHEPOD_PREFIX="$2"
            shift
            ;;
        --handler)
            need "$1" $#
            flags+=(--handler "$2")
            CACHEPOD_HANDLER="$2"
            shift
            ;;
        --cuda)
            need "$1" $#
            CACHEPOD_CUDA="$2"
            shift
            ;;
        --apt)
            need "$1" $#
            more_apt+="${more_apt:+ }$2" CACHEPOD_APT="$more_apt"
            shift
            ;;
        -*) fail 2 "there is no option $1; --help tells which there are" ;;
        *) more_packages+="${more_packages:+ }$1" CACHEPOD_PACKAGES="$more_packages" ;;
        esac
        shift
    done
    trap 'stopped 143' TERM
    trap 'stopped 130' INT
    type -P python3 >/dev/null || fail 1 "there is no python3 on the PATH"
    if [ -z "$alone" ] && type -P cachepod >/dev/null; then
        told="$(cachepod config --json -q "${flags[@]+"${flags[@]}"}")"
        code=$?
        [ "$code" != 2 ] || exit 2
        if [ "$code" != 0 ]; then
            told=""
            say "cachepod does not work here (exit code $code): going on without it"
        fi
    fi
    read_settings "$told"
    if [ -z "$plainly" ] && [ -n "$told" ]; then
        run cachepod install "${flags[@]+"${flags[@]}"}" >&2 || exit "$code"
        printf '%s\n' "$prefix"
    else
        plain
    fi
}

main "$@"

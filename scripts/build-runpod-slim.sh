#!/usr/bin/env bash
# Builds the slim image for RunPod, and says what it costs. Needs bash, python3, and docker or buildah.
set -euo pipefail

usage() {
    cat <<'TEXT'
usage: scripts/build-runpod-slim.sh [OPTION...] [-- ARGUMENT...]

Builds docker/runpod.Dockerfile.slim and prints the size of the image, as a registry stores it
and unpacked, part by part. Arguments after -- are handed to the builder's build command.

    --builder NAME       docker or buildah (default: docker where its daemon answers, else buildah)
    --base IMAGE         the image to build on (default: ubuntu:22.04); NAME@sha256:... pins it
    --tag NAME           the name of the image (default: cachepod/runpod-slim:VERSION)
    --user UID           a variant that does not run as root but as this user, from 1 on
    --output FILE        write the image to FILE as well, for docker load
    --limit MB           fail if a registry would store more than this (default: 200)
    --pip-config FILE    a pip.conf for the build; no part of it reaches the image
    --certificates FILE  further authorities that the package index needs, likewise
    -h, --help           this text

environment:
    SOURCE_DATE_EPOCH    the time that the image and its files bear (default: that of the last commit)
    PIP_INDEX_URL, PIP_EXTRA_INDEX_URL, PIP_TRUSTED_HOST
                         where the build finds packages, without --pip-config
    PIP_CERT, SSL_CERT_FILE
                         the first that is set stands for --certificates
The builder's own environment variables apply.
TEXT
}

fail() {
    printf 'build-runpod-slim: %s\n' "$*" >&2
    exit 1
}

misused() {
    printf 'build-runpod-slim: %s\n' "$*" >&2
    exit 2
}

# given OPTION COUNT: whether the option has a value behind it
given() { [ "$2" -ge 2 ] || misused "$1 needs a value; see --help"; }

here="$PWD"
absolute() { case "$1" in /*) printf '%s\n' "$1" ;; *) printf '%s\n' "$here/$1" ;; esac; }

cd "$(dirname "${BASH_SOURCE[0]}")/.."
version="$(sed -n 's/^__version__ = "\(.*\)"$/\1/p' cachepod/__init__.py)"

builder="" base="ubuntu:22.04" tag="cachepod/runpod-slim:$version" user=0 output="" limit=200 pip_config=""
certificates="${PIP_CERT:-${SSL_CERT_FILE:-}}"
more=()
while [ $# -gt 0 ]; do
    case "$1" in
    -h | --help)
        usage
        exit 0
        ;;
    --builder | --base | --tag | --user | --output | --limit | --pip-config | --certificates)
        given "$1" $#
        [ -n "$2" ] || misused "$1 needs a value; see --help"
        case "$1" in
        --builder) builder="$2" ;;
        --base) base="$2" ;;
        --tag) tag="$2" ;;
        --user) user="$2" ;;
        --output) output="$(absolute "$2")" ;;
        --limit) limit="$2" ;;
        --pip-config) pip_config="$(absolute "$2")" ;;
        --certificates) certificates="$(absolute "$2")" ;;
        esac
        shift
        ;;
    --)
        shift
        more=("$@")
        break
        ;;
    *) misused "there is no option '$1'; see --help" ;;
    esac
    shift
done

whole() { case "$1" in '' | 0* | *[!0-9]* | ??????????*) return 1 ;; esac; }
[ "$user" = 0 ] || whole "$user" || misused "--user takes a number of 1 or more, such as 1000, not '$user'"
whole "$limit" || misused "--limit takes a whole number of megabytes, not '$limit'"
case "$base$tag" in *[[:space:]]*) misused "the name of an image has no blank in it: '$base', '$tag'" ;; esac
for file in "$pip_config" "$certificates"; do
    [ -z "$file" ] || [ -r "$file" ] || misused "there is no file $file, or it cannot be read"
done
if [ -n "$output" ]; then
    [ -d "$(dirname "$output")" ] || misused "there is no directory $(dirname "$output") to write $(basename "$output") into"
    [ ! -d "$output" ] || misused "$output is a directory; --output names a file"
fi
epoch="${SOURCE_DATE_EPOCH:-}"
[ -n "$epoch" ] || epoch="$(git log -1 --format=%ct 2>/dev/null || echo 0)"
case "$epoch" in '' | *[!0-9]*) misused "SOURCE_DATE_EPOCH is to be seconds since 1970, not '$epoch'" ;; esac

docker_answers() { docker version --format '{{.Server.Version}}' >/dev/null 2>&1; }
case "$builder" in
"")
    if command -v docker >/dev/null && docker_answers; then
        builder=docker
    elif command -v buildah >/dev/null; then
        builder=buildah
    elif command -v docker >/dev/null; then
        fail "docker's daemon does not answer, and there is no buildah; start the daemon, or install buildah"
    else
        fail "there is neither docker nor buildah; install one of them"
    fi
    ;;
docker)
    command -v docker >/dev/null || fail "there is no docker on the PATH"
    docker_answers || fail "docker's daemon does not answer; start it, or use --builder buildah"
    ;;
buildah) command -v buildah >/dev/null || fail "there is no buildah on the PATH" ;;
*) misused "--builder takes docker or buildah, not '$builder'" ;;
esac
command -v python3 >/dev/null || fail "there is no python3, which adds up the sizes"

private="$(mktemp -d)"
trap 'rm -rf "$private"' EXIT

# What pip is told goes in by a file that is mounted while it runs: arguments of a build stay in its history.
if [ -z "$pip_config" ] && [ -n "${PIP_INDEX_URL:-}${PIP_EXTRA_INDEX_URL:-}${PIP_TRUSTED_HOST:-}" ]; then
    pip_config="$private/pip.conf"
    {
        echo "[global]"
        [ -z "${PIP_INDEX_URL:-}" ] || echo "index-url = $PIP_INDEX_URL"
        [ -z "${PIP_EXTRA_INDEX_URL:-}" ] || echo "extra-index-url = $PIP_EXTRA_INDEX_URL"
        [ -z "${PIP_TRUSTED_HOST:-}" ] || echo "trusted-host = $PIP_TRUSTED_HOST"
    } >"$pip_config"
fi

arguments=(--file docker/runpod.Dockerfile.slim --tag "$tag")
arguments+=(--build-arg "BASE=$base" --build-arg "RUN_AS=$user" --build-arg "SOURCE_DATE_EPOCH=$epoch")
arguments+=(--label "org.opencontainers.image.version=$version")
if revision="$(git rev-parse HEAD 2>/dev/null)" && [ -z "$(git status --porcelain 2>/dev/null)" ]; then
    arguments+=(--label "org.opencontainers.image.revision=$revision")
fi
[ -z "$pip_config" ] || arguments+=(--secret "id=pip,src=$pip_config")
[ -z "$certificates" ] || arguments+=(--secret "id=certificates,src=$certificates")

started=$SECONDS
case "$builder" in
docker)
    DOCKER_BUILDKIT=1 SOURCE_DATE_EPOCH="$epoch" docker build "${arguments[@]}" "${more[@]+"${more[@]}"}" . >&2 ||
        fail "docker could not build the image; what it said is above"
    docker save --output "$private/image.tar" "$tag"
    layers="$(docker image inspect --format '{{len .RootFS.Layers}}' "$base" 2>/dev/null || echo 1)"
    [ -z "$output" ] || cp "$private/image.tar" "$output"
    ;;
buildah)
    # Images in OCI's own format have no health check.
    buildah bud --format docker --timestamp "$epoch" "${arguments[@]}" "${more[@]+"${more[@]}"}" . >&2 ||
        fail "buildah could not build the image; what it said is above"
    buildah push --quiet "$tag" "oci:$private/image:image" >&2
    layers="$(buildah inspect --type image --format '{{len .OCIv1.RootFS.DiffIDs}}' "$base" 2>/dev/null || echo 1)"
    if [ -n "$output" ]; then
        rm -f "$output"
        buildah push --quiet "$tag" "docker-archive:$output:$tag" >&2
    fi
    ;;
esac
printf '%s: built by %s on %s in %s s\n' "$tag" "$builder" "$base" $((SECONDS - started))
python3 docker/sizes.py --base-layers "$layers" --limit "$limit" "$private"/image*

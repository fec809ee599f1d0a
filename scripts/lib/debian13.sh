# What the scripts that enter a Debian 13 share; to be sourced, from the top of the tree.
#
# Bare systems are made once by debootstrap and kept, with downloaded packages, in $XDG_CACHE_HOME/sidecaml/debian13.
# $SIDECAML_DEBIAN_MIRROR names a mirror; otherwise one that this machine's apt uses is taken, or debootstrap's default.
# shellcheck shell=bash

suite=trixie
cache=${XDG_CACHE_HOME:-$HOME/.cache}/sidecaml/debian13
downloads=$cache/downloads
# Inside a machine.
certificates=/etc/host-certificates.crt
# What systemd-nspawn needs for a machine to have what the host hands over: filled by hand_over.
nspawn_arguments=()

say() { printf '%s: %s\n' "${0##*/}" "$*" >&2; }

as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo -n "$@"; fi; }

need_root() { as_root true || { say "needs root, or sudo without a password"; return 1; }; }

# --- Systems that are made once -------------------------------------------------------------------------------------

# A mirror of this machine that has the suite; nothing if there is none.
mirror() {
    local uri
    if [ -n "${SIDECAML_DEBIAN_MIRROR:-}" ]; then
        echo "$SIDECAML_DEBIAN_MIRROR"
        return
    fi
    # shellcheck disable=SC2016 # apt's own variables
    for uri in $(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' | sort -u); do
        if /usr/lib/apt/apt-helper download-file "${uri%/}/dists/$suite/InRelease" "$cache/InRelease" >/dev/null 2>&1 &&
            grep -qx 'Origin: Debian' "$cache/InRelease" && grep -qx "Codename: $suite" "$cache/InRelease"; then
            echo "${uri%/}"
            return
        fi
    done
}

build_bare() {
    local place=$1
    # shellcheck disable=SC2046 # no word when there is no mirror
    as_root debootstrap --variant=minbase "$suite" "$place" $(mirror) &&
        as_root chroot "$place" apt-get -q -y install --no-install-recommends make git </dev/null &&
        as_root chroot "$place" apt-get clean
}

# A system's place carries the digest of its recipe, so a new recipe makes a new system.
# place_of NAME RECIPE...: recipes are functions, or texts.
place_of() {
    local name=$1
    shift
    echo "$cache/$name.$({ for recipe in "$@"; do declare -f "$recipe" || echo "$recipe"; done && echo "$suite"; } | sha256sum | cut -c1-16)"
}

bare_place() { place_of bare build_bare; }

# ensure_system PLACE BUILD: by BUILD, a function that is given where.
ensure_system() {
    [ ! -d "$1" ] || return 0
    mkdir -p "$cache"
    (
        flock 9
        [ -d "$1" ] || make_system "$@"
    ) 9>"$cache/lock"
}

make_system() {
    local place=$1 build=$2 name partial old
    name=$(basename "${place%.*}")
    partial=$cache/partial.$name
    say "making $place"
    as_root rm -rf --one-file-system "$partial"
    # Of an earlier recipe, unless somebody else is in it: who is holds a lock on it.
    for old in "$cache/$name".*/; do
        [ ! -d "$old" ] || as_root flock --nonblock "$old" rm -rf --one-file-system "$old" || true
    done
    if ! "$build" "$partial" >"$cache/$name.log" 2>&1; then
        tail -n 30 "$cache/$name.log" >&2
        say "could not make $place: the end of $cache/$name.log stands above"
        return 1
    fi
    # A name that counts only now: what was interrupted never does.
    as_root mv "$partial" "$place"
}

# --- What the host hands over ---------------------------------------------------------------------------------------

pip_files=("${PIP_CONFIG_FILE:-}" /etc/pip.conf "$HOME/.pip/pip.conf" "${XDG_CONFIG_HOME:-$HOME/.config}/pip/pip.conf")
# Where each belongs inside, in the same order.
pip_places=(/etc/pip-config-file.conf /etc/pip.conf /root/.pip/pip.conf /root/.config/pip/pip.conf)

hand_over_pip() {
    local machine=$1 i
    for i in "${!pip_files[@]}"; do
        [ -f "${pip_files[i]}" ] || continue
        as_root install -D -m 600 "${pip_files[i]}" "$machine${pip_places[i]}"
    done
    if [ -f "${PIP_CONFIG_FILE:-}" ]; then nspawn_arguments+=("--setenv=PIP_CONFIG_FILE=${pip_places[0]}"); fi
}

# Folders that pip's settings name, such as one of wheels, or an index (file://.../simple, whose links lead to folders
# beside it): they appear at the same place inside.
pip_folders() {
    { cat "${pip_files[@]}" 2>/dev/null || true; env | sed -n 's/^PIP_[A-Z_]*=//p'; } |
        grep -oE '(^|[[:space:]=])(file://)?/[^[:space:]]+' | sed -E 's/^[[:space:]=]*//; s|^file://(/.+)/simple/?$|\1|; s|^file://||' |
        sort -u | while read -r folder; do
        case $folder in
            /etc/* | *:*) ;;
            *) if [ -d "$folder" ]; then echo "$folder"; fi ;;
        esac
    done
}

host_certificates() {
    local file
    for file in "${SSL_CERT_FILE:-}" "${PIP_CERT:-}" /etc/ssl/certs/ca-certificates.crt; do
        if [ -f "$file" ]; then
            echo "$file"
            return
        fi
    done
}

# hand_over MACHINE: certificates, proxies, pip's settings, and the downloads that are kept, so that a second run is quick.
hand_over() {
    local machine=$1 name folder bundle
    bundle=$(host_certificates)
    if [ -n "$bundle" ]; then
        as_root install -m 644 "$bundle" "$machine$certificates"
        for name in PIP_CERT SSL_CERT_FILE REQUESTS_CA_BUNDLE; do
            nspawn_arguments+=("--setenv=$name=$certificates")
        done
    fi
    hand_over_pip "$machine"
    while IFS= read -r name; do
        case $name in
            PIP_CERT | PIP_CONFIG_FILE | PIP_CACHE_DIR | PIP_REQUIRE_VIRTUALENV | PIP_PYTHON | PIP_LOG) ;;
            *) nspawn_arguments+=("--setenv=$name=${!name}") ;;
        esac
    done < <(compgen -e | grep -E '^(PIP_[A-Z_]+|(http|https|no)_proxy|(HTTP|HTTPS|NO)_PROXY)$')
    while IFS= read -r folder; do
        nspawn_arguments+=("--bind-ro=$folder")
    done < <(pip_folders)
    as_root mkdir -p "$downloads/apt/partial" "$downloads/pip" "$machine/var/cache/pip"
    nspawn_arguments+=("--bind=$downloads/apt:/var/cache/apt/archives" "--bind=$downloads/pip:/var/cache/pip")
    nspawn_arguments+=(--setenv=PIP_CACHE_DIR=/var/cache/pip --setenv=LANG=C.UTF-8)
}

# enter MACHINE COMMAND...: in its place, not booted.
enter() {
    local machine=$1
    shift
    as_root systemd-nspawn --quiet -D "$machine" --register=no --keep-unit --as-pid2 --console=pipe \
        "${nspawn_arguments[@]}" "$@" </dev/null
}

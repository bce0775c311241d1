# shellcheck shell=bash
# The files of an installation. Cargo.toml names them in [package.metadata.deb], for cargo-deb and for
# scripts/install. To be sourced from the project's directory by bash with 'set -euo pipefail'.

build_directory=${CARGO_TARGET_DIR:-target}/release

# Lets a daemon write its manual pages and completions to where Cargo.toml expects them: generate_files DAEMON
generate_files() {
    local place=$build_directory/package shell
    rm --recursive --force "$place"
    mkdir --parents "$place/man"
    "$1" manual "$place/man"
    gzip --best --no-name "$place"/man/*
    for shell in bash zsh fish; do
        "$1" completions "$shell" >"$place/completions.$shell"
    done
}

# Prints for each file its source, its place below the root, and its mode, with tabs between them: list_files DAEMON
list_files() {
    local source place mode file files to
    cargo metadata --no-deps --offline --locked --format-version 1 |
        jq --raw-output '.packages[0].metadata.deb.assets[] | @tsv' |
        while IFS=$'\t' read -r source place mode; do
            case $source in
                target/release/tcmu-pr) files=("$1") ;;
                target/release/*) mapfile -t files < <(compgen -G "$build_directory/${source#target/release/}") ;;
                *) mapfile -t files < <(compgen -G "$source") ;;
            esac
            (( ${#files[@]} > 0 )) || { echo "there is no $source" >&2; return 1; }
            for file in "${files[@]}"; do
                # A place that ends in a slash is a directory.
                [[ $place == */ ]] && to=$place${file##*/} || to=$place
                printf '%s\t%s\t%s\n' "$file" "$to" "$mode"
            done
        done
}

# Where scripts/install notes which files it has put away, a path a line, from the root.
note=usr/share/tcmu-pr/installed

# Removes the files that are noted below a directory, the note, and the directories of our own that are empty then:
# remove_noted DESTDIR
remove_noted() {
    local place places
    [[ -e $1/$note ]] || return 0
    mapfile -t places < <(cat "$1/$note" && echo "$note")
    for place in "${places[@]}"; do
        as_root rm --force "$1/$place"
        place=${place%/*}
        while [[ /$place/ == */tcmu-pr/* ]]; do
            [[ ! -d $1/$place ]] || as_root rmdir --ignore-fail-on-non-empty "$1/$place"
            place=${place%/*}
        done
    done
}

# Runs a command as root, unless what it writes to is ours (destdir).
as_root() {
    local sudo=(sudo)
    if (( EUID == 0 )) || [[ -n $destdir ]]; then
        "$@"
        return
    fi
    command -v sudo >/dev/null || { echo "only root can do that, and there is no sudo: $*" >&2; return 1; }
    # Without a terminal nobody can type a password.
    [[ -t 0 || -t 2 ]] || sudo+=(--non-interactive)
    "${sudo[@]}" -- "$@"
}

# Lets the bus read its rules anew. udev sees by itself that its own have changed.
reload_bus() {
    as_root busctl call --quiet org.freedesktop.DBus /org/freedesktop/DBus org.freedesktop.DBus ReloadConfig
}

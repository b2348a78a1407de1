#!/bin/sh
# Makes the root file system of the finished image, in the parts that become its layers: what all images of one base share, what
# all of one toolkit do, and the engine. A part's bytes and dates follow from its content alone, so that equal parts are one layer
# in a registry and on a host.
#
#   collect-rootfs.sh toolkit ROOTFS ROOT [--libraries NAME...] [--linked FILE OF NAME...] [--licences FILE...]
#
# ROOTFS gets the toolkit's shared libraries: libNAME.so of the toolkit in ROOT under its soname, and FILE, which was linked of the
# static ones called NAME. A library that no package owns must lie below ROOT; then the first of the licences that exists is its.
#
#   collect-rootfs.sh engine BUILT SOURCE ROOTFS UID [--guard FILE FOLDER] [--variants NAME...] [--toolkit ROOTFS]
#                     --binaries NAME... --licences FILE... --notices FILE...
#
# ROOTFS/engine gets the engine's binaries and licences, dated SOURCE_DATE_EPOCH; ROOTFS/base the shared libraries that they and
# the toolkit's need and no others, with licences, and one user without rights. Libraries go to /usr/lib/<multiarch>, the dynamic
# loader to the path the binaries name. libcuda.so.1 is left out: it belongs to the host's driver. With a guard, each binary goes
# to FOLDER and the guard takes its place in /usr/bin; the binary of each variant comes from BUILT/NAME/bin and goes to FOLDER/NAME.
set -eu

multiarch=$("${CC:-gcc}" -print-multiarch)

# fail SENTENCE
fail() {
    echo "collect-rootfs: error: $1" >&2
    exit 1
}

# owner FILE: the Debian package that a file came with, or nothing.
owner() {
    dpkg -S "$1" "${1#/usr}" 2>/dev/null | sed -n '1s/[:,].*//p'
}

# dated ROOTFS SECONDS: some licences name a text in common-licenses, which comes along; then every file gets that date.
dated() {
    for text in $(grep -rhoE '/usr/share/common-licenses/[A-Za-z0-9.-]*[A-Za-z0-9]' "$1/usr/share/licenses" | sort -u); do
        if [ -e "$text" ]; then
            install -D -m 0644 "$(readlink -f "$text")" "$1$text"
        fi
    done
    find "$1" -exec touch -h -d "@$2" {} +
}

# toolkit_licence FILE ROOTFS: the licence of a file of the toolkit, from the package that owns it or the toolkit itself.
toolkit_licence() {
    package=$(owner "$1")
    if [ -n "$package" ]; then
        install -D -m 0644 "/usr/share/doc/$package/copyright" "$2/usr/share/licenses/$package/copyright"
        return
    fi
    case $1 in
        "$toolkit"/*) ;;
        *) fail "no package owns $1, so its licence is unknown" ;;
    esac
    for licence in $toolkit_licences; do
        if [ -e "$licence" ]; then
            install -D -m 0644 "$licence" "$2/usr/share/licenses/cuda-toolkit/copyright"
            return
        fi
    done
    fail "there is no licence for $1"
}

# toolkit_file NAME: the real path of a file in the toolkit's library folder.
toolkit_file() {
    for folder in "$root/lib64" "$root/lib/$multiarch"; do
        if [ -e "$folder/$1" ]; then
            readlink -f "$folder/$1"
            return
        fi
    done
    fail "there is no $1 in the toolkit below $root"
}

collect_toolkit() {
    rootfs=$1 root=$2
    shift 2
    toolkit=$(readlink -f "$root")
    mode=
    libraries=
    linked=
    sources=
    toolkit_licences=
    for word in "$@"; do
        case $mode:$word in
            *:--libraries | *:--linked | *:--licences) mode=$word ;;
            --libraries:*) libraries="$libraries $word" ;;
            --linked:*) if [ -z "$linked" ]; then linked=$word; else sources="$sources $word"; fi ;;
            --licences:*) toolkit_licences="$toolkit_licences $word" ;;
            *) fail "unexpected argument $word" ;;
        esac
    done
    for name in $libraries; do
        file=$(toolkit_file "lib$name.so")
        soname=$(readelf -d "$file" | sed -n 's/.*(SONAME).*\[\(.*\)\]$/\1/p')
        install -D -m 0644 "$file" "$rootfs/usr/lib/$multiarch/$soname"
        toolkit_licence "$file" "$rootfs"
    done
    if [ -n "$linked" ]; then
        mkdir -p "$rootfs/usr/lib/$multiarch"
        mv "$linked" "$rootfs/usr/lib/$multiarch/"
        for name in $sources; do
            file=$(toolkit_file "lib${name}_static.a")
            toolkit_licence "$file" "$rootfs"
        done
    fi
    dated "$rootfs" 0
}

collect_engine() {
    built=$1 source=$2 rootfs=$3 uid=$4
    shift 4
    base=$rootfs/base
    rootfs=$rootfs/engine
    licences=$rootfs/usr/share/licenses
    mode=
    binaries=
    guard=
    programs=/usr/bin
    variants=
    toolkit=
    mkdir -p "$rootfs/usr/bin" "$base/etc" "$licences/engine"

    for word in "$@"; do
        case $mode:$word in
            *:--binaries | *:--licences | *:--notices | *:--guard | *:--variants | *:--toolkit) mode=$word ;;
            --guard:*)
                if [ -z "$guard" ]; then guard=$word; else programs=$word; fi
                ;;
            --variants:*) variants="$variants $word" ;;
            --toolkit:*) toolkit=$word/usr/lib/$multiarch ;;
            --binaries:*)
                for variant in ${variants:-.}; do
                    from=$built/$word to=$rootfs$programs/$word
                    if [ "$variant" != . ]; then
                        from=$built/$variant/bin/$word to=$rootfs$programs/$variant/$word
                    fi
                    install -D -m 0755 -s "$from" "$to"
                    binaries="$binaries $to"
                done
                if [ -n "$guard" ]; then
                    install -m 0755 -s "$guard" "$rootfs/usr/bin/$word"
                    binaries="$binaries $rootfs/usr/bin/$word"
                fi
                ;;
            --licences:*)
                mkdir -p "$licences/engine/$(dirname "$word")"
                install -m 0644 "$source/$word" "$licences/engine/$word"
                ;;
            --notices:*)
                mkdir -p "$licences/engine/$(dirname "$word")"
                head -n 40 "$source/$word" > "$licences/engine/$word.notice"
                ;;
            *) fail "unexpected argument $word" ;;
        esac
    done

    # ldd prints `libc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x...)` and, for the loader, `/lib64/ld-linux-x86-64.so.2 (0x...)`.
    # shellcheck disable=SC2086  # a list of paths without spaces
    listing=$(LD_LIBRARY_PATH=$toolkit ldd $binaries | grep -v '^[[:space:]]*libcuda\.so\.1 => ')
    if echo "$listing" | grep 'not found' >&2; then
        fail "a shared library that the engine needs is not in the build stage"
    fi
    for library in $(echo "$listing" | sed -n 's/^.* => \(\/[^ ]*\) (0x.*/\1/p' | sort -u); do
        case $library in
            "${toolkit:-/nonexistent}"/*) ;; # in the toolkit's layer
            *) collect_library "$library" 0644 "/usr/lib/$multiarch/$(basename "$library")" ;;
        esac
    done
    for loader in $(echo "$listing" | sed -n 's/^[[:space:]]*\(\/[^ ]*\) (0x.*/\1/p' | sort -u); do
        collect_library "$loader" 0755 "$loader"
    done

    printf 'sdrun:x:%s:%s:sdrun:/:/nonexistent\n' "$uid" "$uid" > "$base/etc/passwd"
    printf 'sdrun:x:%s:\n' "$uid" > "$base/etc/group"
    dated "$base" 0
    dated "$rootfs" "${SOURCE_DATE_EPOCH:-0}"
}

# collect_library FILE MODE PATH: a library of the base, with the licence that Debian's record of who owns it leads to.
collect_library() {
    real=$(readlink -f "$1")
    package=$(owner "$real")
    if [ -z "$package" ]; then fail "no package owns $real, so its licence is unknown"; fi
    install -D -m "$2" "$real" "$base$3"
    install -D -m 0644 "/usr/share/doc/$package/copyright" "$base/usr/share/licenses/$package/copyright"
}

part=$1
shift
case $part in
    toolkit) collect_toolkit "$@" ;;
    engine) collect_engine "$@" ;;
    *) fail "unexpected argument $part" ;;
esac

#!/bin/sh
# Makes the root file system of the finished image: the engine's binaries, the shared libraries they need and no others, the
# licences of all of it, and one user without rights.
#
#   collect-rootfs.sh BUILT SOURCE ROOTFS UID [--guard FILE FOLDER] [--variants NAME...] [--toolkit ROOT LICENCE...]
#                     --binaries NAME... --licences FILE... --notices FILE...
#
# Libraries go to /usr/lib/<multiarch>, the dynamic loader to the path the binaries name. libcuda.so.1 is left out: it belongs to
# the host's driver. With a guard, each binary goes to FOLDER and the guard takes its place in /usr/bin; the binary of each variant
# comes from BUILT/NAME/bin and goes to FOLDER/NAME. A library that no package owns must lie below ROOT; then LICENCE is its
# licence. SOURCE_DATE_EPOCH dates every file.
set -eu

built=$1 source=$2 rootfs=$3 uid=$4
shift 4
licences=$rootfs/usr/share/licenses
mode=
binaries=
guard=
programs=/usr/bin
variants=
toolkit=
toolkit_licences=
mkdir -p "$rootfs/usr/bin" "$rootfs/etc" "$licences/engine"

for word in "$@"; do
    case $mode:$word in
        *:--binaries | *:--licences | *:--notices | *:--guard | *:--variants | *:--toolkit) mode=$word ;;
        --guard:*)
            if [ -z "$guard" ]; then guard=$word; else programs=$word; fi
            ;;
        --variants:*) variants="$variants $word" ;;
        --toolkit:*)
            if [ -z "$toolkit" ]; then toolkit=$(readlink -f "$word"); else toolkit_licences="$toolkit_licences $word"; fi
            ;;
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
        *)
            echo "collect-rootfs: error: unexpected argument $word" >&2
            exit 2
            ;;
    esac
done

# ldd prints `libc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x...)` and, for the loader, `/lib64/ld-linux-x86-64.so.2 (0x...)`.
# shellcheck disable=SC2086  # a list of paths without spaces
listing=$(ldd $binaries | grep -v '^[[:space:]]*libcuda\.so\.1 => ')
if echo "$listing" | grep 'not found' >&2; then
    echo "collect-rootfs: error: a shared library that the engine needs is not in the build stage" >&2
    exit 1
fi
libraries=$(echo "$listing" | sed -n 's/^.* => \(\/[^ ]*\) (0x.*/\1/p' | sort -u)
loaders=$(echo "$listing" | sed -n 's/^[[:space:]]*\(\/[^ ]*\) (0x.*/\1/p' | sort -u)
multiarch=$("${CC:-gcc}" -print-multiarch)
for library in $libraries; do
    install -D -m 0644 "$(readlink -f "$library")" "$rootfs/usr/lib/$multiarch/$(basename "$library")"
done
for loader in $loaders; do
    install -D -m 0755 "$(readlink -f "$loader")" "$rootfs$loader"
done

# Debian's record of who owns a library leads to its licence; some of these name a text in common-licenses.
for library in $libraries $loaders; do
    real=$(readlink -f "$library")
    package=$(dpkg -S "$real" "${real#/usr}" 2>/dev/null | sed -n '1s/[:,].*//p')
    if [ -z "$package" ]; then
        case $real in
            "${toolkit:-/nonexistent}"/*) found= ;;
            *) found=no ;;
        esac
        for licence in $toolkit_licences; do
            if [ -z "$found" ] && [ -e "$licence" ]; then
                install -D -m 0644 "$licence" "$licences/cuda-toolkit/copyright"
                found=yes
            fi
        done
        if [ "$found" != yes ]; then
            echo "collect-rootfs: error: no package owns $real, so its licence is unknown" >&2
            exit 1
        fi
        continue
    fi
    install -D -m 0644 "/usr/share/doc/$package/copyright" "$licences/$package/copyright"
done
for text in $(grep -rhoE '/usr/share/common-licenses/[A-Za-z0-9.-]*[A-Za-z0-9]' "$licences" | sort -u); do
    if [ -e "$text" ]; then
        install -D -m 0644 "$(readlink -f "$text")" "$rootfs$text"
    fi
done

printf 'sdrun:x:%s:%s:sdrun:/:/nonexistent\n' "$uid" "$uid" > "$rootfs/etc/passwd"
printf 'sdrun:x:%s:\n' "$uid" > "$rootfs/etc/group"
find "$rootfs" -exec touch -h -d "@${SOURCE_DATE_EPOCH:-0}" {} +

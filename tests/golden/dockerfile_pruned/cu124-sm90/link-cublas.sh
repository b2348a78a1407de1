#!/bin/sh
# Links NVIDIA's static cuBLAS into one shared library that holds what the engine calls and nothing else.
#
#   link-cublas.sh TOOLKIT OUTPUT --libraries NAME... --entry-points NAME... [--keep ARCH...]
#
# Of `libNAME_static.a` in TOOLKIT goes in what the entry points lead to. With --keep, NVIDIA's own nvprune first takes out machine
# code of other archs than these, and PTX. OUTPUT's file name is its soname: not NVIDIA's, so that nothing takes it for theirs. An
# entry point that the libraries lack ends the link, as does a symbol that neither they nor the C, C++ and CUDA run times have.
set -eu

toolkit=$1 output=$2
shift 2
mode=
libraries=
entries=
archs=
for word in "$@"; do
    case $mode:$word in
        *:--libraries | *:--entry-points | *:--keep) mode=$word ;;
        --libraries:*) libraries="$libraries $word" ;;
        --entry-points:*) entries="$entries $word" ;;
        --keep:*) archs="$archs -gencode arch=compute_$word,code=sm_$word" ;;
        *)
            echo "link-cublas: error: unexpected argument $word" >&2
            exit 2
            ;;
    esac
done

cxx=${CXX:-g++}
multiarch=$("$cxx" -print-multiarch)
for folder in "$toolkit/lib64" "$toolkit/lib/$multiarch" ""; do
    if [ -e "$folder/libcudart.so" ]; then break; fi
done
if [ -z "$folder" ]; then
    echo "link-cublas: error: there is no libcudart.so below $toolkit" >&2
    exit 1
fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
archives=
for name in $libraries; do
    archive=$folder/lib${name}_static.a
    if [ ! -e "$archive" ]; then
        echo "link-cublas: error: this toolchain has no $archive; pruned images need the toolkit's static libraries" >&2
        exit 1
    fi
    if [ -n "$archs" ]; then
        nvprune=$(command -v nvprune || echo "$toolkit/bin/nvprune")
        # shellcheck disable=SC2086  # a list of options without spaces
        "$nvprune" $archs "$archive" -o "$work/lib$name.a"
        archive=$work/lib$name.a
    fi
    archives="$archives $archive"
done
# The toolkit's threads, where it has them apart.
if [ -e "$folder/libculibos.a" ]; then archives="$archives $folder/libculibos.a"; fi

required=
{
    printf '{ global:'
    for entry in $entries; do printf ' %s;' "$entry"; done
    printf ' local: *; };\n'
} > "$work/exports.map"
for entry in $entries; do required="$required -Wl,--require-defined=$entry"; done
mkdir -p "$(dirname "$output")"
# shellcheck disable=SC2086  # lists of paths and options without spaces
"$cxx" -shared -fPIC -s -o "$output" -Wl,-soname,"$(basename "$output")" $required \
    -Wl,--version-script="$work/exports.map" -Wl,--gc-sections -Wl,-z,defs \
    $archives "-L$folder" -lcudart -lpthread -ldl -lrt
chmod 0644 "$output"

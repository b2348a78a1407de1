from=()
for pushed in published/*.json; do from+=(--from "$pushed"); done
how=()
if [ "$SIGN" = true ]; then how=(--keyless); fi
sdrun publish --registry "$REGISTRY" "${from[@]}" "${how[@]}"

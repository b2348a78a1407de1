from=()
for pushed in published/*.json; do from+=(--from "$pushed"); done
sign=()
if [ "$SIGN" = true ]; then sign=(--keyless); fi
sdrun publish --registry "$REGISTRY" "${from[@]}" "${sign[@]}"

mkdir -p published
sign=()
if [ "$SIGN" = true ]; then sign=(--keyless); fi
sdrun publish "$TARGET" --no-build --by-digest --registry "$REGISTRY" "${sign[@]}" --json > "published/$NAME.json"

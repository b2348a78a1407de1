mkdir -p published
how=()
if [ "$SIGN" = true ]; then how=(--keyless); fi
sdrun publish "$TARGET" --no-build --by-digest --registry "$REGISTRY" "${how[@]}" --json > "published/$NAME.json"

rows=$(sdrun matrix "$TARGETS" --format github --unpublished "$REGISTRY")
any=true
if [ "$rows" = '{"include": []}' ]; then any=false; fi
printf 'rows=%s\nany=%s\n' "$rows" "$any" >> "$GITHUB_OUTPUT"

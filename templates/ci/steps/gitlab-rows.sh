sdrun matrix "$TARGETS" --format github --unpublished "$REGISTRY" > rows.json
sdrun render --ci gitlab-images --rows rows.json --output .

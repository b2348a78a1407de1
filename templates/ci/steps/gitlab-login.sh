printf '%s' "$SDRUN_REGISTRY_PASSWORD" | docker login --username "$SDRUN_REGISTRY_USER" --password-stdin "${REGISTRY%%/*}"

sdrun build "$TARGET" --compiler-cache compiler-cache

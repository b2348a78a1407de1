"""Files with GPU code, made in the test that needs them or by NVIDIA's tools (fixtures/fatbins)."""

"""Benchmarks that need a CUDA GPU: each is a module of its own, `python -m benchmarks.gpu.NAME`."""

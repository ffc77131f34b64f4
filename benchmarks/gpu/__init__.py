"""Benchmarks that need a CUDA GPU. `python -m benchmarks.gpu` runs all of them within a time limit, and
`python -m benchmarks.gpu.NAME` runs one. Weights are random, so nothing is downloaded.

    trace_8b      one whole trace with the paper's three models       80 GB
    extra_look    prefill of loop 2, relative to one frame's tokens   40 GB
    encoder_g     frames per second of BLIP-2 ViT-g                   24 GB
    generator_35  an imagined frame of Stable Diffusion 3.5 Large     48 GB
    sft_8b        fine-tuning steps of Qwen3-VL-8B                    40 GB, 140 GB for all weights

`--tiny` runs the same code at micro's size on a CPU, as the tests do; its figures mean nothing. Tests compare
the operation counts with torch's own counter at the real sizes. No times have been measured on a GPU yet.
"""

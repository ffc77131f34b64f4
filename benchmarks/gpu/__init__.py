"""Benchmarks that need a CUDA GPU: each is a module of its own, `python -m benchmarks.gpu.NAME`. Weights are
random, nothing is fetched.

    trace_8b      one whole trace with the paper's three models       80 GB
    extra_look    what loop 2 reads, against one frame's tokens       40 GB
    encoder_g     frames a second of BLIP-2 ViT-g                     24 GB
    generator_35  an imagined frame of Stable Diffusion 3.5 Large     48 GB
    sft_8b        fine-tuning steps of Qwen3-VL-8B                    40 GB, 140 GB for all weights

`--tiny` runs the same code at micro's size on a CPU, as the tests do; its figures mean nothing. Their
operation counts are held to what torch counts at the real sizes; their times have not been measured on a GPU
yet.
"""

"""Refuse an adapter that belongs to another base model.

A LoRA is a difference to certain weights. On others of the same shape it loads without a warning, and the
model answers nonsense; on others of another shape transformers logs a table and continues with random
numbers. So an adapter's folder holds `base.json`, the name and a digest of its base, and both this and the
shapes are checked before it is loaded.

The digest is of the first row of every tensor, in bfloat16, whatever the tensors are called and in whichever
files and precision they are saved: it is read in a second, from checkpoints of any size.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from act2see.errors import WeightsError
from act2see.tools.frames import Record
from act2see.tools.runtime.text import first_line
from act2see.tools.runtime.weights import resolve_weights

BASE_FILE = "base.json"


class Base(Record):
    """A base model."""

    name: str
    """As the user gave it."""
    digest: str = ""
    """Of its weights; empty if they could not be read."""


def weights_digest(weights: str) -> str:
    """The digest of a checkpoint's folder or hub name; empty if it holds no safetensors."""
    import torch
    from safetensors import safe_open

    rows = set()
    for file in _weight_files(weights):
        with safe_open(file, "pt") as tensors:
            for name in tensors.keys():  # noqa: SIM118 - it is no mapping
                part = tensors.get_slice(name)
                row = part[:1] if part.get_shape() else tensors.get_tensor(name).reshape(1)
                bits = row.to(torch.bfloat16).contiguous().view(torch.int16).numpy().tobytes()
                # A set, since tied weights are saved once or twice.
                rows.add(hashlib.blake2b(f"{part.get_shape()}".encode() + bits, digest_size=16).digest())
    return hashlib.blake2b(b"".join(sorted(rows)), digest_size=16).hexdigest() if rows else ""


def check_adapter(adapter: str, weights: str, model: Any) -> str:
    """The folder of an adapter, once it has been checked.

    Args:
        adapter: Its folder or hub name.
        weights: The folder or hub name from which the model was loaded.
        model: The model.

    Raises:
        WeightsError: It is no adapter, or one for another model.
    """
    adapter = resolve_weights(adapter)
    config = _read(adapter, "adapter_config.json")
    if config is None:
        raise WeightsError(
            f"{adapter} holds no adapter_config.json: reasoner.adapter must name a PEFT adapter"
        )
    base = Base.model_validate(
        _read(adapter, BASE_FILE) or {"name": config.get("base_model_name_or_path") or ""}
    )
    _check_shapes(adapter, base, weights, model)
    if base.digest:
        if (digest := weights_digest(weights)) and digest != base.digest:
            raise WeightsError(
                f"{_mismatch(adapter, base, weights)}, which are not the same weights; "
                f"set reasoner.weights to {base.name}"
            )
    elif base.name and _last_part(base.name) != _last_part(weights):
        raise WeightsError(
            f"{_mismatch(adapter, base, weights)}; set reasoner.weights to {base.name}, or, if these are the "
            "same weights, write their name as base_model_name_or_path in its adapter_config.json"
        )
    return adapter


def _check_shapes(adapter: str, base: Base, weights: str, model: Any) -> None:
    """Raises `WeightsError` if a matrix does not fit the layer that it is for."""
    from safetensors import safe_open

    file = _file(adapter, "adapter_model.safetensors")
    if file is None:
        raise WeightsError(
            f"{adapter} holds no adapter_model.safetensors: saving it was interrupted, or it is in another "
            "format"
        )
    layers = dict(model.named_modules())
    with safe_open(file, "pt") as tensors:
        for name in tensors.keys():  # noqa: SIM118 - it is no mapping
            target, _, rest = name.removeprefix("base_model.model.").partition(".lora_")
            side = {"A": 1, "B": 0}.get(rest[:1])
            if side is None:
                continue
            shape = tensors.get_slice(name).get_shape()
            layer = getattr(layers.get(target), "weight", None)
            if layer is None:
                raise WeightsError(f"{_mismatch(adapter, base, weights)}, which have no layer {target}")
            # A layer of packed four-bit numbers has another shape, but the same in_features and out_features.
            width = getattr(layers[target], "in_features" if side else "out_features", layer.shape[side])
            if shape[side] != width:
                raise WeightsError(
                    f"{_mismatch(adapter, base, weights)}, whose {target} has a width of {width}, "
                    f"not {shape[side]}"
                )


def _mismatch(adapter: str, base: Base, weights: str) -> str:
    trained_on = base.name or "another base model"
    return f"the adapter {adapter} was trained on {trained_on}, and the reasoner's weights are {weights}"


def _last_part(name: str) -> str:
    return name.rstrip("/").replace("\\", "/").replace(":", "/").rpartition("/")[2]


def _weight_files(weights: str) -> Iterator[str]:
    index = _read(weights, "model.safetensors.index.json")
    for name in sorted(set(index["weight_map"].values())) if index else ["model.safetensors"]:
        if file := _file(weights, name):
            yield file


def _file(folder: str, name: str) -> str | None:
    """A file of a local folder or of a hub repository; None if it does not exist."""
    if Path(folder).is_dir():
        return str(Path(folder) / name) if (Path(folder) / name).is_file() else None
    from transformers.utils import cached_file

    try:
        found: str | None = cached_file(
            folder,
            name,
            _raise_exceptions_for_missing_entries=False,
            _raise_exceptions_for_connection_errors=False,
        )
    except OSError as e:
        raise WeightsError(
            f"{folder} is neither a folder nor a repository that can be reached: {first_line(e)}"
        ) from e
    return found


def _read(folder: str, name: str) -> dict[str, Any] | None:
    file = _file(folder, name)
    if file is None:
        return None
    try:
        data: Any = json.loads(Path(file).read_text(encoding="utf-8"))
    except (OSError, ValueError) as e:
        raise WeightsError(f"{file} cannot be read ({e})") from e
    return data if isinstance(data, dict) else {}

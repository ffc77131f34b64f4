"""Refuse an adapter that belongs to another base model.

A LoRA is a difference to certain weights. On other weights of the same shape it loads without a warning, and
the model answers nonsense; on weights of another shape transformers logs a table and continues with random
numbers. So an adapter's folder holds `base.json` with the name and a digest of its base model, and the
digest and the shapes are checked before the adapter is loaded.

The digest covers the first row of every tensor, in bfloat16. It does not depend on the tensors' names, files
and precision, and takes a second to read from a checkpoint of any size.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from act2see.errors import WeightsError
from act2see.tools.frames import Record
from act2see.tools.runtime.revisions import split_revision
from act2see.tools.runtime.text import first_line
from act2see.tools.runtime.weights import cached_folder

BASE_FILE = "base.json"


class Base(Record):
    """A base model."""

    name: str
    """The name of the base model, as the user gave it."""
    digest: str = ""
    """The digest of its weights; empty if they could not be read."""


def weights_digest(weights: str) -> str:
    """Return the digest of a checkpoint, given by folder or hub name; empty if it holds no safetensors."""
    import torch
    from safetensors import safe_open

    rows = set()  # tied weights are saved once or twice, so equal rows count once
    for file in _weight_files(weights):
        with safe_open(file, "pt") as tensors:
            for name in tensors.keys():  # noqa: SIM118 - `tensors` is not a mapping
                part = tensors.get_slice(name)
                shape = part.get_shape()
                row = part[:1] if shape else tensors.get_tensor(name).reshape(1)
                # numpy has no bfloat16: the bits are read as integers.
                bits = row.to(torch.bfloat16).contiguous().view(torch.int16).numpy()
                rows.add(_hash(f"{shape}".encode() + bits.tobytes()).digest())
    return _hash(b"".join(sorted(rows))).hexdigest() if rows else ""


def _hash(data: bytes) -> hashlib.blake2b:
    return hashlib.blake2b(data, digest_size=16)


def check_adapter(adapter: str, weights: str, model: Any) -> str:
    """Check that an adapter belongs to a model, and return the adapter's folder.

    Args:
        adapter: The adapter's folder or hub name.
        weights: The folder or hub name from which the model was loaded.
        model: The model.

    Raises:
        WeightsError: `adapter` is not a PEFT adapter, or belongs to another model.
    """
    adapter = cached_folder(adapter)
    config = _read_json(adapter, "adapter_config.json")
    if config is None:
        raise WeightsError(
            f"{adapter} holds no adapter_config.json: reasoner.adapter must name a PEFT adapter"
        )
    named = {"name": config.get("base_model_name_or_path") or ""}
    base = Base.model_validate(_read_json(adapter, BASE_FILE) or named)
    _check_shapes(adapter, base, weights, model)
    if base.digest:
        if (digest := weights_digest(cached_folder(weights))) and digest != base.digest:
            raise WeightsError(
                f"{_describe_mismatch(adapter, base, weights)}, which are not the same weights: "
                f"set reasoner.weights to {base.name}"
            )
    elif base.name and _last_part(base.name) != _last_part(split_revision(weights)[0]):
        raise WeightsError(
            f"{_describe_mismatch(adapter, base, weights)}: set reasoner.weights to {base.name}, or, if "
            "these are the same weights, set base_model_name_or_path in its adapter_config.json to their name"
        )
    return adapter


def _check_shapes(adapter: str, base: Base, weights: str, model: Any) -> None:
    """Raise `WeightsError` if a matrix of the adapter does not fit its layer in the model."""
    from safetensors import safe_open

    file = _find_file(adapter, "adapter_model.safetensors")
    if file is None:
        raise WeightsError(
            f"{adapter} holds no adapter_model.safetensors: its saving was interrupted, or it has another "
            "format; save it again"
        )
    layers = dict(model.named_modules())
    with safe_open(file, "pt") as tensors:
        for name in tensors.keys():  # noqa: SIM118 - `tensors` is not a mapping
            target, _, rest = name.removeprefix("base_model.model.").partition(".lora_")
            # A is (rank, inputs) and B is (outputs, rank); a layer's weight is (outputs, inputs).
            side = {"A": 1, "B": 0}.get(rest[:1])
            if side is None:
                continue
            shape = tensors.get_slice(name).get_shape()
            layer = getattr(layers.get(target), "weight", None)
            if layer is None:
                mismatch = _describe_mismatch(adapter, base, weights)
                raise WeightsError(f"{mismatch}, which have no layer {target}")
            # A layer of packed four-bit numbers has another shape, but the same in_features and out_features.
            width = getattr(layers[target], "in_features" if side else "out_features", layer.shape[side])
            if shape[side] != width:
                mismatch = _describe_mismatch(adapter, base, weights)
                raise WeightsError(f"{mismatch}, whose {target} has a width of {width}, not {shape[side]}")


def _describe_mismatch(adapter: str, base: Base, weights: str) -> str:
    trained_on = base.name or "another base model"
    return f"the adapter {adapter} was trained on {trained_on}, and the reasoner's weights are {weights}"


def _last_part(name: str) -> str:
    return name.rstrip("/").replace("\\", "/").replace(":", "/").rpartition("/")[2]


def _weight_files(weights: str) -> Iterator[str]:
    index = _read_json(weights, "model.safetensors.index.json")
    names = sorted(set(index["weight_map"].values())) if index else ["model.safetensors"]
    for name in names:
        if file := _find_file(weights, name):
            yield file


def _find_file(folder: str, name: str) -> str | None:
    """Return the path of a file in a local folder or a hub repository; None if it does not exist."""
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


def _read_json(folder: str, name: str) -> dict[str, Any] | None:
    """Return the data of a JSON file; None if the file does not exist, empty if it is not an object."""
    file = _find_file(folder, name)
    if file is None:
        return None
    try:
        data: Any = json.loads(Path(file).read_text(encoding="utf-8"))
    except (OSError, ValueError) as e:
        raise WeightsError(f"{file} cannot be read ({e}): save or download it again") from e
    return data if isinstance(data, dict) else {}

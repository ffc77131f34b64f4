"""A key-value cache with one row for each rollout, read as a view by a whole batch.

Rows of rollouts that are decoding stand in front, those that wait for a tool behind them, so that a decoding
step reads and writes a slice and copies nothing. Rows have their own lengths: a mask hides what is beyond.
It serves as `past_key_values` of a transformers model.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


class RowCache:
    """Keys and values of `rows` rollouts; grows in length as needed."""

    is_compileable = False

    def __init__(
        self, layers: int, rows: int, heads: int, head_dim: int, dtype: Any, device: Any, length: int = 512
    ) -> None:
        self.shape = (rows, heads, length, head_dim)
        self.options = {"dtype": dtype, "device": device}
        self.layers: list[Any] = []  # transformers asks; there are none of its kind
        self._keys: list[torch.Tensor] = [self._empty() for _ in range(layers)]
        self._values: list[torch.Tensor] = [self._empty() for _ in range(layers)]
        self._first = self._rows = self._longest = 0
        self._at: torch.Tensor | None = None

    def _empty(self) -> torch.Tensor:
        import torch

        return torch.zeros(self.shape, **self.options)

    @property
    def length(self) -> int:
        return self.shape[2]

    def aim(self, first: int, lengths: list[int], new: int) -> int:
        """The next forward continues rows `first`, `first + 1`, ... of these lengths by `new` tokens; returns
        how far it reads."""
        import torch

        self._first, self._rows = first, len(lengths)
        self._longest = max(lengths) + new
        if self._longest > self.length:
            self._grow(self._longest)
        self._at = torch.tensor(lengths, device=self.options["device"])[:, None] + torch.arange(
            new, device=self.options["device"]
        )
        return self._longest

    def _grow(self, needed: int) -> None:

        rows, heads, length, dim = self.shape
        self.shape = (rows, heads, max(needed, length * 2), dim)
        for tensors in (self._keys, self._values):
            for i, old in enumerate(tensors):
                tensors[i] = self._empty()
                tensors[i][:, :, :length].copy_(old)

    def update(
        self, keys: torch.Tensor, values: torch.Tensor, layer: int, *_: Any, **__: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Called by each attention layer with `(rows, heads, new, head_dim)`; returns all keys and values so
        far."""
        import torch

        rows = slice(self._first, self._first + self._rows)
        kept_keys, kept_values = self._keys[layer][rows], self._values[layer][rows]
        assert self._at is not None
        if self._rows == 1:
            start, stop = int(self._at[0, 0]), int(self._at[0, -1]) + 1
            kept_keys[:, :, start:stop] = keys
            kept_values[:, :, start:stop] = values
        else:
            row = torch.arange(self._rows, device=keys.device)[:, None]
            kept_keys[row, :, self._at] = keys.transpose(1, 2)
            kept_values[row, :, self._at] = values.transpose(1, 2)
        return kept_keys[:, :, : self._longest], kept_values[:, :, : self._longest]

    def swap(self, a: int, b: int) -> None:
        """Exchange two rows."""
        if a != b:
            for tensors in (self._keys, self._values):
                for t in tensors:
                    t[[a, b]] = t[[b, a]]

    def get_seq_length(self, layer: int = 0) -> int:
        return self._longest

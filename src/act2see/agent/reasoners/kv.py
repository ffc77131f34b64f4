"""A key-value cache with one row for each rollout, of which a whole batch reads a view.

Rows of rollouts that are decoding stand in front, those that wait for a tool behind them, so that a decoding
step reads and writes a slice and copies nothing. Each row has its own length: a mask hides the rest of it.
It serves as `past_key_values` of a transformers model, and knows neither tokens nor sessions.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


class RowCache:
    """Keys and values of `rows` rollouts, `(rows, heads, length, head_dim)` in each layer; grows in length as
    needed."""

    is_compileable = False  # transformers asks

    def __init__(
        self, layers: int, rows: int, heads: int, head_dim: int, dtype: Any, device: Any, length: int = 512
    ) -> None:
        self.shape = (rows, heads, length, head_dim)
        self.options = {"dtype": dtype, "device": device}
        self.layers: list[Any] = []  # transformers asks for layers of its own kind
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
        """Say which rows the next forward continues.

        Args:
            first: The first of these neighbouring rows.
            lengths: The length of each, in tokens.
            new: How many tokens each is continued by.

        Returns:
            How many tokens of a row the forward reads.
        """
        import torch

        self._first, self._rows = first, len(lengths)
        self._longest = max(lengths) + new
        if self._longest > self.length:
            self._grow(self._longest)
        device = self.options["device"]
        self._at = torch.tensor(lengths, device=device)[:, None] + torch.arange(
            new, device=device
        )  # (rows, new)
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
        """Called by each attention layer.

        Args:
            keys: New keys, `(rows, heads, new, head_dim)`.
            values: New values, of the same shape.
            layer: The layer's number.

        Returns:
            All keys and values so far, `(rows, heads, longest, head_dim)` each.
        """
        import torch

        rows = slice(self._first, self._first + self._rows)
        all_keys, all_values = self._keys[layer][rows], self._values[layer][rows]
        assert self._at is not None
        if self._rows == 1:
            start, stop = int(self._at[0, 0]), int(self._at[0, -1]) + 1
            all_keys[:, :, start:stop] = keys
            all_values[:, :, start:stop] = values
        else:
            row = torch.arange(self._rows, device=keys.device)[:, None]
            all_keys[row, :, self._at] = keys.transpose(1, 2)
            all_values[row, :, self._at] = values.transpose(1, 2)
        return all_keys[:, :, : self._longest], all_values[:, :, : self._longest]

    def swap(self, a: int, b: int) -> None:
        """Exchange two rows."""
        if a != b:
            for tensors in (self._keys, self._values):
                for t in tensors:
                    t[[a, b]] = t[[b, a]]

    def get_seq_length(self, layer: int = 0) -> int:
        return self._longest

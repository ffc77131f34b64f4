"""A key-value cache with one row for each rollout. A forward pass reads and writes a slice of rows.

The rows that are decoding come first, and the rows that wait for a tool come after them. A decoding step can
therefore read and write a slice of the cache without copying it. The rows differ in length, and an attention
mask hides the rest of each row. The cache is the `past_key_values` of a transformers model. It stores only
tensors: `transformers.py` keeps the tokens and the session of each row.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


class RowCache:
    """The keys and values of all layers: a tensor `(rows, heads, length, head_dim)` each for every layer.

    The length grows as needed; the number of rows is fixed.
    """

    is_compileable = False  # transformers reads this attribute

    def __init__(
        self,
        layers: int,
        rows: int,
        heads: int,
        head_dim: int,
        dtype: Any,
        device: Any,
        length: int = 512,
        limit: int | None = None,
    ) -> None:
        """
        Args:
            layers: The number of attention layers.
            rows: The number of rollouts.
            heads: The number of key-value heads.
            head_dim: The width of a head.
            dtype: The torch dtype of the model.
            device: The torch device of the model.
            length: The initial length of a row, in tokens.
            limit: The length that no row needs to exceed; growing does not go beyond it.
        """
        self.shape = (rows, heads, length, head_dim)
        """The shape of a layer's keys, and of its values."""
        self._limit = limit
        self.options = {"dtype": dtype, "device": device}
        """The arguments with which tensors are made."""
        self.layers: list[Any] = []  # transformers looks here for cache layers of its own classes
        self._keys: list[torch.Tensor] = [self._make_zeros() for _ in range(layers)]
        self._values: list[torch.Tensor] = [self._make_zeros() for _ in range(layers)]
        # The rows and the places that the next forward writes; `aim` sets them.
        self._first = 0
        self._rows = 0
        self._longest = 0
        self._places: torch.Tensor | None = None  # (rows, new)
        self._place: torch.Tensor | None = None  # (1,): the place of a recorded step, else None

    def _make_zeros(self) -> torch.Tensor:
        import torch

        return torch.zeros(self.shape, **self.options)

    @property
    def layer_count(self) -> int:
        """The number of attention layers."""
        return len(self._keys)

    @property
    def length(self) -> int:
        """The number of tokens that a row can hold without growing."""
        return self.shape[2]

    def aim(self, first: int, lengths: list[int], new: int) -> int:
        """Choose the rows that the next forward continues.

        Args:
            first: The index of the first of these adjacent rows.
            lengths: The current length of each row, in tokens.
            new: The number of tokens by which the forward continues each row.

        Returns:
            The number of tokens of each row that the forward reads: the longest length with the new tokens.
        """
        import torch

        self._first = first
        self._rows = len(lengths)
        self._longest = max(lengths) + new
        self._place = None
        self.reserve(self._longest)
        device = self.options["device"]
        starts = torch.tensor(lengths, device=device)[:, None]  # (rows, 1)
        self._places = starts + torch.arange(new, device=device)  # (rows, new)
        return self._longest

    def aim_at(self, place: torch.Tensor, reach: int) -> None:
        """Choose row 0 and one token of it, whose place is read when the forward runs.

        A recorded forward reads and writes the same memory at every replay, so it cannot depend on numbers.

        Args:
            place: The index of the token that the forward writes, `(1,)`.
            reach: The number of tokens that it reads; the cache must have them already.
        """
        self._first = 0
        self._rows = 1
        self._longest = reach
        self._place = place

    def reserve(self, tokens: int) -> None:
        """Lengthen all rows if they cannot hold this many tokens."""
        if tokens > self.length:
            self._grow(tokens)

    def _grow(self, needed: int) -> None:
        """Lengthen all rows to at least `needed` tokens; doubling keeps the copying linear."""
        rows, heads, length, dim = self.shape
        longer = length * 2 if self._limit is None else min(length * 2, self._limit)
        self.shape = (rows, heads, max(needed, longer), dim)
        for tensors in (self._keys, self._values):
            for i, old in enumerate(tensors):
                tensors[i] = self._make_zeros()
                tensors[i][:, :, :length].copy_(old)

    def update(
        self, keys: torch.Tensor, values: torch.Tensor, layer: int, *_: Any, **__: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Write new keys and values. Each attention layer calls it once per forward, after `aim`.

        Args:
            keys: The new keys, `(rows, heads, new, head_dim)`.
            values: The new values, of the same shape.
            layer: The index of the layer.

        Returns:
            All keys and all values of the chosen rows, `(rows, heads, longest, head_dim)` each.
        """
        import torch

        rows = slice(self._first, self._first + self._rows)
        all_keys = self._keys[layer][rows]
        all_values = self._values[layer][rows]
        if self._place is not None:
            all_keys.index_copy_(2, self._place, keys)
            all_values.index_copy_(2, self._place, values)
            return all_keys[:, :, : self._longest], all_values[:, :, : self._longest]
        assert self._places is not None
        if self._rows == 1:
            # A slice needs no index tensors; a prefill always has one row.
            start = int(self._places[0, 0])
            stop = int(self._places[0, -1]) + 1
            all_keys[:, :, start:stop] = keys
            all_values[:, :, start:stop] = values
        else:
            row = torch.arange(self._rows, device=keys.device)[:, None]
            # Indexing by two tensors puts their dimensions first: (rows, new, heads, head_dim).
            all_keys[row, :, self._places] = keys.transpose(1, 2)
            all_values[row, :, self._places] = values.transpose(1, 2)
        return all_keys[:, :, : self._longest], all_values[:, :, : self._longest]

    def swap(self, a: int, b: int) -> None:
        """Exchange two rows."""
        if a != b:
            for tensors in (self._keys, self._values):
                for t in tensors:
                    t[[a, b]] = t[[b, a]]

    def get_seq_length(self, layer: int = 0) -> int:
        """Return the number of tokens that the last forward read. transformers calls it."""
        return self._longest

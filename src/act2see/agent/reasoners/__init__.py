"""The reasoning models: their base class, and the engines that implement it."""

"""Reasoning models: the protocol, and the engines that speak it."""

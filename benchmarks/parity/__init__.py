"""Comparisons with other implementations. They need environments of their own, so they are run by hand,
outside CI."""

"""Explanations of trained networks: the pixels that an output depends on, and measures of how far to trust them.

This room reads trained networks; it trains none.
"""

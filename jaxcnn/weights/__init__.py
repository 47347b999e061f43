"""Weights in files: it knows formats, the names and layouts of other libraries, and how they fit a network of ours.

It knows nothing of runs, devices and steps. Arrays are NumPy arrays; a tree of variables is flat, keyed by
"params/conv1/kernel" and "batch_stats/bn1/mean".
"""

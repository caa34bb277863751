"""
How cost grows: with the tree, the snapshots of a store, the containers that restore at once, the
cores, and the distance to the store.

One module a curve: ``python -m benchmarks.scale.trees --help`` and the like.
"""

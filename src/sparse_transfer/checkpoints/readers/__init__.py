"""Bytes to containers: names, lazy tensors and plain values. Nothing from a file is ever executed."""

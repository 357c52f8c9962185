"""What a value of a graph is, as one text: the operation that made it, with its settings, and what it was made from."""

import hashlib

Key = str


def key_of(op: str, settings: object, *sources: Key) -> Key:
    return hashlib.sha256(repr((op, settings, sources)).encode()).hexdigest()

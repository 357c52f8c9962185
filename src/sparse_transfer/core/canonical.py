"""One spelling for each JSON value, so that equal values have equal digests on every machine."""

import hashlib
import json
from collections.abc import Mapping, Sequence

# A recursive alias in quotes: `type X = ...` needs Python 3.12.
Json = None | bool | int | float | str | Sequence["Json"] | Mapping[str, "Json"]


def dumps(value: Json) -> str:
    """Canonical JSON: sorted keys, no spaces, UTF-8 as is. NaN and infinity raise ``ValueError``.

    A lone surrogate, of which Python makes names that are no UTF-8, is its JSON escape: it reads back as it was.
    """
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.encode("utf-8", "backslashreplace").decode()


def digest(value: Json) -> str:
    """SHA-256 of the canonical JSON, 64 hex digits."""
    return hashlib.sha256(dumps(value).encode()).hexdigest()

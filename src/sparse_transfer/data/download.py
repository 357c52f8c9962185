"""Fetching a dataset, only ever on request: torchvision's own downloaders, with their troubles said in one sentence."""

import contextlib
import sys
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.parse import urlparse

from sparse_transfer.core.errors import UserError
from sparse_transfer.data.specs import DatasetSpec

# Arguments of the torchvision classes that want more than ``root`` and ``download``: one split fetches the archive.
_ARGUMENTS = {"FGVCAircraft": {"split": "trainval"}, "OxfordIIITPet": {"split": "trainval"}}


def download(spec: DatasetSpec, root: Path) -> None:
    """Fetch and unpack the official archive into ``root``, in torchvision's layout, which ``read`` takes as it is.

    What is there already is not fetched again. The archive's MD5 is verified by torchvision.

    Raises:
        UserError: no downloader fetches this dataset, its host does not answer or refuses, or the bytes are wrong.
    """
    if spec.downloader is None:
        why = spec.dead or ("it needs no folder" if spec.built_in else "its owner gives it out on registration only")
        raise UserError(f"it cannot be fetched: {why}", where=spec.name, do=f"see {spec.address}")
    import torchvision.datasets

    host = urlparse(spec.address).netloc
    try:
        root.mkdir(parents=True, exist_ok=True)
        # torchvision prints where it extracts to; stdout is for results
        with contextlib.redirect_stdout(sys.stderr):
            getattr(torchvision.datasets, spec.downloader)(root, download=True, **_ARGUMENTS.get(spec.downloader, {}))
    except HTTPError as error:
        error.close()
        raise UserError(
            f"the host {host} answers {error.code} ({error.reason}), the archive may have moved",
            where=spec.name,
            do=f"look at {spec.address}, and unpack it into {root}",
        ) from error
    except (URLError, TimeoutError, ConnectionError) as error:
        reason = error.reason if isinstance(error, URLError) else error
        raise UserError(
            f"the host {host} does not answer ({reason})",
            where=spec.name,
            do=f"look at your connection and at {spec.address}, or unpack the archive into {root} yourself",
        ) from error
    except OSError as error:
        raise UserError(
            f"the folder cannot be filled ({error.strerror or error})", where=root, do="give another"
        ) from error
    except RuntimeError as error:
        raise UserError(
            f"torchvision's downloader gave up ({error})",
            where=spec.name,
            do=f"delete what it left in {root}, or unpack the archive from {spec.address} there yourself",
        ) from error

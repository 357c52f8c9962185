"""The README of a folder in Hugging Face layout: what the network is, in facts, and how to load it."""

import json

from sparse_transfer.checkpoints.file import Origin
from sparse_transfer.core.canonical import Json
from sparse_transfer.models import Network, sparsities

# The hub's own identifiers (huggingface.co/docs/hub/repositories-licenses) of licences that our catalogue has.
LICENCES = {"apache-2.0", "mit", "bsd-3-clause"}


def card(network: Network, origin: Origin, digest: str, *, title: str, not_in_timm: str | None) -> str:
    """The model card: the hub's header in YAML, facts as a table, how to load it.

    not_in_timm: why timm cannot run it, None where it can.
    """
    backbone, counts, preprocessing = network.backbone, sparsities(network), network.backbone.preprocessing
    known = (origin.licence or "").lower()
    header: dict[str, Json] = {
        "license": known if known in LICENCES else "other",
        **({} if known in LICENCES else {"license_name": origin.licence or "not stated"}),
        "library_name": "sparse-transfer" if not_in_timm else "timm",
        "pipeline_tag": "image-classification" if network.head is not None else "image-feature-extraction",
        "tags": ["sparse", "pruning", "sparse-transfer"],
    }
    rows = {
        "architecture": str(backbone.architecture),
        "pruning method": origin.method or "not stated",
        "sparsity, masked weights": f"{100 * counts.masked.sparsity:.2f} %",
        "sparsity, prunable weights": f"{100 * counts.prunable.sparsity:.2f} %",
        "sparsity, all parameters": f"{100 * counts.total.sparsity:.2f} %",
        "sparsity, as its origin claims": "not stated" if origin.sparsity is None else f"{100 * origin.sparsity:.4g} %",
        "classes": "no head" if network.head is None else str(len(network.head.weight)),
        "pictures": f"shorter side to {preprocessing.resize} px ({preprocessing.interpolation}), centre square of"
        f" {preprocessing.crop} px, mean {list(preprocessing.mean)}, std {list(preprocessing.std)},"
        f" {preprocessing.channel_order}",
        "imported from": f"{origin.file or 'not stated'}" + (f" (SHA-256 {origin.sha256})" if origin.sha256 else ""),
        "licence": origin.licence or "not stated",
        "digest": digest,
    }
    timm = (
        f"timm cannot run it: {not_in_timm}."
        if not_in_timm
        else "```python\nimport timm\n\n"
        'model = timm.create_model("local-dir:FOLDER", pretrained=True)  # or "hf-hub:OWNER/NAME"\n```\n\n'
        "timm takes the zeros as they are; it knows nothing of the mask and does not keep it in training."
    )
    return "\n".join(
        (
            "---",
            *(f"{key}: {json.dumps(value, ensure_ascii=False)}" for key, value in header.items()),  # JSON is YAML
            "---",
            f"# {_plain(title)}",
            "",
            "| | |",
            "|---|---|",
            *(f"| {key} | {_plain(value)} |" for key, value in rows.items()),
            "",
            "`model.safetensors` holds the weights with their zeros, `mask.safetensors` one bit a weight, 1 if kept.",
            "",
            "```python",
            "from sparse_transfer import from_pretrained",
            "",
            'checkpoint = from_pretrained("FOLDER")  # network, mask, preprocessing, classes',
            "```",
            "",
            timm,
            "",
        )
    )


def _plain(text: str) -> str:
    """A line of text in a table of Markdown, whatever the origin's words are."""
    one_line = " ".join(text.split())
    return "".join(f"\\{letter}" if letter in "\\|`*_[]<>#" else letter for letter in one_line)

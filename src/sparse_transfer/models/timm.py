"""Any classifier of timm as a family, under the name ``timm:<name>``; parameter names are timm's."""

import math
from collections.abc import Callable, Mapping
from types import ModuleType

from torch import nn

from sparse_transfer.core.environment import how_to_install
from sparse_transfer.core.errors import UserError
from sparse_transfer.core.registry import suggestion
from sparse_transfer.models.architecture import Family
from sparse_transfer.models.preprocessing import Interpolation, Preprocessing

INTERPOLATIONS: Mapping[str, Interpolation] = {"bilinear": "bilinear", "bicubic": "bicubic"}


def timm_family(name: str) -> Family:
    """The family of timm's model ``name`` (a tag such as ``.a1_in1k`` chooses preprocessing, never weights).

    Raises:
        UserError: timm is missing, has no such model, or the model has no single linear head.
    """
    timm = installed()
    where = f"timm:{name}"
    if not timm.is_model(name):
        raise UserError(f'timm has no model called "{name}"', do=nearest(name, timm))
    head = facts(timm, name).get("classifier")
    if not isinstance(head, str) or not head:
        raise UserError("it has no single linear head", where=where, do="choose a model with one classifier layer")
    return Family(builder(timm, name), head, lambda _: preprocessing(facts(timm, name), where=where))


def installed() -> ModuleType:
    try:
        import timm
    except ImportError:
        raise UserError("timm is not installed", do=how_to_install("timm")) from None
    return timm


def nearest(name: str, timm: ModuleType) -> str:
    hint = suggestion(name, timm.list_models())
    return hint if hint.startswith("did you mean") else "timm.list_models() names them"


def facts(timm: ModuleType, name: str) -> Mapping[str, object]:
    """timm's record of the model's weights: what they expect, and what the head is called."""
    record = timm.models.get_pretrained_cfg(name)
    return {} if record is None else record.to_dict()


def builder(timm: ModuleType, name: str) -> Callable[..., nn.Module]:
    def build() -> nn.Module:
        module = timm.create_model(name, pretrained=False, num_classes=0)
        # num_features counts what the last stage gives; some models (MobileNetV3) widen it once more before the head.
        module.feature_dim = int(getattr(module, "head_hidden_size", None) or module.num_features)
        return module

    return build


def preprocessing(cfg: Mapping[str, object], *, where: str) -> Preprocessing:
    """timm's evaluation transform: shorter side floor(crop / crop_pct), centre crop (timm/data/transforms_factory.py).

    Raises:
        UserError: the model expects what ``Preprocessing`` cannot say (Lanczos, no centre crop, no 3-channel square).
    """
    match cfg:
        case {
            "input_size": (3, int(height), int(width)),
            "crop_pct": int() | float() as share,
            "mean": (float() as m0, float() as m1, float() as m2),
            "std": (float() as s0, float() as s1, float() as s2),
        } if height == width:
            pass
        case _:
            raise UserError("its input is not a square picture of 3 channels", where=where)
    interpolation = cfg.get("interpolation")
    if interpolation not in INTERPOLATIONS or cfg.get("crop_mode", "center") not in ("center", None):
        raise UserError(
            f'it expects interpolation "{interpolation}" and crop mode "{cfg.get("crop_mode")}"',
            where=where,
            do="give its preprocessing yourself: there are bilinear and bicubic, and a crop from the centre",
        )
    return Preprocessing(
        resize=math.floor(height / share),
        crop=height,
        interpolation=INTERPOLATIONS[str(interpolation)],
        mean=(m0, m1, m2),
        std=(s0, s1, s2),
    )

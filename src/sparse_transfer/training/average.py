"""An exponential moving average of a network (EMA), which obeys the mask like the network itself."""

from torch import Tensor, nn

from sparse_transfer.core.errors import UserError


class Average:
    """Shadow of every floating-point parameter and buffer: shadow ← decay · shadow + (1 - decay) · value, each update.

    Early on the decay is min(decay, (1 + n) / (10 + n)) after n updates (as TensorFlow's and timm's warm-up), so that
    a short run is not dominated by where it started. Buffers that are counters are copied.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        if not 0 < decay < 1:
            raise UserError(f"a decay of {decay}", where="--model-ema-decay", do="it lies in (0, 1)")
        self.decay = decay
        self.updates = 0
        self.shadow: dict[str, Tensor] = {name: value.detach().clone() for name, value in module.state_dict().items()}

    def update(self, module: nn.Module) -> None:
        """Move the shadow towards the module's values of now."""
        weight = 1 - min(self.decay, (1 + self.updates) / (10 + self.updates))
        for name, value in module.state_dict().items():
            if value.dtype.is_floating_point:
                self.shadow[name].lerp_(value, weight)
            else:
                self.shadow[name].copy_(value)
        self.updates += 1

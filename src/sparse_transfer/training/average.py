"""An exponential moving average of a network (EMA), which obeys the mask like the network itself."""

from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from sparse_transfer.core.errors import UserError


class Average:
    """Shadow of every floating-point parameter and buffer: shadow ← decay · shadow + (1 - decay) · value, each update.

    Early on the decay is min(decay, (1 + n) / (10 + n)) after n updates (as TensorFlow's and timm's warm-up), so that
    a short run is not dominated by where it started. Buffers that are counters are copied.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        require_decay(decay)
        self.decay = decay
        self.updates = 0
        self.shadow: dict[str, Tensor] = {name: value.detach().clone() for name, value in module.state_dict().items()}

    def update(self, module: nn.Module) -> None:
        """Move the shadow towards the module's values of now."""
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        values = module.state_dict()
        moving = [name for name, value in values.items() if value.dtype.is_floating_point]
        # All tensors in one call: on CUDA a kernel each, 320 of a ResNet-50, takes longer to launch than to run.
        move = get_ema_multi_avg_fn(decay)
        move([self.shadow[name] for name in moving], [values[name] for name in moving], self.updates)
        for name in values.keys() - moving:
            self.shadow[name].copy_(values[name])
        self.updates += 1


def require_decay(decay: float) -> None:
    """Raise ``UserError`` for what is no decay of an average."""
    if not 0 < decay < 1:
        raise UserError(f"a decay of {decay}", where="--model-ema-decay", do="it lies in (0, 1)")

"""Other people's formats. Each import registers what its file defines, in the order in which they are asked."""

# isort: off
from sparse_transfer.checkpoints.formats import onnx_graph as _onnx_graph  # first: only it can read a graph
from sparse_transfer.checkpoints.formats import ist_wrapped as _ist_wrapped
from sparse_transfer.checkpoints.formats import str_native as _str_native
from sparse_transfer.checkpoints.formats import lottery_ticket as _lottery_ticket
from sparse_transfer.checkpoints.formats import torch_prune as _torch_prune
from sparse_transfer.checkpoints.formats import mfac as _mfac
from sparse_transfer.checkpoints.formats import ao_pruning as _ao_pruning
from sparse_transfer.checkpoints.formats import distiller as _distiller
from sparse_transfer.checkpoints.formats import observed as _observed
from sparse_transfer.checkpoints.formats import lbc as _lbc
from sparse_transfer.checkpoints.formats import superblock as _superblock
from sparse_transfer.checkpoints.formats import hidden_networks as _hidden_networks
from sparse_transfer.checkpoints.formats import cram as _cram  # these three where --method asks for them
from sparse_transfer.checkpoints.formats import sr_ste as _sr_ste
from sparse_transfer.checkpoints.formats import dnw as _dnw
from sparse_transfer.checkpoints.formats import tf_mask as _tf_mask
from sparse_transfer.checkpoints.formats import tf_gates as _tf_gates
from sparse_transfer.checkpoints.formats import tf_plain as _tf_plain  # after the two: it takes any file of TensorFlow
from sparse_transfer.checkpoints.formats import plain as _plain  # the last encoding: it takes any file
from sparse_transfer.checkpoints.formats import resnets as _resnets
from sparse_transfer.checkpoints.formats import resnets_cifar as _resnets_cifar
from sparse_transfer.checkpoints.formats import mobilenets as _mobilenets
from sparse_transfer.checkpoints.formats import sparseml_names as _sparseml_names
from sparse_transfer.checkpoints.formats import resnets_tf as _resnets_tf
from sparse_transfer.checkpoints.formats import mobilenets_tf as _mobilenets_tf
from sparse_transfer.checkpoints.formats import vits as _vits
from sparse_transfer.checkpoints.formats import convnexts as _convnexts
from sparse_transfer.checkpoints.formats import own_names as _own_names
from sparse_transfer.checkpoints.formats.contract import Decoded, Encoding, Evidence, KeyFamily, encodings, key_families
from sparse_transfer.checkpoints.formats.source import Source, Told, find_source

__all__ = [
    "Decoded",
    "Encoding",
    "Evidence",
    "KeyFamily",
    "Source",
    "Told",
    "encodings",
    "find_source",
    "key_families",
]

del _ao_pruning, _distiller, _lottery_ticket, _mfac, _observed, _sparseml_names, _str_native, _torch_prune
del _ist_wrapped, _mobilenets, _own_names, _plain, _resnets, _resnets_cifar
del _convnexts, _cram, _dnw, _hidden_networks, _lbc, _sr_ste, _superblock, _vits
del _mobilenets_tf, _resnets_tf, _tf_gates, _tf_mask, _tf_plain
del _onnx_graph

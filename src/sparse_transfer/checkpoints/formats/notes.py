"""What a person should know of each format, in words: docs/reference/formats.md is made of it and of the registries.

Nothing here is read when a file is imported. Every encoding and family has a note, or a test fails.
"""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class ContainerNote:
    """files: what the files are called.   known_by: their bytes.   pitfall: what is refused, or easily mistaken."""

    files: str
    known_by: str
    pitfall: str


@dataclass(frozen=True)
class EncodingNote:
    """known_by: what recognises it.   pruned: where the sparsity is.   say: what it needs.   pitfall: what misleads."""

    known_by: str
    pruned: str
    pitfall: str
    say: str = ""


@dataclass(frozen=True)
class FamilyNote:
    """networks: which ones.   known_by: keys that recognise them.   pitfall: what the keys cannot tell."""

    networks: str
    known_by: str
    pitfall: str = ""


CONTAINERS: Mapping[str, ContainerNote] = {
    "torch-zip": ContainerNote(
        "`.pth`, `.pt`, `.bin`, `.pth.tar`",
        "`PK`, and a `data.pkl` in one folder",
        "a whole module instead of a state dict, TorchScript and `.npz` are refused, and so is a zip that two readers"
        " could read differently",
    ),
    "torch-legacy": ContainerNote(
        "the same, of torch before 1.6",
        "a pickle that begins with torch's magic number",
        "files called `.tar` are mostly these, and no archives",
    ),
    "safetensors": ContainerNote(
        "`.safetensors`",
        "a length, then a JSON header",
        "ours among them are known by their metadata, and come in as they are",
    ),
    "tf-bundle": ContainerNote(
        "`.index` and `.data-…-of-…`",
        "the last eight bytes of the index",
        "name the index, a data file, their prefix or the folder; TensorFlow's oldest layout (V1), partitioned"
        " variables and Keras' HDF5 are refused",
    ),
    "tfjs": ContainerNote(
        "`model.json` and its shards",
        "JSON with a `weightsManifest`",
        "quantised weights come back as float32, and what was rounded stays rounded",
    ),
    "onnx": ContainerNote(
        "`.onnx`",
        "a version, a producer and one graph",
        "sparse tensors are refused; data in other files must lie in the folder of the model",
    ),
    "tar": ContainerNote(
        "`.tar` of a file of the above",
        "`ustar` in the first header",
        "one checkpoint must be in it; links, devices and paths outwards are refused, and files of torch 0.1.9 or"
        " older",
    ),
    "gzip": ContainerNote(
        "`.tar.gz`, `.tgz`, `.gz` of a file of the above",
        "`1f 8b`",
        "unpacked to a temporary folder (TMPDIR), and refused where it unfolds more than 256-fold; bzip2, xz and zstd"
        " are not read",
    ),
}

ENCODINGS: Mapping[str, EncodingNote] = {
    "onnx": EncodingNote(
        "the container",
        "exact zeros of the initialisers",
        "exporters drop names and fold BatchNorm: each layer is found by its place in the graph, which tells strides"
        " and SAME padding too; a graph that computes otherwise is refused, and so are quantised graphs",
    ),
    "ist_wrapped": EncodingNote(
        "`_layer.weight` and `_weight_mask`",
        "the masks",
        "what is stored under a mask need not be 0; masks of all ones say nothing, then zeros decide",
    ),
    "str_native": EncodingNote(
        "`sparseThreshold`",
        "weights below their layer's sigmoid(s)",
        "weights that survive shrink by as much: taken as stored they are all too large",
    ),
    "lottery_ticket": EncodingNote(
        "`init_weight` or `mask` beside the state dict",
        "one mask over two networks",
        "initial and trained weights are both there, and only the initial ones are the ticket of the papers",
        say="`--ticket initial` or `trained`",
    ),
    "torch_prune": EncodingNote(
        "`weight_orig` and `weight_mask`",
        "the masks",
        "what is stored under a mask is not 0; a mask of biases is refused",
    ),
    "mfac": EncodingNote(
        "`mask` is one tensor",
        "one flat mask over several layers",
        "which layers is not in the file: the length must fit one known list of them, else zeros decide",
    ),
    "ao_pruning": EncodingNote(
        "`parametrizations.weight.original`",
        "masks in the sparsifier's state",
        "the model's own state dict has no masks: without the sparsifier's the file is refused",
    ),
    "distiller": EncodingNote(
        "`compression_sched`", "`masks_dict` in it", "a mask of None means dense; all None, and zeros decide"
    ),
    "observed": EncodingNote(
        "`activation_post_process` and other observers",
        "exact zeros",
        "the rounding of the quantised network is left out, so accuracy differs a little from its own",
    ),
    "lbc": EncodingNote(
        "`index_list` and `alpha`",
        "ways to keep N of M that have a score left",
        "N:M is in the file; stem and head are dense",
    ),
    "superblock": EncodingNote(
        "`scores`, `scale` and `shift`",
        "blocks with the smallest scores",
        "the weight is w · scale + shift; scores of `out_proj` prune nothing: torchvision's attention never calls it",
        say="`--sparsity`, where neither the file's settings nor its name have it",
    ),
    "hidden_networks": EncodingNote(
        "`scores` without `scale`",
        "weights with the smallest scores",
        "weights are as they were drawn and none is 0; `prune_rate` is the share that is kept",
        say="`--sparsity`, where neither the file's settings nor its name have it",
    ),
    "cram": EncodingNote(
        "`--method cram`",
        "nowhere: magnitude, over all layers together",
        "the file is dense, and stays so unless asked; accuracy is below the published one until `--recalibrate`"
        " estimates BatchNorm anew",
        say="`--method cram` with `--sparsity` or `--nm`",
    ),
    "sr_ste": EncodingNote(
        "`--method sr-ste`",
        "nowhere: the N largest of every M",
        "the file is dense, and stays so unless asked; older files group weights as they are stored, which"
        " `--method sr-ste-kernel` does",
        say="`--method sr-ste --nm 2:4`",
    ),
    "dnw": EncodingNote(
        "`--method dnw`",
        "nowhere: the smallest of each layer",
        "the file is dense, and stays so unless asked; a name such as `allsparse10` has the share that is kept;"
        " `--method dnw-first-dense` is for the second set",
        say="`--method dnw --sparsity 0.9`",
    ),
    "tf_mask": EncodingNote(
        "variables `mask`, `threshold`",
        "the masks",
        "what is stored under a mask need not be 0, and a 0 that has just grown is kept",
    ),
    "tf_variational": EncodingNote(
        "variables `log_sigma2`",
        "weights with log α of 0.5 or more",
        "no zero is in the file; the threshold is that of the published evaluation, not the flag's default of 3",
    ),
    "tf_l0": EncodingNote(
        "variables `log_alpha`",
        "weights with a gate of 0",
        "those that are kept count times their gate, smaller than stored",
    ),
    "tf_plain": EncodingNote(
        "TensorFlow's variables without any of these",
        "exact zeros, or dense",
        "optimiser's slots and averages are dropped",
    ),
    "plain": EncodingNote(
        "anything else",
        "exact zeros, or dense",
        "a kept weight that is exactly 0 counts as pruned; below 5 % of zeros, and 20 % in each layer, it is dense",
    ),
}

FAMILIES: Mapping[str, FamilyNote] = {
    "resnet_rigl": FamilyNote(
        "ResNet-50 of RigL, converted to torch",
        "`initial_conv`, `layer1.block.0`",
        "max-pool padded as TensorFlow does",
    ),
    "resnet_str": FamilyNote(
        "ResNets of STR", "torchvision's, with a 1×1 convolution `fc`", "no bias in the head: zeros, which is the same"
    ),
    "resnet": FamilyNote(
        "ResNet-18 to -152, wide ones too",
        "`conv1`, `layer1.0.conv1`, a 7×7 stem",
        "stride v1 or v1.5 and the pool's padding cannot be told: `--arch resnet50,stride=v1`, `resnet50,pool=same`",
    ),
    "resnet_cifar_akamaster": FamilyNote(
        "CIFAR ResNets", "a 3×3 stem, head `linear`", "ImageNet's mean and std, as its training code has them"
    ),
    "resnet_cifar_distiller": FamilyNote(
        "CIFAR ResNets",
        "a 3×3 stem, head `fc`",
        "mean and std 0.5, as its data loader has them",
    ),
    "mobilenet_str": FamilyNote(
        "MobileNetV1 of STR", "`model.0.0`, with a 1×1 convolution `fc`", "no bias in the head"
    ),
    "mobilenet": FamilyNote("MobileNetV1 of Distiller and the paper", "`model.0.0`, `model.13.3`"),
    "mobilenet_amc": FamilyNote("MobileNetV1 of AMC, narrower ones too", "`conv1.0`, `features.0`, `classifier`"),
    "mobilenet_timm": FamilyNote(
        "MobileNetV1 of timm", "`conv_stem`, `blocks.0.0`", "ReLU6, where the others have ReLU"
    ),
    "resnet_sparseml": FamilyNote("ResNets of SparseML", "`input.conv`, `sections`, `classifier`"),
    "mobilenet_sparseml": FamilyNote("MobileNetV1 of SparseML", "`input.conv`, `sections.0.0.depth`"),
    "resnet_tf": FamilyNote(
        "ResNet-50 of RigL and State of Sparsity",
        "`initial_conv`, `bottleneck_…_block_group…`",
        "BatchNorms are numbered as the graph made them; SAME padding; pictures resized by TensorFlow 1's kernel",
    ),
    "mobilenet_rigl": FamilyNote(
        "MobileNetV1 of RigL", "`depthwise_nxn_0`, `contraction_1x1_0`", "padding on both sides, ReLU"
    ),
    "mobilenet_keras": FamilyNote(
        "MobileNetV1 of Keras", "`conv_dw_1`, `conv_pw_1`", "padding after only, ReLU6, eps 1e-3"
    ),
    "mobilenet_slim": FamilyNote(
        "MobileNetV1 of TF-slim", "`MobilenetV1/Conv2d_0`", "a background class comes first, and its row is dropped"
    ),
    "vit_torchvision": FamilyNote(
        "ViT", "`class_token`, `encoder.layers`", "the number of heads cannot be told: each is taken to be 64 wide"
    ),
    "vit_timm": FamilyNote(
        "ViT, DeiT",
        "`patch_embed.proj`, `blocks.0.attn.qkv`",
        "ViT and DeiT differ in their pictures alone: `--arch timm:NAME` says which",
    ),
    "xcit_timm": FamilyNote(
        "XCiT",
        "`patch_embed.proj.0.0`, `blocks.0.attn.temperature`",
        "224 or 384 px cannot be told: `--arch timm:NAME`",
    ),
    "convnext_timm": FamilyNote("ConvNeXt", "`stem.0`, `stages.0.blocks.0.gamma`", "ConvNeXt V2 is another network"),
    "own_names": FamilyNote(
        "any network here, or of timm", "nothing: `--arch` names it", "keys must be the architecture's own, all of them"
    ),
}

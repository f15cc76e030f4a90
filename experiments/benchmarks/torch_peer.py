"""CapsNet and Efficient-CapsNet in PyTorch: a peer of the speed benchmark.

It measures how many digits a second one training step (forward, backward, Adam) and one inference
call (class lengths, without the decoder) get through. Environment, and the record of all variants:

    python -m venv torch-env && torch-env/bin/pip install torch
    torch-env/bin/python experiments/benchmarks/torch_peer.py --network capsnet --table

(``pip install torch --index-url https://download.pytorch.org/whl/cpu`` is smaller.) Images come
ready in [0, 1], where our step shifts and scales them itself: a small advantage to the peer.

A variant is named VOTES/FORM/MEMORY_FORMAT, with ``/compiled`` where TorchInductor compiles it
(which needs a C++ compiler), and ``@SETTING``. All compute the same function:

* votes of capsnet: `einsum` is the textbook form with votes [B, 1152, 10, 16]; `einsum_last` has
  the children last, [B, 10, 16, 1152]; `bmm` makes the votes by one batched matmul, [B, 1152, 160],
  and routes by plain matrix products; `folded` never stores the votes: since W is linear, the
  couplings multiply the poses before W, and the agreements are taken after W carried the parents
  back.
* form of capsnet: `strided` is one 9x9 convolution with stride 2; `phases` is the same sum split by
  the parity of row and column into four convolutions with stride 1, which have faster CPU kernels.
* votes of efficient_capsnet: `einsum` has all pairs of children; `bmm` is a batched matmul, and
  sums over the children first.
* form of efficient_capsnet: `depthwise` makes the primary capsules by a grouped convolution,
  `merged` by a product and a sum (its kernel has one place only), and merges each normalisation
  into the next kernel in inference, at every call.
* memory format: of the convolutions, `contiguous` or `channels_last`.
* settings: `onednn_off` leaves convolutions to ATen's own; `one_thread`; `passive` has
  threads sleep where others spin, which helps where the cores are shared; `bf16` computes
  convolutions and products in bfloat16, which is not compared with float32.
"""

import os
import sys

os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # huge pages; read when torch first allocates
try:
    import torch
except ImportError:
    sys.exit(
        "torch_peer: there is no PyTorch here. Make an environment: python -m venv torch-env && "
        "torch-env/bin/pip install torch"
    )
import peer_inputs
import peer_protocol
import torch.nn.functional as F
from torch_networks import NETWORKS

VARIANTS = {
    "capsnet": [
        "einsum/strided/contiguous",
        "einsum/strided/channels_last",
        "einsum_last/strided/contiguous",
        "bmm/strided/contiguous",
        "bmm/strided/channels_last",
        "bmm/phases/channels_last",
        "folded/strided/contiguous",
        "folded/phases/contiguous",
        "folded/phases/channels_last",
        "einsum/strided/contiguous/compiled",
        "folded/phases/contiguous/compiled",
        "folded/phases/channels_last/compiled",
        "folded/phases/channels_last@onednn_off",
        "folded/phases/channels_last@passive",
        "folded/phases/contiguous@passive",
        "folded/phases/channels_last@bf16",
    ],
    "efficient_capsnet": [
        "einsum/depthwise/contiguous",
        "einsum/depthwise/channels_last",
        "bmm/depthwise/channels_last",
        "bmm/merged/contiguous",
        "bmm/merged/channels_last",
        "bmm/merged/contiguous/compiled",
        "bmm/merged/channels_last/compiled",
        "bmm/merged/channels_last@onednn_off",
        "bmm/merged/channels_last@one_thread",
        "bmm/merged/channels_last@passive",
        "bmm/merged/channels_last/compiled@passive",
        "bmm/merged/channels_last@bf16",
    ],
}
FAST = {
    "capsnet": [
        "folded/phases/channels_last",
        "folded/phases/contiguous",
        "folded/phases/channels_last/compiled",
        "folded/phases/channels_last@passive",
        "folded/phases/contiguous@passive",
    ],
    "efficient_capsnet": [
        "bmm/merged/channels_last",
        "bmm/merged/channels_last/compiled",
        "bmm/merged/channels_last@passive",
        "bmm/merged/channels_last/compiled@passive",
    ],
}
SETTINGS = {
    "onednn_off": {"PEER_ONEDNN": "0"},
    "one_thread": {"PEER_THREADS": "1"},
    "passive": {"OMP_WAIT_POLICY": "PASSIVE"},
    "bf16": {"PEER_BF16": "1"},
}


def build(network, variant, batch_size):
    """A variant with its optimizer and a batch of digits."""
    form = variant.split("/")
    compiled = form[3:] == ["compiled"]
    model = NETWORKS[network](*form[:3])
    half = torch.autocast("cpu", torch.bfloat16, enabled="PEER_BF16" in os.environ)
    loss, infer = model.loss, model.lengths
    if compiled:
        loss, infer = (torch.compile(f, dynamic=False) for f in (loss, infer))
    adam = torch.optim.Adam(model.parameters(), lr=1e-3, fused=True)
    images, labels = peer_inputs.digits(batch_size)
    x = torch.frombuffer(bytearray(images), dtype=torch.uint8).float().div_(255)
    x = x.view(-1, 1, 28, 28)
    truth = F.one_hot(torch.tensor(labels), 10).float()

    def train():
        model.train()
        adam.zero_grad(set_to_none=True)
        with half:
            value = loss(x, truth)
        value.backward()
        adam.step()
        return value.item()

    def lengths():
        model.eval()
        with torch.inference_mode(), half:
            return infer(x)

    return peer_protocol.Peer(train, lengths, lambda: lengths().tolist())


def multiply(size):
    """Multiplies two random matrices."""
    a, b = torch.randn(size, size), torch.randn(size, size)
    return lambda: a @ b


def main():
    """Sets PyTorch up as the environment's variables say, and does what the command line asks."""
    torch.set_num_threads(int(os.environ.get("PEER_THREADS", os.cpu_count() or 1)))
    torch.backends.mkldnn.set_flags(os.environ.get("PEER_ONEDNN") != "0")
    framework = peer_protocol.Framework(
        "torch",
        torch.__version__,
        __file__,
        VARIANTS,
        FAST,
        build,
        multiply,
        torch.get_num_threads,
        SETTINGS,
    )
    peer_protocol.main(framework, __doc__)


if __name__ == "__main__":
    main()

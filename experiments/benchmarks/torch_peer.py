"""CapsNet of Sabour, Frosst and Hinton (2017) in PyTorch, tuned for a small CPU: a benchmark peer.

It builds the MNIST network with random weights and measures, on random images, how many images a
second one training step (forward, backward, Adam) and one inference call (class lengths, without
the decoder) get through. Environment:

    python -m venv torch-env && torch-env/bin/pip install torch
    torch-env/bin/python torch_peer.py --batch-size 64 --seconds 8 --json

A variant is named VOTES/CONV/MEMORY_FORMAT. All variants compute the same function:

* votes: `einsum` is the textbook form with votes [B, 1152, 10, 16]; `einsum_last` has the children
  last, [B, 10, 16, 1152]; `bmm` makes the votes by one batched matmul, [B, 1152, 160], and routes
  by plain matrix products; `folded` never stores the votes: since W is linear, the couplings
  multiply the poses before W, and the agreements are taken after W carried the parents back.
* conv: `strided` is one 9x9 convolution with stride 2; `phases` is the same sum split by the parity
  of row and column into four convolutions with stride 1, which have faster CPU kernels.
* memory format: of the convolutions, `contiguous` or `channels_last`.
"""

import argparse
import ctypes
import itertools
import json
import os
import statistics
import sys
import time

os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # huge pages; read when torch first allocates
import torch
import torch.nn.functional as F

CHILDREN, PARENTS, OUT, IN = 1152, 10, 16, 8
PARAMETERS = 8_215_568
BEST = ["folded/phases/channels_last", "folded/phases/contiguous", "folded/strided/contiguous"]
ALL = [
    *BEST,
    "bmm/phases/channels_last",
    "bmm/strided/contiguous",
    "bmm/strided/channels_last",
    "einsum_last/strided/contiguous",
    "einsum/strided/contiguous",
    "einsum/strided/channels_last",
]
PHASES = list(itertools.product((0, 1), repeat=2))


def keep_freed_memory():
    """Asks glibc to reuse large freed blocks instead of faulting in fresh pages at each step."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return
    for option, value in ((-3, 1 << 30), (-1, 2**31 - 1), (-2, 1 << 28)):  # mmap, trim, top pad
        mallopt(option, value)


def squash(s, dim=-1):
    """Scales vectors of squared length q to length q / (1 + q); value and gradient at 0 are 0."""
    q = s.square().sum(dim, keepdim=True)
    return s * (torch.sqrt(q + 1e-9) / (1 + q))


def route_einsum(u, w, votes="bpjc", couplings="bpj"):
    """Routing as usually written: u [B, P, 8], w [P, 10, 16, 8], votes in the given axis order."""
    u_hat = torch.einsum(f"bpd,pjcd->{votes}", u, w).contiguous()
    v = squash(u_hat.sum(votes.index("p")) / PARENTS)  # the softmax of zero logits is uniform
    logits = 0.0
    for _ in range(2):
        logits = logits + torch.einsum(f"{votes},bjc->{couplings}", u_hat, v)
        c = logits.softmax(couplings.index("j"))
        v = squash(torch.einsum(f"{couplings},{votes}->bjc", c, u_hat))
    return v


def route_einsum_last(u, w):
    """The same with the children as the last axis."""
    return route_einsum(u, w, "bjcp", "bjp")


def route_bmm(u, w):
    """Routing by matrix products: w [P, 8, 160], votes [B, P, 160], parents laid out as blocks.

    All 10 x 10 pairs of couplings and vote blocks are multiplied and the diagonal is kept; the
    spare arithmetic costs less than strided access by 10 matrix-vector products per image.
    """
    batch = u.shape[0]
    votes = torch.bmm(u.transpose(0, 1), w).transpose(0, 1).contiguous()
    eye = torch.eye(PARENTS).view(PARENTS, 1, PARENTS)
    v = squash(votes.sum(1).view(batch, PARENTS, OUT) / PARENTS)
    logits = 0.0
    for _ in range(2):
        blocks = (v.unsqueeze(3) * eye).view(batch, PARENTS * OUT, PARENTS)
        logits = logits + torch.bmm(votes, blocks)
        sums = torch.bmm(logits.softmax(2).transpose(1, 2), votes)
        sums = sums.view(batch, PARENTS, PARENTS, OUT).diagonal(dim1=1, dim2=2).transpose(1, 2)
        v = squash(sums)
    return v


def route_folded(u, w):
    """Routing without stored votes: w [10, 16, 8 * P], multiplied twice per iteration."""
    batch = u.shape[0]
    u = u.transpose(1, 2).contiguous()  # [B, 8, P]
    total = u.view(batch, -1) @ w.view(PARENTS * OUT, -1).t()
    v = squash(total.view(batch, PARENTS, OUT).transpose(0, 1) / PARENTS)  # [10, B, 16]
    logits = 0.0
    for _ in range(2):
        back = torch.bmm(v, w).view(PARENTS, batch, IN, CHILDREN)
        logits = logits + (back * u).sum(2)  # [10, B, P]
        weighted = (logits.softmax(0).unsqueeze(2) * u).view(PARENTS, batch, -1)
        v = squash(torch.bmm(weighted, w.transpose(1, 2)))
    return v.transpose(0, 1)


ROUTES = {  # name: (function, axes of [P, 10, 16, 8] in its weight layout, shape of that layout)
    "einsum": (route_einsum, (0, 1, 2, 3), (CHILDREN, PARENTS, OUT, IN)),
    "einsum_last": (route_einsum_last, (0, 1, 2, 3), (CHILDREN, PARENTS, OUT, IN)),
    "bmm": (route_bmm, (0, 3, 1, 2), (CHILDREN, IN, PARENTS * OUT)),
    "folded": (route_folded, (1, 2, 3, 0), (PARENTS, OUT, IN * CHILDREN)),
}


class CapsNet(torch.nn.Module):
    """The network of one variant; with the same seed all variants start from the same weights."""

    def __init__(self, name, seed=0):
        super().__init__()
        votes, self.conv, layout = name.split("/")
        self.format = getattr(torch, {"contiguous": "contiguous_format"}.get(layout, layout))
        torch.manual_seed(seed)
        weight = torch.nn.Parameter
        self.w1 = weight((torch.randn(256, 1, 9, 9) / 9).contiguous(memory_format=self.format))
        self.b1 = weight(torch.zeros(256))
        w2 = torch.randn(256, 256, 9, 9) / 144
        parts = [w2[:, :, i::2, j::2] for i, j in PHASES] if self.conv == "phases" else [w2]
        self.w2 = torch.nn.ParameterList(
            [weight(p.contiguous(memory_format=self.format)) for p in parts]
        )
        self.b2 = weight(torch.zeros(256))
        self.route, axes, shape = ROUTES[votes]
        w = torch.randn(CHILDREN, PARENTS, OUT, IN) * 0.05
        self.w3 = weight(w.permute(axes).contiguous().view(shape))
        self.decoder = torch.nn.Sequential(
            torch.nn.Linear(160, 512),
            torch.nn.ReLU(inplace=True),
            torch.nn.Linear(512, 1024),
            torch.nn.ReLU(inplace=True),
            torch.nn.Linear(1024, 784),
            torch.nn.Sigmoid(),
        )
        assert sum(p.numel() for p in self.parameters()) == PARAMETERS

    def primary(self, x):
        """Both convolutions: images [B, 1, 28, 28] to poses [B, 1152, 8]."""
        if self.conv == "strided":
            y = F.conv2d(F.conv2d(x, self.w1, self.b1).relu_(), self.w2[0], self.b2, stride=2)
        else:  # a phase (i, j) of the hidden image is a stride 2 convolution of the shifted input
            y = None
            for (i, j), w in zip(PHASES, self.w2, strict=True):
                crop = x[:, :, i : 27 - i, j : 27 - j]
                hidden = F.conv2d(crop, self.w1, self.b1, stride=2).relu_()
                part = F.conv2d(hidden, w, None if i or j else self.b2)
                y = part if y is None else y + part
        return squash(y.permute(0, 2, 3, 1).reshape(-1, CHILDREN, IN))

    def forward(self, x):
        """Returns class capsules [B, 10, 16] and their lengths [B, 10]."""
        v = self.route(self.primary(x), self.w3)
        return v, torch.sqrt(v.square().sum(2) + 1e-9)

    def loss(self, x, truth):
        """Margin loss plus 0.0005 times the summed squared error; truth is one-hot [B, 10]."""
        v, length = self(x)
        margin = (
            truth * F.relu(0.9 - length).square()
            + 0.5 * (1 - truth) * F.relu(length - 0.1).square()
        ).sum(1)
        image = self.decoder((v * truth.unsqueeze(2)).flatten(1))
        error = (image - x.flatten(1)).square().sum(1)
        return (margin + 0.0005 * error).mean()


class Peer:
    """One variant with its optimizer and its measured times."""

    def __init__(self, name, compiled=False):
        self.name, self.compiled, self.train_s, self.inference_s = name, compiled, [], []
        model = CapsNet(name)
        self.loss, self.infer = model.loss, lambda x: model(x)[1]
        if compiled:
            self.loss, self.infer = torch.compile(self.loss), torch.compile(self.infer)
        try:
            self.adam = torch.optim.Adam(model.parameters(), lr=1e-3, fused=True)
        except (RuntimeError, ValueError, TypeError):
            self.adam = torch.optim.Adam(model.parameters(), lr=1e-3, foreach=True)

    def train(self, x, truth):
        """One training step; returns the loss."""
        self.adam.zero_grad(set_to_none=True)
        loss = self.loss(x, truth)
        loss.backward()
        self.adam.step()
        return loss.item()

    def measure(self, x, truth, keep=True):
        """Times one training step and one inference call; the warm-up is not kept."""
        start = time.perf_counter()
        self.train(x, truth)
        middle = time.perf_counter()
        with torch.inference_mode():
            self.infer(x)
        if keep:
            self.train_s.append(middle - start)
            self.inference_s.append(time.perf_counter() - middle)

    def result(self, batch):
        """The medians as a JSON-ready dictionary."""
        votes, conv, layout = self.name.split("/")
        return {
            "name": self.name,
            "votes": votes,
            "conv": conv,
            "memory_format": layout,
            "compiled": self.compiled,
            "steps": len(self.train_s),
            "train_images_per_second": batch / statistics.median(self.train_s),
            "inference_images_per_second": batch / statistics.median(self.inference_s),
        }


def gflop_per_image():
    """Analytic GFLOP (training, inference) of the plain algorithm, a multiply-add counted as 2."""
    first = 400 * 81 * 256
    second = 36 * 81 * 256 * 256
    capsules = CHILDREN * PARENTS * OUT * (IN + 5)  # votes, 3 weighted sums, 2 agreements
    decoder = 160 * 512 + 512 * 1024 + 1024 * 784
    training = 2 * first + 3 * (second + capsules + decoder)  # no input gradient of the first
    return 2e-9 * training, 2e-9 * (first + second + capsules)


def matmul_gflops(n=2048, repeats=7):
    """Median GFLOP/s of an n x n float32 matrix product."""
    a, b, times = torch.randn(n, n), torch.randn(n, n), []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        a @ b
        times.append(time.perf_counter() - start)
    return 2e-9 * n**3 / statistics.median(times[1:])


def random_batch(size):
    """Random images in [0, 1) and one-hot labels."""
    torch.manual_seed(1)
    return torch.rand(size, 1, 28, 28), F.one_hot(torch.arange(size) % 10, 10).float()


def check(names, size):
    """Trains each variant for 20 steps on one random batch; the losses must fall, and agree."""
    zero = torch.zeros(1, OUT, requires_grad=True)
    squash(zero).sum().backward()
    assert torch.isfinite(zero.grad).all()
    x, truth = random_batch(size)
    reference = CapsNet("einsum/strided/contiguous").loss(x, truth).item()
    for name in names:
        peer = Peer(name)
        losses = [peer.train(x, truth) for _ in range(20)]
        print(f"{name}: loss {losses[0]:.5f} -> {losses[-1]:.5f}", flush=True)
        assert losses[-1] < losses[0]
        assert abs(losses[0] - reference) < 1e-4 * reference
    print("check passed: every loss falls and the variants start equal")


def add_compiled(peers, names, data):
    """Appends torch.compile variants that work; reports the seconds spent on compiling each."""
    for name in names:
        start = time.perf_counter()
        try:
            peer = Peer(name, compiled=True)
            peer.measure(*data, keep=False)
        except Exception as error:  # a missing C++ compiler, for one: go on without it
            print(f"compile of {name} failed: {str(error)[:200]}", file=sys.stderr)
            continue
        print(f"compiled {name} in {time.perf_counter() - start:.0f} s", file=sys.stderr)
        peers.append(peer)


def run(args, names):
    """Measures the variants in turn and returns the report."""
    load = os.getloadavg()[0]  # of other people's work: half-busy cores can cost a factor of 4
    gflops, data = matmul_gflops(), random_batch(args.batch_size)
    peers = [Peer(name) for name in names]
    if args.compile:
        add_compiled(peers, [name for name in names if name in BEST], data)
    for peer in peers:
        peer.measure(*data, keep=False)
    end, rounds = time.perf_counter() + args.seconds * len(peers), 0
    while rounds < 3 or time.perf_counter() < end:
        for peer in peers:
            peer.measure(*data)
        rounds += 1
    results = [peer.result(args.batch_size) for peer in peers]
    train, infer = gflop_per_image()
    best = {
        kind: max(results, key=lambda r: r[f"{kind}_images_per_second"])
        for kind in ("train", "inference")
    }
    return {
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "matmul_gflops": gflops,
        "load_before": load,
        "batch_size": args.batch_size,
        "variants": results,
        "best": best,
        "gflop_per_image_train": train,
        "gflop_per_image_inference": infer,
    }


def main():
    """Parses the command line, measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=8, help="measuring time per variant")
    parser.add_argument("--variants", choices=["best", "all"], default="best")
    parser.add_argument("--only", choices=ALL, metavar="NAME", help="one of: " + ", ".join(ALL))
    parser.add_argument("--compile", action="store_true", help="also try torch.compile on the best")
    parser.add_argument("--check", action="store_true", help="train 20 steps, verify, and stop")
    parser.add_argument("--json", action="store_true", help="print one JSON object as last line")
    args = parser.parse_args()
    keep_freed_memory()
    torch.set_num_threads(os.cpu_count())
    names = [args.only] if args.only else {"best": BEST, "all": ALL}[args.variants]
    if args.check:
        return check(names, min(args.batch_size, 16))
    report = run(args, names)
    for r in report["variants"]:
        print(
            f"{r['name'] + (' compiled' if r['compiled'] else ''):42s}"
            f" train {r['train_images_per_second']:7.1f}/s"
            f" inference {r['inference_images_per_second']:7.1f}/s ({r['steps']} steps)"
        )
    if args.json:
        print(json.dumps(report))


if __name__ == "__main__":
    main()

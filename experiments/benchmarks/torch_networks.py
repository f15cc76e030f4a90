"""CapsNet and Efficient-CapsNet in PyTorch, tuned for a small CPU; ``torch_peer`` names the forms.

Both take images ``[B, 1, 28, 28]`` in [0, 1]. All forms of one network compute the same function
from the same weights (``peer_inputs``).
"""

import itertools

import peer_inputs
import torch
import torch.nn.functional as F

CHILDREN, PARENTS, OUT, IN = 1152, 10, 16, 8
EPSILON, MOMENTUM = 1e-3, 0.99  # of the batch normalisation
PHASES = list(itertools.product((0, 1), repeat=2))


def squash(s, dim=-1):
    """Scales vectors of squared length q to length q / (1 + q); value and gradient at 0 are 0."""
    q = s.square().sum(dim, keepdim=True)
    return s * (torch.sqrt(q + 1e-9) / (1 + q))


def squash_exponential(s):
    """Scales vectors of length n along the last axis to length 1 - exp(-n)."""
    n = torch.sqrt(s.square().sum(-1, keepdim=True) + 1e-9)
    return s * (-torch.expm1(-n) / n)


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


def attend_einsum(u, w, prior):
    """Self-attention routing as usually written: w [16, 10, 16, 8], prior [16, 10]."""
    votes = torch.einsum("bpd,pjcd->bjpc", u, w)
    agreement = torch.einsum("bjpc,bjqc->bjpq", votes, votes).sum(3) / OUT**0.5
    c = agreement.softmax(1) + prior.t()
    return squash_exponential((c.unsqueeze(3) * votes).sum(2))


def attend_bmm(u, w, prior):
    """The same with w [16, 8, 160], and the sum over children taken before the product."""
    votes = torch.bmm(u.transpose(0, 1), w).view(-1, u.shape[0], PARENTS, OUT)  # [16, B, 10, 16]
    logits = (votes * (votes.sum(0) / OUT**0.5)).sum(3)
    c = logits.softmax(2) + prior.unsqueeze(1)
    return squash_exponential((c.unsqueeze(3) * votes).sum(0))


ATTENTIONS = {
    "einsum": (attend_einsum, (0, 1, 2, 3), (16, PARENTS, OUT, IN)),
    "bmm": (attend_bmm, (0, 3, 1, 2), (16, IN, PARENTS * OUT)),
}


class Network(torch.nn.Module):
    """What both have: arrays by name, lengths, the decoder and the loss."""

    def __init__(self, network, layout):
        super().__init__()
        self.format = getattr(torch, {"contiguous": "contiguous_format"}.get(layout, layout))
        self.drawn = {
            w.name: torch.frombuffer(w.raw, dtype=torch.int32).float().div_(2.0**31).mul_(w.scale)
            .add_(w.centre).view(w.shape)
            for w in peer_inputs.weights(network).values()
        }  # fmt: skip
        self.dense = torch.nn.ParameterList()
        for number in range(3):
            self.dense.append(self.drawn[f"dense{number}.kernel"].t().contiguous())
            self.dense.append(self.drawn[f"dense{number}.bias"])

    def kernel(self, name, rows=slice(None), columns=slice(None)):
        """A convolution's kernel [out, in, rows, columns], or a part of it, as a parameter."""
        kernel = self.drawn[f"{name}.kernel"][rows, columns].permute(3, 2, 0, 1)
        return torch.nn.Parameter(kernel.contiguous(memory_format=self.format))

    def vector(self, name):
        """An array as it was drawn, as a parameter."""
        return torch.nn.Parameter(self.drawn[name].clone())

    def capsules(self, axes, shape):
        """The capsules' matrices in the layout of a routing."""
        return torch.nn.Parameter(self.drawn["capsules"].permute(axes).contiguous().view(shape))

    def finish(self, network):
        """Forgets what was drawn, once all parameters are made."""
        del self.drawn
        assert sum(p.numel() for p in self.parameters()) == peer_inputs.PARAMETERS[network]

    def decode(self, v, truth):
        """Images [B, 784] of the true class's capsule."""
        y = (v * truth.unsqueeze(2)).flatten(1)
        y = F.relu_(F.linear(y, self.dense[0], self.dense[1]))
        y = F.relu_(F.linear(y, self.dense[2], self.dense[3]))
        return torch.sigmoid(F.linear(y, self.dense[4], self.dense[5]))

    def lengths(self, x):
        """Lengths of the class capsules, [B, 10]."""
        return torch.sqrt(self(x).square().sum(2) + 1e-9)

    def loss(self, x, truth):
        """Margin loss plus 0.0005 times the summed squared error; truth is one-hot [B, 10]."""
        v = self(x)
        length = torch.sqrt(v.square().sum(2) + 1e-9)
        margin = (
            truth * F.relu(0.9 - length).square()
            + 0.5 * (1 - truth) * F.relu(length - 0.1).square()
        ).sum(1)
        error = (self.decode(v, truth) - x.flatten(1)).square().sum(1)
        return (margin + 0.0005 * error).mean()


class CapsNet(Network):
    """Forms: votes, convolutions, memory format."""

    def __init__(self, votes, conv, layout):
        super().__init__("capsnet", layout)
        self.first, self.first_bias = self.kernel("first"), self.vector("first.bias")
        parts = [(slice(i, None, 2), slice(j, None, 2)) for i, j in PHASES]
        parts = parts if conv == "phases" else [(slice(None), slice(None))]
        self.second = torch.nn.ParameterList([self.kernel("second", *p) for p in parts])
        self.second_bias = self.vector("second.bias")
        self.route, axes, shape = ROUTES[votes]
        self.w = self.capsules(axes, shape)
        self.finish("capsnet")

    def primary(self, x):
        """Both convolutions: images [B, 1, 28, 28] to poses [B, 1152, 8]."""
        if len(self.second) == 1:
            hidden = F.conv2d(x, self.first, self.first_bias).relu_()
            y = F.conv2d(hidden, self.second[0], self.second_bias, stride=2)
        else:  # a phase (i, j) of the hidden image is a stride 2 convolution of the shifted input
            y = None
            for (i, j), w in zip(PHASES, self.second, strict=True):
                crop = x[:, :, i : 27 - i, j : 27 - j]
                hidden = F.conv2d(crop, self.first, self.first_bias, stride=2).relu_()
                part = F.conv2d(hidden, w, None if i or j else self.second_bias)
                y = part if y is None else y + part
        return squash(y.permute(0, 2, 3, 1).reshape(-1, CHILDREN, IN))

    def forward(self, x):
        """Class capsules [B, 10, 16]."""
        return self.route(self.primary(x), self.w)


class EfficientCapsNet(Network):
    """Forms: votes, primary capsules and normalisation, memory format."""

    def __init__(self, votes, form, layout):
        super().__init__("efficient_capsnet", layout)
        self.form = form
        numbers = range(4)
        self.kernels = torch.nn.ParameterList([self.kernel(f"conv{n}") for n in numbers])
        self.bias, self.gain, self.offset = (
            torch.nn.ParameterList([self.vector(f"conv{n}.{part}") for n in numbers])
            for part in ("bias", "gain", "offset")
        )
        self.mean, self.variance = (
            [self.drawn[f"conv{n}.{part}"].clone() for n in numbers]
            for part in ("mean", "variance")
        )
        self.last, self.last_bias = self.kernel("primary"), self.vector("primary.bias")
        self.route, axes, shape = ATTENTIONS[votes]
        self.w, self.prior = self.capsules(axes, shape), self.vector("prior")
        self.finish("efficient_capsnet")

    def features(self, x):
        """Convolution, ReLU, normalisation, four times: images to [B, 128, 9, 9]."""
        x = x.contiguous(memory_format=self.format)
        for n in range(4):
            x = F.conv2d(x, self.kernels[n], self.bias[n], stride=2 if n == 3 else 1).relu_()
            x = F.batch_norm(
                x,
                self.mean[n],
                self.variance[n],
                self.gain[n],
                self.offset[n],
                self.training,
                1 - MOMENTUM,
                EPSILON,
            )
        return x

    def features_merged(self, x):
        """For inference: each normalisation is part of the next kernel, exactly so without padding.

        Returns features, and scale and offset [128] of the last normalisation.
        """
        x = x.contiguous(memory_format=self.format)
        scale = offset = None
        for n in range(4):
            kernel, bias = self.kernels[n], self.bias[n]
            if scale is not None:
                bias = bias + torch.mv(kernel.sum((2, 3)), offset)
                kernel = kernel * scale.view(1, -1, 1, 1)
            x = F.conv2d(x, kernel, bias, stride=2 if n == 3 else 1).relu_()
            scale = self.gain[n] * torch.rsqrt(self.variance[n] + EPSILON)
            offset = self.offset[n] - self.mean[n] * scale
        return x, scale, offset

    def poses(self, x):
        """Primary capsules [B, 16, 8]; the depthwise kernel is as large as its input."""
        if self.form == "depthwise":
            x = F.conv2d(self.features(x), self.last, self.last_bias, groups=128)
        elif self.training:
            x = (self.features(x) * self.last.squeeze(1)).sum((2, 3)) + self.last_bias
        else:
            x, scale, offset = self.features_merged(x)
            last = self.last.squeeze(1)
            sums = (x * (last * scale.view(-1, 1, 1))).sum((2, 3))
            x = sums + (self.last_bias + offset * last.sum((1, 2)))
        return squash_exponential(x.reshape(-1, 16, IN))

    def forward(self, x):
        """Class capsules [B, 10, 16]."""
        return self.route(self.poses(x), self.w, self.prior)


NETWORKS = {"capsnet": CapsNet, "efficient_capsnet": EfficientCapsNet}

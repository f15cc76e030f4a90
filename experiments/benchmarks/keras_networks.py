"""CapsNet and Efficient-CapsNet in Keras on TensorFlow; ``keras_peer`` names the forms.

Both take images ``[B, 28, 28, 1]`` in [0, 1]: TensorFlow's CPU kernels have channels last only. All
forms of one network compute the same function from the same weights (``peer_inputs``).
"""

import itertools

import keras
import numpy as np
import peer_inputs
import tensorflow as tf

CHILDREN, PARENTS, OUT, IN = 1152, 10, 16, 8
EPSILON, MOMENTUM = 1e-3, 0.99  # of the batch normalisation
PHASES = list(itertools.product((0, 1), repeat=2))


def squash(s, axis=-1):
    """Scales vectors of squared length q to length q / (1 + q); value and gradient at 0 are 0."""
    q = tf.reduce_sum(tf.square(s), axis, keepdims=True)
    return s * (tf.sqrt(q + 1e-9) / (1 + q))


def squash_exponential(s):
    """Scales vectors of length n along the last axis to length 1 - exp(-n)."""
    n = tf.sqrt(tf.reduce_sum(tf.square(s), -1, keepdims=True) + 1e-9)
    return s * (-tf.math.expm1(-n) / n)


def route_einsum(u, w, votes="bpjc", couplings="bpj"):
    """Routing as usually written: u [B, P, 8], w [P, 10, 16, 8], votes in the given axis order."""
    u_hat = tf.einsum(f"bpd,pjcd->{votes}", u, w)
    v = squash(tf.reduce_sum(u_hat, votes.index("p")) / PARENTS)  # softmax of zeros is uniform
    logits = 0.0
    for _ in range(2):
        logits += tf.einsum(f"{votes},bjc->{couplings}", u_hat, v)
        c = tf.nn.softmax(logits, couplings.index("j"))
        v = squash(tf.einsum(f"{couplings},{votes}->bjc", c, u_hat))
    return v


def route_matmul(u, w):
    """Routing with votes [B, 10, P, 16] and batched matrix products: w [P, 8, 160]."""
    votes = tf.matmul(tf.transpose(u, (1, 0, 2)), w)  # [P, B, 160]
    votes = tf.transpose(tf.reshape(votes, (CHILDREN, -1, PARENTS, OUT)), (1, 2, 0, 3))
    v = squash(tf.reduce_sum(votes, 2, keepdims=True) / PARENTS)  # [B, 10, 1, 16]
    logits = 0.0
    for _ in range(2):
        logits += tf.matmul(votes, v, transpose_b=True)  # [B, 10, P, 1]
        v = squash(tf.matmul(tf.nn.softmax(logits, 1), votes, transpose_a=True))
    return v[:, :, 0]


def route_products(u, w):
    """Routing with the same votes by products and sums, which XLA fuses."""
    votes = tf.matmul(tf.transpose(u, (1, 0, 2)), w)
    votes = tf.transpose(tf.reshape(votes, (CHILDREN, -1, PARENTS, OUT)), (1, 2, 3, 0))
    v = squash(tf.reduce_sum(votes, 3) / PARENTS)  # [B, 10, 16]
    logits = 0.0
    for _ in range(2):
        logits += tf.reduce_sum(votes * v[..., None], 2)  # [B, 10, P]
        v = squash(tf.reduce_sum(tf.nn.softmax(logits, 1)[:, :, None] * votes, 3))
    return v


def route_folded(u, w):
    """Routing without stored votes: w [10, 16, 8 * P], multiplied twice per iteration."""
    u = tf.transpose(u, (0, 2, 1))  # [B, 8, P]
    total = tf.matmul(
        tf.reshape(u, (-1, IN * CHILDREN)),
        tf.reshape(w, (PARENTS * OUT, IN * CHILDREN)),
        transpose_b=True,
    )
    v = squash(tf.transpose(tf.reshape(total, (-1, PARENTS, OUT)), (1, 0, 2)) / PARENTS)
    logits = 0.0
    for _ in range(2):  # v is [10, B, 16]
        back = tf.reshape(tf.matmul(v, w), (PARENTS, -1, IN, CHILDREN))
        logits += tf.reduce_sum(back * u, 2)  # [10, B, P]
        weighted = tf.nn.softmax(logits, 0)[:, :, None] * u
        weighted = tf.reshape(weighted, (PARENTS, -1, IN * CHILDREN))
        v = squash(tf.matmul(weighted, w, transpose_b=True))
    return tf.transpose(v, (1, 0, 2))


def route_einsum_last(u, w):
    """As usually written, with the children as the last axis."""
    return route_einsum(u, w, "bjcp", "bjp")


ROUTES = {  # name: (function, axes of [P, 10, 16, 8] in its weight layout, shape of that layout)
    "einsum": (route_einsum, (0, 1, 2, 3), (CHILDREN, PARENTS, OUT, IN)),
    "einsum_last": (route_einsum_last, (0, 1, 2, 3), (CHILDREN, PARENTS, OUT, IN)),
    "matmul": (route_matmul, (0, 3, 1, 2), (CHILDREN, IN, PARENTS * OUT)),
    "products": (route_products, (0, 3, 1, 2), (CHILDREN, IN, PARENTS * OUT)),
    "folded": (route_folded, (1, 2, 3, 0), (PARENTS, OUT, IN * CHILDREN)),
}


def attend_einsum(u, w, prior):
    """Self-attention routing as usually written: w [16, 10, 16, 8], prior [16, 10]."""
    votes = tf.einsum("bpd,pjcd->bjpc", u, w)
    agreement = tf.reduce_sum(tf.matmul(votes, votes, transpose_b=True), 3) / OUT**0.5
    c = tf.nn.softmax(agreement, 1) + tf.transpose(prior)
    return squash_exponential(tf.reduce_sum(c[..., None] * votes, 2))


def attend_matmul(u, w, prior):
    """The same with w [16, 8, 160], and the sum over children taken before the product."""
    votes = tf.matmul(tf.transpose(u, (1, 0, 2)), w)
    votes = tf.reshape(votes, (16, -1, PARENTS, OUT))  # [16, B, 10, 16]
    logits = tf.reduce_sum(votes * (tf.reduce_sum(votes, 0) / OUT**0.5), 3)
    c = tf.nn.softmax(logits) + prior[:, None]
    return squash_exponential(tf.reduce_sum(c[..., None] * votes, 0))


ATTENTIONS = {
    "einsum": (attend_einsum, (0, 1, 2, 3), (16, PARENTS, OUT, IN)),
    "matmul": (attend_matmul, (0, 3, 1, 2), (16, IN, PARENTS * OUT)),
}


class Network(keras.Model):
    """What both have: arrays by name, lengths, the decoder and the loss.

    With ``xla_capsules`` XLA compiles what follows the convolutions, and these stay TensorFlow's.
    """

    def __init__(self, network, xla_capsules, half):
        super().__init__()
        self.half = tf.bfloat16 if half else tf.float32
        self.drawn = {
            w.name: (
                np.frombuffer(w.raw, np.int32).astype(np.float32) / np.float32(2**31) * w.scale
                + w.centre
            ).reshape(w.shape)
            for w in peer_inputs.weights(network).values()
        }
        self.dense = [
            (self.array(f"dense{n}.kernel"), self.array(f"dense{n}.bias")) for n in range(3)
        ]
        if xla_capsules:
            self.capsules = tf.function(self.capsules, jit_compile=True)
            self.loss_of = tf.function(self.loss_of, jit_compile=True)

    def array(self, name, part=lambda w: w, trainable=True):
        """An array as it was drawn, or a part of it, as a weight."""
        value = part(self.drawn[name])
        return self.add_weight(
            shape=value.shape,
            initializer=lambda shape, dtype: tf.constant(value, dtype),
            name=name.replace(".", "_"),
            trainable=trainable,
        )

    def finish(self, network):
        """Forgets what was drawn, once all weights are made."""
        del self.drawn
        self.built = True
        count = sum(w.shape.num_elements() for w in self.trainable_variables)
        assert count == peer_inputs.PARAMETERS[network]

    def convolve(self, x, kernel, bias=None, stride=1):
        """An unpadded convolution."""
        x, kernel = tf.cast(x, self.half), tf.cast(kernel, self.half)
        y = tf.nn.conv2d(x, kernel, stride, "VALID")
        return y if bias is None else tf.nn.bias_add(y, tf.cast(bias, self.half))

    def call(self, x, training=False):
        """Lengths of the class capsules, [B, 10]."""
        v = self.capsules(self.features(x, training))
        return tf.sqrt(tf.reduce_sum(tf.square(v), 2) + 1e-9)

    def loss_of(self, features, x, truth):
        """Margin loss plus 0.0005 times the summed squared error; truth is one-hot [B, 10]."""
        v = self.capsules(features)
        length = tf.sqrt(tf.reduce_sum(tf.square(v), 2) + 1e-9)
        present = truth * tf.square(tf.nn.relu(0.9 - length))
        absent = (1 - truth) * tf.square(tf.nn.relu(length - 0.1))
        y = tf.reshape(v * truth[..., None], (-1, PARENTS * OUT))
        for n, (kernel, bias) in enumerate(self.dense):
            y = tf.matmul(tf.cast(y, self.half), tf.cast(kernel, self.half))
            y = tf.nn.bias_add(y, tf.cast(bias, self.half))
            y = tf.nn.relu(y) if n < 2 else tf.sigmoid(tf.cast(y, tf.float32))
        error = tf.reduce_sum(tf.square(y - tf.reshape(x, (-1, 784))), 1)
        return tf.reduce_mean(tf.reduce_sum(present + 0.5 * absent, 1) + 0.0005 * error)

    def gradients(self, x, truth):
        """Loss and gradients of a training step."""
        with tf.GradientTape() as tape:
            loss = self.loss_of(self.features(x, True), x, truth)
        return loss, tape.gradient(loss, self.trainable_variables)

    def train_step(self, data):
        """What ``fit`` does with a batch."""
        loss, gradients = self.gradients(*data)
        self.optimizer.apply(gradients, self.trainable_variables)
        return {"total": loss}  # as "loss", Keras would report its own metric of that name instead


class CapsNet(Network):
    """Forms: votes, convolutions."""

    def __init__(self, votes, conv, **options):
        super().__init__("capsnet", **options)
        self.conv = conv
        self.first, self.first_bias = self.array("first.kernel"), self.array("first.bias")
        parts = PHASES if conv.startswith("phases") else [None]
        self.second = [
            self.array("second.kernel", lambda w, p=p: w[p[0] :: 2, p[1] :: 2] if p else w)
            for p in parts
        ]
        self.second_bias = self.array("second.bias")
        self.route, axes, shape = ROUTES[votes]
        self.w = self.array("capsules", lambda w: w.transpose(axes).reshape(shape))
        self.finish("capsnet")

    def features(self, x, training):
        """Both convolutions: images [B, 28, 28, 1] to [B, 6, 6, 256]."""
        del training
        if self.conv == "phases":  # each hidden phase is a stride 2 convolution of shifted images
            hidden = [
                tf.nn.relu(
                    self.convolve(x[:, i : 27 - i, j : 27 - j], self.first, self.first_bias, 2)
                )
                for i, j in PHASES
            ]
        else:
            hidden = tf.nn.relu(self.convolve(x, self.first, self.first_bias))
            if self.conv == "strided":
                return self.convolve(hidden, self.second[0], self.second_bias, 2)
            hidden = [hidden[:, i:19:2, j:19:2] for i, j in PHASES]
        parts = [self.convolve(h, w) for h, w in zip(hidden, self.second, strict=True)]
        return tf.nn.bias_add(tf.add_n(parts), tf.cast(self.second_bias, self.half))

    def capsules(self, features):
        """Class capsules [B, 10, 16]."""
        u = squash(tf.reshape(tf.cast(features, tf.float32), (-1, CHILDREN, IN)))
        return self.route(u, tf.convert_to_tensor(self.w))


class EfficientCapsNet(Network):
    """Forms: votes, primary capsules and normalisation."""

    def __init__(self, votes, form, **options):
        super().__init__("efficient_capsnet", **options)
        self.form = form
        self.blocks = [
            [self.array(f"conv{n}.{part}") for part in ("kernel", "bias", "gain", "offset")]
            for n in range(4)
        ]
        self.statistics = [
            [self.array(f"conv{n}.{part}", trainable=False) for part in ("mean", "variance")]
            for n in range(4)
        ]
        self.last, self.last_bias = self.array("primary.kernel"), self.array("primary.bias")
        self.route, axes, shape = ATTENTIONS[votes]
        self.w = self.array("capsules", lambda w: w.transpose(axes).reshape(shape))
        self.prior = self.array("prior")
        self.finish("efficient_capsnet")

    def features(self, x, training):
        """Images to the primary capsules before squashing, [B, 128]."""
        if self.form == "merged" and not training:
            return self.merged(x)
        for n, (kernel, bias, gain, offset) in enumerate(self.blocks):
            x = tf.nn.relu(self.convolve(x, kernel, bias, 2 if n == 3 else 1))
            x = self.normalise(x, gain, offset, self.statistics[n], training)
        x = tf.cast(x, tf.float32)
        last = tf.convert_to_tensor(self.last)
        if self.form == "depthwise":
            y = tf.nn.depthwise_conv2d(x, tf.transpose(last, (0, 1, 3, 2)), (1, 1, 1, 1), "VALID")
            y = y[:, 0, 0]
        else:
            y = tf.reduce_sum(x * last[:, :, 0], (1, 2))
        return y + self.last_bias

    def normalise(self, x, gain, offset, statistics, training):
        """Batch normalisation: TensorFlow's kernel, or with "moments" as Keras' layer does it."""
        if self.form == "moments":
            wide = tf.cast(x, tf.float32)
            mean, variance = tf.nn.moments(wide, (0, 1, 2)) if training else statistics
            y = tf.nn.batch_normalization(wide, mean, variance, offset, gain, EPSILON)
        else:
            mean, variance = (None, None) if training else map(tf.convert_to_tensor, statistics)
            y, mean, variance = tf.compat.v1.nn.fused_batch_norm(
                x,
                tf.convert_to_tensor(gain),
                tf.convert_to_tensor(offset),
                mean,
                variance,
                EPSILON,
                is_training=training,
            )
        if training:
            for old, new in zip(statistics, (mean, variance), strict=True):
                old.assign(MOMENTUM * old + (1 - MOMENTUM) * new)
        return y

    def merged(self, x):
        """For inference: each normalisation is part of the next kernel, exactly so unpadded."""
        scale = shift = None
        for n, (kernel, bias, gain, offset) in enumerate(self.blocks):
            if scale is not None:
                bias = bias + tf.linalg.matvec(
                    tf.reduce_sum(kernel, (0, 1)), shift, transpose_a=True
                )
                kernel = kernel * scale[:, None]
            x = tf.nn.relu(self.convolve(x, kernel, bias, 2 if n == 3 else 1))
            mean, variance = self.statistics[n]
            scale = gain * tf.math.rsqrt(variance + EPSILON)
            shift = offset - mean * scale
        last = tf.convert_to_tensor(self.last)[:, :, 0]
        sums = tf.reduce_sum(tf.cast(x, tf.float32) * (last * scale), (1, 2))
        return sums + (self.last_bias + shift * tf.reduce_sum(last, (0, 1)))

    def capsules(self, features):
        """Class capsules [B, 10, 16]."""
        u = squash_exponential(tf.reshape(features, (-1, 16, IN)))
        return self.route(u, tf.convert_to_tensor(self.w), tf.convert_to_tensor(self.prior))


NETWORKS = {"capsnet": CapsNet, "efficient_capsnet": EfficientCapsNet}

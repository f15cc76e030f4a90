"""CapsNet and Efficient-CapsNet in Keras 3 on TensorFlow: a peer of the speed benchmark.

It measures how many digits a second one training step (forward, backward, Adam) and one inference
call (class lengths, without the decoder) get through. Environment, and the record of all variants:

    python3.11 -m venv tf-env && tf-env/bin/pip install tensorflow==2.21.0
    tf-env/bin/python experiments/benchmarks/keras_peer.py --network capsnet --table

Images come ready in [0, 1], where our step shifts and scales them itself: a small advantage to the
peer. A variant is named VOTES/FORM/STEP, and ``@SETTING``. All compute the same function:

* votes of capsnet: `einsum` is the textbook form with votes [B, 1152, 10, 16]; `einsum_last` has
  the children last; `matmul` makes and routes the votes, [B, 10, 1152, 16], by batched matrix
  products; `products` routes by products and sums; `folded` never stores the votes, as in
  ``torch_peer``.
* form of capsnet: `strided` is one 9x9 convolution with stride 2; `phases` is the same sum split by
  the parity of row and column into four with stride 1; `phases_cut` cuts the phases from one image.
* votes of efficient_capsnet: `einsum` has all pairs of children; `matmul` is a batched matmul, and
  sums over the children first.
* form of efficient_capsnet: `moments` normalises as Keras' own layer does, the others by
  TensorFlow's fused kernel; `depthwise` makes the primary capsules by a depthwise convolution, the
  others by a product and a sum (its kernel has one place only); `merged` merges each normalisation
  into the next kernel in inference, at every call.
* step: `graph` is a ``tf.function`` with Keras' Adam; `fused` has TensorFlow's own Adam kernel;
  `mixed` has that too, and XLA compiles all behind the convolutions; `xla` compiles everything;
  `fit` and `fit_xla` are ``model.fit`` and ``model.predict`` on four batches, prepared beforehand.
* settings: `onednn_off`; `one_thread` within an operation, `in_turn` one operation at a time;
  `bf16` computes convolutions and the decoder's products in bfloat16, not compared with float32.

TensorFlow has no convolution with channels first on a CPU, so there is no such variant.
"""

import os
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ["KERAS_BACKEND"] = "tensorflow"
try:
    import keras
    import tensorflow as tf
except ImportError:
    sys.exit(
        "keras_peer: there is no TensorFlow with Keras here. Make an environment: "
        "python3.11 -m venv tf-env && tf-env/bin/pip install tensorflow==2.21.0"
    )
import numpy as np
import peer_inputs
import peer_protocol
from keras_networks import NETWORKS

VARIANTS = {
    "capsnet": [
        "einsum/strided/graph",
        "einsum/strided/fit",
        "einsum_last/strided/graph",
        "matmul/strided/graph",
        "folded/strided/graph",
        "einsum/phases/graph",
        "matmul/phases/fused",
        "folded/phases/graph",
        "folded/phases/fused",
        "folded/phases_cut/fused",
        "folded/phases/mixed",
        "products/phases/mixed",
        "folded/phases/fit",
        "folded/phases/xla",
        "products/phases/xla",
        "folded/phases/fit_xla",
        "folded/phases/fused@onednn_off",
        "folded/phases/fused@in_turn",
        "folded/phases/fused@bf16",
    ],
    "efficient_capsnet": [
        "einsum/moments/graph",
        "einsum/moments/fit",
        "einsum/depthwise/graph",
        "matmul/fused_norm/graph",
        "matmul/fused_norm/fused",
        "matmul/merged/fused",
        "matmul/merged/mixed",
        "matmul/merged/fit",
        "matmul/moments/xla",
        "matmul/merged/xla",
        "matmul/merged/fused@onednn_off",
        "matmul/merged/fused@one_thread",
        "matmul/merged/fused@in_turn",
        "matmul/merged/fused@bf16",
    ],
}
FAST = {
    "capsnet": [
        "folded/phases/graph",
        "folded/phases/fused",
        "folded/phases/mixed",
        "matmul/phases/fused",
    ],
    "efficient_capsnet": [
        "matmul/merged/fused",
        "matmul/merged/mixed",
        "matmul/merged/xla",
        "matmul/fused_norm/graph",
    ],
}
SETTINGS = {
    "onednn_off": {"TF_ENABLE_ONEDNN_OPTS": "0"},
    "one_thread": {"PEER_INTRA": "1", "PEER_INTER": "1"},
    "in_turn": {"PEER_INTER": "1"},
    "bf16": {"PEER_BF16": "1"},
}
BATCHES = 4  # of one fit


class Adam:
    """Adam by TensorFlow's kernel, which reads and writes each array once."""

    def __init__(self, variables, rate=1e-3, decays=(0.9, 0.999), epsilon=1e-7):
        self.rate, self.decays, self.epsilon = rate, decays, epsilon
        self.slots = [
            [tf.Variable(tf.zeros(v.shape), trainable=False) for _ in range(2)] for v in variables
        ]
        self.powers = [tf.Variable(decay, trainable=False) for decay in decays]

    def apply(self, gradients, variables):
        """Updates all variables."""
        for gradient, variable, (m, v) in zip(gradients, variables, self.slots, strict=True):
            tf.raw_ops.ResourceApplyAdam(
                var=variable.value.handle,
                m=m.handle,
                v=v.handle,
                beta1_power=self.powers[0],
                beta2_power=self.powers[1],
                lr=self.rate,
                beta1=self.decays[0],
                beta2=self.decays[1],
                epsilon=self.epsilon,
                grad=gradient,
            )
        for power, decay in zip(self.powers, self.decays, strict=True):
            power.assign(power * decay)


def build(network, variant, batch_size):
    """A variant with its optimizer and a batch of digits."""
    votes, form, step = variant.split("/")
    half = "PEER_BF16" in os.environ
    model = NETWORKS[network](votes, form, xla_capsules=step == "mixed", half=half)
    images, labels = peer_inputs.digits(batch_size)
    x = np.frombuffer(images, np.uint8).reshape(-1, 28, 28, 1).astype(np.float32) / 255
    truth = np.eye(10, dtype=np.float32)[labels]
    if step.startswith("fit"):
        return _fitted(model, x, truth, step)
    x, truth = tf.constant(x), tf.constant(truth)
    variables = model.trainable_variables
    if step in ("fused", "mixed"):
        adam = Adam(variables)
    else:
        adam = keras.optimizers.Adam(1e-3)
        adam.build(variables)

    @tf.function(jit_compile=step == "xla")
    def train(x, truth):
        loss, gradients = model.gradients(x, truth)
        adam.apply(gradients, variables)
        return loss

    infer = tf.function(lambda x: model.call(x), jit_compile=step == "xla")
    return peer_protocol.Peer(
        lambda: float(train(x, truth)),
        lambda: infer(x).numpy(),
        lambda: infer(x).numpy().tolist(),
    )


def _fitted(model, x, truth, step):
    """The same by Keras' own loops."""
    model.compile(optimizer=keras.optimizers.Adam(1e-3), jit_compile=step == "fit_xla")
    data = tf.data.Dataset.from_tensors((x, truth)).cache().repeat(BATCHES)
    images = tf.data.Dataset.from_tensors(x).cache().repeat(BATCHES)

    def train():
        return float(model.fit(data, epochs=1, shuffle=False, verbose=0).history["total"][-1])

    return peer_protocol.Peer(
        train,
        lambda: model.predict(images, verbose=0),
        lambda: model.predict(x, batch_size=len(x), verbose=0).tolist(),
        BATCHES,
    )


def multiply(size):
    """Multiplies two random matrices."""
    a, b = (tf.random.normal((size, size)) for _ in range(2))
    return lambda: tf.matmul(a, b).numpy()


def main():
    """Sets TensorFlow up as the environment's variables say, and obeys the command line."""
    cores = os.cpu_count() or 1
    intra, inter = (int(os.environ.get(f"PEER_{k}", cores)) for k in ("INTRA", "INTER"))
    tf.config.threading.set_intra_op_parallelism_threads(intra)
    tf.config.threading.set_inter_op_parallelism_threads(inter)
    framework = peer_protocol.Framework(
        "keras",
        f"{keras.__version__} on TensorFlow {tf.__version__}",
        __file__,
        VARIANTS,
        FAST,
        build,
        multiply,
        tf.config.threading.get_intra_op_parallelism_threads,
        SETTINGS,
    )
    peer_protocol.main(framework, __doc__)


if __name__ == "__main__":
    main()

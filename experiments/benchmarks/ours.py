"""What the speed benchmark measures of this library, in a process of its own.

Asked in the way of ``peer_protocol``: one JSON object a line, ``{"variant": V, "kind": K,
"seconds": S}``. Variants: ``default``; ``uniform``, the same network with uniform routing; ``cnn``,
a CNN on the same convolutions; ``bf16``, training with bfloat16 compute. Kinds: ``train``
(augmentation, forward, backward, Adam), ``inference`` (class activations, without the decoder), in
images a second; of the machine ``matrix_product`` and ``matrix_product_bf16`` (GFLOP/s), ``read``
and ``copy`` (GB/s); and ``about``, which answers with the variant's parameters, FLOPs, memory and
compile times.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax import Array, lax
from jax.extend.core import jaxprs_in_params

from capsjax import data, models
from capsjax.ops.flops import flops
from capsjax.routing import uniform
from capsjax.training import losses
from capsjax.training.step import State, make_step, split
from capsjax.types import Output

if __package__:
    from experiments.benchmarks.peer_protocol import private_output, timed
else:  # run as a script
    from peer_protocol import private_output, timed  # type: ignore[no-redef]

_MATRIX = 2048
_BANDWIDTH_ARRAY = 64 * 2**20  # float32 numbers: far more than any cache holds


class Backbone(nnx.Module):
    """CapsNet's two convolutions under a linear layer: the CNN of equal backbone."""

    def __init__(self, capsnet: Any, rngs: nnx.Rngs):
        self.num_classes, self.image_shape = capsnet.num_classes, capsnet.image_shape
        self.convolution, self.primary = capsnet.convolution, capsnet.primary
        out = jax.eval_shape(self._features, jnp.zeros((1, *self.image_shape)))
        self.classes = nnx.Linear(out.shape[1], self.num_classes, rngs=rngs)

    def _features(self, images: Array) -> Array:
        capsules = self.primary(jax.nn.relu(self.convolution(images)))
        return capsules.poses.reshape(len(images), -1)

    def __call__(self, images: Array, targets: Array | None = None) -> Output:
        """Logits as activations; nothing else."""
        del targets
        logits = self.classes(self._features(images))
        return Output(
            poses=None,
            activations=jax.nn.softmax(logits),
            reconstruction=None,
            routed=(),
            logits=logits,
        )


def network(name: str, variant: str) -> tuple[Any, losses.Config]:
    """A network on MNIST's shapes and the loss that it is trained by."""
    loss = losses.Config(**models.find(name).training.get("loss", {}))
    if variant == "cnn":
        if name == "capsnet":
            return Backbone(models.create(name, rngs=0), nnx.Rngs(0)), losses.Config(
                kind="cross_entropy"
            )
        return models.create("efficient_cnn", rngs=0), losses.Config(kind="cross_entropy")
    routing = {"routing": uniform.Config()} if variant == "uniform" else {}
    options = {"image_shape": (28, 28, 1), "num_classes": 10}
    return models.create(name, rngs=0, **options, **routing), loss


class Measured:
    """A network's two functions, compiled when they are first asked for.

    Args:
        name: of the network.
        variant: of those above.
        batch_size: of both.
    """

    def __init__(self, name: str, variant: str, batch_size: int):
        module, self.loss = network(name, variant)
        self.variant = variant
        self.batch_size, self.num_classes = batch_size, module.num_classes
        self.parameters = models.count_parameters(module)
        self.graph, params, rest = split(module)
        module.eval()
        self.frozen, *kept = split(module)
        self.kept, self.kept_rest = jax.tree.map(jnp.copy, kept)  # a step gives its own away
        digits = data.load("mnist", split="test")
        self.images = jnp.asarray(digits["image"][:batch_size])
        self.labels = jnp.asarray(digits["label"][:batch_size].astype(np.int32))
        self.optimizer = optax.adam(1e-3)
        zero = jnp.zeros((), jnp.int32)
        self.state = State(params, rest, self.optimizer.init(params), zero)
        self.compiled: dict[str, Any] = {}
        self.report: dict[str, Any] = {"parameters": self.parameters}

    def call(self, kind: str) -> Callable[[], Any]:
        """A function that does it once and returns when it is done."""
        if kind not in ("train", "inference"):
            raise ValueError(f"kind is {kind!r}, expected one that the module's docstring names")
        if kind not in self.compiled:
            self.compiled[kind] = self._compile(kind)
        function = self.compiled[kind]
        if kind == "inference":
            scaled = self.images.astype(jnp.float32) / 255
            return lambda: jax.block_until_ready(function(self.kept, self.kept_rest, scaled))

        def train() -> None:
            self.state, metrics = function(self.state, self.images, self.labels)
            jax.block_until_ready(metrics)

        return train

    def _compile(self, kind: str) -> Any:
        if kind == "inference":
            scaled = jax.ShapeDtypeStruct(self.images.shape, jnp.float32)
            arguments: tuple[Any, ...] = (self.kept, self.kept_rest, scaled)
            jitted = jax.jit(self._infer)
        else:
            function = make_step(
                self.graph,
                self.optimizer,
                num_classes=self.num_classes,
                limit=2,
                loss=self.loss,
                key=jax.random.key(0),
                compute_dtype="bfloat16" if self.variant == "bf16" else "float32",
            )
            arguments = (self.state, self.images, self.labels)
            jitted = jax.jit(function, donate_argnums=0)
        with _standard_error() as printed:
            start = time.perf_counter()
            lowered = jitted.lower(*arguments)
            traced = time.perf_counter()
            compiled = lowered.compile()
            done = time.perf_counter()
        memory, cost = compiled.memory_analysis(), compiled.cost_analysis()
        self.report[kind] = {
            "trace_seconds": traced - start,
            "compile_seconds": done - traced,
            "xla_alarm": "slow_operation_alarm" in printed[0],
            "flops_per_image": self._flops(kind) / self.batch_size,
            "xla_flops_per_image": (cost or {}).get("flops", 0) / self.batch_size,
            "temporaries_bytes": memory.temp_size_in_bytes,
            "arguments_bytes": memory.argument_size_in_bytes,
        }
        return compiled

    def _infer(self, params: Any, rest: Any, images: Array) -> Array:
        return nnx.merge(self.frozen, params, rest, copy=True)(images).activations

    def _flops(self, kind: str) -> int:
        """As published: a product forward, two backward, none for the image's own gradient."""
        images = jax.ShapeDtypeStruct(self.images.shape, jnp.float32)
        if kind == "inference":
            return flops(self._infer, self.kept, self.kept_rest, images)
        targets = jax.ShapeDtypeStruct((self.batch_size, self.num_classes), jnp.float32)

        def forward(images: Array, targets: Array) -> Any:
            # Merged in here: running statistics change while it is traced.
            merged = nnx.merge(self.graph, self.state.params, self.state.rest, copy=True)
            output = merged(images, targets)
            return output.activations, output.reconstruction

        first = _first_convolution(jax.make_jaxpr(forward)(images, targets).jaxpr)
        return 3 * flops(forward, images, targets) - first


def _first_convolution(jaxpr: Any) -> int:
    """FLOPs of the first convolution of a jaxpr; 0 without one."""
    for equation in jaxpr.eqns:
        if equation.primitive.name == "conv_general_dilated":
            rows, columns, channels, _ = equation.invars[1].aval.shape
            return 2 * equation.outvars[0].aval.size * rows * columns * channels
        for body in jaxprs_in_params(equation.params):
            if found := _first_convolution(getattr(body, "jaxpr", body)):
                return found
    return 0


def machine(kind: str) -> tuple[Callable[[], Any], float]:
    """A call that measures the machine, and how much of its unit one call is."""
    if kind in ("read", "copy"):
        array = jnp.ones((1024, _BANDWIDTH_ARRAY // 1024))
        if kind == "read":
            total = jax.jit(lambda x: x.sum(1))
            return lambda: jax.block_until_ready(total(array)), 1e-9 * array.nbytes
        negated = jax.jit(lambda x: -x, donate_argnums=0)
        held = [array]  # in its place: fresh pages would cost more than the copy

        def copy() -> None:
            held[0] = jax.block_until_ready(negated(held[0]))

        return copy, 2e-9 * array.nbytes
    matrix = jax.random.normal(jax.random.key(0), (_MATRIX, _MATRIX))
    if kind == "matrix_product_bf16":
        matrix = matrix.astype(jnp.bfloat16)
    product = jax.jit(lambda a, b: lax.dot(a, b, preferred_element_type=jnp.float32))
    return lambda: jax.block_until_ready(product(matrix, matrix)), 2e-9 * _MATRIX**3


def serve(name: str, batch_size: int) -> None:
    """Answer requests on standard input until there are no more."""
    variants: dict[str, Measured] = {}
    machines: dict[str, tuple[Callable[[], Any], float]] = {}

    def answer(request: dict[str, Any]) -> dict[str, Any]:
        kind = request["kind"]
        if kind in ("matrix_product", "matrix_product_bf16", "read", "copy"):
            if kind not in machines:
                machines[kind] = machine(kind)
                machines[kind][0]()
            call, amount = machines[kind]
            return {"rates": [amount / s for s in timed(call, request["seconds"])]}
        variant = request["variant"]
        if variant not in variants:
            variants[variant] = Measured(name, variant, batch_size)
        measured = variants[variant]
        if kind == "about":
            return {"about": {**measured.report, "peak_bytes": _peak_bytes()}}
        new = kind not in measured.compiled
        call = measured.call(kind)
        if new:
            call()
        return {"rates": [batch_size / s for s in timed(call, request["seconds"])]}

    answers = private_output()

    def send(reply: dict[str, Any]) -> None:
        answers.write(json.dumps(reply) + "\n")
        answers.flush()

    send({"name": "capsjax", "version": jax.__version__})
    for line in sys.stdin:
        try:
            reply = answer(json.loads(line))
        except Exception as error:  # the one who asked says what to do about it
            reply = {"error": f"{type(error).__name__}: {str(error)[:300]}"}
        send(reply)


def _peak_bytes() -> int:
    """Most memory that this process has held; ``getrusage`` would include its parent's."""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.partition("VmHWM:")[2].split()[0])


@contextmanager
def _standard_error() -> Iterator[list[str]]:
    """What the process, XLA's C++ included, writes to standard error; then passed on."""
    printed = [""]
    sys.stderr.flush()
    saved = os.dup(2)
    with tempfile.TemporaryFile() as file:
        os.dup2(file.fileno(), 2)
        try:
            yield printed
        finally:
            sys.stderr.flush()
            os.dup2(saved, 2)
            os.close(saved)
            file.seek(0)
            printed[0] = file.read().decode(errors="replace")
            sys.stderr.write(printed[0])


def main() -> None:
    """The command line that ``peer_protocol.Worker`` uses."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--serve", action="store_true", required=True)
    parser.add_argument("--network", required=True)
    parser.add_argument("--batch-size", type=int, required=True)
    arguments = parser.parse_args()
    serve(arguments.network, arguments.batch_size)


if __name__ == "__main__":
    main()

"""Bugs around the functions: layers, data, training, evaluation."""

from tests.seeded.bug import Bug

BUGS = (
    Bug(
        "windows that do not compete",
        "In a convolutional layer each window shares its children among its own parents only: a "
        "child that lies in nine windows then counts nine times, as critics of EM's ports found.",
        "layers/conv.py",
        "over=self.over)",
        'over="position")',
        (
            "layers/test_conv.py::test_a_child_s_parents_at_all_positions_share_it_and_padding_takes"
            "_no_part",
        ),
    ),
    Bug(
        "a bias that is scaled",
        "The official code divides the primary convolution before it adds the bias; whoever "
        "divides afterwards has a bias 32 times too small.",
        "layers/primary.py",
        "out = out * self.scale + jnp.reshape(self.bias[...], (1, 1, 1, -1))",
        "out = (out + jnp.reshape(self.bias[...], (1, 1, 1, -1))) * self.scale",
        (
            "layers/test_layers.py::test_primary_capsules_are_squashed_vectors_of_neighbouring"
            "_features",
        ),
    ),
    Bug(
        "the decoder sees what was guessed",
        "In training the decoder is shown the longest capsule, right or wrong, in place of the "
        "labelled one; several ports mixed up both masks.",
        "models/output.py",
        "masks = longest_of(classes.activations, longest) if targets is None else targets",
        "masks = longest_of(classes.activations, longest)",
        ("models/test_capsnet.py::test_the_decoder_sees_the_target_capsule_alone",),
    ),
    Bug(
        "a partner of the same class",
        "MultiMNIST lays a digit over another of its own class, so that a picture shows one class "
        "and has two labels.",
        "data/multi_mnist.py",
        "partner = order[jnp.where(position < start, position, position + end - start)]",
        "partner = order[position]",
        ("data/test_multi_mnist.py::test_a_picture_shows_the_base_digit_and_one_of_another_class",),
    ),
    Bug(
        "held-out digits in training pairs",
        "Pictures for training are made of all digits, those set aside for validation among them; "
        "easily overlooked where pictures are made of other pictures.",
        "data/made.py",
        'part = slice(count) if split == "train" else slice(count, None)',
        'part = slice(None) if split == "train" else slice(count, None)',
        ("data/test_made.py::test_partners_never_cross_from_one_split_into_another",),
    ),
    Bug(
        "random crops in testing",
        "Test images are cut at random as those for training are, and the error is that of "
        "another task.",
        "data/recipes.py",
        "pixels = augment.central_crop(image.astype(jnp.float32), size=_CIFAR_CROP)",
        "pixels = augment.random_crop(\n"
        "        jax.random.key(0), image.astype(jnp.float32), size=_CIFAR_CROP\n"
        "    )",
        ("data/test_recipes.py::test_test_images_are_central_and_standardised",),
    ),
    Bug(
        "no shuffling",
        "Every epoch shows the images in the order of the file; sorted data sets then teach one "
        "class after the other.",
        "data/feeding.py",
        "return jax.random.permutation(jax.random.fold_in(self.key, epoch), self.count)",
        "return jnp.arange(self.count)",
        ("training/test_loop.py::test_the_order_is_new_in_every_epoch",),
    ),
    Bug(
        "a seed that does nothing",
        "Images come in the same order whatever the seed is, so that the spread over seeds, which "
        "a paper reports, is too small.",
        "training/loop.py",
        "jax.random.split(jax.random.key(config.seed))",
        "jax.random.split(jax.random.key(0))",
        ("training/test_loop.py::test_the_seed_decides_the_order",),
    ),
    Bug(
        "validated on the test set",
        "The test images choose the epoch that is then tested on them: found in tutorials and in "
        "the examples of well-known libraries.",
        "training/run.py",
        "    validation = None\n",
        '    validation = dataset.load("test")\n',
        ("training/test_run.py::test_training_does_not_read_the_test_split",),
    ),
    Bug(
        "the newest is the best",
        "Training gives back its last parameters in place of those of the lowest validation error.",
        "training/loop.py",
        "model=self._for_testing(self.best),",
        "model=self._for_testing((self.state.params, self.state.rest)),",
        ("training/test_loop.py::test_the_best_parameters_by_validation_error_are_returned",),
    ),
    Bug(
        "a resumed run forgets its momentum",
        "A run that goes on after a stop takes its parameters along but starts the optimizer anew: "
        "a bump in the loss that one sees only beside a run that was never stopped.",
        "training/loop.py",
        "self.state, self.progress = state, progress",
        "self.state = state._replace(optimizer=self.state.optimizer)\n"
        "        self.progress = progress",
        ("training/test_resume.py::test_a_run_broken_many_times_resumes_to_the_same_bits",),
    ),
    Bug(
        "biases decay too",
        "Weight decay pulls on every parameter; the papers that use it mean kernels.",
        "training/step.py",
        "u + weight * p if p.ndim > 1 else u",
        "u + weight * p",
        ("training/test_step.py::test_decay_adds_its_share_of_matrices_and_leaves_vectors",),
    ),
    Bug(
        "a first step of length 0",
        "The warm-up counts from 0, so that the first batch teaches nothing.",
        "training/step.py",
        "first = learning_rate / (warm_up + 1)",
        "first = 0.0",
        ("training/test_step.py::test_the_cosine_s_first_step_is_not_lost",),
    ),
    Bug(
        "tested as in training",
        "Nobody turns on evaluation mode: batch normalisation takes its statistics from the test "
        "batch, and the prediction for an image depends on its neighbours.",
        "training/evaluation.py",
        '        if hasattr(network, "eval"):\n            network.eval()\n',
        "",
        ("training/test_evaluation.py::test_confusion_and_class_errors_are_those_counted_by_hand",),
    ),
    Bug(
        "padding is predicted too",
        "The zeros that fill up a short last batch are counted as images.",
        "training/evaluation.py",
        "np.asarray(activations)[:count],",
        "np.asarray(activations),",
        ("training/test_evaluation.py::test_any_number_of_images_is_predicted_in_order",),
    ),
)

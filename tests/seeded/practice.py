"""Bugs around the functions: layers, data, training, evaluation."""

from tests.seeded.bug import Bug

BUGS = (
    Bug(
        "windows that do not compete",
        "EM's parents at different positions have to compete for a child",
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
        "logits of the whole batch",
        "routing's logits are shared over the batch",
        "All examples have one set of logits, the mean of their own: accuracy then depends on the "
        "size of the batch, and falls where it is 1.",
        "layers/router.py",
        "            return jax.vmap(route)(vote(children), children, initial)",
        "            nonlocal compete\n"
        "            compete = lambda b: jax.nn.softmax(jax.lax.pmean(b, 'batch'), -2)\n"
        "            return jax.vmap(route, axis_name='batch')(vote(children), children, initial)",
        ("models/test_capsnet.py::test_an_example_alone_is_the_same_as_inside_a_batch",),
    ),
    Bug(
        "couplings that stay",
        "couplings are kept from one batch to the next",
        "A layer goes on from the coefficients of the last batch, which are of other images.",
        "layers/router.py",
        "routed = in_parts(route_all, self.votes_at_once, children, initial)",
        "initial = initial or getattr(Router, 'kept', None)\n"
        "        routed = in_parts(route_all, self.votes_at_once, children, initial)\n"
        "        Router.kept = routed",
        ("layers/test_layers.py::test_dense_capsules_remember_no_batch",),
    ),
    Bug(
        "matrices ten times too wide",
        "nothing is learnt unless the matrices start at the right scale",
        "The first votes are long, their sums saturate, and routing is decided before training.",
        "layers/votes.py",
        "_WEIGHTS_STDDEV = 0.1",
        "_WEIGHTS_STDDEV = 1.0",
        ("models/test_efficient_capsnet.py::test_the_first_matrices_are_as_wide_as_asked_for",),
    ),
    Bug(
        "layers that fade",
        "a second layer of capsules learns nothing",
        "The first matrices do not make up for the share of a child that each parent gets: poses "
        "are shorter with every layer, and squashing takes the square of what is left.",
        "layers/votes.py",
        "stddev = parents / math.sqrt(children * dim)",
        "stddev = 1 / math.sqrt(children * dim)",
        (
            "layers/test_conv.py::test_balanced_weights_keep_the_length_of_poses_under_uniform"
            "_coupling",
        ),
    ),
    Bug(
        "the decoder sees what was guessed",
        "the masks of training and testing are mixed up",
        "In training the decoder is shown the longest capsule, right or wrong, in place of the "
        "labelled one; several ports mixed up both masks.",
        "models/output.py",
        "masks = longest_of(classes.activations, longest) if targets is None else targets",
        "masks = longest_of(classes.activations, longest)",
        ("models/test_capsnet.py::test_the_decoder_sees_the_target_capsule_alone",),
    ),
    Bug(
        "a decoder of one size",
        "the decoder does not fit images of other sizes",
        "The first map is the published one of 8 x 8, whatever the image's size.",
        "layers/decoder.py",
        "self.start = (start(image_shape[0]), start(image_shape[1]))",
        "self.start = (8, 8)",
        ("layers/test_decoder.py::test_convolutional_decoder_enlarges_and_convolves",),
    ),
    Bug(
        "a decoder of one channel",
        "the decoder does not fit images of three channels",
        "The last layer has one number for each pixel, which is enough for grey digits alone.",
        "layers/decoder.py",
        "sizes = [num_capsules * dim, *widths, math.prod(image_shape)]",
        "sizes = [num_capsules * dim, *widths, math.prod(image_shape[:2])]",
        ("layers/test_layers.py::test_decoder_is_an_mlp_of_the_masked_poses",),
    ),
    Bug(
        "a partner of the same class",
        "which classes MultiMNIST pairs is told nowhere",
        "MultiMNIST lays a digit over another of its own class, so that a picture shows one class "
        "and has two labels.",
        "data/multi_mnist.py",
        "partner = order[jnp.where(position < start, position, position + end - start)]",
        "partner = order[position]",
        ("data/test_multi_mnist.py::test_a_picture_shows_the_base_digit_and_one_of_another_class",),
    ),
    Bug(
        "held-out digits in training pairs",
        "what is tested on was trained on",
        "Pictures for training are made of all digits, those set aside for validation among them; "
        "easily overlooked where pictures are made of other pictures.",
        "data/made.py",
        'part = slice(count) if split == "train" else slice(count, None)',
        'part = slice(None) if split == "train" else slice(count, None)',
        ("data/test_made.py::test_partners_never_cross_from_one_split_into_another",),
    ),
    Bug(
        "validated on the test set",
        "the test set serves as validation",
        "The test images choose the epoch that is then tested on them: found in tutorials and in "
        "the examples of well-known libraries.",
        "training/run.py",
        "    validation = None\n",
        '    validation = dataset.load("test")\n',
        ("training/test_run.py::test_training_does_not_read_the_test_split",),
    ),
    Bug(
        "statistics of one device",
        "a script for several devices does not compute what that for one does",
        "Batch normalisation sees the images that lie on its own device, so that what is learnt "
        "depends on the number of devices.",
        "training/parallel.py",
        "axis_name=AXIS, raise_if_not_found=False",
        "axis_name=None, raise_if_not_found=False",
        ("training/test_parallel.py::test_only_what_is_of_a_whole_batch_takes_the_axis_name",),
    ),
    Bug(
        "tested as in training",
        "an image alone is not what it is inside a batch",
        "Nobody turns on evaluation mode: batch normalisation takes its statistics from the test "
        "batch, and the prediction for an image depends on its neighbours.",
        "training/evaluation.py",
        '        if hasattr(network, "eval"):\n            network.eval()\n',
        "",
        ("training/test_evaluation.py::test_confusion_and_class_errors_are_those_counted_by_hand",),
    ),
    Bug(
        "full batches only",
        "the last batch of a set is smaller than the others",
        "Whatever does not fill a batch is not predicted: the error is that of other images than "
        "was said, and one image alone has none.",
        "training/evaluation.py",
        "for start in range(0, len(images), BATCH_SIZE)",
        "for start in range(0, len(images) // BATCH_SIZE * BATCH_SIZE, BATCH_SIZE)",
        ("training/test_evaluation.py::test_any_number_of_images_is_predicted_in_order",),
    ),
    Bug(
        "one digit of two is enough",
        "MultiMNIST's error is by the set of both digits",
        "A picture of two digits counts as right where one of them was found.",
        "training/evaluation.py",
        "errors = int(missed.any(1).sum())",
        "errors = int(missed.all(1).sum())",
        ("training/test_evaluation.py::test_of_two_classes_an_image_the_set_has_to_be_right",),
    ),
)

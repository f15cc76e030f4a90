"""The page: what is where on it, and which of ``Explored``'s answers a change asks for."""

import random
from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any

import gradio as gr
import numpy as np

from capsjax import inspection
from capsjax.explorer import answers, drawings
from capsjax.explorer.answers import Explored, Look
from capsjax.explorer.images import sketched, uploaded
from capsjax.explorer.strokes import Strokes

_CANVAS = 280  # pixels
_CHOOSE_BRUSH = """() => {
  const choose = () => document.querySelector('#sketch [aria-label="Brush"]')?.click();
  setTimeout(choose, 500);
}"""
_LARGEST_TURN, _LARGEST_SHIFT = 180, 12


def page(explored: Explored, pairs: Explored | None) -> gr.Blocks:
    """Build the page.

    Args:
        explored: the network that is looked at.
        pairs: one that names two digits in one image; None leaves that tab out.

    Returns:
        The page, not served yet.
    """
    title = f"{explored.name}: a capsule network to look into"
    # What is uploaded is looked at once, and deleted within so many seconds.
    with gr.Blocks(title=title, analytics_enabled=False, delete_cache=(600, 600)) as blocks:
        gr.Markdown(f"# {title}\nTrained on `{explored.settings.dataset}`.")
        image = gr.State(explored.test["image"][0])
        with gr.Tab("Look", id="look"):
            _look(blocks, explored, image)
        with gr.Tab("Routing", id="routing") as routing_tab:
            _routing(explored, image, routing_tab)
        if pairs is not None:
            with gr.Tab("Two digits", id="pairs") as pairs_tab:
                _two(pairs, pairs_tab)
        with gr.Tab("Move", id="move") as move_tab:
            _move(explored, image, move_tab)
        with gr.Tab("Side by side", id="side") as side_tab:
            _side(explored, image, side_tab)
    return blocks


def _told(handler: Callable[..., Any], outputs: int = 1) -> Callable[..., Any]:
    """A ValueError becomes words on the page, in the first output; the others stay."""

    @wraps(handler)
    def telling(*given: Any) -> Any:
        try:
            return handler(*given)
        except ValueError as error:
            said = drawings.error(str(error))
            return said if outputs == 1 else [said, *[gr.skip()] * (outputs - 1)]

    return telling


def _look(blocks: gr.Blocks, explored: Explored, image: gr.State) -> None:
    names, settings = explored.class_names, explored.settings
    first = explored.look(explored.test["image"][0])
    dims = 0 if first.poses is None or explored.decoder is None else first.poses.shape[1]
    reach = explored.reach
    looked = gr.State(first)
    with gr.Row():
        with gr.Column(min_width=300):
            with gr.Tab("Draw"):
                sketch = gr.Sketchpad(
                    label="Draw one",
                    canvas_size=(_CANVAS, _CANVAS),
                    fixed_canvas=True,
                    transforms=(),
                    layers=False,
                    brush=gr.Brush(default_size=20, colors=["#000000"], color_mode="fixed"),
                    elem_id="sketch",
                )
                strokes = Strokes()
                sketch.accept_blobs = strokes.accept
            with gr.Tab("Test image"):
                count = len(explored.test["image"])
                number = gr.Number(
                    0, label=f"Number, 0 to {count - 1:,}", precision=0, elem_id="number"
                )
                another = gr.Button("Another one", elem_id="another")
            with gr.Tab("File"):
                file = gr.File(
                    label="Drop an image, or choose one", type="filepath", elem_id="file"
                )
            said = gr.HTML(elem_id="said")
            shown = gr.HTML(drawings.picture(explored.test["image"][0], "as the network sees it"))
        with gr.Column(min_width=300):
            lengths = gr.HTML(elem_id="lengths")
        with gr.Column(min_width=300):
            drawn = gr.HTML(elem_id="drawn")
            whose = gr.Radio(list(names), label="Capsule of class", elem_id="whose")
            sliders = [
                gr.Slider(
                    -reach, reach, step=0.01, label=f"dimension {number}", elem_id=f"dim-{number}"
                )
                for number in range(dims)
            ]
            if not dims:
                whose.visible = False
                gr.Markdown("This network has no decoder: nothing can be drawn of its capsules.")

    parts = [said, image, looked, shown, lengths, drawn, whose, *sliders]

    def show(given: np.ndarray, notes: Sequence[str] = ()) -> list[Any]:
        look = explored.look(given)
        return [
            drawings.note(*notes) if notes else "",
            given,
            look,
            drawings.picture(given, "as the network sees it"),
            drawings.bars(look.lengths, names, "activation of each class capsule"),
            _reconstruction(explored, look),
            names[look.label],
            *_pose(look, look.label, dims, reach),
        ]

    def of_sketch(value: Any) -> Any:
        taken = sketched(strokes.layers(value), settings)
        return [gr.skip()] * len(parts) if taken is None else show(*taken)

    def of_number(value: Any) -> Any:
        if value is None or not 0 <= value < count:
            raise ValueError(f"there is no test image {value}: give a number from 0 to {count - 1}")
        return show(explored.test["image"][int(value)])

    def of_file(value: Any) -> Any:
        if value is None:
            return [gr.skip()] * len(parts)
        if not isinstance(value, dict):
            raise ValueError("several files were given, expected one image")
        return show(*uploaded(value["path"], settings))

    def of_class(name: str, look: Look) -> list[Any]:
        label = names.index(name)
        pose = _pose(look, label, dims, reach)
        return [_of_pose(explored, label, pose), *pose]

    def of_sliders(name: str, *pose: float) -> str:
        return _of_pose(explored, names.index(name), pose)

    quick: dict[str, Any] = {
        "queue": False,
        "show_progress": "hidden",
        "trigger_mode": "always_last",
    }
    # Not processed by the library, which would unfold what it does not know the size of.
    sketch.change(_told(of_sketch, len(parts)), sketch, parts, preprocess=False, **quick)
    number.input(_told(of_number, len(parts)), number, parts, **quick)
    another.click(lambda: random.randrange(count), None, number, queue=False).then(
        _told(of_number, len(parts)), number, parts, **quick
    )
    file.change(_told(of_file, len(parts)), file, parts, preprocess=False, show_progress="minimal")
    if dims:
        whose.input(_told(of_class, 1 + dims), [whose, looked], [drawn, *sliders], **quick)
        gr.on(
            [each.input for each in sliders], _told(of_sliders), [whose, *sliders], drawn, **quick
        )
    blocks.load(_told(of_number, len(parts)), number, parts, **quick)
    # Or the first stroke would be lost: until the tool is chosen there is nothing to draw with.
    blocks.load(None, js=_CHOOSE_BRUSH)


def _reconstruction(explored: Explored, look: Look) -> str:
    if look.reconstruction is None:
        return ""
    name = explored.class_names[look.label]
    return drawings.picture(look.reconstruction, f"drawn by the capsule of {name}")


def _pose(look: Look, label: int, dims: int, reach: float) -> list[float]:
    if not dims or look.poses is None:
        return []
    return [round(float(each), 2) for each in np.clip(look.poses[label], -reach, reach)]


def _of_pose(explored: Explored, label: int, pose: Sequence[float]) -> str:
    drawn = explored.draw(np.array(pose), label)
    return drawings.picture(drawn, f"drawn by the capsule of {explored.class_names[label]}")


def _routing(explored: Explored, image: gr.State, tab: gr.Tab) -> None:
    gr.Markdown(
        "Left the most active capsules below, right the classes. A line is as thick as the coupling"
        " coefficient between the two, a disc as large as the class capsule is active. The network"
        f" was trained with `{explored.routing}`; the others get its votes, which were not made for"
        " them."
    )
    which = gr.Radio(explored.routings, value=explored.routing, label="Routing", elem_id="which")
    still = gr.Slider(
        0, 1, 0, step=1, label="Iteration to rest at; 0 moves through all", elem_id="iteration"
    )
    moving = gr.HTML(elem_id="flow")

    def draw(found: answers.Iterations, name: str, at: int) -> str:
        count = len(found.coefficients)
        iteration = None if at == 0 else min(at, count)
        words = "moving through all" if iteration is None else f"at {iteration}"
        return drawings.flow(
            found.coefficients,
            found.lengths,
            explored.class_names,
            f"{name}: routing of this image in {count} iterations, {words}",
            iteration=iteration,
        )

    def show(given: np.ndarray, name: str, at: int) -> str:
        return draw(explored.iterations(given, name), name, at)

    def anew(given: np.ndarray, name: str) -> tuple[str, Any]:
        found = explored.iterations(given, name)
        return draw(found, name, 0), gr.Slider(value=0, maximum=max(1, len(found.coefficients)))

    # Each by itself: of one listener for both, a choice made while the tab opens would be lost.
    for asked in (tab.select, which.change):
        asked(_told(anew, 2), [image, which], [moving, still], show_progress="minimal")
    still.input(
        _told(show), [image, which, still], moving, queue=False, show_progress="hidden",
        trigger_mode="always_last",
    )  # fmt: skip


def _two(pairs: Explored, tab: gr.Tab) -> None:
    gr.Markdown("Two test digits in one picture: pull them apart, and push them over each other.")
    single = pairs.singles
    with gr.Row():
        with gr.Column(min_width=300):
            count = len(single["image"])
            first, second = (
                gr.Number(start, label=f"{which} digit, 0 to {count - 1:,}", precision=0)
                for which, start in (("First", 0), ("Second", 1))
            )
            right, down = (
                gr.Slider(
                    -answers.FARTHEST, answers.FARTHEST, start, step=1, label=label, elem_id=name
                )
                for name, label, start in (
                    ("right", "Second to the right by (pixels)", 6),
                    ("down", "Second down by (pixels)", 0),
                )
            )
        with gr.Column(min_width=300, scale=2):
            result = gr.HTML(elem_id="pair")

    def show(one: Any, other: Any, to_right: int, to_down: int) -> str:
        for number in (one, other):
            if number is None or not 0 <= number < count:
                raise ValueError(
                    f"there is no test digit {number}: give a number from 0 to {count - 1}"
                )
        picture, *alone = answers.overlapped(
            single["image"][int(one)],
            single["image"][int(other)],
            pad=pairs.pad,
            offset=(int(to_down), int(to_right)),
        )
        names = pairs.class_names
        look = pairs.look(picture, classes=2)
        labels = [names[n] for n in np.argsort(-look.lengths, kind="stable")[:2]]
        true = [names[single["label"][int(n)]] for n in (one, other)]
        drawn = [] if look.reconstruction is None else list(look.reconstruction)
        return drawings.row(
            drawings.picture(picture, f"{true[0]} and {true[1]}"),
            *[
                drawings.picture(each, f"drawn by the capsule of {name}")
                for each, name in zip(drawn, labels, strict=False)
            ],
            *[
                drawings.picture(each, f"{name} alone")
                for each, name in zip(alone, true, strict=True)
            ],
        ) + drawings.bars(look.lengths, names, "activation of each class capsule")

    inputs: list[Any] = [first, second, right, down]
    quick: dict[str, Any] = {"queue": False, "show_progress": "hidden"}
    gr.on(
        [each.input for each in inputs], _told(show), inputs, result, trigger_mode="always_last",
        **quick,
    )  # fmt: skip
    tab.select(_told(show), inputs, result, **quick)


def _move(explored: Explored, image: gr.State, tab: gr.Tab) -> None:
    gr.Markdown(
        "The image from the first tab, moved. Frames are its class capsule's pose before, bars "
        "the same capsule's pose now: what moves steadily is equivariant."
    )
    with gr.Row():
        with gr.Column(min_width=300):
            angle = gr.Slider(
                -_LARGEST_TURN, _LARGEST_TURN, 0, step=1, elem_id="angle",
                label="Turned counter-clockwise by (degrees)",
            )  # fmt: skip
            scale = gr.Slider(0.5, 1.5, 1, step=0.05, label="Scaled by", elem_id="scale")
            right, down = (
                gr.Slider(-_LARGEST_SHIFT, _LARGEST_SHIFT, 0, step=1, label=f"{way} by (pixels)")
                for way in ("To the right", "Down")
            )
            back = gr.Button("Back")
        with gr.Column(min_width=300):
            seen = gr.HTML(elem_id="moved")
        with gr.Column(min_width=300):
            now = gr.HTML(elem_id="poses")

    def show(
        given: np.ndarray, turn: float, by: float, to_right: float, to_down: float
    ) -> tuple[str, str]:
        before = explored.look(given)
        (moved,) = inspection.moved(
            given[None], rotation=turn, scale=by, shift_y=to_down, shift_x=to_right
        )
        after = explored.look(moved)
        pictures = drawings.row(
            drawings.picture(moved, "moved"), _reconstruction(explored, after)
        ) + drawings.bars(after.lengths, explored.class_names, "activation of each class capsule")
        if before.poses is None or after.poses is None:
            return pictures, drawings.note("This network has no capsules.")
        name = explored.class_names[before.label]
        label = before.label
        return pictures, drawings.note(f"Pose of the capsule of {name}.") + drawings.poses(
            before.poses[label],
            after.poses[label],
            f"pose of the capsule of {name}",
            reach=explored.reach,
        )

    sliders = [angle, scale, right, down]
    quick: dict[str, Any] = {"queue": False, "show_progress": "hidden"}
    gr.on(
        [each.input for each in sliders], _told(show, 2), [image, *sliders], [seen, now],
        trigger_mode="always_last", **quick,
    )  # fmt: skip
    tab.select(_told(show, 2), [image, *sliders], [seen, now], **quick)
    back.click(lambda: (0, 1, 0, 0), None, sliders, **quick).then(
        _told(show, 2), [image, *sliders], [seen, now], **quick
    )


def _side(explored: Explored, image: gr.State, tab: gr.Tab) -> None:
    gr.Markdown(
        "The votes of this network for the image from the first tab, through several routings. It"
        f" was trained with `{explored.routing}`: its votes were not made for the others."
    )
    result = gr.HTML(elem_id="routings")

    def show(given: np.ndarray) -> str:
        parts = []
        for name in explored.routings:
            found, title = explored.iterations(given, name), name.replace("_", " ")
            parts.append(
                f"<section><h3>{title}</h3>"
                + drawings.flow(
                    found.coefficients, found.lengths, explored.class_names, f"couplings by {title}"
                )
                + drawings.bars(found.lengths[-1], explored.class_names, f"activations by {title}")
                + "</section>"
            )
        return drawings.row(*parts)

    tab.select(_told(show), image, result, show_progress="minimal")

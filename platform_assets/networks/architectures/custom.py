"""A network of the user's own: a LightningModule by import path, told what the platform knows of the model's inputs.

The class is called as `Class(inputs=Inputs(...), **options)`, `options` being training.options of the declaration. It must offer
`forward(numeric, ids, image)` (and `tokens` as a fourth where the model has text) that returns logits [N, classes],
`training_step(batch, batch_idx)` that returns the loss of a batch (numeric, ids, image, where there is text its tokens, target), and
`configure_optimizers()`. Its training, checkpoints and export are those of every other network; see docs/how-to/bring-your-own-network.md.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

import lightning.pytorch as pl
import torch

from platform_assets.errors import TrainingError

if TYPE_CHECKING:
    from torch import Tensor

    from platform_assets.networks.plans import TrainingPlan
    from platform_assets.networks.preprocessing import Preprocessing

NEEDED = ("forward", "training_step", "configure_optimizers")


@dataclass(frozen=True)
class Inputs:
    """What a network is given, and what it must answer with.

    `numeric` has `numbers` columns, raw and with NaN where a value is missing (`networks.encoding.NumberEncoding` takes both in hand);
    `ids` one column for each of `categories`, which holds their sizes: rows of one common table of `sum(categories)` rows, 0 of each
    column's part being missing and 1 unknown; `image` has `image_size` columns, each 0 to `preprocessing.image_scale`; `tokens` has
    `tokens` columns of numbers below `vocabulary`, 0 being padding and 1 unknown. What a model does not have is 0 or empty.
    """

    classes: int
    numbers: int
    categories: tuple[int, ...]
    image_size: int
    tokens: int
    vocabulary: int
    preprocessing: Preprocessing
    plan: TrainingPlan


def build(plan: TrainingPlan, *, preprocessing: Preprocessing, classes: int) -> pl.LightningModule:
    """Import and make the declared module, and try it on two empty rows; whatever is wrong with it is one sentence."""
    if plan.module is None:
        raise TrainingError("architecture custom needs training.module: package.module:Class of a LightningModule of your own")
    text = preprocessing.tokeniser
    inputs = Inputs(
        classes=classes, numbers=len(preprocessing.numbers), categories=tuple(column.size for column in preprocessing.categories),
        image_size=preprocessing.image_size, tokens=text.width if text is not None else 0, vocabulary=text.size if text is not None else 0,
        preprocessing=preprocessing, plan=plan,
    )  # fmt: skip
    kind = _find(plan.module)
    _check_offer(kind, plan.module)
    try:
        made = kind(inputs=inputs, **plan.options)
    except (TypeError, ValueError, RuntimeError, AttributeError, LookupError, NotImplementedError, ArithmeticError) as error:
        options = ", ".join(plan.options) or "no options"
        raise TrainingError(
            f"{plan.module} could not be made with inputs and {options} ({_say(error)}); correct its __init__ or training.options"
        ) from error
    _try(made, inputs, name=plan.module)
    return made


def example_inputs(inputs: Inputs, *, rows: int) -> tuple[Tensor, ...]:
    """Give rows in which everything is missing, as `forward` takes them."""
    starts = torch.tensor([sum(inputs.categories[:place]) for place in range(len(inputs.categories))], dtype=torch.int64)
    plain = torch.full((rows, inputs.numbers), torch.nan), starts.repeat(rows, 1), torch.zeros(rows, inputs.image_size)
    return (*plain, torch.zeros(rows, inputs.tokens, dtype=torch.int64)) if inputs.tokens else plain


def _find(path: str) -> type[pl.LightningModule]:
    package, _, name = path.partition(":")
    try:
        found: Any = getattr(import_module(package), name, None)
    except ImportError as error:
        raise TrainingError(
            f"training.module is {path}, but {package} cannot be imported ({_say(error)}); install it, or put its folder on PYTHONPATH"
        ) from error
    except (SyntaxError, NameError, AttributeError, TypeError, ValueError, RuntimeError) as error:
        raise TrainingError(f"training.module is {path}, but {package} fails when it is imported ({_say(error)})") from error
    if found is None:
        raise TrainingError(f"training.module is {path}, but {package} has no {name!r}; name a class that stands in it")
    if not (inspect.isclass(found) and issubclass(found, pl.LightningModule)):
        raise TrainingError(f"{path} is not a LightningModule; derive the class from lightning.pytorch.LightningModule")
    return found


def _check_offer(kind: type[pl.LightningModule], path: str) -> None:
    own = [name for base in kind.__mro__[: kind.__mro__.index(pl.LightningModule)] for name in vars(base)]
    missing = [name for name in NEEDED if name not in own]
    if missing:
        raise TrainingError(f"{path} lacks {', '.join(missing)}; a network of your own offers {', '.join(NEEDED)}")


def _try(made: pl.LightningModule, inputs: Inputs, *, name: str) -> None:
    was = made.training
    made.eval()
    given = "numeric, ids, image, tokens" if inputs.tokens else "numeric, ids, image"
    try:
        with torch.no_grad():
            answer = made(*example_inputs(inputs, rows=2))
    except (TypeError, ValueError, RuntimeError, AttributeError, LookupError, NotImplementedError, ArithmeticError) as error:
        raise TrainingError(f"{name}.forward({given}) failed on two rows without values ({_say(error)})") from error
    finally:
        made.train(was)
    shape = tuple(answer.shape) if isinstance(answer, torch.Tensor) else type(answer).__name__
    if shape != (2, inputs.classes):
        raise TrainingError(f"{name}.forward({given}) gave {shape} for two rows; right are logits of shape (2, {inputs.classes})")


def _say(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no more is said'}"

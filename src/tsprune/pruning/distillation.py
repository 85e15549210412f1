"""Distillation: the distance of a pruned model's network from its teacher's, on synthetic series.

Both networks get the same histories. Their outputs are compared before decoding and sampling
(`Forecaster.teacher_forced`), so one loss serves every family:

- Logits of a vocabulary: the Kullback-Leibler divergence of the student's distribution from the
  teacher's (Hinton et al., Distilling the Knowledge in a Neural Network, 2015, arXiv 1503.02531).
- Values (normalised quantiles, parameters of a mixture): Huber's loss of the differences, each in
  units of the teacher's deviation over the windows, so that parameters of different size weigh the same.

The student starts from the teacher's weights, so the entries of its output and its residual stream keep
their meaning. The output of each remaining block is therefore compared with the same block of the teacher:
a target at every position, where the output has one at the end only (Romero et al., FitNets, 2015, arXiv
1412.6550; layer to layer as in Jiao et al., TinyBERT, 2020, arXiv 1909.10351, without a learnt map).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tsprune.data.training import batches
from tsprune.errors import TspruneError
from tsprune.hooks.capture import Point, recording
from tsprune.hooks.stream import streams
from tsprune.models.forecaster import Forecaster
from tsprune.pruning.plan import identity

_LONGEST = 2048  # steps of the longest training history, even if the model takes more
# lengths of batches as shares of the longest, and their probabilities: real histories are often short
_LENGTHS, _CHANCES = (1, 5 / 8, 3 / 8, 3 / 16), (0.55, 0.2, 0.15, 0.1)
_LEAST = 0.02  # histories of smaller deviation are left out; the whole window has deviation 1
_DELTA = 0.1  # where Huber's loss turns from square to linear: most differences are beyond
_CLOSEST = 1e-3  # least deviation of an entry, as a share of its mean size

FloatArray = NDArray[np.float32]


def check_pair(student: Forecaster, teacher: Forecaster) -> None:
    """TspruneError unless `student` is a pruned version of `teacher`."""
    origin = student.origin
    if origin is None:
        raise TspruneError(f"{student.name} is not pruned; prune it first, see tsprune prune")
    if student.family != teacher.family:
        raise TspruneError(
            f"{student.name} is a {student.family} model, {teacher.name} a {teacher.family} model; "
            f"the teacher of {student.name} is {origin.name}"
        )
    name, sha256 = identity(teacher)
    if origin.sha256 and sha256 and origin.sha256 != sha256:
        raise TspruneError(
            f"{student.name} was not made from the weights of {name}; its teacher is {origin.name}"
        )
    shapes = {name: tuple(tensor.shape) for name, tensor in teacher.module.state_dict().items()}
    if teacher.origin is None and shapes != dict(origin.shapes):
        raise TspruneError(
            f"{student.name} was not made from a model of the size of {name}; its teacher is {origin.name}"
        )
    if not set(teacher.anatomy.removed) <= set(student.anatomy.removed):
        raise TspruneError(f"{teacher.name} lacks components that {student.name} has; take {origin.name}")
    if student.context_length != teacher.context_length:
        raise TspruneError(
            f"{student.name} takes {student.context_length} steps of history, {teacher.name} "
            f"{teacher.context_length}; load both with the same context"
        )


def histories(seed: int, first_step: int, batch_size: int, context_length: int) -> Iterator[list[FloatArray]]:
    """Endless batches of at most `batch_size` synthetic histories of one length, one per step.

    A pure function of seed and step, so a resumed run sees the same batches. The histories have levels
    and scales like real series: they are not standardised.
    """
    longest = min(context_length, _LONGEST)
    windows = batches(seed, first_step, batch_size, longest, max(2304, 2 * longest))
    for step, batch in enumerate(windows, start=first_step):
        rng = np.random.default_rng([seed, 2, step])
        length = max(2, round(longest * rng.choice(_LENGTHS, p=_CHANCES)))
        visible = batch[:, -length:]
        visible = visible[visible.std(axis=1) > _LEAST]
        count = len(visible), 1
        level = np.where(rng.random(count) < 0.6, rng.normal(0, 3, count), 0.0)
        size = 10 ** rng.uniform(-0.5, 2, count)
        yield list(np.asarray((visible + level) * size, dtype=np.float32))


def distance(
    student: Forecaster, teacher: Forecaster, contexts: Sequence[FloatArray], *, stream: float = 0.0
) -> Tensor:
    """Distance of the student's network from the teacher's, a scalar with the student's gradients.

    stream : weight of `stream_distance`; the weight of the output is 1
    """
    return next(shares_of_distance(student, teacher, contexts, 1, stream=stream))


def shares_of_distance(
    student: Forecaster,
    teacher: Forecaster,
    contexts: Sequence[FloatArray],
    parts: int,
    *,
    stream: float = 0.0,
) -> Iterator[Tensor]:
    """The distance as a sum over `parts` of the contexts, in units of the whole.

    A part is computed when its share is asked for. If the caller takes each gradient before the next share,
    the activations of one part are held at a time. The stream's distance of a part is in units of that part.
    """
    some = [[contexts[place] for place in part] for part in np.array_split(np.arange(len(contexts)), parts)]
    taught = [_passed(teacher, part, gradients=False, stream=bool(stream)) for part in some]
    whole = [torch.cat(parts) for parts in zip(*(outputs for outputs, _ in taught), strict=True)]
    units = None if teacher.anatomy.tokens else [deviations(target) for target in whole]
    del whole
    for part, (targets, flow) in zip(some, taught, strict=True):
        outputs, own = _passed(student, part, gradients=True, stream=bool(stream))
        found = output_distance(teacher, outputs, targets, units)
        if stream:
            found = found + stream * stream_distance(own, flow)
        yield found * (len(part) / len(contexts))


def _passed(
    model: Forecaster, contexts: Sequence[FloatArray], *, gradients: bool, stream: bool
) -> tuple[list[Tensor], BlockOutputs]:
    """Outputs of the network in float32, and its residual stream if asked for."""
    flow: BlockOutputs = {}
    with ExitStack() as opened:
        if stream:
            flow = opened.enter_context(_block_outputs(model, gradients))
        outputs = [x.float() for x in network_outputs(model, contexts, gradients=gradients)]
    return outputs, flow


def output_distance(
    teacher: Forecaster,
    outputs: Sequence[Tensor],
    targets: Sequence[Tensor],
    units: Sequence[Tensor] | None = None,
) -> Tensor:
    """Distance of a student's outputs from its teacher's (both from `network_outputs`), a scalar.

    units : of values, from `deviations` of more windows than these; None: of these
    """
    pairs = [(output, target.to(output)) for output, target in zip(outputs, targets, strict=True)]
    if teacher.anatomy.tokens:
        return torch.stack([divergence(*pair) for pair in pairs]).mean()
    chosen = [deviations(target) for _, target in pairs] if units is None else units
    return torch.stack([deviation(*pair, unit) for pair, unit in zip(pairs, chosen, strict=True)]).mean()


BlockOutputs = dict[tuple[str, int], list[Tensor]]  # (stack, block number) -> residual stream, by call


@contextmanager
def _block_outputs(model: Forecaster, gradients: bool) -> Iterator[BlockOutputs]:
    """The residual stream after every block, recorded call by call; complete after the context."""
    flow: BlockOutputs = {}
    with ExitStack() as opened:
        for stack in model.anatomy.stacks:
            recorded = opened.enter_context(streams(model, stack, gradients=gradients))
            flow.update({(stack.name, n): x for n, x in zip(stack.numbers, recorded[1:], strict=True)})
        yield flow


def stream_distance(student: BlockOutputs, teacher: BlockOutputs) -> Tensor:
    """Mean over shared blocks of the stream's squared error in units of the teacher's mean square."""
    errors = []
    for block in sorted(student.keys() & teacher.keys()):
        for own, target in zip(student[block], teacher[block], strict=True):
            difference, size = own.float() - target.float(), target.float().square()
            finite = torch.isfinite(difference.detach().square())
            error = torch.where(finite, difference, 0).square()
            errors.append(error.sum() / torch.where(finite, size, 0).sum())
    return torch.stack(errors).mean()


def divergence(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean Kullback-Leibler divergence over the tokens of logits [..., vocabulary]; a scalar."""
    logs = student.log_softmax(-1), teacher.log_softmax(-1)
    per_token = (logs[1].exp() * (logs[1] - logs[0])).sum(-1)
    finite = torch.isfinite(per_token.detach())
    return torch.where(finite, per_token, 0).sum() / finite.sum()


def deviations(teacher: Tensor) -> Tensor:
    """Deviation of each entry of values [B, ...] over windows, [F]; infinite where all are alike.

    Windows that are not finite do not count.
    """
    # selected by masks: a boolean index would wait for the device
    flat = teacher.flatten(1)
    finite = torch.isfinite(flat).all(1, keepdim=True)
    windows, known = finite.sum(), torch.where(finite, flat, 0)
    lowest, highest = (torch.where(finite, flat, x) for x in (torch.inf, -torch.inf))
    spread = (torch.where(finite, known - known.sum(0) / windows, 0).square().sum(0) / windows).sqrt()
    unit = torch.maximum(spread, _CLOSEST * known.abs().sum(0) / windows)
    return torch.where(highest.amax(0) > lowest.amin(0), unit, torch.inf)


def deviation(student: Tensor, teacher: Tensor, unit: Tensor | None = None) -> Tensor:
    """Mean Huber loss of the values [B, ...] in units of the teacher's deviation over windows; a scalar.

    unit : from `deviations`, [F]; None: of these windows

    Entries that are constant over the teacher's windows, and windows that are not finite, do not count.
    """
    flat, target = student.flatten(1), teacher.flatten(1)
    unit = deviations(teacher) if unit is None else unit
    varying = torch.isfinite(unit)
    finite = (torch.isfinite(flat.detach()) & torch.isfinite(target)).all(1, keepdim=True)
    differences = torch.where(finite & varying, flat - target, 0) / torch.where(varying, unit, 1)
    losses = torch.nn.functional.huber_loss(
        differences, torch.zeros_like(differences), delta=_DELTA, reduction="sum"
    )
    return losses / (_DELTA * finite.sum() * varying.sum())


def network_outputs(
    model: Forecaster, contexts: Sequence[FloatArray], *, gradients: bool = False
) -> list[Tensor]:
    """Outputs [B, ...] of the network and of other modules that read its residual stream."""
    readout = model.anatomy.readout
    points = [Point(path, "output") for path in (readout.others if readout is not None else ())]
    with recording(model.module, points, gradients=True) as others:
        fresh = [context.copy() for context in contexts]
        if gradients:
            output = model.differentiable_output(fresh)
        else:
            with torch.no_grad():
                output = model.teacher_forced(fresh)
    return [output, *(torch.stack(calls, 1) for calls in others.values())]

"""The one ordered list of passes, each with the reason for its position."""

from collections.abc import Callable
from dataclasses import dataclass

from jscan._optimizer.costs.machine import EXCHANGED
from jscan._optimizer.passes import associate, sink, unroll, vectorise
from jscan._optimizer.passes.accumulate import in_place, sums_out
from jscan._optimizer.passes.hoist import (
    constants,
    cut_rows,
    sequences,
    split_products,
    whole_rows,
)
from jscan._optimizer.passes.merge import padded_terms, repeats
from jscan._optimizer.passes.save_memory import few_rows, last_row, logsumexp
from jscan._optimizer.passes.small_dots import lags, tiny, weights
from jscan._optimizer.record.context import Context
from jscan._optimizer.record.loop import Loop
from jscan._optimizer.switches import debugging, failure


@dataclass(frozen=True)
class Step:
    """One position in the pipeline.

    Attributes:
        name: The pass it belongs to, by which it is switched on and off.
        run: Takes the loop and its surroundings, returns the changed loop.
        reason: Why it stands here.
        otherwise: What runs in its place where the pass was not asked for.
        mixes: It joins, cuts or folds axes: devices that hold parts of them would have
            to exchange what they have.
    """

    name: str
    run: Callable[[Loop, Context], Loop]
    reason: str
    otherwise: Callable[[Loop, Context], Loop] | None = None
    mixes: bool = False


STEPS = (
    Step(
        "merge",
        repeats.run,
        "first: what is unread, constant or double only hides things from the others",
    ),
    Step(
        "merge",
        padded_terms.run,
        "before accumulate: of a sum of padded terms it would store each",
    ),
    Step(
        "associate",
        associate.run,
        "before all that looks at state: what it solves is state no longer",
        associate.suggest,
        mixes=True,
    ),
    Step(
        "save_memory",
        last_row.run,
        "before anything asks which rows are stacked: it decides which are wanted",
    ),
    Step(
        "save_memory",
        logsumexp.run,
        "beside the rule for other reductions; not before a derivative, which would "
        "store more for a running logsumexp than for rows",
    ),
    Step(
        "save_memory",
        few_rows.run,
        "after the rule that keeps single rows: it cuts the loop into parts",
        mixes=True,
    ),
    Step(
        "hoist",
        constants.hoist_constants,
        "before the passes that ask whether a weight is constant: its preparation "
        "(a reshape, a transpose) may happen in the step",
    ),
    Step(
        "vectorise",
        vectorise.run,
        "before sink and hoist, which would take the same loop apart piece by piece",
    ),
    Step(
        "hoist",
        split_products.run,
        "before accumulate and hoist: it separates sequence work from state work",
        mixes=True,
    ),
    Step(
        "hoist",
        cut_rows.run,
        "beside it, for rows that were computed before the loop",
        mixes=True,
    ),
    Step(
        "hoist",
        constants.hoist_constants,
        "again: cutting the weights made new work on constants",
    ),
    Step(
        "accumulate",
        sums_out.run,
        "before sink: the sums it takes out decide which rows are stacked anyway",
    ),
    Step(
        "accumulate",
        in_place.run,
        "for the sums that stay in the loop",
    ),
    Step(
        "vectorise",
        vectorise.run,
        "again: a loop whose carries were all sums carries nothing now",
    ),
    Step(
        "sink",
        sink.run,
        "before hoist: what leaves behind the loop need not be hoisted before it",
    ),
    Step(
        "hoist",
        sequences.hoist_sequences,
        "after the passes that remove work altogether",
    ),
    Step(
        "small_dots",
        lags.run,
        "after the sums over time, which ask for products one by one",
    ),
    Step(
        "small_dots",
        weights.store_transposed,
        "only for the products that stay in the loop after all moves",
    ),
    Step(
        "small_dots",
        weights.run,
        "after what is transposed was, or matrices would not lie side by side",
        mixes=True,
    ),
    Step(
        "small_dots",
        tiny.run,
        "after products were put together: some are too large then",
    ),
    Step(
        "hoist",
        constants.return_pieces,
        "after all that asks what is constant",
    ),
    Step(
        "hoist",
        whole_rows.run,
        "after all that looks at what is computed of rows",
    ),
    Step(
        "unroll",
        unroll.run,
        "last: it depends on the size of the final step",
    ),
)


def run_passes(loop: Loop, context: Context) -> Loop:
    """Run every pass that is switched on, in order.

    A pass that fails is skipped: the loop stays as it was before it, and a note says
    so. With `JSCAN_DEBUG=1` the error is raised.
    """
    if loop.length < 2:
        return loop.refused(
            "pipeline", f"a loop of {loop.length} step(s) is left alone"
        )
    for step in STEPS:
        asked = step.name in context.options.passes
        run = step.run if asked else step.otherwise
        if run is None:
            continue
        try:
            new = run(loop, context)
            loop = _unmixed(loop, new) if step.mixes and context.is_split else new
        except Exception as error:
            if debugging():
                raise
            loop = loop.refused(step.name, failure(error))
    return loop


def _unmixed(loop: Loop, changed: Loop) -> Loop:
    """The loop as it was, which says what was not done to it."""
    for note in changed.notes[len(loop.notes) :]:
        loop = loop.refused(note.pass_name, f"{EXCHANGED}: {note.text}")
    return loop

"""The rules, each with the reason for its position.

Rules for a whole program run first, on its flat list of equations (`Flat`); rules for
loops on the record (`Loop`) of one after the other; rules for derivatives on a program
that may be differentiated yet.
"""

from jscan._optimizer.passes import (
    associate,
    calls,
    reductions,
    regroup,
    sink,
    unroll,
    vectorise,
)
from jscan._optimizer.passes.accumulate import in_place, linear, sums_out
from jscan._optimizer.passes.across_loops import (
    padded_chunks,
    recomputed_rows,
    siblings,
    slices_first,
)
from jscan._optimizer.passes.hoist import (
    constants,
    cut_rows,
    sequences,
    split_products,
    whole_rows,
)
from jscan._optimizer.passes.merge import padded_terms, repeats
from jscan._optimizer.passes.save_memory import few_rows, last_row, logsumexp, residuals
from jscan._optimizer.passes.small_dots import from_sums, lags, layouts, tiny, weights
from jscan._optimizer.record.rule import Rule

RECOMPUTED_ROWS = Rule(
    "save_memory.recomputed_rows",
    recomputed_rows.run,
    "before loops are joined, and again behind the walk: joined loops share rows",
)

PROGRAM_RULES = (
    Rule(
        "save_memory.slices_first",
        slices_first.run,
        "first: what moves the axes of rows hides which of them are read",
    ),
    Rule(
        "save_memory.padded_chunks",
        padded_chunks.run,
        "before loops are written again, which opens what recomputes",
    ),
    RECOMPUTED_ROWS,
    Rule(
        "merge.siblings",
        siblings.run,
        "last: it settles the order in which the loops are met",
    ),
)

LOOP_RULES = (
    Rule(
        "merge.repeats",
        repeats.run,
        "first: what is unread, constant or double only hides things from the others",
    ),
    Rule(
        "merge.padded_terms",
        padded_terms.run,
        "before accumulate: of a sum of padded terms it would store each",
    ),
    Rule(
        "associate",
        associate.run,
        "before all that looks at state: what it solves is state no longer",
        otherwise=associate.suggest,
        opt_in=True,
    ),
    Rule(
        "save_memory.last_row",
        last_row.run,
        "before anything asks which rows are stacked: it decides which are wanted",
    ),
    Rule(
        "save_memory.logsumexp",
        logsumexp.run,
        "beside the rule for other reductions; not before a derivative, which would "
        "store more for a running logsumexp than for rows",
    ),
    Rule(
        "save_memory.few_rows",
        few_rows.run,
        "after the rule that keeps single rows: it cuts the loop into parts",
        mixes=True,
    ),
    Rule(
        "small_dots.from_sums",
        from_sums.run,
        "before all that asks what is a product, or moves what is spread for one",
    ),
    Rule(
        "hoist.constants",
        constants.hoist_constants,
        "before the rules that ask whether a weight is constant: its preparation "
        "(a reshape, a transpose) may happen in the step",
    ),
    Rule(
        "regroup",
        regroup.run,
        "behind the rule that says what is constant, and before that comes again",
        otherwise=regroup.suggest,
        mixes=True,
        opt_in=True,
    ),
    Rule(
        "vectorise",
        vectorise.run,
        "before sink and hoist, which would take the same loop apart piece by piece",
    ),
    Rule(
        "hoist.split_products",
        split_products.run,
        "before accumulate and hoist: it separates sequence work from state work",
        mixes=True,
    ),
    Rule(
        "hoist.cut_rows",
        cut_rows.run,
        "beside it, for rows that were computed before the loop",
        mixes=True,
    ),
    Rule(
        "hoist.constants",
        constants.hoist_constants,
        "again: cutting the weights made new work on constants",
    ),
    Rule(
        "accumulate.linear",
        linear.run,
        "before it: what is added up then may be a product to take out whole",
        mixes=True,
    ),
    Rule(
        "accumulate.sums_out",
        sums_out.run,
        "before sink: the sums it takes out decide which rows are stacked anyway",
    ),
    Rule("accumulate.in_place", in_place.run, "for the sums that stay in the loop"),
    Rule(
        "vectorise",
        vectorise.run,
        "again: a loop whose carries were all sums carries nothing now",
    ),
    Rule(
        "sink",
        sink.run,
        "before hoist: what leaves behind the loop need not be hoisted before it",
    ),
    Rule(
        "hoist.sequences",
        sequences.hoist_sequences,
        "after the rules that remove work altogether",
    ),
    Rule(
        "small_dots.lags",
        lags.run,
        "after the sums over time, which ask for products one by one",
    ),
    Rule(
        "small_dots.transposed",
        weights.store_transposed,
        "only for the products that stay in the loop after all moves",
    ),
    Rule(
        "small_dots.joined",
        weights.run,
        "after what is transposed was, or matrices would not lie side by side",
        mixes=True,
    ),
    Rule(
        "small_dots.tiny",
        tiny.run,
        "after products were put together: some are too large then",
    ),
    Rule(
        "small_dots.layouts",
        layouts.run,
        "for the products that are left, none of which is moved any more",
        mixes=True,
    ),
    Rule(
        "hoist.return_pieces",
        constants.return_pieces,
        "after all that asks what is constant",
    ),
    Rule(
        "hoist.whole_rows",
        whole_rows.run,
        "after all that looks at what is computed of rows",
    ),
    Rule(
        "reductions",
        reductions.run,
        "after all that moves them, or asks whether rows are read by slices",
        mixes=True,
    ),
    Rule("unroll", unroll.run, "last: it depends on the size of the final step"),
)

DERIVATIVE_RULES = (
    Rule(
        "save_memory.residuals",
        residuals.run,
        "what is stored for a derivative is settled where JAX splits a loop",
    ),
)

FINAL_RULES = (
    Rule(
        "calls",
        calls.run,
        "behind the walk: it counts what loops read as they are written",
    ),
)

_RULES = (*PROGRAM_RULES, *LOOP_RULES, *DERIVATIVE_RULES, *FINAL_RULES)

PASS_NAMES = tuple(dict.fromkeys(rule.family for rule in (*LOOP_RULES, *_RULES)))
"""The families of rules, in the order in which they first look at a loop."""

RULE_NAMES = tuple(dict.fromkeys(rule.name for rule in _RULES))
"""The single rules."""

DEFAULT = frozenset(rule.family for rule in _RULES if not rule.opt_in)
"""What `"default"` stands for: all rules that keep rounding close."""

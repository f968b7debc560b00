"""Makes input sets that run.

The first guess, and where it fails, a bounded search that learns from the error.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import onnx

from onnx_harness.cards.card import InputSpec
from onnx_harness.errors import HarnessError, InputError, ModelError, UsageError
from onnx_harness.inputs.decisions.sets import decisive_sets
from onnx_harness.inputs.plan import edges, feedback, large, telling
from onnx_harness.inputs.plan import sizes as sizing
from onnx_harness.inputs.plan.constant_faults import constant_fault
from onnx_harness.inputs.plan.fitting import Sizes
from onnx_harness.inputs.plan.guesses import candidates, learned
from onnx_harness.inputs.plan.recipe import Guess, Recipe, has_unknown_rank, recipe_for
from onnx_harness.inputs.plan.roles import Role
from onnx_harness.inputs.plan.rule import Make
from onnx_harness.inputs.plan.size_edges import size_edges
from onnx_harness.inputs.plan.unsolved import feed_shapes, no_inputs, nothing_runs
from onnx_harness.inputs.values.sets import InputSet, Value
from onnx_harness.isolate import noting

TryRun = Callable[[dict[str, Value]], Any]

# tries to find anything that runs; each is one run of the model, most of which fail at once
_FIRST_BUDGET = 120
_CONTROL_BUDGET = 60  # tries for a control value that the sizes found before don't suit
_VARIATION_BUDGET = 16  # tries to give one further set sizes of its own
_RANKS = (1, 3, 4, 0)  # after the rank that a consumer suggests
_NEIGHBOURS = 5


def generate(
    model: onnx.ModelProto,
    specs: Mapping[str, InputSpec],
    *,
    count: int = 4,
    seed: int = 0,
    try_run: TryRun | None = None,
    unusual: bool = False,
) -> list[InputSet]:
    """Make input sets for ``model``.

    Set k is the same whatever ``count``, and an input's values depend on no other input's name or
    values. Sizes of dynamic dimensions differ between sets; dimensions of one name are equal within
    a set. Inputs with an initializer keep that default and aren't in the sets.

    Args:
        model: large initializers may have lost their data; names, types and dimensions are read.
        specs: the card's ``[inputs]``; empty without a card.
        count: how many sets, at least 1. A model without inputs gets one empty set.
        seed: 0 or more.
        try_run: runs the reference on a feed and raises with its message when it fails. With it,
            every set is known to run; without it, the first guess is returned untried. What it
            returns is taken for the outputs by name, if it is a mapping.
        unusual: add a set with a dimension beyond 2,048 where the model is small, a set whose state
            is fed back, where there is such, and unusual sets, those that the reference makes
            sense of; needs ``try_run``.

    Returns:
        ``count`` sets, then the large one, then the unusual ones.

    Raises:
        CardError: a spec contradicts the graph.
        InputError: nothing was found that runs, or an input's type can't be generated.
        ModelError: nothing runs, and no inputs can change that.
        UsageError: ``count`` or ``seed`` is out of range.
    """
    if count < 1 or seed < 0:
        raise UsageError(
            f"input sets and seed: at least 1 and at least 0 are needed, not {count} and {seed}"
        )
    recipe = recipe_for(model, specs)
    if not recipe.inputs:
        return [recipe.named(0, seed, {})]
    if try_run is None:
        return [_untried(recipe, k, seed) for k in range(count)]
    ranks: tuple[int | None, ...] = (
        (None, *_RANKS) if has_unknown_rank(model, specs) else (None,)
    )
    failures: list[_Search] = []
    for rank in ranks:
        search = _Search(
            recipe if rank is None else recipe_for(model, specs, rank), seed, try_run
        )
        if (first := search.first()) is not None:
            sets = search.usual(first, count)
            return [*sets, *search.large(model), *search.unusual(model)] if unusual else sets
        failures.append(search)
    tried = sum(search.tried for search in failures)
    raise failures[-1].given_up(model, tried)


def _untried(recipe: Recipe, index: int, seed: int) -> InputSet:
    """Return the first guess at an input set."""
    return recipe.named(index, seed, recipe.values(index, seed, recipe.first_guess(index)))


@dataclass
class _Search:
    """The state of one search: what ran, what was tried, what was learned.

    Attributes:
        bases: for each combination of control values, sizes that ran with it.
        base: what set 0 ran with; later sets keep the constants and the cap that it needed.
        good: for each dynamic dimension, the sizes that ran in some set.
        tried: how many runs, and the first few shapes in words.
        message: the reference's latest complaint.
        complaints: all of them; none of what ran.
        traces: by the identity of the values of what ran, what its outputs say.
    """

    recipe: Recipe
    seed: int
    try_run: TryRun
    bases: dict[tuple[object, ...], Guess] = field(default_factory=dict)
    base: Guess | None = None
    good: dict[str, list[int]] = field(default_factory=dict)
    tried: int = 0
    examples: list[str] = field(default_factory=list)
    message: str = ""
    complaints: list[Exception] = field(default_factory=list)
    traces: dict[int, list[telling.Trace | None]] = field(default_factory=dict)

    def first(self) -> dict[str, Value] | None:
        """Set 0, or None when nothing that was tried runs."""
        guess = self.recipe.first_guess(0)
        reached = self._climb(0, guess, _FIRST_BUDGET)
        if reached is None:
            return None
        self.base, values = reached
        self.bases[self._controls(0)] = self.base
        return values

    def further(self, index: int) -> dict[str, Value]:
        """Set ``index``: its own sizes where they run, role by role.

        Else those of a set that ran.
        """
        assert self.base is not None
        key, pinned = self._controls(index), self.recipe.pinned(index)
        sizes = self.recipe.fit(self._wanted(index) | pinned, pinned)
        guess_for_sizes = replace(self.base, sizes=sizes, control=index)
        has_far_positions = index % 2 and any(
            rule.make is Make.POSITIONS for rule in self.recipe.rules.values()
        )
        if (
            has_far_positions
            and (values := self._run(index, replace(guess_for_sizes, far=True))) is not None
        ):
            self.bases.setdefault(key, guess_for_sizes)
            return values
        if (values := self._run(index, guess_for_sizes)) is not None:
            self.bases.setdefault(key, guess_for_sizes)
            return values
        if key not in self.bases:
            start = replace(guess_for_sizes, sizes=self.base.sizes | pinned)
            if (reached := self._climb(index, start, _CONTROL_BUDGET)) is not None:
                self.bases[key] = reached[0]
        base = self.bases.get(key)
        # Without sizes that suit this control value, the set keeps the first one's.
        guess = replace(base, control=index) if base is not None else self.base
        return self._vary(index, guess, guess_for_sizes.sizes)

    def usual(self, first: dict[str, Value], count: int) -> list[InputSet]:
        """Return the usual sets, of which the first is known to run."""
        further_values = [self.further(k) for k in range(1, count)]
        sets = []
        for k, values in enumerate([first, *further_values]):
            sets.append(self.recipe.named(k, self.seed, values))
        telling_sets = self.telling(sets) if further_values else []
        return [*sets[: len(sets) - len(telling_sets)], *telling_sets]

    def _louder(
        self,
        sets: Sequence[InputSet],
        seen: Sequence[list[telling.Trace | None]],
        start: int,
    ) -> list[InputSet]:
        """Return sets of the least loudness at which an output says something else."""
        assert self.base is not None
        for loud in telling.LOUDER:
            louder = []
            for index in range(start, start + len(sets) - 1):
                pinned = self.recipe.pinned(index)
                sizes = self.recipe.fit(self._wanted(index) | pinned, pinned)
                guess = replace(self.base, sizes=sizes, control=index, loud=loud)
                values = self._run(index, guess)
                if values is None:
                    values = self._run(index, replace(self.base, loud=loud))
                if values is not None:
                    louder.append((index, values))
            traces = [self.traces[id(values)] for _, values in louder]
            if louder and not telling.says_one_thing([*seen, *traces]):
                return [
                    self.recipe.named(at, self.seed, values, loud) for at, values in louder
                ]
        return []

    def telling(self, sets: Sequence[InputSet]) -> list[InputSet]:
        """Return further sets on which an output says something else than on ``sets``.

        They're needed where all of those say one thing: one of the usual kind, or else louder ones,
        which leave the first set in its place.
        """
        seen = [self.traces.get(id(input_set.values), []) for input_set in sets]
        if not telling.says_one_thing(seen):
            return []
        start = len(sets)
        for index in range(start, start + telling.TRIES):
            values = self.further(index)
            if not telling.says_one_thing([*seen, self.traces.get(id(values), [])]):
                return [self.recipe.named(index, self.seed, values)]
        return self._louder(sets, seen, start + telling.TRIES) if self.recipe.is_loud else []

    def large(self, model: onnx.ModelProto) -> list[InputSet]:
        """The set with a dimension beyond what float16 counts to, where the model is small."""
        assert self.base is not None
        entry = large.large_set(model, self.recipe, self.seed, self.base, self._attempt)
        return [] if entry is None else [entry]

    def unusual(self, model: onnx.ModelProto) -> list[InputSet]:
        """Return the unusual sets, derived from set 0.

        The set with state that is fed back comes first, where there is such.
        """
        assert self.base is not None
        pairs = feedback.states(model, self.recipe)
        fed = (
            feedback.fed_back(self.recipe, pairs, self.seed, self.base, self._attempt)
            if pairs
            else None
        )
        light = edges.is_light(model, self.recipe, self.base)
        with noting(edges.UNUSUAL):
            visiting, deciding = decisive_sets(
                model, self.recipe, self.seed, self.base, self._attempt
            )
            sizes = size_edges(model, self.recipe, self.seed, self.base)
            rare = list(
                edges.unusual_sets(
                    self.recipe, self.seed, self.base, self._attempt, light, sizes
                )
            )
        return [*([fed] if fed is not None else []), *visiting, *deciding, *rare]

    def _attempt(self, values: dict[str, Value]) -> Any:
        try:
            outputs = self.try_run(values)
        except Exception:
            return None
        return outputs if outputs is not None else {}

    def _wanted(self, index: int) -> Sizes:
        """The sizes to try for set ``index``.

        The preferred ones, except where set 0 had to depart from them.
        """
        assert self.base is not None
        sizes = sizing.preferred(self.recipe.dimensions, index)
        for name, entry in self.recipe.dimensions.items():
            if (size := self.base.sizes[name]) in entry.preferred:
                continue
            good = self.good.get(name, [])
            near = good if len(good) > 1 else [size, *sizing.neighbours(size, entry)[:1]]
            sizes[name] = near[index % len(near)]
        return sizes

    def _vary(self, index: int, guess: Guess, preferred: Sizes) -> dict[str, Value]:
        pinned = self.recipe.pinned(index)
        guess = replace(guess, sizes=guess.sizes | pinned)
        best, budget = self._run(index, guess), _VARIATION_BUDGET
        dimensions = self.recipe.dimensions
        for group in self._groups(pinned):
            for number in range(_NEIGHBOURS):
                if budget <= 0:
                    break
                changed = {}
                for name in group:
                    if near := [
                        preferred[name],
                        *sizing.neighbours(guess.sizes[name], dimensions[name])[:6],
                    ]:
                        changed[name] = near[number % len(near)]
                if not changed or all(
                    guess.sizes[name] == size for name, size in changed.items()
                ):
                    continue
                budget -= 1
                trial = replace(guess, sizes=guess.sizes | changed)
                if (values := self._run(index, trial)) is not None:
                    guess, best = trial, values
                    break
        if best is None:
            # Even sizes that ran before don't, with these values: those of the control that ran
            # first do, or none.
            assert self.base is not None
            best = self._run(index, replace(self.base, sizes=self.base.sizes | pinned))
        if best is None:
            raise self.unsolved(index, self.tried)
        return best

    def given_up(self, model: onnx.ModelProto, tried: int) -> HarnessError:
        """Return the error of a model that ran on nothing: its own where no inputs can help."""
        error = self.unsolved(0, tried)
        fault = constant_fault(model, self.complaints)
        if fault is None or not isinstance(error, InputError):
            return error
        return ModelError(f"{fault}\n{error}")

    def unsolved(self, index: int, tried: int) -> HarnessError:
        """Return the error after ``tried`` feeds for set ``index``."""
        words = nothing_runs(
            self.recipe, index, tried=tried, examples=self.examples, message=self.message
        )
        decided = any(entry.is_integer for entry in self.recipe.inputs.values())
        return no_inputs(words, self.complaints, decided_by_inputs=decided)

    def _groups(self, pinned: Mapping[str, int]) -> list[list[str]]:
        """Dimensions to change together.

        Those of a role, and where a role has several, each alone.
        """
        free = []
        for name, entry in self.recipe.dimensions.items():
            if name not in pinned and entry.role != Role.FIXED:
                free.append(entry)
        roles = {role: [entry.name for entry in free if entry.role is role] for role in Role}
        together = [names for names in roles.values() if names]
        return together + [[name] for names in together if len(names) > 1 for name in names]

    def _climb(
        self, index: int, start: Guess, budget: int
    ) -> tuple[Guess, dict[str, Value]] | None:
        """Try ``start``, then what its failure suggests, then the ladder."""
        spent = 0
        seen: set[str] = set()
        suggested: list[Guess] = [start]
        queue: list[Guess] = []
        ladder = candidates(self.recipe, start, self.recipe.pinned(index))
        followed = 0
        while spent < budget:
            # What a message asks for goes first. Its mere numbers take turns with the ladder: one
            # of them may be the cure, or lead to a size that nobody uses.
            guess = None
            if suggested:
                guess = suggested.pop(0)
            elif spent % 2 or not queue:
                guess = next(ladder, None)
            if guess is None and not queue:
                return None
            guess = guess or queue.pop(0)
            if (key := repr(guess)) in seen:
                continue
            seen.add(key)
            spent += 1
            if (values := self._run(index, guess)) is not None:
                return guess, values
            # Hints of hints are followed, but not for ever: a wrong one leads away from the ladder.
            if followed < budget // 3:
                certain, fresh = learned(
                    self.recipe, guess, self.recipe.pinned(index), self.message
                )
                followed += len(certain) + len(fresh)
                suggested.extend(certain)
                queue.extend(fresh)
        return None

    def _run(self, index: int, guess: Guess) -> dict[str, Value] | None:
        least = dict.fromkeys(guess.sizes, 1) | self.recipe.pinned(index)
        if self.recipe.too_large(guess.sizes) and not self.recipe.too_large(least):
            return None
        values = self.recipe.values(index, self.seed, guess)
        self.tried += 1
        try:
            self.traces[id(values)] = telling.traces(self.try_run(values))
        except Exception as error:
            self.message = str(error)
            self.complaints.append(error)
            if len(self.examples) < 3:
                self.examples.append(feed_shapes(values))
            return None
        for name, size in guess.sizes.items():
            if size not in (sizes := self.good.setdefault(name, [])):
                sizes.append(size)
        return values

    def _controls(self, index: int) -> tuple[object, ...]:
        return tuple(self.recipe.controls(index).values())

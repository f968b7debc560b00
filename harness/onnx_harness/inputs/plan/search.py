"""Makes input sets that run.

The first guess, and where it fails, a bounded search that learns from the error.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import onnx

from onnx_harness.cards.card import InputSpec
from onnx_harness.errors import InputError, UsageError
from onnx_harness.inputs.decisions.sets import decisive_sets
from onnx_harness.inputs.plan import edges, feedback, hints, large, telling
from onnx_harness.inputs.plan import sizes as sizing
from onnx_harness.inputs.plan.fitting import Sizes, broken
from onnx_harness.inputs.plan.recipe import Guess, Recipe, has_unknown_rank, recipe_for
from onnx_harness.inputs.plan.rule import Make
from onnx_harness.inputs.plan.sizes import Role
from onnx_harness.inputs.values.sets import InputSet, Value, arrays_of, number_text, shape_text
from onnx_harness.isolate import noting

TryRun = Callable[[dict[str, Value]], Any]

# tries to find anything that runs; each is one run of the model, most of which fail at once
_FIRST_BUDGET = 120
_CONTROL_BUDGET = 60  # tries for a control value that the sizes found before don't suit
_VARIATION_BUDGET = 16  # tries to give one further set sizes of its own
_RANKS = (1, 3, 4, 0)  # after the rank that a consumer suggests
_NEIGHBOURS = 5
_LEAST = {
    Role.HEIGHT: 8,
    Role.WIDTH: 8,
    Role.SAMPLES: 64,
}  # sizes that a number in an error message may suggest


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
        input_sets: list[InputSet] = []
        for k in range(count):
            input_sets.append(recipe.named(k, seed, recipe.values(k, seed, recipe.first_guess(k))))
        return input_sets
    ranks: tuple[int | None, ...] = (None, *_RANKS) if has_unknown_rank(model, specs) else (None,)
    failures: list[_Search] = []
    for rank in ranks:
        search = _Search(recipe if rank is None else recipe_for(model, specs, rank), seed, try_run)
        if (first := search.first()) is not None:
            further_values = [search.further(k) for k in range(1, count)]
            sets = []
            for k, values in enumerate([first, *further_values]):
                sets.append(search.recipe.named(k, seed, values))
            if further_values and (telling_set := search.telling(sets)) is not None:
                sets[-1] = telling_set
            return [*sets, *search.large(model), *search.unusual(model)] if unusual else sets
        failures.append(search)
    raise InputError(_nothing_runs(failures))


@dataclass
class _Search:
    """The state of one search: what ran, what was tried, what was learned.

    Attributes:
        bases: for each combination of control values, sizes that ran with it.
        base: what set 0 ran with; later sets keep the constants and the cap that it needed.
        good: for each dynamic dimension, the sizes that ran in some set.
        tried: how many runs, and the first few shapes in words.
        message: the reference's latest complaint.
        extremes: by the identity of the values of what ran, the least and greatest numbers of the
            outputs.
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
    extremes: dict[int, list[telling.Extremes | None]] = field(default_factory=dict)

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

    def telling(self, sets: Sequence[InputSet]) -> InputSet | None:
        """Return a further set on which an output says something else than on ``sets``.

        It's needed where all of those say one thing.
        """
        seen = [self.extremes.get(id(input_set.values), []) for input_set in sets]
        if not telling.says_one_thing(seen):
            return None
        for index in range(len(sets), len(sets) + telling.TRIES):
            values = self.further(index)
            if not telling.says_one_thing([*seen, self.extremes.get(id(values), [])]):
                return self.recipe.named(index, self.seed, values)
        return None

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
            rare = list(edges.unusual_sets(self.recipe, self.seed, self.base, self._attempt, light))
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
                if not changed or all(guess.sizes[name] == size for name, size in changed.items()):
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
            raise InputError(_nothing_runs([self], index))
        return best

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
        candidates = self._candidates(start, self.recipe.pinned(index))
        learned = 0
        while spent < budget:
            # What a message asks for goes first. Its mere numbers take turns with the ladder: one
            # of them may be the cure, or lead to a size that nobody uses.
            guess = None
            if suggested:
                guess = suggested.pop(0)
            elif spent % 2 or not queue:
                guess = next(candidates, None)
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
            if learned < budget // 3:
                certain, fresh = self._learned(guess, self.recipe.pinned(index))
                learned += len(certain) + len(fresh)
                suggested.extend(certain)
                queue.extend(fresh)
        return None

    def _learned(self, guess: Guess, pinned: Mapping[str, int]) -> tuple[list[Guess], list[Guess]]:
        """Guesses that the latest complaint asks for, and those that its numbers suggest."""
        hint = hints.read(self.message)
        guesses: list[Guess] = []
        sizes_told: Sizes = {}
        for name, axes in hint.dims.items():
            dims = self.recipe.inputs[name].dims if name in self.recipe.inputs else None
            for axis, size in axes.items():
                if (
                    dims is not None
                    and axis < len(dims)
                    and isinstance(dim := dims[axis], str)
                    and dim in guess.sizes
                ):
                    sizes_told[dim] = size
        if sizes_told and sizes_told.items() - guess.sizes.items():
            guesses.append(replace(guess, sizes=guess.sizes | sizes_told))
        if hint.cap is not None and (guess.cap is None or hint.cap < guess.cap):
            guesses.append(replace(guess, cap=max(0, hint.cap)))
        free = []
        for name, entry in self.recipe.dimensions.items():
            if name not in pinned and entry.role not in (Role.BATCH, Role.FIXED):
                free.append(name)
        suggested = []
        for number in hint.numbers[:4]:
            for name in free[:3]:
                # Pictures and sounds of a few values run often enough, and mean nothing.
                least = _LEAST.get(self.recipe.dimensions[name].role, 1)
                if number >= least and guess.sizes[name] != number:
                    suggested.append(replace(guess, sizes=guess.sizes | {name: number}))
        return guesses, [] if sizes_told else suggested

    def _candidates(self, start: Guess, pinned: Mapping[str, int]) -> Iterator[Guess]:
        """Sizes and constants, likeliest first, interleaved so that neither starves the other."""
        ladder = sizing.ladder(self.recipe.dimensions, start.sizes, pinned)
        sizes = (replace(start, sizes=step) for step in ladder)
        constants = self._constants(start)
        running = [sizes, constants]
        while running:
            for source in list(running):
                guess = next(source, None)
                if guess is None:
                    running.remove(source)
                else:
                    yield guess

    def _constants(self, start: Guess) -> Iterator[Guess]:
        """Plain numbers for the inputs that nothing settles.

        All alike first, then one at a time.
        """
        doubtful = []
        for name, rule in self.recipe.rules.items():
            if not rule.certain and not (
                self.recipe.inputs[name].is_float and rule.make is not Make.CHOICES
            ):
                doubtful.append(name)
        if not doubtful:
            return
        numbers = list(dict.fromkeys([1, 0, *start.sizes.values(), 2, -1, 4, 3, 8]))
        for number in numbers:
            yield from self._constant(start, doubtful, number)
        if len(doubtful) > 1:
            for name in doubtful:
                for number in numbers:
                    yield from self._constant(start, [name], number)

    def _constant(self, start: Guess, names: list[str], number: int) -> Iterator[Guess]:
        ranges = []
        for name in names:
            if self.recipe.inputs[name].is_integer:
                ranges.append(self.recipe.inputs[name].integer_range)
        low = max((least for least, _ in ranges), default=-1)
        high = min((greatest for _, greatest in ranges), default=number)
        if low <= number <= high:
            yield replace(start, constants=start.constants | dict.fromkeys(names, number))

    def _run(self, index: int, guess: Guess) -> dict[str, Value] | None:
        least = dict.fromkeys(guess.sizes, 1) | self.recipe.pinned(index)
        if self.recipe.too_large(guess.sizes) and not self.recipe.too_large(least):
            return None
        values = self.recipe.values(index, self.seed, guess)
        self.tried += 1
        try:
            self.extremes[id(values)] = telling.extremes(self.try_run(values))
        except Exception as error:
            self.message = str(error)
            if len(self.examples) < 3:
                self.examples.append(_shapes(values))
            return None
        for name, size in guess.sizes.items():
            if size not in (sizes := self.good.setdefault(name, [])):
                sizes.append(size)
        return values

    def _controls(self, index: int) -> tuple[object, ...]:
        return tuple(self.recipe.controls(index).values())


def _shapes(values: Mapping[str, Value]) -> str:
    parts = []
    for name, value in values.items():
        first = next(arrays_of(value))
        tail = f" = {number_text(first)}" if first.size == 1 else ""
        parts.append(f"{name} {shape_text(first.shape)}{tail}")
    return ", ".join(parts)


def _nothing_runs(searches: list[_Search], index: int = 0) -> str:
    """Return what was tried, what the reference said last, and what would settle it."""
    search, recipe = searches[-1], searches[-1].recipe
    pinned = recipe.pinned(index)
    open_axes = {}
    for name, entry in recipe.inputs.items():
        open_axes[name] = any(
            isinstance(dim, str) and dim not in pinned for dim in entry.dims or ()
        )
    doubtful = []
    for name in recipe.inputs:
        if open_axes[name] or not recipe.rules[name].certain:
            doubtful.append(name)
    names = []
    for name in doubtful:
        names.append(
            f"'{name}' ({recipe.inputs[name].type_name} {recipe.inputs[name].shape_text()}: "
            f"{recipe.rules[name].why})"
        )
    described = "; ".join(names)
    named = ", ".join(f"'{name}'" for name in recipe.specs)
    said = f"the model doesn't run on what its card says of {named}" if named else ""
    unsure = (
        f"couldn't invent {described}"
        if doubtful
        else "every input is settled by the graph or its card"
    )
    tried = sum(search.tried for search in searches)
    unmet = broken(recipe.relations, recipe.first_guess(index).sizes)
    unmet_sentence = (
        f"No sizes were found that the graph asks for: {unmet[0].why}. " if unmet else ""
    )
    return (
        f"no inputs were found that the model runs on (set {index}): {said or unsure}"
        f"{f', and {unsure}' if said and doubtful else ''}. "
        f"Tried {tried} feeds, among them {' | '.join(search.examples)}. "
        f"{unmet_sentence}ONNX Runtime's last message: {hints.shortened(search.message)}\n"
        "Settle it in the model's card:\n"
        + "".join(
            f"  {line}\n"
            for name in (doubtful or recipe.inputs)
            for line in _card_lines(recipe, name, open_axes)
        )
        + "or put a recorded input set, a .npz whose keys are the input names, beside the model "
        "with its stem."
    )


def _card_lines(recipe: Recipe, name: str, open_axes: Mapping[str, bool]) -> list[str]:
    """The lines of a card that would settle one input, for a person to put the right numbers in."""
    entry, rule = recipe.inputs[name], recipe.rules[name]
    is_bare = name.replace("_", "").isalnum() and name.isascii()  # TOML quotes other keys
    lines = [f"[inputs.{name if is_bare else json.dumps(name)}]"]
    if open_axes[name]:
        lines.append(
            f"shapes = [{[dim if isinstance(dim, int) else 1 for dim in entry.dims or ()]}]  # "
            f"what it takes"
        )
    if entry.is_string:
        lines.append('values = ["…"]')
    elif not rule.certain or entry.is_integer:
        lines.append("values = [0]  # or low = …, high = …")
    elif not open_axes[name]:
        lines.append('generator = "uniform"  # or low = …, high = …')
    return lines

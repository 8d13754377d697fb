"""Train, validation and test: a pure function of the items' content and a seed, never of the order of rows.

Whatever is equal or nearly equal goes to one part as a whole, so that no test item has a twin in training.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from rung.data.labelled import LabelledItems
from rung.data.similar_items import ComparableTexts, equal_groups, keyed_chances, similar_clusters
from rung.errors import DataError

Ints = NDArray[np.int64]
Method = Literal["stratified", "grouped", "time", "given"]
_TRAIN, _VALID, _TEST = 0, 1, 2
_PARTS = ("train", "valid", "test")


@dataclass(frozen=True)
class Split:
    """Indices into the items that were split, each ascending. `notes` are sentences about what could not be kept."""

    train: Ints
    valid: Ints
    test: Ints
    method: Method
    sha256: str
    notes: list[str] = field(default_factory=list)


def make_split(
    items: LabelledItems,
    *,
    seed: int,
    method: Method = "stratified",
    test_share: float = 0.2,
    valid_share: float = 0.1,
) -> Split:
    """Split `items` in three; a share of 0 leaves that part empty (a test file was given, say).

    stratified: each class in about these shares; every class of three items or more that are not all alike is in
    train and test. grouped: no group in two parts (items without a group are a group each). time: the latest items
    are test, those before them validation; items of one time stay together.

    Raises DataError when the items have no groups or times, or too few of them to fill the parts.
    """
    wanted = np.array([1 - test_share - valid_share, valid_share, test_share])
    if min(test_share, valid_share) < 0 or wanted[_TRAIN] <= 0:
        raise DataError(f"a test share of {test_share} and a validation share of {valid_share} leave nothing to train")
    notes: list[str] = []
    if method == "time":
        part = _by_time(items, wanted)
    else:
        ranks = _ranks(items.ids, seed)
        texts = ComparableTexts.of(items.texts)
        part = _in_units(items, method, similar_clusters(texts, ranks), ranks, wanted)
        if np.any(np.bincount(part, minlength=3) < wanted * len(items) / 2):
            # nearly all texts are alike: a template filled in many ways
            part = _in_units(items, method, equal_groups(texts.sequence), ranks, wanted)
            notes.append(
                "So many texts are nearly the same that they cannot be kept together: only equal texts are. "
                "Expect test items to be found in training."
            )
    return _finished(items, part, method, wanted, notes)


def _ranks(ids: Sequence[str], seed: int) -> Ints:
    """(n,) the place of each id in an order by chance, keyed by `seed`."""
    ranks = np.empty(len(ids), np.int64)
    ranks[np.lexsort((np.array(ids), keyed_chances(ids, seed)))] = np.arange(len(ids))
    return ranks


def _in_units(items: LabelledItems, method: Method, clusters: Ints, ranks: Ints, wanted: NDArray[np.float64]) -> Ints:
    """The part of each item; what shares a cluster (and a group, if by groups) goes together."""
    if method == "grouped":
        return _by_group(_joined_groups(items, clusters), ranks, wanted)
    return _stratified(items.labels, clusters, ranks, wanted)


def one_of_each(items: LabelledItems) -> Ints:
    """The items, ascending, of which none is equal or nearly equal to another: the lowest id of each cluster.

    Copies are not independent measurements: thirty of one message, all right or all wrong, would count as thirty items
    in every interval and test.
    """
    order = np.argsort(np.array(items.ids))
    ranks = np.empty(len(items), np.int64)
    ranks[order] = np.arange(len(items))
    clusters = similar_clusters(ComparableTexts.of(items.texts), ranks)
    _, first = np.unique(clusters[order], return_index=True)
    return np.sort(order[first])


def given_split(train: Sequence[str], valid: Sequence[str], test: Sequence[str]) -> Split:
    """The split of items that came in files of their own: of their ids, laid one part after the other."""
    sizes = np.cumsum([0, len(train), len(valid), len(test)])
    train_at, valid_at, test_at = (np.arange(sizes[at], sizes[at + 1]) for at in range(3))
    part = np.repeat(np.arange(3), np.diff(sizes))
    return Split(train_at, valid_at, test_at, "given", _sha256([*train, *valid, *test], part))


def _finished(items: LabelledItems, part: Ints, method: Method, wanted: NDArray[np.float64], notes: list[str]) -> Split:
    for number, name in enumerate(_PARTS):
        if wanted[number] > 0 and not (part == number).any():
            raise DataError(
                f"{len(items):,} items cannot be split so that the {name} part has any ({method})",
                hint="give more items, other shares, or a file for that part",
            )
    absences = [_absence(items, part, number) for number in (_TRAIN, _TEST) if wanted[number] > 0]
    indices = [np.flatnonzero(part == number) for number in range(3)]
    return Split(
        indices[0], indices[1], indices[2], method, _sha256(items.ids, part), [*notes, *filter(None, absences)]
    )


def _absence(items: LabelledItems, part: Ints, number: int) -> str:
    """A sentence on the classes that a part lacks; empty if it has all."""
    everywhere = np.bincount(items.labels, minlength=len(items.label_names))
    here = np.bincount(items.labels[part == number], minlength=len(items.label_names))
    absent = [f"'{items.label_names[at]}'" for at in np.flatnonzero((everywhere > 0) & (here == 0))]
    shown = ", ".join(absent[:5]) + (" ..." if len(absent) > 5 else "")
    if len(absent) > 1:
        return f"{len(absent)} classes have no item in {_PARTS[number]}: {shown}."
    return f"The class {shown} has no item in {_PARTS[number]}." if absent else ""


def _sha256(ids: Sequence[str], part: Ints) -> str:
    lines = sorted(f"{_PARTS[number]}\t{item}\n" for item, number in zip(ids, part.tolist(), strict=True))
    return hashlib.sha256("".join(lines).encode()).hexdigest()


# Stratified -----------------------------------------------------------------------------------------------------------


def _stratified(labels: Ints, clusters: Ints, ranks: Ints, wanted: NDArray[np.float64]) -> Ints:
    """Class by class, clusters in the order of their chance fill test, then validation; the rest trains."""
    units, members = np.unique(clusters, return_inverse=True)
    sizes = np.bincount(members)
    order = np.full(len(units), len(ranks))
    np.minimum.at(order, members, ranks)
    unit_part = np.empty(len(units), np.int64)
    stratum = _majority(labels, members, len(units))
    quotas, done = np.zeros(3, np.int64), 0
    for label in np.unique(stratum):
        own = np.flatnonzero(stratum == label)
        own = own[np.argsort(order[own])]
        done += int(sizes[own].sum())
        until = np.floor(wanted * done + 0.5).astype(np.int64)  # rounded over all classes so far: no share is lost
        unit_part[own] = _fill(sizes[own], until - quotas, tested=wanted[_TEST] > 0)
        quotas = until
    _fill_empty(unit_part, np.argsort(order), sizes, stratum, wanted)
    return unit_part[members]


def _majority(labels: Ints, members: Ints, count: int) -> Ints:
    """The most frequent label of each unit, the lowest of several."""
    table = np.zeros((count, int(labels.max(initial=0)) + 1), np.int32)
    np.add.at(table, (members, labels), 1)
    majority: Ints = table.argmax(axis=1)
    return majority


def _fill(sizes: Ints, quotas: Ints, *, tested: bool) -> Ints:
    """The part of each unit, in the order given: test and validation take what still fits their quotas of items.

    With `tested`, two units or more leave at least one in test; at least one always trains.
    """
    part = np.full(len(sizes), _TRAIN)
    left, total = quotas.copy(), int(sizes.sum())
    if tested and len(sizes) > 1:
        left[_TEST] = max(left[_TEST], 1)
    left[_TEST] = min(left[_TEST], total - 1)
    left[_VALID] = min(left[_VALID], total - 1 - left[_TEST])
    for unit, size in enumerate(sizes.tolist()):
        for candidate in (_TEST, _VALID):
            if size <= 2 * left[candidate]:  # the quota is met more closely with it than without
                part[unit] = candidate
                left[candidate] -= size
                break
    if tested and len(sizes) > 1 and not (part == _TEST).any():  # every cluster is larger than the quota
        part[int(np.argmin(sizes))] = _TEST
    if not (part == _TRAIN).any():
        donors = np.flatnonzero(part == (_VALID if (part == _VALID).any() else _TEST))
        part[donors[np.argmax(sizes[donors])]] = _TRAIN
    return part


# Grouped --------------------------------------------------------------------------------------------------------------


def _joined_groups(items: LabelledItems, clusters: Ints) -> Ints:
    """Units that keep groups together and near-duplicates too: (n,) numbers."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    if items.groups is None:
        raise DataError("the items have no groups to split by", hint="name the group column: --group COLUMN")
    names = [group or f"\x00{item}" for group, item in zip(items.groups, items.ids, strict=True)]
    groups = np.unique(names, return_inverse=True)[1]
    if int(groups.max(initial=0)) < 2:
        raise DataError("fewer than three groups cannot be split in three parts", hint="split without --group")
    count = len(items)
    edges = coo_matrix((np.ones(count), (clusters, count + groups)), shape=(2 * count, 2 * count))
    units: Ints = connected_components(edges, directed=False)[1][clusters].astype(np.int64)
    return units


def _by_group(units: Ints, ranks: Ints, wanted: NDArray[np.float64]) -> Ints:
    names, members = np.unique(units, return_inverse=True)
    sizes = np.bincount(members)
    order = np.full(len(names), len(ranks))
    np.minimum.at(order, members, ranks)
    by_chance = np.argsort(order)
    unit_part = np.empty(len(names), np.int64)
    quotas = np.floor(wanted * len(units) + 0.5).astype(np.int64)
    unit_part[by_chance] = _fill(sizes[by_chance], quotas, tested=wanted[_TEST] > 0)
    _fill_empty(unit_part, by_chance, sizes, np.zeros(len(sizes), np.int64), wanted)
    return unit_part[members]


def _fill_empty(unit_part: Ints, by_chance: Ints, sizes: Ints, stratum: Ints, wanted: NDArray[np.float64]) -> None:
    """Where all units were larger than the quota of a part, the smallest of another part moves there, in place.

    The part that gives keeps another unit of the same class (`stratum`).
    """
    for part in (_TEST, _VALID):
        for donor in (_TRAIN, _TEST):
            left = np.bincount(stratum[unit_part == donor], minlength=int(stratum.max()) + 1)
            spare = by_chance[(unit_part[by_chance] == donor) & (left[stratum[by_chance]] > 1)]
            if wanted[part] > 0 and not (unit_part == part).any() and len(spare):
                unit_part[spare[np.argmin(sizes[spare])]] = part


# Time -----------------------------------------------------------------------------------------------------------------


def _by_time(items: LabelledItems, wanted: NDArray[np.float64]) -> Ints:
    if items.times is None:
        raise DataError("the items have no times to split by", hint="name the time column: --time COLUMN")
    _, moment = np.unique(items.times, return_inverse=True)
    before = np.concatenate([[0], np.cumsum(np.bincount(moment))])  # items before each moment; last: all of them
    first_test = _nearest(before, len(items) * (1 - wanted[_TEST]))
    first_valid = _nearest(before, len(items) * wanted[_TRAIN])
    part: Ints = np.where(moment >= first_test, _TEST, np.where(moment >= first_valid, _VALID, _TRAIN))
    return part


def _nearest(before: Ints, count: float) -> int:
    """The moment with the number of items before it nearest to `count`."""
    return int(np.argmin(np.abs(before - count)))

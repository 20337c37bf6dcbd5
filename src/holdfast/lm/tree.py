"""Token sequences -> a radix tree of shared prefixes -> passes through a model that compute each distinct prefix once.

In: token sequences. Out: ``Pass`` objects, in an order in which every prefix comes before what stands behind it.

    BOS D_s ─┬─ demo 1 ─┬─ D_t ─┬─ input 1      a pass: rows that are batched freely, behind the same cached prefix;
             │          │       └─ input 2      a row: whole subtrees laid out flat, in which a token sees the prefix,
             └─ demo 2 ─ ...    └─ ...          its ancestors and itself, and no siblings

A subtree of up to ``row_tokens`` tokens stays in one row. The first node of a larger one is put into the cache, and its
children are planned behind it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from holdfast.records import Ids

WORTH_CACHING = 192
"""A shared prefix is cached by itself only if that saves this many tokens, because a pass of few tokens costs more than
it saves.
"""


@dataclass(eq=False)
class Node:
    """A run of tokens that always occur together. ``start``: position of the first one in every sequence through it."""

    ids: Ids
    start: int
    parent: Node | None
    children: list[Node] = field(default_factory=list)
    ends: list[int] = field(default_factory=list)
    """Numbers of the sequences that end with this node."""
    size: int = 0
    """Tokens in this node and below it."""

    @property
    def stop(self) -> int:
        """The position after the last token."""
        return self.start + len(self.ids)


@dataclass(frozen=True)
class Pass:
    """What stands behind one cached prefix. ``prefix``: the last node of the prefix, or None for an empty one.

    ``rows``: each some subtrees that are laid out in one row; ``cached``: nodes to extend the prefix with, a row each;
    ``last``: no later pass needs the same prefix, so its cache may be freed.
    """

    prefix: Node | None
    rows: tuple[tuple[Node, ...], ...]
    cached: tuple[Node, ...]
    last: bool = True


def build(sequences: Sequence[Ids], start: int = 0) -> Node:
    """Return the tree of the sequences, whose first tokens have position ``start``.

    The root has no tokens; equal sequences end at one node."""
    order = sorted(range(len(sequences)), key=sequences.__getitem__)
    root = Node((), start, None)
    path, previous = [root], Ids()
    for number in order:
        ids = sequences[number]
        shared = start + common_length(previous, ids)
        while path[-1].start >= shared and len(path) > 1:
            path.pop()
        if path[-1].stop > shared:
            path.append(_split(path.pop(), shared))
        if start + len(ids) > shared:
            node = Node(ids[shared - start :], shared, path[-1])
            path[-1].children.append(node)
            path.append(node)
        path[-1].ends.append(number)
        previous = ids
    for node in reversed(flatten([root])):
        node.size = len(node.ids) + sum(child.size for child in node.children)
    return root


def plan(
    root: Node,
    row_tokens: int,
    worth: int = WORTH_CACHING,
    *,
    keep_ends: bool = False,
    fill: int = 0,
    room: int = 2**62,
) -> list[Pass]:
    """Cut the tree into passes; every ``cached`` node of a pass is the ``prefix`` of later passes. This changes the
    tree.

    Args:
        row_tokens: largest subtree that stays in one row.
        worth: tokens that caching a prefix must save.
        keep_ends: every node at which a sequence ends is cached, so that it can be continued.
        fill: neighbouring subtrees share a row until it has this many tokens.
        room: positions that may be cached at a time behind one prefix.
    """
    passes: list[Pass] = []
    waiting: list[tuple[Node | None, list[tuple[Node, ...]], list[Node]]] = []

    def wait(prefix: Node | None, nodes: list[Node]) -> None:
        rows, cached = _sort_out(nodes, row_tokens, worth, keep_ends)
        if rows or cached:
            waiting.append((prefix, _filled(rows, fill), cached))

    wait(None, [root])
    while waiting:
        prefix, rows, cached = waiting.pop()
        count, held = 0, 0
        while count < len(cached) and (not count or held + cached[count].stop <= room):
            held, count = held + cached[count].stop, count + 1
        passes.append(Pass(prefix, tuple(rows), tuple(cached[:count]), last=count == len(cached)))
        if count < len(cached):
            waiting.append((prefix, [], cached[count:]))
        for node in reversed(cached[:count]):
            wait(node, list(node.children))
    return passes


def flatten(tops: Sequence[Node]) -> list[Node]:
    """Return the nodes of some subtrees, every node before its children."""
    nodes, stack = [], list(reversed(tops))
    while stack:
        node = stack.pop()
        nodes.append(node)
        stack += reversed(node.children)
    return nodes


def holder(node: Node, position: int) -> Node:
    """Return the ancestor (or the node itself) that holds a position; the root for positions before it."""
    while node.start > position and node.parent is not None:
        node = node.parent
    return node


def common_length(a: Sequence[int], b: Sequence[int]) -> int:
    """Return the length of the common prefix."""
    for i, (x, y) in enumerate(zip(a, b)):
        if x != y:
            return i
    return min(len(a), len(b))


def distinct_tokens(sequences: Iterable[Sequence[int]]) -> int:
    """Return the number of tokens in the tree of the sequences, which is not built."""
    size = 0
    previous: Ids = ()
    for ids in sorted(map(tuple, sequences)):
        size, previous = size + len(ids) - common_length(ids, previous), ids
    return size


def _sort_out(nodes: list[Node], row_tokens: int, worth: int, keep_ends: bool) -> tuple[list[Node], list[Node]]:
    """Return the nodes whose subtrees become rows, and those to cache; smaller shared beginnings are repeated."""
    rows: list[Node] = []
    cached: list[Node] = []
    stack = list(reversed(nodes))
    while stack:
        node = stack.pop()
        if not node.ids:
            stack += reversed(node.children)
        elif keep_ends and not node.children:
            cached.append(node)
        elif not keep_ends and (node.size <= row_tokens or not node.children):
            rows.append(node)
        elif len(node.ids) * (len(node.children) - 1 + bool(node.ends)) >= worth:
            cached.append(node)
        else:
            stack += reversed(_dissolve(node))
    return rows, cached


def _filled(rows: Sequence[Node], fill: int) -> list[tuple[Node, ...]]:
    """Put neighbouring subtrees into one row as long as it has no more than ``fill`` tokens."""
    groups: list[list[Node]] = []
    held = 0
    for node in rows:
        if not groups or held + node.size > fill:
            groups.append([])
            held = 0
        groups[-1].append(node)
        held += node.size
    return [tuple(group) for group in groups]


def _dissolve(node: Node) -> list[Node]:
    """Give the tokens of a node to each of its children; the node itself stays, childless, if a sequence ends with
    it.
    """
    children = node.children
    for child in children:
        child.ids, child.start, child.parent = node.ids + child.ids, node.start, node.parent
        child.size += len(node.ids)
    if not node.ends:
        return children
    node.size, node.children = len(node.ids), []
    return [node, *children]


def _split(node: Node, at: int) -> Node:
    """Cut a node before position ``at``. The front takes its place in the tree; the node becomes its only child."""
    front = Node(node.ids[: at - node.start], node.start, node.parent, [node])
    if node.parent is not None:
        node.parent.children[node.parent.children.index(node)] = front
    node.ids, node.start, node.parent = node.ids[at - node.start :], at, front
    return front

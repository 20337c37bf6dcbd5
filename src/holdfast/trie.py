"""Token sequences -> a tree of shared prefixes -> packed rows: what must pass through a model, each distinct prefix
once.

In: token sequences. Out: ``Pass`` objects, in an order in which every prefix comes before what stands behind it.

    BOS D_s ─┬─ demo 1 ─┬─ D_t ─┬─ input 1        a pass: rows of one batch, all behind the same cached prefix;
             │          │       └─ input 2        a row: a whole subtree laid out flat, in which a token sees the
             └─ demo 2 ─ ...    └─ ...            prefix, its ancestors and itself, and no siblings

A subtree of up to ``row_tokens`` tokens is one row. A larger one has its first node put into the cache and its children
as rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

Ids = tuple[int, ...]

_WORTH_CACHING = 192
"""A shared prefix is cached of its own only if this saves so many tokens: a forward pass for a few tokens costs more
than it saves.
"""


@dataclass(eq=False)
class Node:
    """A run of tokens that always occur together. ``start`` is the position of the first one in every sequence through
    this node.
    """

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
    """What stands behind one cached prefix: ``rows`` are subtrees to batch freely; ``cached`` are nodes to extend the
    prefix with.

    ``prefix`` is the last node of the prefix, or None for an empty one.
    """

    prefix: Node | None
    rows: tuple[Node, ...]
    cached: tuple[Node, ...]


def build(sequences: Sequence[Ids]) -> Node:
    """The tree of the sequences. The root has no tokens; equal sequences end at one node."""
    order = sorted(range(len(sequences)), key=lambda i: sequences[i])
    root = Node((), 0, None)
    path, previous = [root], Ids()
    for number in order:
        ids = sequences[number]
        shared = _common(previous, ids)
        while path[-1].start >= shared and len(path) > 1:
            path.pop()
        if path[-1].stop > shared:
            path.append(_split(path.pop(), shared))
        if len(ids) > shared:
            node = Node(ids[shared:], shared, path[-1])
            path[-1].children.append(node)
            path.append(node)
        path[-1].ends.append(number)
        previous = ids
    return _measured(root)


def plan(root: Node, row_tokens: int, worth: int = _WORTH_CACHING) -> list[Pass]:
    """Cut the tree into passes: every ``cached`` node of a pass is the ``prefix`` of a later one. Changes the tree.

    Args:
        row_tokens: largest subtree that becomes one row.
        worth: tokens that caching a prefix must save.
    """
    passes: list[Pass] = []
    waiting: list[tuple[Node | None, list[Node]]] = [(None, [root])]
    while waiting:
        prefix, nodes = waiting.pop()
        rows, cached = _sort_out(nodes, row_tokens, worth)
        passes.append(Pass(prefix, tuple(rows), tuple(cached)))
        waiting += [(node, list(node.children)) for node in reversed(cached)]
    return passes


def flatten(top: Node) -> list[Node]:
    """The nodes of a subtree, every node before its children."""
    nodes, stack = [], [top]
    while stack:
        node = stack.pop()
        nodes.append(node)
        stack += reversed(node.children)
    return nodes


def _sort_out(nodes: list[Node], row_tokens: int, worth: int) -> tuple[list[Node], list[Node]]:
    rows: list[Node] = []
    cached: list[Node] = []
    stack = list(reversed(nodes))
    while stack:
        node = stack.pop()
        if (node.size <= row_tokens and node.ids) or not node.children:
            rows.append(node)
        elif node.ids and len(node.ids) * (len(node.children) - 1) >= worth:
            cached.append(node)
        else:
            stack += reversed(_dissolve(node))
    return [node for node in rows if node.ids], cached


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
    """Cut a node before position ``at``. The front takes its place in the tree; the node becomes the only child of the
    front.
    """
    front = Node(node.ids[: at - node.start], node.start, node.parent, [node])
    if node.parent is not None:
        node.parent.children[node.parent.children.index(node)] = front
    node.ids, node.start, node.parent = node.ids[at - node.start :], at, front
    return front


def _common(a: Ids, b: Ids) -> int:
    """Length of the common prefix."""
    for i, (x, y) in enumerate(zip(a, b)):
        if x != y:
            return i
    return min(len(a), len(b))


def _measured(root: Node) -> Node:
    for node in reversed(flatten(root)):
        node.size = len(node.ids) + sum(child.size for child in node.children)
    return root

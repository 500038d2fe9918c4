"""Driving a decoder's own layers over packed rows, as deep as something in them still needs.

A layer that the whole row passes is called as it is, but for its attention. An exit layer that many leave, and the last
one, is opened first: keys and values of all tokens, but only the last token of each suffix goes through the whole
layer. Its state is all that a head reads. Then the layer is closed for what survives. No key or value outlives its
layer.

Shapes: T packed tokens, R pairs, D model width, E head width.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from optirag_core.engine.attention import DecoderLayer, cascade, with_cascade
from optirag_core.engine.layout import Layout, PackedGroup, PromptPart, Queries
from optirag_core.errors import ModelError

Rotary = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Flight:
    """A packed row on its way: the states that the next layer reads."""

    layout: Layout
    hidden: Tensor  # [1, T, D]
    depth: int  # layers behind it
    window: tuple[Tensor, ...]  # [R, D] each: h of the last tokens at the latest layers, this depth's last

    def halves(self) -> tuple["Flight", "Flight"]:
        """Half of the suffixes each; a prefix that has suffixes in both is in both."""
        middle, pairs = len(self.layout.pairs) // 2, range(len(self.layout.pairs))
        return self.keep([pair < middle for pair in pairs]), self.keep([pair >= middle for pair in pairs])

    def keep(self, alive: Sequence[bool]) -> "Flight":
        """Some of its suffixes [R], at least one, and their prefixes."""
        layout, tokens = self.layout.keep(alive)
        tokens, pairs = tokens.to(self.hidden.device), torch.tensor(alive, device=self.hidden.device)
        return Flight(layout, self.hidden[:, tokens], self.depth, tuple(states[pairs] for states in self.window))


def merge(flights: Sequence[Flight]) -> Flight:
    """One row of rows at the same depth."""
    if len(flights) == 1:
        return flights[0]
    groups = tuple(group for flight in flights for group in flight.layout.groups)
    hidden = torch.cat([flight.hidden for flight in flights], dim=1)  # [1, T, D]
    window = tuple(torch.cat(states) for states in zip(*(flight.window for flight in flights), strict=True))
    return Flight(Layout(groups), hidden, flights[0].depth, window)


@dataclass(frozen=True)
class OpenLayer:
    """A layer of which only the last tokens have come out; closing it takes its inputs."""

    flight: Flight  # before the layer
    layer: DecoderLayer
    inputs: "list[LayerInputs]"  # one, until it is closed
    last: Tensor  # [R, D] h^(l) of the last tokens

    @property
    def layout(self) -> Layout:
        return self.flight.layout

    @property
    def window(self) -> tuple[Tensor, ...]:
        """As a flight's behind this layer, and maybe one more state."""
        return (*self.flight.window, self.last)


@dataclass(frozen=True)
class LayerInputs:
    """What attention reads of a row."""

    normed: Tensor  # [1, T, D]
    keys: Tensor  # [1, heads, T, E]
    values: Tensor
    rotary: Rotary

    def at(self, tokens: Tensor) -> "LayerInputs":
        cos, sin = (angles[:, tokens] for angles in self.rotary)
        return LayerInputs(self.normed[:, tokens], self.keys[:, :, tokens], self.values[:, :, tokens], (cos, sin))


class Decoder:
    """The layers of a `transformers` decoder, and what is known of their inside."""

    def __init__(
        self, model: PreTrainedModel, *, window: int, frozen_prefix_after: int | None = None, compiled: bool = False
    ) -> None:
        """
        Args:
            window: m, the number of earlier states of the last tokens that are kept.
            frozen_prefix_after: the prefix's hidden states stay as they are above this layer.
            compiled: full layers go through torch.compile.

        Raises:
            ModelError: a layer taken apart gives something else than the whole layer.
        """
        self.num_layers = model.config.num_hidden_layers
        self._model = model.base_model
        self._window = window
        self._frozen_after = self.num_layers if frozen_prefix_after is None else frozen_prefix_after
        own = [with_cascade(layer) for layer in self._model.layers]
        self._layers = [torch.compile(layer) if compiled else layer for layer in own]
        self._rotate = sys.modules[type(self._model.layers[0].self_attn).__module__].apply_rotary_pos_emb
        self._check_taken_apart()

    def embed(self, parts: Sequence[PromptPart]) -> Flight:
        """Prompts as a row at depth 0."""
        layout = Layout.of(parts)
        ids = [token for part in parts for tokens in (part.prefix, *part.suffixes) for token in tokens]
        hidden = self._model.embed_tokens(torch.tensor(ids, device=self._model.device)[None])  # [1, T, D]
        return Flight(layout, hidden, 0, (self._last(layout, hidden),))

    def advance(self, flight: Flight, depth: int) -> Flight:
        """All tokens through all layers up to and with `depth`."""
        if flight.depth == depth:
            return flight
        layout, hidden, window = flight.layout, flight.hidden, list(flight.window)
        rotary = self._rotary(layout, hidden)
        for number in range(flight.depth, depth):
            if number < self._frozen_after:
                queries = layout.all_queries
                hidden = self._layers[number](hidden, attention_mask=None, position_embeddings=rotary, queries=queries)
            else:
                layer, queries = self._model.layers[number], layout.suffix_queries
                attended = self._attend(layer, self._inputs(layer, layout, hidden), queries)
                hidden = _replaced(hidden, queries, self._leave(layer, _rows(hidden, queries), attended))
            window.append(self._last(layout, hidden))
        return Flight(layout, hidden, depth, tuple(window[-self._window - 1 :]))

    def open_next(self, flight: Flight) -> OpenLayer:
        """Only the last tokens of the suffixes through the next layer."""
        layer, layout = self._model.layers[flight.depth], flight.layout
        inputs = self._inputs(layer, layout, flight.hidden)
        queries = layout.last_queries
        last = self._leave(layer, _rows(flight.hidden, queries), self._attend(layer, inputs, queries))
        return OpenLayer(flight, layer, [inputs], last[0])

    def close(self, opened: OpenLayer, alive: Sequence[bool]) -> Flight:
        """The rest of the layer for the suffixes that are alive [R], at least one, and for their prefixes."""
        layer, layout, hidden, depth = opened.layer, opened.layout, opened.flight.hidden, opened.flight.depth
        window = opened.window[-self._window - 1 :]
        inputs = opened.inputs.pop()  # their memory is the MLP's
        if not all(alive):
            layout, tokens = layout.keep(alive)
            tokens, pairs = tokens.to(hidden.device), torch.tensor(alive, device=hidden.device)
            hidden, inputs = hidden[:, tokens], inputs.at(tokens)  # [1, T, D] -> [1, T', D]
            window = tuple(states[pairs] for states in window)  # [R, D] -> [R', D]
        queries = self._changing(depth, layout)
        attended = [self._attend(layer, inputs, queries)]
        del inputs
        finished = self._leave(layer, _rows(hidden, queries), attended.pop())
        return Flight(layout, _replaced(hidden, queries, finished), depth + 1, window)

    def _changing(self, depth: int, layout: Layout) -> Queries:
        """The tokens that the next layer changes."""
        return layout.suffix_queries if depth >= self._frozen_after else layout.all_queries

    def _inputs(self, layer: DecoderLayer, layout: Layout, hidden: Tensor) -> LayerInputs:
        rotary = self._rotary(layout, hidden)
        normed = layer.input_layernorm(hidden)  # [1, T, D]
        keys = self._rotated(self._heads(layer.self_attn, "k", normed), rotary)
        return LayerInputs(normed, keys, self._heads(layer.self_attn, "v", normed), rotary)

    def _attend(self, layer: DecoderLayer, inputs: LayerInputs, queries: Queries) -> Tensor:
        """[1, Tq, heads * E]."""
        cos, sin = (_rows(angles, queries) for angles in inputs.rotary)
        q = self._rotated(self._heads(layer.self_attn, "q", _rows(inputs.normed, queries)), (cos, sin))
        scaling = layer.self_attn.scaling
        attended, _ = cascade(layer.self_attn, q, inputs.keys, inputs.values, None, queries=queries, scaling=scaling)
        return attended.flatten(2)

    @staticmethod
    def _leave(layer: DecoderLayer, hidden: Tensor, attended: Tensor) -> Tensor:
        """[1, Tq, D] out of the layer."""
        hidden = hidden + layer.self_attn.o_proj(attended)
        del attended
        return hidden + layer.mlp(layer.post_attention_layernorm(hidden))

    @staticmethod
    def _heads(attention: Any, kind: str, normed: Tensor) -> Tensor:
        """[1, T, D] -> [1, heads, T, E]."""
        states = getattr(attention, f"{kind}_proj")(normed).unflatten(-1, (-1, attention.head_dim))
        if norm := getattr(attention, f"{kind}_norm", None):  # Qwen3
            states = norm(states)
        return states.transpose(1, 2)

    def _rotated(self, states: Tensor, rotary: Rotary) -> Tensor:
        return self._rotate(states, states[:, :0], *rotary)[0]  # it takes queries and keys: here no heads of the latter

    def _rotary(self, layout: Layout, hidden: Tensor) -> Rotary:
        return self._model.rotary_emb(hidden, position_ids=layout.positions[None].to(hidden.device))

    @staticmethod
    def _last(layout: Layout, hidden: Tensor) -> Tensor:
        return _rows(hidden, layout.last_queries)[0]  # [1, T, D] -> [R, D]

    @torch.inference_mode()
    def _check_taken_apart(self) -> None:
        """`open_next` and `close` call the parts of a layer one by one, which is right for Llama's relatives only."""
        layout = Layout((PackedGroup(user_group=0, prefix=5, suffixes=(2, 3), candidates=(0, 1)),))
        weight = self._model.embed_tokens.weight
        hidden = weight.std() * torch.randn(10, weight.size(1), generator=torch.Generator().manual_seed(0)).to(weight)
        flight = Flight(layout, hidden[None], depth=0, window=(hidden[:2],))
        try:
            whole = with_cascade(self._model.layers[0])(
                flight.hidden, attention_mask=None, position_embeddings=self._rotary(layout, flight.hidden),
                queries=layout.all_queries,
            )  # fmt: skip
            opened = self.open_next(flight)
            apart = self.close(opened, [True, True]).hidden
        except AttributeError as error:
            raise ModelError(f"{type(self._model).__name__}: its layers are not built like Llama's: {error}") from None
        difference = (whole.float() - apart.float()).abs().max() / whole.float().abs().max()
        if not difference < 0.02:  # bf16 has 8 bits
            raise ModelError(
                f"{type(self._model).__name__}: a layer taken apart differs from the whole one by {difference:.1%}: "
                "use a Llama, Mistral or Qwen decoder"
            )


def _rows(states: Tensor, queries: Queries) -> Tensor:
    return states if queries.rows is None else states[:, queries.rows.to(states.device)]  # [1, T, D] -> [1, Tq, D]


def _replaced(hidden: Tensor, queries: Queries, finished: Tensor) -> Tensor:
    """The row with new states of the tokens that asked."""
    if queries.rows is None:
        return finished
    return hidden.index_copy(1, queries.rows.to(hidden.device), finished)

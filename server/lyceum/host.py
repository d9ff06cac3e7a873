"""The models of a configuration: files become engines, which get their libraries and instructions; upstreams become
models too.

Law: a model that does not load is named and left out, and the others serve; only when none is left is that
an error. What its writer can mend in the configuration is a ConfigError at once.
"""

from __future__ import annotations

import asyncio
import os
import re
import sys
from collections.abc import Mapping
from typing import Protocol

import httpx2 as httpx

from lyceum.config import Config, ModelTable, UpstreamTable
from lyceum.engine import EmbeddingEngine, Engine, EngineSettings, Fleet, read_card
from lyceum.errors import ConfigError, ModelError
from lyceum.library import Index, Prompted, Reader
from lyceum.ports import Embedder, Limits, Model, Offer
from lyceum.upstream import Patience, Pool, UpstreamEmbedder, UpstreamModel, UpstreamSettings

MB = 1_000_000


class Closing(Protocol):
    def close(self) -> None: ...


class Host:
    """Blocks until every model that fits into memory is loaded. Progress and complaints go to stderr."""

    def __init__(self, config: Config, node_id: str) -> None:
        self.models: list[Model] = []
        self.embedders: list[Embedder] = []
        self._closing: list[Closing] = []
        self.pools: list[Pool] = []
        self.broken: set[str] = set()
        self._config = config
        self._node_id = node_id
        self._fleet = Fleet(config.server.memory_mb * MB)
        try:
            self._load()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Ends every engine; may be repeated."""
        for thing in self._closing:
            thing.close()

    def _load(self) -> None:
        for table in sorted(self._config.models, key=lambda table: table.kind != "embedding"):
            self._add_or_complain(table)
        for upstream in self._config.upstreams:
            self._add_upstream(upstream)
        asyncio.run(self._look())
        if self._config.models and not (self.models or self.embedders):
            raise ModelError("none of the models could be loaded; the lines above say why")

    def _add_or_complain(self, table: ModelTable) -> None:
        say(f"loading {self._config.path(table.path).name} ...")
        try:
            self._add(table)
        except ModelError as error:
            self.broken.add(name_of(table, self._config))
            say(f"WITHOUT {name_of(table, self._config)}: {error.message}")

    def _add(self, table: ModelTable) -> None:
        settings, offer = settings_of(table, self._config), self._offer(table)
        if table.kind == "embedding":
            embedder = EmbeddingEngine.load(settings, offer, self._fleet)
            self.embedders.append(embedder)
            self._closing.append(embedder)
            return
        engine = Engine.load(settings, offer, self._fleet)
        self._closing.append(engine)
        self.models.append(self._equipped(engine, table))

    def _add_upstream(self, table: UpstreamTable) -> None:
        try:
            settings = upstream_settings(table, os.environ)
            limits = limits_of(table)
        except ValueError as error:
            raise ConfigError(f"upstream {table.name}: {error}") from None
        offer = Offer(
            table.name,
            table.description,
            tuple(table.topics),
            table.price(),
            limits,
            table.kind,
            node_id=self._node_id,
        )
        pool = Pool(table.name, settings)
        self.pools.append(pool)
        if table.kind == "embedding":
            self.embedders.append(UpstreamEmbedder(pool, settings, offer))
        else:
            self.models.append(UpstreamModel(pool, settings, offer))

    async def _look(self) -> None:
        """Each upstream's owner hears at once which of its servers answer. This loop ends: its client ends with it."""
        async with httpx.AsyncClient() as client:
            await asyncio.gather(*(pool.look(client) for pool in self.pools))

    def _equipped(self, engine: Engine, table: ModelTable) -> Model:
        model: Model = Prompted(engine, table.system) if table.system else engine
        if not table.library:
            return model
        index, embedder = Index.open(self._config.index_path(engine.offer.model)), self._embedder(table)
        self._closing.append(index)
        done = index.refresh(self._config.path(table.library))
        for complaint in done.complaints:
            say(complaint)
        if embedder:
            asyncio.run(index.embed(embedder))
        say(f"{engine.offer.model}: {done.passages} passages, {done.added + done.changed} files read anew")
        return Reader(model, index, table.library_use, table.refusal or engine.card.refusal, embedder)

    def _embedder(self, table: ModelTable) -> Embedder | None:
        if not table.embedder:
            return None
        found = next((each for each in self.embedders if each.offer.model == table.embedder), None)
        if found is None:
            raise ConfigError(
                f'{table.path}: there is no embedding model {table.embedder!r}; add one, kind = "embedding"'
            )
        return found

    def _offer(self, table: ModelTable) -> Offer:
        card = read_card(self._config.path(table.path))
        try:
            return Offer(
                model=table.name or slug(card.name),
                description=table.description or card.description,
                topics=tuple(table.topics) or card.tags,
                price=table.price(),
                limits=limits_of(table),
                kind=table.kind,
                node_id=self._node_id,
            )
        except ValueError as error:
            raise ConfigError(f"model {table.path}: {error}") from None


def limits_of(table: ModelTable | UpstreamTable) -> Limits:
    """Vectors are no answers: an embedding model's limit on these cannot be wrong. Raises ValueError."""
    return Limits(table.n_ctx, min(table.max_tokens, table.n_ctx) if table.kind == "embedding" else table.max_tokens)


def settings_of(table: ModelTable, config: Config) -> EngineSettings:
    try:
        return EngineSettings(
            config.path(table.path),
            table.n_ctx,
            table.n_gpu_layers,
            table.threads or None,
            table.queue,
            config.path(table.lora) if table.lora else None,
            table.lora_scale,
            table.refusal or None,
            table.doubt if table.doubt >= 0 else None,
            table.parallel,
            table.system,
        )
    except ValueError as error:
        raise ConfigError(f"model {table.path}: {error}") from None


def upstream_settings(table: UpstreamTable, environment: Mapping[str, str]) -> UpstreamSettings:
    """Raises ValueError for what cannot be right."""
    if table.key_env and not environment.get(table.key_env):
        raise ValueError(f"key_env names the environment variable {table.key_env}, and it is not set")
    return UpstreamSettings(
        tuple(table.urls),
        table.model,
        environment[table.key_env] if table.key_env else "",
        frozenset(table.supports),
        table.parallel,
        table.queue,
        Patience(table.connect_s, table.first_token_s, table.between_tokens_s),
    )


def name_of(table: ModelTable, config: Config) -> str:
    """As configured, else the file's title as a name: `Austrian economics` becomes `austrian-economics`."""
    if table.name:
        return table.name
    try:
        title = read_card(config.path(table.path)).name
    except ModelError:
        title = config.path(table.path).stem
    return slug(title)


def slug(title: str) -> str:
    return re.sub(r"[^a-z0-9._]+", "-", title.lower()).strip("-")[:64] or "model"


def say(words: str) -> None:
    print(f"lyceum: {words}", file=sys.stderr, flush=True)

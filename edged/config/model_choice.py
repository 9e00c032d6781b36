"""Which model and language the settings ask for."""

from __future__ import annotations

from dataclasses import replace

from edged.config.settings import Settings
from edged.models import choice
from edged.models.catalogue import shipped
from edged.models.choice import ModelChoice
from edged.options import Options

DECISIVE = frozenset(("model", "language", "models_dir", "threads", "second_opinion"))
"""The settings that decide which model is loaded."""


def choice_of(settings: Settings) -> ModelChoice:
    """The model that the settings ask for, and its language. Raises ModelError if they ask for one
    that is not installed."""
    return choice.chosen(settings.models_dir, settings.model, settings.language)


def second_opinion_of(settings: Settings, chosen: ModelChoice) -> str | None:
    """The model that the settings ask about the texts of turns; None without one."""
    return choice.second_opinion_for(
        settings.models_dir, chosen.entry.name, settings.second_opinion
    )


def options_of(settings: Settings, chosen: ModelChoice) -> Options:
    """The session options that the settings ask for, in the language of the choice."""
    return replace(settings.options(), language=chosen.language)


def offered_languages(settings: Settings) -> tuple[str, ...]:
    """What EDGED_LANGUAGE may be without fetching anything, and what it is."""
    installed = choice.installed_models(settings.models_dir)
    languages = choice.languages_of(shipped(), installed, settings.model)
    known = settings.language in languages
    return languages if known else (*languages, settings.language)

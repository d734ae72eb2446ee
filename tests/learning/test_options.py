"""The command line of a training: its help tells the defaults, whoever sets them."""

from dataclasses import fields

import studies
from learning import options
from learning.settings import Settings


def test_help_shows_every_default():
    known = options.parser()
    shown = {action.dest: action.help for action in known._actions}
    for name in (one.name for one in fields(Settings)[6:]):
        value = getattr(Settings, name)
        if value is not None and not isinstance(value, bool):
            assert f"default {options.MEANINGS.get(name, value)}" in shown[name]
    studies_own = " ".join(known.epilog.split())
    for key, study in studies.STUDIES.items():
        for name, value in study.training.items():
            assert f"{name} {value}" in studies_own.split(f"{key}:", 1)[1], (key, name)

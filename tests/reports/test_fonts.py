"""The font of a language: ours for Latin letters, else one that is installed."""

from reports import fonts


def test_latin_letters_need_no_installed_font():
    path, face = fonts.font_for("en")
    assert path.is_file() and face == 0


def test_the_file_of_a_font_is_found_by_its_name(tmp_path, monkeypatch):
    (tmp_path / "simhei.ttf").touch()
    monkeypatch.setattr("matplotlib.font_manager.findSystemFonts", lambda *_: [str(tmp_path / "simhei.ttf")])
    fonts.font_for.cache_clear()
    assert fonts.font_for("zh") == (tmp_path / "simhei.ttf", 0)
    fonts.font_for.cache_clear()

import ast
import traceback

from amqflow.tracebacks import format_error


def outer(known):
    try:
        return known["inner"]
    except KeyError as error:
        raise ValueError("outer") from error


def failed():
    try:
        outer({})
    except ValueError as error:
        return error


def test_it_is_what_python_writes_but_for_the_carets():
    error = failed()
    expected = "".join(traceback.format_exception(error)).splitlines()
    lines = format_error(error).splitlines()
    assert lines == [line for line in expected if line.strip(" ^~") or line in lines]
    assert "KeyError: 'inner'" in lines
    assert lines[-1] == "ValueError: outer"


def test_groups_are_written_with_their_parts():
    group = ExceptionGroup("both", [failed(), OSError("away")])
    text = format_error(group)
    assert "ExceptionGroup: both" in text
    assert "ValueError: outer" in text
    assert "OSError: away" in text


def test_no_python_is_parsed_for_it(monkeypatch):
    """A task in another thread may be parsing: both would raise SystemError."""
    error = ExceptionGroup("g", [failed()])

    def parse(*_, **__):
        raise SystemError("AST constructor recursion depth mismatch")

    monkeypatch.setattr(ast, "parse", parse)
    assert "KeyError" in format_error(error)

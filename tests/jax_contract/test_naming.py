"""Under which names JAX's errors speak of what is traced."""

import functools
import inspect

import jax
import pytest


def users(a, b):
    """A function of the user's."""


def traced(*given):
    return given[0] if given[-1] > 0 else -given[0]


def error_of(function, *arguments):
    with pytest.raises(jax.errors.TracerBoolConversionError) as caught:
        jax.make_jaxpr(function)(*arguments)
    return str(caught.value)


def test_a_function_bears_the_names_of_the_one_that_it_wraps():
    wrapped = functools.wraps(users)(lambda *given: traced(*given))
    text = error_of(wrapped, 1.0, 2.0)
    assert "the function users at" in text
    assert "the argument b." in text


def test_a_signature_of_its_own_goes_before_that():
    wrapped = functools.wraps(users)(lambda *given: traced(*given))
    kind = inspect.Parameter.POSITIONAL_ONLY
    names = [inspect.Parameter(name, kind) for name in ("w", "a", "c")]
    wrapped.__signature__ = inspect.Signature(names)  # type: ignore[attr-defined]
    text = error_of(wrapped, 1.0, 2.0, 3.0)
    assert "the function users at" in text
    assert "the argument c." in text


def test_a_setting_says_which_frames_are_shown():
    assert jax.config.jax_traceback_filtering in (  # type: ignore[attr-defined]
        *("auto", "off", "tracebackhide", "remove_frames", "quiet_remove_frames"),
    )


def test_a_note_tells_of_hidden_frames():
    with pytest.raises(jax.errors.TracerBoolConversionError) as caught:
        jax.make_jaxpr(traced)(1.0)
    assert "JAX_TRACEBACK_FILTERING" in "\n".join(caught.value.__notes__)

"""The methods that many values share: they say what those that attrs generates would say."""

from __future__ import annotations

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raftd import commands, protocol
from raftd.values import Value


@attrs.frozen(kw_only=True, repr=False, eq=False)
class Shared(Value):
    number: int
    text: str = ""
    more: tuple[object, ...] = ()
    unseen: int = attrs.field(default=0, eq=False, repr=False)


@attrs.frozen(kw_only=True)
class Generated:
    number: int
    text: str = ""
    more: tuple[object, ...] = ()
    unseen: int = attrs.field(default=0, eq=False, repr=False)


@attrs.frozen(kw_only=True, repr=False, eq=False)
class Derived(Shared):
    extra: int = 0


@attrs.frozen(kw_only=True, repr=False, eq=False)
class Alike(Value):
    number: int


@attrs.frozen(kw_only=True, repr=False, eq=False)
class AlikeToo(Value):
    number: int


FIELDS = st.fixed_dictionaries(
    {
        "number": st.integers(0, 1),
        "text": st.sampled_from(["", "a"]),
        "more": st.lists(st.integers(0, 1), max_size=1).map(tuple),
        "unseen": st.integers(0, 1),
    }
)


@given(FIELDS, FIELDS)
def test_shared_methods_say_what_generated_ones_say(one, other):
    assert (Shared(**one) == Shared(**other)) is (Generated(**one) == Generated(**other))
    assert (Shared(**one) != Shared(**other)) is (Generated(**one) != Generated(**other))
    assert repr(Shared(**one)) == repr(Generated(**one)).replace("Generated", "Shared")
    if Shared(**one) == Shared(**other):
        assert hash(Shared(**one)) == hash(Shared(**other))


def test_values_of_different_classes_are_never_equal():
    assert Alike(number=1) != AlikeToo(number=1)
    assert Shared(number=1) != Generated(number=1)
    assert Shared(number=1) != Derived(number=1)
    assert Derived(number=1) != Shared(number=1)
    assert Derived(number=1, extra=1) != Derived(number=1)
    assert repr(Derived(number=1)) == "Derived(number=1, text='', more=(), extra=0)"


def test_a_value_that_holds_what_has_no_hash_has_none():
    with pytest.raises(TypeError, match="unhashable"):
        hash(Shared(number=1, more=([],)))


@pytest.mark.parametrize("module", [protocol, commands], ids=lambda module: module.__name__)
def test_every_value_of_the_protocol_and_of_the_log_shares_them(module):
    made = [
        kind
        for kind in vars(module).values()
        if isinstance(kind, type) and attrs.has(kind) and kind.__module__ == module.__name__
    ]
    assert len(made) > 15
    for kind in made:
        assert issubclass(kind, Value), f"{kind.__name__}: import time for everybody"
        generated = {"__repr__", "__eq__", "__ne__", "__hash__"} & vars(kind).keys()
        assert generated == set(), f"{kind.__name__} says repr=False, eq=False"

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lvolfs.rpc.framing import MAX_DEPTH, FramingError, ObjectStream

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


@given(
    values=st.lists(st.dictionaries(st.text(), json_values), max_size=5),
    separator=st.sampled_from(["", " ", "\n", "\r\n\t"]),
    pieces=st.lists(st.integers(1, 7), min_size=1),
)
def test_any_cutting_gives_the_same_objects(
    values: list[dict[str, object]], separator: str, pieces: list[int]
) -> None:
    data = separator.join(json.dumps(value, ensure_ascii=False) for value in values).encode(
        errors="surrogatepass"
    )
    stream = ObjectStream()
    found = []
    position = 0
    step = 0
    while position < len(data):
        size = pieces[step % len(pieces)]
        found += stream.feed(data[position : position + size])
        position += size
        step += 1
    assert found == values
    assert not stream.partial


def test_objects_before_a_broken_one_are_delivered() -> None:
    stream = ObjectStream()
    with pytest.raises(FramingError, match="must be a JSON object"):
        stream.feed(b'{"a": 1} nonsense')
    assert stream.completed == [{"a": 1}]


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"5", "must be a JSON object"),
        (b'{"a":}', "not JSON"),
        (b'{"a": "\xff"}', "not JSON"),
        (b'{"a": NaN}', "NaN is not JSON"),
        (b"[}", "not JSON"),
        (b"[" * (MAX_DEPTH + 1), "nested deeper"),
    ],
)
def test_broken_input_is_refused(data: bytes, reason: str) -> None:
    with pytest.raises(FramingError, match=reason):
        ObjectStream().feed(data)


def test_a_request_that_never_ends_is_refused() -> None:
    stream = ObjectStream(limit=1000)
    stream.feed(b'{"a": "')
    with pytest.raises(FramingError, match="larger than 1000 bytes"):
        stream.feed(b"x" * 1000)


def test_large_pipelines_are_not_limited_as_a_whole() -> None:
    stream = ObjectStream(limit=100)
    one = json.dumps({"a": "x" * 80}).encode()
    assert len(stream.feed(one * 50)) == 50

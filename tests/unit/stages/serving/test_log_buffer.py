"""What was put into a buffer comes out whole, in order, once."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from platform_assets.stages.serving.log_buffer import LogBuffer


@given(st.lists(st.tuples(st.binary(max_size=40), st.integers(1, 3), st.sampled_from("ab")), max_size=20))
def test_chunks_hold_every_frame_once_in_order_with_its_version(frames):
    buffer, chunks, until = LogBuffer(64), [], 0
    for frame, rows, digest in frames:
        until += rows
        if not buffer.has_room(len(frame)):
            chunks.append(buffer.take())
        buffer.put(frame, digest=digest, description=digest.encode(), rows=rows, until=until)
    chunks.append(buffer.take())
    assert b"".join(chunk.frames for chunk in chunks) == b"".join(frame for frame, _, _ in frames)
    assert sum(chunk.rows for chunk in chunks) == until
    assert {digest for chunk in chunks for digest in chunk.descriptions} == {digest for _, _, digest in frames}
    if frames:
        assert chunks[-1].until == until
    assert buffer.take().rows == 0


def test_a_frame_longer_than_the_buffer_fits_an_empty_one():
    buffer = LogBuffer(8)
    assert buffer.has_room(100)
    buffer.put(b"x" * 100, digest="a", description=b"", rows=1, until=1)
    assert not buffer.has_room(1)
    assert buffer.take().frames == b"x" * 100

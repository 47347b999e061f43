"""What programs move between devices, read from their text."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh

from jaxcnn.learn.collectives import Collective, collectives, total_bytes

TEXT = """
  %ar = (f32[8]{0}, /*index=1*/f32[], bf16[3,4]{1,0}) all-reduce(%a, %b, %c), channel_id=1, replica_groups={{0,2},{1,3}}
  ROOT %ars = f32[10,10]{1,0} all-reduce-start(%p), channel_id=2, replica_groups=[1,8]<=[8], to_apply=%r
  %ard = f32[10,10]{1,0} all-reduce-done(%ars)
  %ag = (f32[4]{0}, f32[16]{0}) all-gather-start(f32[4]{0} %p), replica_groups=[2,4]<=[4,2]T(1,0), dimensions={0}
  %agd = f32[16]{0} all-gather-done(%ag)
  %rs = f32[4]{0} reduce-scatter(%p), replica_groups={{0,1,2,3}}, metadata={op_name="jit(f)/psum_scatter"}
  %cp = u8[2,5]{1,0} collective-permute(%p), source_target_pairs={{0,1},{1,0}}
  %cps = (u8[2,5]{1,0}, u8[2,5]{1,0}, u32[], u32[]) collective-permute-start(%p), source_target_pairs={{0,1},{1,0}}
  %whole = f32[2]{0} all-reduce(%p), replica_groups={}, to_apply=%r
  %alone = f32[2]{0} all-reduce(%p), replica_groups={{0},{1}}, to_apply=%r
  %mesh = f32[8]{0} all-gather(%p), replica_groups=mesh['axis_0'=2,'axis_1'=1,'axis_2'=4] {'axis_2'}, dimensions={0}
  %part = f32[8]{0} all-gather(%p), replica_groups=mesh['a'=2,'b'=4] {'a','b':(2)2}, dimensions={0}
  %ids = f32[8]{0} all-gather(%p), replica_groups=mesh['a'=2,'b'=2], device_ids=(0,2,1,3) {'b'}, dimensions={0}
  %gte = f32[8]{0} get-tuple-element(%ar), index=0, metadata={op_name="all-reduce("}
"""


def test_kinds_bytes_and_groups_are_read_in_every_form_that_xla_writes():
    rows = ((0, 2, 4, 6), (1, 3, 5, 7))
    assert collectives(TEXT) == [
        Collective("all-reduce", 3, 8 * 4 + 4 + 12 * 2, ("bf16", "f32"), 2, ((0, 2), (1, 3)), ""),
        Collective("all-reduce", 1, 400, ("f32",), 8, (tuple(range(8)),), ""),
        Collective("all-gather", 1, 64, ("f32",), 4, rows, ""),
        Collective("reduce-scatter", 1, 64, ("f32",), 4, ((0, 1, 2, 3),), "jit(f)/psum_scatter"),
        Collective("collective-permute", 1, 10, ("u8",), 2, ((0, 1), (1, 0)), ""),
        Collective("collective-permute", 1, 10, ("u8",), 2, ((0, 1), (1, 0)), ""),
        Collective("all-reduce", 1, 8, ("f32",), 0, (), ""),
        Collective("all-gather", 1, 32, ("f32",), 4, ((0, 1, 2, 3), (4, 5, 6, 7)), ""),
        Collective("all-gather", 1, 32, ("f32",), 4, ((0, 1, 4, 5), (2, 3, 6, 7)), ""),
        Collective("all-gather", 1, 32, ("f32",), 2, ((0, 2), (1, 3)), ""),
    ]
    assert total_bytes(collectives(TEXT), "collective-permute") == 20


@pytest.mark.parametrize(
    ("kind", "moved", "operation"),
    [
        ("all-reduce", 64, lambda x: jax.lax.psum(x, "data")),
        ("all-gather", 256, lambda x: jax.lax.all_gather(x, "data")),
        ("reduce-scatter", 64, lambda x: jax.lax.psum_scatter(x, "data", tiled=True)),
        ("all-to-all", 64, lambda x: jax.lax.all_to_all(x, "data", 0, 0, tiled=True)),
        ("collective-permute", 64, lambda x: jax.lax.ppermute(x, "data", [(0, 1), (1, 2), (2, 3), (3, 0)])),
    ],
)
def test_a_compiled_program_has_the_collective_that_was_asked_for(kind, moved, operation):
    mesh = Mesh(np.array(jax.devices()[:4]), ("data",))
    mapped = jax.shard_map(operation, mesh=mesh, in_specs=jax.P(), out_specs=jax.P("data"), check_vma=False)
    (found,) = collectives(jax.jit(mapped).lower(jnp.ones((16,))).compile().as_text())
    assert (found.kind, found.bytes, found.dtypes) == (kind, moved, ("f32",))
    if kind != "collective-permute":
        assert (found.group_size, found.replica_groups) == (4, ((0, 1, 2, 3),))

"""`half` for OpenCL devices without cl_khr_fp16, as CPUs are: storage only, exact conversions.

Kernels here load, store and convert halfs but never calculate with them. So an opaque struct with
overloaded `vload`, `vstore` and `convert` functions stands in for the type: half arithmetic in a
kernel is then an error of the OpenCL compiler, never a wrong result. Loads and stores of halfs as
floats are core OpenCL, correctly rounded.
"""

from __future__ import annotations

_EXTENSION = "cl_khr_fp16"
_WIDTHS = (2, 4, 8)
_SPACES = ("__global", "__local", "__private")

_SCALARS = """
#define OVERLOAD __attribute__((overloadable))
typedef struct { ushort bits; } storage_half;
static inline float OVERLOAD storage_float(storage_half h) {
  ushort bits = h.bits; return vload_half(0, (const __private half*)&bits);
}
static inline float OVERLOAD storage_float(float x) { return x; }
static inline float OVERLOAD storage_float(int x) { return (float)x; }
static inline storage_half OVERLOAD to_half(float x) {
  storage_half h; vstore_half_rte(x, 0, (__private half*)&h.bits); return h;
}
"""

_VECTORS = """
typedef struct {{ ushort{w} bits; }} storage_half{w};
static inline float{w} OVERLOAD storage_float{w}(storage_half{w} h) {{
  ushort{w} bits = h.bits; return vload_half{w}(0, (const __private half*)&bits);
}}
static inline float{w} OVERLOAD storage_float{w}(float{w} x) {{ return x; }}
static inline float{w} OVERLOAD storage_float{w}(int{w} x) {{ return convert_float{w}(x); }}
static inline storage_half{w} OVERLOAD to_half{w}(float{w} x) {{
  storage_half{w} h; vstore_half{w}_rte(x, 0, (__private half*)&h.bits); return h;
}}
"""

_MEMORY = """
static inline storage_half{w} OVERLOAD vload{w}(size_t i, const {space} storage_half* p) {{
  storage_half{w} h; h.bits = vload{w}(i, (const {space} ushort*)p); return h;
}}
static inline void OVERLOAD vstore{w}(storage_half{w} h, size_t i, {space} storage_half* p) {{
  vstore{w}(h.bits, i, ({space} ushort*)p);
}}
"""

_MACROS = """
#define half{w} storage_half{w}
#define convert_half{w}(x) to_half{w}(x)
#define convert_float{w}(x) storage_float{w}(x)
"""


def with_half_storage(source: str) -> str:
    """`source`, as TVM generates it, for a device that can't calculate with halfs."""
    if "half" not in source:
        return source
    parts = [f"#undef {_EXTENSION}", _SCALARS]
    for width in _WIDTHS:
        parts.append(_VECTORS.format(w=width))
        parts += [_MEMORY.format(w=width, space=space) for space in _SPACES]
    parts.append("#define half storage_half")
    parts.append("#define convert_half(x) to_half(x)")
    parts.append("#define convert_float(x) storage_float(x)")
    parts += [_MACROS.format(w=width) for width in _WIDTHS]
    parts.append(f"#define {_EXTENSION} 1")
    pragma = f"#pragma OPENCL EXTENSION {_EXTENSION} : enable"
    return "\n".join(parts) + source.replace(pragma, "")

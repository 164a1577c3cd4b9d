#include "simd_kernels.h"

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
// 32 registers: 24 sums, 4 columns, a factor.
#include <immintrin.h>
#pragma GCC target("avx512f,fma")
#define EQL_SET avx512
#define EQL_BYTES 64
#define EQL_WIDE 4
#define EQL_MM(name) _mm512_##name
#include "simd_x86.inl"
#endif

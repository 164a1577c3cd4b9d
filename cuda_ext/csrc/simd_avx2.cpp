#include "simd_kernels.h"

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
// 16 registers: 12 sums, 2 columns, a factor.
#include <immintrin.h>
#pragma GCC target("avx2,fma")
#define EQL_SET avx2
#define EQL_BYTES 32
#define EQL_WIDE 2
#define EQL_MM(name) _mm256_##name
#include "simd_x86.inl"
#endif

#include "simd_kernels.h"

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#include <immintrin.h>
#pragma GCC target("avx512f,fma")

namespace equilidar::avx512 {
namespace {

#include "simd_kernels.inl"

// 32 registers: 24 sums, 4 columns, a factor.
template <typename T>
struct Vector : VectorOf<T, 64> {
  using Type = typename VectorOf<T, 64>::Type;
  static constexpr int kTall = 8, kWide = 4, kShort = 6;
  static Type multiply_add(Type a, Type b, Type c) {
    if constexpr (sizeof(T) == 4) {
      return _mm512_fmadd_ps(a, b, c);
    } else {
      return _mm512_fmadd_pd(a, b, c);
    }
  }
};

}  // namespace

const ConvKernels<float> kFloat{multiply_rows<float>, add_outer_products<float>};
const ConvKernels<double> kDouble{multiply_rows<double>, add_outer_products<double>};

}  // namespace equilidar::avx512
#endif

#include "simd_kernels.h"

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#include <immintrin.h>
#pragma GCC target("avx2,fma")

namespace equilidar::avx2 {
namespace {

#include "simd_kernels.inl"

// 16 registers: 12 sums, 2 columns, a factor.
template <typename T>
struct Vector : VectorOf<T, 32> {
  using Type = typename VectorOf<T, 32>::Type;
  static constexpr int kTall = 8, kWide = 2, kShort = 6;
  static Type multiply_add(Type a, Type b, Type c) {
    if constexpr (sizeof(T) == 4) {
      return _mm256_fmadd_ps(a, b, c);
    } else {
      return _mm256_fmadd_pd(a, b, c);
    }
  }
};

}  // namespace

const ConvKernels<float> kFloat{multiply_rows<float>, add_outer_products<float>};
const ConvKernels<double> kDouble{multiply_rows<double>, add_outer_products<double>};

}  // namespace equilidar::avx2
#endif

#include "simd_kernels.h"

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#include <immintrin.h>
#pragma GCC target("avx2,fma")

namespace equilidar::avx2 {
namespace {

template <typename T>
struct Vector;

// 16 registers: 12 sums, 2 columns, a factor.
template <>
struct Vector<float> {
  using Type = __m256;
  static constexpr int kWidth = 8, kTall = 8, kWide = 2, kShort = 6;
  static Type load(const float* p) { return _mm256_loadu_ps(p); }
  static void store(float* p, Type v) { _mm256_storeu_ps(p, v); }
  static Type broadcast(float x) { return _mm256_set1_ps(x); }
  static Type multiply_add(Type a, Type b, Type c) { return _mm256_fmadd_ps(a, b, c); }
};

template <>
struct Vector<double> {
  using Type = __m256d;
  static constexpr int kWidth = 4, kTall = 8, kWide = 2, kShort = 6;
  static Type load(const double* p) { return _mm256_loadu_pd(p); }
  static void store(double* p, Type v) { _mm256_storeu_pd(p, v); }
  static Type broadcast(double x) { return _mm256_set1_pd(x); }
  static Type multiply_add(Type a, Type b, Type c) { return _mm256_fmadd_pd(a, b, c); }
};

#include "simd_kernels.inl"

}  // namespace

const ConvKernels<float> kFloat{multiply_rows<float>, add_outer_products<float>};
const ConvKernels<double> kDouble{multiply_rows<double>, add_outer_products<double>};

}  // namespace equilidar::avx2
#endif

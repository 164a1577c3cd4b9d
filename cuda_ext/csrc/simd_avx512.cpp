#include "simd_kernels.h"

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#include <immintrin.h>
#pragma GCC target("avx512f,fma")

namespace equilidar::avx512 {
namespace {

template <typename T>
struct Vector;

// 32 registers: 24 sums, 4 columns, a factor.
template <>
struct Vector<float> {
  using Type = __m512;
  static constexpr int kWidth = 16, kTall = 8, kWide = 4, kShort = 6;
  static Type load(const float* p) { return _mm512_loadu_ps(p); }
  static void store(float* p, Type v) { _mm512_storeu_ps(p, v); }
  static Type broadcast(float x) { return _mm512_set1_ps(x); }
  static Type multiply_add(Type a, Type b, Type c) { return _mm512_fmadd_ps(a, b, c); }
};

template <>
struct Vector<double> {
  using Type = __m512d;
  static constexpr int kWidth = 8, kTall = 8, kWide = 4, kShort = 6;
  static Type load(const double* p) { return _mm512_loadu_pd(p); }
  static void store(double* p, Type v) { _mm512_storeu_pd(p, v); }
  static Type broadcast(double x) { return _mm512_set1_pd(x); }
  static Type multiply_add(Type a, Type b, Type c) { return _mm512_fmadd_pd(a, b, c); }
};

#include "simd_kernels.inl"

}  // namespace

const ConvKernels<float> kFloat{multiply_rows<float>, add_outer_products<float>};
const ConvKernels<double> kDouble{multiply_rows<double>, add_outer_products<double>};

}  // namespace equilidar::avx512
#endif

#include <cstdlib>
#include <cstring>

#include "simd_kernels.h"

namespace equilidar {
namespace generic {
namespace {

#include "simd_kernels.inl"

// What every machine has: 16 bytes of SSE2 or NEON.
template <typename T>
struct Vector : VectorOf<T, 16> {
  using Type = typename VectorOf<T, 16>::Type;
  static constexpr int kTall = 4, kWide = 2, kShort = 4;
  static Type multiply_add(Type a, Type b, Type c) { return a * b + c; }
};

}  // namespace

const ConvKernels<float> kFloat{multiply_rows<float>, add_outer_products<float>};
const ConvKernels<double> kDouble{multiply_rows<double>, add_outer_products<double>};

}  // namespace generic

namespace {

enum class Level { kGeneric, kAvx2, kAvx512 };

// EQUILIDAR_SIMD=generic or avx2 takes a lower level than the machine has: for tests, and to compare.
Level level() {
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
  const char* wish = std::getenv("EQUILIDAR_SIMD");
  if (wish != nullptr && std::strcmp(wish, "generic") == 0) return Level::kGeneric;
  const bool has_avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  if (has_avx2 && __builtin_cpu_supports("avx512f") && (wish == nullptr || std::strcmp(wish, "avx2") != 0)) {
    return Level::kAvx512;
  }
  if (has_avx2) return Level::kAvx2;
#endif
  return Level::kGeneric;
}

const Level kLevel = level();

}  // namespace

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
template <>
const ConvKernels<float>& conv_kernels() {
  return kLevel == Level::kAvx512 ? avx512::kFloat : kLevel == Level::kAvx2 ? avx2::kFloat : generic::kFloat;
}
template <>
const ConvKernels<double>& conv_kernels() {
  return kLevel == Level::kAvx512 ? avx512::kDouble : kLevel == Level::kAvx2 ? avx2::kDouble : generic::kDouble;
}
#else
template <>
const ConvKernels<float>& conv_kernels() {
  return generic::kFloat;
}
template <>
const ConvKernels<double>& conv_kernels() {
  return generic::kDouble;
}
#endif

}  // namespace equilidar

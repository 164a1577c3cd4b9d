// A variant of x86: the including file says its namespace (EQL_SET), the bytes of a register, vectors per row of a block
// (EQL_WIDE) and how intrinsics are called (EQL_MM), and has switched its instruction set on.

namespace equilidar::EQL_SET {
namespace {

#include "simd_kernels.inl"

template <typename T>
struct Vector : VectorOf<T, EQL_BYTES> {
  using Type = typename VectorOf<T, EQL_BYTES>::Type;
  static constexpr int kTall = 8, kWide = EQL_WIDE, kShort = 6;
  static Type multiply_add(Type a, Type b, Type c) {
    if constexpr (sizeof(T) == 4) {
      return EQL_MM(fmadd_ps)(a, b, c);
    } else {
      return EQL_MM(fmadd_pd)(a, b, c);
    }
  }
};

}  // namespace

const ConvKernels<float> kFloat{multiply_rows<float>, add_outer_products<float>};
const ConvKernels<double> kDouble{multiply_rows<double>, add_outer_products<double>};

}  // namespace equilidar::EQL_SET

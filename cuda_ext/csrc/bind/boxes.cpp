// Bindings of ops on boxes.
#include "bind/binding.h"
#include "points_in_boxes.h"

namespace equilidar {
namespace {

Tensor membership(const Tensor& points, const Tensor& boxes) {
  const Tensor p = points.contiguous(), b = boxes.contiguous();
  Tensor inside = at::empty({b.size(0), p.size(0)}, p.options().dtype(at::kBool));
  AT_DISPATCH_FLOATING_TYPES(p.scalar_type(), "membership", [&] {
    EQL_RUN(p, membership, p.const_data_ptr<scalar_t>(), p.size(0), b.const_data_ptr<scalar_t>(), b.size(0),
            inside.mutable_data_ptr<bool>());
  });
  return inside;
}

}  // namespace

EQL_REGISTER("membership", membership)

}  // namespace equilidar
